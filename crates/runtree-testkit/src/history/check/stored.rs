//! What the store shows in the end, looked at by itself: each run's history must be one that a run can have.

use std::collections::BTreeSet;

use super::super::{FinalEvent, FinalRun};
use super::{Checker, Rule};

/// Where a run's history has led so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Owned(u32),
    Ended,
}

impl Checker<'_> {
    pub(super) fn stored(&mut self) {
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for run in self.stored {
            if !ids.insert(run.id) {
                self.violates(Rule::NoDuplicates, Some(run.id), "the run is there twice");
            }
            if let Some(key) = &run.idempotency_key
                && !keys.insert(key)
            {
                let what = format!("the idempotency key {key} belongs to another run too");
                self.violates(Rule::NoDuplicates, Some(run.id), what);
            }
            self.numbers(run);
            self.instants(run);
            self.story(run);
            self.cleanup(run);
        }
    }

    fn numbers(&mut self, run: &FinalRun) {
        let numbers: Vec<u32> = run.events.iter().map(|event| event.number).collect();
        let expected: Vec<u32> = (1..).take(numbers.len()).collect();
        let what = || format!("the events are numbered {numbers:?}");
        self.ensure(Rule::NoGaps, run.id, numbers == expected, what);
        let first = run.events.first().map(|event| event.kind.as_str());
        let what = || format!("the history begins with {first:?}");
        self.ensure(Rule::NoGaps, run.id, first == Some("created"), what);
    }

    fn instants(&mut self, run: &FinalRun) {
        for pair in run.events.windows(2) {
            if let [before, after] = pair {
                let what = || {
                    format!(
                        "event {} is of {} and event {} of {}",
                        before.number, before.at, after.number, after.at
                    )
                };
                self.ensure(Rule::InstantsInOrder, run.id, before.at <= after.at, what);
            }
        }
        let at = run.instants;
        let started = at.started.unwrap_or(at.created);
        let ended = at.ended.unwrap_or(started);
        let in_order = at.created <= started && started <= ended && ended <= at.updated;
        let what = || format!("its instants are {at:?}");
        self.ensure(Rule::InstantsInOrder, run.id, in_order, what);
        let last = run.events.last().map_or(at.updated, |event| event.at);
        let what = || {
            format!(
                "its last event is of {last}, its last change of {}",
                at.updated
            )
        };
        self.ensure(Rule::InstantsInOrder, run.id, last <= at.updated, what);
    }

    /// Follows the events as the table of transitions allows them.
    fn story(&mut self, run: &FinalRun) {
        let mut place = Place::Waiting;
        let mut newest = 0;
        for event in &run.events {
            if event.kind == "rejected" {
                // It names the token that was refused, of which there may never have been a claim.
                continue;
            }
            if event.token < newest {
                let what = format!("{} comes after the token {newest}", told(event));
                self.violates(Rule::TokensGrow, Some(run.id), what);
            }
            place = self.step(run, place, newest, event);
            newest = newest.max(event.token);
        }
        let what = || format!("its token is {} and its history knows {newest}", run.token);
        self.ensure(Rule::TokensGrow, run.id, run.token >= newest, what);
        let stands = match place {
            Place::Waiting => run.status == "pending" && !run.has_ended,
            Place::Owned(token) => run.status == "running" && !run.has_ended && run.token == token,
            Place::Ended => run.has_ended,
        };
        let what = || {
            format!(
                "it is {} (ended: {}), its history leads to {place:?}",
                run.status, run.has_ended
            )
        };
        self.ensure(Rule::OneEnding, run.id, stands, what);
        if self.expectations.all_ended {
            let what = || format!("it is {}", run.status);
            self.ensure(Rule::AllEnded, run.id, run.has_ended, what);
        }
    }

    fn step(&mut self, run: &FinalRun, place: Place, newest: u32, event: &FinalEvent) -> Place {
        let wrong = |rule| Some((rule, format!("{} while it is {place:?}", told(event))));
        let (next, problem) = match (event.kind.as_str(), place) {
            ("claimed", Place::Waiting) if event.token > newest => {
                (Place::Owned(event.token), None)
            }
            ("claimed", Place::Waiting) => (Place::Owned(event.token), wrong(Rule::TokensGrow)),
            ("claimed", Place::Owned(_)) => (Place::Owned(event.token), wrong(Rule::OneOwner)),
            ("released" | "retry_planned", Place::Owned(token)) if token == event.token => {
                (Place::Waiting, None)
            }
            ("rescued", Place::Owned(token)) if event.token == token + 1 => (Place::Waiting, None),
            ("released" | "retry_planned" | "rescued", Place::Owned(_) | Place::Waiting) => {
                (Place::Waiting, wrong(Rule::OneOwner))
            }
            ("completed" | "failed" | "killed", Place::Waiting | Place::Owned(_)) => {
                // An owner ends it under its token; who ends it over an owner's head fences it first.
                let may = match place {
                    Place::Owned(token) if event.kind == "completed" => event.token == token,
                    Place::Owned(token) => (token..=token + 1).contains(&event.token),
                    Place::Waiting | Place::Ended => event.kind != "completed",
                };
                let problem = if may { None } else { wrong(Rule::OneOwner) };
                let problem = if event.kind == run.status {
                    problem
                } else {
                    let what = format!("{} and it is {}", told(event), run.status);
                    Some((Rule::OneEnding, what))
                };
                (Place::Ended, problem)
            }
            (
                "claimed" | "released" | "retry_planned" | "rescued" | "completed" | "failed"
                | "killed" | "cancel_requested" | "deadline_passed" | "worktree_ready",
                Place::Ended,
            ) => (Place::Ended, wrong(Rule::OneEnding)),
            (_, place) => (place, None),
        };
        if let Some((rule, what)) = problem {
            self.violates(rule, Some(run.id), what);
        }
        next
    }

    fn cleanup(&mut self, run: &FinalRun) {
        let was_owned = run.events.iter().any(|event| event.kind == "claimed");
        let expected = run.has_ended && run.needs_worktree && was_owned;
        let what = || {
            format!(
                "clean-up is wanted: {}, it ended: {}, with a worktree: {}",
                run.is_cleanup_wanted,
                run.has_ended,
                run.needs_worktree && was_owned
            )
        };
        let holds = run.is_cleanup_wanted == expected;
        self.ensure(Rule::CleanupsExact, run.id, holds, what);
        let wishes = run
            .events
            .iter()
            .filter(|event| event.kind == "cleanup_wanted");
        let wishes = wishes.count();
        let what = || format!("its history knows {wishes} wishes to clean up");
        let holds = wishes == usize::from(expected);
        self.ensure(Rule::CleanupsExact, run.id, holds, what);
    }
}

fn told(event: &FinalEvent) -> String {
    format!(
        "event {} says {} under the token {}",
        event.number, event.kind, event.token
    )
}
