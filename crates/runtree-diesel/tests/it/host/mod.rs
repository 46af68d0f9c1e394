//! Runs in the host's own transaction: what holds over every kind of connection, and what only one of them has.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

mod cases;
mod crash;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use diesel::QueryResult;
use runtree_repository::id::{BranchName, CommitId, DirectoryName, IdGenerator, RunId, Slug};
use runtree_repository::{
    CancelRequest, Claim, ClaimOf, Claimed, CreateRun, Created, DynRunRepository, EventKind,
    EventNumber, HostName, HostPath, LeaseRef, LeaseTime, Limit, Namespace, NewRun, Outcome, Owner,
    Persistence, ProcessMark, RepositoryError, Run, WantedWorktree, WorktreeSite, Write,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// An application's connection, and how it does what Diesel lets it do.
trait Host: Sized + Send + 'static {
    /// A database with the application's own table `orders`.
    type Database: Send + Sync + 'static;

    /// Makes a database, without the tables of runs.
    fn database() -> Self::Database;

    fn repository(
        database: &Self::Database,
        namespace: &Namespace,
    ) -> impl Future<Output = DynRunRepository> + Send;

    fn connect(database: &Self::Database) -> impl Future<Output = Self> + Send;

    /// Begins a transaction that may write.
    fn begin(&mut self) -> impl Future<Output = ()> + Send;
    /// Begins one inside of it.
    fn begin_nested(&mut self) -> impl Future<Output = ()> + Send;
    fn commit(&mut self) -> impl Future<Output = QueryResult<()>> + Send;
    fn roll_back(&mut self) -> impl Future<Output = QueryResult<()>> + Send;

    fn execute(&mut self, sql: &str) -> impl Future<Output = QueryResult<()>> + Send;

    fn create_in(
        &mut self,
        namespace: &Namespace,
        request: &CreateRun,
    ) -> impl Future<Output = Result<Created, RepositoryError>> + Send;

    fn cancel(
        &mut self,
        id: RunId,
        request: &CancelRequest,
    ) -> impl Future<Output = Result<Write<Run>, RepositoryError>> + Send;

    fn end(
        &mut self,
        lease: LeaseRef,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<Write<Run>, RepositoryError>> + Send;

    /// Writes an order and the run for it with Diesel's own `transaction`.
    fn accept(
        &mut self,
        request: &CreateRun,
        then: Then,
    ) -> impl Future<Output = Result<(), AnyError>> + Send;

    /// The runs that are in `orders`, as somebody else sees them.
    fn orders(database: &Self::Database) -> impl Future<Output = BTreeSet<RunId>> + Send;

    /// A trigger that makes every event of a run fail.
    const NO_EVENTS: &str;

    fn create(
        &mut self,
        request: &CreateRun,
    ) -> impl Future<Output = Result<Created, RepositoryError>> + Send {
        async { self.create_in(&namespace(), request).await }
    }

    fn order(&mut self, id: RunId) -> impl Future<Output = QueryResult<()>> + Send {
        async move { self.execute(&order(id)).await }
    }
}

/// What a transaction does after its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Commits,
    Fails,
    Panics,
}

impl Then {
    fn done(self) -> Result<(), AnyError> {
        match self {
            Self::Commits => Ok(()),
            Self::Fails => Err("the application changed its mind".into()),
            Self::Panics => panic!("the application is broken"),
        }
    }
}

fn order(id: RunId) -> String {
    format!("INSERT INTO orders (run) VALUES ('{id}')")
}

fn namespace() -> Namespace {
    Namespace::new("default").unwrap()
}

fn request(run: NewRun) -> CreateRun {
    CreateRun {
        id: IdGenerator::system().run_id().unwrap(),
        run,
        worktree: None,
    }
}

/// A request with everything that a request may have.
fn full_request() -> CreateRun {
    let run = NewRun::new("builder")
        .input("fix the flaky test")
        .idempotency_key("key")
        .unique_key("one at a time")
        .concurrency("room", 3.try_into().unwrap())
        .queue("slow")
        .user("user-1")
        .tag("nightly")
        .tag("urgent")
        .agent("agent")
        .model("model")
        .session_name("session")
        .git_repository("shop")
        .metadata("customer", "Zoë")
        .max_attempts(3.try_into().unwrap());
    let mut request = request(run);
    let slug: Slug = "fix".parse().unwrap();
    request.worktree = Some(WantedWorktree {
        name: DirectoryName::for_run(&slug, request.id),
        branch: BranchName::for_run(&slug, request.id),
        base: "0123456789012345678901234567890123456789"
            .parse::<CommitId>()
            .unwrap(),
        persistence: Persistence::Temporary,
    });
    request
}

async fn claimed(runs: &DynRunRepository, id: RunId) -> Option<Claimed> {
    let claim = Claim {
        owner: Owner {
            id: IdGenerator::system().owner_id().unwrap(),
            host: HostName::new("alpha.example").unwrap(),
            process: ProcessMark::new("boot-1/17/100").unwrap(),
        },
        lease_time: LeaseTime::new(Duration::from_secs(3_600)).unwrap(),
        limit: Limit::MAX,
        of: ClaimOf::Run(id),
        site: Some(WorktreeSite {
            host: HostName::new("alpha.example").unwrap(),
            git_repository: HostPath::new("/srv/checkout/.git").unwrap(),
            root: HostPath::new("/srv/worktrees").unwrap(),
        }),
    };
    runs.claim(&claim).await.unwrap().pop()
}

/// A run that is being worked on.
async fn running(runs: &DynRunRepository, run: NewRun) -> Claimed {
    let request = request(run);
    new(runs.create(&request).await);
    claimed(runs, request.id).await.unwrap()
}

async fn kinds(runs: &DynRunRepository, id: RunId) -> Vec<EventKind> {
    let events = runs
        .events(id, EventNumber::START, Limit::MAX)
        .await
        .unwrap();
    let numbers: Vec<u32> = events.iter().map(|event| event.number.get()).collect();
    assert_eq!(
        numbers,
        (1..).take(numbers.len()).collect::<Vec<u32>>(),
        "the history has no gap"
    );
    events.into_iter().map(|event| event.kind).collect()
}

fn new(created: Result<Created, RepositoryError>) -> Run {
    match created.unwrap() {
        Created::New(run) => run,
        other @ (Created::Existing(_) | Created::Conflict { .. }) => {
            panic!("the run should be new: {other:?}")
        }
    }
}

fn applied(written: Result<Write<Run>, RepositoryError>) -> Run {
    match written.unwrap() {
        Write::Applied(run) => run,
        other @ (Write::Already(_) | Write::Stale { .. } | Write::NotFound) => {
            panic!("the write should be accepted: {other:?}")
        }
    }
}

fn completed() -> Outcome {
    Outcome::Completed {
        result: Some(serde_json::json!({ "parcels": 1 })),
    }
}
