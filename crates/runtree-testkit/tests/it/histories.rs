//! The checker of histories must refuse every history that cannot be: one made by hand for each rule.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

use runtree_id::{IdGenerator, RunId};
use runtree_testkit::history::{
    Answer, Call, EndedBy, Expectations, Failure, FinalEvent, FinalRun, Held, Instants, Operation,
    Recorder, Rule, check, read,
};

const MS: u64 = 1_000_000;
const LEASE: Duration = Duration::from_millis(100);

/// A history and what the store shows after it. It begins as one that is right; each test spoils it.
struct Told {
    operations: Vec<Operation>,
    stored: Vec<FinalRun>,
    expectations: Expectations,
}

fn run_id() -> RunId {
    IdGenerator::system().run_id().unwrap()
}

fn event(number: u32, kind: &str, token: u32) -> FinalEvent {
    FinalEvent {
        number,
        at: i64::from(number),
        kind: kind.to_owned(),
        token,
        owner: (kind == "claimed").then(|| "owner".to_owned()),
        retried_as: None,
    }
}

/// A run that was claimed, taken away, claimed again and completed by its second owner, with a worktree.
fn stored(id: RunId) -> FinalRun {
    FinalRun {
        id,
        status: "completed".to_owned(),
        has_ended: true,
        token: 3,
        idempotency_key: Some("key".to_owned()),
        retry_of: None,
        needs_worktree: true,
        is_cleanup_wanted: true,
        instants: Instants {
            created: 1,
            started: Some(2),
            ended: Some(5),
            updated: 7,
        },
        metadata: BTreeSet::from(["note".to_owned()]),
        events: vec![
            event(1, "created", 0),
            event(2, "claimed", 1),
            event(3, "rescued", 2),
            event(4, "claimed", 3),
            event(5, "completed", 3),
            event(6, "cleanup_wanted", 3),
            event(7, "annotated", 3),
        ],
    }
}

/// A waiting run that nobody has touched.
fn waiting(id: RunId) -> FinalRun {
    FinalRun {
        status: "pending".to_owned(),
        has_ended: false,
        token: 0,
        idempotency_key: None,
        needs_worktree: false,
        is_cleanup_wanted: false,
        instants: Instants {
            created: 1,
            updated: 1,
            ..Instants::default()
        },
        metadata: BTreeSet::new(),
        events: vec![event(1, "created", 0)],
        ..stored(id)
    }
}

fn create(run: RunId, key: Option<&str>) -> Call {
    Call::Create {
        run,
        key: key.map(str::to_owned),
        limit: None,
        has_deadline: false,
    }
}

fn claim() -> Call {
    Call::Claim {
        owner: "owner".to_owned(),
        lease: LEASE,
    }
}

fn end(run: RunId, token: u32, outcome: EndedBy) -> Call {
    let held = Held { run, token };
    Call::End { held, outcome }
}

fn renew(run: RunId, token: u32) -> Call {
    let held = Held { run, token };
    Call::Renew { held, lease: LEASE }
}

fn claimed(run: RunId, token: u32) -> Answer {
    let held = vec![Held { run, token }];
    Answer::Claimed { held }
}

fn failed(failure: Failure) -> Answer {
    let text = "failed".to_owned();
    Answer::Failed { failure, text }
}

impl Told {
    fn nothing() -> Self {
        let expectations = Expectations {
            failures: Vec::new(),
            longest_call: Duration::from_secs(1),
            clocks_agree: true,
            all_ended: true,
        };
        Self {
            operations: Vec::new(),
            stored: Vec::new(),
            expectations,
        }
    }

