//! A distance from UTC that the policies of this crate can name.

use std::fmt;

use crate::{calendar::SECOND_MICROS, error::ConvertError};

/// A distance from UTC in whole minutes, at most 23:59 either way.
///
/// Positive is east: `+02:00` is two hours ahead of UTC.
///
/// # Examples
///
/// ```
/// use runtree_time::UtcOffset;
///
/// assert_eq!(UtcOffset::from_minutes(-570)?.to_string(), "-09:30");
/// assert!(UtcOffset::from_minutes(24 * 60).is_err());
/// # Ok::<(), runtree_time::ConvertError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcOffset(i16);

impl UtcOffset {
    /// No distance.
    pub const UTC: Self = Self(0);

    /// Makes an offset of minutes east of UTC.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) beyond 23:59 either way.
    pub const fn from_minutes(minutes: i16) -> Result<Self, ConvertError> {
        if minutes.unsigned_abs() < 24 * 60 {
            Ok(Self(minutes))
        } else {
            Err(ConvertError::offset_out_of_range(
                minutes as i128,
                "minutes",
            ))
        }
    }

    /// Makes an offset of hours east of UTC.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) beyond 23 either way.
    pub const fn from_hours(hours: i8) -> Result<Self, ConvertError> {
        if hours.unsigned_abs() < 24 {
            Ok(Self(hours as i16 * 60))
        } else {
            Err(ConvertError::offset_out_of_range(hours as i128, "hours"))
        }
    }

    /// Returns the minutes east of UTC.
    #[must_use]
    pub const fn minutes(self) -> i16 {
        self.0
    }

    /// Makes an offset of fields that were checked: hours up to 23, minutes up to 59.
    pub(crate) fn from_fields(east: bool, hours: u32, minutes: u32) -> Self {
        let minutes = i16::try_from(hours * 60 + minutes)
            .expect("because a day has fewer minutes than the type holds");
        Self(if east { minutes } else { -minutes })
    }

    pub(crate) const fn micros(self) -> i64 {
        self.0 as i64 * 60 * SECOND_MICROS
    }
}

impl TryFrom<time::UtcOffset> for UtcOffset {
    type Error = ConvertError;

    /// Takes an offset of whole minutes over.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ConvertErrorKind::OutOfRange) for seconds in the
    /// offset, and beyond 23:59 either way.
    fn try_from(offset: time::UtcOffset) -> Result<Self, ConvertError> {
        let (hours, minutes, seconds) = offset.as_hms();
        let whole = i16::from(hours) * 60 + i16::from(minutes);
        if seconds == 0 && whole.unsigned_abs() < 24 * 60 {
            Ok(Self(whole))
        } else {
            let seconds = i128::from(offset.whole_seconds());
            Err(ConvertError::offset_out_of_range(seconds, "seconds"))
        }
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl fmt::Debug for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
