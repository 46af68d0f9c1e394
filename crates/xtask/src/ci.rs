//! `cargo xtask ci`: everything that must hold, in order, up to the first step that fails.

use std::time::{Duration, Instant};

use crate::combinations::COMBINATIONS;
use crate::shell::{self, Shell};
use crate::summary::Tally;
use crate::{Result, api, bench, console, environment, testing, tools};

const FUZZ_MANIFEST: &str = "--manifest-path=fuzz/Cargo.toml";

/// The package that takes PostgreSQL over a host's TLS.
const TLS_TEST: &str = "crates/runtree-diesel/tls-test/Cargo.toml";

/// Runs all steps and ends with the counts of the tests.
///
/// # Errors
///
/// At the first step that fails.
pub fn run(shell: Shell) -> Result {
    // Nothing here is built twice, so what incremental compilation writes would never be read.
    let shell = shell.with("CARGO_INCREMENTAL", "0");
    let mut steps = Steps::default();
    let mut tally = Tally::default();
    let verdict = all(&shell, &mut steps, &mut tally);
    steps.print();
    testing::close(&tally, verdict)
}

fn all(shell: &Shell, steps: &mut Steps, tally: &mut Tally) -> Result {
    steps.cargo(shell, "format", &["fmt", "--all", "--check"])?;
    steps.cargo(
        shell,
        "format of the fuzz targets",
        &["fmt", FUZZ_MANIFEST, "--check"],
    )?;
    steps.cargo(
        shell,
        "format of the peers",
        &["fmt", "--manifest-path", bench::PEERS, "--check"],
    )?;
    steps.cargo(
        shell,
        "format of the tests over TLS",
        &["fmt", "--manifest-path", TLS_TEST, "--check"],
    )?;
    // Other queues' programs are not built here: each would take minutes, of code that is not ours.
    steps.step("format of the other queues' programs", || queues(shell))?;
    steps.cargo(
        shell,
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-features",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    testing::with_server(shell, |shell| {
        steps.step("tests", || testing::programs(shell, &[], tally))?;
        steps.step("doc tests", || testing::doc_tests(shell, tally))
    })?;
    steps.step("no test was left out", || testing::whole(tally, false))?;
    steps.cargo(
        shell,
        "benches run",
        &["test", "-p", "runtree-benches", "--benches"],
    )?;
    steps.step("PostgreSQL over TLS: lints, tests", || {
        over_tls(shell, tally)
    })?;
    steps.step("peers: lints, benches, a fork", || peers(shell, tally))?;
    let strict = shell.clone().with("RUSTDOCFLAGS", "-D warnings");
    steps.cargo(
        &strict,
        "documentation",
        &["doc", "--workspace", "--all-features", "--no-deps"],
    )?;
    steps.step("public API", || api::run(shell, api::Mode::Compare))?;
    steps.step("licences, sources and bans", || deny(shell))?;
    steps.cargo(shell, "quickstart", &["run", "-p", "quickstart"])?;
    steps.step("feature combinations", || combinations(shell))?;
    steps.step("fuzz targets build", || fuzz_targets(shell))
}

/// Checks the fuzz targets without libFuzzer itself, which needs a C++ compiler.
fn fuzz_targets(shell: &Shell) -> Result {
    let mut command = shell.cargo(&["check", FUZZ_MANIFEST, "--no-default-features"]);
    // Beside everything else, so that what it has in common with the workspace is there already.
    command.arg("--target-dir").arg(environment::target());
    shell::run(&mut command)
}

/// Lints the peers, runs their benches once, and counts what a fork makes them repeat.
fn peers(shell: &Shell, tally: &mut Tally) -> Result {
    let lints = ["--all-targets", "--", "-D", "warnings"];
    shell::run(&mut bench::peers(shell, &["clippy"], &lints))?;
    // The benches have a main of their own; everything else is tests.
    let tests = ["--lib", "--tests", "--benches"];
    shell::run_tests(&mut bench::peers(shell, &["test"], &tests), tally)
}

/// Lints and runs what stands outside the workspace because it brings a TLS.
fn over_tls(shell: &Shell, tally: &mut Tally) -> Result {
    let cargo = |command, arguments: &[&str]| {
        let mut cargo = shell.cargo(&[command, "--manifest-path", TLS_TEST]);
        cargo.arg("--target-dir").arg(environment::target());
        cargo.args(arguments);
        cargo
    };
    let lints = ["--all-targets", "--", "-D", "warnings"];
    shell::run(&mut cargo("clippy", &lints))?;
    shell::run_tests(&mut cargo("test", &["--tests"]), tally)
}

/// Checks the format of the programs of other queues.
fn queues(shell: &Shell) -> Result {
    for queue in bench::queues(shell)? {
        let manifest = bench::manifest_of(&queue);
        shell::run(&mut shell.cargo(&["fmt", "--manifest-path", &manifest, "--check"]))?;
    }
    Ok(())
}

/// Holds the dependencies against `deny.toml`.
fn deny(shell: &Shell) -> Result {
    // An exception that nothing needs any more is an error: it would hide the next one.
    let check = [
        "check",
        "--deny=unmatched-skip",
        "--deny=unnecessary-skip",
        "--deny=unused-wrapper",
        "bans",
        "licenses",
        "sources",
    ];
    shell::run(tools::DENY.command(shell)?.args(check))
}

/// Lints each combination of features, so that none leaves dead code or a missing item.
fn combinations(shell: &Shell) -> Result {
    for combination in COMBINATIONS {
        let features = combination.features.join(",");
        console::say(&format!("{} [{features}]", combination.package));
        let mut command = shell.cargo(&["clippy", "--quiet", "--no-default-features"]);
        command.args(["-p", combination.package, "--features", &features]);
        shell::run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// The steps so far and how long each took.
#[derive(Debug, Default)]
struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    fn cargo(&mut self, shell: &Shell, title: &'static str, arguments: &[&str]) -> Result {
        self.step(title, || shell::run(&mut shell.cargo(arguments)))
    }

    fn step(&mut self, title: &'static str, work: impl FnOnce() -> Result) -> Result {
        console::title(title);
        let start = Instant::now();
        let verdict = work();
        let time = start.elapsed();
        self.done.push((title, time, verdict.is_ok()));
        let word = if verdict.is_ok() { "done" } else { "failed" };
        console::say(&format!(
            "<== {title}: {word} in {}",
            console::duration(time)
        ));
        verdict
    }

    fn print(&self) {
        console::title("how long it took");
        for (title, time, ok) in &self.done {
            let mark = if *ok { "" } else { "  failed" };
            console::say(&format!("{:>13}  {title}{mark}", console::duration(*time)));
        }
        let total = self.done.iter().map(|(_, time, _)| *time).sum();
        console::say(&format!("{:>13}  in all", console::duration(total)));
    }
}

#[cfg(test)]
mod step_tests {
    use super::*;
    use crate::Failure;

    #[test]
    fn a_step_that_fails_is_remembered_as_failed_and_passed_on() {
        let mut steps = Steps::default();
        assert_eq!(steps.step("one", || Ok(())), Ok(()));
        let failure = steps.step("two", || Err(Failure::new("no")));
        assert_eq!(failure, Err(Failure::new("no")));
        let verdicts: Vec<_> = steps
            .done
            .iter()
            .map(|(title, _, ok)| (*title, *ok))
            .collect();
        assert_eq!(verdicts, [("one", true), ("two", false)]);
    }
}
