//! The reference on SQLite: one thread that executes the least statements with the same effect, on the same schema, so many
//! operations a commit, and nothing else.
//!
//! Each statement is prepared once. There are no savepoints, no answers to callers, no runs that are read back.

use std::marker::PhantomData;
use std::path::Path;
use std::time::SystemTime;

use diesel::connection::SimpleConnection;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{self, BigInt, Binary, Nullable};
use diesel::sqlite::Sqlite;
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use runtree_benches::{INPUT, Lap};
use runtree_repository::id::{IdGenerator, OwnerId};

use crate::ours::{HOST, PROCESS, WORKFLOW};

/// How long a lease lasts, in microseconds.
const LEASE: i64 = 60_000_000;

/// A file and how many operations share a commit.
pub(crate) struct Raw {
    connection: SqliteConnection,
    ids: IdGenerator,
    owner: OwnerId,
    claimed_as: String,
    /// How many operations share a commit.
    pub(crate) batch: u64,
}

/// A claimed run: its id and token.
pub(crate) type Lease = (Vec<u8>, i64);

impl Raw {
    /// Opens a file that has the schema, with the settings of runtree's own writing connection.
    pub(crate) fn open(path: &Path, owner: OwnerId, batch: u64) -> Self {
        let path = path.to_str().expect("because the path is UTF-8");
        let mut connection = SqliteConnection::establish(path).expect("the file can be opened");
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = 1; PRAGMA mmap_size = 0";
        connection
            .batch_execute(settings)
            .expect("the settings are allowed");
        Self {
            connection,
            ids: IdGenerator::system(),
            claimed_as: format!(r#"{{"attempt":1,"host":"{HOST}","owner":"{owner}"}}"#),
            owner,
            batch,
        }
    }

    /// Creates so many runs.
    pub(crate) fn create(&mut self, count: u64) -> Lap {
        self.in_batches(count, |raw| {
            let id = raw.ids.run_id().expect("the system has random bits");
            raw.create_one(id.as_bytes());
        })
    }

    /// Claims so many runs and answers them.
    pub(crate) fn claim(&mut self, count: u64) -> (Lap, Vec<Lease>) {
        let mut leases = Vec::new();
        let lap = self.in_batches(count, |raw| leases.extend(raw.claim_some(1)));
        (lap, leases)
    }

    /// Completes runs.
    pub(crate) fn complete(&mut self, leases: &[Lease]) -> Lap {
        let mut leases = leases.iter();
        let count = u64::try_from(leases.len()).expect("because they fit in memory");
        self.in_batches(count, |raw| {
            let (id, token) = leases.next().expect("because they were counted");
            raw.complete_one(id, *token);
        })
    }

    /// Claims and completes all that waits, so many at once.
    pub(crate) fn drain(&mut self, batch: i64) -> Lap {
        let (mut lap, operations) = Lap::of(0, || {
            let mut operations = 0;
            loop {
                self.command("BEGIN IMMEDIATE");
                let leases = self.claim_some(batch);
                self.command("COMMIT");
                if leases.is_empty() {
                    return operations;
                }
                self.command("BEGIN IMMEDIATE");
                for (id, token) in leases {
                    self.complete_one(&id, token);
                    operations += 1;
                }
                self.command("COMMIT");
            }
        });
        lap.operations = operations;
        lap
    }

    fn in_batches(&mut self, count: u64, mut work: impl FnMut(&mut Self)) -> Lap {
        let (lap, ()) = Lap::of(count, || {
            let mut left = count;
            while left > 0 {
                let some = left.min(self.batch);
                self.command("BEGIN IMMEDIATE");
                (0..some).for_each(|_| work(self));
                self.command("COMMIT");
                left -= some;
            }
        });
        lap
    }

    fn command(&mut self, sql: &str) {
        self.connection
            .batch_execute(sql)
            .expect("nobody else uses the file");
    }

    fn execute<const ID: u8>(&mut self, sql: &'static str, values: &[Value<'_>]) {
        let changed = Statement::<ID, ()>::new(sql, values).execute(&mut self.connection);
        assert_eq!(changed, Ok(1), "{sql}");
    }

