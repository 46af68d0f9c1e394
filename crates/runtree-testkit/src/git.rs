//! Git repositories made for one test, by the real git program.
