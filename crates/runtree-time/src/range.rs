//! Half-open ranges of instants, for every filter that asks "when".

use std::{error::Error, fmt};

use time::{Date, PrimitiveDateTime, Time};

use crate::{
    calendar::DAY_MICROS,
    error::{ConvertError, ParseError},
    normalizer::Normalizer,
    offset::UtcOffset,
    scan::{self, Bound},
    timestamp::Timestamp,
};

/// A half-open range of instants: its start is in it, its end is not.
///
/// A bound that is absent does not bound. A range whose bounds are equal is
/// empty; there is no range whose end is before its start. Ranges are equal when
/// their bounds are, so two different empty ones are not.
///
/// # Examples
///
/// ```
/// use runtree_time::TimeRange;
///
/// // An end that is only a date includes that day.
/// let range = TimeRange::parse("2025-06-22T00:00:00Z", "2025-06-23")?;
/// assert!(range.contains("2025-06-23T23:59:59.999999Z".parse()?));
/// assert!(!range.contains("2025-06-24T00:00:00Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimeRange {
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl TimeRange {
    /// Makes the range of every instant.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            start: None,
            end: None,
        }
    }

    /// Makes the range of `start` and everything after it.
    #[must_use]
    pub const fn since(start: Timestamp) -> Self {
        Self {
            start: Some(start),
            end: None,
        }
    }

    /// Makes the range of everything before `end`, without `end`.
    #[must_use]
    pub const fn before(end: Timestamp) -> Self {
        Self {
            start: None,
            end: Some(end),
        }
    }

    /// Makes the range of everything up to `last`, and `last` with it.
    #[must_use]
    pub const fn through(last: Timestamp) -> Self {
        Self {
            start: None,
            end: Timestamp::from_wide_micros(last.as_unix_micros() as i128 + 1),
        }
    }

    /// Makes the range from `start` up to, and without, `end`.
    ///
    /// # Errors
    ///
    /// [`Inverted`](TimeRangeErrorKind::Inverted) when `end` is before `start`.
    pub fn between(start: Timestamp, end: Timestamp) -> Result<Self, TimeRangeError> {
        if start <= end {
            Ok(Self {
                start: Some(start),
                end: Some(end),
            })
        } else {
            Err(TimeRangeError(Problem::Inverted { start, end }))
        }
    }

    /// Makes the range of one calendar day at an offset.
    ///
    /// A midnight beyond the range of [`Timestamp`] does not bound.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](TimeRangeErrorKind::OutOfRange) for a date outside the years 1 to 9999.
    pub fn on_day(date: Date, offset: UtcOffset) -> Result<Self, TimeRangeError> {
        let as_if_utc = PrimitiveDateTime::new(date, Time::MIDNIGHT).assume_utc();
        let Ok(as_if_utc) = Timestamp::try_from(as_if_utc) else {
            let seconds = i128::from(as_if_utc.unix_timestamp());
            let error = ConvertError::out_of_range(seconds, "seconds");
            return Err(TimeRangeError(Problem::OutOfRange(error)));
        };
        let midnight = i128::from(as_if_utc.as_unix_micros() - offset.micros());
        Ok(Self {
            start: Timestamp::from_wide_micros(midnight),
            end: Timestamp::from_wide_micros(midnight + i128::from(DAY_MICROS)),
        })
    }

    /// Reads a range of two texts, each a strict timestamp or a date in UTC.
    ///
    /// A start that is only a date is its midnight; an end that is only a date
    /// includes that day. For other offsets write the timestamps out, or use
    /// [`on_day`](Self::on_day).
    ///
    /// # Errors
    ///
    /// Texts that are neither, and an end before the start; a day that ends
    /// where the range would start is before it.
    pub fn parse(start: &str, end: &str) -> Result<Self, TimeRangeError> {
        Self::parse_bounds(Some(start), Some(end))
    }

    /// Reads a range as [`parse`](Self::parse) does; an absent text does not bound.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse).
    pub fn parse_bounds(start: Option<&str>, end: Option<&str>) -> Result<Self, TimeRangeError> {
        let start = match start.map(read_bound).transpose() {
            Ok(start) => start.map(Bound::first_instant),
            Err(error) => return Err(TimeRangeError(Problem::Start(error))),
        };
        match end.map(read_bound).transpose() {
            Ok(None) => Ok(Self { start, end: None }),
            Ok(Some(Bound::Instant(end))) => match start {
                Some(start) => Self::between(start, end),
                None => Ok(Self::before(end)),
            },
            Ok(Some(Bound::Midnight(midnight))) => Self::through_day(start, midnight),
            Err(error) => Err(TimeRangeError(Problem::End(error))),
        }
    }

    /// Returns the first instant of the range; `None` if it reaches back without bound.
    #[must_use]
    pub const fn start(&self) -> Option<Timestamp> {
        self.start
    }

    /// Returns the first instant after the range; `None` if it goes on without bound.
    #[must_use]
    pub const fn end(&self) -> Option<Timestamp> {
        self.end
    }

    /// Whether an instant is in the range.
    #[must_use]
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= instant) && self.end.is_none_or(|end| instant < end)
    }

    /// Whether no instant is in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end
            .is_some_and(|end| end <= self.start.unwrap_or(Timestamp::MIN))
    }

    /// Returns the range of the instants that are in both; empty if there are none.
    ///
    /// This is how a range with a closed end is made:
    /// `TimeRange::since(first).intersect(TimeRange::through(last))`.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        let end = match (self.end, other.end) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
        // Disjoint ranges meet nowhere: equal bounds say so.
        Self {
            start,
            end: end.map(|end| start.map_or(end, |start| end.max(start))),
        }
    }

    /// Makes the range from a start up to the end of the day that begins at `midnight`.
    fn through_day(start: Option<Timestamp>, midnight: Timestamp) -> Result<Self, TimeRangeError> {
        let next = i128::from(midnight.as_unix_micros() + DAY_MICROS);
        let end = Timestamp::from_wide_micros(next);
        match (start, end) {
            // The day was named to be in the range, so equal bounds are inverted here.
            (Some(start), Some(end)) if end <= start => {
                Err(TimeRangeError(Problem::Inverted { start, end }))
            }
            (start, end) => Ok(Self { start, end }),
        }
    }
}

