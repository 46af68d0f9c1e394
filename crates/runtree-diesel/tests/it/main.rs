//! One binary for every test of this crate that goes through its public face.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod host;
mod instants;
mod model;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod words;
