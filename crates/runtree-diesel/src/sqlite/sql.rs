//! How SQLite projects columns, and what every operation does its work with: one transaction's view of one namespace.
//!
//! Statements whose index is one of several that begin with the namespace name it with `INDEXED BY`: without statistics SQLite takes
//! any of them, and reads the whole namespace. A test looks at the plans.
//!
//! A statement that changes many runs is an `UPDATE OR FAIL`: SQLite then keeps no copy of every page that it changes, for the case
//! that it fails halfway. What fails here takes back the whole operation.
//!
//! A limit is written `LIMIT ?1 + 0`: where a limit is a value and nothing else, SQLite plans for that value, and throws the prepared
//! statement away each time it is given one.

use diesel::sqlite::Sqlite;
use diesel::{QueryableByName, RunQueryDsl, SqliteConnection};
use runtree_repository::id::RunId;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    ErrorKind, EventKind, Namespace, RepositoryError, Run, RunSummary, Token,
};
use serde_json::Value;

use super::dialect::classify;
use super::statement::Statement;
use crate::row::{EventRow, RunRow, WholeRunRow, event_columns, payload_columns, run_columns};

/// SQLite stores ids, instants and numbers as the rows want them.
macro_rules! plain {
    ($column:literal) => {
        $column
    };
}
pub(super) use plain;

/// The condition that an id is among those of [`Value::ids`](super::statement::Value::ids), which are ?2.
macro_rules! among {
    () => {
        "IN (SELECT unhex(value) FROM json_each(?2))"
    };
}
pub(super) use among;

/// The tags of the run `r`, as the text of a JSON array.
macro_rules! tags {
    () => {
        "(SELECT json_group_array(t.tag) FROM runtree_run_tags t WHERE t.namespace = r.namespace AND t.run_id = r.id)"
    };
}
pub(super) use tags;

/// The lease `l` and the facts `f` of the run `r`.
macro_rules! run_joins {
    () => {
        "LEFT JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id \
         LEFT JOIN runtree_run_facts f ON f.namespace = r.namespace AND f.run_id = r.id"
    };
}
pub(super) use run_joins;

/// Every column of a run, and where from; a condition follows.
macro_rules! select_runs {
    ($condition:expr) => {
        concat!(
            "SELECT ",
            run_columns!(plain, plain, plain, tags),
            " FROM runtree_runs r ",
            run_joins!(),
            " ",
            $condition
        )
    };
}
pub(super) use select_runs;

/// Every column of a run with its wide texts; a condition follows.
macro_rules! select_whole_runs {
    ($more_columns:literal, $condition:expr) => {
        concat!(
            "SELECT ",
            run_columns!(plain, plain, plain, tags),
            ", ",
            payload_columns!(),
            $more_columns,
            " FROM runtree_runs r",
            " JOIN runtree_run_payloads p ON p.namespace = r.namespace AND p.run_id = r.id ",
            run_joins!(),
            " ",
            $condition
        )
    };
}
pub(super) use select_whole_runs;

/// One transaction: its connection, the namespace that it sees, and the instant that it stamps with.
pub(crate) struct Transaction<'c> {
    connection: &'c mut SqliteConnection,
    namespace: &'c Namespace,
    now: Timestamp,
    doing: &'static str,
    is_news: bool,
}

impl<'c> Transaction<'c> {
    /// `doing` continues "failed to", for errors.
    pub(crate) fn new(
        connection: &'c mut SqliteConnection,
        namespace: &'c Namespace,
        now: Timestamp,
        doing: &'static str,
    ) -> Self {
        Self {
            connection,
            namespace,
            now,
            doing,
            is_news: false,
        }
    }

    /// Tells whether anything was written that watchers are to be told.
    pub(super) fn is_news(&self) -> bool {
        self.is_news
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// A fixed statement whose first value is the namespace.
    #[cfg_attr(test, track_caller)]
    pub(super) fn here<'v>(&self, sql: &'static str) -> Statement<'v>
    where
        'c: 'v,
    {
        Statement::new(sql).bind(self.namespace.as_str())
    }

