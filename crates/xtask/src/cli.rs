//! Reads the arguments of `cargo xtask`.

use crate::api::Mode;
use crate::{Failure, Result};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Prints what there is.
    Help,
    /// Runs the tests, with these arguments for the runner.
    Test(Vec<String>),
    /// Runs every check, as continuous integration does.
    Ci,
    /// Runs the tests that keep the house tidy.
    Tidy,
    /// Compares the kept lists of public items with the code, or writes them anew.
    Api(Mode),
    /// Measures, limited to the groups whose name contains one of these.
    Bench(Vec<String>),
}

/// The commands and what each does, in the order in which they are shown.
pub const COMMANDS: &[(&str, &str)] = &[
    (
        "test [-- ARGUMENTS]",
        "runs all tests, with a throwaway PostgreSQL; arguments go to the test runner",
    ),
    (
        "ci",
        "runs everything that must hold: format, lints, tests, docs, licences, features",
    ),
    (
        "tidy",
        "runs the tests of the house's own rules (ARCHITECTURE.md, file headers, links)",
    ),
    (
        "api [--update]",
        "compares the public items of the crates with their snapshots, or writes these anew",
    ),
    (
        "bench [FILTER...]",
        "measures the groups whose name contains a filter, or all; `peer/` builds the other queues",
    ),
    ("help", "prints this"),
];

/// Reads what was asked for from the arguments after the program's name.
///
/// # Errors
///
/// When there is no such command or it takes no such argument; the message names both.
pub fn parse<I>(arguments: I) -> Result<Request>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let mut arguments = arguments.into_iter().map(Into::into);
    let Some(command) = arguments.next() else {
        return Ok(Request::Help);
    };
    let rest: Vec<String> = arguments.collect();
    match command.as_str() {
        "help" | "--help" | "-h" => Ok(Request::Help),
        "test" => match rest.split_first() {
            None => Ok(Request::Test(Vec::new())),
            Some((dashes, rest)) if dashes == "--" => Ok(Request::Test(rest.to_vec())),
            Some((other, _)) => Err(Failure::new(format!(
                "`test` does not know `{other}`; arguments for the test runner come after `--`"
            ))),
        },
        "ci" => alone("ci", &rest, Request::Ci),
        "tidy" => alone("tidy", &rest, Request::Tidy),
        "api" => match rest.split_first() {
            None => Ok(Request::Api(Mode::Compare)),
            Some((update, [])) if update == "--update" => Ok(Request::Api(Mode::Update)),
            Some((other, _)) => Err(Failure::new(format!(
                "`api` takes `--update` and nothing else: `{other}`"
            ))),
        },
        "bench" => match rest.iter().find(|filter| filter.starts_with('-')) {
            None => Ok(Request::Bench(rest)),
            Some(option) => Err(Failure::new(format!(
                "`bench` takes filters and no options: `{option}`"
            ))),
        },
        other => Err(Failure::new(format!(
            "there is no command `{other}`\n{}",
            usage()
        ))),
    }
}

/// Answers whether there is a command of this name.
pub fn is_command(name: &str) -> bool {
    COMMANDS
        .iter()
        .any(|(usage, _)| usage.split(' ').next() == Some(name))
}

/// Answers the list of commands as a text.
pub fn usage() -> String {
    let lines = COMMANDS
        .iter()
        .map(|(usage, about)| format!("  cargo xtask {usage:<21} {about}"));
    let lines: Vec<String> = lines.collect();
    format!("commands:\n{}", lines.join("\n"))
}

fn alone(command: &str, rest: &[String], request: Request) -> Result<Request> {
    match rest.first() {
        None => Ok(request),
        Some(argument) => Err(Failure::new(format!(
            "`{command}` takes no arguments: `{argument}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_for_the_runner_come_after_the_dashes() {
        assert_eq!(parse(["test"]), Ok(Request::Test(Vec::new())));
        let asked = parse(["test", "--", "-p", "runtree-id"]);
        let arguments = vec!["-p".to_owned(), "runtree-id".to_owned()];
        assert_eq!(asked, Ok(Request::Test(arguments)));
        assert!(parse(["test", "-p"]).is_err());
    }

    #[test]
    fn snapshots_of_the_api_are_written_only_when_asked() {
        assert_eq!(parse(["api"]), Ok(Request::Api(Mode::Compare)));
        assert_eq!(parse(["api", "--update"]), Ok(Request::Api(Mode::Update)));
        assert!(parse(["api", "--update", "more"]).is_err());
    }

    #[test]
    fn every_listed_command_is_read() {
        for (usage, _) in COMMANDS {
            let name = usage.split(' ').next().expect("a text has a first word");
            assert!(parse([name]).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (arguments, named) in [
            (["paint", "it"], "`paint`"),
            (["ci", "fast"], "`fast`"),
            (["bench", "--all"], "`--all`"),
            (["api", "--all"], "`--all`"),
        ] {
            let failure = parse(arguments).expect_err("no such thing");
            assert!(failure.to_string().contains(named), "{failure}");
        }
    }
}
