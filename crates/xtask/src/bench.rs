//! `cargo xtask bench`: measures, shows the tables and keeps them.

use std::fs;
use std::process::Command;

use crate::shell::{self, Shell};
use crate::{Failure, Result, console, environment};

/// Where the tables of the last run are kept, below the workspace.
const REPORT: &str = "target/bench/report.md";

/// The manifest of the package of peers.
pub(crate) const PEERS: &str = "benches/peers/Cargo.toml";

/// Where each directory with a manifest is a program of another queue, which runtree's run repository is measured beside.
const QUEUES: &str = "benches/peers";

/// Runs every bench on optimised code, limited to groups whose name contains one of the filters.
///
/// The programs of other queues are built only when they are measured: each takes minutes.
///
/// # Errors
///
/// When a bench fails or its report cannot be kept.
pub fn run(shell: &Shell, filters: &[String]) -> Result {
    let mut tables = String::new();
    let measure = |mut command: Command, tables: &mut String| -> Result {
        let more = shell::read(&mut command)?;
        console::say(&more);
        tables.push_str(&more);
        Ok(())
    };
    // What only names queues would build all the rest to measure nothing.
    if filters.is_empty() || !filters.iter().all(|filter| filter.starts_with("peer/")) {
        let own = shell.cargo(&["bench", "-p", "runtree-benches", "--benches"]);
        let beside_peers = peers(shell, &["bench"], &["--benches"]);
        for mut command in [own, beside_peers] {
            command.arg("--").args(filters);
            measure(command, &mut tables)?;
        }
    }
    for queue in queues(shell)? {
        if is_wanted(&queue, filters) {
            shell::run(&mut building(shell, &queue))?;
            measure(beside(shell, &queue), &mut tables)?;
        }
    }
    let report = shell.root().join(REPORT);
    let directory = report.parent().expect("the report stands in a directory");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&report, &tables))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", report.display())))?;
    console::say(&format!("the tables are kept in {REPORT}"));
    Ok(())
}

/// Answers the names of the other queues that there are programs of.
///
/// # Errors
///
/// When the directory cannot be read.
pub(crate) fn queues(shell: &Shell) -> Result<Vec<String>> {
    let failed = |error| Failure::new(format!("cannot read {QUEUES}: {error}"));
    let mut names = Vec::new();
    for entry in fs::read_dir(shell.root().join(QUEUES)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().join("Cargo.toml").is_file() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    Ok(names)
}

/// Answers the manifest of a queue's program.
pub(crate) fn manifest_of(queue: &str) -> String {
    format!("{QUEUES}/{queue}/Cargo.toml")
}

/// Answers whether the group of a queue goes through the filters.
fn is_wanted(queue: &str, filters: &[String]) -> bool {
    let group = format!("peer/{queue}");
    filters.is_empty() || filters.iter().any(|filter| group.contains(filter.as_str()))
}

/// Makes the command that builds the program of a queue, as it was locked.
fn building(shell: &Shell, queue: &str) -> Command {
    let mut cargo = shell.cargo(&["build", "--release", "--locked", "--manifest-path"]);
    cargo.arg(manifest_of(queue));
    cargo.arg("--target-dir").arg(environment::target());
    cargo
}

/// Makes the command that measures runtree beside the built program of a queue.
fn beside(shell: &Shell, queue: &str) -> Command {
    let built = shell.root().join(environment::target()).join("release");
    let program = built.join(format!("runtree-peer-{queue}"));
    let mut cargo = shell.cargo(&["bench", "-p", "runtree-benches", "--bench", "repository"]);
    cargo.arg("--").arg(format!("peer/{queue}"));
    cargo.arg(format!("peer/{queue}={}", program.display()));
    cargo
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_built_when_its_group_goes_through_the_filters() {
        let wanted = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
            is_wanted("effectum", &filters)
        };
        assert!(wanted(&[]));
        assert!(wanted(&["peer/"]));
        assert!(wanted(&["sqlite/drain", "peer/effectum"]));
        assert!(!wanted(&["sqlite/"]));
        assert!(!wanted(&["peer/awa"]));
    }

    #[test]
    fn every_queue_has_a_program_that_the_bench_knows() {
        let shell = Shell::of_workspace();
        let queues = queues(&shell).expect("the directory can be read");
        assert!(!queues.is_empty());
        let list = shell.root().join("benches/repository/peers.rs");
        let list = fs::read_to_string(list).expect("the list can be read");
        for queue in queues {
            let manifest = fs::read_to_string(shell.root().join(manifest_of(&queue)));
            let manifest = manifest.expect("the manifest can be read");
            assert!(
                manifest.contains(&format!("name = \"runtree-peer-{queue}\"")),
                "{queue}"
            );
            assert!(list.contains(&format!("Peer::new(\"{queue}\"")), "{queue}");
        }
    }
}
