//! `cargo xtask bench`: measures, shows the tables and keeps them.

use std::fs;
use std::process::Command;

use crate::shell::{self, Shell};
use crate::{Failure, Result, console, environment};

/// Where the tables of the last run are kept, below the workspace.
const REPORT: &str = "target/bench/report.md";

/// The manifest of the package of peers.
pub(crate) const PEERS: &str = "benches/peers/Cargo.toml";

/// Runs every bench on optimised code, limited to groups whose name contains one of the filters.
///
/// # Errors
///
/// When a bench fails or its report cannot be kept.
pub fn run(shell: &Shell, filters: &[String]) -> Result {
    let mut tables = String::new();
    let own = shell.cargo(&["bench", "-p", "runtree-benches", "--benches"]);
    let beside_peers = peers(shell, &["bench"], &["--benches"]);
    for mut command in [own, beside_peers] {
        if !filters.is_empty() {
            command.arg("--").args(filters);
        }
        let more = shell::read(&mut command)?;
        console::say(&more);
        tables.push_str(&more);
    }
    let report = shell.root().join(REPORT);
    let directory = report.parent().expect("the report stands in a directory");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&report, &tables))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", report.display())))?;
    console::say(&format!("the tables are kept in {REPORT}"));
    Ok(())
}

/// Makes a command of cargo on the package of peers that stands outside the workspace.
///
/// What it builds is put beside everything else, so that what it has in common with the workspace is
/// there already.
pub(crate) fn peers(shell: &Shell, command: &[&str], arguments: &[&str]) -> Command {
    let mut cargo = shell.cargo(command);
    cargo.arg("--manifest-path").arg(PEERS);
    cargo.arg("--target-dir").arg(environment::target());
    cargo.args(arguments);
    cargo
}
