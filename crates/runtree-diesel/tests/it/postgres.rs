//! What the PostgreSQL backend promises beyond the suite that all backends share: races, failures of the server, dropped calls.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails its test by panicking"
)]

mod calls;
mod crash;
mod locks;
mod opening;
mod races;
mod sort_keys;
mod upgrade;
mod watching;

use std::collections::BTreeSet;
use std::future::Future;
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use runtree_conformance::{Backend, BackendError, ClockSource, Declaration};
use runtree_diesel::PostgresRepository;
use runtree_repository::id::{BranchName, DirectoryName, IdGenerator, RunId, Slug};
use runtree_repository::status::{RunStatus, Word};
use runtree_repository::time::ManualClock;
use runtree_repository::{
    CancelMode, CancelRequest, Capabilities, Claim, ClaimOf, Claimed, CleanUpWorktrees,
    CleanupClaim, CreateRun, CreateRuns, Created, Durability, DynRunRepository, ErrorKind,
    ErrorText, EventKind, EventNumber, HostName, HostPath, LeaseTime, Limit, Namespace, NewRun,
    Outcome, OwnRuns, Owner, PageRequest, Persistence, ProcessMark, ReadRuns, RepositoryError,
    Rescue, RescueRuns, RunFilter, Sharing, StopRuns, WantedWorktree, WorktreeQuery, WorktreeSite,
    Write,
};
use runtree_testkit::postgres::TestPostgres;
use serde_json::json;

pub(crate) struct Postgres;

#[async_trait]
impl Backend for Postgres {
    type Store = Database;

    fn declaration(&self) -> Declaration {
        Declaration::new(
            Capabilities::new(Durability::Full, Sharing::Network),
            ClockSource::Server,
        )
        .writes_foreign_words()
    }

    async fn make(&self, _: ManualClock) -> Result<Database, BackendError> {
        Ok(Database::fresh())
    }

    async fn open(
        &self,
        database: &Database,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        Ok(Arc::new(
            PostgresRepository::builder(&database.url)
                .namespace(namespace.clone())
                .connect()
                .await?,
        ))
    }

    async fn write_status(
        &self,
        database: &Database,
        namespace: &Namespace,
        run: RunId,
        status: &Word,
    ) -> Result<(), BackendError> {
        let (status, namespace, run) = (status.as_str(), namespace.as_str(), run.as_uuid());
        database.execute(&format!("update runtree_runs set status = '{status}' where namespace = '{namespace}' and id = '{run}'"));
        Ok(())
    }
}

mod conformance {
    runtree_conformance::tests!(crate::postgres::Postgres);
}

/// A database of a test's own.
pub(crate) struct Database {
    url: String,
}

impl Database {
    fn fresh() -> Self {
        Self {
            url: TestPostgres::get().fresh_database(),
        }
    }

    fn name(&self) -> &str {
        self.url
            .rsplit('/')
            .next()
            .unwrap()
            .split('?')
            .next()
            .unwrap()
    }

    fn execute(&self, sql: &str) -> String {
        TestPostgres::get()
            .execute(self.name(), sql)
            .trim()
            .to_owned()
    }

    /// The URL for another role, which the socket's `trust` lets in.
    fn url_of(&self, role: &str) -> String {
        let (_, rest) = self.url.split_once('@').unwrap();
        format!("postgres://{role}@{rest}")
    }

    async fn open(&self) -> PostgresRepository {
        PostgresRepository::connect(&self.url).await.unwrap()
    }

    /// A repository with a single connection: whatever breaks it shows at once.
    async fn open_single(&self) -> PostgresRepository {
        PostgresRepository::builder(&self.url)
            .max_connections(NonZeroU32::MIN)
            .connect()
            .await
            .unwrap()
    }

    async fn session(&self) -> AsyncPgConnection {
        AsyncPgConnection::establish(&self.url).await.unwrap()
    }

