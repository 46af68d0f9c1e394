//! Fuzzes the reader of external references; the body and what it asserts are in the test kit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtree_testkit::fuzz::external_ref(data));
