//! One form for every instant: UTC, microseconds, text that sorts as it compares.
//!
//! ```
//! use runtree_time::{Clock, ManualClock, TimeRange, Timestamp};
//!
//! // Whatever zone an instant comes in with, it is one value and one text.
//! let here: Timestamp = "2025-06-22T12:00:00+02:00".parse()?;
//! let there: Timestamp = "2025-06-22T10:00:00.000000Z".parse()?;
//! assert_eq!(here, there);
//! assert_eq!(here.to_text().as_str(), "2025-06-22T10:00:00.000000Z");
//!
//! // Filters are half-open; an end that is only a date includes that day.
//! let range = TimeRange::parse("2025-06-22T00:00:00Z", "2025-06-22")?;
//! assert!(range.contains(here));
//!
//! // The present comes from a value that is passed in.
//! let clock = ManualClock::new(here);
//! assert_eq!(clock.now(), there);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Main types
//!
//! - [`Timestamp`]: an instant. [`TimestampText`] is its canonical text, on the stack.
//! - [`Normalizer`]: the rules under which other forms become a `Timestamp`: a
//!   [`Profile`] of texts, a [`NaivePolicy`] for values without an offset
//!   (with a [`UtcOffset`]), and [`SubMicros`] for what is finer than a
//!   microsecond. `str::parse` and serde use [`Normalizer::strict`].
//! - [`TimeRange`]: a half-open range of instants.
//! - [`Clock`]: where the present comes from; [`SystemClock`] in production,
//!   [`ManualClock`] in tests.
//!
//! # Why a timestamp without an offset is refused
//!
//! `2025-06-22 12:00:00` names no instant: it names one in every zone. Whoever reads it must add a
//! zone, and adds the one at hand: the process's, the database session's, the machine's. Two readers
//! then disagree by hours, with no error anywhere, and it shows first where they meet: runs that are
//! due in the past, durations below zero, a filter that finds the wrong day.
//!
//! ```
//! use runtree_time::{NaivePolicy, Normalizer, ParseErrorKind, Timestamp, UtcOffset};
//!
//! let naive = "2025-06-22 12:00:00";
//!
//! // One text, read by a worker in New York (four hours behind UTC in summer) and one in London
//! // (an hour ahead): two instants, five hours apart.
//! let read_in = |offset| Normalizer::interop().naive(NaivePolicy::AssumeOffset(offset)).parse(naive);
//! let new_york = read_in(UtcOffset::from_hours(-4)?)?;
//! let london = read_in(UtcOffset::from_hours(1)?)?;
//! let apart = new_york.duration_since(london).expect("New York's noon is the later one");
//! assert_eq!(apart.as_secs(), 5 * 60 * 60);
//!
//! // So nothing here guesses. By default the text is an error, which says where and what to write.
//! let error = naive.parse::<Timestamp>().unwrap_err();
//! assert_eq!(error.kind(), ParseErrorKind::Naive);
//! assert_eq!(
//!     error.to_string(),
//!     "missing offset at byte 19 of \"2025-06-22 12:00:00\" (end with Z or an offset such as +02:00)",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What to do instead, the best first:
//!
//! 1. Have the sender write the offset: `2025-06-22T12:00:00-04:00`. Everything here always does.
//! 2. Where the sender cannot be changed but its zone is known, say so once, where its texts come in,
//!    as above: [`Normalizer::interop`] with [`NaivePolicy::AssumeUtc`] or [`NaivePolicy::AssumeOffset`].
//! 3. Where the sender's zone has summer time, no one offset is right all year: resolve the zone with a
//!    library that knows its rules, such as `jiff`, and convert the instant.
//!
//! Naive values of [`time`] (`PrimitiveDateTime`, `Date`) take the same way: there is no `From` for them,
//! only [`Normalizer::primitive_date_time`] and [`Normalizer::date`].
//!
//! # Which type for what
//!
//! | you have | you write |
//! |---|---|
//! | the present | [`Clock::now`] of a clock that was passed in |
//! | a text of a service that writes offsets | `text.parse::<Timestamp>()` |
//! | a text of anything else | [`Normalizer::interop`] and [`Normalizer::parse`] |
//! | a number | [`Timestamp::from_unix_seconds`], `_millis`, `_micros` or `_nanos`: its unit is never guessed |
//! | bounds a person typed | [`TimeRange::parse`]: half-open, a date as the end includes that day |
//! | a field in serde | [`Timestamp`]; `#[serde(with = "runtree_time::serde_micros")]` for a number |
//! | a column | [`Timestamp::as_unix_micros`] as an integer, or the 27 bytes of [`Timestamp::to_text`] |
//!
//! # Why microseconds, why floored
//!
//! They are what PostgreSQL keeps. A finer instant that comes back from the store would differ from the
//! one that went in; here it is cut once, on the way in, and always toward the past, before 1970 as well
//! as after. Rounded, the last moment of a year would be in the next one; [`SubMicros::Reject`] is for
//! whoever wants an error instead.
//!
//! # What it does not do
//!
//! Time zones by name, local time, calendars other than the Gregorian,
//! durations as text, formats other than the canonical one, and the
//! measurement of elapsed time, which is a monotonic clock's.
//!
//! # Guarantees
//!
//! - Every [`Timestamp`] is between 0001-01-01T00:00:00Z and
//!   9999-12-31T23:59:59.999999Z; there is no constructor without the check.
//! - Order of values, order of canonical texts and order of unix microseconds are the same.
//! - Reading a canonical text gives back the value it was made of.
//! - Flooring keeps order: of two instants, the earlier never becomes the later.
//! - No input panics, and neither reading a text, nor refusing one, nor writing one allocates.
//! - An error shows at most 32 bytes of the input, escaped.
//!
//! # Limits
//!
//! - A text has at most 64 bytes, 128 under the interop profile.
//! - Leap seconds are read, not kept: 23:59:60 becomes 23:59:59.999999.
//! - `-00:00` is read as UTC; that it declares the local offset unknown is lost.
//! - Annotations in brackets (RFC 9557) are skipped under the interop profile, never honoured.
//!
//! # Features
//!
//! - `serde` (default): texts under the strict profile, and the modules
//!   `serde_micros` and `serde_interop` for `#[serde(with)]`.
//! - `jiff02`: conversions to and from `jiff` 0.2.
//! - `chrono04`: conversions to and from `chrono` 0.4.
//!
//! # Alternatives
//!
//! `time::OffsetDateTime`, `jiff::Timestamp` and `chrono::DateTime` keep
//! nanoseconds and do far more; take them for arithmetic on calendars and
//! zones, and convert at the edge. What they do not give is one form that a
//! database column, a JSON document and a comparison share.

mod calendar;
#[cfg(feature = "chrono04")]
mod chrono04;
mod clock;
mod convert;
mod error;
#[cfg(feature = "jiff02")]
mod jiff02;
mod normalizer;
mod offset;
mod range;
mod scan;
#[cfg(feature = "serde")]
pub mod serde_interop;
#[cfg(feature = "serde")]
pub mod serde_micros;
#[cfg(feature = "serde")]
mod serde_option;
#[cfg(feature = "serde")]
mod serde_text;
mod text;
mod timestamp;

pub use crate::{
    clock::{Clock, ManualClock, SystemClock},
    error::{ConvertError, ConvertErrorKind, ParseError, ParseErrorKind},
    normalizer::{NaivePolicy, Normalizer, Profile, SubMicros},
    offset::UtcOffset,
    range::{TimeRange, TimeRangeError, TimeRangeErrorKind},
    text::TimestampText,
    timestamp::Timestamp,
};
