//! runtree beside other queues, on the operations that they share: creating one by one, by 64 callers, and draining.
//!
//! Each is a program of its own, whose dependencies clash with nobody's. It is told where its store is and how much to do, and answers
//! rounds; rounds of both sides take turns.

use std::process::Command;

use runtree_benches::{Bench, Orders, Phase, Rates, Remote};
use runtree_repository::Durability;

use crate::directory;
use crate::ours::Ours;
use crate::postgres::server;
use crate::sqlite::{DRAIN_BATCH, DRAIN_WORKERS};

/// A peer and how much both sides do in a round: less where it takes long.
struct Peer {
    name: &'static str,
    store: Store,
    /// Creates by one caller.
    alone: u64,
    /// Creates by 64 callers.
    together: u64,
    /// What is added before the drain, so that there is something to drain; nobody looks at the time.
    more: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Sqlite,
    Postgres,
}
use Store::{Postgres, Sqlite};

const PEERS: &[Peer] = &[
    Peer::new("effectum", Sqlite, 300, 6_400, 13_300),
    Peer::new("apalis-sqlite", Sqlite, 300, 640, 60),
    Peer::new("graphile-worker", Postgres, 300, 3_200, 26_500),
    Peer::new("awa", Postgres, 300, 3_200, 6_500),
    Peer::new("apalis-postgres", Postgres, 300, 3_200, 6_500),
    Peer::new("fang", Postgres, 300, 3_200, 0),
    Peer::new("underway", Postgres, 300, 1_600, 0),
];

impl Peer {
    const fn new(name: &'static str, store: Store, alone: u64, together: u64, more: u64) -> Self {
        Self {
            name,
            store,
            alone,
            together,
            more,
        }
    }
}

/// Measures the peers whose programs are given, as `peer/<name>=<program>`.
pub(crate) fn run(bench: &Bench) {
    for (name, program) in &bench.options().settings {
        let Some(name) = name.strip_prefix("peer/") else {
            continue;
        };
        let peer = PEERS.iter().find(|peer| peer.name == name);
        let peer = peer.unwrap_or_else(|| panic!("`{name}` is not in the list of peers"));
        measure(bench, peer, program);
    }
}

fn measure(bench: &Bench, peer: &Peer, program: &str) {
    let scale = |count: u64| bench.options().pick(count, count.div_ceil(100));
    let (alone, together, more) = (scale(peer.alone), scale(peer.together), scale(peer.more));
    let directory = directory();
    let server = (peer.store == Postgres).then(server);
    let (ours, theirs) = match server {
        Some(server) => (
            // As many connections as the peers have.
            Ours::postgres(&server.fresh_database(), 32),
            server.fresh_database(),
        ),
        None => (
            Ours::sqlite(&directory.path().join("ours.db"), Durability::Full),
            directory.path().join("theirs.db").display().to_string(),
        ),
    };
    let mut command = Command::new(program);
    command.arg(theirs);
    command.args([alone, together, more].map(|count| count.to_string()));
    let mut remote = Remote::start(command);
    let phases = [
        Phase::with_goal("create, one caller", 1.0),
        Phase::with_goal("create, 64 callers", 1.0),
        Phase::with_goal("drain", 1.0),
    ];
    let store = match peer.store {
        Sqlite => "SQLite",
        Postgres => "PostgreSQL",
    };
    let name = format!("{store}, beside {}", peer.name);
    bench.run_rates(
        Rates::new(&name, &phases)
            .side(peer.name, || remote.round())
            .side("runtree", || {
                let alone = ours.create(alone, 1);
                let together = ours.create(together, Orders::CALLERS);
                ours.prepare(more);
                let drained = ours.drain(DRAIN_BATCH, DRAIN_WORKERS);
                vec![Some(alone), Some(together), Some(drained)]
            }),
    );
}
