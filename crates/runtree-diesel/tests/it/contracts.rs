//! The contracts that a store of runs is chosen by, each as one short test by its name, on both databases.
//!
//! Two more, that what is done inside the caller's own transaction is committed and rolled back with it, stand with those calls.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::Timestamp;
use runtree_repository::{
    Claim, ClaimOf, Claimed, Created, DynRunRepository, ErrorText, EventKind, EventNumber,
    LeaseTime, Limit, NewRun, Outcome, Owner, Renewal, Rescue, Run, Write,
};
use runtree_testkit::postgres::TestPostgres;
use tempfile::TempDir;

use crate::histories::{Store, claim, request};

/// A store of a test's own, with the handle that most of it is done by.
struct Stage {
    runs: DynRunRepository,
    store: Store,
    _directory: TempDir,
}

impl Stage {
    async fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::Sqlite(directory.path().join("runs.db"));
        Self::on(store, directory).await
    }

    async fn on_postgresql() -> Self {
        let store = Store::Postgres(TestPostgres::get().fresh_database());
        Self::on(store, tempfile::tempdir().unwrap()).await
    }

    async fn on(store: Store, directory: TempDir) -> Self {
        Self {
            runs: store.open().await,
            store,
            _directory: directory,
        }
    }

    async fn create(&self, attempts: u32) -> Run {
        let run = NewRun::new("builder").max_attempts(attempts.try_into().unwrap());
        match self.runs.create(&request(run)).await.unwrap() {
            Created::New(run) => run,
            other @ (Created::Existing(_) | Created::Conflict { .. }) => panic!("{other:?}"),
        }
    }

    async fn claim(&self, claim: &Claim) -> Claimed {
        self.runs.claim(claim).await.unwrap().pop().unwrap()
    }

    /// A new run, claimed with the shortest lease there is.
    async fn briefly_owned(&self, attempts: u32) -> Claimed {
        let run = self.create(attempts).await;
        self.claim(&brief(claim(ClaimOf::Run(run.id)))).await
    }

    /// Waits until the store's clock has passed an instant.
    async fn wait_past(&self, at: Timestamp) {
        while self.runs.now().await.unwrap() <= at {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn status(&self, of: &Claimed) -> RunStatus {
        self.runs.get(of.lease.run).await.unwrap().unwrap().status
    }

    async fn last_event(&self, of: &Claimed) -> EventKind {
        let events = self
            .runs
            .events(of.lease.run, EventNumber::START, Limit::MAX);
        events.await.unwrap().last().unwrap().kind
    }

    /// Takes what has expired, which is this run alone.
    async fn rescue(&self, of: &Claimed) {
        self.wait_past(of.expires_at).await;
        let rescued = self.runs.rescue(&Rescue::default()).await.unwrap();
        assert_eq!(rescued.len(), 1);
        assert_eq!(rescued[0].lease, of.lease);
    }
}

fn brief(mut claim: Claim) -> Claim {
    claim.lease_time = LeaseTime::new(Duration::from_millis(100)).unwrap();
    claim
}

fn again(owner: &Owner, of: ClaimOf) -> Claim {
    let mut claim = claim(of);
    claim.owner = owner.clone();
    claim
}

const COMPLETED: Outcome = Outcome::Completed { result: None };

/// Nothing was written but that it was tried.
async fn ensure_rejected(stage: &Stage, of: &Claimed, answer: Write<Run>, status: RunStatus) {
    assert!(matches!(answer, Write::Stale { .. }), "{answer:?}");
    assert_eq!(stage.status(of).await, status);
    assert_eq!(stage.last_event(of).await, EventKind::Rejected);
}

async fn completion_after_expiry_is_rejected(stage: Stage) {
    let owned = stage.briefly_owned(1).await;
    stage.wait_past(owned.expires_at).await;
    // Nobody has taken the run up; its owner cannot know that.
    let late = stage.runs.end(owned.lease, &COMPLETED).await.unwrap();
    ensure_rejected(&stage, &owned, late, RunStatus::Running).await;
}

async fn renewal_after_expiry_is_rejected(stage: Stage) {
    let owned = stage.briefly_owned(1).await;
    let lease_time = LeaseTime::default();
    stage.wait_past(owned.expires_at).await;
    let late = stage.runs.renew(&[owned.lease], lease_time).await.unwrap();
    assert_eq!(late, [Renewal::Lost]);
    // It gave no new life: the run is there for a rescue.
    stage.rescue(&owned).await;
}

async fn stale_completion_is_rejected(stage: Stage) {
    let first = stage.briefly_owned(3).await;
    stage.rescue(&first).await;
    let second = stage.claim(&claim(ClaimOf::Run(first.lease.run))).await;
    let stale = stage.runs.end(first.lease, &COMPLETED).await.unwrap();
    ensure_rejected(&stage, &second, stale, RunStatus::Running).await;
    let ended = stage.runs.end(second.lease, &COMPLETED).await.unwrap();
    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
}

async fn stale_completion_is_rejected_also_when_the_owners_name_is_used_again(stage: Stage) {
    let run = stage.create(3).await;
    let asked = brief(claim(ClaimOf::Run(run.id)));
    let first = stage.claim(&asked).await;
    stage.rescue(&first).await;
    // The same process, under the same name, at the same run.
    let second = stage.claim(&again(&asked.owner, asked.of.clone())).await;
    assert_eq!(second.run.owner.as_ref(), Some(&asked.owner));
    let stale = stage.runs.end(first.lease, &COMPLETED).await.unwrap();
    ensure_rejected(&stage, &second, stale, RunStatus::Running).await;
    let ended = stage.runs.end(second.lease, &COMPLETED).await.unwrap();
    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
}

async fn failed_work_is_retried(stage: Stage) {
    let run = stage.create(2).await;
    let error = ErrorText::lossy("it did not work");
    let retry_after = Some(Duration::from_millis(200));
    let failure = Outcome::Failed { error, retry_after };
    let first = stage.claim(&claim(ClaimOf::Run(run.id))).await;
    let failed = stage.runs.end(first.lease, &failure).await.unwrap();
    let waiting = failed.accepted().unwrap();
    assert_eq!(waiting.status, RunStatus::Pending);
    // Not before its time, and then with the error of the first attempt at hand.
    let early = stage.runs.claim(&claim(ClaimOf::Run(run.id))).await;
    if stage.runs.now().await.unwrap() < waiting.available_at {
        assert!(early.unwrap().is_empty());
        stage.wait_past(waiting.available_at).await;
    }
    let second = stage.claim(&claim(ClaimOf::Run(run.id))).await;
    assert_eq!(second.run.attempts, 2);
    assert_eq!(
        second.run.error.as_ref().unwrap().as_str(),
        "it did not work"
    );
    // The last attempt ends it.
    let failed = stage.runs.end(second.lease, &failure).await.unwrap();
    let ended = failed.accepted().unwrap();
    assert_eq!(ended.end_reason, Some(EndReason::Error));
}

async fn interrupted_work_is_recovered(stage: Stage) {
    // The owner says nothing more, as one that was killed.
    let first = stage.briefly_owned(2).await;
    assert!(
        stage
            .runs
            .claim(&claim(ClaimOf::ANY))
            .await
            .unwrap()
            .is_empty()
    );
    stage.rescue(&first).await;
    let second = stage.claim(&brief(claim(ClaimOf::ANY))).await;
    assert_eq!(second.lease.run, first.lease.run);
    assert_eq!(second.run.attempts, 2);
    assert!(second.lease.token > first.lease.token);
    // When no attempt is left it ends, and says why.
    stage.rescue(&second).await;
    let run = stage.runs.get(second.lease.run).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Failed);
    assert_eq!(run.end_reason, Some(EndReason::Lost));
}

