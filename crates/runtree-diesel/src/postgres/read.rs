//! Reads runs, pages of runs and their histories; nothing here writes.

use async_trait::async_trait;
use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::status::RunStatus;
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    EventNumber, Limit, PageRequest, ReadRuns, RepositoryError, Run, RunEvent, RunFilter, RunOrder,
    RunPage, RunSummary, WorkflowName,
};

use super::statement::{Bound, Statement};
use super::{PostgresRepository, sql};
use crate::row::{EventRow, RunRow, WholeRunRow, instant};

/// The most candidates that an ambiguous ending is answered with.
const MAX_CANDIDATES: u32 = 10;

/// The digits of an id that the index over endings holds: four bits each, 20 in all, as many as the shortest ending has.
const INDEXED_MASK: u128 = 0xf_ffff;

#[derive(QueryableByName)]
struct NowRow {
    #[diesel(sql_type = BigInt)]
    now: i64,
}

#[async_trait]
impl ReadRuns for PostgresRepository {
    async fn now(&self) -> Result<Timestamp, RepositoryError> {
        let rows: Vec<NowRow> = self
            .read("read the clock", || Statement::new(sql::NOW))
            .await?;
        let row = rows.first().ok_or_else(|| super::no_row("the clock"))?;
        instant("clock", row.now)
    }

    async fn get(&self, id: RunId) -> Result<Option<Run>, RepositoryError> {
        self.run(id).await
    }

    async fn find(&self, ending: &IdEnding) -> Result<Lookup<RunSummary>, RepositoryError> {
        let indexed = &format!("{:05x}", ending.value() & INDEXED_MASK);
        let bits = ending.mask().count_ones();
        let width = usize::try_from(bits).unwrap_or(usize::MAX);
        let value = &format!("{:0width$b}", ending.value());
        let find = || {
            self.statement(sql::FIND)
                .text(indexed)
                .int(bits)
                .text(value)
                .int(MAX_CANDIDATES)
        };
        let found = summaries(self.read("look a run up", find).await?)?;
        Ok(Lookup::from_matches(found))
    }

    async fn list(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<RunPage, RepositoryError> {
        filter.check()?;
        let position = page.position()?;
        let (text, first) = match page.order {
            RunOrder::NewestFirst => (sql::LIST_NEWEST_FIRST, (Bound::Latest, [0xff; 16])),
            RunOrder::OldestFirst => (sql::LIST_OLDEST_FIRST, (Bound::Earliest, [0; 16])),
            order => return Err(super::unsupported("order", &order)),
        };
        let (after_instant, after_id) = position.map_or(first, |position| {
            (Bound::At(position.created_at), *position.id.as_bytes())
        });
        let (created_from, created_before) = bounds(filter.wanted_created().unwrap_or_default());
        let started = filter.wanted_started().map(bounds);
        let ended = filter.wanted_ended().map(bounds);
        // One more than the page may have tells whether there is another.
        let limit = i64::try_from(page.limit.get())
            .unwrap_or(i64::MAX)
            .saturating_add(1);
        let list = || {
            self.statement(text)
                .texts_or_null(
                    filter
                        .wanted_statuses()
                        .map(|set| set.iter().map(RunStatus::as_str).collect()),
                )
                .texts_or_null(
                    filter
                        .wanted_workflows()
                        .map(|set| set.iter().map(WorkflowName::as_str).collect()),
                )
                .id_or_null(
                    filter
                        .wanted_session()
                        .as_ref()
                        .map(|session| session.as_uuid().as_bytes()),
                )
                .text_or_null(filter.wanted_user().map(AsRef::as_ref))
                .instant(created_from)
                .instant(created_before)
                .bound_or_null(started.map(|(from, _)| from))
                .bound_or_null(started.map(|(_, before)| before))
                .bound_or_null(ended.map(|(from, _)| from))
                .bound_or_null(ended.map(|(_, before)| before))
                .instant(after_instant)
                .id(&after_id)
                .int(limit)
        };
        let runs = summaries(self.read("list runs", list).await?)?;
        Ok(RunPage::of(runs, page))
    }

    async fn events(
        &self,
        id: RunId,
        after: EventNumber,
        limit: Limit,
    ) -> Result<Vec<RunEvent>, RepositoryError> {
        let limit = super::count(limit);
        let events = || {
            self.statement(sql::EVENTS)
                .id(id.as_bytes())
                .int(after.get())
                .int(limit)
        };
        let rows: Vec<EventRow> = self.read("read the events of a run", events).await?;
        rows.into_iter().map(EventRow::decode).collect()
    }
}

impl PostgresRepository {
    pub(super) async fn run(&self, id: RunId) -> Result<Option<Run>, RepositoryError> {
        let get = || self.statement(sql::GET).id(id.as_bytes());
        self.read::<WholeRunRow>("read a run", get)
            .await?
            .pop()
            .map(WholeRunRow::decode)
            .transpose()
    }
}

fn summaries(rows: Vec<RunRow>) -> Result<Vec<RunSummary>, RepositoryError> {
    rows.into_iter().map(RunRow::decode).collect()
}

/// The bounds of a range; an open end is an infinite one.
fn bounds(range: TimeRange) -> (Bound, Bound) {
    (
        range.start().map_or(Bound::Earliest, Bound::At),
        range.end().map_or(Bound::Latest, Bound::At),
    )
}
