//! Reads the text of a timestamp: nothing allocated, no number parsed twice.
//!
//! Nearly every text begins with the same 19 bytes, `YYYY-MM-DDTHH:MM:SS`, and
//! those are taken eight at a step. Whatever does not begin so, or is wrong
//! later on, goes through the scanner from its first byte: it knows every form
//! and says what is wrong with the others.

use crate::{
    calendar::{DAY_MICROS, DAY_SECONDS, Date, SECOND_MICROS},
    error::{Fault, ParseErrorKind as Kind},
    normalizer::{NaivePolicy, Normalizer, Profile, SubMicros},
    offset::UtcOffset,
    timestamp::Timestamp,
};

/// What a bound of a range can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A full timestamp.
    Instant(Timestamp),
    /// A date alone: its midnight in UTC.
    Midnight(Timestamp),
}

impl Bound {
    pub(crate) const fn first_instant(self) -> Timestamp {
        match self {
            Self::Instant(instant) | Self::Midnight(instant) => instant,
        }
    }
}

/// Reads a timestamp under the given rules.
#[inline]
pub(crate) fn scan(input: &[u8], rules: &Normalizer) -> Result<Timestamp, Fault> {
    if let Some((head, tail)) = input.split_first_chunk()
        && let Some((date, time)) = common_head(head)
    {
        if let Some(micros) = common_tail(tail) {
            // In UTC, every date that exists is in range.
            let micros = date.unix_day() * DAY_MICROS + time.micros_of_day() + micros;
            return Ok(Timestamp::from_proven_micros(micros));
        }
        if let Some(timestamp) = other_tail(input, rules, date, time) {
            return Ok(timestamp);
        }
    }
    Scanner::new(input, rules).timestamp()
}

/// Reads a timestamp or a date under the given rules, the date in UTC.
pub(crate) fn scan_bound(input: &[u8], rules: &Normalizer) -> Result<Bound, Fault> {
    let mut scanner = Scanner::new(input, rules);
    scanner.check_whole()?;
    let date = scanner.date()?;
    if scanner.ended() {
        let midnight = date.unix_day() * DAY_MICROS;
        return Ok(Bound::Midnight(Timestamp::from_proven_micros(midnight)));
    }
    scanner.timestamp_after(date).map(Bound::Instant)
}

/// Reads `YYYY-MM-DDTHH:MM:SS`, or answers `None` for the scanner to look closer.
#[inline]
fn common_head(head: &[u8; HEAD]) -> Option<(Date, TimeOfDay)> {
    const DATE: Template = Template::of(*b"0000-00-");
    const HOUR: Template = Template::of(*b"00T00:00");
    const TIME: Template = Template::of(*b"00:00:00");

    let (date, wrong_date) = DATE.read(head[..8].try_into().ok()?);
    let (hour, wrong_hour) = HOUR.read(head[8..16].try_into().ok()?);
    let (time, wrong_time) = TIME.read(head[11..].try_into().ok()?);
    if wrong_date | wrong_hour | wrong_time != 0 {
        return None;
    }
    let (date, time) = (pairs(date), pairs(time));
    let date = Date {
        year: byte(date, 0) * 100 + byte(date, 2),
        month: byte(date, 5),
        day: byte(pairs(hour), 0),
    };
    let time = TimeOfDay {
        hour: byte(time, 0),
        minute: byte(time, 3),
        second: byte(time, 6),
        micros: 0,
        finer_at: None,
    };
    let exists = date.exists() && time.hour < 24 && time.minute < 60 && time.second < 60;
    exists.then_some((date, time))
}

/// Reads `.ffffffZ`, or `Z` alone, as microseconds, or answers `None` for the scanner to look closer.
#[inline]
fn common_tail(tail: &[u8]) -> Option<i64> {
    const TAIL: Template = Template::of(*b".000000Z");

    if tail == b"Z" {
        return Some(0);
    }
    let (fraction, wrong) = TAIL.read(tail.try_into().ok()?);
    if wrong != 0 {
        return None;
    }
    let fraction = pairs(fraction);
    let micros = byte(fraction, 1) * 10_000 + byte(fraction, 3) * 100 + byte(fraction, 5);
    Some(i64::from(micros))
}

