//! Day numbers and calendar dates, converted both ways without branches on the year.
//!
//! The arithmetic is that of Neri and Schneider, "Euclidean affine functions
//! and their application to calendar algorithms" (2022): a year that begins in
//! March puts the leap day last, so every step is a multiplication and a shift.

/// Days from 0000-03-01 to 0001-01-01, the first day that has a number here.
const MARCH_TO_JANUARY: u32 = 306;

/// Days from 0001-01-01 to 1970-01-01.
pub(crate) const EPOCH_DAY: i64 = 719_162;

/// Seconds of a day; there are no leap seconds on this time line.
pub(crate) const DAY_SECONDS: i64 = 86_400;

/// Microseconds of a second.
pub(crate) const SECOND_MICROS: i64 = 1_000_000;

/// Microseconds of a day.
pub(crate) const DAY_MICROS: i64 = DAY_SECONDS * SECOND_MICROS;

/// A date of the proleptic Gregorian calendar, years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: u32,
    pub(crate) month: u32,
    pub(crate) day: u32,
}

impl Date {
    /// Whether the month exists and has this day.
    #[inline]
    pub(crate) const fn exists(self) -> bool {
        self.year >= 1
            && self.year <= 9999
            && self.month >= 1
            && self.month <= 12
            && self.day >= 1
            && (self.day <= 28 || self.day <= month_length(self.year, self.month))
    }

    /// Returns the days since 1970-01-01 of a date that exists.
    #[inline]
    pub(crate) const fn unix_day(self) -> i64 {
        let before_march = self.month <= 2;
        let year = self.year - before_march as u32;
        let month = if before_march {
            self.month + 12
        } else {
            self.month
        };
        let century = year / 100;
        let year_start = 1461 * year / 4 - century + century / 4;
        let month_start = (979 * month - 2919) / 32;
        let march_day = year_start + month_start + self.day - 1;
        march_day as i64 - MARCH_TO_JANUARY as i64 - EPOCH_DAY
    }

    /// Returns the date that is `day` days after 0001-01-01; at most 3,652,058.
    #[inline]
    pub(crate) const fn from_common_day(day: u32) -> Self {
        const CENTURIES_4: u32 = 146_097;
        const YEAR_STEP: u64 = 2_939_745;

        let quarter_days = 4 * (day + MARCH_TO_JANUARY) + 3;
        let century = quarter_days / CENTURIES_4;
        let century_quarters = (quarter_days % CENTURIES_4) | 3;
        // The high half is the year of the century, the low half how far into it.
        let product = YEAR_STEP * century_quarters as u64;
        let year_of_century = (product >> 32) as u32;
        let day_of_year = ((product & 0xffff_ffff) / YEAR_STEP / 4) as u32;
        let month_product = 2141 * day_of_year + 197_913;
        let month = month_product >> 16;
        let day = (month_product & 0xffff) / 2141 + 1;
        let january_or_later = day_of_year >= MARCH_TO_JANUARY;
        Self {
            year: 100 * century + year_of_century + january_or_later as u32,
            month: if january_or_later { month - 12 } else { month },
            day,
        }
    }

    /// Returns the date of a day since 1970-01-01 that is in the years 1 to 9999.
    pub(crate) fn from_unix_day(day: i64) -> Self {
        let common_day =
            u32::try_from(day + EPOCH_DAY).expect("because no instant is before 0001-01-01");
        Self::from_common_day(common_day)
    }

    /// Whether this is the last day of its month.
    pub(crate) const fn ends_month(self) -> bool {
        self.day == month_length(self.year, self.month)
    }
}

/// Returns the number of days of a month of 1 to 12.
pub(crate) const fn month_length(year: u32, month: u32) -> u32 {
    if month == 2 {
        28 + is_leap_year(year) as u32
    } else {
        30 + ((month + (month >> 3)) & 1)
    }
}

const fn is_leap_year(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_range_converts_both_ways_as_in_the_time_crate() {
        let mut expected = time::Date::from_calendar_date(1, time::Month::January, 1).unwrap();
        for day in 0..=3_652_058 {
            let date = Date::from_common_day(day);
            assert_eq!(
                (date.year, date.month, date.day),
                (
                    u32::try_from(expected.year()).unwrap(),
                    u32::from(u8::from(expected.month())),
                    u32::from(expected.day())
                ),
                "day {day}"
            );
            assert!(date.exists());
            assert_eq!(date.unix_day(), i64::from(day) - EPOCH_DAY);
            let next = expected.next_day();
            let ends = next.is_none_or(|next| next.month() != expected.month());
            assert_eq!(date.ends_month(), ends, "{expected}");
            if let Some(next) = next {
                expected = next;
            }
        }
        assert_eq!((expected.year(), expected.ordinal()), (9999, 365));
    }

    #[test]
    fn days_that_no_month_has_do_not_exist() {
        for (year, month, day) in [
            (0, 1, 1),
            (10_000, 1, 1),
            (2025, 0, 1),
            (2025, 13, 1),
            (2025, 1, 0),
            (2025, 1, 32),
            (2025, 2, 29),
            (1900, 2, 29),
            (2024, 2, 30),
            (2025, 4, 31),
            (2025, 12, 32),
        ] {
            assert!(!Date { year, month, day }.exists(), "{year}-{month}-{day}");
        }
        for year in [2000, 2024] {
            assert!(
                Date {
                    year,
                    month: 2,
                    day: 29
                }
                .exists(),
                "{year}"
            );
        }
    }
}
