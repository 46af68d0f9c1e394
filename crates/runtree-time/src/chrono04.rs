//! Conversions to and from `chrono` 0.4.

use chrono04::{DateTime, TimeZone, Utc};

use crate::{calendar::SECOND_MICROS, error::ConvertError, timestamp::Timestamp};

impl<Z: TimeZone> TryFrom<DateTime<Z>> for Timestamp {
    type Error = ConvertError;

    /// Takes the instant over, floored to the microsecond.
    ///
    /// `chrono` keeps a leap second as a fraction above one; it becomes the last
    /// microsecond of its second, as a leap second in a text does.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) outside the years 1 to 9999 in UTC.
    fn try_from(value: DateTime<Z>) -> Result<Self, ConvertError> {
        let seconds = i128::from(value.timestamp());
        let micros = i128::from(value.timestamp_subsec_micros().min(999_999));
        Self::from_wide_micros(seconds * i128::from(SECOND_MICROS) + micros)
            .ok_or(ConvertError::out_of_range(seconds, "seconds"))
    }
}

impl From<Timestamp> for DateTime<Utc> {
    /// Takes the instant over, in UTC.
    fn from(value: Timestamp) -> Self {
        Self::from_timestamp_micros(value.as_unix_micros())
            .expect("because chrono reaches beyond the years 1 to 9999")
    }
}
