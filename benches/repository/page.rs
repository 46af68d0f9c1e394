//! A page of 50 in a time range of a million runs, at three depths.

use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use runtree_benches::{Bench, Group};
use runtree_diesel::SqliteRepository;
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{Durability, Limit, PageRequest, RunFilter, RunPage};

use crate::ours::Ours;
use crate::{directory, disk};

/// When the first run was made, in microseconds; the others follow a millisecond apart.
const FIRST: i64 = 1_750_000_000_000_000;

/// Measures pages, if they are asked for.
pub(crate) fn run(bench: &Bench) {
    const NAME: &str = "sqlite/page of 50 among 1,000,000 runs";
    if !bench.wants(NAME) {
        return;
    }
    let count = bench.options().pick(1_000_000, 3_000);
    let temporary = directory();
    let file = if bench.options().is_measured {
        let version = SqliteRepository::migrations().len();
        prepared(&disk().join(format!("million-{version}.db")), count)
    } else {
        prepared(&temporary.path().join("some.db"), count)
    };
    let ours = Ours::sqlite(&file, Durability::Full);
    // A range that leaves a tenth out at each end.
    let at = |tenths: i64| {
        let micros = FIRST + count * 1_000 / 10 * tenths;
        Timestamp::from_unix_micros(micros).expect("because it is in this century")
    };
    let range = TimeRange::between(at(1), at(9)).expect("because the first is earlier");
    let filter = RunFilter::new().created(range);
    let inside = count / 10 * 8;
    let first = PageRequest::default();
    let middle = deep(&ours, &filter, inside / 2);
    let last = deep(&ours, &filter, inside - 2 * 50);
    for page in [&first, &middle, &last] {
        assert_eq!(list(&ours, &filter, page).runs.len(), 50);
    }
    bench.run(
        Group::new(NAME)
            .reference("the first", || list(&ours, &filter, &first))
            .side("in the middle", || list(&ours, &filter, &middle))
            .side("the last but one", || list(&ours, &filter, &last)),
    );
}

fn list(ours: &Ours, filter: &RunFilter, page: &PageRequest) -> RunPage {
    let page = ours.wait(ours.repository().list(filter, page));
    page.expect("the store works")
}

/// Turns pages until so many runs are behind, in large steps, and answers what asks for the next 50.
fn deep(ours: &Ours, filter: &RunFilter, depth: i64) -> PageRequest {
    let mut page = PageRequest::default();
    let mut left = u64::try_from(depth).expect("because it is not negative");
    while left > 0 {
        let step = left.min(1_000);
        page.limit = Limit::new(step).expect("because it is allowed");
        page.after = list(ours, filter, &page).next;
        assert!(page.after.is_some(), "there are more runs");
        left -= step;
    }
    page.limit = Limit::default();
    page
}

/// Answers a file with so many runs, which is kept for the next time.
fn prepared(file: &Path, count: i64) -> PathBuf {
    let path = file.to_str().expect("because the path is UTF-8");
    if file.is_file() {
        let mut connection = SqliteConnection::establish(path).expect("the file can be opened");
        let there =
            sql::<BigInt>("SELECT count(*) FROM runtree_runs").get_result::<i64>(&mut connection);
        if there == Ok(count) {
            return file.to_owned();
        }
        std::fs::remove_file(file).expect("a half made file can be removed");
    }
    drop(Ours::sqlite(file, Durability::Full));
    let mut connection = SqliteConnection::establish(path).expect("the file can be opened");
    fill(&mut connection, count).expect("the schema is the one that the statements are for");
    file.to_owned()
}

/// Fills the tables first and makes the indexes afterwards, which takes a fraction of the time.
fn fill(connection: &mut SqliteConnection, count: i64) -> diesel::QueryResult<()> {
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; PRAGMA temp_store = MEMORY";
    connection.batch_execute(settings)?;
    let indexes = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'runtree_runs' AND sql IS NOT NULL";
    let indexes: Vec<String> = sql::<Text>(indexes).load(connection)?;
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'runtree_runs' AND sql IS NOT NULL";
    let names: Vec<String> = sql::<Text>(names).load(connection)?;
    connection.batch_execute("BEGIN IMMEDIATE")?;
    for name in names {
        connection.batch_execute(&format!("DROP INDEX {name}"))?;
    }
    // Ids as runtree makes them: version 7, in the order of time.
    connection.batch_execute(&format!(
        "WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < {count}) \
         INSERT INTO runtree_runs (namespace, id, workflow, status, end_reason, priority, fingerprint, attempts, max_attempts, \
             token, available_at, created_at, updated_at, started_at, ended_at) \
         SELECT 'default', unhex(printf('%012x7%03x8%015x', at / 1000, n % 4096, n)), 'workflow-' || (n % 20), \
             iif(n % 10, 'completed', 'failed'), iif(n % 10, 'succeeded', 'error'), 0, zeroblob(32), 1, 1, \
             1, at, at, at + 5000000, at + 1000000, at + 5000000 \
         FROM (SELECT n, {FIRST} + n * 1000 AS at FROM number)"
    ))?;
    connection.batch_execute(
        "INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata) \
         SELECT namespace, id, 'fix the flaky test', '{}' FROM runtree_runs ORDER BY id",
    )?;
    for index in indexes {
        connection.batch_execute(&index)?;
    }
    connection.batch_execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
}
