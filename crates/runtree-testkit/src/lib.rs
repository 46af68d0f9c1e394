//! Test support for the workspace: throwaway PostgreSQL servers, git fixtures, recorded histories and fuzz bodies.
//!
//! Unpublished; only ever a dev-dependency.

pub mod dice;
#[cfg(unix)]
pub mod full_disk;
pub mod fuzz;
pub mod git;
#[cfg(unix)]
pub mod history;
pub mod postgres;
