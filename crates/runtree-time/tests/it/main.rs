//! The integration tests of the crate, in one binary.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

mod allocations;
mod clock;
mod convert;
mod corpus;
mod errors;
#[cfg(feature = "serde")]
mod forms;
mod laws;
mod policies;
mod ranges;
mod suites;
mod values;
