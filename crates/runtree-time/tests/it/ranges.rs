//! The bounds of ranges: which are in, which are out, which are refused.

use std::error::Error;

use runtree_time::{ParseErrorKind, TimeRange, TimeRangeErrorKind, Timestamp, UtcOffset};
use time::{Date, Month};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn bounds(start: &str, end: &str) -> (Option<String>, Option<String>) {
    let range = TimeRange::parse(start, end).unwrap();
    let text = |bound: Option<Timestamp>| bound.map(|bound| bound.to_string());
    (text(range.start()), text(range.end()))
}

fn refused(start: &str, end: &str) -> TimeRangeErrorKind {
    TimeRange::parse(start, end).unwrap_err().kind()
}

#[test]
fn the_start_is_in_the_range_and_the_end_is_not() {
    let (start, end) = (at("2025-06-22T10:00:00Z"), at("2025-06-22T11:00:00Z"));
    let range = TimeRange::between(start, end).unwrap();
    assert!(range.contains(start));
    assert!(!range.contains(end));
    assert!(range.contains(at("2025-06-22T10:59:59.999999Z")));
    assert!(!range.contains(at("2025-06-22T09:59:59.999999Z")));
    assert!(TimeRange::since(start).contains(Timestamp::MAX));
    assert!(!TimeRange::before(end).contains(end));
    assert!(TimeRange::before(end).contains(Timestamp::MIN));
    assert!(TimeRange::through(end).contains(end));
    assert!(!TimeRange::through(end).contains(at("2025-06-22T11:00:00.000001Z")));
}

#[test]
fn the_range_of_everything_contains_both_ends_of_time() {
    for range in [
        TimeRange::all(),
        TimeRange::default(),
        TimeRange::through(Timestamp::MAX),
    ] {
        assert_eq!((range.start(), range.end()), (None, None));
        assert!(range.contains(Timestamp::MIN) && range.contains(Timestamp::MAX));
        assert!(!range.is_empty());
    }
}

#[test]
fn equal_bounds_are_empty_and_inverted_bounds_are_an_error() {
    let (one, two) = (
        at("2025-06-22T10:00:00Z"),
        at("2025-06-22T10:00:00.000001Z"),
    );
    let empty = TimeRange::between(one, one).unwrap();
    assert!(empty.is_empty() && !empty.contains(one));
    assert!(TimeRange::before(Timestamp::MIN).is_empty());
    assert!(!TimeRange::between(one, two).unwrap().is_empty());
    let error = TimeRange::between(two, one).unwrap_err();
    assert_eq!(error.kind(), TimeRangeErrorKind::Inverted);
    assert_eq!(
        error.to_string(),
        "time range ends at 2025-06-22T10:00:00.000000Z, not after its start 2025-06-22T10:00:00.000001Z"
    );
}

#[test]
fn a_date_as_end_includes_its_day_and_a_date_as_start_is_its_midnight() {
    let utc = |start: &str, end: &str| {
        let text = |day: &str| Some(format!("{day}T00:00:00.000000Z"));
        (text(start), text(end))
    };
    assert_eq!(
        bounds("2025-06-22T00:00:00Z", "2025-06-23"),
        utc("2025-06-22", "2025-06-24")
    );
    assert_eq!(
        bounds("2025-06-22", "2025-06-22"),
        utc("2025-06-22", "2025-06-23")
    );
    assert_eq!(
        bounds("2025-06-22", "2025-06-23T00:00:00Z"),
        utc("2025-06-22", "2025-06-23")
    );
    assert_eq!(
        bounds("2024-02-29", "2024-02-29"),
        utc("2024-02-29", "2024-03-01")
    );
    assert_eq!(
        bounds("2025-06-22T02:00:00+02:00", "2025-06-30"),
        utc("2025-06-22", "2025-07-01")
    );
    let late_in_the_day = TimeRange::parse("2025-06-22T23:00:00Z", "2025-06-22").unwrap();
    assert!(late_in_the_day.contains(at("2025-06-22T23:59:59.999999Z")));
}

#[test]
fn a_day_that_ends_where_the_range_would_start_is_inverted() {
    assert_eq!(
        refused("2025-06-23", "2025-06-22"),
        TimeRangeErrorKind::Inverted
    );
    assert_eq!(
        refused("2025-06-24T00:00:00Z", "2025-06-22"),
        TimeRangeErrorKind::Inverted
    );
    assert_eq!(
        refused("2025-06-23T00:00:00Z", "2025-06-22T00:00:00Z"),
        TimeRangeErrorKind::Inverted
    );
    let empty = TimeRange::parse("2025-06-22", "2025-06-22T00:00:00Z").unwrap();
    assert!(empty.is_empty());
}

