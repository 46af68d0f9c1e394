//! Fuzzes the readers of branch names, directory names and slugs; the body and what it asserts are in the test kit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtree_testkit::fuzz::branch_name(data));
