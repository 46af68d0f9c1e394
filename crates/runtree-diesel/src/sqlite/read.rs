//! Reads runs, pages of runs and their histories, each in one snapshot.

use async_trait::async_trait;
use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    EventNumber, Limit, PageRequest, Position, ReadRuns, RepositoryError, Run, RunEvent, RunFilter,
    RunOrder, RunPage, RunSummary,
};

use super::SqliteRepository;
use super::rows::IdRow;
use super::sql::{Transaction, plain, select_runs};
use super::statement::Value;
use crate::row::{EventRow, RunRow, event_columns, run_columns};

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
        let position = page.position()?;
        let (filter, page) = (filter.clone(), page.clone());
        self.read("list runs", move |transaction| {
            let (sql, values) = list_query(&filter, &page, position);
            let query = transaction.here_dynamic(sql).bind_all(values);
            let runs = transaction
                .rows::<RunRow>(query)?
                .into_iter()
                .map(RunRow::decode)
                .collect::<Result<_, _>>()?;
            Ok(RunPage::of(runs, &page))
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
            " WHERE e.namespace = ?1 AND e.run_id = ?2 AND e.number > ?3 ORDER BY e.number LIMIT ?4"
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

/// Puts the query of a page together; the values follow the namespace.
pub(super) fn list_query(
    filter: &RunFilter,
    page: &PageRequest,
    after: Option<Position>,
) -> (String, Vec<Value<'static>>) {
    let mut conditions = Conditions {
        sql: select_runs!("WHERE r.namespace = ?1").to_owned(),
        values: Vec::new(),
    };
    if let Some(statuses) = filter.wanted_statuses() {
        conditions.one_of(
            "r.status",
            statuses.iter().map(|status| status.as_str().to_owned()),
        );
    }
    if let Some(workflows) = filter.wanted_workflows() {
        conditions.one_of(
            "r.workflow",
            workflows
                .iter()
                .map(|workflow| workflow.as_str().to_owned()),
        );
    }
    if let Some(session) = filter.wanted_session() {
        conditions.holds(
            "r.session_id =",
            Value::bytes(session.as_uuid().as_bytes().to_vec()),
        );
    }
    if let Some(user) = filter.wanted_user() {
        conditions.holds("r.user_id =", user.as_str().to_owned().into());
    }
    conditions.within("r.created_at", filter.wanted_created());
    conditions.within("r.started_at", filter.wanted_started());
    conditions.within("r.ended_at", filter.wanted_ended());
    let (beyond, direction) = match page.order {
        RunOrder::OldestFirst => (">", "ASC"),
        RunOrder::NewestFirst | _ => ("<", "DESC"),
    };
    if let Some(Position { created_at, id }) = after {
        let at = conditions.value(created_at.as_unix_micros().into());
        let id = conditions.value(Value::bytes(id.as_bytes().to_vec()));
        conditions
            .sql
            .push_str(&format!(" AND (r.created_at, r.id) {beyond} ({at}, {id})"));
    }
    // One more than the page may have tells whether another page follows.
    let limit = conditions.value(Value::count(page.limit.get() + 1));
    conditions.sql.push_str(&format!(
        " ORDER BY r.created_at {direction}, r.id {direction} LIMIT {limit}"
    ));
    (conditions.sql, conditions.values)
}

struct Conditions {
    sql: String,
    values: Vec<Value<'static>>,
}

impl Conditions {
    /// Adds a value and answers its placeholder; the namespace has the first.
    fn value(&mut self, value: Value<'static>) -> String {
        self.values.push(value);
        format!("?{}", self.values.len() + 1)
    }

    fn holds(&mut self, comparison: &str, value: Value<'static>) {
        let value = self.value(value);
        self.sql.push_str(&format!(" AND {comparison} {value}"));
    }

    fn one_of(&mut self, column: &str, words: impl Iterator<Item = String>) {
        let words: Vec<String> = words.map(|word| self.value(word.into())).collect();
        self.sql
            .push_str(&format!(" AND {column} IN ({})", words.join(", ")));
    }

    fn within(&mut self, column: &str, range: Option<TimeRange>) {
        let Some(range) = range else { return };
        // A range without bounds still asks for an instant.
        self.sql.push_str(&format!(" AND {column} IS NOT NULL"));
        if let Some(start) = range.start() {
            self.holds(&format!("{column} >="), start.as_unix_micros().into());
        }
        if let Some(end) = range.end() {
            self.holds(&format!("{column} <"), end.as_unix_micros().into());
        }
    }
}
