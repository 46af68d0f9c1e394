//! One binary for all tests of the crate's public face.

mod corpus;
mod model;
mod phase;
#[cfg(feature = "serde")]
mod serde_text;
mod snapshots;
mod table;
mod words;
