//! A host's transaction on a file of SQLite, which is the application's own.

use std::path::PathBuf;
use std::sync::Arc;

use diesel::connection::{
    AnsiTransactionManager, InstrumentationEvent, SimpleConnection as _, TransactionManager as _,
};
use diesel::sql_types::Text;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_diesel::{SqliteRepository, host};
use runtree_repository::time::{Clock as _, ManualClock, Timestamp};
use runtree_repository::{CreateRuns as _, ErrorKind, ReadRuns as _, RunFilter};
use tokio::task::block_in_place;

use super::*;

/// A file, in a directory that goes with it.
pub(super) struct File {
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

#[derive(QueryableByName)]
struct OrderRow {
    #[diesel(sql_type = Text)]
    run: String,
}

pub(super) fn connect(path: &std::path::Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection
        .batch_execute("PRAGMA busy_timeout = 30000")
        .unwrap();
    connection
}

pub(super) fn orders(connection: &mut SqliteConnection) -> BTreeSet<RunId> {
    runs(connection, "SELECT run FROM orders")
}

pub(super) fn done(connection: &mut SqliteConnection) -> BTreeSet<RunId> {
    runs(connection, "SELECT run FROM orders WHERE is_done = 1")
}

fn runs(connection: &mut SqliteConnection, query: &str) -> BTreeSet<RunId> {
    let rows: Vec<OrderRow> = sql_query(query).load(connection).unwrap();
    rows.into_iter()
        .map(|row| row.run.parse().unwrap())
        .collect()
}

impl Host for SqliteConnection {
    type Database = File;

    fn database() -> File {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.db");
        connect(&path)
            .batch_execute("PRAGMA journal_mode = WAL; CREATE TABLE orders (run TEXT PRIMARY KEY, is_done INTEGER NOT NULL DEFAULT 0)")
            .unwrap();
        File {
            path,
            _directory: directory,
        }
    }

    async fn repository(file: &File, namespace: &Namespace) -> DynRunRepository {
        let runs = SqliteRepository::builder(&file.path).namespace(namespace.clone());
        Arc::new(runs.open().await.unwrap())
    }

    async fn connect(file: &File) -> Self {
        connect(&file.path)
    }

    async fn begin(&mut self) {
        block_in_place(|| AnsiTransactionManager::begin_transaction_sql(self, "BEGIN IMMEDIATE"))
            .unwrap();
    }

    async fn begin_nested(&mut self) {
        AnsiTransactionManager::begin_transaction(self).unwrap();
    }

    async fn commit(&mut self) -> QueryResult<()> {
        AnsiTransactionManager::commit_transaction(self)
    }

    async fn roll_back(&mut self) -> QueryResult<()> {
        AnsiTransactionManager::rollback_transaction(self)
    }

    async fn execute(&mut self, sql: &str) -> QueryResult<()> {
        self.batch_execute(sql)
    }

    async fn create_in(
        &mut self,
        namespace: &Namespace,
        request: &CreateRun,
    ) -> Result<Created, RepositoryError> {
        let mut runs = host::sqlite(self).namespace(namespace.clone());
        block_in_place(|| runs.create(request))
    }

    async fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        host::sqlite(self).cancel(id, request)
    }

    async fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Result<Write<Run>, RepositoryError> {
        host::sqlite(self).end(lease, outcome)
    }

    async fn accept(&mut self, request: &CreateRun, then: Then) -> Result<(), AnyError> {
        self.immediate_transaction(|connection| {
            sql_query(order(request.id)).execute(connection)?;
            new(host::sqlite(connection).create(request));
            then.done()
        })
    }

    async fn orders(file: &File) -> BTreeSet<RunId> {
        orders(&mut connect(&file.path))
    }

    const NO_EVENTS: &str = "CREATE TRIGGER no_events BEFORE INSERT ON runtree_run_events \
         BEGIN SELECT RAISE(ABORT, 'no events today'); END";
}

cases::tests!(SqliteConnection);

