//! Fuzzes the readers of run ids, owner ids and endings of ids; the body and what it asserts are in the test kit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtree_testkit::fuzz::run_id(data));
