//! What callers were told, compared with what the store shows in the end.

use std::collections::{BTreeMap, BTreeSet};

use runtree_id::RunId;

use super::super::{Answer, Call, EndedBy, FinalRun, Held, Operation};
use super::{Checker, Rule};

/// An acknowledged write and the event that it left.
struct Placed {
    invoked_at: u64,
    answered_at: u64,
    number: u32,
    what: String,
}

impl Checker<'_> {
    pub(super) fn answers(&mut self) {
        let mut order: BTreeMap<RunId, Vec<Placed>> = BTreeMap::new();
        for operation in self.operations {
            self.failure(operation);
            for (run, number) in self.acknowledged(operation) {
                order.entry(run).or_default().push(Placed {
                    invoked_at: operation.invoked_at,
                    answered_at: operation.answered_at(),
                    number,
                    what: format!("{:?}", operation.call),
                });
            }
        }
        for (run, placed) in order {
            self.real_time(run, placed);
        }
        self.keys();
        self.asked_for();
        self.undone();
    }

    fn failure(&mut self, operation: &Operation) {
        if let Some(Answer::Failed { failure, text }) = operation.answered()
            && !self.expectations.failures.contains(failure)
        {
            let what = format!("{failure:?} of {:?}: {text}", operation.call);
            self.violates(Rule::FailuresAllowed, None, what);
        }
        let Some((answered_at, _)) = operation.answer else {
            return;
        };
        let took = answered_at.saturating_sub(operation.invoked_at);
        if u128::from(took) > self.expectations.longest_call.as_nanos() {
            let what = format!("{:?} took {} ms", operation.call, took / 1_000_000);
            self.violates(Rule::AnsweredInTime, None, what);
        }
    }

    /// Looks for what an acknowledged write must have left, and answers with the places of the events that are certainly of it.
    fn acknowledged(&mut self, operation: &Operation) -> Vec<(RunId, u32)> {
        let Some(answer) = operation.answered() else {
            return Vec::new();
        };
        match (&operation.call, answer) {
            (
                Call::Create { .. },
                Answer::New { run } | Answer::Existing { run } | Answer::Conflict { run },
            ) => {
                let event = self.left(operation, *run, |kind, _| kind == "created");
                let is_new = matches!(answer, Answer::New { .. });
                event.filter(|_| is_new).into_iter().collect()
            }
            (Call::Retry { of, run }, Answer::New { run: made }) => {
                let stored = self.runs.get(made).copied();
                let is_there =
                    made == run && stored.is_some_and(|stored| stored.retry_of == Some(*of));
                let what = || format!("the retry of {of} is not there as one");
                self.ensure(Rule::NothingLost, *made, is_there, what);
                let retried = self.runs.get(of).and_then(|stored| {
                    let mut events = stored.events.iter();
                    events.find(|event| event.retried_as == Some(*made))
                });
                let what = || format!("the ended run does not know its retry {made}");
                self.ensure(Rule::NothingLost, *of, retried.is_some(), what);
                retried
                    .map(|event| (*of, event.number))
                    .into_iter()
                    .collect()
            }
            (Call::Claim { .. }, Answer::Claimed { held }) => held
                .iter()
                .filter_map(|held| self.left_by(operation, *held, |kind| kind == "claimed"))
                .collect(),
            (Call::End { held, outcome }, Answer::Applied) => {
                let left = self.left_by(operation, *held, |kind| ends_so(*outcome, kind));
                left.into_iter().collect()
            }
            (Call::Release { held }, Answer::Applied) => {
                let is_it = |kind: &str| matches!(kind, "released" | "killed" | "failed");
                self.left_by(operation, *held, is_it).into_iter().collect()
            }
            (Call::ForceKill { run }, Answer::Applied) => {
                let left = self.left(operation, *run, |kind, _| kind == "killed");
                left.into_iter().collect()
            }
            (Call::Cancel { run }, Answer::Applied) => {
                // Which of several wishes it was cannot be told.
                let is_it = |kind: &str, _| matches!(kind, "cancel_requested" | "killed");
                self.left(operation, *run, is_it);
                Vec::new()
            }
            (Call::Rescue { .. }, Answer::Rescued { held }) => held
                .iter()
                .filter_map(|held| {
                    let fenced = Held {
                        token: held.token + 1,
                        ..*held
                    };
                    self.left_by(operation, fenced, |kind| kind == "rescued")
                })
                .collect(),
            (Call::TimeOut, Answer::TimedOut { runs }) => {
                for run in runs {
                    let is_it = |kind: &str, _| matches!(kind, "deadline_passed" | "failed");
                    self.left(operation, *run, is_it);
                }
                Vec::new()
            }
            (Call::Annotate { run, key }, Answer::Applied) => {
                self.left(operation, *run, |kind, _| kind == "annotated");
                let stored = self.runs.get(run).copied();
                let is_there = stored.is_some_and(|stored| stored.metadata.contains(key));
                let what = || format!("the acknowledged metadata {key} is not there");
                self.ensure(Rule::NothingLost, *run, is_there, what);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn left_by(
        &mut self,
        operation: &Operation,
        held: Held,
        is_it: impl Fn(&str) -> bool,
    ) -> Option<(RunId, u32)> {
        self.left(operation, held.run, |kind, token| {
            token == held.token && is_it(kind)
        })
    }

    /// Looks for an event that an acknowledged write must have left.
    fn left(
        &mut self,
        operation: &Operation,
        run: RunId,
        is_it: impl Fn(&str, u32) -> bool,
    ) -> Option<(RunId, u32)> {
        let stored = self.runs.get(&run).copied();
        let event = stored.and_then(|stored| {
            let mut events = stored.events.iter();
            events.find(|event| is_it(&event.kind, event.token))
        });
        let what = || {
            let (call, answer) = (&operation.call, operation.answered());
            format!("nothing is left of {call:?}, answered {answer:?}")
        };
        self.ensure(Rule::NothingLost, run, event.is_some(), what);
        event.map(|event| (run, event.number))
    }

    /// Of two writes of which one was answered before the other began, the first has the smaller number.
    fn real_time(&mut self, run: RunId, mut placed: Vec<Placed>) {
        placed.sort_by_key(|placed| placed.invoked_at);
        let mut answered: Vec<&Placed> = placed.iter().collect();
        answered.sort_by_key(|placed| placed.answered_at);
        let mut answered = answered.into_iter().peekable();
        let mut last: Option<&Placed> = None;
        for later in &placed {
            while let Some(before) =
                answered.next_if(|before| before.answered_at < later.invoked_at)
            {
                last = last
                    .filter(|last| last.number > before.number)
                    .or(Some(before));
            }
            if let Some(last) = last.filter(|last| last.number >= later.number) {
                let what = format!(
                    "{} has the number {} and was answered before {} began, which has {}",
                    last.what, last.number, later.what, later.number
                );
                self.violates(Rule::RealTimeOrder, Some(run), what);
            }
        }
    }

    /// One idempotency key always names one run.
    fn keys(&mut self) {
        let mut named: BTreeMap<&str, RunId> = BTreeMap::new();
        for operation in self.operations {
            let Call::Create { key: Some(key), .. } = &operation.call else {
                continue;
            };
            let (Some(Answer::New { run }) | Some(Answer::Existing { run })) = operation.answered()
            else {
                continue;
            };
            let first = *named.entry(key).or_insert(*run);
            let what = || format!("the key {key} named {first} to somebody else");
            self.ensure(Rule::NoDuplicates, *run, first == *run, what);
            let stored = self.runs.get(run).copied();
            let stored = stored.and_then(|stored| stored.idempotency_key.as_deref());
            let what = || format!("it was made under the key {key} and has {stored:?}");
            self.ensure(Rule::NothingLost, *run, stored == Some(key), what);
        }
    }

    /// Whatever is there was asked for by a call that may have happened.
    fn asked_for(&mut self) {
        let (mut runs, mut metadata) = (BTreeSet::new(), BTreeSet::new());
        let mut owners = BTreeSet::new();
        for operation in self.operations {
            match &operation.call {
                Call::Create { run, .. } | Call::Retry { run, .. } => {
                    runs.insert(*run);
                }
                Call::Claim { owner, .. } => {
                    owners.insert(owner.as_str());
                }
                Call::Annotate { run, key } => {
                    metadata.insert((*run, key.as_str()));
                }
                Call::Renew { .. }
                | Call::End { .. }
                | Call::Release { .. }
                | Call::Cancel { .. }
                | Call::ForceKill { .. }
                | Call::Rescue { .. }
                | Call::TimeOut => {}
            }
        }
        let keys: BTreeSet<&str> = metadata.iter().map(|(_, key)| *key).collect();
        for run in self.stored {
            let what = || "nobody asked for it".to_owned();
            self.ensure(Rule::NothingInvented, run.id, runs.contains(&run.id), what);
            for key in &run.metadata {
                // A retry takes over what its run was told before.
                let is_known = metadata.contains(&(run.id, key.as_str()))
                    || (run.retry_of.is_some() && keys.contains(key.as_str()));
                let what = || format!("nobody asked for the metadata {key}");
                self.ensure(Rule::NothingInvented, run.id, is_known, what);
            }
            for event in &run.events {
                if let Some(owner) = &event.owner {
                    let what = || format!("the owner {owner} never claimed");
                    let is_known = owners.contains(owner.as_str());
                    self.ensure(Rule::NothingInvented, run.id, is_known, what);
                }
            }
        }
    }

    /// What failed for certain to be made or noted, however often it was tried, is not there.
    fn undone(&mut self) {
        let mut runs: BTreeMap<RunId, bool> = BTreeMap::new();
        let mut notes: BTreeMap<(RunId, &str), bool> = BTreeMap::new();
        for operation in self.operations {
            let is_undone = operation.is_undone();
            match &operation.call {
                Call::Create { run, .. } | Call::Retry { run, .. } => {
                    *runs.entry(*run).or_insert(true) &= is_undone;
                }
                Call::Annotate { run, key } => {
                    *notes.entry((*run, key)).or_insert(true) &= is_undone;
                }
                Call::Claim { .. }
                | Call::Renew { .. }
                | Call::End { .. }
                | Call::Release { .. }
                | Call::Cancel { .. }
                | Call::ForceKill { .. }
                | Call::Rescue { .. }
                | Call::TimeOut => {}
            }
        }
        for (run, is_undone) in runs {
            let is_there = self.runs.contains_key(&run);
            let what = || "every create of it failed and it is there".to_owned();
            self.ensure(Rule::NothingHalfDone, run, !(is_undone && is_there), what);
        }
        for ((run, key), is_undone) in notes {
            let stored: Option<&FinalRun> = self.runs.get(&run).copied();
            let is_there = stored.is_some_and(|stored| stored.metadata.contains(key));
            let what = || format!("the metadata {key} failed to be written and is there");
            self.ensure(Rule::NothingHalfDone, run, !(is_undone && is_there), what);
        }
    }
}

/// Whether an outcome may have left an event of this kind: who is asked to stop, or is out of attempts, ends otherwise than it said.
fn ends_so(outcome: EndedBy, kind: &str) -> bool {
    match outcome {
        EndedBy::Completed => kind == "completed",
        EndedBy::Failed | EndedBy::Killed => matches!(kind, "failed" | "killed"),
        EndedBy::FailedForNow => matches!(kind, "retry_planned" | "failed" | "killed"),
    }
}
