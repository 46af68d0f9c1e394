//! Conversions to and from the types of other crates, at their edges above all.

use std::time::{Duration, SystemTime};

use runtree_time::{ConvertErrorKind, Normalizer, SubMicros, Timestamp, UtcOffset};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

fn local(date: Date, time: Time, hours: i8) -> OffsetDateTime {
    let offset = time::UtcOffset::from_hms(hours, 0, 0).unwrap();
    PrimitiveDateTime::new(date, time).assume_offset(offset)
}

fn last_moment() -> Time {
    Time::from_hms_nano(23, 59, 59, 999_999_999).unwrap()
}

#[test]
fn an_offset_date_time_is_taken_by_its_instant_and_floored() {
    let date = Date::from_calendar_date(2025, Month::June, 22).unwrap();
    let time = Time::from_hms_nano(12, 0, 0, 123_456_789).unwrap();
    let instant = Timestamp::try_from(local(date, time, 2)).unwrap();
    assert_eq!(instant.to_string(), "2025-06-22T10:00:00.123456Z");

    let before_1970 = OffsetDateTime::from_unix_timestamp_nanos(-1).unwrap();
    assert_eq!(
        Timestamp::try_from(before_1970),
        Timestamp::from_unix_micros(-1)
    );
}

#[test]
fn an_offset_date_time_at_the_edge_is_out_of_range_and_does_not_panic() {
    let first = Date::from_calendar_date(1, Month::January, 1).unwrap();
    let last = Date::from_calendar_date(9999, Month::December, 31).unwrap();
    for value in [
        local(first, Time::MIDNIGHT, 1),
        local(last, last_moment(), -1),
        local(Date::MIN, Time::MIDNIGHT, 23),
        local(Date::MAX, last_moment(), -23),
        local(Date::MIN, Time::MIDNIGHT, 0),
    ] {
        let error = Timestamp::try_from(value).unwrap_err();
        assert_eq!(error.kind(), ConvertErrorKind::OutOfRange, "{value:?}");
    }
    let reached = local(last, last_moment(), 0);
    assert_eq!(Timestamp::try_from(reached), Ok(Timestamp::MAX));
}

#[test]
fn an_instant_becomes_an_offset_date_time_in_utc_and_comes_back() {
    for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let foreign = OffsetDateTime::from(instant);
        assert_eq!(foreign.offset(), time::UtcOffset::UTC);
        assert_eq!(Timestamp::try_from(foreign), Ok(instant));
    }
}

#[test]
fn system_time_is_floored_and_comes_back() {
    let second = Duration::from_secs(1);
    let sliver = Duration::from_nanos(1);
    let after = SystemTime::UNIX_EPOCH + second + sliver;
    assert_eq!(Timestamp::try_from(after), Timestamp::from_unix_seconds(1));
    let before = SystemTime::UNIX_EPOCH - second - sliver;
    assert_eq!(
        Timestamp::try_from(before),
        Timestamp::from_unix_micros(-1_000_001)
    );
    for seconds in [-1, 0, 1_750_586_400] {
        let instant = Timestamp::from_unix_seconds(seconds).unwrap();
        let system = SystemTime::try_from(instant).unwrap();
        assert_eq!(Timestamp::try_from(system), Ok(instant));
    }
}

#[test]
fn system_time_beyond_the_range_is_an_error() {
    let beyond = Duration::from_secs(253_402_300_800);
    let Some(late) = SystemTime::UNIX_EPOCH.checked_add(beyond) else {
        // A platform whose type ends sooner has no such value to refuse.
        return;
    };
    let error = Timestamp::try_from(late).unwrap_err();
    assert_eq!(error.kind(), ConvertErrorKind::OutOfRange);
    let just_within = late - Duration::from_micros(1);
    assert_eq!(Timestamp::try_from(just_within), Ok(Timestamp::MAX));
}

#[test]
fn a_foreign_offset_is_taken_if_it_is_whole_minutes_up_to_23_59() {
    let foreign = |hours, minutes, seconds| {
        UtcOffset::try_from(time::UtcOffset::from_hms(hours, minutes, seconds).unwrap())
    };
    assert_eq!(foreign(5, 45, 0), UtcOffset::from_minutes(345));
    assert_eq!(foreign(-23, -59, 0), UtcOffset::from_minutes(-1439));
    for refused in [foreign(0, 0, 1), foreign(24, 0, 0), foreign(-25, 0, 0)] {
        assert_eq!(refused.unwrap_err().kind(), ConvertErrorKind::OutOfRange);
    }
}

#[test]
fn nanoseconds_are_refused_where_the_rules_say_so() {
    let rules = Normalizer::strict().sub_micros(SubMicros::Reject);
    let whole = OffsetDateTime::from_unix_timestamp_nanos(1_000).unwrap();
    assert_eq!(
        rules.offset_date_time(whole),
        Timestamp::from_unix_micros(1)
    );
    let finer = OffsetDateTime::from_unix_timestamp_nanos(1_001).unwrap();
    let error = rules.offset_date_time(finer).unwrap_err();
    assert_eq!(error.kind(), ConvertErrorKind::SubMicros);
    assert_eq!(
        error.to_string(),
        "1001 nanoseconds since 1970 UTC is finer than a microsecond"
    );
    let floored = Normalizer::strict().offset_date_time(finer);
    assert_eq!(floored, Timestamp::from_unix_micros(1));
}

#[cfg(feature = "jiff02")]
#[test]
fn jiff_is_floored_comes_back_and_refuses_what_it_cannot_hold() {
    let foreign = jiff02::Timestamp::from_nanosecond(-1).unwrap();
    assert_eq!(
        Timestamp::try_from(foreign),
        Timestamp::from_unix_micros(-1)
    );
    for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH] {
        let foreign = jiff02::Timestamp::try_from(instant).unwrap();
        assert_eq!(Timestamp::try_from(foreign), Ok(instant));
    }
    let refused = [
        Timestamp::try_from(jiff02::Timestamp::MIN).unwrap_err(),
        jiff02::Timestamp::try_from(Timestamp::MAX).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ConvertErrorKind::OutOfRange, "{error}");
    }
}

#[cfg(feature = "chrono04")]
#[test]
fn chrono_is_floored_comes_back_and_its_leap_seconds_stay_on_their_day() {
    use chrono04::{DateTime, FixedOffset, NaiveDate, TimeZone, Utc};

    let foreign = DateTime::from_timestamp_nanos(-1);
    assert_eq!(
        Timestamp::try_from(foreign),
        Timestamp::from_unix_micros(-1)
    );
    for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        assert_eq!(
            Timestamp::try_from(DateTime::<Utc>::from(instant)),
            Ok(instant)
        );
    }
    let day = NaiveDate::from_ymd_opt(1998, 12, 31).unwrap();
    let leap = day.and_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
    let east = FixedOffset::east_opt(0).unwrap();
    let leap = east.from_utc_datetime(&leap);
    let instant = Timestamp::try_from(leap).unwrap();
    assert_eq!(instant.to_string(), "1998-12-31T23:59:59.999999Z");
    for beyond in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        let error = Timestamp::try_from(beyond).unwrap_err();
        assert_eq!(error.kind(), ConvertErrorKind::OutOfRange);
    }
}
