//! No event of a run has only calls that failed for certain, and each ending, release and planned retry has a call that may have caused
//! it.

use std::collections::BTreeSet;

use runtree_id::RunId;

use super::super::{Answer, Call, EndedBy, Failure, FinalEvent, Held, Operation};
use super::{Checker, Rule};

/// What a call may leave, and an event may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark<'h> {
    /// A claim of this owner.
    Owner(&'h str),
    /// An event of a run under a token.
    Held(RunId, &'h str, u32),
    /// An event of a run under whatever token it has.
    Run(RunId, &'h str),
    /// An event of whatever run.
    Any(&'h str),
}

impl Checker<'_> {
    pub(super) fn causes(&mut self) {
        let (mut possible, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for operation in self.operations {
            let marks = left_by(&operation.call);
            if operation.is_undone() {
                failed.extend(marks);
            } else {
                possible.extend(marks);
            }
        }
        for run in self.stored {
            for event in &run.events {
                let marks = marks_of(run.id, event);
                let is_among = |known: &BTreeSet<Mark<'_>>| {
                    let mut marks = marks.iter();
                    marks.any(|mark| known.contains(mark))
                };
                if is_among(&possible) {
                    continue;
                }
                let (number, kind) = (event.number, &event.kind);
                if is_among(&failed) {
                    let what = format!(
                        "event {number} says {kind}, and every call that could have done it failed"
                    );
                    self.violates(Rule::NothingHalfDone, Some(run.id), what);
                } else if matches!(kind.as_str(), "completed" | "released" | "retry_planned") {
                    let what = format!("event {number} says {kind}, which nobody asked for");
                    self.violates(Rule::NothingInvented, Some(run.id), what);
                }
            }
        }
    }
}

impl Operation {
    /// Whether it failed and surely wrote nothing.
    pub(super) fn is_undone(&self) -> bool {
        match self.answered() {
            Some(Answer::Failed { failure, .. }) => *failure != Failure::Unavailable,
            Some(_) | None => false,
        }
    }
}

/// What a call may leave: who is asked to stop, or is out of attempts, ends otherwise than it said.
fn left_by(call: &Call) -> Vec<Mark<'_>> {
    match call {
        Call::Claim { owner, .. } => vec![Mark::Owner(owner)],
        Call::End { held, outcome } => {
            let kinds: &[&str] = match outcome {
                EndedBy::Completed => &["completed"],
                EndedBy::Failed | EndedBy::Killed => &["failed", "killed"],
                EndedBy::FailedForNow => &["retry_planned", "failed", "killed"],
            };
            held_marks(*held, kinds)
        }
        Call::Release { held } => held_marks(*held, &["released", "failed", "killed"]),
        Call::Cancel { run } | Call::ForceKill { run } => {
            let kinds = ["cancel_requested", "killed"];
            kinds.map(|kind| Mark::Run(*run, kind)).to_vec()
        }
        Call::Rescue { .. } => ["rescued", "failed", "killed"].map(Mark::Any).to_vec(),
        Call::TimeOut => {
            let kinds = ["deadline_passed", "cancel_requested", "failed", "killed"];
            kinds.map(Mark::Any).to_vec()
        }
        Call::Annotate { run, .. } => vec![Mark::Run(*run, "annotated")],
        // What is made is looked at as a whole; a renewal leaves no event.
        Call::Create { .. } | Call::Retry { .. } | Call::Renew { .. } => Vec::new(),
    }
}

fn held_marks(held: Held, kinds: &'static [&'static str]) -> Vec<Mark<'static>> {
    let Held { run, token } = held;
    let marks = kinds.iter().map(|kind| Mark::Held(run, kind, token));
    marks.collect()
}

fn marks_of(run: RunId, event: &FinalEvent) -> Vec<Mark<'_>> {
    let kind = event.kind.as_str();
    match (&event.owner, kind) {
        (Some(owner), "claimed") => vec![Mark::Owner(owner)],
        _ => vec![
            Mark::Held(run, kind, event.token),
            Mark::Run(run, kind),
            Mark::Any(kind),
        ],
    }
}