    /// A statement put together at run time whose text is one of a few hundred, and whose first value is the namespace.
    pub(super) fn here_common<'v>(&self, sql: String) -> Statement<'v>
    where
        'c: 'v,
    {
        Statement::common(sql).bind(self.namespace.as_str())
    }

    /// A statement put together at run time, whose first value is the namespace.
    pub(super) fn here_dynamic<'v>(&self, sql: String) -> Statement<'v>
    where
        'c: 'v,
    {
        Statement::dynamic(sql).bind(self.namespace.as_str())
    }

    /// Executes a statement and tells how many rows it changed.
    pub(super) fn execute(&mut self, statement: Statement<'_>) -> Result<usize, RepositoryError> {
        let changed = self.execute_quietly(statement)?;
        self.is_news |= changed > 0;
        Ok(changed)
    }

    /// As [`execute`](Self::execute), for what is no news to watchers.
    pub(super) fn execute_quietly(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<usize, RepositoryError> {
        statement
            .execute(self.connection)
            .map_err(|error| classify(error, self.doing))
    }

    /// Executes a guarded statement on one row and tells whether the guard held.
    pub(super) fn applies(&mut self, statement: Statement<'_>) -> Result<bool, RepositoryError> {
        Ok(self.execute(statement)? > 0)
    }

    /// Executes a guarded statement that answers with the rows that it changed.
    pub(super) fn changed<R: QueryableByName<Sqlite> + 'static>(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<Vec<R>, RepositoryError> {
        let changed = self.rows(statement)?;
        self.is_news |= !changed.is_empty();
        Ok(changed)
    }

