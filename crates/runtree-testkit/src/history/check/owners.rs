//! Who owned what when, in real time, as far as the histories prove it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtree_id::RunId;

use super::super::{Answer, Call, EndedBy, Held, Operation};
use super::{Checker, Rule};

/// How far the calendar may drift from the monotonic clock while it is disciplined.
const DRIFT: u64 = 5_000_000;

/// All that is told of one token of one run.
#[derive(Default)]
struct Ownership<'h> {
    /// The claim that gave the token out.
    claim: Option<&'h Operation>,
    /// Renewals, whatever was answered.
    renewals: Vec<&'h Operation>,
    /// Endings and releases, whatever was answered.
    endings: Vec<&'h Operation>,
    /// When somebody first may have taken the run away although its lease had not expired.
    taken_from: Option<u64>,
}

/// A time that an owner was given by a claim or a renewal.
#[derive(Clone, Copy)]
struct Grant {
    invoked_at: u64,
    answered_at: u64,
    lease: u64,
    /// Whether it was acknowledged; else it may not have been.
    is_sure: bool,
}

impl Grant {
    /// Not over before this.
    fn surely_until(self) -> u64 {
        self.invoked_at.saturating_add(self.lease)
    }

    /// Over after this.
    fn surely_over(self) -> u64 {
        self.answered_at.saturating_add(self.lease)
    }
}

impl<'h> Ownership<'h> {
    fn grants(&self) -> impl Iterator<Item = Grant> + '_ {
        let renewals = self.renewals.iter().copied();
        let acknowledged = renewals.filter(|renewal| renewal.is_applied());
        self.claim.into_iter().chain(acknowledged).filter_map(grant)
    }

    /// All that may have set when the lease ends, and when it is known to have done so.
    fn possible_grants(&self) -> impl Iterator<Item = Grant> + '_ {
        let renewals = self.renewals.iter().copied();
        let possible = renewals.filter(|renewal| renewal.may_have_happened());
        self.claim.into_iter().chain(possible).filter_map(grant)
    }

    /// Whether the lease surely lasted from one instant to another. A renewal may also cut it short.
    fn surely_lasts(&self, from: u64, to: u64) -> bool {
        let mut known = self.grants().filter(|grant| grant.answered_at < from);
        known.any(|known| {
            let mut last = self
                .possible_grants()
                .filter(|grant| grant.invoked_at < to && grant.answered_at >= known.invoked_at);
            last.all(|grant| grant.surely_until() > to.saturating_add(DRIFT))
        })
    }

    /// Until when the lease surely lasts from its beginning on.
    fn surely_until(&self) -> u64 {
        let mut grants: Vec<Grant> = self.possible_grants().collect();
        grants.sort_by_key(|grant| grant.invoked_at);
        let (mut until, mut known_at) = (u64::MAX, 0);
        for grant in grants {
            // Of two at once nobody knows which was the last; one that was not acknowledged may not have been.
            let is_last = grant.is_sure && grant.invoked_at > known_at && grant.answered_at < until;
            until = if is_last {
                grant.surely_until()
            } else {
                until.min(grant.surely_until())
            };
            known_at = known_at.max(grant.answered_at);
        }
        until
    }

    /// When the owner, or somebody over its head, first may have ended the ownership.
    fn may_end_at(&self) -> u64 {
        self.may_end_but_by(None)
    }

    /// As [`may_end_at`](Self::may_end_at), but for one call.
    fn may_end_but_by(&self, but: Option<&Operation>) -> u64 {
        let own = self.endings.iter().copied().filter(|ending| {
            let is_it = but.is_some_and(|but| std::ptr::eq(but, *ending));
            !is_it && ending.may_have_happened()
        });
        let own = own.map(|ending| ending.invoked_at);
        own.chain(self.taken_from).min().unwrap_or(u64::MAX)
    }
}

