//! The rules under which foreign values become instants, stated by the caller.

use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

use crate::{
    error::{ConvertError, ConvertErrorKind, ParseError},
    offset::UtcOffset,
    scan,
    timestamp::Timestamp,
};

/// Which forms of text are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// `YYYY-MM-DD`, then `T`, `t` or one space, `HH:MM:SS`, optionally `.` and
    /// digits, then `Z`, `z` or `±HH:MM`; at most 64 bytes and nothing around it.
    #[default]
    Strict,
    /// All of the strict profile, and: a comma before the fraction; offsets
    /// `±HHMM` and `±HH`; no seconds; no offset, and a date alone, both under
    /// the [`NaivePolicy`]; RFC 9557 annotations after an offset, skipped; at
    /// most 128 bytes, because of those.
    Interop,
}

/// What a value without an offset means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NaivePolicy {
    /// Nothing: it is an error.
    #[default]
    Reject,
    /// The time of day in UTC.
    AssumeUtc,
    /// The time of day at this offset.
    AssumeOffset(UtcOffset),
}

/// What becomes of whatever is finer than a microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubMicros {
    /// It is cut off, toward the past, also before 1970.
    #[default]
    Floor,
    /// It is an error, unless it is zero.
    Reject,
}

/// The rules under which texts and foreign values become [`Timestamp`]s.
///
/// A naive value is never read in the zone of the process, the session or the
/// machine: either the policy says what it means, or it is an error. Under
/// [`Profile::Strict`] a naive *text* is an error whatever the policy; the
/// policy then only serves typed values.
///
/// # Examples
///
/// ```
/// use runtree_time::{NaivePolicy, Normalizer, ParseErrorKind, UtcOffset};
///
/// let berlin_summer = NaivePolicy::AssumeOffset(UtcOffset::from_hours(2)?);
/// let legacy = Normalizer::interop().naive(berlin_summer);
/// assert_eq!(legacy.parse("2025-06-22 12:00")?.to_string(), "2025-06-22T10:00:00.000000Z");
///
/// let error = Normalizer::interop().parse("2025-06-22 12:00").unwrap_err();
/// assert_eq!(error.kind(), ParseErrorKind::Naive);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Normalizer {
    pub(crate) profile: Profile,
    pub(crate) naive: NaivePolicy,
    pub(crate) sub_micros: SubMicros,
}

impl Normalizer {
    /// Makes the rules that everything uses unless told otherwise.
    #[must_use]
    pub const fn strict() -> Self {
        Self::new(Profile::Strict)
    }

    /// Makes tolerant rules, for input whose sender cannot be fixed.
    #[must_use]
    pub const fn interop() -> Self {
        Self::new(Profile::Interop)
    }

    /// Makes rules of a profile that reject naive values and floor fractions.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self {
            profile,
            naive: NaivePolicy::Reject,
            sub_micros: SubMicros::Floor,
        }
    }

    /// Says what values without an offset mean.
    #[must_use]
    pub const fn naive(mut self, policy: NaivePolicy) -> Self {
        self.naive = policy;
        self
    }

    /// Says what becomes of whatever is finer than a microsecond.
    #[must_use]
    pub const fn sub_micros(mut self, policy: SubMicros) -> Self {
        self.sub_micros = policy;
        self
    }

    /// Reads a text.
    ///
    /// A leap second (second 60 at 23:59 UTC on the last day of a month) becomes
    /// the last microsecond of its day, so the order of instants stays that of
    /// their texts. `-00:00` is UTC; that it declares the local offset unknown is lost.
    ///
    /// # Errors
    ///
    /// Every text that the profile and the policies do not allow; see
    /// [`ParseErrorKind`](crate::ParseErrorKind).
    #[inline]
    pub fn parse(&self, text: &str) -> Result<Timestamp, ParseError> {
        scan::scan(text.as_bytes(), self).map_err(|fault| ParseError::new(fault, text))
    }

    /// Converts a `time` value that has an offset.
    ///
    /// # Errors
    ///
    /// Instants out of range, and nanoseconds under [`SubMicros::Reject`].
    pub fn offset_date_time(&self, value: OffsetDateTime) -> Result<Timestamp, ConvertError> {
        self.admit_nanos(value.nanosecond(), value.unix_timestamp_nanos())?;
        Timestamp::try_from(value)
    }

    /// Converts a date and time of day under the policy for naive values.
    ///
    /// # Errors
    ///
    /// Every value under [`NaivePolicy::Reject`], instants out of range, and
    /// nanoseconds under [`SubMicros::Reject`].
    pub fn primitive_date_time(&self, value: PrimitiveDateTime) -> Result<Timestamp, ConvertError> {
        let offset = match self.naive {
            NaivePolicy::Reject => {
                return Err(ConvertError::naive(ConvertErrorKind::Naive, value));
            }
            NaivePolicy::AssumeUtc => UtcOffset::UTC,
            NaivePolicy::AssumeOffset(offset) => offset,
        };
        let as_if_utc = value.assume_utc();
        self.admit_nanos(value.nanosecond(), as_if_utc.unix_timestamp_nanos())?;
        let micros = as_if_utc.unix_timestamp_nanos().div_euclid(1_000);
        Timestamp::from_wide_micros(micros - i128::from(offset.micros()))
            .ok_or(ConvertError::naive(ConvertErrorKind::OutOfRange, value))
    }

    /// Converts a date to its midnight under the policy for naive values.
    ///
    /// # Errors
    ///
    /// Every date under [`NaivePolicy::Reject`], and midnights out of range.
    pub fn date(&self, value: Date) -> Result<Timestamp, ConvertError> {
        self.primitive_date_time(PrimitiveDateTime::new(value, Time::MIDNIGHT))
    }

    fn admit_nanos(&self, nanosecond: u32, nanos: i128) -> Result<(), ConvertError> {
        match self.sub_micros {
            SubMicros::Reject if !nanosecond.is_multiple_of(1_000) => {
                Err(ConvertError::sub_micros(nanos))
            }
            SubMicros::Reject | SubMicros::Floor => Ok(()),
        }
    }
}