    fn right() -> (Self, RunId) {
        let (mut told, run) = (Self::nothing(), run_id());
        told.stored.push(stored(run));
        let rescued = Answer::Rescued {
            held: vec![Held { run, token: 1 }],
        };
        let rescue = Call::Rescue {
            proven_dead: Vec::new(),
        };
        told.say(0, 10, create(run, Some("key")), Some(Answer::New { run }));
        told.say(20, 30, claim(), Some(claimed(run, 1)));
        told.say(60, 70, renew(run, 1), Some(Answer::Renewed));
        told.say(200, 210, rescue, Some(rescued));
        told.say(220, 230, claim(), Some(claimed(run, 3)));
        told.say(
            240,
            250,
            end(run, 1, EndedBy::Completed),
            Some(Answer::Stale),
        );
        let ended = Some(Answer::Applied);
        told.say(260, 270, end(run, 3, EndedBy::Completed), ended);
        let key = "note".to_owned();
        let annotate = Call::Annotate { run, key };
        told.say(280, 290, annotate, Some(Answer::Applied));
        (told, run)
    }

    /// Adds a call from one millisecond to another.
    fn say(&mut self, from: u64, to: u64, call: Call, answer: Option<Answer>) {
        self.operations.push(Operation {
            process: "hand".to_owned(),
            call,
            invoked_at: from * MS,
            answer: answer.map(|answer| (to * MS, answer)),
        });
    }

    /// Adds a waiting run that was created properly.
    fn add_waiting(&mut self) -> RunId {
        let run = run_id();
        self.stored.push(waiting(run));
        self.say(0, 10, create(run, None), Some(Answer::New { run }));
        self.expectations.all_ended = false;
        run
    }

    /// The rules that do not hold.
    fn broken(&self) -> BTreeSet<Rule> {
        let violations = check(&self.operations, &self.stored, &self.expectations);
        violations.iter().map(|violation| violation.rule).collect()
    }

    #[track_caller]
    fn is_refused_for(&self, rule: Rule) {
        let violations = check(&self.operations, &self.stored, &self.expectations);
        let is_named = violations.iter().any(|violation| violation.rule == rule);
        assert!(is_named, "{rule:?} is not among {violations:?}");
    }
}

#[test]
fn a_history_that_can_be_is_accepted() {
    let (told, _) = Told::right();
    assert_eq!(told.broken(), BTreeSet::new());
}

#[test]
fn calls_without_an_answer_may_have_happened_or_not() {
    let (mut told, run) = Told::right();
    told.say(300, 0, create(run_id(), None), None);
    let key = "lost".to_owned();
    told.say(300, 0, Call::Annotate { run, key }, None);
    told.expectations.failures = vec![Failure::Unavailable];
    let made = told.add_waiting();
    told.operations.last_mut().unwrap().answer = Some((10 * MS, failed(Failure::Unavailable)));
    assert_eq!(told.broken(), BTreeSet::new(), "{made} may be there");
    told.stored.pop();
    assert_eq!(told.broken(), BTreeSet::new(), "{made} may be missing");
}

#[test]
fn two_owners_at_once_are_refused() {
    let (mut told, run) = Told::right();
    told.stored[0].events.remove(2);
    for (index, event) in told.stored[0].events.iter_mut().enumerate() {
        event.number = u32::try_from(index).unwrap() + 1;
    }
    told.is_refused_for(Rule::OneOwner);

    let (mut told, _) = Told::right();
    told.say(221, 231, claim(), Some(claimed(run, 3)));
    told.operations.last_mut().unwrap().call = claim();
    told.say(222, 232, claim(), Some(claimed(told.stored[0].id, 3)));
    told.is_refused_for(Rule::OneOwner);
}

#[test]
fn a_write_of_a_fenced_owner_that_was_accepted_is_refused() {
    let (mut told, run) = Told::right();
    told.expectations.clocks_agree = false;
    told.say(240, 250, renew(run, 1), Some(Answer::Renewed));
    told.is_refused_for(Rule::OneOwner);
    // Before the answer of the rescue nobody could know.
    told.operations.last_mut().unwrap().invoked_at = 205 * MS;
    assert_eq!(told.broken(), BTreeSet::new());
}

#[test]
fn a_token_that_shrinks_is_refused() {
    let (mut told, _) = Told::right();
    told.stored[0].events[3].token = 1;
    told.is_refused_for(Rule::TokensGrow);

    let (mut told, run) = Told::right();
    told.operations[4].answer = Some((230 * MS, claimed(run, 1)));
    told.operations[1].answer = Some((30 * MS, claimed(run, 3)));
    told.is_refused_for(Rule::TokensGrow);
}

