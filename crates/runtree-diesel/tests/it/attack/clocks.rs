//! Clocks that step. PostgreSQL stamps with the server's (`server_clocks.rs`); on SQLite each process has one, and they should agree.
//!
//! What holds on SQLite whatever the clocks show: tokens only grow, a run has one owner at a time by its token, a write under an older
//! token is refused, nothing acknowledged is lost, a run ends once, and the instants of a run never decrease.
//!
//! What a wrong clock can do there: one that is ahead finds leases expired and runs due before their time, and by its stamps lets
//! others find them later; one that is behind finds them later. Who loses a run to such a clock is fenced as after any other rescue.

use std::sync::Arc;
use std::time::Duration;

use runtree_diesel::SqliteRepository;
use runtree_repository::time::{Clock as _, ManualClock, SystemClock, Timestamp};
use runtree_repository::{
    AnnotateRuns as _, Annotation, CancelMode, CancelRequest, ClaimOf, CreateRuns as _, Created,
    DynRunRepository, EventNumber, Limit, NewRun, Outcome, OwnRuns as _, ReadRuns as _, Renewal,
    Rescue, RescueRuns as _, RunEvent, StopRuns as _, Write,
};
use runtree_testkit::history::{Expectations, monotonic_nanos};
use runtree_testkit::postgres::TestPostgres;
use tempfile::TempDir;

use super::Workers;
use crate::histories::{Scene, Store, claim, processes, request, runtime, wait_for, working_time};

const HOUR: Duration = Duration::from_secs(3_600);

/// A file, and two processes' worth of clocks and handles on it.
struct Two {
    _directory: TempDir,
    right: SqliteRepository,
    wrong: SqliteRepository,
    right_clock: ManualClock,
    wrong_clock: ManualClock,
}

async fn two() -> Two {
    let directory = tempfile::tempdir().unwrap();
    let start: Timestamp = "2026-05-04T03:02:01Z".parse().unwrap();
    let (right_clock, wrong_clock) = (ManualClock::new(start), ManualClock::new(start));
    let open = async |clock: &ManualClock| {
        let builder = SqliteRepository::builder(directory.path().join("runs.db"));
        builder.clock(Arc::new(clock.clone())).open().await.unwrap()
    };
    Two {
        right: open(&right_clock).await,
        wrong: open(&wrong_clock).await,
        _directory: directory,
        right_clock,
        wrong_clock,
    }
}

async fn events(runs: &SqliteRepository, id: runtree_repository::id::RunId) -> Vec<RunEvent> {
    runs.events(id, EventNumber::START, Limit::MAX)
        .await
        .unwrap()
}

