//! Many handles on one file, callers that leave, and operations that go wrong.

use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use runtree_diesel::SqliteRepository;
use runtree_repository::time::{Clock, SystemClock, Timestamp};
use runtree_repository::{
    ClaimOf, CreateRuns as _, Created, ErrorKind, EventKind, EventNumber, Limit, Namespace, NewRun,
    Outcome, OwnRuns as _, PageRequest, ReadRuns as _, RunFilter, Write,
};

use super::{claim, create, new_run, request};

#[tokio::test(flavor = "multi_thread")]
async fn many_handles_make_each_run_once_and_claim_it_once() {
    const CALLERS: usize = 24;
    const EACH: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let shared = SqliteRepository::open(&path).await.unwrap();
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        // Clones of one handle, and handles with threads and connections of their own.
        let runs = if caller % 6 == 0 {
            SqliteRepository::open(&path).await.unwrap()
        } else {
            shared.clone()
        };
        callers.push(tokio::spawn(async move {
            let mut owned = Vec::new();
            for number in 0..EACH {
                // Every key is asked for by all.
                let run = NewRun::new("builder").idempotency_key(format!("key {number}"));
                let created = runs.create(&request(run)).await.unwrap();
                assert!(!matches!(created, Created::Conflict { .. }));
                for claimed in runs.claim(&claim(ClaimOf::ANY)).await.unwrap() {
                    let ended = runs
                        .end(claimed.lease, &Outcome::Completed { result: None })
                        .await
                        .unwrap();
                    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
                    owned.push(claimed.lease.run);
                }
            }
            owned
        }));
    }
    let mut owned = Vec::new();
    for caller in callers {
        owned.extend(caller.await.unwrap());
    }
    assert_eq!(owned.len(), EACH);
    assert_eq!(owned.iter().collect::<BTreeSet<_>>().len(), EACH);
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_the_run_whole_or_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let runs = SqliteRepository::open(directory.path().join("runs.db"))
        .await
        .unwrap();
    let mut asked = Vec::new();
    for _ in 0..200 {
        let request = request(NewRun::new("builder").input("the task"));
        asked.push(request.id);
        let mut future = pin!(runs.create(&request));
        // One poll sends the operation on its way; then the caller is gone.
        assert!(
            future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
    // This one waits behind all of them.
    create(&runs, NewRun::new("last")).await;
    for id in asked {
        if let Some(run) = runs.get(id).await.unwrap() {
            assert_eq!(run.input.as_ref().unwrap().as_str(), "the task");
            let events = runs
                .events(id, EventNumber::START, Limit::MAX)
                .await
                .unwrap();
            assert_eq!(
                events.iter().map(|event| event.kind).collect::<Vec<_>>(),
                [EventKind::Created]
            );
        } else {
            assert!(
                runs.events(id, EventNumber::START, Limit::MAX)
                    .await
                    .unwrap()
                    .is_empty()
            );
        }
    }
}

#[tokio::test]
async fn a_claim_whose_caller_left_is_a_claim_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let runs = SqliteRepository::open(directory.path().join("runs.db"))
        .await
        .unwrap();
    let run = create(&runs, NewRun::new("builder")).await;
    {
        let wish = claim(ClaimOf::ANY);
        let mut future = pin!(runs.claim(&wish));
        assert!(
            future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
    create(&runs, NewRun::new("last")).await;
    let run = runs.get(run.id).await.unwrap().unwrap();
    assert_eq!(run.owner.is_some(), run.attempts == 1);
    assert_eq!(run.token.get(), run.attempts);
}

/// A clock that fails once when it is told to.
#[derive(Debug, Default)]
struct BrokenClock {
    is_broken: AtomicBool,
}

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        assert!(
            !self.is_broken.swap(false, Ordering::SeqCst),
            "the clock is broken"
        );
        SystemClock.now()
    }
}

#[tokio::test]
async fn a_panic_inside_an_operation_is_told_to_its_caller_and_harms_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(BrokenClock::default());
    let builder = SqliteRepository::builder(directory.path().join("runs.db"))
        .clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let runs = builder.open().await.unwrap();
    let before = create(&runs, NewRun::new("before")).await;
    clock.is_broken.store(true, Ordering::SeqCst);
    let error = runs
        .create(&request(NewRun::new("broken")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("the clock is broken"), "{error}");
    clock.is_broken.store(true, Ordering::SeqCst);
    assert_eq!(
        runs.get(before.id).await.unwrap_err().kind(),
        ErrorKind::Internal
    );
    create(&runs, NewRun::new("after")).await;
    assert_eq!(runs.get(before.id).await.unwrap().unwrap().id, before.id);
    assert_eq!(
        runs.list(&RunFilter::new(), &PageRequest::default())
            .await
            .unwrap()
            .runs
            .len(),
        2
    );
}

