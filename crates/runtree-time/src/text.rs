//! The canonical text of an instant, rendered on the stack.

use std::{fmt, ops::Deref};

use crate::{
    calendar::{DAY_MICROS, Date},
    timestamp::Timestamp,
};

/// The canonical text of a [`Timestamp`]: the 27 bytes `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
///
/// Texts sort, byte by byte, as the instants they name.
// Four whole words of which the last ends in zeros: written and checked a word
// at a time, where odd lengths would go byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(8))]
pub struct TimestampText([[u8; 8]; 4]);

impl TimestampText {
    /// The length of every canonical text, in bytes.
    pub const LEN: usize = 27;

    /// Returns the text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        let padded = std::str::from_utf8(self.0.as_flattened());
        &padded.expect("because every byte was rendered as ASCII")[..Self::LEN]
    }

    /// Returns the bytes of the text, all of them ASCII.
    #[inline]
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        let text = self.0.as_flattened().first_chunk();
        text.expect("because four words are longer than the text")
    }

    #[inline]
    pub(crate) fn render(timestamp: Timestamp) -> Self {
        // Counting from the first instant makes the number unsigned.
        let micros = (timestamp.as_unix_micros() - Timestamp::MIN.as_unix_micros()).cast_unsigned();
        let day_micros = DAY_MICROS.cast_unsigned();
        let date = Date::from_common_day(low(micros / day_micros));
        let micros = micros % day_micros;
        let second = low(micros / 1_000_000);
        let micros = low(micros % 1_000_000);

        let minute = second / 60;
        let date = digits([date.year / 100, date.year % 100, date.month, date.day]);
        let time = digits([minute / 60, minute % 60, second % 60, micros / 10_000]);
        let rest = digits([micros / 100 % 100, micros % 100, 0, 0]);
        let words = [
            word(*b"\0\0\0\0-\0\0-") | lanes(date, 0, 2, 0) | lanes(date, 2, 1, 5),
            word(*b"\0\0T\0\0:\0\0")
                | lanes(date, 3, 1, 0)
                | lanes(time, 0, 1, 3)
                | lanes(time, 1, 1, 6),
            word(*b":\0\0.\0\0\0\0")
                | lanes(time, 2, 1, 1)
                | lanes(time, 3, 1, 4)
                | lanes(rest, 0, 1, 6),
            word(*b"\0\0Z\0\0\0\0\0") | lanes(rest, 1, 1, 0),
        ];
        Self(words.map(u64::to_le_bytes))
    }
}

impl Deref for TimestampText {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for TimestampText {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for TimestampText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TimestampText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Writes four numbers below a hundred as two digits each, all at once.
#[inline]
fn digits(numbers: [u32; 4]) -> u64 {
    // A lane of sixteen bits for each number; 103 / 1024 is a tenth, near enough below 179.
    let [first, second, third, fourth] = numbers.map(u64::from);
    let numbers = first | second << 16 | third << 32 | fourth << 48;
    let tens = ((numbers * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = numbers - tens * 10;
    tens | ones << 8 | 0x3030_3030_3030_3030
}

/// Takes `count` pairs of digits from `first` on and moves them to the byte `at` of a word.
#[inline]
const fn lanes(digits: u64, first: u32, count: u32, at: u32) -> u64 {
    let pairs = digits >> (16 * first) & ((1 << (16 * count)) - 1);
    pairs << (8 * at)
}

#[inline]
const fn word(text: [u8; 8]) -> u64 {
    u64::from_le_bytes(text)
}

/// Narrows a number that a division has made small enough.
#[inline]
fn low(number: u64) -> u32 {
    debug_assert!(number <= u64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a day number, or a remainder below a million"
    )]
    {
        number as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_a_hundred_is_written_as_its_two_digits_in_every_place() {
        for number in 0..100 {
            let expected = format!("{number:02}");
            for place in 0..4 {
                let mut numbers = [99; 4];
                numbers[place] = number;
                let written = digits(numbers).to_le_bytes();
                assert_eq!(&written[2 * place..2 * place + 2], expected.as_bytes());
            }
        }
    }
}