async fn created(runs: &SqliteRepository, run: NewRun) -> runtree_repository::id::RunId {
    match runs.create(&request(run)).await.unwrap() {
        Created::New(run) => run.id,
        other @ (Created::Existing(_) | Created::Conflict { .. }) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_turn_the_history_of_a_run_back() {
    let two = two().await;
    let id = created(&two.right, NewRun::new("builder")).await;
    let lease = two.right.claim(&claim(ClaimOf::Run(id))).await.unwrap()[0].lease;
    two.wrong_clock.step_back(5 * HOUR);
    let wish = CancelRequest::new(CancelMode::Graceful);
    assert!(matches!(
        two.wrong.cancel(id, &wish).await.unwrap(),
        Write::Applied(_)
    ));
    let note = Annotation::new().metadata("note", true);
    assert!(matches!(
        two.wrong.annotate(id, &note).await.unwrap(),
        Write::Applied(_)
    ));
    let ended = two.right.end(lease, &Outcome::Killed).await.unwrap();
    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
    let stale = two.wrong.release(lease).await.unwrap();
    assert!(matches!(stale, Write::Stale { .. }), "{stale:?}");
    let events = events(&two.right, id).await;
    assert_eq!(events.len(), 6, "{events:?}");
    assert!(events.is_sorted_by_key(|event| event.at), "{events:?}");
    let run = two.right.get(id).await.unwrap().unwrap();
    assert_eq!(events.last().unwrap().at, run.updated_at);
}

#[tokio::test]
async fn a_clock_ahead_takes_a_run_early_and_its_owner_is_fenced() {
    let two = two().await;
    let id = created(
        &two.right,
        NewRun::new("builder").max_attempts(3.try_into().unwrap()),
    )
    .await;
    let first = two.right.claim(&claim(ClaimOf::Run(id))).await.unwrap()[0].lease;
    two.wrong_clock.advance(5 * HOUR);
    let rescued = two.wrong.rescue(&Rescue::default()).await.unwrap();
    assert_eq!(rescued.len(), 1, "five hours on, the lease is over");
    let second = two.wrong.claim(&claim(ClaimOf::Run(id))).await.unwrap()[0].clone();
    assert!(second.lease.token > first.token);

    // The right clock's owner is turned away at its next word, whichever it is.
    let renewed = two
        .right
        .renew(&[first], runtree_repository::LeaseTime::default())
        .await;
    assert_eq!(renewed.unwrap(), [Renewal::Lost]);
    let completed = Outcome::Completed { result: None };
    let late = two.right.end(first, &completed).await.unwrap();
    assert!(matches!(late, Write::Stale { .. }), "{late:?}");
    // And takes nothing back before the other clock's lease is over by its own.
    assert!(
        two.right
            .rescue(&Rescue::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        two.right
            .claim(&claim(ClaimOf::ANY))
            .await
            .unwrap()
            .is_empty()
    );
    two.right_clock.set(second.expires_at);
    assert_eq!(two.right.rescue(&Rescue::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_clock_behind_takes_nothing_before_it_is_due_and_no_lease_before_it_is_over() {
    let two = two().await;
    let id = created(&two.right, NewRun::new("builder")).await;
    two.wrong_clock.step_back(5 * HOUR);
    assert!(
        two.wrong
            .claim(&claim(ClaimOf::ANY))
            .await
            .unwrap()
            .is_empty()
    );
    let claimed = two.right.claim(&claim(ClaimOf::Run(id))).await.unwrap()[0].clone();
    two.right_clock.set(claimed.expires_at);
    assert!(
        two.wrong
            .rescue(&Rescue::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(two.right.rescue(&Rescue::default()).await.unwrap().len(), 1);
}

#[test]
fn processes_whose_clocks_step_by_hours_break_no_promise_of_a_sqlite_file() {
    let mut scene = Scene::on_sqlite();
    let until = monotonic_nanos() + u64::try_from(working_time().as_nanos()).unwrap();
    let jobs = (0..processes()).map(|number| {
        let mut job = scene.next_job(until);
        // Every other one has a right clock.
        job.stepping_hours = if number % 2 == 0 { 6 } else { 0 };
        let child = job.spawn();
        (job, child)
    });
    wait_for(jobs.collect());
    let figures = runtime().block_on(async {
        // What the clocks ahead have stamped is due when the right time has come.
        let tomorrow = ManualClock::new(SystemClock.now().saturating_add(24 * HOUR));
        let Store::Sqlite(path) = &scene.store else {
            panic!("{:?}", scene.store);
        };
        let builder = SqliteRepository::builder(path).clock(Arc::new(tomorrow));
        let runs: DynRunRepository = Arc::new(builder.open().await.unwrap());
        let expectations = Expectations {
            failures: Vec::new(),
            longest_call: Duration::from_secs(45),
            clocks_agree: false,
            all_ended: true,
        };
        scene.conclude_by(runs, expectations).await
    });
    figures.show("stepping clocks");
    assert!(figures.calls > 100, "{figures:?}");
}

/// The instants that processes ask for, such as deadlines, are hours off; the clock of the machine is right, so that this does not
/// show who stamps the leases.
#[test]
fn processes_that_ask_for_instants_hours_off_change_nothing_on_a_postgresql() {
    let mut scene = Scene::on_postgres(TestPostgres::get().fresh_database());
    let mut workers = Workers { all: Vec::new() };
    for _ in 0..processes() {
        let mut job = scene.next_job(u64::MAX);
        job.stepping_hours = 6;
        let child = job.spawn();
        workers.all.push((job, child));
    }
    workers.wait_for_more(4_000);
    std::thread::sleep(working_time());
    scene.stop();
    wait_for(workers.all);
    let figures = runtime().block_on(scene.conclude(&[]));
    figures.show("stepping clocks");
}
