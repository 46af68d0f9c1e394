//! Counts the ids that parent and child both make after a fork, for runtree and its peers.
//!
//! It fails when one of runtree's is among them, or when a child of it hangs.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use runtree_peers::fork::{self, Outcome, Plan};
use runtree_peers::{Maker, peers, runtree};

/// Says how many ids parent and child each make after each fork.
const IDS: &str = "RUNTREE_TEST_FORK_IDS";

fn main() -> io::Result<ExitCode> {
    let ids = ids()?;
    let mut clean = true;
    say(&format!(
        "| {ids} ids each after a fork | one thread: both made | same random bits | threads at work: both made | same random bits | hung |\n\
         |:---|---:|---:|---:|---:|---:|"
    ));
    // Whoever waits for our children waits longer than the busiest machine needs.
    let (ours, theirs) = (Duration::from_secs(60), Duration::from_secs(1));
    clean &= show(&runtree(), ids, 10, ours)?;
    for peer in peers() {
        show(&peer, ids, 5, theirs)?;
    }
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints a maker's row and returns whether it made no id twice and never hung.
fn show(maker: &Maker, ids: usize, rounds: usize, patience: Duration) -> io::Result<bool> {
    let plan = Plan {
        ids,
        rounds,
        threads: 0,
        patience,
    };
    let alone = fork::run(maker, &plan)?;
    let among = fork::run(maker, &Plan { threads: 3, ..plan })?;
    let hung = if among.hung == 0 { "no" } else { "yes" };
    say(&format!(
        "| {} | {} | {} | {} | {} | {hung} |",
        maker.name,
        share(alone.duplicates, &alone),
        share(alone.random_duplicates, &alone),
        share(among.duplicates, &among),
        share(among.random_duplicates, &among),
    ));
    Ok(alone.is_clean() && among.is_clean())
}

/// Writes a count as a share of the children's ids.
fn share(count: usize, of: &Outcome) -> String {
    match (count, of.ids) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0".to_owned(),
        (count, ids) => format!("{:.1} %", ratio(count, ids) * 100.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(count: usize, of: usize) -> f64 {
    count as f64 / of as f64
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program reads its own environment"
)]
fn ids() -> io::Result<usize> {
    let Ok(text) = std::env::var(IDS) else {
        return Ok(1_000);
    };
    let number = text.parse().ok().filter(|ids| *ids > 0);
    number.ok_or_else(|| io::Error::other(format!("{IDS} is no number of ids: {text:?}")))
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn say(text: &str) {
    println!("{text}");
}
