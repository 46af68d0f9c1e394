//! What a sequence consists of: steps that name runs and leases by small numbers, so that any part of a sequence is a sequence.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::{BoxedStrategy, Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;
use runtree_repository::{CancelMode, RunOrder, SortKey};

use crate::backend::ClockSource;

/// One call, or one move of the clock.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create(Vec<Draft>),
    Repeat(RunPick),
    Claim(ClaimDraft),
    Renew(Vec<LeasePick>, Span),
    RecordChild(LeasePick),
    WorktreeReady(LeasePick),
    End(Vec<(LeasePick, Said)>),
    Release(LeasePick),
    Cancel(RunPick, StopDraft),
    ForceKill(RunPick, StopDraft),
    Rescue(RescueDraft),
    TimeOut(u8, Span),
    Retry(RetryDraft),
    Annotate(RunPick, NoteDraft),
    ClaimCleanups(CleanupDraft),
    FreeCleanups(Vec<u8>),
    FinishCleanup(u8, CleanedUp),
    DeleteEnded(When, u8),
    Look(FilterDraft, RunOrder, u8),
    Pass(Span),
}

/// One of the runs that there are; now and then one of those that were asked for, whether they exist or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunPick(pub(super) u8);

/// A lease: of those that are held now, or of all that were ever given out.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeasePick {
    Held(u8),
    Any(u8),
}

/// An id for a new run.
#[derive(Clone, Copy, Debug)]
pub(super) enum IdPick {
    Fresh,
    Of(RunPick),
}

/// An instant, in relation to the clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Unset,
    Past,
    Soon,
    Late,
}

/// A time, in relation to the shortest lease.
#[derive(Clone, Copy, Debug)]
pub(super) enum Span {
    Nothing,
    Short,
    Long,
}

/// What kind of worktree a run needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Needs {
    Nothing,
    Temporary,
    Persistent,
}

/// A request, all of whose values come from small sets, so that requests collide.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) id: IdPick,
    pub(super) workflow: u8,
    pub(super) queue: u8,
    pub(super) priority: i16,
    pub(super) attempts: u32,
    pub(super) idempotency_key: Option<u8>,
    pub(super) unique_key: Option<u8>,
    pub(super) concurrency: Option<(u8, u32)>,
    pub(super) tags: Vec<u8>,
    pub(super) user: Option<u8>,
    pub(super) metadata: Option<(u8, u8)>,
    pub(super) available: When,
    pub(super) deadline: When,
    pub(super) needs: Needs,
}

#[derive(Clone, Debug)]
pub(super) struct ClaimDraft {
    pub(super) owner: u8,
    pub(super) limit: u8,
    pub(super) of: Wanted,
    pub(super) time: Span,
    /// Whether the claimer has a place for worktrees.
    pub(super) site: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Any,
    Queue(u8),
    Workflow(u8),
    QueueAndWorkflow(u8, u8),
    Run(RunPick),
}

/// What an owner says of its attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Completed(Option<u8>),
    Failed(Option<Span>),
    Killed,
}

#[derive(Clone, Debug)]
pub(super) struct StopDraft {
    pub(super) mode: CancelMode,
    pub(super) reason: Option<u8>,
    pub(super) by: Option<u8>,
    pub(super) grace: Option<Span>,
}

#[derive(Clone, Debug)]
pub(super) struct RescueDraft {
    pub(super) dead: Vec<LeasePick>,
    pub(super) spare: Vec<RunPick>,
    pub(super) limit: u8,
}

#[derive(Clone, Debug)]
pub(super) struct RetryDraft {
    pub(super) of: RunPick,
    pub(super) id: IdPick,
    pub(super) available: When,
    pub(super) deadline: When,
    pub(super) needs: Needs,
}

#[derive(Clone, Debug)]
pub(super) struct NoteDraft {
    pub(super) add: Option<u8>,
    pub(super) remove: Option<u8>,
    pub(super) member: Option<(u8, Option<u8>)>,
    pub(super) usage: Option<(bool, u8)>,
    pub(super) commits: bool,
}

#[derive(Clone, Debug)]
pub(super) struct CleanupDraft {
    pub(super) owner: u8,
    pub(super) limit: u8,
    pub(super) time: Span,
    pub(super) run: Option<RunPick>,
}

/// How a clean-up went.
#[derive(Clone, Copy, Debug)]
pub(super) enum CleanedUp {
    Removed(bool),
    Kept,
    Postponed(Span),
}

#[derive(Clone, Debug)]
pub(super) enum FilterDraft {
    All,
    Status(u8),
    Ended(u8),
    Queue(u8),
    Workflow(u8),
    User(u8),
    Tags(Vec<u8>),
    Member(u8, Option<u8>),
    Owner(u8),
    Host(u8),
    CreatedSince(u8),
    CreatedBefore(u8),
    StartedBefore(u8),
}

