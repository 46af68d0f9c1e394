//! The atomic word of the generator's core, named in one place so that a model checker can put its own there.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
