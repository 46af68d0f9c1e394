//! PostgreSQL with its usual durability, beside pgbench that executes runtree's own statements, prepared, on as many connections.

use std::sync::OnceLock;

use runtree_benches::{Bench, Group, Phase, Rates};
use runtree_testkit::postgres::TestPostgres;

use crate::ours::Ours;
use crate::pgbench::PgBench;
use crate::sqlite::{DRAIN_BATCH, DRAIN_WORKERS};

const CONNECTIONS: u32 = 32;

/// Measures all groups on PostgreSQL that are asked for.
pub(crate) fn run(bench: &Bench) {
    if bench.wants("postgres/32 connections") {
        many(bench);
    }
    if bench.wants("postgres/drain") {
        drain(bench);
    }
    if bench.wants("postgres/claim") {
        waiting(bench);
    }
}

/// Answers the server of this program, which is gone with it.
pub(crate) fn server() -> &'static TestPostgres {
    static SERVER: OnceLock<TestPostgres> = OnceLock::new();
    SERVER.get_or_init(durable)
}

/// Starts a server that is as durable as one is by default; for tests it is not.
fn durable() -> TestPostgres {
    let server = TestPostgres::start();
    for setting in [
        "fsync = on",
        "full_page_writes = on",
        "synchronous_commit = on",
        "shared_buffers = '128MB'",
        "timezone = 'UTC'",
    ] {
        server.execute("postgres", &format!("ALTER SYSTEM SET {setting}"));
    }
    server.stop();
    server.start_again();
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value = server.execute("postgres", &format!("SHOW {setting}"));
        assert_eq!(value.trim(), "on", "{setting}");
    }
    server
}

fn many(bench: &Bench) {
    let connections = u64::from(CONNECTIONS);
    let count = bench.options().pick(200, 2) * connections;
    let server = server();
    let url = server.fresh_database();
    let reference = PgBench::new(server, &url, CONNECTIONS);
    let ours = Ours::postgres(&url, CONNECTIONS);
    let phases = [
        Phase::with_goal("create", 0.8),
        Phase::with_goal("claim, then complete", 0.8),
    ];
    // Both on the same tables: what one leaves behind is in the way of the other just as much.
    bench.run_rates(
        Rates::new("PostgreSQL, 32 connections", &phases)
            .side("pgbench -M prepared", || {
                vec![Some(reference.create(count)), Some(reference.work(count))]
            })
            .side("runtree", || {
                let created = ours.create(count, connections);
                vec![Some(created), Some(ours.work(count, connections))]
            }),
    );
    let database = url.rsplit('/').next().expect("a URL has slashes");
    let left = "SELECT count(*) FROM runtree_runs WHERE status <> 'completed'";
    assert_eq!(
        server.execute(database, left).trim(),
        "0",
        "each that was claimed was completed"
    );
}

fn drain(bench: &Bench) {
    let count = bench.options().pick(20_000, 10);
    let server = server();
    let ours = Ours::postgres(&server.fresh_database(), CONNECTIONS);
    let phases = [Phase::new("claim and complete")];
    let side = format!("runtree, {DRAIN_WORKERS} workers, {DRAIN_BATCH} a call");
    bench.run_rates(Rates::new("PostgreSQL, drain", &phases).side(&side, || {
        ours.prepare(count);
        vec![Some(ours.drain(DRAIN_BATCH, DRAIN_WORKERS))]
    }));
}

/// Claims beside few and beside many that wait, without waiting for the disk, which would take most of the time on both sides.
fn waiting(bench: &Bench) {
    let server = server();
    let open = |count: u64| {
        let url = server.fresh_database();
        let database = url.rsplit('/').next().expect("a URL has slashes");
        server.execute(
            "postgres",
            &format!("ALTER DATABASE {database} SET synchronous_commit = off"),
        );
        let ours = Ours::postgres(&url, 1);
        ours.prepare(count);
        ours
    };
    let (few, many) = (open(10), open(bench.options().pick(100_000, 100)));
    bench.run(
        Group::new("postgres/claim, synchronous_commit off")
            .timed_reference("with 10 waiting", |repeats| few.claim_and_release(repeats))
            .timed("with 100,000 waiting", Some(1.0), |repeats| {
                many.claim_and_release(repeats)
            }),
    );
}
