//! Lists, counts and measures the runs of a filter.

use std::collections::BTreeMap;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use runtree_repository::id::{BranchName, OwnerId};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    Cost, ErrorKind, Measure, PageRequest, Position, QueueName, RepositoryError, RunFilter,
    RunPage, RunStatistics, SortKey, SortValue, Tag, WorkflowName,
};

use super::read::summaries;
use super::sql::{Measured, Shape};
use super::statement::{Bound, Statement};
use super::{PostgresRepository, canonical};
use crate::row::{amount, parse};

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    runs: i64,
}

#[derive(QueryableByName)]
struct StatisticsRow {
    #[diesel(sql_type = BigInt)]
    runs: i64,
    #[diesel(sql_type = BigInt)]
    input_tokens: i64,
    #[diesel(sql_type = BigInt)]
    output_tokens: i64,
    #[diesel(sql_type = BigInt)]
    cost: i64,
    #[diesel(sql_type = BigInt)]
    duration_count: i64,
    #[diesel(sql_type = BigInt)]
    duration_mean: i64,
    #[diesel(sql_type = BigInt)]
    duration_median: i64,
    #[diesel(sql_type = BigInt)]
    duration_p90: i64,
    #[diesel(sql_type = BigInt)]
    duration_p99: i64,
    #[diesel(sql_type = BigInt)]
    duration_max: i64,
    #[diesel(sql_type = BigInt)]
    waiting_count: i64,
    #[diesel(sql_type = BigInt)]
    waiting_mean: i64,
    #[diesel(sql_type = BigInt)]
    waiting_median: i64,
    #[diesel(sql_type = BigInt)]
    waiting_p90: i64,
    #[diesel(sql_type = BigInt)]
    waiting_p99: i64,
    #[diesel(sql_type = BigInt)]
    waiting_max: i64,
    #[diesel(sql_type = Text)]
    by_status: String,
    #[diesel(sql_type = Text)]
    by_workflow: String,
}

/// Where a page begins, in the type that its order is stored in.
enum After<'p> {
    Instant(Bound),
    Number(i64),
    Text(&'p str),
}

/// A filter, with the values that are stored as text already written.
struct Wanted<'f> {
    filter: &'f RunFilter,
    members: Vec<(&'f str, Option<String>)>,
    created: (Bound, Bound),
    started: (Bound, Bound),
    ended: (Bound, Bound),
}

impl<'f> Wanted<'f> {
    fn new(filter: &'f RunFilter) -> Result<Self, RepositoryError> {
        filter.check()?;
        let members = filter.metadata.iter().flatten();
        Ok(Self {
            filter,
            members: members
                .map(|(key, value)| (key.as_str(), value.as_ref().map(canonical)))
                .collect(),
            created: bounds(filter.created),
            started: bounds(filter.started),
            ended: bounds(filter.ended),
        })
    }

    fn statement<'s>(&'s self, repository: &'s PostgresRepository, shape: Shape) -> Statement<'s> {
        let filter = self.filter;
        let statuses = filter.statuses.as_ref();
        let end_reasons = filter.end_reasons.as_ref();
        let workflows = filter.workflows.as_ref();
        let queues = filter.queues.as_ref();
        let tags = filter.tags.as_ref();
        repository
            .begin_statement(shape.text())
            .kept_if(shape.is_kept())
            .texts_or_null(statuses.map(|set| set.iter().map(RunStatus::as_str).collect()))
            .texts_or_null(end_reasons.map(|set| set.iter().map(EndReason::as_str).collect()))
            .texts_or_null(workflows.map(|set| set.iter().map(WorkflowName::as_str).collect()))
            .texts_or_null(queues.map(|set| set.iter().map(QueueName::as_str).collect()))
            .instant(self.created.0)
            .instant(self.created.1)
            .instant(self.started.0)
            .instant(self.started.1)
            .instant(self.ended.0)
            .instant(self.ended.1)
            .id_or_null(filter.session.as_ref().map(|id| id.as_uuid().as_bytes()))
            .text_or_null(filter.user.as_ref().map(AsRef::as_ref))
            .text_or_null(filter.branch.as_ref().map(BranchName::as_str))
            .id_or_null(filter.owner.as_ref().map(OwnerId::as_bytes))
            .text_or_null(filter.owner_host.as_ref().map(AsRef::as_ref))
            .texts_or_null(tags.map(|set| set.iter().map(Tag::as_str).collect()))
            .texts(self.members.iter().map(|(key, _)| *key))
            .texts_or_nulls(self.members.iter().map(|(_, value)| value.as_deref()))
    }
}