/// Many handles of their own, as processes have them, on one store; and somebody else who holds its lock now and then.
async fn operation_under_contention_leaks_no_busy(stage: Stage) {
    const HANDLES: usize = 8;
    const ROUNDS: usize = 12;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let foreign = stage.store.clone();
    let told = Arc::clone(&stop);
    let foreign = std::thread::spawn(move || hold_the_lock(&foreign, &told));
    let mut working = tokio::task::JoinSet::new();
    for _ in 0..HANDLES {
        let runs = stage.store.open().await;
        working.spawn(async move {
            for _ in 0..ROUNDS {
                let created = runs.create(&request(NewRun::new("builder"))).await.unwrap();
                let id = created.into_run().unwrap().id;
                let owned = runs.claim(&claim(ClaimOf::Run(id))).await.unwrap();
                let lease = owned[0].lease;
                runs.renew(&[lease], LeaseTime::default()).await.unwrap();
                let ended = runs.end(lease, &COMPLETED).await.unwrap();
                assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
            }
        });
    }
    while let Some(done) = working.join_next().await {
        done.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let times = foreign.join().unwrap();
    assert!(times > 1, "the lock was held {times} times");
    let all = stage
        .runs
        .count(&runtree_repository::RunFilter::new())
        .await
        .unwrap();
    assert_eq!(all, u64::try_from(HANDLES * ROUNDS).unwrap());
}

/// Takes the lock that writers need, past the repository, again and again; answers how often.
fn hold_the_lock(store: &Store, stop: &std::sync::atomic::AtomicBool) -> usize {
    let mut times = 0;
    let pause = || std::thread::sleep(Duration::from_millis(40));
    match store {
        Store::Sqlite(path) => {
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            connection
                .batch_execute("PRAGMA busy_timeout = 30000")
                .unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                connection.batch_execute("BEGIN IMMEDIATE").unwrap();
                pause();
                connection.batch_execute("COMMIT").unwrap();
                times += 1;
                // SQLite's lock goes to whom asks at the right moment; who never lets go shuts all others out.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Store::Postgres(url) => {
            let database = url.rsplit('/').next().unwrap();
            let database = database.split('?').next().unwrap();
            // As a backup or an index does: writers wait, readers do not.
            let sql = "begin; lock table runtree_runs in share row exclusive mode; \
                       select pg_sleep(0.04); commit";
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                TestPostgres::get().execute(database, sql);
                times += 1;
            }
        }
    }
    times
}

macro_rules! contracts {
    ($stage:ident: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Stage::$stage().await).await;
            }
        )*
    };
    ($stage:ident) => {
        contracts!(
            $stage: completion_after_expiry_is_rejected,
            renewal_after_expiry_is_rejected,
            stale_completion_is_rejected,
            stale_completion_is_rejected_also_when_the_owners_name_is_used_again,
            failed_work_is_retried,
            interrupted_work_is_recovered,
            operation_under_contention_leaks_no_busy,
        );
    };
}

mod sqlite {
    contracts!(on_sqlite);
}

mod postgresql {
    contracts!(on_postgresql);
}