fn grant(operation: &Operation) -> Option<Grant> {
    let lease = match &operation.call {
        Call::Claim { lease, .. } | Call::Renew { lease, .. } => nanos(*lease),
        Call::Create { .. }
        | Call::Retry { .. }
        | Call::End { .. }
        | Call::Release { .. }
        | Call::Cancel { .. }
        | Call::ForceKill { .. }
        | Call::Rescue { .. }
        | Call::TimeOut
        | Call::Annotate { .. } => return None,
    };
    Some(Grant {
        invoked_at: operation.invoked_at,
        answered_at: operation.answered_at(),
        lease,
        is_sure: operation.is_applied() || matches!(operation.call, Call::Claim { .. }),
    })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

type Tokens<'h> = BTreeMap<u32, Ownership<'h>>;

impl<'h> Checker<'h> {
    pub(super) fn owners(&mut self) {
        let runs = self.ownerships();
        let fences = self.fences();
        for (run, tokens) in &runs {
            self.order(*run, tokens);
            let none = BTreeMap::new();
            self.fenced(*run, tokens, fences.get(run).unwrap_or(&none));
            if self.expectations.clocks_agree {
                self.early(*run, tokens);
                for (token, ownership) in tokens {
                    self.late(*run, ownership);
                    self.refused(*run, *token, ownership);
                }
            }
        }
        if self.expectations.clocks_agree {
            self.limits(&runs);
        }
    }

    /// Gathers what is told of each token that was given out.
    fn ownerships(&mut self) -> BTreeMap<RunId, Tokens<'h>> {
        let mut runs: BTreeMap<RunId, Tokens<'h>> = BTreeMap::new();
        for operation in self.operations {
            if let (Call::Claim { .. }, Some(Answer::Claimed { held })) =
                (&operation.call, operation.answered())
            {
                for held in held {
                    let tokens = runs.entry(held.run).or_default();
                    let ownership = tokens.entry(held.token).or_default();
                    if ownership.claim.replace(operation).is_some() {
                        let what = format!("the token {} was given out twice", held.token);
                        self.violates(Rule::OneOwner, Some(held.run), what);
                    }
                }
            }
        }
        let deadlines = self.deadlines();
        for operation in self.operations {
            if let Some(held) = operation.call.held() {
                let tokens = runs.entry(held.run).or_default();
                let ownership = tokens.entry(held.token).or_default();
                if matches!(operation.call, Call::Renew { .. }) {
                    ownership.renewals.push(operation);
                } else {
                    ownership.endings.push(operation);
                }
            }
            for (run, token) in taken_by(operation, &deadlines) {
                let tokens = runs.get_mut(&run).into_iter().flatten();
                for (_, ownership) in
                    tokens.filter(|(is, _)| token.is_none_or(|token| token == **is))
                {
                    let earliest = ownership.taken_from.get_or_insert(u64::MAX);
                    *earliest = operation.invoked_at.min(*earliest);
                }
            }
        }
        runs
    }

    /// The runs that have a deadline.
    fn deadlines(&self) -> Vec<RunId> {
        let mut runs = Vec::new();
        for operation in self.operations {
            if let Call::Create {
                run,
                has_deadline: true,
                ..
            } = &operation.call
            {
                runs.push(*run);
            }
        }
        runs
    }

    /// Under which token each run is proven to be out of reach for all smaller ones, and since when.
    fn fences(&self) -> BTreeMap<RunId, BTreeMap<u32, u64>> {
        let mut fences: BTreeMap<RunId, BTreeMap<u32, u64>> = BTreeMap::new();
        let mut fence = |run: RunId, token: u32, operation: &Operation| {
            let tokens = fences.entry(run).or_default();
            let at = tokens.entry(token).or_insert(u64::MAX);
            *at = operation.answered_at().min(*at);
        };
        for operation in self.operations {
            match (&operation.call, operation.answered()) {
                (Call::Claim { .. }, Some(Answer::Claimed { held })) => {
                    for held in held {
                        fence(held.run, held.token, operation);
                    }
                }
                (Call::Rescue { .. }, Some(Answer::Rescued { held })) => {
                    for held in held {
                        fence(held.run, held.token + 1, operation);
                    }
                }
                // Its owner has let it go: the next one gets a greater token, if there is one.
                (Call::End { held, .. } | Call::Release { held }, Some(Answer::Applied)) => {
                    fence(held.run, held.token + 1, operation);
                }
                // It has ended, whoever owned it.
                (Call::ForceKill { run }, Some(Answer::Applied)) => {
                    fence(*run, u32::MAX, operation);
                }
                _ => {}
            }
        }
        fences
    }

    /// A claim that was answered before another began has the smaller token.
    fn order(&mut self, run: RunId, tokens: &Tokens<'h>) {
        let mut lower: Option<(u32, u64)> = None;
        for (token, ownership) in tokens {
            let Some(claim) = ownership.claim else {
                continue;
            };
            if let Some((before, began)) = lower
                && claim.answered_at() < began
            {
                let what =
                    format!("the token {before} was asked for after {token} had been given out");
                self.violates(Rule::TokensGrow, Some(run), what);
            }
            let began = lower.map_or(0, |(_, began)| began);
            if claim.invoked_at >= began {
                lower = Some((*token, claim.invoked_at));
            }
        }
    }

    /// After a greater token was given out, or the run was let go or killed, nothing that shows the smaller one is accepted.
    fn fenced(&mut self, run: RunId, tokens: &Tokens<'h>, fences: &BTreeMap<u32, u64>) {
        for (token, ownership) in tokens {
            let above = fences.range(token + 1..).map(|(_, at)| *at).min();
            let Some(fenced_at) = above else {
                continue;
            };
            for used in ownership.renewals.iter().chain(&ownership.endings) {
                let is_fine = !used.is_applied() || used.invoked_at < fenced_at;
                let what = || format!("{:?} was accepted after it was fenced", used.call);
                self.ensure(Rule::OneOwner, run, is_fine, what);
            }
        }
    }

    /// Nobody gets a run while somebody else's lease on it lasts.
    fn early(&mut self, run: RunId, tokens: &Tokens<'h>) {
        for (token, ownership) in tokens {
            let until = ownership.may_end_at();
            for (later, next) in tokens.range(token + 1..) {
                let Some(claim) = next.claim else {
                    continue;
                };
                let (from, to) = (claim.invoked_at, claim.answered_at());
                let is_fine = to >= until || !ownership.surely_lasts(from, to);
                let what = || format!("{later} was given out while the lease of {token} lasted");
                self.ensure(Rule::LeasesKept, run, is_fine, what);
            }
        }
    }

    /// Nothing that needs a lease is accepted after the lease is over.
    fn late(&mut self, run: RunId, ownership: &Ownership<'h>) {
        if ownership.claim.is_none() {
            return;
        }
        let completions = ownership
            .endings
            .iter()
            .filter(|ending| is_completion(ending));
        for used in ownership.renewals.iter().chain(completions) {
            if !used.is_applied() {
                continue;
            }
            let others =
                ownership.renewals.iter().copied().filter(|renewal| {
                    !std::ptr::eq(*renewal, *used) && renewal.may_have_happened()
                });
            let over = ownership.claim.into_iter().chain(others);
            let over = over.filter_map(grant).map(Grant::surely_over).max();
            let is_fine = over.is_none_or(|over| used.invoked_at <= over.saturating_add(DRIFT));
            let what = || format!("{:?} was accepted when the lease was over", used.call);
            self.ensure(Rule::LeasesKept, run, is_fine, what);
        }
    }

    /// An owner whose lease lasts is not turned away.
    fn refused(&mut self, run: RunId, token: u32, ownership: &Ownership<'h>) {
        let completions = ownership
            .endings
            .iter()
            .filter(|ending| is_completion(ending));
        for used in ownership.renewals.iter().chain(completions) {
            if !matches!(used.answered(), Some(Answer::Lost | Answer::Stale)) {
                continue;
            }
            let until = ownership.may_end_but_by(Some(used));
            let (from, to) = (used.invoked_at, used.answered_at());
            let is_fine = to >= until || !ownership.surely_lasts(from, to);
            let what = || {
                format!(
                    "{:?} was refused while the lease of {token} lasted",
                    used.call
                )
            };
            self.ensure(Rule::LeasesKept, run, is_fine, what);
        }
    }

    /// No more runs of a key are owned at one moment than its limit.
    fn limits(&mut self, runs: &BTreeMap<RunId, Tokens<'h>>) {
        let mut keys: BTreeMap<RunId, (&str, usize)> = BTreeMap::new();
        for operation in self.operations {
            if let Call::Create {
                run,
                limit: Some((key, limit)),
                ..
            } = &operation.call
            {
                keys.insert(*run, (key, *limit));
            }
        }
        // A retry takes the key of its run; a history tells of it after its run.
        for operation in self.operations {
            if let Call::Retry { of, run } = &operation.call
                && let Some(key) = keys.get(of).copied()
            {
                keys.insert(*run, key);
            }
        }
        let mut changes: BTreeMap<&str, Vec<(u64, bool, RunId, usize)>> = BTreeMap::new();
        for (run, tokens) in runs {
            let Some((key, limit)) = keys.get(run).copied() else {
                continue;
            };
            for ownership in tokens.values() {
                let Some(claim) = ownership.claim else {
                    continue;
                };
                let from = claim.answered_at();
                let granted = ownership.surely_until().saturating_sub(DRIFT);
                let until = granted.min(ownership.may_end_at());
                if from < until {
                    let changes = changes.entry(key).or_default();
                    changes.push((from, true, *run, limit));
                    changes.push((until, false, *run, limit));
                }
            }
        }
        for (key, mut changes) in changes {
            // Ends come before beginnings of the same instant.
            changes.sort();
            let mut owned = BTreeSet::new();
            for (_, begins, run, limit) in changes {
                if begins {
                    owned.insert(run);
                    let what = || {
                        format!(
                            "{} of {limit} runs with the key {key} were owned",
                            owned.len()
                        )
                    };
                    self.ensure(Rule::LimitsHold, run, owned.len() <= limit, what);
                } else {
                    owned.remove(&run);
                }
            }
        }
    }
}

fn is_completion(operation: &Operation) -> bool {
    matches!(
        operation.call,
        Call::End {
            outcome: EndedBy::Completed,
            ..
        }
    )
}

/// The runs that a call may have taken from an owner whose lease lasts, and under which token if that is known.
fn taken_by(operation: &Operation, deadlines: &[RunId]) -> Vec<(RunId, Option<u32>)> {
    if !operation.may_have_happened() {
        return Vec::new();
    }
    match (&operation.call, operation.answered()) {
        (Call::ForceKill { run }, _) => vec![(*run, None)],
        (Call::Rescue { proven_dead }, _) => {
            let dead = proven_dead.iter();
            dead.map(|Held { run, token }| (*run, Some(*token)))
                .collect()
        }
        (Call::TimeOut, Some(Answer::TimedOut { runs })) => {
            runs.iter().map(|run| (*run, None)).collect()
        }
        (Call::TimeOut, _) => deadlines.iter().map(|run| (*run, None)).collect(),
        _ => Vec::new(),
    }
}
