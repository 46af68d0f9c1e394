//! Conversions to and from the types of `time` and of the standard library.

use std::time::SystemTime;

use time::OffsetDateTime;

use crate::{calendar::SECOND_MICROS, error::ConvertError, timestamp::Timestamp};

impl TryFrom<OffsetDateTime> for Timestamp {
    type Error = ConvertError;

    /// Takes the instant over, floored to the microsecond.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999 in UTC.
    fn try_from(value: OffsetDateTime) -> Result<Self, ConvertError> {
        // By number, not by moving the value to UTC: that panics at the edges of its range.
        let seconds = value.unix_timestamp();
        let micros = i128::from(seconds) * i128::from(SECOND_MICROS);
        Self::from_wide_micros(micros + i128::from(value.microsecond()))
            .ok_or(ConvertError::out_of_range(i128::from(seconds), "seconds"))
    }
}

impl From<Timestamp> for OffsetDateTime {
    /// Takes the instant over, in UTC.
    fn from(value: Timestamp) -> Self {
        Self::from_unix_timestamp_nanos(value.as_unix_nanos())
            .expect("because both types hold the years 1 to 9999")
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = ConvertError;

    /// Takes the instant over, floored to the microsecond.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999.
    fn try_from(value: SystemTime) -> Result<Self, ConvertError> {
        let (instant, seconds) = match value.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => (
                Self::UNIX_EPOCH.checked_add(after),
                i128::from(after.as_secs()),
            ),
            Err(error) => {
                let before = error.duration();
                (
                    Self::UNIX_EPOCH.checked_sub(before),
                    -i128::from(before.as_secs()),
                )
            }
        };
        instant.ok_or(ConvertError::out_of_range(seconds, "seconds"))
    }
}

impl TryFrom<Timestamp> for SystemTime {
    type Error = ConvertError;

    /// Takes the instant over.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) where the platform's
    /// type does not reach as far; on Windows it begins in 1601.
    fn try_from(value: Timestamp) -> Result<Self, ConvertError> {
        let converted = match value.duration_since(Timestamp::UNIX_EPOCH) {
            Some(after) => Self::UNIX_EPOCH.checked_add(after),
            None => {
                let before = Timestamp::UNIX_EPOCH.saturating_duration_since(value);
                Self::UNIX_EPOCH.checked_sub(before)
            }
        };
        converted.ok_or(ConvertError::foreign("SystemTime", value.as_unix_micros()))
    }
}
