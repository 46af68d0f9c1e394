//! A host's transaction on PostgreSQL, over a connection that is awaited and over one that waits.

use std::sync::Arc;
use std::time::Instant;

use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, sql_query};
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection as _};
use runtree_diesel::{Notifications, PostgresRepository, host};
use runtree_repository::{ChangeMark, CreateRuns as _, ErrorKind, ReadRuns as _, WatchRuns as _};
use runtree_testkit::postgres::TestPostgres;
use tokio::task::block_in_place;

use super::*;

/// A connection that waits for its answers. Diesel's own does the same, and needs a library of C that this workspace does without.
type PgWaiting = AsyncConnectionWrapper<AsyncPgConnection>;

type Manager = <AsyncPgConnection as AsyncConnection>::TransactionManager;
type WaitingManager = <PgWaiting as Connection>::TransactionManager;

const TABLE: &str =
    "CREATE TABLE orders (run TEXT PRIMARY KEY, is_done INTEGER NOT NULL DEFAULT 0)";

const NO_EVENTS: &str = "CREATE FUNCTION no_events() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN RAISE EXCEPTION 'no events today'; END $$; \
     CREATE TRIGGER no_events BEFORE INSERT ON runtree_run_events EXECUTE FUNCTION no_events()";

#[derive(QueryableByName)]
struct OrderRow {
    #[diesel(sql_type = Text)]
    run: String,
}

/// Makes a database with the application's own table, and answers its URL.
pub(super) fn database() -> String {
    let url = TestPostgres::get().fresh_database();
    execute(&url, TABLE);
    url
}

pub(super) fn execute(url: &str, sql: &str) -> String {
    let name = url.rsplit('/').next().unwrap().split('?').next().unwrap();
    TestPostgres::get().execute(name, sql).trim().to_owned()
}

pub(super) async fn wait_until(url: &str, condition: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while execute(url, condition) != "t" {
        assert!(Instant::now() < deadline, "did not come true: {condition}");
        tokio::task::yield_now().await;
    }
}

/// A repository that hears of changes already.
async fn repository(url: &str, namespace: &Namespace) -> PostgresRepository {
    let runs = PostgresRepository::builder(url).namespace(namespace.clone());
    let runs = runs.connect().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while runs.notifications() != Notifications::Heard {
        assert!(Instant::now() < deadline, "{:?}", runs.notifications());
        runs.changed(ChangeMark::START, Duration::ZERO)
            .await
            .unwrap();
        tokio::task::yield_now().await;
    }
    runs
}

pub(super) async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.unwrap()
}

pub(super) async fn orders(url: &str) -> BTreeSet<RunId> {
    runs(url, "SELECT run FROM orders").await
}

pub(super) async fn done(url: &str) -> BTreeSet<RunId> {
    runs(url, "SELECT run FROM orders WHERE is_done = 1").await
}

async fn runs(url: &str, query: &str) -> BTreeSet<RunId> {
    let query = sql_query(query);
    let connection = &mut connect(url).await;
    let rows: Vec<OrderRow> = diesel_async::RunQueryDsl::load(query, connection)
        .await
        .unwrap();
    rows.into_iter()
        .map(|row| row.run.parse().unwrap())
        .collect()
}

impl Host for AsyncPgConnection {
    type Database = String;

    fn database() -> String {
        database()
    }

    async fn repository(url: &String, namespace: &Namespace) -> DynRunRepository {
        Arc::new(repository(url, namespace).await)
    }

    async fn connect(url: &String) -> Self {
        connect(url).await
    }

    async fn begin(&mut self) {
        <Manager as diesel_async::TransactionManager<Self>>::begin_transaction(self)
            .await
            .unwrap();
    }

    async fn begin_nested(&mut self) {
        self.begin().await;
    }

    async fn commit(&mut self) -> QueryResult<()> {
        <Manager as diesel_async::TransactionManager<Self>>::commit_transaction(self).await
    }

    async fn roll_back(&mut self) -> QueryResult<()> {
        <Manager as diesel_async::TransactionManager<Self>>::rollback_transaction(self).await
    }

    async fn execute(&mut self, sql: &str) -> QueryResult<()> {
        self.batch_execute(sql).await
    }

    async fn create_in(
        &mut self,
        namespace: &Namespace,
        request: &CreateRun,
    ) -> Result<Created, RepositoryError> {
        let mut runs = host::postgres_async(self).namespace(namespace.clone());
        runs.create(request).await
    }