    /// Waits until a call of a repository waits for a lock.
    async fn wait_for_a_waiter(&self) {
        self.wait_until("select count(*) > 0 from pg_stat_activity where application_name = 'runtree' and wait_event_type = 'Lock' \
                         and datname = current_database()").await;
    }

    async fn wait_until(&self, condition: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.execute(condition) != "t" {
            assert!(Instant::now() < deadline, "did not come true: {condition}");
            tokio::task::yield_now().await;
        }
    }
}

fn owner() -> Owner {
    Owner {
        id: IdGenerator::system().owner_id().unwrap(),
        host: HostName::new("alpha.example").unwrap(),
        process: ProcessMark::new("boot-1/17/100").unwrap(),
    }
}

fn site() -> WorktreeSite {
    WorktreeSite {
        host: HostName::new("alpha.example").unwrap(),
        git_repository: HostPath::new("/srv/checkout/.git").unwrap(),
        root: HostPath::new("/srv/worktrees").unwrap(),
    }
}

fn claim_of(of: ClaimOf, limit: u64) -> Claim {
    let lease_time = LeaseTime::new(Duration::from_secs(3_600)).unwrap();
    Claim {
        owner: owner(),
        lease_time,
        limit: Limit::new(limit).unwrap(),
        of,
        site: Some(site()),
    }
}

fn request(run: NewRun) -> CreateRun {
    CreateRun {
        id: IdGenerator::system().run_id().unwrap(),
        run,
        worktree: None,
    }
}

fn worktree_request() -> CreateRun {
    let mut request = request(NewRun::new("builder"));
    let slug = Slug::from_text("test");
    request.worktree = Some(WantedWorktree {
        name: DirectoryName::for_run(&slug, request.id),
        branch: BranchName::for_run(&slug, request.id),
        base: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
        persistence: Persistence::Temporary,
    });
    request
}

async fn created(runs: &PostgresRepository, request: &CreateRun) -> RunId {
    match runs.create(request).await.unwrap() {
        Created::New(run) => run.id,
        old @ (Created::Existing(_) | Created::Conflict { .. }) => panic!("{old:?}"),
    }
}

async fn claimed(runs: &PostgresRepository, id: RunId) -> Claimed {
    runs.claim(&claim_of(ClaimOf::Run(id), 1))
        .await
        .unwrap()
        .pop()
        .unwrap()
}

async fn running(runs: &PostgresRepository) -> Claimed {
    let id = created(runs, &request(NewRun::new("builder"))).await;
    claimed(runs, id).await
}

fn completed() -> Outcome {
    Outcome::Completed { result: None }
}

async fn refused(url: &str) -> RepositoryError {
    let error = PostgresRepository::connect(url).await.unwrap_err();
    assert!(
        !format!("{error:?} {error}").contains("hunter2"),
        "the password must not show: {error:?}"
    );
    error
}

/// Lets a future be polled a number of times, then drops it; answers whether it was done before.
async fn polled_only<F: Future>(future: F, times: NonZeroUsize) -> bool {
    let mut future = pin!(future);
    let mut left = times.get();
    std::future::poll_fn(|cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn assert_events_have_no_gap(runs: &PostgresRepository, id: RunId) -> Vec<EventKind> {
    let events = runs
        .events(id, EventNumber::START, Limit::MAX)
        .await
        .unwrap();
    let numbers: Vec<u32> = events.iter().map(|event| event.number.get()).collect();
    let expected: Vec<u32> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
    assert!(events.is_sorted_by_key(|event| event.at), "{events:?}");
    events.iter().map(|event| event.kind).collect()
}

fn cleanup_claim() -> CleanupClaim {
    let WorktreeSite {
        host,
        git_repository,
        ..
    } = site();
    CleanupClaim {
        owner: owner(),
        lease_time: LeaseTime::default(),
        limit: Limit::MAX,
        host,
        git_repository,
        run: None,
    }
}
