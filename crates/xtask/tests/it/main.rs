//! The tidy tests: every rule holds in this workspace, and every rule rejects what breaks it.

mod canaries;
mod house;