/// Draws sequences of at most this many steps.
///
/// Where the clock is the server's, nothing is drawn that depends on how much time passes: what is not over at once lasts.
pub(super) fn sequences(clock: ClockSource, steps: usize) -> BoxedStrategy<Vec<Step>> {
    let step = match clock {
        ClockSource::Passed => prop_oneof![
            12 => call(clock),
            1 => passing().prop_map(Step::Pass),
        ]
        .boxed(),
        ClockSource::Server => call(clock),
    };
    vec(step, 1..=steps.max(1)).boxed()
}

fn call(clock: ClockSource) -> BoxedStrategy<Step> {
    prop_oneof![
        10 => vec(draft(clock), 1..4).prop_map(Step::Create),
        2 => run_pick().prop_map(Step::Repeat),
        10 => claim().prop_map(Step::Claim),
        12 => owning(clock),
        3 => (run_pick(), stop(clock)).prop_map(|(of, stop)| Step::Cancel(of, stop)),
        2 => (run_pick(), stop(clock)).prop_map(|(of, stop)| Step::ForceKill(of, stop)),
        2 => rescue().prop_map(Step::Rescue),
        3 => (0_u8..4, span(clock)).prop_map(|(limit, grace)| Step::TimeOut(limit, grace)),
        3 => retry(clock).prop_map(Step::Retry),
        3 => (run_pick(), note()).prop_map(|(of, note)| Step::Annotate(of, note)),
        12 => cleaning(clock),
        2 => (when(clock), 0_u8..4).prop_map(|(before, limit)| Step::DeleteEnded(before, limit)),
        4 => (filter(clock), order(clock), 0_u8..4)
            .prop_map(|(filter, order, limit)| Step::Look(filter, order, limit)),
    ]
    .boxed()
}

fn owning(clock: ClockSource) -> BoxedStrategy<Step> {
    prop_oneof![
        2 => (vec(lease_pick(), 1..4), lasting()).prop_map(|(of, time)| Step::Renew(of, time)),
        1 => lease_pick().prop_map(Step::RecordChild),
        2 => lease_pick().prop_map(Step::WorktreeReady),
        8 => vec((lease_pick(), said(clock)), 1..3).prop_map(Step::End),
        2 => lease_pick().prop_map(Step::Release),
    ]
    .boxed()
}

fn cleaning(clock: ClockSource) -> BoxedStrategy<Step> {
    let claim = (0_u8..3, 0_u8..4, lasting(), weighted(0.2, run_pick()));
    let claim = claim.prop_map(|(owner, limit, time, run)| CleanupDraft {
        owner,
        limit,
        time,
        run,
    });
    let how = prop_oneof![
        4 => any::<bool>().prop_map(CleanedUp::Removed),
        1 => Just(CleanedUp::Kept),
        1 => span(clock).prop_map(CleanedUp::Postponed),
    ];
    prop_oneof![
        4 => claim.prop_map(Step::ClaimCleanups),
        4 => (any::<u8>(), how).prop_map(|(of, how)| Step::FinishCleanup(of, how)),
        1 => vec(any::<u8>(), 1..3).prop_map(Step::FreeCleanups),
    ]
    .boxed()
}

fn run_pick() -> impl Strategy<Value = RunPick> {
    any::<u8>().prop_map(RunPick)
}

fn lease_pick() -> impl Strategy<Value = LeasePick> {
    prop_oneof![
        4 => any::<u8>().prop_map(LeasePick::Held),
        1 => any::<u8>().prop_map(LeasePick::Any),
    ]
}

fn id_pick() -> impl Strategy<Value = IdPick> {
    prop_oneof![
        14 => Just(IdPick::Fresh),
        1 => run_pick().prop_map(IdPick::Of),
    ]
}

fn when(clock: ClockSource) -> BoxedStrategy<When> {
    let of = match clock {
        ClockSource::Passed => vec![When::Unset, When::Past, When::Soon, When::Late],
        ClockSource::Server => vec![When::Unset, When::Past, When::Late],
    };
    select(of).boxed()
}

/// An instant that is more often none at all.
fn seldom(clock: ClockSource) -> impl Strategy<Value = When> {
    prop_oneof![3 => Just(When::Unset), 2 => when(clock)]
}

fn span(clock: ClockSource) -> BoxedStrategy<Span> {
    let of = match clock {
        ClockSource::Passed => vec![Span::Nothing, Span::Short, Span::Long],
        ClockSource::Server => vec![Span::Nothing, Span::Long],
    };
    select(of).boxed()
}

fn needs() -> impl Strategy<Value = Needs> {
    prop_oneof![
        2 => Just(Needs::Nothing),
        4 => Just(Needs::Temporary),
        1 => Just(Needs::Persistent),
    ]
}

/// How long a lease lasts.
fn lasting() -> impl Strategy<Value = Span> {
    prop_oneof![2 => Just(Span::Long), 1 => Just(Span::Short)]
}

/// How far the clock is moved.
fn passing() -> impl Strategy<Value = Span> {
    prop_oneof![3 => Just(Span::Short), 1 => Just(Span::Long)]
}