/// Reads any other tail after a common head, or answers `None` for the scanner to say what is wrong.
fn other_tail(input: &[u8], rules: &Normalizer, date: Date, time: TimeOfDay) -> Option<Timestamp> {
    if input.len() > Scanner::STRICT_LIMIT {
        return None;
    }
    let mut scanner = Scanner::new(input, rules);
    scanner.at = HEAD;
    scanner.tail(date, time).ok()
}

/// Eight bytes of text of which each is either any digit or one certain byte.
#[derive(Clone, Copy)]
struct Template {
    /// The bytes themselves, `0` for a digit: what is left after xor is the digit's value, or zero.
    bytes: u64,
    /// What lifts a value that is too large over 127: a digit's above 9, any other's above 0.
    lift: u64,
}

impl Template {
    const fn of(text: [u8; 8]) -> Self {
        let mut lift = [0x7f; 8];
        let mut at = 0;
        while at < 8 {
            if text[at] == b'0' {
                lift[at] = 0x7f - 9;
            }
            at += 1;
        }
        Self {
            bytes: u64::from_le_bytes(text),
            lift: u64::from_le_bytes(lift),
        }
    }

    /// Returns the values of the digits, and zero if all eight bytes are as they should be.
    #[inline]
    const fn read(self, text: [u8; 8]) -> (u64, u64) {
        let values = u64::from_le_bytes(text) ^ self.bytes;
        // A carry out of a byte needs a value above 127, and that is seen by itself.
        let wrong = (values.wrapping_add(self.lift) | values) & 0x8080_8080_8080_8080;
        (values, wrong)
    }
}

/// Makes of each digit and its right neighbour the number they spell.
#[inline]
const fn pairs(digits: u64) -> u64 {
    digits * 10 + (digits >> 8)
}

#[inline]
const fn byte(bytes: u64, at: usize) -> u32 {
    bytes.to_le_bytes()[at] as u32
}

/// The length of `YYYY-MM-DDTHH:MM:SS`.
const HEAD: usize = 19;

/// Where the fields of every form begin, for they all have the same widths.
mod at {
    pub(super) const YEAR: usize = 0;
    pub(super) const MONTH: usize = 5;
    pub(super) const DAY: usize = 8;
    pub(super) const HOUR: usize = 11;
    pub(super) const MINUTE: usize = 14;
    pub(super) const SECOND: usize = 17;
}

/// The forms that errors name.
mod hint {
    pub(super) const FORM: &str = "write YYYY-MM-DDTHH:MM:SSZ";
    pub(super) const NOTHING_AROUND: &str = "leave out what follows the timestamp, white space too";
    pub(super) const SEPARATOR: &str = "write T or one space between date and time";
    pub(super) const OFFSET: &str = "end with Z or an offset such as +02:00";
    pub(super) const FRACTION: &str =
        "write at least one digit after the decimal sign, or leave it out";
    pub(super) const ANNOTATION: &str = "write an annotation as [Area/City] or [key=value]";
}

/// A time of day as written.
#[derive(Clone, Copy)]
struct TimeOfDay {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    /// Where the fraction has a digit that microseconds cannot hold.
    finer_at: Option<usize>,
}

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    rules: &'a Normalizer,
}

impl<'a> Scanner<'a> {
    /// What a text of the strict profile may measure; it leaves at least 38 digits for the fraction.
    const STRICT_LIMIT: usize = 64;
    /// What a text with annotations may measure.
    const INTEROP_LIMIT: usize = 128;

    const fn new(input: &'a [u8], rules: &'a Normalizer) -> Self {
        Self {
            input,
            at: 0,
            rules,
        }
    }

