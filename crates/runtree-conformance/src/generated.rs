//! Runs and filters drawn by dice that always fall the same way, for cases that compare a store with the meaning of a filter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtree_repository::id::{RunId, SessionId};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    Annotation, CancelMode, CancelRequest, ClaimOf, Cost, CreateRun, Ending, LeaseRef, Limit,
    NewRun, Outcome, Persistence, Priority, Run, RunFilter, Tag, Usage,
};
use serde_json::{Value, json};

use crate::context::{Cx, HOST, completed, failed, failed_for_now, session};
use crate::failure::{Checked, Failure, WriteAnswer};

const WORKFLOWS: [&str; 5] = ["builder", "review", "Builder", "build_r", "zoë"];
const QUEUES: [&str; 3] = ["default", "slow", "fast"];
const USERS: [&str; 3] = ["user-1", "User-1", "user-2"];
const TAGS: [&str; 5] = ["nightly", "Nightly", "a_b", "axb", "urgent"];
const HOSTS: [&str; 2] = [HOST, "beta.example"];

/// Dice that fall the same way for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        // SplitMix64, whose every seed is as good as any other.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, number: usize) -> usize {
        let number = u64::try_from(number).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % number).unwrap_or(0)
    }

    /// Yes, once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn one_of<'a, T>(&mut self, values: &'a [T]) -> Checked<&'a T> {
        let at = self.below(values.len());
        values
            .get(at)
            .ok_or_else(|| Failure::new("there is a value to choose"))
    }

    fn some_of<T: Clone + Ord>(&mut self, values: &[T]) -> BTreeSet<T> {
        let mut some: BTreeSet<T> = values.iter().filter(|_| self.once_in(3)).cloned().collect();
        if some.is_empty() {
            some.extend(values.get(self.below(values.len())).cloned());
        }
        some
    }
}

fn sessions() -> Checked<Vec<SessionId>> {
    [
        "0190b5c4-7e1a-7b3c-8d4e-5f60718293a4",
        "0190b5c4-7e1a-7b3c-8d4e-5f60718293a5",
        "0190b5c4-7e1a-7b3c-8d4e-5f60718293a6",
    ]
    .into_iter()
    .map(session)
    .collect()
}

/// Values of metadata: what is equal and what only looks so.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(1),
        json!("1"),
        json!("Grün"),
        json!([1, 2]),
        json!([2, 1]),
        json!({"a": 1, "b": [null]}),
        json!({}),
        json!(""),
    ]
}

const KEYS: [&str; 4] = ["k", "K", "k.'\"$[0]", ""];

/// Makes so many runs of every kind that the interface can bring about, and answers them as they are at last.
pub(crate) async fn runs(cx: &Cx, dice: &mut Dice, count: usize) -> Checked<Vec<Run>> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let batch = (0..(count - ids.len()).min(40)).map(|_| request(cx, dice));
        let created = cx.create_all(&batch.collect::<Checked<Vec<_>>>()?).await?;
        ids.extend(created.iter().map(|run| run.id));
        cx.pass(Duration::from_micros(3)).await?;
        live(cx, dice, created.len()).await?;
    }
    let mut all = Vec::new();
    for id in ids {
        all.push(cx.get(id).await?);
    }
    Ok(all)
}

fn request(cx: &Cx, dice: &mut Dice) -> Checked<CreateRun> {
    let mut run = NewRun::new(*dice.one_of(&WORKFLOWS)?)
        .queue(*dice.one_of(&QUEUES)?)
        .priority(Priority::new(if dice.once_in(3) { 5 } else { 0 }))
        .max_attempts(std::num::NonZeroU32::MIN.saturating_add(1));
    if dice.once_in(2) {
        run = run.session(*dice.one_of(&sessions()?[..2])?);
    }
    if dice.once_in(2) {
        run = run.user(*dice.one_of(&USERS)?);
    }
    for tag in TAGS {
        if dice.once_in(3) {
            run = run.tag(tag);
        }
    }
    for key in KEYS {
        if dice.once_in(3) {
            run = run.metadata(key, dice.one_of(&values())?.clone());
        }
    }
    if dice.once_in(3) {
        return cx.worktree_request(run, Persistence::Temporary);
    }
    cx.request(run)
}

/// Lets some of the youngest runs begin, and some of those end.
async fn live(cx: &Cx, dice: &mut Dice, count: usize) -> Checked {
    for host in HOSTS {
        let mut claim = cx.claim_of(ClaimOf::ANY)?;
        claim.owner = cx.owner(host)?;
        claim.limit = Limit::new(u64::try_from(count / 3).unwrap_or(1).max(1))?;
        let claimed = cx.runs.claim(&claim).await?;
        cx.pass(Duration::from_micros(7)).await?;
        for claimed in &claimed {
            annotate(cx, dice, claimed.lease.run).await?;
        }
        let mut endings = Vec::new();
        for claimed in claimed {
            if let Some(outcome) = outcome(dice) {
                endings.push((claimed.lease, outcome));
            }
        }
        // In two calls, so that not all end at one instant.
        let middle = endings.len() / 2;
        for half in [&endings[..middle], &endings[middle..]] {
            end(cx, half).await?;
            cx.pass(Duration::from_micros(11)).await?;
        }
    }
    Ok(())
}

