//! What an error of a text tells, and what it never shows.

use runtree_time::{ConvertErrorKind, Normalizer, ParseErrorKind, Timestamp};

fn refused(text: &str) -> runtree_time::ParseError {
    text.parse::<Timestamp>().unwrap_err()
}

#[test]
fn an_error_is_a_fragment_that_names_what_where_and_the_form_that_would_do() {
    for (text, message) in [
        (
            "2025-06-22T10:00:00",
            "missing offset at byte 19 of \"2025-06-22T10:00:00\" (end with Z or an offset such as +02:00)",
        ),
        (
            "2025-06-22T24:00:00Z",
            "hour 24 at byte 11 of \"2025-06-22T24:00:00Z\" (write 00:00:00 of the next day)",
        ),
        (
            "1750586400",
            "bare number at byte 0 of \"1750586400\" (name the unit: use Timestamp::from_unix_seconds, _millis, _micros or _nanos)",
        ),
        (
            "",
            "empty text at byte 0 of \"\" (write YYYY-MM-DDTHH:MM:SSZ)",
        ),
        (
            "2025-06-22T10:00:00+25:00",
            "offset out of its range at byte 20 of \"2025-06-22T10:00:00+25:00\" (use an offset up to 23:59, its minutes up to 59)",
        ),
    ] {
        assert_eq!(refused(text).to_string(), message);
    }
    let critical = Normalizer::interop()
        .parse("2025-06-22T10:00:00Z[!u-ca=hebrew]")
        .unwrap_err();
    assert_eq!(critical.kind(), ParseErrorKind::CriticalAnnotation);
    assert_eq!(
        critical.hint(),
        "leave the mark ! out if the annotation may be ignored"
    );
    assert_eq!(critical.preview(), "2025-06-22T10:00:00Z[!u-ca=he...");
}

#[test]
fn a_preview_is_escaped_and_at_most_32_bytes() {
    let cases = [
        ("a\nb\"c\\d\0", "a\\x0ab\\\"c\\\\d\\x00"),
        ("\u{1b}[31mred", "\\x1b[31mred"),
        ("é2025", "\\xc3\\xa92025"),
        (
            "exactly-thirty-two-bytes-of-text",
            "exactly-thirty-two-bytes-of-text",
        ),
        (
            "just-over-thirty-two-bytes-of-text",
            "just-over-thirty-two-bytes-of...",
        ),
        (
            "\n\n\n\n\n\n\n\n\n",
            "\\x0a\\x0a\\x0a\\x0a\\x0a\\x0a\\x0a...",
        ),
        (
            "\n\n\n\n\n\n\n\n",
            "\\x0a\\x0a\\x0a\\x0a\\x0a\\x0a\\x0a\\x0a",
        ),
    ];
    for (text, preview) in cases {
        assert_eq!(refused(text).preview(), preview);
    }
}

#[test]
fn a_preview_of_a_late_fault_shows_its_surroundings() {
    let text = "2025-06-22T10:00:00.123456789012345+2:00 or so, more or less";
    let error = refused(text);
    assert_eq!(error.offset(), 37);
    assert_eq!(error.preview(), "...6789012345+2:00 or so, mor...");
}

#[test]
fn a_secret_in_an_overlong_text_shows_no_more_than_its_preview() {
    let error = refused(&"s3cret-".repeat(1000));
    assert_eq!(error.kind(), ParseErrorKind::TooLong);
    assert!(error.preview().len() <= 32);
    assert!(error.to_string().len() < 128, "{error}");
    assert!(format!("{error:?}").len() < 256, "{error:?}");
}

#[test]
fn an_error_of_a_number_names_the_number_and_its_unit() {
    let error = Timestamp::from_unix_seconds(i64::MAX).unwrap_err();
    assert_eq!(error.kind(), ConvertErrorKind::OutOfRange);
    assert_eq!(
        error.to_string(),
        "9223372036854775807 seconds since 1970 UTC is outside the years 1 to 9999 in UTC"
    );
}

#[test]
fn errors_cross_threads_and_fit_in_dyn_error() {
    fn check<E: std::error::Error + Send + Sync + Clone + 'static>() {}
    check::<runtree_time::ParseError>();
    check::<runtree_time::ConvertError>();
    check::<runtree_time::TimeRangeError>();
}
