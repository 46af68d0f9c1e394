//! The one type every instant becomes when it enters.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    calendar::SECOND_MICROS,
    error::{ConvertError, ParseError},
    normalizer::Normalizer,
    text::TimestampText,
};

/// An instant: whole microseconds since 1970-01-01T00:00:00Z, from year 1 to year 9999.
///
/// Every constructor checks the range, so every value has exactly one canonical
/// text ([`to_text`](Self::to_text)), and values compare as their numbers and as
/// their texts alike. Whatever is finer than a microsecond is floored, toward
/// the past, once, when the value is made.
///
/// # Examples
///
/// ```
/// use runtree_time::Timestamp;
///
/// let started: Timestamp = "2025-06-22T12:00:00+02:00".parse()?;
/// assert_eq!(started.to_string(), "2025-06-22T10:00:00.000000Z");
/// assert_eq!(started.as_unix_micros(), 1_750_586_400_000_000);
/// assert_eq!(Timestamp::from_unix_nanos(-1)?.as_unix_micros(), -1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first instant, 0001-01-01T00:00:00.000000Z.
    pub const MIN: Self = Self(-62_135_596_800_000_000);

    /// The last instant, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// 1970-01-01T00:00:00.000000Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// Makes an instant of whole seconds since 1970 UTC.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999.
    pub const fn from_unix_seconds(seconds: i64) -> Result<Self, ConvertError> {
        match seconds.checked_mul(SECOND_MICROS) {
            Some(micros) if Self::holds(micros) => Ok(Self(micros)),
            _ => Err(ConvertError::out_of_range(seconds as i128, "seconds")),
        }
    }

    /// Makes an instant of whole milliseconds since 1970 UTC.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999.
    pub const fn from_unix_millis(millis: i64) -> Result<Self, ConvertError> {
        match millis.checked_mul(1_000) {
            Some(micros) if Self::holds(micros) => Ok(Self(micros)),
            _ => Err(ConvertError::out_of_range(millis as i128, "milliseconds")),
        }
    }

    /// Makes an instant of microseconds since 1970 UTC.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999.
    pub const fn from_unix_micros(micros: i64) -> Result<Self, ConvertError> {
        if Self::holds(micros) {
            Ok(Self(micros))
        } else {
            Err(ConvertError::out_of_range(micros as i128, "microseconds"))
        }
    }

    /// Makes an instant of nanoseconds since 1970 UTC, floored to the microsecond.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999.
    pub const fn from_unix_nanos(nanos: i128) -> Result<Self, ConvertError> {
        match Self::from_wide_micros(nanos.div_euclid(1_000)) {
            Some(timestamp) => Ok(timestamp),
            None => Err(ConvertError::out_of_range(nanos, "nanoseconds")),
        }
    }

    /// Returns the seconds since 1970 UTC, floored.
    #[must_use]
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(SECOND_MICROS)
    }

    /// Returns the milliseconds since 1970 UTC, floored.
    #[must_use]
    pub const fn as_unix_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns the microseconds since 1970 UTC: the whole value.
    #[must_use]
    pub const fn as_unix_micros(self) -> i64 {
        self.0
    }

    /// Returns the nanoseconds since 1970 UTC, always a multiple of a thousand.
    #[must_use]
    pub const fn as_unix_nanos(self) -> i128 {
        self.0 as i128 * 1_000
    }

    /// Returns the microseconds past the whole second, 0 to 999,999.
    #[must_use]
    pub const fn subsec_micros(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "below a million")]
        {
            self.0.rem_euclid(SECOND_MICROS) as u32
        }
    }

    /// Renders the canonical 27 bytes `YYYY-MM-DDTHH:MM:SS.ffffffZ` without allocating.
    #[inline]
    #[must_use]
    pub fn to_text(self) -> TimestampText {
        TimestampText::render(self)
    }

    /// Adds a duration and floors the sum; `None` past [`MAX`](Self::MAX).
    #[must_use]
    pub const fn checked_add(self, duration: Duration) -> Option<Self> {
        Self::from_wide_micros(self.0 as i128 + duration.as_micros().cast_signed())
    }

    /// Subtracts a duration and floors the difference; `None` before [`MIN`](Self::MIN).
    ///
    /// The floor is toward the past: taking away one nanosecond takes away a microsecond.
    #[must_use]
    pub const fn checked_sub(self, duration: Duration) -> Option<Self> {
        Self::from_wide_micros(self.0 as i128 - ceil_micros(duration))
    }

    /// Adds a duration and floors the sum, stopping at [`MAX`](Self::MAX).
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        match self.checked_add(duration) {
            Some(sum) => sum,
            None => Self::MAX,
        }
    }

    /// Subtracts a duration and floors the difference, stopping at [`MIN`](Self::MIN).
    #[must_use]
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        match self.checked_sub(duration) {
            Some(difference) => difference,
            None => Self::MIN,
        }
    }

    /// Returns the time from `earlier` to this instant; `None` when `earlier` is later.
    ///
    /// Instants come from a clock that can be set, so this is no measurement of
    /// elapsed time: take that from a monotonic clock.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Option<Duration> {
        if self.0 >= earlier.0 {
            Some(Duration::from_micros(self.0.abs_diff(earlier.0)))
        } else {
            None
        }
    }

    /// Returns the time from `earlier` to this instant; zero when `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        match self.duration_since(earlier) {
            Some(duration) => duration,
            None => Duration::ZERO,
        }
    }

    /// Makes an instant of microseconds that the caller has proven to be in range.
    #[inline]
    pub(crate) const fn from_proven_micros(micros: i64) -> Self {
        debug_assert!(Self::holds(micros));
        Self(micros)
    }

    /// Makes an instant of microseconds, or `None` out of range.
    #[inline]
    pub(crate) const fn from_wide_micros(micros: i128) -> Option<Self> {
        if micros >= Self::MIN.0 as i128 && micros <= Self::MAX.0 as i128 {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "between two values of the narrower type"
            )]
            Some(Self(micros as i64))
        } else {
            None
        }
    }

    const fn holds(micros: i64) -> bool {
        micros >= Self::MIN.0 && micros <= Self::MAX.0
    }
}

impl fmt::Display for Timestamp {
    /// Writes the canonical 27 bytes; width and alignment are honoured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_text())
    }
}

impl fmt::Debug for Timestamp {
    /// Writes the canonical text, which says more than the number would.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl FromStr for Timestamp {
    type Err = ParseError;

    /// Reads a timestamp under the strict profile.
    ///
    /// # Errors
    ///
    /// Every text that is not a date, a time of day and an offset; see
    /// [`ParseErrorKind`](crate::ParseErrorKind).
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Normalizer::strict().parse(text)
    }
}

/// Returns the microseconds of a duration, rounded up.
const fn ceil_micros(duration: Duration) -> i128 {
    duration.as_nanos().div_ceil(1_000).cast_signed()
}
