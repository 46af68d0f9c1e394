//! The project's own commands: how it is tested, checked, kept tidy and measured.
//!
//! ```
//! use xtask::cli::{Request, parse};
//!
//! assert_eq!(parse(["tidy"]), Ok(Request::Tidy));
//! assert!(parse(["test", "--frobnicate"]).is_err());
//! ```
//!
//! # Main types
//!
//! - [`cli::Request`]: what was asked for.
//! - [`shell::Shell`]: runs programs in the workspace and says what they do.
//! - [`summary::Tally`]: the counts a test runner printed, read from its own words.
//! - [`api::Surface`]: a crate whose public items are kept as text and compared.
//! - [`tidy::Check`]: one rule of the house; [`tidy::ALL`] lists them, and the tests of this
//!   package run each over the workspace and over a sample that breaks it.
//!
//! # What it does not do
//!
//! Nothing here is part of a published crate, and no published crate may depend on it.

mod console;
mod environment;
mod tools;

pub mod api;
pub mod bench;
pub mod ci;
pub mod cli;
pub mod combinations;
pub mod project;
pub mod setup;
pub mod shell;
pub mod summary;
pub mod testing;
pub mod tidy;

use std::fmt;

/// Why a command could not go on, as one message for the person who ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// Makes a failure of its message: what failed, and what to do about it.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Makes a failure that its user has been told of: only the exit status is left to say.
    #[must_use]
    pub const fn told() -> Self {
        Self(String::new())
    }

    /// Answers whether its user has been told of it.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What every part of a command answers.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Does what was asked for.
///
/// # Errors
///
/// When a step fails; what it printed itself says more.
pub fn run(request: cli::Request) -> Result {
    use cli::Request;

    let shell = shell::Shell::of_workspace();
    match request {
        Request::Help => {
            console::say(&cli::usage());
            Ok(())
        }
        Request::Test(arguments) => testing::run(&shell, &arguments),
        Request::Ci => ci::run(shell),
        Request::Tidy => tidy::run_tests(&shell),
        Request::Api(mode) => api::run(&shell, mode),
        Request::Bench(filters) => bench::run(&shell, &filters),
    }
}