async fn annotate(cx: &Cx, dice: &mut Dice, id: RunId) -> Checked {
    if dice.once_in(2) {
        // Few different values, so that some are equal.
        let number = |dice: &mut Dice| u64::try_from(dice.below(5)).unwrap_or(0);
        let usage = Usage {
            input_tokens: number(dice),
            output_tokens: number(dice) * 1_000,
            cost: Cost::from_micros(number(dice) * 250_000),
        };
        let annotation = Annotation::new()
            .add_usage(usage)
            .add_tag(dice.one_of(&TAGS)?.parse()?)
            .remove_tag(dice.one_of(&TAGS)?.parse()?)
            .metadata(*dice.one_of(&KEYS)?, dice.one_of(&values())?.clone());
        cx.runs.annotate(id, &annotation).await?.accepted();
    }
    if dice.once_in(9) {
        let request = CancelRequest::new(CancelMode::Graceful);
        cx.runs.cancel(id, &request).await?.applied("a cancel")?;
    }
    Ok(())
}

fn outcome(dice: &mut Dice) -> Option<Outcome> {
    match dice.below(7) {
        0 | 1 => None,
        2 => Some(failed("no")),
        3 => Some(Outcome::Killed),
        4 => Some(failed_for_now("again", Duration::from_micros(5))),
        _ => Some(completed()),
    }
}

async fn end(cx: &Cx, endings: &[(LeaseRef, Outcome)]) -> Checked {
    let endings: Vec<Ending> = endings
        .iter()
        .map(|(lease, outcome)| Ending {
            lease: *lease,
            outcome: outcome.clone(),
        })
        .collect();
    for answer in cx.runs.end_many(&endings).await? {
        answer.applied("an ending")?;
    }
    Ok(())
}

/// Draws a filter that these runs have something to do with.
pub(crate) fn filter(dice: &mut Dice, runs: &[Run]) -> Checked<RunFilter> {
    let mut filter = RunFilter::new();
    for _ in 0..=dice.below(3) {
        filter = condition(dice, runs, filter)?;
    }
    Ok(filter)
}

fn condition(dice: &mut Dice, runs: &[Run], filter: RunFilter) -> Checked<RunFilter> {
    let run = dice.one_of(runs)?;
    let owner = runs
        .iter()
        .filter_map(|run| run.owner.clone())
        .collect::<Vec<_>>();
    Ok(match dice.below(14) {
        0 => filter.statuses(dice.some_of(RunStatus::KNOWN)),
        1 => filter.end_reasons(dice.some_of(EndReason::KNOWN)),
        2 => {
            let some =
                dice.some_of(&["nobody's", "builder", "review", "Builder", "build_r", "zoë"]);
            filter.workflows(
                some.iter()
                    .map(|name| name.parse())
                    .collect::<Result<Vec<_>, _>>()?,
            )
        }
        3 => {
            let some = dice.some_of(&["nobody's", "default", "slow", "fast"]);
            filter.queues(
                some.iter()
                    .map(|name| name.parse())
                    .collect::<Result<Vec<_>, _>>()?,
            )
        }
        4 => filter.session(*dice.one_of(&sessions()?)?),
        5 => filter.user(dice.one_of(&["user-1", "User-1", "user_1"])?.parse()?),
        6 => match run.worktree.clone() {
            Some(worktree) => filter.branch(worktree.branch),
            None => filter,
        },
        7 if !owner.is_empty() => filter.owner(dice.one_of(&owner)?.id),
        8 => filter.owner_host(dice.one_of(&[HOST, "beta.example", "nobody"])?.parse()?),
        9 => dice
            .some_of(&TAGS)
            .into_iter()
            .try_fold(filter, |filter, tag| {
                Ok::<_, Failure>(filter.tag(tag.parse::<Tag>()?))
            })?,
        10 => filter.metadata_key(*dice.one_of(&KEYS)?),
        11 => filter.metadata(*dice.one_of(&KEYS)?, dice.one_of(&values())?.clone()),
        12 => filter.created(range(dice, runs.iter().map(|run| Some(run.created_at)))?),
        13 => filter.ended(range(dice, runs.iter().map(|run| run.ended_at))?),
        _ => filter.started(range(dice, runs.iter().map(|run| run.started_at))?),
    })
}

fn range(dice: &mut Dice, instants: impl Iterator<Item = Option<Timestamp>>) -> Checked<TimeRange> {
    let instants: Vec<Timestamp> = instants.flatten().collect();
    let (one, other) = (*dice.one_of(&instants)?, *dice.one_of(&instants)?);
    Ok(match dice.below(4) {
        0 => TimeRange::since(one),
        1 => TimeRange::before(one),
        2 => TimeRange::through(one),
        _ => TimeRange::between(one.min(other), one.max(other))
            .map_err(|e| Failure::new(e.to_string()))?,
    })
}

/// How often each thing occurs.
pub(crate) fn counts<T: Ord>(of: impl IntoIterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for thing in of {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}
