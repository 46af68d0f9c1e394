//! The integration tests of this crate, as one program.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers beside the tests fail a test as the tests themselves do"
)]

mod add;
mod child;
mod commit;
mod crash;
mod lock;
mod parallel;
mod recover;
mod removal_races;
mod remove;
mod support;
