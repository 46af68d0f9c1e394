//! The coordinator with real git repositories, real processes and real crashes.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod crash;
mod life;
mod owners;
mod stores;
mod sweeping;
mod worker;
mod world;
