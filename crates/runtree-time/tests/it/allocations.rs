//! That reading and writing take no memory from the heap, counted by an allocator of this test program.

use std::{fmt::Write as _, hint::black_box};

use allocation_counter::measure;
use runtree_time::{NaivePolicy, Normalizer, Profile, TimeRange, Timestamp};

use crate::corpus;

/// Answers how often memory was taken while something was done.
fn taken(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

/// Room on the stack for whatever writes a timestamp.
struct Stack {
    bytes: [u8; 64],
    len: usize,
}

impl std::fmt::Write for Stack {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Without this, a counter that counts nothing would prove everything.
#[test]
fn the_counter_counts() {
    assert_eq!(taken(|| drop(black_box(Box::new(1_u8)))), 1);
    assert_eq!(taken(|| drop(black_box(Timestamp::MIN.to_string()))), 1);
}

#[test]
fn reading_takes_no_memory_whether_it_succeeds_or_fails() {
    let texts = corpus::texts();
    for profile in [Profile::Strict, Profile::Interop] {
        for naive in [NaivePolicy::Reject, NaivePolicy::AssumeUtc] {
            let rules = Normalizer::new(profile).naive(naive);
            for text in &texts {
                let count = taken(|| drop(black_box(rules.parse(black_box(text)))));
                assert_eq!(count, 0, "{text:?} under {rules:?}");
            }
        }
    }
}

#[test]
fn reading_a_range_takes_no_memory() {
    let count = taken(|| {
        let range = TimeRange::parse(black_box("2025-06-22T10:00:00+02:00"), "2025-06-23");
        assert!(black_box(range).is_ok());
    });
    assert_eq!(count, 0);
}

#[test]
fn writing_takes_no_memory() {
    for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let mut stack = Stack {
            bytes: [0; 64],
            len: 0,
        };
        let count = taken(|| {
            assert_eq!(black_box(instant).to_text().as_str().len(), 27);
            write!(stack, "{instant}").unwrap();
        });
        assert_eq!(count, 0);
        assert_eq!(&stack.bytes[..stack.len], instant.to_text().as_bytes());
    }
}