    fn timestamp(&mut self) -> Result<Timestamp, Fault> {
        self.check_whole()?;
        let date = self.date()?;
        if !self.ended() {
            return self.timestamp_after(date);
        }
        let hint = "add a time of day and an offset, as in 2025-06-22T00:00:00Z";
        let offset = self.assumed_offset(hint)?;
        Self::instant(date.unix_day() * DAY_MICROS, offset)
    }

    /// Reads the rest of a timestamp after its date.
    fn timestamp_after(&mut self, date: Date) -> Result<Timestamp, Fault> {
        match self.next() {
            Some(b'T' | b't' | b' ') => self.at += 1,
            _ => return self.fail(Kind::Syntax, hint::SEPARATOR),
        }
        let time = self.time()?;
        self.tail(date, time)
    }

    /// Reads the rest of a timestamp after its seconds, or after its minutes where it has none.
    fn tail(&mut self, date: Date, mut time: TimeOfDay) -> Result<Timestamp, Fault> {
        (time.micros, time.finer_at) = self.fraction()?;
        time.check()?;
        let offset = match self.offset()? {
            Some(offset) => offset,
            None => self.assumed_offset(hint::OFFSET)?,
        };
        self.annotations()?;
        if !self.ended() {
            return self.fail(Kind::Syntax, hint::NOTHING_AROUND);
        }
        self.resolve(date, time, offset)
    }

    /// Checks what concerns the text as a whole.
    fn check_whole(&self) -> Result<(), Fault> {
        let (limit, limit_hint) = match self.rules.profile {
            Profile::Strict => (
                Self::STRICT_LIMIT,
                "write YYYY-MM-DDTHH:MM:SSZ in at most 64 bytes",
            ),
            Profile::Interop => (
                Self::INTEROP_LIMIT,
                "write YYYY-MM-DDTHH:MM:SSZ in at most 128 bytes",
            ),
        };
        if self.input.is_empty() {
            return Err(fault(Kind::Empty, 0, hint::FORM));
        }
        if self.input.len() > limit {
            return Err(fault(Kind::TooLong, limit, limit_hint));
        }
        match self.input.iter().position(|byte| !byte.is_ascii()) {
            Some(at) => Err(fault(Kind::NonAscii, at, "use ASCII digits and signs only")),
            None => Ok(()),
        }
    }

    fn date(&mut self) -> Result<Date, Fault> {
        let date = self.date_fields().map_err(|wrong| {
            if is_number(self.input) {
                let hint =
                    "name the unit: use Timestamp::from_unix_seconds, _millis, _micros or _nanos";
                fault(Kind::Number, 0, hint)
            } else {
                wrong
            }
        })?;
        let wrong = |at, hint| Err(fault(Kind::NoSuchField, at, hint));
        if date.year == 0 {
            wrong(at::YEAR, "use a year from 0001 to 9999")
        } else if !(1..=12).contains(&date.month) {
            wrong(at::MONTH, "use a month from 01 to 12")
        } else if !date.exists() {
            wrong(at::DAY, "use a day that this month has")
        } else {
            Ok(date)
        }
    }

    fn date_fields(&mut self) -> Result<Date, Fault> {
        const YEAR: &str = "begin with a year of four digits and no sign";
        const DATE: &str = "write the date as YYYY-MM-DD";
        let year = self.two_digits(YEAR)? * 100 + self.two_digits(YEAR)?;
        self.exactly(b'-', DATE)?;
        let month = self.two_digits(DATE)?;
        self.exactly(b'-', DATE)?;
        let day = self.two_digits(DATE)?;
        Ok(Date { year, month, day })
    }