fn draft(clock: ClockSource) -> impl Strategy<Value = Draft> {
    let keys = (
        id_pick(),
        weighted(0.2, 0_u8..3),
        weighted(0.2, 0_u8..2),
        weighted(0.4, (0_u8..2, 1_u32..3)),
    );
    let place = (0_u8..3, 0_u8..2, select(vec![0_i16, 100, -100]), 1_u32..4);
    let more = (
        vec(0_u8..3, 0..3),
        of(0_u8..2),
        of((0_u8..2, 0_u8..3)),
        seldom(clock),
        seldom(clock),
        needs(),
    );
    (keys, place, more).prop_map(|(keys, place, more)| {
        let (id, idempotency_key, unique_key, concurrency) = keys;
        let (workflow, queue, priority, attempts) = place;
        let (tags, user, metadata, available, deadline, needs) = more;
        Draft {
            id,
            workflow,
            queue,
            priority,
            attempts,
            idempotency_key,
            unique_key,
            concurrency,
            tags,
            user,
            metadata,
            available,
            deadline,
            needs,
        }
    })
}

fn claim() -> impl Strategy<Value = ClaimDraft> {
    let of = prop_oneof![
        6 => Just(Wanted::Any),
        1 => (0_u8..2).prop_map(Wanted::Queue),
        1 => (0_u8..3).prop_map(Wanted::Workflow),
        1 => (0_u8..2, 0_u8..3).prop_map(|(queue, workflow)| Wanted::QueueAndWorkflow(queue, workflow)),
        2 => run_pick().prop_map(Wanted::Run),
    ];
    let site = prop_oneof![5 => Just(true), 1 => Just(false)];
    (0_u8..3, 0_u8..4, of, lasting(), site).prop_map(|(owner, limit, of, time, site)| ClaimDraft {
        owner,
        limit,
        of,
        time,
        site,
    })
}

fn said(clock: ClockSource) -> impl Strategy<Value = Said> {
    prop_oneof![
        3 => of(0_u8..2).prop_map(Said::Completed),
        3 => of(span(clock)).prop_map(Said::Failed),
        1 => Just(Said::Killed),
    ]
}

fn stop(clock: ClockSource) -> impl Strategy<Value = StopDraft> {
    let mode = select(vec![CancelMode::Graceful, CancelMode::Forced]);
    (mode, of(0_u8..2), of(0_u8..2), of(span(clock))).prop_map(|(mode, reason, by, grace)| {
        StopDraft {
            mode,
            reason,
            by,
            grace,
        }
    })
}

fn rescue() -> impl Strategy<Value = RescueDraft> {
    (vec(lease_pick(), 0..3), vec(run_pick(), 0..2), 0_u8..4)
        .prop_map(|(dead, spare, limit)| RescueDraft { dead, spare, limit })
}

fn retry(clock: ClockSource) -> impl Strategy<Value = RetryDraft> {
    (run_pick(), id_pick(), seldom(clock), seldom(clock), needs()).prop_map(
        |(of, id, available, deadline, needs)| RetryDraft {
            of,
            id,
            available,
            deadline,
            needs,
        },
    )
}

fn note() -> impl Strategy<Value = NoteDraft> {
    (
        of(0_u8..3),
        of(0_u8..3),
        of((0_u8..2, of(0_u8..3))),
        of((any::<bool>(), 0_u8..3)),
        any::<bool>(),
    )
        .prop_map(|(add, remove, member, usage, commits)| NoteDraft {
            add,
            remove,
            member,
            usage,
            commits,
        })
}

fn filter(clock: ClockSource) -> BoxedStrategy<FilterDraft> {
    let timeless = prop_oneof![
        4 => Just(FilterDraft::All),
        1 => any::<u8>().prop_map(FilterDraft::Status),
        1 => any::<u8>().prop_map(FilterDraft::Ended),
        1 => (0_u8..2).prop_map(FilterDraft::Queue),
        1 => (0_u8..3).prop_map(FilterDraft::Workflow),
        1 => (0_u8..2).prop_map(FilterDraft::User),
        1 => vec(0_u8..3, 1..3).prop_map(FilterDraft::Tags),
        1 => (0_u8..2, of(0_u8..3)).prop_map(|(key, value)| FilterDraft::Member(key, value)),
        1 => (0_u8..3).prop_map(FilterDraft::Owner),
        1 => (0_u8..2).prop_map(FilterDraft::Host),
    ];
    match clock {
        ClockSource::Passed => prop_oneof![
            10 => timeless,
            1 => any::<u8>().prop_map(FilterDraft::CreatedSince),
            1 => any::<u8>().prop_map(FilterDraft::CreatedBefore),
            1 => any::<u8>().prop_map(FilterDraft::StartedBefore),
        ]
        .boxed(),
        ClockSource::Server => timeless.boxed(),
    }
}

fn order(clock: ClockSource) -> impl Strategy<Value = RunOrder> {
    let is_drawn = |key: &SortKey| {
        clock == ClockSource::Passed
            || !matches!(key, SortKey::Started | SortKey::Ended | SortKey::Duration)
    };
    let keys: Vec<SortKey> = SortKey::ALL.iter().copied().filter(is_drawn).collect();
    (select(keys), any::<bool>()).prop_map(|(by, ascending)| {
        if ascending {
            RunOrder::ascending(by)
        } else {
            RunOrder::descending(by)
        }
    })
}
