//! The memory backend beside the naive model, and repositories that are broken on purpose, none of which may agree with it.

use runtree_conformance::model::{Plan, check};

use crate::memory::Memory;
use crate::rejected::Sinner;
use crate::sins::Sin;

/// What a sequence of calls by one caller in one namespace shows; the others are about races, refused input, other namespaces,
/// dropped calls and what a store says of itself, which the suite's cases look at.
const SHOWN_BY_SEQUENCES: &[Sin] = &[
    Sin::SwallowsConflicts,
    Sin::AcknowledgesWhatItDidNotWrite,
    Sin::ClaimsTheYoungestFirst,
    Sin::ClaimsWhatIsNotDue,
    Sin::ForgetsTheWorktree,
    Sin::RenewsExpiredLeases,
    Sin::AcceptsStaleEndings,
    Sin::EndsTwice,
    Sin::CountsReleases,
    Sin::KillsWithoutFencing,
    Sin::RescuesTheLiving,
    Sin::RepeatsAtThePageBorder,
    Sin::ForgetsRejections,
    Sin::TruncatesInstants,
    Sin::IgnoresConcurrencyLimits,
    Sin::ClaimsFromAnyQueue,
    Sin::KeepsTheKeyInRetries,
    Sin::StopsAtTheFirstLoser,
    Sin::ReplacesMetadata,
    Sin::AnnotatesTwice,
    Sin::OrdersMissingValuesLast,
    Sin::InterpolatesPercentiles,
    Sin::EndsLateRunsUnasked,
    Sin::DeletesWhatIsToBeCleanedUp,
];

#[test]
fn the_memory_backend_answers_as_the_model_does() {
    let agreement = check(Memory, &Plan::new()).unwrap_or_else(|other| panic!("{other}"));
    assert!(agreement.sequences() > 0);
}

// The same sequences every time: whether enough of them are drawn to show something must not be a matter of luck.
#[test]
fn sequences_reach_every_kind_of_answer() {
    let plan = Plan::new().cases(256).repeatable();
    let agreement = check(Memory, &plan).unwrap_or_else(|other| panic!("{other}"));
    for answer in [
        "annotate: already",
        "cancel: already",
        "cancel: applied",
        "claim: again",
        "claim_cleanups: again",
        "create: existing",
        "create: idempotency key",
        "create: unique key",
        "delete_ended: deleted",
        "end: already",
        "end: applied",
        "end: stale",
        "finish_cleanup: already",
        "finish_cleanup: applied",
        "finish_cleanup: stale",
        "force_kill: applied",
        "list: several pages",
        "release: stale",
        "renew: lost",
        "renew: renewed",
        "rescue: failed",
        "rescue: killed",
        "rescue: pending",
        "retry into: id",
        "retry into: new",
        "retry into: unique key",
        "retry: already",
        "time_out: failed",
        "time_out: running",
        "worktree_ready: already",
    ] {
        let times = agreement.answers().get(answer).copied().unwrap_or(0);
        assert!(
            times > 0,
            "no sequence was answered by `{answer}`: {:?}",
            agreement.answers()
        );
    }
}

#[test]
fn a_broken_repository_does_not_agree_with_the_model() {
    let plan = Plan::new().cases(256).repeatable().without_shrinking();
    for sin in SHOWN_BY_SEQUENCES {
        let disagreement = check(Sinner(Some(*sin)), &plan);
        assert!(disagreement.is_err(), "{sin:?} gets past the model");
    }
}

#[test]
fn what_is_reported_is_short_enough_to_read() {
    let plan = Plan::new().cases(256).repeatable();
    let sinner = Sinner(Some(Sin::AcceptsStaleEndings));
    let report = check(sinner, &plan).expect_err("because the repository is broken");
    // Something is created, and somebody who never owned it ends it.
    assert_eq!(report.steps(), 2, "{report}");
    let text = report.to_string();
    assert!(text.contains("2. End(["), "{text}");
}

// The wrapper itself must be innocent, or the tests above would prove nothing.
#[test]
fn the_same_repository_without_a_sin_agrees() {
    let plan = Plan::new().cases(32);
    check(Sinner(None), &plan).unwrap_or_else(|other| panic!("{other}"));
}
