//! Fuzzes the readers of statuses and end reasons; the body and what it asserts are in the test kit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtree_testkit::fuzz::status_word(data));