impl fmt::Display for TimeRange {
    /// Writes `start..end`, leaving out the bound that is absent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(start) = self.start {
            write!(f, "{start}")?;
        }
        f.write_str("..")?;
        if let Some(end) = self.end {
            write!(f, "{end}")?;
        }
        Ok(())
    }
}

/// Why two bounds make no range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeRangeError(Problem);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Start(ParseError),
    End(ParseError),
    Inverted { start: Timestamp, end: Timestamp },
    OutOfRange(ConvertError),
}

impl TimeRangeError {
    /// Returns what is wrong.
    #[must_use]
    pub const fn kind(&self) -> TimeRangeErrorKind {
        match self.0 {
            Problem::Start(_) => TimeRangeErrorKind::Start,
            Problem::End(_) => TimeRangeErrorKind::End,
            Problem::Inverted { .. } => TimeRangeErrorKind::Inverted,
            Problem::OutOfRange(_) => TimeRangeErrorKind::OutOfRange,
        }
    }
}

impl fmt::Display for TimeRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Problem::Start(_) => f.write_str("invalid start of a time range"),
            Problem::End(_) => f.write_str("invalid end of a time range"),
            Problem::Inverted { start, end } => {
                write!(f, "time range ends at {end}, not after its start {start}")
            }
            Problem::OutOfRange(_) => f.write_str("invalid day of a time range"),
        }
    }
}

impl Error for TimeRangeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Problem::Start(error) | Problem::End(error) => Some(error),
            Problem::OutOfRange(error) => Some(error),
            Problem::Inverted { .. } => None,
        }
    }
}

/// What is wrong with the bounds of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeRangeErrorKind {
    /// The text of the start is no timestamp and no date. Fix it as the source, a [`ParseError`], says.
    Start,
    /// The text of the end is no timestamp and no date. Fix it as the source, a [`ParseError`], says.
    End,
    /// The end is before the start. Ask whoever gave them whether they are swapped; never swap them silently.
    Inverted,
    /// The day is outside the years 1 to 9999. Leave the bound out instead.
    OutOfRange,
}

fn read_bound(text: &str) -> Result<Bound, ParseError> {
    scan::scan_bound(text.as_bytes(), &Normalizer::strict())
        .map_err(|fault| ParseError::new(fault, text))
}
