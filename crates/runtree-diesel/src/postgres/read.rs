//! Reads single runs, their histories, and why they stand where they stand; nothing here writes.

use async_trait::async_trait;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};
use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    EventNumber, Explanation, IdempotencyKey, Lease, LeaseRef, Limit, Namespace, PageRequest,
    ReadRuns, RepositoryError, Run, RunEvent, RunFilter, RunPage, RunStatistics, RunSummary,
    Surroundings,
};
use uuid::Uuid;

use super::statement::Statement;
use super::{PostgresRepository, sql};
use crate::in_order::row_in_order;
use crate::instant::{Micros, Moment};
use crate::row::{EventRow, RunRow, WholeRunRow, amount, instant, parse, run_id};

/// The most candidates that an ambiguous ending is answered with.
const MAX_CANDIDATES: u32 = 10;

/// The digits of an id that the index over endings holds: four bits each, 20 in all, as many as the shortest ending has.
const INDEXED_MASK: u128 = 0xf_ffff;

#[derive(QueryableByName)]
struct NowRow {
    #[diesel(sql_type = Moment)]
    now: Micros,
}

row_in_order! {
    /// A run and what stands around it.
    struct ExplainedRow {
        #[diesel(embed)]
        run: RunRow,
        #[diesel(sql_type = Nullable<Text>)]
        child_process: Option<String>,
        #[diesel(sql_type = Nullable<Moment>)]
        heartbeat_at: Option<Micros>,
        #[diesel(sql_type = Moment)]
        now: Micros,
        #[diesel(sql_type = Nullable<Text>)]
        holders: Option<String>,
        #[diesel(sql_type = BigInt)]
        ahead: i64,
    }
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

    async fn get_by_key(&self, key: &IdempotencyKey) -> Result<Option<Run>, RepositoryError> {
        let get = || self.statement(sql::GET_BY_KEY).text(key.as_str());
        self.read::<WholeRunRow>("read a run by its key", get)
            .await?
            .pop()
            .map(WholeRunRow::decode)
            .transpose()
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
        self.page(filter, page).await
    }

    async fn count(&self, filter: &RunFilter) -> Result<u64, RepositoryError> {
        self.counted(filter).await
    }

    async fn statistics(&self, filter: &RunFilter) -> Result<RunStatistics, RepositoryError> {
        self.measured(filter).await
    }

    async fn explain(&self, id: RunId) -> Result<Option<Explanation>, RepositoryError> {
        let explain = || self.statement(sql::EXPLAIN).id(id.as_bytes());
        self.read::<ExplainedRow>("explain a run", explain)
            .await?
            .pop()
            .map(ExplainedRow::decode)
            .transpose()
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
        let get = || getting(&self.namespace, &id);
        self.read::<WholeRunRow>("read a run", get)
            .await?
            .pop()
            .map(WholeRunRow::decode)
            .transpose()
    }

    /// Reads summaries of runs, in no order.
    pub(super) async fn runs(&self, ids: &[RunId]) -> Result<Vec<RunSummary>, RepositoryError> {
        let get = || {
            self.statement(sql::GET_MANY)
                .ids(ids.iter().map(|id| *id.as_bytes()))
        };
        summaries(self.read("read runs", get).await?)
    }
}

impl ExplainedRow {
    fn decode(self) -> Result<Explanation, RepositoryError> {
        let run = self.run.decode()?;
        let lease = LeaseRef {
            run: run.id,
            token: run.token,
        };
        let lease = match (&run.owner, self.heartbeat_at, run.lease_expires_at) {
            (Some(owner), Some(heartbeat_at), Some(expires_at)) => Some(Lease::new(
                lease,
                owner.clone(),
                self.child_process.map(TryInto::try_into).transpose()?,
                instant("heartbeat instant", heartbeat_at)?,
                expires_at,
            )),
            (_, _, _) => None,
        };
        let holders: Vec<String> = match self.holders {
            Some(holders) => parse("holders of a key", serde_json::from_str(&holders))?,
            None => Vec::new(),
        };
        let seen = Surroundings {
            lease,
            holders: holders
                .iter()
                .map(|id| run_id(parse("id of a run", id.parse::<Uuid>())?.as_bytes()))
                .collect::<Result<_, _>>()?,
            ahead: amount("number of runs ahead", self.ahead)?,
        };
        Ok(Explanation::new(run, instant("clock", self.now)?, &seen))
    }
}

/// Begins to read a run, whole.
pub(crate) fn getting<'s>(namespace: &'s Namespace, id: &RunId) -> Statement<'s> {
    Statement::new(sql::GET)
        .text(namespace.as_str())
        .id(id.as_bytes())
}

pub(super) fn summaries(rows: Vec<RunRow>) -> Result<Vec<RunSummary>, RepositoryError> {
    rows.into_iter().map(RunRow::decode).collect()
}