    async fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        host::postgres_async(self).cancel(id, request).await
    }

    async fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Result<Write<Run>, RepositoryError> {
        host::postgres_async(self).end(lease, outcome).await
    }

    async fn accept(&mut self, request: &CreateRun, then: Then) -> Result<(), AnyError> {
        self.transaction(async |connection| {
            connection.batch_execute(&order(request.id)).await?;
            new(host::postgres_async(connection).create(request).await);
            then.done()
        })
        .await
    }

    async fn orders(url: &String) -> BTreeSet<RunId> {
        orders(url).await
    }

    const NO_EVENTS: &str = NO_EVENTS;
}

impl Host for PgWaiting {
    type Database = String;

    fn database() -> String {
        database()
    }

    async fn repository(url: &String, namespace: &Namespace) -> DynRunRepository {
        Arc::new(repository(url, namespace).await)
    }

    async fn connect(url: &String) -> Self {
        Self::from(connect(url).await)
    }

    async fn begin(&mut self) {
        block_in_place(|| {
            <WaitingManager as diesel::connection::TransactionManager<Self>>::begin_transaction(
                self,
            )
        })
        .unwrap();
    }

    async fn begin_nested(&mut self) {
        self.begin().await;
    }

    async fn commit(&mut self) -> QueryResult<()> {
        block_in_place(|| {
            <WaitingManager as diesel::connection::TransactionManager<Self>>::commit_transaction(
                self,
            )
        })
    }

    async fn roll_back(&mut self) -> QueryResult<()> {
        block_in_place(|| {
            <WaitingManager as diesel::connection::TransactionManager<Self>>::rollback_transaction(
                self,
            )
        })
    }

    async fn execute(&mut self, sql: &str) -> QueryResult<()> {
        block_in_place(|| diesel::connection::SimpleConnection::batch_execute(self, sql))
    }

    async fn create_in(
        &mut self,
        namespace: &Namespace,
        request: &CreateRun,
    ) -> Result<Created, RepositoryError> {
        let mut runs = host::postgres(self).namespace(namespace.clone());
        block_in_place(|| runs.create(request))
    }

    async fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> Result<Write<Run>, RepositoryError> {
        block_in_place(|| host::postgres(self).cancel(id, request))
    }

    async fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> Result<Write<Run>, RepositoryError> {
        block_in_place(|| host::postgres(self).end(lease, outcome))
    }

    async fn accept(&mut self, request: &CreateRun, then: Then) -> Result<(), AnyError> {
        block_in_place(|| {
            Connection::transaction(self, |connection| {
                diesel::RunQueryDsl::execute(sql_query(order(request.id)), connection)?;
                new(host::postgres(connection).create(request));
                then.done()
            })
        })
    }

    async fn orders(url: &String) -> BTreeSet<RunId> {
        orders(url).await
    }

    const NO_EVENTS: &str = NO_EVENTS;
}

mod awaited {
    super::super::cases::tests!(super::AsyncPgConnection);
}

