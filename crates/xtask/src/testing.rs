//! `cargo xtask test`: all tests, with one throwaway PostgreSQL for the whole run.

use std::panic;

use runtree_testkit::postgres::{TestPostgres, URL_VARIABLE};

use crate::shell::{self, Shell};
use crate::summary::Tally;
use crate::{Failure, Result, console, environment, setup};

/// The options that choose packages.
const PACKAGES: &[&str] = &["-p", "--package", "--workspace", "--all", "--manifest-path"];

/// The options that choose features.
const FEATURES: &[&str] = &[
    "-F",
    "--features",
    "--all-features",
    "--no-default-features",
];

/// Runs the tests and the doc tests; with arguments only what the runner makes of them.
///
/// # Errors
///
/// When a test fails, when none ran, when those on PostgreSQL were left out, or when a program that
/// the tests need is missing.
pub fn run(shell: &Shell, arguments: &[String]) -> Result {
    let mut tally = Tally::default();
    let only_a_part = !arguments.is_empty();
    let verdict = with_server(shell, |shell| {
        let verdict = programs(shell, arguments, &mut tally);
        if only_a_part {
            return verdict;
        }
        // Both in any case: a failed test says nothing about the documentation.
        let documentation = doc_tests(shell, &mut tally);
        verdict.and(documentation)
    });
    close(&tally, verdict.and_then(|()| whole(&tally, only_a_part)))
}

/// Does something with a PostgreSQL server that is gone afterwards, whatever happens.
///
/// # Errors
///
/// When there is no server, or what was done fails.
pub fn with_server<T>(shell: &Shell, work: impl FnOnce(&Shell) -> Result<T>) -> Result<T> {
    setup::git(shell)?;
    setup::postgres(shell)?;
    if environment::variable(URL_VARIABLE).is_some() {
        return work(shell);
    }
    // Kept until the work is done; its own keeper removes it even if this process is killed.
    let server = panic::catch_unwind(TestPostgres::start)
        .map_err(|_| Failure::new("PostgreSQL does not start: see above"))?;
    work(&shell.clone().with(URL_VARIABLE, server.url("postgres")))
}

/// Runs the test programs under nextest where it is installed, else under cargo.
///
/// # Errors
///
/// When a test fails or nothing can be built.
pub fn programs(shell: &Shell, arguments: &[String], tally: &mut Tally) -> Result {
    let nextest = shell::succeeds(&mut shell.cargo(&["nextest", "--version"]));
    let mut command = if nextest {
        shell.cargo(&["nextest", "run", "--no-fail-fast", "--status-level", "pass"])
    } else {
        // Not the doc tests, which have a step of their own, and not the benches.
        shell.cargo(&[
            "test",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
        ])
    };
    // What was asked for takes the place of all of it.
    if !any_is(arguments, PACKAGES) {
        command.arg("--workspace");
    }
    // Without this, the tests of features that are off by default would be left out in silence.
    if !any_is(arguments, FEATURES) {
        command.arg("--all-features");
    }
    shell::run_tests(command.args(arguments), tally)
}

/// Runs the examples in the documentation.
///
/// # Errors
///
/// When one fails or cannot be built.
pub fn doc_tests(shell: &Shell, tally: &mut Tally) -> Result {
    let mut command = shell.cargo(&[
        "test",
        "--workspace",
        "--all-features",
        "--doc",
        "--no-fail-fast",
    ]);
    shell::run_tests(&mut command, tally)
}

/// Checks that a run that succeeded was one: something ran, and nothing that must run was left out.
///
/// # Errors
///
/// When no summary could be read, when no test passed, or when a full run had no test on PostgreSQL.
pub fn whole(tally: &Tally, only_a_part: bool) -> Result {
    if tally.summaries() == 0 {
        return Err(Failure::new("the test runner printed no summary"));
    }
    if tally.passed() == 0 {
        return Err(Failure::new("no test ran"));
    }
    if tally.failed() > 0 {
        return Err(Failure::new(format!("{tally}, yet the runner succeeded")));
    }
    if !only_a_part && tally.postgres() == 0 {
        return Err(Failure::new("the tests on PostgreSQL were left out"));
    }
    Ok(())
}

/// Ends a run of tests: says why it failed, if it did, and prints the counts as the last line.
///
/// # Errors
///
/// When the verdict is one; it has been told by then.
pub fn close(tally: &Tally, verdict: Result) -> Result {
    if tally.summaries() == 0 {
        return verdict;
    }
    let verdict = verdict.map_err(|failure| {
        console::say(&format!("\nfailed: {failure}"));
        Failure::told()
    });
    console::say(&format!("\n{tally}"));
    verdict
}

/// Answers whether one of the arguments is one of the options, as a word or with `=` and a value.
fn any_is(arguments: &[String], options: &[&str]) -> bool {
    arguments.iter().any(|argument| {
        let option = argument
            .split_once('=')
            .map_or(&**argument, |(option, _)| option);
        options.contains(&option)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read_line(line);
        }
        tally
    }

    #[test]
    fn a_run_without_postgresql_is_no_success() {
        let without = tally(&["test result: ok. 3 passed; 0 failed"]);
        assert!(whole(&without, false).is_err());
        assert!(whole(&without, true).is_ok());
        let with = tally(&[
            "test postgres::conformance ... ok",
            "test result: ok. 3 passed; 0 failed",
        ]);
        assert!(whole(&with, false).is_ok());
    }

    #[test]
    fn a_run_of_nothing_is_no_success() {
        assert!(whole(&tally(&[]), true).is_err());
        assert!(whole(&tally(&["test result: ok. 0 passed; 0 failed"]), true).is_err());
    }

    #[test]
    fn a_failed_test_is_no_success_whatever_the_exit_status() {
        let failed = tally(&[
            "test postgres::conformance ... ok",
            "test result: ok. 3 passed; 1 failed",
        ]);
        assert!(whole(&failed, false).is_err());
    }

    #[test]
    fn an_option_is_recognised_with_its_value_beside_or_inside() {
        for (argument, expected) in [
            ("-p", true),
            ("--package=runtree-id", true),
            ("--packages", false),
            ("postgres", false),
        ] {
            let found = any_is(&[argument.to_owned()], PACKAGES);
            assert_eq!(found, expected, "{argument}");
        }
    }
}
