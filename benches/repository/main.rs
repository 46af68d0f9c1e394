//! The run repository: on SQLite beside a raw loop, on PostgreSQL beside pgbench, and beside the programs of other queues.
//!
//! Other queues are programs of their own, below `peers/`; `cargo xtask bench peer/` builds them and tells where they are.

mod ours;
mod page;
mod peers;
mod pgbench;
mod postgres;
mod raw;
mod same;
mod sqlite;

use std::path::PathBuf;

use runtree_benches::{Bench, Options};
use tempfile::TempDir;

fn main() {
    let bench = Bench::new(Options::from_args());
    sqlite::run(&bench);
    page::run(&bench);
    postgres::run(&bench);
    peers::run(&bench);
}

/// A directory on the disk that cargo builds on: where temporary files go may be memory.
fn disk() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A directory there that goes with its owner.
fn directory() -> TempDir {
    tempfile::tempdir_in(disk()).expect("a directory can be made")
}