    fn time(&mut self) -> Result<TimeOfDay, Fault> {
        const TIME: &str = "write the time of day as HH:MM:SS";
        let hour = self.two_digits(TIME)?;
        self.exactly(b':', TIME)?;
        let minute = self.two_digits(TIME)?;
        let mut time = TimeOfDay {
            hour,
            minute,
            second: 0,
            micros: 0,
            finer_at: None,
        };
        match self.next() {
            Some(b':') => {
                self.at += 1;
                time.second = self.two_digits(TIME)?;
            }
            None | Some(b'Z' | b'z' | b'+' | b'-' | b'[') => {
                self.interop_only("add the seconds")?;
            }
            Some(_) => return self.fail(Kind::Syntax, TIME),
        }
        Ok(time)
    }

    /// Reads a fraction if there is one: its microseconds, and where it is finer than that.
    fn fraction(&mut self) -> Result<(u32, Option<usize>), Fault> {
        match self.next() {
            Some(b'.') => {}
            Some(b',') => self.interop_only("use a point before the fraction")?,
            _ => return Ok((0, None)),
        }
        self.at += 1;
        let start = self.at;
        let (mut micros, mut place, mut finer_at) = (0, 100_000, None);
        while let Some(digit @ b'0'..=b'9') = self.next() {
            if place > 0 {
                micros += place * u32::from(digit - b'0');
                place /= 10;
            } else if digit != b'0' && finer_at.is_none() {
                finer_at = Some(self.at);
            }
            self.at += 1;
        }
        if self.at == start {
            return self.fail(Kind::Syntax, hint::FRACTION);
        }
        Ok((micros, finer_at))
    }

    /// Reads an offset; `None` if the text has none.
    fn offset(&mut self) -> Result<Option<UtcOffset>, Fault> {
        let east = match self.next() {
            None => return Ok(None),
            Some(b'Z' | b'z') => {
                self.at += 1;
                return Ok(Some(UtcOffset::UTC));
            }
            Some(b'+') => true,
            Some(b'-') => false,
            Some(b'[') => return self.fail(Kind::Naive, "write an offset before the annotation"),
            Some(_) => return self.fail(Kind::Syntax, hint::OFFSET),
        };
        self.at += 1;
        let at = self.at;
        let hours = self.two_digits(hint::OFFSET)?;
        let minutes = match self.next() {
            Some(b':') => {
                self.at += 1;
                self.two_digits(hint::OFFSET)?
            }
            Some(b'0'..=b'9') => {
                self.interop_only("write a colon in the offset")?;
                self.two_digits(hint::OFFSET)?
            }
            None | Some(b'[') => {
                self.interop_only("add the minutes of the offset")?;
                0
            }
            Some(_) => return self.fail(Kind::Syntax, hint::OFFSET),
        };
        if hours > 23 || minutes > 59 {
            let hint = "use an offset up to 23:59, its minutes up to 59";
            return Err(fault(Kind::NoSuchOffset, at, hint));
        }
        Ok(Some(UtcOffset::from_fields(east, hours, minutes)))
    }

    /// Returns the offset that the policy gives to a text that has none.
    fn assumed_offset(&self, hint: &'static str) -> Result<UtcOffset, Fault> {
        match (self.rules.profile, self.rules.naive) {
            (Profile::Strict, _) | (Profile::Interop, NaivePolicy::Reject) => {
                self.fail(Kind::Naive, hint)
            }
            (Profile::Interop, NaivePolicy::AssumeUtc) => Ok(UtcOffset::UTC),
            (Profile::Interop, NaivePolicy::AssumeOffset(offset)) => Ok(offset),
        }
    }

    /// Skips the annotations of RFC 9557 after looking at their form.
    fn annotations(&mut self) -> Result<(), Fault> {
        let mut first = true;
        while self.next() == Some(b'[') {
            self.interop_only("leave the annotation out")?;
            self.at += 1;
            if self.next() == Some(b'!') {
                let hint = "leave the mark ! out if the annotation may be ignored";
                return self.fail(Kind::CriticalAnnotation, hint);
            }
            let rest = &self.input[self.at..];
            let Some(len) = rest.iter().position(|&byte| byte == b']') else {
                return self.fail(Kind::Syntax, hint::ANNOTATION);
            };
            let annotation = &rest[..len];
            // Only the first annotation may be a time zone.
            let zone = first && is_zone(annotation);
            if !zone && !is_key_and_values(annotation) {
                return self.fail(Kind::Syntax, hint::ANNOTATION);
            }
            self.at += len + 1;
            first = false;
        }
        Ok(())
    }

