//! What the rules for naive values do to values that are not text.

use runtree_time::{ConvertErrorKind, NaivePolicy, Normalizer, SubMicros, UtcOffset};
use time::{Date, Month, PrimitiveDateTime, Time};

fn noon() -> PrimitiveDateTime {
    let date = Date::from_calendar_date(2025, Month::June, 22).unwrap();
    PrimitiveDateTime::new(date, Time::from_hms_nano(12, 0, 0, 1_999).unwrap())
}

fn assuming(hours: i8) -> Normalizer {
    let offset = UtcOffset::from_hours(hours).unwrap();
    Normalizer::strict().naive(NaivePolicy::AssumeOffset(offset))
}

#[test]
fn a_naive_value_is_refused_unless_a_policy_says_what_it_means() {
    for rules in [
        Normalizer::strict(),
        Normalizer::interop(),
        Normalizer::default(),
    ] {
        let error = rules.primitive_date_time(noon()).unwrap_err();
        assert_eq!(error.kind(), ConvertErrorKind::Naive);
        assert!(error.to_string().contains("2025-06-22"), "{error}");
        let error = rules.date(noon().date()).unwrap_err();
        assert_eq!(error.kind(), ConvertErrorKind::Naive);
    }
}

#[test]
fn a_naive_value_is_read_at_the_offset_of_the_policy() {
    let utc = Normalizer::strict().naive(NaivePolicy::AssumeUtc);
    for (rules, instant, midnight) in [
        (
            utc,
            "2025-06-22T12:00:00.000001Z",
            "2025-06-22T00:00:00.000000Z",
        ),
        (
            assuming(2),
            "2025-06-22T10:00:00.000001Z",
            "2025-06-21T22:00:00.000000Z",
        ),
        (
            assuming(-5),
            "2025-06-22T17:00:00.000001Z",
            "2025-06-22T05:00:00.000000Z",
        ),
    ] {
        assert_eq!(
            rules.primitive_date_time(noon()).unwrap().to_string(),
            instant
        );
        assert_eq!(rules.date(noon().date()).unwrap().to_string(), midnight);
    }
}

#[test]
fn a_naive_value_that_leaves_the_range_at_its_offset_is_out_of_range() {
    let first = Date::from_calendar_date(1, Month::January, 1).unwrap();
    let last = Date::from_calendar_date(9999, Month::December, 31).unwrap();
    let last = PrimitiveDateTime::new(last, Time::from_hms(23, 0, 0).unwrap());
    for refused in [
        assuming(1).date(first),
        assuming(-1).primitive_date_time(last),
        assuming(0).date(Date::MIN),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ConvertErrorKind::OutOfRange);
    }
    assert!(assuming(-1).date(first).is_ok());
    assert!(assuming(1).primitive_date_time(last).is_ok());
}

#[test]
fn a_naive_value_finer_than_a_microsecond_is_refused_where_the_rules_say_so() {
    let rules = assuming(0).sub_micros(SubMicros::Reject);
    let error = rules.primitive_date_time(noon()).unwrap_err();
    assert_eq!(error.kind(), ConvertErrorKind::SubMicros);
    assert!(rules.date(noon().date()).is_ok());
}
