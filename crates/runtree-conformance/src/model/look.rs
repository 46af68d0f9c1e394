//! The model's reads: which runs a filter shows, in which order, and what they come to.

use std::collections::BTreeMap;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    Direction, Explanation, Limit, Measure, Run, RunFilter, RunOrder, RunStatistics, RunSummary,
    SortKey, Surroundings, UserId,
};
use serde_json::Value;

use super::names;
use super::step::FilterDraft;
use super::wish::sum;
use super::world::World;
use crate::failure::Checked;

/// Tells whether a filter shows a run.
pub(super) type Shows = Box<dyn Fn(&Run) -> bool + Send>;

/// A filter, and its meaning.
pub(super) fn filter(draft: &FilterDraft, world: &World) -> Checked<(RunFilter, Shows)> {
    let all = RunFilter::new();
    Ok(match draft {
        FilterDraft::All => (all, Box::new(|_| true)),
        FilterDraft::Status(number) => {
            let statuses: Vec<RunStatus> = some_of(RunStatus::KNOWN, *number);
            let filter = all.statuses(statuses.clone());
            (filter, Box::new(move |run| statuses.contains(&run.status)))
        }
        FilterDraft::Ended(number) => {
            let reasons: Vec<EndReason> = some_of(EndReason::KNOWN, *number);
            let filter = all.end_reasons(reasons.clone());
            let shows = move |run: &Run| run.end_reason.is_some_and(|why| reasons.contains(&why));
            (filter, Box::new(shows))
        }
        FilterDraft::Queue(number) => {
            let queue = names::queue(*number)?;
            let filter = all.queues([queue.clone()]);
            (filter, Box::new(move |run| run.queue == queue))
        }
        FilterDraft::Workflow(number) => {
            let workflow = names::workflow(*number)?;
            let filter = all.workflows([workflow.clone()]);
            (filter, Box::new(move |run| run.workflow == workflow))
        }
        FilterDraft::User(number) => {
            let user: UserId = names::user(*number)?;
            let filter = all.user(user.clone());
            (
                filter,
                Box::new(move |run| run.user.as_ref() == Some(&user)),
            )
        }
        FilterDraft::Tags(numbers) => {
            let tags: Vec<_> = numbers
                .iter()
                .map(|n| names::tag(*n))
                .collect::<Checked<_>>()?;
            let filter = tags.iter().cloned().fold(all, RunFilter::tag);
            let shows = move |run: &Run| tags.iter().all(|tag| run.tags.contains(tag));
            (filter, Box::new(shows))
        }
        FilterDraft::Member(key, value) => {
            let key = names::member(*key);
            let value = value.map(Value::from);
            let filter = match &value {
                Some(value) => all.metadata(&key, value.clone()),
                None => all.metadata_key(&key),
            };
            let shows = move |run: &Run| match (run.metadata.get(&key), &value) {
                (Some(found), Some(value)) => found == value,
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            };
            (filter, Box::new(shows))
        }
        FilterDraft::Owner(number) => {
            let id = names::owner(*number)?.id;
            let shows = move |run: &Run| run.owner.as_ref().is_some_and(|owner| owner.id == id);
            (all.owner(id), Box::new(shows))
        }
        FilterDraft::Host(number) => {
            let host = names::host(*number)?;
            let filter = all.owner_host(host.clone());
            let shows = move |run: &Run| run.owner.as_ref().is_some_and(|owner| owner.host == host);
            (filter, Box::new(shows))
        }
        FilterDraft::CreatedSince(number) => {
            let of = one_of(world, *number).map_or(world.now, |run| run.created_at);
            let filter = all.created(TimeRange::since(of));
            (filter, Box::new(move |run| of <= run.created_at))
        }
        FilterDraft::CreatedBefore(number) => {
            let of = one_of(world, *number).map_or(world.now, |run| run.created_at);
            let filter = all.created(TimeRange::before(of));
            (filter, Box::new(move |run| run.created_at < of))
        }
        FilterDraft::StartedBefore(number) => {
            let started = one_of(world, *number).and_then(|run| run.started_at);
            let before = started.unwrap_or(world.now);
            let filter = all.started(TimeRange::before(before));
            let shows = move |run: &Run| run.started_at.is_some_and(|at| at < before);
            (filter, Box::new(shows))
        }
    })
}

/// One value, or that one and the next.
fn some_of<T: Copy>(values: &[T], number: u8) -> Vec<T> {
    let (at, many) = (usize::from(number / 2), usize::from(number % 2));
    let len = values.len().max(1);
    values
        .iter()
        .cycle()
        .skip(at % len)
        .take(1 + many)
        .copied()
        .collect()
}

fn one_of(world: &World, number: u8) -> Option<&Run> {
    let at = usize::from(number) % world.records.len().max(1);
    world.records.get(at).map(|record| &record.run)
}

impl World {
    pub(super) fn shown(&self, shows: &Shows) -> Vec<&Run> {
        let runs = self.records.iter().map(|record| &record.run);
        runs.filter(|run| shows(run)).collect()
    }