impl PostgresRepository {
    pub(super) async fn page(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<RunPage, RepositoryError> {
        let wanted = Wanted::new(filter)?;
        let position = page.position()?;
        let order = page.order;
        let asked = Measured::page(order, position.is_none())
            .ok_or_else(|| super::unsupported("order", &order))?;
        let shape = Shape::new(asked, filter);
        let after = position
            .map(|position| Ok::<_, RepositoryError>((after(order.by, position)?, position.id)))
            .transpose()?;
        // One more than the page may have tells whether there is another.
        let limit = super::count(page.limit).saturating_add(1);
        let list = || {
            let statement = wanted.statement(self, shape).int(limit);
            match &after {
                None => statement,
                Some((After::Instant(at), id)) => statement.instant(*at).id(id.as_bytes()),
                Some((After::Number(number), id)) => statement.int(*number).id(id.as_bytes()),
                Some((After::Text(text), id)) => statement.text(text).id(id.as_bytes()),
            }
        };
        let runs = summaries(self.read("list runs", list).await?)?;
        Ok(RunPage::of(runs, page))
    }

    pub(super) async fn counted(&self, filter: &RunFilter) -> Result<u64, RepositoryError> {
        let wanted = Wanted::new(filter)?;
        let shape = Shape::new(Measured::Count, filter);
        let count = || wanted.statement(self, shape);
        let rows: Vec<CountRow> = self.read("count runs", count).await?;
        let row = rows.first().ok_or_else(|| super::no_row("a count"))?;
        amount("number of runs", row.runs)
    }

    pub(super) async fn measured(
        &self,
        filter: &RunFilter,
    ) -> Result<RunStatistics, RepositoryError> {
        let wanted = Wanted::new(filter)?;
        let shape = Shape::new(Measured::Statistics, filter);
        let most = i64::try_from(RunStatistics::MAX_WORKFLOWS).unwrap_or(i64::MAX);
        let measure = || wanted.statement(self, shape).int(most);
        let rows: Vec<StatisticsRow> = self.read("measure runs", measure).await?;
        let row = rows.into_iter().next();
        row.ok_or_else(|| super::no_row("statistics"))?.decode()
    }
}

impl StatisticsRow {
    fn decode(self) -> Result<RunStatistics, RepositoryError> {
        let mut statistics = RunStatistics::default();
        statistics.runs = amount("number of runs", self.runs)?;
        for (word, runs) in counts(&self.by_status)? {
            let status = parse("status", RunStatus::from_stored(&word))?;
            statistics.by_status.insert(status, runs);
        }
        for (name, runs) in counts(&self.by_workflow)? {
            let name = parse("workflow name", WorkflowName::new(name))?;
            statistics.by_workflow.insert(name, runs);
        }
        statistics.duration = measure([
            self.duration_count,
            self.duration_mean,
            self.duration_median,
            self.duration_p90,
            self.duration_p99,
            self.duration_max,
        ])?;
        statistics.waiting = measure([
            self.waiting_count,
            self.waiting_mean,
            self.waiting_median,
            self.waiting_p90,
            self.waiting_p99,
            self.waiting_max,
        ])?;
        statistics.input_tokens = amount("number of input tokens", self.input_tokens)?;
        statistics.output_tokens = amount("number of output tokens", self.output_tokens)?;
        statistics.cost = Cost::from_micros(amount("cost", self.cost)?);
        Ok(statistics)
    }
}

fn counts(text: &str) -> Result<BTreeMap<String, u64>, RepositoryError> {
    parse("object of counts", serde_json::from_str(text))
}

fn measure(parts: [i64; 6]) -> Result<Measure, RepositoryError> {
    let mut micros = [0; 6];
    for (part, micros) in parts.into_iter().zip(&mut micros) {
        *micros = amount("time in microseconds", part)?;
    }
    Ok(Measure::from_micros(micros))
}

/// The place of a cursor in the type that its order is stored in. One beyond what the type holds is before or after all that is stored.
fn after(by: SortKey, position: &Position) -> Result<After<'_>, RepositoryError> {
    match (by, &position.value) {
        (SortKey::Created | SortKey::Started | SortKey::Ended, SortValue::Number(micros)) => {
            Ok(After::Instant(micros.map_or(Bound::Earliest, |micros| {
                let beyond = if micros > 0 {
                    Bound::Latest
                } else {
                    Bound::At(Timestamp::MIN)
                };
                Timestamp::from_unix_micros(micros).map_or(beyond, Bound::At)
            })))
        }
        // No time at all stands before every time.
        (SortKey::Duration, SortValue::Number(micros)) => {
            Ok(After::Number(micros.map_or(-1, |micros| micros.max(-1))))
        }
        (_, SortValue::Number(number)) => Ok(After::Number(number.unwrap_or(i64::MIN))),
        (_, SortValue::Text(text)) if !text.contains('\0') => Ok(After::Text(text)),
        (_, SortValue::Text(_)) => Err(RepositoryError::new(
            ErrorKind::InvalidInput,
            "the cursor was not made by this version, or was changed",
        )),
    }
}

/// The bounds of a range. An open end is an infinite one; where there is a range, a value must be there, and the earliest instant is
/// before all of them.
fn bounds(range: Option<TimeRange>) -> (Bound, Bound) {
    match range {
        None => (Bound::Earliest, Bound::Latest),
        Some(range) => (
            Bound::At(range.start().unwrap_or(Timestamp::MIN)),
            range.end().map_or(Bound::Latest, Bound::At),
        ),
    }
}
