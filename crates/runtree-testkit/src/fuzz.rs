//! Fuzz bodies: plain functions over bytes, called by the fuzz targets and replayed by `cargo test`.
