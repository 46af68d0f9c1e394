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