    /// Makes the instant that the fields name.
    fn resolve(&self, date: Date, time: TimeOfDay, offset: UtcOffset) -> Result<Timestamp, Fault> {
        if let (SubMicros::Reject, Some(at)) = (self.rules.sub_micros, time.finer_at) {
            return Err(fault(Kind::SubMicros, at, "write at most six digits"));
        }
        let leap = time.second == 60;
        // A leap second stays on its day, so that the order of instants is kept.
        let (second, micros) = if leap {
            (59, 999_999)
        } else {
            (time.second, time.micros)
        };
        let time = TimeOfDay { second, ..time };
        let local = date.unix_day() * DAY_MICROS + time.micros_of_day() + i64::from(micros);
        let instant = Self::instant(local, offset)?;
        if leap && !ends_a_month(instant) {
            let hint = "use a second up to 59: 60 is only at 23:59 UTC on the last day of a month";
            return Err(fault(Kind::LeapSecond, at::SECOND, hint));
        }
        Ok(instant)
    }

    fn instant(local_micros: i64, offset: UtcOffset) -> Result<Timestamp, Fault> {
        let micros = local_micros - offset.micros();
        let hint = "stay within 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z";
        Timestamp::from_unix_micros(micros).map_err(|_| fault(Kind::OutOfRange, at::YEAR, hint))
    }

    /// Fails unless the profile reads forms beyond the strict one.
    fn interop_only(&self, hint: &'static str) -> Result<(), Fault> {
        match self.rules.profile {
            Profile::Interop => Ok(()),
            Profile::Strict => self.fail(Kind::InteropForm, hint),
        }
    }

    fn two_digits(&mut self, hint: &'static str) -> Result<u32, Fault> {
        let tens = self.digit(hint)?;
        Ok(tens * 10 + self.digit(hint)?)
    }

    fn digit(&mut self, hint: &'static str) -> Result<u32, Fault> {
        match self.next() {
            Some(digit @ b'0'..=b'9') => {
                self.at += 1;
                Ok(u32::from(digit - b'0'))
            }
            _ => self.fail(Kind::Syntax, hint),
        }
    }

    fn exactly(&mut self, byte: u8, hint: &'static str) -> Result<(), Fault> {
        if self.next() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            self.fail(Kind::Syntax, hint)
        }
    }

    fn next(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    const fn ended(&self) -> bool {
        self.at == self.input.len()
    }

    fn fail<T>(&self, kind: Kind, hint: &'static str) -> Result<T, Fault> {
        Err(fault(kind, self.at, hint))
    }
}

impl TimeOfDay {
    /// Returns the whole seconds of the day, in microseconds.
    const fn micros_of_day(self) -> i64 {
        let seconds = self.hour * 3600 + self.minute * 60 + self.second;
        seconds as i64 * SECOND_MICROS
    }

    fn check(&self) -> Result<(), Fault> {
        let wrong = |at, hint| Err(fault(Kind::NoSuchField, at, hint));
        if self.hour == 24 && (self.minute, self.second, self.micros) == (0, 0, 0) {
            let hint = "write 00:00:00 of the next day";
            Err(fault(Kind::EndOfDay, at::HOUR, hint))
        } else if self.hour > 23 {
            wrong(at::HOUR, "use an hour from 00 to 23")
        } else if self.minute > 59 {
            wrong(at::MINUTE, "use a minute from 00 to 59")
        } else if self.second > 60 {
            wrong(at::SECOND, "use a second from 00 to 59")
        } else {
            Ok(())
        }
    }
}

