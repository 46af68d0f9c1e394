//! Conversions to and from `jiff` 0.2.

use jiff02 as jiff;

use crate::{error::ConvertError, timestamp::Timestamp};

impl TryFrom<jiff::Timestamp> for Timestamp {
    type Error = ConvertError;

    /// Takes the instant over, floored to the microsecond.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) before year 1, which `jiff` reaches.
    fn try_from(value: jiff::Timestamp) -> Result<Self, ConvertError> {
        Self::from_unix_nanos(value.as_nanosecond())
    }
}

impl TryFrom<Timestamp> for jiff::Timestamp {
    type Error = ConvertError;

    /// Takes the instant over.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) in the last 26 hours
    /// of year 9999, which `jiff` does not reach.
    fn try_from(value: Timestamp) -> Result<Self, ConvertError> {
        let micros = value.as_unix_micros();
        Self::from_microsecond(micros).map_err(|_| ConvertError::foreign("jiff::Timestamp", micros))
    }
}
