//! The rules of the house as functions over a [`Project`], so that each can be run over a bad sample too.

mod architecture;
mod documents;
mod manifests;
mod markdown;
mod sources;

use std::fmt;

use crate::Result;
use crate::project::Project;
use crate::shell::{self, Shell};

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    place: String,
    problem: String,
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            problem: problem.into(),
        }
    }

    fn at_line(path: &str, index: usize, problem: impl Into<String>) -> Self {
        Self::new(format!("{path}:{}", index + 1), problem)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.problem)
    }
}

/// One rule of the house.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Finds what breaks it.
    pub find: fn(&Project) -> Vec<Finding>,
}

/// All rules.
pub const ALL: &[Check] = &[
    check("arrows", architecture::arrows),
    check("map", architecture::map),
    check("proofs", architecture::proofs),
    check("commands", documents::commands),
    check("links", documents::links),
    check("variables", documents::variables),
    check("budget", manifests::budget),
    check("features", manifests::features),
    check("fuzz_targets", manifests::fuzz_targets),
    check("lints", manifests::lints),
    check("one_test_program", manifests::one_test_program),
    check("rooms_of_dependencies", manifests::rooms_of_dependencies),
    check("crate_docs", sources::crate_docs),
    check("foreign_types", sources::foreign_types),
    check("headers", sources::headers),
    check("length", sources::length),
    check("macros_of_drafts", sources::macros_of_drafts),
    check("reasons", sources::reasons),
    check("words", sources::words),
];

const fn check(name: &'static str, find: fn(&Project) -> Vec<Finding>) -> Check {
    Check { name, find }
}

/// Answers the rule of this name.
#[must_use]
pub fn named(name: &str) -> Option<Check> {
    ALL.iter().find(|check| check.name == name).copied()
}

/// Runs the tests of the rules.
///
/// # Errors
///
/// When one fails.
pub fn run_tests(shell: &Shell) -> Result {
    shell::run(&mut shell.cargo(&["test", "-p", "xtask", "--test", "it"]))
}
