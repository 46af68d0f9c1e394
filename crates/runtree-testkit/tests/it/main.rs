//! One binary for the tests of what other crates are tested with.

#![cfg(unix)]

mod histories;
