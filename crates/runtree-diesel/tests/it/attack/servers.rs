//! The server ends connections, and crashes, while processes work: they reconnect by themselves, and what was acknowledged is there.

use std::collections::BTreeSet;

use runtree_testkit::dice::Dice;
use runtree_testkit::history::{Answer, Failure, Operation, monotonic_nanos};
use runtree_testkit::postgres::TestPostgres;

use super::{Workers, wait_until};
use crate::histories::{Scene, processes, runtime, seed, wait_for, working_time};

/// Processes that were answered properly by a call that they made after an instant.
pub(super) fn answered_after(operations: &[Operation], at: u64) -> BTreeSet<&str> {
    let answered = operations.iter().filter(|operation| {
        let is_answered = operation
            .answered()
            .is_some_and(|answer| !matches!(answer, Answer::Failed { .. }));
        operation.invoked_at > at && is_answered
    });
    answered
        .map(|operation| operation.process.as_str())
        .collect()
}

/// Disturbs a server again and again, and each time waits until every process is answered again.
fn disturb(server: &TestPostgres, mut disturb: impl FnMut(&mut Dice)) {
    let mut scene = Scene::on_postgres(server.fresh_database());
    let mut dice = Dice::new(seed());
    let mut workers = Workers::start(&mut scene, processes());
    let until = monotonic_nanos() + u64::try_from(working_time().as_nanos()).unwrap();
    let mut disturbances = 0;
    while monotonic_nanos() < until || disturbances < 3 {
        workers.wait_for_more(dice.between(1, 10) * 200);
        disturb(&mut dice);
        disturbances += 1;
        let at = monotonic_nanos();
        let everybody = usize::try_from(processes()).unwrap();
        wait_until("every process is answered again", || {
            answered_after(&scene.operations(), at).len() == everybody
        });
    }
    scene.stop();
    wait_for(workers.all);
    let figures = runtime().block_on(scene.conclude(&[Failure::Unavailable]));
    figures.show(&format!("{disturbances} disturbances"));
    // Nobody was started again.
    let everybody = usize::try_from(processes()).unwrap();
    assert_eq!(figures.processes, everybody + 1, "{figures:?}");
}

#[test]
fn connections_that_are_terminated_are_made_again_and_nothing_is_lost() {
    let server = TestPostgres::start();
    let mut terminated = 0;
    disturb(&server, |dice| {
        // All of them, or about the half.
        let which = if dice.once_in(2) {
            ""
        } else {
            "and pid % 2 = 0"
        };
        let sql = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity \
             where application_name = 'runtree' {which}"
        );
        let count = server.execute("postgres", &sql);
        terminated += count.trim().parse::<usize>().expect("a count is a number");
    });
    assert!(
        terminated > 2,
        "only {terminated} connections were there to terminate"
    );
}

#[test]
fn a_server_that_crashes_loses_nothing_and_is_found_again() {
    let server = TestPostgres::start();
    let started_at = || server.execute("postgres", "select pg_postmaster_start_time()");
    let mut starts = BTreeSet::from([started_at()]);
    disturb(&server, |_| {
        server.stop_immediate();
        server.start_again();
        let is_another = starts.insert(started_at());
        assert!(is_another, "it is the server of before: {starts:?}");
    });
    assert!(starts.len() > 3, "it crashed too seldom: {starts:?}");
    // Not shut down but crashed: each start had to recover.
    let recoveries = server.execute(
        "postgres",
        "select count(*) from regexp_matches( \
             pg_read_file(current_setting('data_directory') || '/../log'), 'was not properly shut down', 'g')",
    );
    let recoveries: usize = recoveries.trim().parse().expect("a count is a number");
    assert_eq!(recoveries, starts.len() - 1);
}