#[test]
fn an_acknowledged_write_that_is_not_there_is_refused() {
    let (mut told, _) = Told::right();
    told.stored.clear();
    told.is_refused_for(Rule::NothingLost);

    for kind in ["claimed", "rescued", "completed", "annotated"] {
        let (mut told, _) = Told::right();
        told.stored[0].events.retain(|event| event.kind != kind);
        told.is_refused_for(Rule::NothingLost);
    }

    let (mut told, _) = Told::right();
    told.stored[0].metadata.clear();
    told.is_refused_for(Rule::NothingLost);

    let (mut told, of) = Told::right();
    let run = run_id();
    told.say(300, 310, Call::Retry { of, run }, Some(Answer::New { run }));
    told.is_refused_for(Rule::NothingLost);

    let (mut told, run) = Told::right();
    let held = Held { run, token: 3 };
    told.say(300, 310, Call::Release { held }, Some(Answer::Applied));
    told.is_refused_for(Rule::NothingLost);

    for call in [Call::Cancel { run }, Call::ForceKill { run }] {
        let (mut told, _) = Told::right();
        told.stored[0].id = run;
        told.operations.clear();
        told.say(300, 310, call, Some(Answer::Applied));
        told.is_refused_for(Rule::NothingLost);
    }
}

#[test]
fn what_nobody_asked_for_is_refused() {
    let (mut told, _) = Told::right();
    told.stored.push(waiting(run_id()));
    told.is_refused_for(Rule::NothingInvented);

    let (mut told, _) = Told::right();
    told.stored[0].metadata.insert("other".to_owned());
    told.is_refused_for(Rule::NothingInvented);

    let (mut told, _) = Told::right();
    told.stored[0].events[1].owner = Some("somebody".to_owned());
    told.is_refused_for(Rule::NothingInvented);
}

#[test]
fn a_renewal_that_was_accepted_after_its_owner_let_go_is_refused() {
    let release = |run, token| Call::Release {
        held: Held { run, token },
    };
    for is_killed in [false, true] {
        let (mut told, _) = Told::right();
        told.expectations.clocks_agree = false;
        let run = told.add_waiting();
        let last = if is_killed { "killed" } else { "released" };
        let token = if is_killed { 2 } else { 1 };
        let (stored, status) = (told.stored.last_mut().unwrap(), stored(run).status);
        stored.events.push(event(2, "claimed", 1));
        stored.events.push(event(3, last, token));
        (stored.token, stored.has_ended) = (token, is_killed);
        stored.status = if is_killed { "killed" } else { "pending" }.to_owned();
        stored.instants.updated = 3;
        assert_ne!(stored.status, status);
        told.say(20, 30, claim(), Some(claimed(run, 1)));
        let let_go = if is_killed {
            Call::ForceKill { run }
        } else {
            release(run, 1)
        };
        told.say(40, 50, let_go, Some(Answer::Applied));
        told.say(45, 60, renew(run, 1), Some(Answer::Renewed));
        assert_eq!(told.broken(), BTreeSet::new(), "nobody could know yet");
        told.operations.last_mut().unwrap().invoked_at = 55 * MS;
        assert_eq!(told.broken(), BTreeSet::from([Rule::OneOwner]));
        told.operations.last_mut().unwrap().answer = Some((60 * MS, Answer::Lost));
        assert_eq!(told.broken(), BTreeSet::new());
    }

    let (mut told, run) = Told::right();
    told.say(275, 278, renew(run, 3), Some(Answer::Renewed));
    assert_eq!(told.broken(), BTreeSet::from([Rule::OneOwner]));
    told.operations.last_mut().unwrap().invoked_at = 265 * MS;
    assert_eq!(told.broken(), BTreeSet::new());
}

