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
//! - No input panics, and reading allocates nothing.
//! - An error shows at most 32 bytes of the input, escaped.
//!
//! # Limits
//!
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
