//! `cargo xtask bench`: measures, shows the tables and keeps them.

use std::fs;

use crate::shell::{self, Shell};
use crate::{Failure, Result, console};

/// Where the tables of the last run are kept, below the workspace.
const REPORT: &str = "target/bench/report.md";

/// Runs every bench on optimised code, limited to groups whose name contains one of the filters.
///
/// # Errors
///
/// When a bench fails or its report cannot be kept.
pub fn run(shell: &Shell, filters: &[String]) -> Result {
    let mut command = shell.cargo(&["bench", "-p", "runtree-benches", "--benches"]);
    if !filters.is_empty() {
        command.arg("--").args(filters);
    }
    let tables = shell::read(&mut command)?;
    console::say(&tables);
    let report = shell.root().join(REPORT);
    let directory = report.parent().expect("the report stands in a directory");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&report, &tables))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", report.display())))?;
    console::say(&format!("the tables are kept in {REPORT}"));
    Ok(())
}
