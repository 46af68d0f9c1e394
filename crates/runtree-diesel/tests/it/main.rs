//! One binary for every test of this crate that goes through its public face.

#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod attack;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod contracts;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod histories;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod host;
mod instants;
mod model;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod words;
