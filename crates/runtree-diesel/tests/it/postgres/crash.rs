//! The server dies in the middle of work: what was acknowledged is there afterwards, and the callers only had to try again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

const TASKS: usize = 8;

/// What was acknowledged to one task.
#[derive(Default)]
struct Acknowledged {
    created: Vec<RunId>,
    ended: Vec<RunId>,
}

/// Repeats a call until the store answers; every call can be repeated.
async fn persistent<T, F>(call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, RepositoryError>>,
{
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert!(Instant::now() < deadline, "{error:?}");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn work(
    runs: PostgresRepository,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    while !stop.load(Ordering::Relaxed) {
        let request =
            request(NewRun::new("builder").concurrency("key", NonZeroU32::new(100).unwrap()));
        let created = persistent(|| runs.create(&request)).await;
        assert!(!matches!(created, Created::Conflict { .. }), "{created:?}");
        acknowledged.created.push(request.id);
        let claim = claim_of(ClaimOf::Run(request.id), 1);
        let lease = persistent(|| runs.claim(&claim))
            .await
            .pop()
            .map(|claimed| claimed.lease);
        let lease = match lease {
            Some(lease) => lease,
            // The answer of the claim was lost: the run is ours all the same.
            None => {
                let run = persistent(|| runs.get(request.id)).await.unwrap();
                assert_eq!(run.status, RunStatus::Running);
                runtree_repository::LeaseRef {
                    run: run.id,
                    token: run.token,
                }
            }
        };
        let outcome = completed();
        let ended = persistent(|| runs.end(lease, &outcome))
            .await
            .accepted()
            .unwrap();
        acknowledged.ended.push(ended.id);
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_terminated_connections_and_a_crash_of_the_server() {
    let server: &'static TestPostgres = Box::leak(Box::new(TestPostgres::start()));
    let url = server.fresh_database();
    let runs = PostgresRepository::connect(&url).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(work(runs.clone(), Arc::clone(&stop), Arc::clone(&rounds))))
        .collect();
    let busy = async |more: usize| {
        let wanted = rounds.load(Ordering::Relaxed) + more;
        while rounds.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    busy(20).await;
    for _ in 0..3 {
        server.execute(
            "postgres",
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'runtree'",
        );
        busy(10).await;
    }
    for _ in 0..2 {
        tokio::task::spawn_blocking(|| {
            server.stop_immediate();
            server.start_again();
        })
        .await
        .unwrap();
        busy(10).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = BTreeSet::new();
    for task in tasks {
        let Acknowledged { created, ended } = task.await.unwrap();
        assert_eq!(created, ended);
        for id in ended {
            let run = runs.get(id).await.unwrap().unwrap();
            assert_eq!(run.status, RunStatus::Completed);
            let kinds = assert_events_have_no_gap(&runs, id).await;
            let endings = kinds.iter().filter(|kind| **kind == EventKind::Completed);
            assert_eq!(endings.count(), 1, "{kinds:?}");
            assert!(all.insert(id));
        }
    }
    let count = runs.count(&RunFilter::new()).await.unwrap();
    assert_eq!(count, u64::try_from(all.len()).unwrap(), "no run twice");
    drop(runs);
    server.stop();
}