mod waiting {
    super::super::cases::tests!(super::PgWaiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_future_that_is_dropped_takes_the_run_with_it() {
    let url = database();
    let runs = PostgresRepository::connect(&url).await.unwrap();
    let mut connection = connect(&url).await;
    let request = full_request();
    {
        let transaction = connection.transaction(async |connection| {
            connection.batch_execute(&order(request.id)).await?;
            new(host::postgres_async(connection).create(&request).await);
            std::future::pending::<Result<(), AnyError>>().await
        });
        let open = "select count(*) > 0 from pg_stat_activity where state = 'idle in transaction' \
                    and datname = current_database() and query like 'RELEASE%'";
        tokio::select! {
            _ = transaction => panic!("it never ends by itself"),
            () = wait_until(&url, open) => {}
        }
    }
    drop(connection);
    assert_eq!(new(runs.create(&request).await).id, request.id);
    assert!(orders(&url).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_at_any_await_leaves_a_commit_that_is_whole() {
    let url = database();
    let runs = PostgresRepository::connect(&url).await.unwrap();
    let mut times = 0;
    let mut was_done = false;
    while !was_done {
        times += 1;
        let request = full_keyless_request();
        let mut connection = connect(&url).await;
        connection.begin().await;
        connection.order(request.id).await.unwrap();
        {
            let mut host = host::postgres_async(&mut connection);
            let mut call = std::pin::pin!(host.create(&request));
            let mut left = times;
            was_done = std::future::poll_fn(|cx| {
                left -= 1;
                match call.as_mut().poll(cx) {
                    std::task::Poll::Ready(created) => {
                        new(created);
                        std::task::Poll::Ready(true)
                    }
                    std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(false),
                    std::task::Poll::Pending => std::task::Poll::Pending,
                }
            })
            .await;
        }
        connection.commit().await.unwrap();
        // The order is there in any case; the run is there with all that belongs to it, or not at all.
        assert!(orders(&url).await.contains(&request.id), "{times}");
        let run = runs.get(request.id).await.unwrap();
        let is_there = run.is_some();
        assert!(!was_done || is_there, "{times}");
        assert_eq!(kinds_of(&runs, request.id).await, usize::from(is_there));
        if let Some(run) = run {
            assert_eq!(run.tags.len(), 2);
            assert!(run.input.is_some());
        }
    }
    assert!(times > 3, "{times}");
}

fn full_keyless_request() -> CreateRun {
    let run = NewRun::new("builder")
        .input("x")
        .tag("nightly")
        .tag("urgent");
    request(run)
}

async fn kinds_of(runs: &PostgresRepository, id: RunId) -> usize {
    let events = runs.events(id, EventNumber::START, Limit::MAX).await;
    events.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_has_failed_before_is_told_so() {
    let url = database();
    let _runs = PostgresRepository::connect(&url).await.unwrap();
    let mut connection = connect(&url).await;
    connection.begin().await;
    connection.batch_execute("SELECT 1/0").await.unwrap_err();
    let request = request(NewRun::new("builder"));
    let error = connection.create(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("has failed before"), "{error}");
    connection.roll_back().await.unwrap();
    connection.begin().await;
    new(connection.create(&request).await);
    connection.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_host_takes_is_waited_for_and_then_answered() {
    let url = database();
    let _runs = PostgresRepository::connect(&url).await.unwrap();
    let keyed = || request(NewRun::new("builder").idempotency_key("order-17"));
    let mut one = connect(&url).await;
    one.begin().await;
    let run = new(one.create(&keyed()).await);
    let two = tokio::spawn({
        let mut two = connect(&url).await;
        let request = keyed();
        async move {
            two.begin().await;
            let created = two.create(&request).await.unwrap();
            two.commit().await.unwrap();
            created
        }
    });
    wait_until(&url, "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()").await;
    one.commit().await.unwrap();
    assert!(matches!(two.await.unwrap(), Created::Existing(existing) if existing == run));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_isolation_is_busy_where_others_came_first_and_the_transaction_is_repeated() {
    let url = database();
    let runs = PostgresRepository::connect(&url).await.unwrap();
    let keyed = || request(NewRun::new("builder").idempotency_key("order-17"));
    let mut connection = connect(&url).await;
    connection.begin().await;
    connection
        .batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT * FROM orders")
        .await
        .unwrap();
    let run = new(runs.create(&keyed()).await);
    let error = connection.create(&keyed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    connection.roll_back().await.unwrap();
    connection.begin().await;
    connection
        .batch_execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        .await
        .unwrap();
    let again = connection.create(&keyed()).await.unwrap();
    assert!(matches!(again, Created::Existing(existing) if existing.id == run.id));
    connection.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_a_schema_of_their_own_are_found_by_the_search_path() {
    let url = database();
    let runs = PostgresRepository::builder(&url).schema("work");
    let runs = runs.connect().await.unwrap();
    let mut connection = connect(&url).await;
    let request = request(NewRun::new("builder"));
    connection.begin().await;
    let error = connection.create(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("search path"), "{error}");
    connection
        .batch_execute("SET LOCAL search_path = public, work")
        .await
        .unwrap();
    connection.order(request.id).await.unwrap();
    new(connection.create(&request).await);
    connection.commit().await.unwrap();
    assert!(runs.get(request.id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_may_keep_its_changes_to_itself() {
    const LONG: Duration = Duration::from_secs(30);
    let url = database();
    let runs = repository(&url, &namespace()).await;
    let mark = runs.changed(ChangeMark::START, LONG).await.unwrap();
    let mut connection = connect(&url).await;
    let (quiet, told) = (
        request(NewRun::new("builder")),
        request(NewRun::new("builder")),
    );
    connection.begin().await;
    let mut host = host::postgres_async(&mut connection).without_notifying();
    new(host.create(&quiet).await);
    connection.commit().await.unwrap();
    let unheard = runs
        .changed(mark, Duration::from_millis(300))
        .await
        .unwrap();
    assert_eq!(unheard, mark);
    connection.begin().await;
    new(connection.create(&told).await);
    connection.commit().await.unwrap();
    assert_ne!(runs.changed(mark, LONG).await.unwrap(), mark);
}