    fn create_one(&mut self, id: &[u8]) {
        let now = now();
        self.execute::<0>(
            "INSERT INTO runtree_runs (namespace, id, workflow, status, queue, priority, idempotency_key, unique_key, \
             concurrency_key, concurrency_limit, session_id, user_id, fingerprint, max_attempts, worktree_name, worktree_branch, \
             worktree_base, worktree_persistence, available_at, deadline_at, created_at, updated_at) \
             VALUES ('default', ?, ?, 'pending', 'default', 0, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            &[
                Bytes(id),
                Text(WORKFLOW),
                Null,
                Null,
                Null,
                Null,
                Null,
                Null,
                Bytes(&[7; 32]),
                Null,
                Null,
                Null,
                Null,
                Int(now),
                Null,
                Int(now),
                Int(now),
            ],
        );
        self.execute::<1>(
            "INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata) VALUES ('default', ?, ?, '{}')",
            &[Bytes(id), Text(INPUT)],
        );
        self.record(id, now, "created", 0, Null);
    }

    fn claim_some(&mut self, limit: i64) -> Vec<Lease> {
        let now = now();
        let found = Statement::<2, (Binary, BigInt)>::new(
            "SELECT id, token FROM runtree_runs INDEXED BY runtree_runs_claim WHERE namespace = 'default' AND status = 'pending' \
             AND ended_at IS NULL AND cancel_requested_at IS NULL AND available_at <= ? AND concurrency_key IS NULL \
             ORDER BY priority DESC, created_at, id LIMIT ?",
            &[Int(now), Int(limit)],
        )
        .load::<Lease>(&mut self.connection);
        let mut found = found.expect("nobody else uses the file");
        for (id, token) in &mut found {
            *token += 1;
            self.claim_one(id, *token, now);
        }
        found
    }

    fn claim_one(&mut self, id: &[u8], token: i64, now: i64) {
        self.execute::<3>(
            "UPDATE runtree_runs SET status = 'running', token = ?, attempts = attempts + 1, started_at = coalesce(started_at, ?), \
             updated_at = max(?, updated_at) WHERE namespace = 'default' AND id = ? AND status = 'pending' AND ended_at IS NULL \
             AND cancel_requested_at IS NULL AND available_at <= ?",
            &[Int(token), Int(now), Int(now), Bytes(id), Int(now)],
        );
        let owner = self.owner;
        self.execute::<4>(
            "INSERT OR REPLACE INTO runtree_run_leases (namespace, run_id, owner_id, owner_host, owner_process, heartbeat_at, \
             expires_at) VALUES ('default', ?, ?, ?, ?, ?, ?)",
            &[
                Bytes(id),
                Bytes(owner.as_bytes()),
                Text(HOST),
                Text(PROCESS),
                Int(now),
                Int(now + LEASE),
            ],
        );
        let detail = self.claimed_as.clone();
        self.record(id, now, "claimed", token, Text(&detail));
        // Who claims a run needs to know what to do.
        let input = Statement::<5, sql_types::Text>::new(
            "SELECT input FROM runtree_run_payloads WHERE namespace = 'default' AND run_id = ?",
            &[Bytes(id)],
        )
        .get_result::<String>(&mut self.connection);
        assert_eq!(input.as_deref(), Ok(INPUT));
    }

    fn complete_one(&mut self, id: &[u8], token: i64) {
        let now = now();
        self.execute::<6>(
            "UPDATE runtree_runs SET status = 'completed', end_reason = 'succeeded', \
             ended_at = max(?, coalesce(started_at, created_at)), updated_at = max(?, updated_at) \
             WHERE namespace = 'default' AND id = ? AND ended_at IS NULL AND status = 'running' AND token = ? \
             AND EXISTS (SELECT 1 FROM runtree_run_leases l WHERE l.namespace = 'default' AND l.run_id = ? AND l.expires_at > ?)",
            &[Int(now), Int(now), Bytes(id), Int(token), Bytes(id), Int(now)],
        );
        self.execute::<7>(
            "DELETE FROM runtree_run_leases WHERE namespace = 'default' AND run_id = ?",
            &[Bytes(id)],
        );
        self.record(
            id,
            now,
            "completed",
            token,
            Text(r#"{"reason":"succeeded"}"#),
        );
    }

    fn record(&mut self, id: &[u8], now: i64, kind: &str, token: i64, detail: Value<'_>) {
        self.execute::<8>(
            "INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail) VALUES ('default', ?, \
             (SELECT coalesce(max(number), 0) + 1 FROM runtree_run_events WHERE namespace = 'default' AND run_id = ?), ?, ?, ?, ?)",
            &[Bytes(id), Bytes(id), Int(now), Text(kind), Int(token), detail],
        );
    }
}

fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("because it is after 1970");
    i64::try_from(since.as_micros()).expect("because it is before the year 10000")
}

/// A value of a statement.
enum Value<'a> {
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Null,
}
use Value::{Bytes, Int, Null, Text};

/// A statement that Diesel knows by its number, so that it neither writes nor prepares it twice. `?` stands for the next value.
struct Statement<'a, const ID: u8, Row> {
    sql: &'static str,
    values: &'a [Value<'a>],
    row: PhantomData<Row>,
}

impl<'a, const ID: u8, Row> Statement<'a, ID, Row> {
    const fn new(sql: &'static str, values: &'a [Value<'a>]) -> Self {
        Self {
            sql,
            values,
            row: PhantomData,
        }
    }
}

/// What Diesel knows a statement by.
struct Number<const ID: u8>;

impl<const ID: u8, Row> QueryId for Statement<'_, ID, Row> {
    type QueryId = Number<ID>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const ID: u8, Row> Query for Statement<'_, ID, Row> {
    type SqlType = Row;
}

impl<Conn, const ID: u8, Row> RunQueryDsl<Conn> for Statement<'_, ID, Row> {}

impl<const ID: u8, Row> QueryFragment<Sqlite> for Statement<'_, ID, Row> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let mut pieces = self.sql.split('?');
        out.push_sql(pieces.next().unwrap_or_default());
        for (value, piece) in self.values.iter().zip(pieces) {
            match value {
                Int(number) => out.push_bind_param::<BigInt, _>(number)?,
                Text(text) => out.push_bind_param::<sql_types::Text, _>(text)?,
                Bytes(bytes) => out.push_bind_param::<Binary, _>(bytes)?,
                Null => out.push_bind_param::<Nullable<BigInt>, _>(&None::<i64>)?,
            }
            out.push_sql(piece);
        }
        Ok(())
    }
}
