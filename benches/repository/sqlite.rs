//! SQLite with `Durability::Full`, on a file on the disk, beside a raw loop of the least statements with the same effect.

use std::path::PathBuf;

use runtree_benches::{Bench, Group, Phase, Rates};
use runtree_repository::Durability;

use crate::ours::Ours;
use crate::raw::Raw;
use crate::{directory, same};

/// How many claims and endings a worker that drains makes at once.
pub(crate) const DRAIN_BATCH: usize = 500;
/// How many workers drain.
pub(crate) const DRAIN_WORKERS: usize = 2;

/// How many callers there are, and how many operations share a commit of the loop beside them: each caller waits for one, so that
/// no commit of runtree's can hold more.
const CALLERS: u64 = 64;

/// What is measured of many callers and of one.
const PHASES: [&str; 3] = ["create", "claim", "complete"];

/// Measures all groups on SQLite that are asked for.
pub(crate) fn run(bench: &Bench) {
    if ["sqlite/64 callers", "sqlite/one caller", "sqlite/drain"]
        .iter()
        .any(|name| bench.wants(name))
    {
        the_reference_does_the_same();
    }
    if bench.wants("sqlite/64 callers") {
        many(bench);
    }
    if bench.wants("sqlite/one caller") {
        one(bench);
    }
    if bench.wants("sqlite/drain") {
        drain(bench);
    }
    if bench.wants("sqlite/claim") {
        waiting(bench);
    }
}

/// Two files with the schema: one that runtree has open, and one for the reference.
struct Files {
    _directory: tempfile::TempDir,
    ours: PathBuf,
    raw: PathBuf,
}

impl Files {
    fn new() -> Self {
        let directory = directory();
        let files = Self {
            ours: directory.path().join("ours.db"),
            raw: directory.path().join("raw.db"),
            _directory: directory,
        };
        // The very same schema: made by opening it, and left alone from then on.
        drop(Ours::sqlite(&files.raw, Durability::Full));
        files
    }

    fn open(&self, batch: u64) -> (Ours, Raw) {
        let ours = Ours::sqlite(&self.ours, Durability::Full);
        let raw = Raw::open(&self.raw, ours.owner(), batch);
        (ours, raw)
    }
}

/// Leaves runs in every state in both files, and compares all that they left.
fn the_reference_does_the_same() {
    let files = Files::new();
    let (ours, mut raw) = files.open(2);
    ours.create(3, 1);
    let (_, leases) = ours.claim(2, 1);
    ours.complete(&leases[..1], 1);
    raw.create(3);
    let (_, leases) = raw.claim(2);
    raw.complete(&leases[..1]);
    same::check(&files.ours, &files.raw);
}

fn many(bench: &Bench) {
    let count = bench.options().pick(6_400, CALLERS);
    let files = Files::new();
    let (ours, mut raw) = files.open(CALLERS);
    let phases = PHASES.map(|name| Phase::with_goal(name, 0.6));
    let reference = format!("raw loop, {CALLERS} a commit");
    bench.run_rates(
        Rates::new("SQLite, Full, 64 callers", &phases)
            .side(&reference, || raw_round(&mut raw, count))
            .side("runtree", || our_round(&ours, count, CALLERS)),
    );
}

fn one(bench: &Bench) {
    let count = bench.options().pick(500, 3);
    let files = Files::new();
    let (ours, mut raw) = files.open(1);
    let phases = PHASES.map(|name| Phase::with_goal(name, 1.0));
    bench.run_rates(
        Rates::new("SQLite, Full, one caller", &phases)
            .side("raw loop, one a commit", || raw_round(&mut raw, count))
            .side("runtree", || our_round(&ours, count, 1)),
    );
}

fn raw_round(raw: &mut Raw, count: u64) -> runtree_benches::Round {
    let created = raw.create(count);
    let (claimed, leases) = raw.claim(count);
    let completed = raw.complete(&leases);
    vec![Some(created), Some(claimed), Some(completed)]
}

fn our_round(ours: &Ours, count: u64, callers: u64) -> runtree_benches::Round {
    let created = ours.create(count, callers);
    let (claimed, leases) = ours.claim(count, callers);
    let completed = ours.complete(&leases, callers);
    vec![Some(created), Some(claimed), Some(completed)]
}

fn drain(bench: &Bench) {
    let count = bench.options().pick(20_000, 10);
    let files = Files::new();
    let (ours, mut raw) = files.open(DRAIN_BATCH as u64);
    let phases = [Phase::new("claim and complete")];
    let reference = format!("raw loop, {DRAIN_BATCH} a commit");
    let side = format!("runtree, {DRAIN_WORKERS} workers, {DRAIN_BATCH} a call");
    bench.run_rates(
        Rates::new("SQLite, Full, drain", &phases)
            .side(&reference, || {
                raw.create(count);
                vec![Some(raw.drain(500))]
            })
            .side(&side, || {
                ours.prepare(count);
                vec![Some(ours.drain(DRAIN_BATCH, DRAIN_WORKERS))]
            }),
    );
}

/// Claims beside few and beside many that wait. `Normal`, because a flush would take most of the time on both sides.
fn waiting(bench: &Bench) {
    let directory = directory();
    let open = |name: &str, count: u64| {
        let ours = Ours::sqlite(&directory.path().join(name), Durability::Normal);
        ours.prepare(count);
        ours
    };
    let few = open("few.db", 10);
    let many = open("many.db", bench.options().pick(100_000, 100));
    bench.run(
        Group::new("sqlite/claim, Durability::Normal")
            .timed_reference("with 10 waiting", |repeats| few.claim_and_release(repeats))
            .timed("with 100,000 waiting", Some(1.0), |repeats| {
                many.claim_and_release(repeats)
            }),
    );
}