async fn opened() -> (File, SqliteRepository) {
    let file = SqliteConnection::database();
    let runs = SqliteRepository::open(&file.path).await.unwrap();
    (file, runs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_attached_is_not_the_hosts_own() {
    let (file, runs) = opened().await;
    let directory = tempfile::tempdir().unwrap();
    let mut connection =
        SqliteConnection::establish(directory.path().join("shop.db").to_str().unwrap()).unwrap();
    connection
        .batch_execute(&format!("ATTACH '{}' AS runs", file.path.display()))
        .unwrap();
    let request = request(NewRun::new("builder"));
    let refused = connection.immediate_transaction(|connection| {
        Ok::<_, diesel::result::Error>(host::sqlite(connection).create(&request))
    });
    assert_eq!(
        refused.unwrap().unwrap_err().kind(),
        ErrorKind::Configuration
    );
    assert_eq!(runs.get(request.id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_transaction_that_has_read_nothing_waits_for_its_turn() {
    let (file, runs) = opened().await;
    let mut other = connect(&file.path);
    other
        .batch_execute("BEGIN IMMEDIATE; INSERT INTO orders (run) VALUES ('x')")
        .unwrap();
    let request = request(NewRun::new("builder"));
    let (writes, is_about_to_write) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn({
        let (path, request) = (file.path.clone(), request.clone());
        move || {
            let mut connection = connect(&path);
            connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
                if let InstrumentationEvent::StartQuery { query, .. } = event
                    && ["INSERT", "UPDATE"]
                        .iter()
                        .any(|word| query.to_string().starts_with(word))
                {
                    writes.send(()).unwrap();
                }
            });
            connection.transaction(|connection| {
                let created = new(host::sqlite(connection).create(&request));
                Ok::<_, diesel::result::Error>(created)
            })
        }
    });
    // The other holds the file when the first write begins: whoever has read before that is refused, now or by the commit.
    is_about_to_write.recv().unwrap();
    other.batch_execute("COMMIT").unwrap();
    waiting.join().unwrap().unwrap();
    assert!(runs.get(request.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_transaction_that_read_too_early_is_busy_and_succeeds_when_it_is_repeated() {
    let (file, runs) = opened().await;
    let request = request(NewRun::new("builder"));
    let mut connection = connect(&file.path);
    let mut tries = 0;
    loop {
        tries += 1;
        let done = connection.transaction(|connection| {
            orders(connection);
            if tries == 1 {
                connect(&file.path)
                    .batch_execute("INSERT INTO orders (run) VALUES ('x')")
                    .unwrap();
                connect(&file.path)
                    .batch_execute("DELETE FROM orders")
                    .unwrap();
            }
            host::sqlite(connection).create(&request).map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                diesel::result::Error::RollbackTransaction
            })
        });
        if done.is_ok() {
            break;
        }
    }
    assert_eq!(tries, 2);
    assert!(runs.get(request.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_others_hold_for_too_long_is_busy() {
    let (file, _runs) = opened().await;
    let mut other = connect(&file.path);
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let mut connection = connect(&file.path);
    connection
        .batch_execute("PRAGMA busy_timeout = 10")
        .unwrap();
    AnsiTransactionManager::begin_transaction(&mut connection).unwrap();
    let request = request(NewRun::new("builder"));
    let error = host::sqlite(&mut connection).create(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    other.batch_execute("ROLLBACK").unwrap();
    new(host::sqlite(&mut connection).create(&request));
    connection.commit().await.unwrap();
}

/// Tells whether SQLite itself knows of a transaction, whatever Diesel counts.
fn is_in_transaction(connection: &mut SqliteConnection) -> bool {
    match connection.batch_execute("BEGIN") {
        Ok(()) => {
            connection.batch_execute("ROLLBACK").unwrap();
            false
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("within a transaction"), "{text}");
            true
        }
    }
}

/// After a failure to write SQLite sometimes takes back one statement and sometimes the whole transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_leaves_the_hosts_transaction_whole_or_says_that_all_of_it_is_gone() {
    let (mut lost, mut kept) = (0, 0);
    for spare in 0..40 {
        let (file, runs) = opened().await;
        let mut host = connect(&file.path);
        let pages: Vec<NumberRow> = sql_query("SELECT page_count AS number FROM pragma_page_count")
            .load(&mut host)
            .unwrap();
        host.begin().await;
        let (before, after) = (request(NewRun::new("one")), request(NewRun::new("two")));
        host.order(before.id).await.unwrap();
        let limit = pages.first().unwrap().number + spare;
        host.batch_execute(&format!("PRAGMA max_page_count = {limit}"))
            .unwrap();
        let large = request(
            NewRun::new("builder")
                .input("x".repeat(60_000))
                .tag("nightly"),
        );
        let Err(error) = host::sqlite(&mut host).create(&large) else {
            host.roll_back().await.unwrap();
            continue;
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains("is full"), "{text}");
        let is_there = is_in_transaction(&mut host);
        let says_gone = text.contains("the host's whole transaction");
        assert_eq!(says_gone, !is_there, "with {spare} pages: {text}");
        host.batch_execute("PRAGMA max_page_count = 100000")
            .unwrap();
        if is_there {
            kept += 1;
            new(host::sqlite(&mut host).create(&after));
            host.commit().await.unwrap();
            assert_eq!(orders(&mut host), BTreeSet::from([before.id]));
        } else {
            lost += 1;
            let refused = host::sqlite(&mut host).create(&after).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
            assert!(host.commit().await.is_err(), "there is nothing to commit");
            assert_eq!(orders(&mut host), BTreeSet::new());
            // The same connection repeats the whole of it.
            host.begin().await;
            host.order(before.id).await.unwrap();
            new(host::sqlite(&mut host).create(&large));
            new(host::sqlite(&mut host).create(&after));
            host.commit().await.unwrap();
            assert!(runs.get(large.id).await.unwrap().is_some());
        }
        assert!(runs.get(after.id).await.unwrap().is_some());
    }
    assert!(lost > 0, "{lost} lost and {kept} kept");
    println!("{lost} lost and {kept} kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_a_transaction_that_is_gone_hears_that_there_is_none_and_may_begin_again() {
    let (file, runs) = opened().await;
    let mut host = connect(&file.path);
    let pages: Vec<NumberRow> = sql_query("SELECT page_count AS number FROM pragma_page_count")
        .load(&mut host)
        .unwrap();
    let limit = pages.first().unwrap().number;
    let large = request(NewRun::new("builder").input("x".repeat(60_000)));
    let accept = |host: &mut SqliteConnection| {
        host.immediate_transaction(|host| {
            sql_query(order(large.id)).execute(host)?;
            let created = host::sqlite(host).create(&large);
            created.map_err(|_| diesel::result::Error::RollbackTransaction)
        })
    };
    host.batch_execute(&format!("PRAGMA max_page_count = {limit}"))
        .unwrap();
    let left = accept(&mut host);
    assert!(
        matches!(left, Err(diesel::result::Error::NotInTransaction)),
        "{left:?}"
    );
    assert_eq!(orders(&mut host), BTreeSet::new());
    host.batch_execute("PRAGMA max_page_count = 100000")
        .unwrap();
    assert!(matches!(accept(&mut host), Ok(Created::New(_))));
    assert_eq!(orders(&mut host), BTreeSet::from([large.id]));
    assert!(runs.get(large.id).await.unwrap().is_some());
}

/// SQLite prepares every statement of a connection anew after a setting was made on it, to the value that it had too. Diesel does
/// not hand on how often it did, so what is looked at is that no setting is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_makes_no_setting_which_would_expire_the_hosts_statements() {
    let (file, _runs) = opened().await;
    let mut host = connect(&file.path);
    let (seen, statements) = std::sync::mpsc::channel();
    host.begin().await;
    host.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let _ = seen.send(query.to_string());
        }
    });
    new(host::sqlite(&mut host).create(&request(NewRun::new("builder"))));
    new(host::sqlite(&mut host).create(&request(NewRun::new("builder"))));
    drop(host);
    let statements: Vec<String> = statements.iter().collect();
    assert!(statements.len() > 10, "{statements:?}");
    let is_setting = |sql: &&String| sql.trim_start().to_uppercase().starts_with("PRAGMA");
    let settings: Vec<&String> = statements.iter().filter(is_setting).collect();
    assert!(settings.is_empty(), "{settings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_taken_back_behind_diesels_back_is_refused() {
    let (file, runs) = opened().await;
    let mut host = connect(&file.path);
    host.begin().await;
    // Not by a batch, after which Diesel would look.
    sql_query("ROLLBACK").execute(&mut host).unwrap();
    let request = request(NewRun::new("builder"));
    for _ in 0..2 {
        let refused = host::sqlite(&mut host).create(&request).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert!(!is_in_transaction(&mut host));
    }
    assert!(runs.get(request.id).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_clock_stamps_and_what_the_host_set_stays() {
    let (file, runs) = opened().await;
    let clock = ManualClock::new(Timestamp::from_unix_micros(1_000_000_000_000_000).unwrap());
    let request = request(NewRun::new("builder"));
    for foreign_keys in [0, 1] {
        let mut connection = connect(&file.path);
        connection
            .batch_execute(&format!("PRAGMA foreign_keys = {foreign_keys}"))
            .unwrap();
        connection.begin().await;
        let created = host::sqlite(&mut connection).clock(&clock).create(&request);
        assert_eq!(new(created).created_at, clock.now());
        connection.roll_back().await.unwrap();
        assert!(host::sqlite(&mut connection).create(&request).is_err());
        let is_on: Vec<NumberRow> =
            sql_query("SELECT foreign_keys AS number FROM pragma_foreign_keys")
                .load(&mut connection)
                .unwrap();
        assert_eq!(is_on.first().unwrap().number, foreign_keys);
    }
    assert_eq!(runs.count(&RunFilter::new()).await.unwrap(), 0);
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_and_hosts_write_to_one_file_at_once() {
    const EACH: usize = 40;
    let (file, runs) = opened().await;
    let host = std::thread::spawn({
        let path = file.path.clone();
        move || {
            let mut connection = connect(&path);
            for _ in 0..EACH {
                let request = request(NewRun::new("host"));
                let done = connection.immediate_transaction(|connection| {
                    sql_query(order(request.id)).execute(connection)?;
                    new(host::sqlite(connection).create(&request));
                    Ok::<_, diesel::result::Error>(())
                });
                done.unwrap();
            }
        }
    });
    for _ in 0..EACH {
        new(runs.create(&request(NewRun::new("repository"))).await);
    }
    host.join().unwrap();
    let count = u64::try_from(2 * EACH).unwrap();
    assert_eq!(runs.count(&RunFilter::new()).await.unwrap(), count);
    assert_eq!(orders(&mut connect(&file.path)).len(), EACH);
}
