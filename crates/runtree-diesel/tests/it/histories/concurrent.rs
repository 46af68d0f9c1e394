//! Threads of one process, and many processes, on one store: whatever they were told fits together.

use runtree_testkit::history::monotonic_nanos;
use runtree_testkit::postgres::TestPostgres;

use super::{Failure, Mix, Scene, processes, runtime, wait_for, work, working_time};

fn until() -> u64 {
    monotonic_nanos() + u64::try_from(working_time().as_nanos()).unwrap()
}

/// Many callers on two handles of one process.
fn by_threads(mut scene: Scene, failures: &[Failure]) {
    let until = until();
    let figures = runtime().block_on(async move {
        let mut handles = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let mut job = scene.next_job(until);
            job.tasks = 12;
            handles.spawn(async move { work(job, &Mix::EVERYTHING).await });
        }
        while let Some(done) = handles.join_next().await {
            done.unwrap();
        }
        scene.conclude(failures).await
    });
    figures.show("undisturbed");
    assert!(figures.calls > 100, "{figures:?}");
    assert_eq!(figures.unanswered, 0, "{figures:?}");
}

fn by_processes(mut scene: Scene, failures: &[Failure]) {
    let until = until() + 500_000_000;
    let jobs: Vec<_> = (0..processes()).map(|_| scene.next_job(until)).collect();
    let children = jobs.into_iter().map(|job| {
        let child = job.spawn();
        (job, child)
    });
    wait_for(children.collect());
    let figures = runtime().block_on(scene.conclude(failures));
    figures.show("undisturbed");
    assert!(figures.calls > 100, "{figures:?}");
    assert_eq!(figures.unanswered, 0, "{figures:?}");
    assert_eq!(
        u64::try_from(figures.processes).unwrap(),
        processes() + 1,
        "{figures:?}"
    );
}

#[test]
fn what_threads_are_told_of_one_sqlite_file_fits_together() {
    by_threads(Scene::on_sqlite(), &[]);
}

#[test]
fn what_processes_are_told_of_one_sqlite_file_fits_together() {
    by_processes(Scene::on_sqlite(), &[]);
}

#[test]
fn what_threads_are_told_of_one_postgresql_fits_together() {
    by_threads(
        Scene::on_postgres(TestPostgres::get().fresh_database()),
        &[],
    );
}

#[test]
fn what_processes_are_told_of_one_postgresql_fits_together() {
    by_processes(
        Scene::on_postgres(TestPostgres::get().fresh_database()),
        &[],
    );
}
