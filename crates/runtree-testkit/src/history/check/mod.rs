//! Checks recorded histories against each other and against what the store shows in the end.

mod answers;
mod causes;
mod owners;
mod stored;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use runtree_id::RunId;

use super::{Answer, Call, Failure, FinalRun, Held, Operation};

/// What is asked of the histories beyond what always holds.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// How calls may fail.
    pub failures: Vec<Failure>,
    /// How long a call may take at the most.
    pub longest_call: Duration,
    /// Whether the store was stamped by clocks that agree with the monotonic one: then leases end when they must, not earlier or
    /// later, and limits hold.
    pub clocks_agree: bool,
    /// Whether every run must have ended.
    pub all_ended: bool,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A run has one owner at a time: nobody claims what is owned, and nobody writes with a token that was fenced before.
    OneOwner,
    /// Tokens only grow, in a run's history and in the order of real time.
    TokensGrow,
    /// What was acknowledged is in the store in the end.
    NothingLost,
    /// What is in the store was asked for by somebody.
    NothingInvented,
    /// A call that failed and was said to have written nothing wrote nothing.
    NothingHalfDone,
    /// A run ends once, nothing moves it afterwards, and it stands where its history leads.
    OneEnding,
    /// No id and no idempotency key is there twice, and one key always names one run.
    NoDuplicates,
    /// No more runs of a concurrency key were owned at once than were allowed.
    LimitsHold,
    /// A run's events are numbered from 1 without gaps, and begin with its creation.
    NoGaps,
    /// The instants of a run never decrease.
    InstantsInOrder,
    /// Clean-up is wanted for the runs that ended with a worktree, and for no other.
    CleanupsExact,
    /// A call that was answered before another began comes before it in the run's history.
    RealTimeOrder,
    /// A lease is kept until it expires, and not longer.
    LeasesKept,
    /// Calls fail only in ways that were allowed.
    FailuresAllowed,
    /// Every call that was answered was answered in time.
    AnsweredInTime,
    /// Every run has ended.
    AllEnded,
}

/// A rule that does not hold, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The run, where it is about one.
    pub run: Option<RunId>,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.rule)?;
        if let Some(run) = self.run {
            write!(f, "{run}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Checks every rule and answers what does not hold.
///
/// It knows only what is certain: a call without an answer, or one that failed without saying whether it wrote, may have happened at
/// any moment after it began, or never.
pub fn check(
    operations: &[Operation],
    stored: &[FinalRun],
    expectations: &Expectations,
) -> Vec<Violation> {
    let mut checker = Checker {
        operations,
        stored,
        runs: stored.iter().map(|run| (run.id, run)).collect(),
        expectations,
        violations: Vec::new(),
    };
    checker.stored();
    checker.answers();
    checker.causes();
    checker.owners();
    checker.violations
}

struct Checker<'h> {
    operations: &'h [Operation],
    stored: &'h [FinalRun],
    runs: BTreeMap<RunId, &'h FinalRun>,
    expectations: &'h Expectations,
    violations: Vec<Violation>,
}

impl Checker<'_> {
    fn violates(&mut self, rule: Rule, run: Option<RunId>, what: impl Into<String>) {
        self.violations.push(Violation {
            rule,
            run,
            what: what.into(),
        });
    }

    fn ensure(&mut self, rule: Rule, run: RunId, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violates(rule, Some(run), what());
        }
    }
}

impl Call {
    /// The lease that the call shows.
    fn held(&self) -> Option<Held> {
        match self {
            Self::Renew { held, .. } | Self::End { held, .. } | Self::Release { held } => {
                Some(*held)
            }
            Self::Create { .. }
            | Self::Retry { .. }
            | Self::Claim { .. }
            | Self::Cancel { .. }
            | Self::ForceKill { .. }
            | Self::Rescue { .. }
            | Self::TimeOut
            | Self::Annotate { .. } => None,
        }
    }
}

impl Operation {
    /// When the answer came; never, without one.
    fn answered_at(&self) -> u64 {
        self.answer.as_ref().map_or(u64::MAX, |(at, _)| *at)
    }

    /// Whether the store did what was asked, for all that is known to the caller.
    fn is_applied(&self) -> bool {
        matches!(self.answered(), Some(Answer::Applied | Answer::Renewed))
    }

    /// Whether the store may have done it, for all that is known to the caller.
    fn may_have_happened(&self) -> bool {
        match self.answered() {
            None => true,
            Some(Answer::Failed { failure, .. }) => *failure == Failure::Unavailable,
            Some(Answer::Stale | Answer::NotFound | Answer::Lost) => false,
            Some(
                Answer::New { .. }
                | Answer::Existing { .. }
                | Answer::Conflict { .. }
                | Answer::Claimed { .. }
                | Answer::Renewed
                | Answer::Applied
                | Answer::Already
                | Answer::Rescued { .. }
                | Answer::TimedOut { .. },
            ) => true,
        }
    }
}