/// Says what was told, once with a failure and once with a second try after it.
#[track_caller]
fn failed_and_is_there(mut told: Told, at: usize) {
    told.expectations.failures = vec![Failure::Busy];
    let operation = told.operations.get_mut(at).unwrap();
    let (from, to) = (operation.invoked_at / MS, operation.answer.clone().unwrap());
    let call = operation.call.clone();
    operation.answer = Some((to.0, failed(Failure::Busy)));
    assert_eq!(told.broken(), BTreeSet::from([Rule::NothingHalfDone]));
    told.say(from + 1, to.0 / MS + 1, call, Some(to.1));
    assert_eq!(told.broken(), BTreeSet::new(), "it was tried again");
    told.operations.get_mut(at).unwrap().answer = None;
    told.operations.pop();
    assert_eq!(told.broken(), BTreeSet::new(), "nobody knows");
}

#[test]
fn what_failed_and_is_there_is_refused() {
    let (told, _) = Told::right();
    let note = told.operations.len() - 1;
    failed_and_is_there(told, note);

    let (mut told, _) = Told::right();
    told.add_waiting();
    let create = told.operations.len() - 1;
    failed_and_is_there(told, create);

    let (told, _) = Told::right();
    let completion = 6;
    assert!(matches!(told.operations[completion].call, Call::End { .. }));
    failed_and_is_there(told, completion);

    let held = |run| Held { run, token: 1 };
    /// An event, and the call that leaves it.
    type Ending = (&'static str, fn(Held) -> Call);
    let endings: [Option<Ending>; 4] = [
        None,
        Some(("released", |held| Call::Release { held })),
        Some(("retry_planned", |Held { run, token }| {
            end(run, token, EndedBy::FailedForNow)
        })),
        Some(("failed", |Held { run, token }| {
            end(run, token, EndedBy::Failed)
        })),
    ];
    for ending in endings {
        let mut told = Told::nothing();
        let run = told.add_waiting();
        let stored = told.stored.last_mut().unwrap();
        stored.events.push(event(2, "claimed", 1));
        (stored.token, stored.instants.updated) = (1, 2);
        stored.status = "running".to_owned();
        if let Some((kind, _)) = ending {
            stored.events.push(event(3, kind, 1));
            stored.instants.updated = 3;
            stored.has_ended = kind == "failed";
            stored.status = if stored.has_ended { kind } else { "pending" }.to_owned();
        }
        told.say(20, 30, claim(), Some(claimed(run, 1)));
        if let Some((_, call)) = ending {
            told.say(40, 50, call(held(run)), Some(Answer::Applied));
        }
        let last = told.operations.len() - 1;
        failed_and_is_there(told, last);
    }
}

#[test]
fn an_ending_that_nobody_asked_for_is_refused() {
    let (mut told, _) = Told::right();
    told.operations.remove(6);
    assert_eq!(told.broken(), BTreeSet::from([Rule::NothingInvented]));
}

#[test]
fn a_second_ending_is_refused() {
    let (mut told, _) = Told::right();
    told.stored[0].events.push(event(8, "completed", 3));
    told.is_refused_for(Rule::OneEnding);

    let (mut told, _) = Told::right();
    told.stored[0].events.push(event(8, "claimed", 4));
    told.is_refused_for(Rule::OneEnding);

    let (mut told, _) = Told::right();
    told.stored[0].status = "failed".to_owned();
    told.is_refused_for(Rule::OneEnding);

    let (mut told, _) = Told::right();
    told.stored[0].has_ended = false;
    told.is_refused_for(Rule::OneEnding);
}

#[test]
fn duplicates_are_refused() {
    let (mut told, _) = Told::right();
    told.stored.push(told.stored[0].clone());
    told.is_refused_for(Rule::NoDuplicates);

    let (mut told, _) = Told::right();
    told.add_waiting();
    told.stored[1].idempotency_key = Some("key".to_owned());
    told.is_refused_for(Rule::NoDuplicates);

    let (mut told, _) = Told::right();
    let run = told.add_waiting();
    let existing = Some(Answer::Existing { run });
    told.say(50, 60, create(run_id(), Some("key")), existing);
    told.is_refused_for(Rule::NoDuplicates);
}

#[test]
fn a_limit_that_was_passed_is_refused() {
    let (mut told, _) = Told::right();
    let (one, other) = (told.add_waiting(), told.add_waiting());
    for operation in &mut told.operations {
        if let Call::Create { run, limit, .. } = &mut operation.call
            && (*run == one || *run == other)
        {
            *limit = Some(("key".to_owned(), 1));
        }
    }
    for run in &mut told.stored[1..] {
        run.events.push(event(2, "claimed", 1));
        (run.status, run.token) = ("running".to_owned(), 1);
        run.instants.updated = 2;
    }
    told.say(20, 30, claim(), Some(claimed(one, 1)));
    told.say(40, 50, claim(), Some(claimed(other, 1)));
    assert_eq!(told.broken(), BTreeSet::from([Rule::LimitsHold]));
    // A lease that is over holds no place.
    told.operations.last_mut().unwrap().answer = Some((140 * MS, claimed(other, 1)));
    assert_eq!(told.broken(), BTreeSet::new());
    told.operations.last_mut().unwrap().invoked_at = 130 * MS;
    assert_eq!(told.broken(), BTreeSet::new());
    // A renewal that failed may not have lengthened it; one that was acknowledged has.
    told.expectations.failures = vec![Failure::Unavailable];
    told.say(60, 70, renew(one, 1), Some(failed(Failure::Unavailable)));
    assert_eq!(told.broken(), BTreeSet::new());
    told.operations.last_mut().unwrap().answer = Some((70 * MS, Answer::Renewed));
    assert_eq!(told.broken(), BTreeSet::from([Rule::LimitsHold]));
}

#[test]
fn a_gap_in_the_events_is_refused() {
    let (mut told, _) = Told::right();
    told.stored[0].events[6].number = 8;
    assert_eq!(told.broken(), BTreeSet::from([Rule::NoGaps]));

    let (mut told, _) = Told::right();
    told.stored[0].events.remove(0);
    told.is_refused_for(Rule::NoGaps);
}

#[test]
fn instants_that_go_back_are_refused() {
    let (mut told, _) = Told::right();
    told.stored[0].events[4].at = 3;
    assert_eq!(told.broken(), BTreeSet::from([Rule::InstantsInOrder]));

    let (mut told, _) = Told::right();
    told.stored[0].instants.ended = Some(1);
    assert_eq!(told.broken(), BTreeSet::from([Rule::InstantsInOrder]));

    let (mut told, _) = Told::right();
    told.stored[0].instants.updated = 6;
    assert_eq!(told.broken(), BTreeSet::from([Rule::InstantsInOrder]));
}

#[test]
fn a_cleanup_that_is_missing_or_too_many_is_refused() {
    let (mut told, _) = Told::right();
    told.stored[0].is_cleanup_wanted = false;
    assert_eq!(told.broken(), BTreeSet::from([Rule::CleanupsExact]));

    let (mut told, _) = Told::right();
    told.stored[0].needs_worktree = false;
    assert_eq!(told.broken(), BTreeSet::from([Rule::CleanupsExact]));

    let (mut told, _) = Told::right();
    told.stored[0].events.push(event(8, "cleanup_wanted", 3));
    told.stored[0].instants.updated = 8;
    assert_eq!(told.broken(), BTreeSet::from([Rule::CleanupsExact]));
}

#[test]
fn a_history_in_another_order_than_real_time_is_refused() {
    let (mut told, run) = Told::right();
    told.expectations.clocks_agree = false;
    // The rescue was answered before the claim was asked for that it took the run away from.
    told.operations[1].invoked_at = 215 * MS;
    told.operations[1].answer = Some((217 * MS, claimed(run, 1)));
    told.operations.remove(2);
    told.is_refused_for(Rule::RealTimeOrder);
}

#[test]
fn a_lease_that_is_cut_short_or_outlived_is_refused() {
    // Taken while it lasted.
    let (mut told, _) = Told::right();
    told.operations[3].invoked_at = 80 * MS;
    told.operations[3].answer.as_mut().unwrap().0 = 85 * MS;
    told.operations[4].invoked_at = 90 * MS;
    told.operations[4].answer.as_mut().unwrap().0 = 95 * MS;
    told.operations[6].invoked_at = 150 * MS;
    assert_eq!(told.broken(), BTreeSet::from([Rule::LeasesKept]));
    // Its owner was proven dead.
    let dead = vec![Held {
        run: told.stored[0].id,
        token: 1,
    }];
    told.operations[3].call = Call::Rescue { proven_dead: dead };
    assert_eq!(told.broken(), BTreeSet::new());

    // Renewed when it was over.
    let (mut told, _) = Told::right();
    told.operations[2].invoked_at = 150 * MS;
    told.operations[2].answer.as_mut().unwrap().0 = 155 * MS;
    told.operations[3].invoked_at = 290 * MS;
    told.operations[3].answer.as_mut().unwrap().0 = 295 * MS;
    told.is_refused_for(Rule::LeasesKept);

    // Completed when it was over.
    let (mut told, _) = Told::right();
    told.operations[6].invoked_at = 400 * MS;
    told.operations[6].answer.as_mut().unwrap().0 = 410 * MS;
    told.operations.pop();
    told.stored[0].metadata.clear();
    assert_eq!(told.broken(), BTreeSet::from([Rule::LeasesKept]));

    // Refused while it lasted.
    let (mut told, run) = Told::right();
    told.say(80, 85, renew(run, 1), Some(Answer::Lost));
    assert_eq!(told.broken(), BTreeSet::from([Rule::LeasesKept]));
    told.expectations.clocks_agree = false;
    assert_eq!(told.broken(), BTreeSet::new());
    // A renewal that was shorter than what was left may have cut it short.
    told.expectations.clocks_agree = true;
    let held = Held { run, token: 1 };
    let lease = Duration::from_millis(1);
    told.say(72, 74, Call::Renew { held, lease }, Some(Answer::Renewed));
    assert_eq!(told.broken(), BTreeSet::new());
}

#[test]
fn failures_that_were_not_allowed_are_refused() {
    let (mut told, _) = Told::right();
    told.say(300, 310, Call::TimeOut, Some(failed(Failure::Busy)));
    assert_eq!(told.broken(), BTreeSet::from([Rule::FailuresAllowed]));
    told.expectations.failures = vec![Failure::Busy];
    assert_eq!(told.broken(), BTreeSet::new());
}

#[test]
fn a_call_that_took_too_long_is_refused() {
    let (mut told, _) = Told::right();
    let answer = Answer::TimedOut { runs: Vec::new() };
    told.say(300, 1_301, Call::TimeOut, Some(answer));
    assert_eq!(told.broken(), BTreeSet::from([Rule::AnsweredInTime]));
}

#[test]
fn a_run_that_never_ends_is_refused() {
    let (mut told, _) = Told::right();
    told.add_waiting();
    assert_eq!(told.broken(), BTreeSet::new());
    told.expectations.all_ended = true;
    assert_eq!(told.broken(), BTreeSet::from([Rule::AllEnded]));
}

#[test]
fn a_recorded_history_is_read_back_but_for_a_line_that_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one.history");
    let recorder = Recorder::create(&path);
    let run = run_id();
    let one = recorder.call(create(run, Some("key")));
    let two = recorder.call(Call::TimeOut);
    recorder.answer(one, Answer::New { run });
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.write_all(b"{\"number\":2,\"at\":17,\"what\":{\"Ans")
        .unwrap();
    let operations = read(directory.path()).unwrap();
    assert_eq!(operations.len(), 2);
    assert_eq!(operations[0].call, create(run, Some("key")));
    let (answered_at, answer) = operations[0].answer.clone().unwrap();
    assert_eq!(answer, Answer::New { run });
    assert!(answered_at >= operations[1].invoked_at);
    assert_eq!(operations[1].answer, None);
    assert_eq!(operations[1].process, "one");
    // In the middle a line must be whole.
    file.write_all(b"\n").unwrap();
    recorder.answer(two, Answer::TimedOut { runs: Vec::new() });
    assert!(read(directory.path()).is_err());
}
