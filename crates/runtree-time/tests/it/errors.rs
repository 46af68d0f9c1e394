//! What an error of a text tells, and what it never shows.

use std::collections::BTreeSet;

use runtree_time::{ConvertErrorKind, Normalizer, ParseErrorKind, SubMicros, Timestamp};

use crate::corpus;

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

/// A text that is refused, why, what its error says to do, and the text of whoever did so.
type Mended = (&'static str, ParseErrorKind, &'static str, &'static str);

/// Every hint there is, followed.
const FOLLOWED: &[Mended] = {
    use ParseErrorKind as Kind;
    &[
        (
            "",
            Kind::Empty,
            "write YYYY-MM-DDTHH:MM:SSZ",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22T10:00:00.00000000000000000000000000000000000000000000000000Z",
            Kind::TooLong,
            "write YYYY-MM-DDTHH:MM:SSZ in at most 64 bytes",
            "2025-06-22T10:00:00.000000Z",
        ),
        (
            "2025-06-22T10:00:00\u{2212}02:00",
            Kind::NonAscii,
            "use ASCII digits and signs only",
            "2025-06-22T10:00:00-02:00",
        ),
        (
            "2025/06/22T10:00:00Z",
            Kind::Syntax,
            "write the date as YYYY-MM-DD",
            "2025-06-22T10:00:00Z",
        ),
        (
            "+2025-06-22T10:00:00Z",
            Kind::Syntax,
            "begin with a year of four digits and no sign",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22_10:00:00Z",
            Kind::Syntax,
            "write T or one space between date and time",
            "2025-06-22 10:00:00Z",
        ),
        (
            "2025-06-22T10.00.00Z",
            Kind::Syntax,
            "write the time of day as HH:MM:SS",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22T10:00:00.Z",
            Kind::Syntax,
            "write at least one digit after the decimal sign, or leave it out",
            "2025-06-22T10:00:00.0Z",
        ),
        (
            "2025-06-22T10:00:00 CEST",
            Kind::Syntax,
            "end with Z or an offset such as +02:00",
            "2025-06-22T10:00:00+02:00",
        ),
        (
            "2025-06-22T10:00:00Z ",
            Kind::Syntax,
            "leave out what follows the timestamp, white space too",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22T10:00Z",
            Kind::InteropForm,
            "add the seconds",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22T10:00:00,5Z",
            Kind::InteropForm,
            "use a point before the fraction",
            "2025-06-22T10:00:00.5Z",
        ),
        (
            "2025-06-22T10:00:00+0200",
            Kind::InteropForm,
            "write a colon in the offset",
            "2025-06-22T10:00:00+02:00",
        ),
        (
            "2025-06-22T10:00:00+02",
            Kind::InteropForm,
            "add the minutes of the offset",
            "2025-06-22T10:00:00+02:00",
        ),
        (
            "2025-06-22T10:00:00Z[UTC]",
            Kind::InteropForm,
            "leave the annotation out",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22T10:00:00",
            Kind::Naive,
            "end with Z or an offset such as +02:00",
            "2025-06-22T10:00:00Z",
        ),
        (
            "2025-06-22",
            Kind::Naive,
            "add a time of day and an offset, as in 2025-06-22T00:00:00Z",
            "2025-06-22T00:00:00Z",
        ),
        (
            "0000-06-22T10:00:00Z",
            Kind::NoSuchField,
            "use a year from 0001 to 9999",
            "0001-06-22T10:00:00Z",
        ),
        (
            "2025-13-22T10:00:00Z",
            Kind::NoSuchField,
            "use a month from 01 to 12",
            "2025-12-22T10:00:00Z",
        ),
        (
            "2025-02-30T10:00:00Z",
            Kind::NoSuchField,
            "use a day that this month has",
            "2025-02-28T10:00:00Z",
        ),
        (
            "2025-06-22T25:00:00Z",
            Kind::NoSuchField,
            "use an hour from 00 to 23",
            "2025-06-22T23:00:00Z",
        ),
        (
            "2025-06-22T10:60:00Z",
            Kind::NoSuchField,
            "use a minute from 00 to 59",
            "2025-06-22T10:59:00Z",
        ),
        (
            "2025-06-22T10:00:61Z",
            Kind::NoSuchField,
            "use a second from 00 to 59",
            "2025-06-22T10:00:59Z",
        ),
        (
            "2025-06-22T24:00:00Z",
            Kind::EndOfDay,
            "write 00:00:00 of the next day",
            "2025-06-23T00:00:00Z",
        ),
        (
            "2025-06-22T10:00:60Z",
            Kind::LeapSecond,
            "use a second up to 59: 60 is only at 23:59 UTC on the last day of a month",
            "2025-06-22T10:00:59Z",
        ),
        (
            "2025-06-22T10:00:00+24:00",
            Kind::NoSuchOffset,
            "use an offset up to 23:59, its minutes up to 59",
            "2025-06-22T10:00:00+23:59",
        ),
        (
            "0001-01-01T00:00:00+00:01",
            Kind::OutOfRange,
            "stay within 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z",
            "0001-01-01T00:01:00+00:01",
        ),
        (
            "2025-06-22T10:00:00.1234567Z",
            Kind::SubMicros,
            "write at most six digits",
            "2025-06-22T10:00:00.123456Z",
        ),
    ]
};

/// The same, of what only the interop profile looks at.
const FOLLOWED_INTEROP: &[Mended] = {
    use ParseErrorKind as Kind;
    &[
        (
            "2025-06-22T10:00:00.00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000Z",
            Kind::TooLong,
            "write YYYY-MM-DDTHH:MM:SSZ in at most 128 bytes",
            "2025-06-22T10:00:00.000000Z",
        ),
        (
            "2025-06-22T10:00:00[Europe/Paris]",
            Kind::Naive,
            "write an offset before the annotation",
            "2025-06-22T10:00:00+02:00[Europe/Paris]",
        ),
        (
            "2025-06-22T10:00:00Z[Europe Paris]",
            Kind::Syntax,
            "write an annotation as [Area/City] or [key=value]",
            "2025-06-22T10:00:00Z[Europe/Paris]",
        ),
        (
            "2025-06-22T10:00:00Z[!u-ca=hebrew]",
            Kind::CriticalAnnotation,
            "leave the mark ! out if the annotation may be ignored",
            "2025-06-22T10:00:00Z[u-ca=hebrew]",
        ),
    ]
};

#[test]
fn whoever_does_what_an_error_says_has_a_timestamp() {
    let strict = Normalizer::strict().sub_micros(SubMicros::Reject);
    for (rules, followed) in [
        (strict, FOLLOWED),
        (Normalizer::interop(), FOLLOWED_INTEROP),
    ] {
        for &(text, kind, hint, mended) in followed {
            let error = rules.parse(text).unwrap_err();
            assert_eq!((error.kind(), error.hint()), (kind, hint), "{text:?}");
            assert!(rules.parse(mended).is_ok(), "{mended:?}");
        }
    }
    let error = refused("1750586400");
    assert_eq!(error.kind(), ParseErrorKind::Number);
    assert_eq!(error.hint(), NUMBER);
    assert!(Timestamp::from_unix_seconds(1_750_586_400).is_ok());
}

/// The one hint that is followed in the program, not in the text.
const NUMBER: &str = "name the unit: use Timestamp::from_unix_seconds, _millis, _micros or _nanos";

#[test]
fn every_hint_that_the_corpus_meets_is_followed_above() {
    let followed = FOLLOWED.iter().chain(FOLLOWED_INTEROP);
    let mut unmet: BTreeSet<&str> = followed.map(|(_, _, hint, _)| *hint).collect();
    unmet.insert(NUMBER);
    let known = unmet.clone();
    for (name, input, rules) in corpus::invalid() {
        let error = rules.parse(&input).unwrap_err();
        assert!(known.contains(error.hint()), "{name}: {error}");
        unmet.remove(error.hint());
    }
    assert_eq!(
        unmet,
        BTreeSet::new(),
        "hints that no case of the corpus meets"
    );
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
