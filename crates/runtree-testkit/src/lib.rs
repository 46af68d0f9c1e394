//! Test support for the workspace: throwaway PostgreSQL servers, git fixtures and fuzz bodies.
//!
//! Unpublished; only ever a dev-dependency.

pub mod fuzz;
pub mod git;
pub mod postgres;
