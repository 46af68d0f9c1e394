//! One binary for the tests of the repository's contract: the memory backend keeps it, broken ones do not get past the suite.

mod broken;
mod explanation;
mod ext;
mod memory;
mod model;
mod records;
mod rejected;
mod sins;
mod ways;