    pub(super) fn rows<R: QueryableByName<Sqlite> + 'static>(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<Vec<R>, RepositoryError> {
        statement
            .load(self.connection)
            .map_err(|error| classify(error, self.doing))
    }

    pub(super) fn row<R: QueryableByName<Sqlite> + 'static>(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<Option<R>, RepositoryError> {
        Ok(self.rows(statement)?.into_iter().next())
    }

    /// Reads a run as lists show it.
    pub(super) fn summary(&mut self, id: RunId) -> Result<Option<RunSummary>, RepositoryError> {
        const SQL: &str = select_runs!("WHERE r.namespace = ?1 AND r.id = ?2");
        self.row::<RunRow>(self.here(SQL).bind(id.as_bytes()))?
            .map(RunRow::decode)
            .transpose()
    }

    /// Reads a run, whole.
    pub(super) fn run(&mut self, id: RunId) -> Result<Option<Run>, RepositoryError> {
        const SQL: &str = select_whole_runs!("", "WHERE r.namespace = ?1 AND r.id = ?2");
        self.row::<WholeRunRow>(self.here(SQL).bind(id.as_bytes()))?
            .map(WholeRunRow::decode)
            .transpose()
    }

    /// Reads runs, whole, in no order.
    pub(super) fn runs(&mut self, ids: &[RunId]) -> Result<Vec<(RunId, Run)>, RepositoryError> {
        const SQL: &str =
            select_whole_runs!("", concat!("WHERE r.namespace = ?1 AND r.id ", among!()));
        let query = self.here(SQL).bind(super::statement::Value::ids(ids));
        self.rows::<WholeRunRow>(query)?
            .into_iter()
            .map(|row| row.decode().map(|run| (run.id, run)))
            .collect()
    }

    /// Reads a run that was written just before, whole.
    pub(super) fn written_run(&mut self, id: RunId) -> Result<Run, RepositoryError> {
        self.run(id)?.ok_or_else(|| lost(id))
    }

    /// Reads a run that was written just before, as lists show it.
    pub(super) fn written_summary(&mut self, id: RunId) -> Result<RunSummary, RepositoryError> {
        self.summary(id)?.ok_or_else(|| lost(id))
    }

    /// Adds an event to a run's history and stamps the run with it.
    pub(super) fn record(
        &mut self,
        id: RunId,
        kind: EventKind,
        token: Token,
        detail: Option<&Value>,
    ) -> Result<(), RepositoryError> {
        const TOUCH: &str = "UPDATE runtree_runs SET updated_at = ?3 WHERE namespace = ?1 AND id = ?2 AND updated_at < ?3";
        self.record_stamped(id, kind, token, detail)?;
        let touch = self
            .here(TOUCH)
            .bind(id.as_bytes())
            .bind(self.now.as_unix_micros());
        self.execute(touch)?;
        Ok(())
    }

    /// As [`record`](Self::record), for a run that this transaction stamped already.
    pub(super) fn record_stamped(
        &mut self,
        id: RunId,
        kind: EventKind,
        token: Token,
        detail: Option<&Value>,
    ) -> Result<(), RepositoryError> {
        // A clock may have been set back; a history is not.
        const EVENT: &str = "INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail) VALUES (?1, ?2, \
             (SELECT coalesce(max(number), 0) + 1 FROM runtree_run_events WHERE namespace = ?1 AND run_id = ?2), \
             max(?3, (SELECT updated_at FROM runtree_runs WHERE namespace = ?1 AND id = ?2)), ?4, ?5, ?6)";
        let event = self
            .here(EVENT)
            .bind(id.as_bytes())
            .bind(self.now.as_unix_micros())
            .bind(kind.as_str())
            .bind(token.get())
            .bind(detail.map(Value::to_string));
        self.execute(event)?;
        Ok(())
    }

    /// As [`record_stamped`](Self::record_stamped), where it is known what the run was stamped with.
    pub(super) fn record_at(
        &mut self,
        id: RunId,
        at: Timestamp,
        kind: EventKind,
        token: Token,
        detail: Option<&Value>,
    ) -> Result<(), RepositoryError> {
        const EVENT: &str = "INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail) VALUES (?1, ?2, \
             (SELECT coalesce(max(number), 0) + 1 FROM runtree_run_events WHERE namespace = ?1 AND run_id = ?2), ?3, ?4, ?5, ?6)";
        let event = self
            .here(EVENT)
            .bind(id.as_bytes())
            .bind(at.as_unix_micros())
            .bind(kind.as_str())
            .bind(token.get())
            .bind(detail.map(Value::to_string));
        self.execute(event)?;
        Ok(())
    }

    /// As [`record_stamped`](Self::record_stamped), the same event for runs of which each is named once.
    pub(super) fn record_all(
        &mut self,
        ids: &[RunId],
        kind: EventKind,
        token: Token,
        detail: &Value,
    ) -> Result<(), RepositoryError> {
        const EVENTS: &str = concat!(
            "INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail) SELECT ?1, r.id, \
             (SELECT coalesce(max(e.number), 0) + 1 FROM runtree_run_events e WHERE e.namespace = ?1 AND e.run_id = r.id), \
             max(?3, r.updated_at), ?4, ?5, ?6 FROM runtree_runs r WHERE r.namespace = ?1 AND r.id ",
            among!()
        );
        let events = self
            .here(EVENTS)
            .bind(super::statement::Value::ids(ids))
            .bind(self.now.as_unix_micros())
            .bind(kind.as_str())
            .bind(token.get())
            .bind(detail.to_string());
        self.execute(events)?;
        Ok(())
    }

    /// Records a write that its guard refused; the same refusal again says nothing new.
    pub(super) fn reject(
        &mut self,
        id: RunId,
        token: Token,
        event: &str,
    ) -> Result<(), RepositoryError> {
        const LAST: &str = concat!(
            "SELECT ",
            event_columns!(plain, plain, plain),
            " FROM runtree_run_events e",
            " WHERE e.namespace = ?1 AND e.run_id = ?2 ORDER BY e.number DESC LIMIT 1"
        );
        let detail = serde_json::json!({ "event": event });
        let last = self
            .row::<EventRow>(self.here(LAST).bind(id.as_bytes()))?
            .map(EventRow::decode)
            .transpose()?;
        let is_repeated = last.is_some_and(|last| {
            last.kind == EventKind::Rejected
                && last.token == token
                && last.detail.as_ref() == Some(&detail)
        });
        if is_repeated {
            Ok(())
        } else {
            self.record(id, EventKind::Rejected, token, Some(&detail))
        }
    }
}

/// The error of a run that cannot be read back.
pub(super) fn lost(id: RunId) -> RepositoryError {
    RepositoryError::new(
        ErrorKind::Corrupt,
        format!("the run {id} cannot be read back in the transaction that wrote it"),
    )
}
