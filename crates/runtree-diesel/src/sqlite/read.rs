//! Reads runs, pages of runs and their histories, each in one snapshot.

use async_trait::async_trait;
use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    EventNumber, Explanation, IdempotencyKey, Limit, PageRequest, ReadRuns, RepositoryError, Run,
    RunEvent, RunFilter, RunPage, RunStatistics, RunSummary,
};

use super::explain;
use super::filter;
use super::rows::{IdRow, NumberRow};
use super::sql::{Transaction, plain, run_joins, select_whole_runs, tags};
use super::statement::Value;
use super::{SqliteRepository, statistics};
use crate::row::{
    EventRow, RunRow, WholeRunRow, amount, event_columns, payload_columns, run_columns,
};

/// The most candidates that an ambiguous ending is answered with.
const MAX_CANDIDATES: usize = 10;

#[async_trait]
impl ReadRuns for SqliteRepository {
    async fn now(&self) -> Result<Timestamp, RepositoryError> {
        Ok(self.store.clock.now())
    }

    async fn get(&self, id: RunId) -> Result<Option<Run>, RepositoryError> {
        self.read("read a run", move |transaction| transaction.run(id))
            .await
    }

    async fn get_by_key(&self, key: &IdempotencyKey) -> Result<Option<Run>, RepositoryError> {
        const BY_KEY: &str =
            select_whole_runs!("", "WHERE r.namespace = ?1 AND r.idempotency_key = ?2");
        let key = key.clone();
        self.read("read a run by its key", move |transaction| {
            transaction
                .row::<WholeRunRow>(transaction.here(BY_KEY).bind(key.as_str()))?
                .map(WholeRunRow::decode)
                .transpose()
        })
        .await
    }

    async fn find(&self, ending: &IdEnding) -> Result<Lookup<RunSummary>, RepositoryError> {
        let ending = *ending;
        self.read("find a run", move |transaction| find(transaction, ending))
            .await
    }

    async fn list(
        &self,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<RunPage, RepositoryError> {
        filter.check()?;
        let query = filter::page(filter, page, page.position()?);
        let page = page.clone();
        self.read("list runs", move |transaction| {
            let runs = transaction
                .rows::<RunRow>(query.statement(transaction))?
                .into_iter()
                .map(RunRow::decode)
                .collect::<Result<_, _>>()?;
            Ok(RunPage::of(runs, &page))
        })
        .await
    }

    async fn count(&self, filter: &RunFilter) -> Result<u64, RepositoryError> {
        filter.check()?;
        let query = filter::over_all(filter, "count(*) AS number", "");
        self.read("count runs", move |transaction| {
            let row = transaction.row::<NumberRow>(query.statement(transaction))?;
            amount("number of runs", row.map_or(0, |row| row.number))
        })
        .await
    }

    async fn statistics(&self, filter: &RunFilter) -> Result<RunStatistics, RepositoryError> {
        filter.check()?;
        let filter = filter.clone();
        self.read("measure runs", move |transaction| {
            statistics::statistics(transaction, &filter)
        })
        .await
    }

    async fn explain(&self, id: RunId) -> Result<Option<Explanation>, RepositoryError> {
        self.read("explain a run", move |transaction| {
            explain::explain(transaction, id)
        })
        .await
    }

    async fn events(
        &self,
        id: RunId,
        after: EventNumber,
        limit: Limit,
    ) -> Result<Vec<RunEvent>, RepositoryError> {
        const SQL: &str = concat!(
            "SELECT ",
            event_columns!(plain, plain, plain),
            " FROM runtree_run_events e",
            " WHERE e.namespace = ?1 AND e.run_id = ?2 AND e.number > ?3 ORDER BY e.number LIMIT ?4 + 0"
        );
        self.read("read the events of a run", move |transaction| {
            let query = transaction
                .here(SQL)
                .bind(id.as_bytes())
                .bind(after.get())
                .bind(Value::count(limit.get()));
            transaction
                .rows::<EventRow>(query)?
                .into_iter()
                .map(EventRow::decode)
                .collect()
        })
        .await
    }
}

pub(super) const BY_ENDING: &str = "SELECT r.id FROM runtree_runs r INDEXED BY runtree_runs_ending \
     WHERE r.namespace = ?1 AND substr(r.id, 15) = ?2 ORDER BY r.id";

/// Takes the runs with the same last two bytes from the index, and of these the ones with the whole ending.
fn find(
    transaction: &mut Transaction<'_>,
    ending: IdEnding,
) -> Result<Lookup<RunSummary>, RepositoryError> {
    let [.., second_last, last] = ending.value().to_be_bytes();
    let candidates: Vec<IdRow> =
        transaction.rows(transaction.here(BY_ENDING).bind(&[second_last, last]))?;
    let mut found = Vec::new();
    for candidate in candidates {
        let id = candidate.decode()?;
        if ending.matches(&id) {
            found.push(transaction.written_summary(id)?);
        }
        if found.len() == MAX_CANDIDATES {
            break;
        }
    }
    Ok(Lookup::from_matches(found))
}