#[test]
fn the_last_day_has_no_bound_after_it() {
    let range = TimeRange::parse("9999-12-31", "9999-12-31").unwrap();
    assert_eq!(range.start(), Some(at("9999-12-31T00:00:00Z")));
    assert_eq!(range.end(), None);
    assert!(range.contains(Timestamp::MAX));
}

#[test]
fn an_absent_text_does_not_bound() {
    let parse = |start, end| TimeRange::parse_bounds(start, end).unwrap();
    let day = at("2025-06-22T00:00:00Z");
    assert_eq!(parse(None, None), TimeRange::all());
    assert_eq!(parse(Some("2025-06-22"), None), TimeRange::since(day));
    assert_eq!(parse(None, Some("2025-06-21")), TimeRange::before(day));
    assert_eq!(
        parse(None, Some("2025-06-22T02:00:00+02:00")),
        TimeRange::before(day)
    );
}

#[test]
fn a_text_that_is_neither_names_its_side_and_its_reason() {
    for (start, end, kind, reason) in [
        (
            "2025-06-22T10:00:00",
            "2025-06-23",
            TimeRangeErrorKind::Start,
            ParseErrorKind::Naive,
        ),
        (
            "yesterday",
            "2025-06-23",
            TimeRangeErrorKind::Start,
            ParseErrorKind::Syntax,
        ),
        (
            "",
            "2025-06-23",
            TimeRangeErrorKind::Start,
            ParseErrorKind::Empty,
        ),
        (
            "2025-06-22",
            "1750586400",
            TimeRangeErrorKind::End,
            ParseErrorKind::Number,
        ),
        (
            "2025-06-22",
            "2025-06-31",
            TimeRangeErrorKind::End,
            ParseErrorKind::NoSuchField,
        ),
        (
            "2025-06-22",
            "2025-06-23 ",
            TimeRangeErrorKind::End,
            ParseErrorKind::Syntax,
        ),
        (
            "2025-06-22",
            "2025-06-23Z",
            TimeRangeErrorKind::End,
            ParseErrorKind::Syntax,
        ),
    ] {
        let error = TimeRange::parse(start, end).unwrap_err();
        assert_eq!(error.kind(), kind);
        let source = error.source().and_then(|source| source.downcast_ref());
        let source: &runtree_time::ParseError = source.unwrap();
        assert_eq!(source.kind(), reason, "{source}");
    }
}

#[test]
fn a_day_is_twenty_four_hours_at_its_offset() {
    let day = Date::from_calendar_date(2025, Month::June, 22).unwrap();
    for (hours, start, end) in [
        (0, "2025-06-22T00:00:00Z", "2025-06-23T00:00:00Z"),
        (2, "2025-06-21T22:00:00Z", "2025-06-22T22:00:00Z"),
        (-5, "2025-06-22T05:00:00Z", "2025-06-23T05:00:00Z"),
    ] {
        let offset = UtcOffset::from_hours(hours).unwrap();
        let expected = TimeRange::between(at(start), at(end)).unwrap();
        assert_eq!(TimeRange::on_day(day, offset).unwrap(), expected);
    }
}

#[test]
fn a_day_at_the_edge_of_time_is_bounded_where_time_is() {
    let first = Date::from_calendar_date(1, Month::January, 1).unwrap();
    let last = Date::from_calendar_date(9999, Month::December, 31).unwrap();
    let east = UtcOffset::from_minutes(1439).unwrap();
    let west = UtcOffset::from_minutes(-1439).unwrap();
    let range = TimeRange::on_day(first, east).unwrap();
    assert_eq!(
        (range.start(), range.end()),
        (None, Some(at("0001-01-01T00:01:00Z")))
    );
    let range = TimeRange::on_day(last, west).unwrap();
    assert_eq!(
        (range.start(), range.end()),
        (Some(at("9999-12-31T23:59:00Z")), None)
    );
    let error = TimeRange::on_day(Date::MIN, UtcOffset::UTC).unwrap_err();
    assert_eq!(error.kind(), TimeRangeErrorKind::OutOfRange);
    assert!(error.source().is_some());
}

#[test]
fn a_range_is_shown_as_its_bounds() {
    let start = at("2025-06-22T00:00:00Z");
    assert_eq!(TimeRange::all().to_string(), "..");
    assert_eq!(
        TimeRange::since(start).to_string(),
        "2025-06-22T00:00:00.000000Z.."
    );
    assert_eq!(
        TimeRange::before(start).to_string(),
        "..2025-06-22T00:00:00.000000Z"
    );
}