    /// The runs of a list, page by page.
    pub(super) fn pages(
        &self,
        shows: &Shows,
        order: RunOrder,
        limit: Limit,
    ) -> Vec<Vec<RunSummary>> {
        let mut runs: Vec<(Place, RunId, &Run)> = self
            .shown(shows)
            .into_iter()
            .map(|run| (place(order.by, run), run.id, run))
            .collect();
        runs.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        if order.direction == Direction::Descending {
            runs.reverse();
        }
        let runs: Vec<RunSummary> = runs
            .into_iter()
            .map(|(_, _, run)| run.summary.clone())
            .collect();
        if runs.is_empty() {
            return vec![Vec::new()];
        }
        runs.chunks(limit.get())
            .map(<[RunSummary]>::to_vec)
            .collect()
    }

    pub(super) fn statistics(&self, shows: &Shows) -> RunStatistics {
        let runs = self.shown(shows);
        let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        let usage = sum(&runs.iter().map(|run| run.usage).collect::<Vec<_>>());
        let mut statistics = RunStatistics::default();
        statistics.runs = number(runs.len());
        for run in &runs {
            *statistics.by_status.entry(run.status).or_default() += 1;
            *statistics
                .by_workflow
                .entry(run.workflow.clone())
                .or_default() += 1;
        }
        let since = |from: Option<_>, to: Option<Timestamp>| {
            to.zip(from).and_then(|(to, from)| to.duration_since(from))
        };
        let durations = runs
            .iter()
            .filter_map(|run| since(run.started_at, run.ended_at));
        statistics.duration = measure(durations.collect());
        let waits = runs.iter().filter_map(|run| {
            let could_start = run.available_at.max(run.created_at);
            since(Some(could_start), run.started_at)
        });
        statistics.waiting = measure(waits.collect());
        statistics.input_tokens = usage.input_tokens;
        statistics.output_tokens = usage.output_tokens;
        statistics.cost = usage.cost;
        statistics
    }

    pub(super) fn explain(&self, id: RunId) -> Option<Explanation> {
        let record = self.record(id)?;
        let place = |run: &Run| (-i32::from(run.priority.get()), run.created_at, run.id);
        let ahead = self
            .records
            .iter()
            .map(|record| &record.run)
            .filter(|other| {
                other.status == RunStatus::Pending
                    && other.queue == record.run.queue
                    && other.available_at <= self.now
                    && place(other) < place(&record.run)
            });
        let seen = Surroundings {
            lease: self
                .leases()
                .into_iter()
                .find(|lease| lease.lease.run == id),
            holders: self.users_of_key(id).into_iter().collect(),
            ahead: u64::try_from(ahead.count()).unwrap_or(u64::MAX),
        };
        Some(Explanation::new(
            record.run.summary.clone(),
            self.now,
            &seen,
        ))
    }

    /// The run of each idempotency key that is held.
    pub(super) fn by_key(&self) -> BTreeMap<&runtree_repository::IdempotencyKey, &Run> {
        let runs = self.records.iter().map(|record| &record.run);
        runs.filter_map(|run| Some((run.idempotency_key.as_ref()?, run)))
            .collect()
    }
}

/// A number or a text; none is before every number.
type Place = (Option<i64>, String);

/// What a run is sorted by.
fn place(by: SortKey, run: &Run) -> Place {
    let at = |at: Option<Timestamp>| at.map(Timestamp::as_unix_micros);
    let small = |number: u64| i64::try_from(number).ok();
    let number = match by {
        SortKey::Created => at(Some(run.created_at)),
        SortKey::Started => at(run.started_at),
        SortKey::Ended => at(run.ended_at),
        SortKey::Duration => at(run.ended_at)
            .zip(at(run.started_at))
            .map(|(ended, started)| ended - started),
        SortKey::Cost => small(run.usage.cost.micros()),
        SortKey::Tokens => small(run.usage.input_tokens + run.usage.output_tokens),
        _ => None,
    };
    let text = match by {
        SortKey::Workflow => run.workflow.to_string(),
        SortKey::Status => run.status.to_string(),
        SortKey::Branch => {
            let branch = run
                .worktree
                .as_ref()
                .map(|worktree| worktree.branch.to_string());
            branch.unwrap_or_default()
        }
        _ => String::new(),
    };
    (number, text)
}

/// Percentiles by counting: the smallest value that so many in a hundred are not greater than.
fn measure(mut values: Vec<Duration>) -> Measure {
    values.sort();
    let percentile = |share: usize| {
        let enough = |value: &&Duration| {
            let not_greater = values.iter().filter(|other| other <= value).count();
            not_greater * 100 >= share * values.len()
        };
        values.iter().find(enough).copied().unwrap_or_default()
    };
    let micros = |value: Duration| u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    let count = u64::try_from(values.len()).unwrap_or(u64::MAX);
    let sum: u64 = values.iter().copied().map(micros).sum();
    Measure::from_micros([
        count,
        sum.checked_div(count).unwrap_or_default(),
        micros(percentile(50)),
        micros(percentile(90)),
        micros(percentile(99)),
        micros(percentile(100)),
    ])
}