#[cold]
const fn fault(kind: Kind, offset: usize, hint: &'static str) -> Fault {
    Fault { kind, offset, hint }
}

/// Whether an instant is in the last second of a month, in UTC.
fn ends_a_month(instant: Timestamp) -> bool {
    let second = instant.as_unix_seconds();
    let next_day = (second + 1).div_euclid(DAY_SECONDS);
    let day = second.div_euclid(DAY_SECONDS);
    next_day > day && Date::from_unix_day(day).ends_month()
}

/// Whether the text is a number that may count units since some epoch.
fn is_number(input: &[u8]) -> bool {
    let unsigned = input
        .strip_prefix(b"-")
        .or_else(|| input.strip_prefix(b"+"))
        .unwrap_or(input);
    let mut parts = unsigned.splitn(2, |&byte| byte == b'.');
    parts.all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
}

/// Whether the text is `key=value`, its values parted by hyphens, as in `u-ca=islamic-civil`.
fn is_key_and_values(text: &[u8]) -> bool {
    let Some(equals) = text.iter().position(|&byte| byte == b'=') else {
        return false;
    };
    let (key, values) = (&text[..equals], &text[equals + 1..]);
    let initial = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
    let inner = |byte: &u8| initial(byte) || byte.is_ascii_digit() || *byte == b'-';
    let mut values = values.split(|&byte| byte == b'-');
    key.first().is_some_and(initial)
        && key.iter().all(inner)
        && values.all(|value| !value.is_empty() && value.iter().all(u8::is_ascii_alphanumeric))
}

/// Whether the text has the form of a time zone's name or of an offset.
fn is_zone(text: &[u8]) -> bool {
    if let [b'+' | b'-', offset @ ..] = text {
        return matches!(
            offset,
            [b'0'..=b'1', b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9']
                | [b'2', b'0'..=b'3', b':', b'0'..=b'5', b'0'..=b'9']
        );
    }
    let initial = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'.' | b'_');
    let inner = |byte: &u8| initial(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'+');
    text.split(|&byte| byte == b'/').all(|part| {
        part.first().is_some_and(initial) && part.iter().all(inner) && !matches!(part, b"." | b"..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads with the scanner alone, which is the reference for every way around it.
    fn scanned(text: &[u8]) -> Result<Timestamp, Fault> {
        Scanner::new(text, &Normalizer::strict()).timestamp()
    }

    #[test]
    fn every_way_reads_a_text_with_any_one_byte_changed_as_the_scanner_does() {
        let rules = Normalizer::strict();
        let mut valid = 0;
        for model in [
            "2024-02-29T23:59:59.123456Z",
            "2024-02-29T23:59:59Z",
            "2016-12-31T23:59:59.1234567+00:00",
            "0001-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59-00:01",
        ] {
            for at in 0..model.len() {
                for byte in 0..=u8::MAX {
                    let mut text = model.as_bytes().to_owned();
                    text[at] = byte;
                    let read = scan(&text, &rules);
                    assert_eq!(read, scanned(&text), "{}", text.escape_ascii());
                    valid += u32::from(read.is_ok());
                }
            }
        }
        assert!(valid > 500, "{valid}");
    }

    #[test]
    fn canonical_texts_of_all_times_take_the_short_way_and_are_read_as_the_scanner_does() {
        let step = 1_000_003 * 86_399_999;
        let mut micros = Timestamp::MIN.as_unix_micros();
        while micros <= Timestamp::MAX.as_unix_micros() {
            let timestamp = Timestamp::from_proven_micros(micros);
            let text = timestamp.to_text();
            let (head, tail) = text.as_bytes().split_first_chunk().unwrap();
            assert!(
                common_head(head).is_some() && common_tail(tail).is_some(),
                "{text}"
            );
            assert_eq!(scan(text.as_bytes(), &Normalizer::strict()), Ok(timestamp));
            assert_eq!(scanned(text.as_bytes()), Ok(timestamp));
            micros += step;
        }
    }
}