#[tokio::test]
async fn a_database_that_others_hold_for_too_long_is_busy_and_then_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::builder(&path)
        .patience(Duration::from_millis(200))
        .open()
        .await
        .unwrap();
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let refused = request(NewRun::new("builder"));
    let error = runs.create(&refused).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.is_retryable());
    // Reads do not wait for writers.
    assert!(runs.get(refused.id).await.unwrap().is_none());
    other.batch_execute("COMMIT").unwrap();
    assert_eq!(new_run(runs.create(&refused).await).id, refused.id);
}

#[tokio::test]
async fn a_write_to_a_file_that_was_moved_away_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let away = directory.path().join("away.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    std::fs::rename(&path, &away).unwrap();
    let error = runs
        .create(&request(NewRun::new("builder")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error
            .to_string()
            .contains("runs.db was removed, moved or replaced"),
        "{error}"
    );
    std::fs::rename(&away, &path).unwrap();
    create(&runs, NewRun::new("builder")).await;
}

#[tokio::test]
async fn a_refused_operation_does_not_take_its_batch_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    // While another process holds the database, the operations gather into one batch.
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE; CREATE TRIGGER refuse BEFORE INSERT ON runtree_run_payloads WHEN NEW.input = 'refuse' BEGIN SELECT RAISE(ABORT, 'refused'); END").unwrap();
    let tasks: Vec<_> = (0..30)
        .map(|number| {
            let runs = runs.clone();
            let input = if number % 3 == 0 { "refuse" } else { "accept" };
            tokio::spawn(async move {
                runs.create(&request(NewRun::new("builder").input(input)))
                    .await
                    .is_ok()
                    == (input == "accept")
            })
        })
        .collect();
    tokio::task::yield_now().await;
    other.batch_execute("COMMIT").unwrap();
    for task in tasks {
        assert!(
            task.await.unwrap(),
            "an operation was answered with the fate of another"
        );
    }
    let page = PageRequest {
        limit: Limit::MAX,
        ..PageRequest::default()
    };
    assert_eq!(
        runs.list(&RunFilter::new(), &page)
            .await
            .unwrap()
            .runs
            .len(),
        20
    );
}

#[tokio::test]
async fn closing_the_last_handle_waits_for_what_was_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    let other = runs.with_namespace(Namespace::new("other").unwrap());
    let write = tokio::spawn(async move { create(&other, NewRun::new("builder")).await.id });
    tokio::task::yield_now().await;
    runs.close().await;
    let id = write.await.unwrap();
    let again = SqliteRepository::builder(&path)
        .namespace(Namespace::new("other").unwrap())
        .open()
        .await
        .unwrap();
    assert!(again.get(id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_that_claim_at_once_keep_to_the_concurrency_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    for number in 0..30 {
        let run = NewRun::new("builder");
        let run = if number % 3 == 0 {
            run
        } else {
            run.concurrency("shared", super::attempts(4))
        };
        create(&runs, run).await;
    }
    let mut claims = Vec::new();
    for _ in 0..6 {
        let elsewhere = SqliteRepository::open(&path).await.unwrap();
        claims.push(tokio::spawn(async move {
            let wish = claim(ClaimOf::ANY);
            elsewhere.claim(&wish).await.unwrap()
        }));
    }
    let mut claimed = Vec::new();
    for claim in claims {
        claimed.extend(claim.await.unwrap());
    }
    let (keyed, others): (Vec<_>, Vec<_>) = claimed
        .into_iter()
        .partition(|claimed| claimed.run.concurrency.is_some());
    assert_eq!((keyed.len(), others.len()), (4, 10));
    // Room is made by an ending, and for one run only.
    let done = Outcome::Completed { result: None };
    let ended = runs.end(keyed[0].lease, &done).await.unwrap();
    assert!(matches!(ended, Write::Applied(_)));
    assert_eq!(runs.claim(&claim(ClaimOf::ANY)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_claim_of_many_finds_the_first_run_of_each_key_behind_those_that_wait() {
    const KEYS: usize = 40;
    const EACH: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let runs = SqliteRepository::open(directory.path().join("runs.db")).await;
    let runs = runs.unwrap();
    let mut first = Vec::new();
    for key in 0..KEYS {
        let keyed = || NewRun::new("builder").concurrency(format!("key-{key}"), NonZeroU32::MIN);
        let requests: Vec<_> = (0..EACH).map(|_| request(keyed())).collect();
        let created = runs.create_many(&requests).await.unwrap();
        assert_eq!(created.len(), EACH);
        first.push(requests.first().unwrap().id);
    }
    let last = create(&runs, NewRun::new("builder")).await;
    first.push(last.id);
    let claimed = runs.claim(&claim(ClaimOf::ANY)).await.unwrap();
    let claimed: Vec<_> = claimed.iter().map(|claimed| claimed.lease.run).collect();
    assert_eq!(claimed, first);
    assert!(
        runs.claim(&claim(ClaimOf::ANY)).await.unwrap().is_empty(),
        "every key is used up"
    );
}
