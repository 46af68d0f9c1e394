//! The edges and the arithmetic of instants, and of their texts.

use std::time::Duration;

use runtree_time::{ConvertErrorKind, Timestamp, TimestampText, UtcOffset};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_range_is_the_years_1_to_9999_and_checked_to_the_unit() {
    assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00.000000Z");
    assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
    assert_eq!(
        Timestamp::UNIX_EPOCH.to_string(),
        "1970-01-01T00:00:00.000000Z"
    );
    let (first, last) = (Timestamp::MIN, Timestamp::MAX);
    assert_eq!(
        Timestamp::from_unix_micros(first.as_unix_micros()),
        Ok(first)
    );
    assert_eq!(Timestamp::from_unix_micros(last.as_unix_micros()), Ok(last));
    assert!(Timestamp::from_unix_micros(first.as_unix_micros() - 1).is_err());
    assert!(Timestamp::from_unix_micros(last.as_unix_micros() + 1).is_err());
    assert_eq!(
        Timestamp::from_unix_seconds(first.as_unix_seconds()),
        Ok(first)
    );
    assert!(Timestamp::from_unix_seconds(first.as_unix_seconds() - 1).is_err());
    assert!(Timestamp::from_unix_seconds(last.as_unix_seconds()).is_ok());
    assert!(Timestamp::from_unix_seconds(last.as_unix_seconds() + 1).is_err());
    assert!(Timestamp::from_unix_millis(last.as_unix_millis()).is_ok());
    assert!(Timestamp::from_unix_millis(last.as_unix_millis() + 1).is_err());
    assert_eq!(
        Timestamp::from_unix_nanos(last.as_unix_nanos() + 999),
        Ok(last)
    );
    assert!(Timestamp::from_unix_nanos(last.as_unix_nanos() + 1_000).is_err());
    assert!(Timestamp::from_unix_nanos(first.as_unix_nanos() - 1).is_err());
    for extreme in [i128::MIN, i128::MAX] {
        assert!(Timestamp::from_unix_nanos(extreme).is_err());
    }
}

#[test]
fn coarser_counts_are_floored_on_both_sides_of_1970() {
    let before = at("1969-12-31T23:59:59.999999Z");
    assert_eq!(before.as_unix_micros(), -1);
    assert_eq!(before.as_unix_millis(), -1);
    assert_eq!(before.as_unix_seconds(), -1);
    assert_eq!(before.as_unix_nanos(), -1_000);
    assert_eq!(before.subsec_micros(), 999_999);
    let after = at("1970-01-01T00:00:01.999999Z");
    assert_eq!(after.as_unix_millis(), 1_999);
    assert_eq!(after.as_unix_seconds(), 1);
    assert_eq!(after.subsec_micros(), 999_999);
}

#[test]
fn sub_microseconds_are_floored_toward_the_past() {
    for (nanos, micros) in [
        (0, 0),
        (999, 0),
        (1_000, 1),
        (-1, -1),
        (-1_000, -1),
        (-1_001, -2),
    ] {
        let instant = Timestamp::from_unix_nanos(nanos).unwrap();
        assert_eq!(instant.as_unix_micros(), micros, "{nanos}");
    }
    let epoch = Timestamp::UNIX_EPOCH;
    let nanosecond = Duration::from_nanos(1);
    assert_eq!(epoch.checked_add(nanosecond), Some(epoch));
    assert_eq!(
        epoch.checked_sub(nanosecond),
        Timestamp::from_unix_micros(-1).ok()
    );
}

#[test]
fn arithmetic_stops_or_answers_none_at_the_edges() {
    let (first, last) = (Timestamp::MIN, Timestamp::MAX);
    for step in [Duration::from_micros(1), Duration::MAX] {
        assert_eq!(last.checked_add(step), None);
        assert_eq!(first.checked_sub(step), None);
        assert_eq!(last.saturating_add(step), last);
        assert_eq!(first.saturating_sub(step), first);
    }
    let whole = last.duration_since(first).unwrap();
    assert_eq!(first.checked_add(whole), Some(last));
    assert_eq!(first.duration_since(last), None);
    assert_eq!(first.saturating_duration_since(last), Duration::ZERO);
    assert_eq!(last.duration_since(last), Some(Duration::ZERO));
}

#[test]
fn a_text_is_used_as_any_str_and_pads_in_tables() {
    let instant = at("2025-06-22T10:00:00Z");
    let text: TimestampText = instant.to_text();
    assert_eq!(text.as_bytes(), b"2025-06-22T10:00:00.000000Z");
    assert_eq!(&text[..10], "2025-06-22");
    assert_eq!(text.as_ref(), "2025-06-22T10:00:00.000000Z");
    assert_eq!(
        format!("[{instant:>29}]"),
        "[  2025-06-22T10:00:00.000000Z]"
    );
    assert_eq!(format!("[{text:<29}]"), "[2025-06-22T10:00:00.000000Z  ]");
    assert_eq!(format!("{instant:?}"), "2025-06-22T10:00:00.000000Z");
    assert_eq!(format!("{text:?}"), "\"2025-06-22T10:00:00.000000Z\"");
}

#[test]
fn values_are_small() {
    assert_eq!(size_of::<Timestamp>(), 8);
    assert_eq!(size_of::<TimestampText>(), 32);
    assert!(size_of::<Result<Timestamp, runtree_time::ParseError>>() <= 96);
}

#[test]
fn constructors_serve_constants() {
    const RELEASE: Timestamp = match Timestamp::from_unix_seconds(1_750_586_400) {
        Ok(instant) => instant,
        Err(_) => Timestamp::MIN,
    };
    assert_eq!(RELEASE.to_string(), "2025-06-22T10:00:00.000000Z");
}

#[test]
fn an_offset_is_whole_minutes_up_to_23_59() {
    for (minutes, text) in [
        (0, "+00:00"),
        (120, "+02:00"),
        (-1, "-00:01"),
        (-1439, "-23:59"),
    ] {
        let offset = UtcOffset::from_minutes(minutes).unwrap();
        assert_eq!(offset.to_string(), text);
        assert_eq!(offset.minutes(), minutes);
    }
    for minutes in [1440, -1440, i16::MIN, i16::MAX] {
        let error = UtcOffset::from_minutes(minutes).unwrap_err();
        assert_eq!(error.kind(), ConvertErrorKind::OutOfRange);
    }
    assert_eq!(UtcOffset::from_hours(-9), UtcOffset::from_minutes(-540));
    assert!(UtcOffset::from_hours(24).is_err());
    assert!(UtcOffset::from_hours(i8::MIN).is_err());
    assert_eq!(UtcOffset::default(), UtcOffset::UTC);
}
