//! The forms in serde: what is written, what is read, what is refused.

use runtree_time::{TimeRange, Timestamp, serde_interop, serde_micros};
use serde_json::{Value, from_str, from_value, json, to_string, to_value};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Forms {
    #[serde(with = "serde_micros")]
    micros: Timestamp,
    #[serde(with = "serde_micros::option", default)]
    maybe_micros: Option<Timestamp>,
    #[serde(with = "serde_interop")]
    interop: Timestamp,
    #[serde(with = "serde_interop::option", default)]
    maybe_interop: Option<Timestamp>,
}

#[test]
fn an_instant_is_written_as_its_canonical_text_and_read_back() {
    for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let json = to_string(&instant).unwrap();
        assert_eq!(json, format!("\"{instant}\""));
        assert_eq!(from_str::<Timestamp>(&json).unwrap(), instant);
        assert_eq!(from_value::<Timestamp>(json!(instant)).unwrap(), instant);
    }
    let nested: Option<Timestamp> = from_str("null").unwrap();
    assert_eq!(nested, None);
}

#[test]
fn the_default_form_is_strict() {
    let read = |json: &str| from_str::<Timestamp>(json);
    assert_eq!(
        read("\"2025-06-22 12:00:00+02:00\"").unwrap(),
        at("2025-06-22T10:00:00Z")
    );
    // An escape makes the text one that is not borrowed from the input.
    assert_eq!(
        read("\"2025-06-22T10:00:00\\u005a\"").unwrap(),
        at("2025-06-22T10:00:00Z")
    );
    for refused in [
        "\"2025-06-22T10:00Z\"",
        "\"2025-06-22T10:00:00\"",
        "\"\"",
        "1750586400",
        "1750586400.5",
        "null",
        "true",
        "[]",
        "{}",
    ] {
        assert!(read(refused).is_err(), "{refused}");
    }
    let error = read("\"2025-06-22T10:00:00\"").unwrap_err().to_string();
    assert!(error.contains("missing offset at byte 19"), "{error}");
    let error = read("1750586400").unwrap_err().to_string();
    assert!(error.contains("expected a timestamp such as"), "{error}");
}

#[test]
fn each_form_writes_its_own_and_reads_it_back() {
    let instant = at("2025-06-22T10:00:00.5Z");
    let text = "2025-06-22T10:00:00.500000Z";
    for maybe in [None, Some(instant)] {
        let forms = Forms {
            micros: instant,
            maybe_micros: maybe,
            interop: instant,
            maybe_interop: maybe,
        };
        let value = to_value(&forms).unwrap();
        let (micros, interop) = match maybe {
            None => (Value::Null, Value::Null),
            Some(_) => (json!(1_750_586_400_500_000_i64), json!(text)),
        };
        let expected = json!({
            "micros": 1_750_586_400_500_000_i64,
            "maybe_micros": micros,
            "interop": text,
            "maybe_interop": interop,
        });
        assert_eq!(value, expected);
        assert_eq!(from_value::<Forms>(value).unwrap(), forms);
    }
}

#[test]
fn optional_fields_may_be_absent() {
    let forms: Forms = from_str(r#"{"micros": -1, "interop": "2025-06-22T10:00Z"}"#).unwrap();
    assert_eq!((forms.maybe_micros, forms.maybe_interop), (None, None));
}

#[test]
fn each_form_refuses_what_is_not_its_own() {
    let forms = |micros: &str, interop: &str| {
        from_str::<Forms>(&format!("{{\"micros\": {micros}, \"interop\": {interop}}}"))
    };
    let good = "\"2025-06-22T12:00+02[Europe/Paris]\"";
    assert_eq!(
        forms("0", good).unwrap().interop,
        at("2025-06-22T10:00:00Z")
    );
    for (micros, interop) in [
        ("253402300800000000", good),
        ("-62135596800000001", good),
        ("18446744073709551615", good),
        ("0.5", good),
        ("\"0\"", good),
        ("null", good),
        ("0", "\"2025-06-22T12:00\""),
        ("0", "\"2025-06-22\""),
        ("0", "1750586400"),
        ("0", "null"),
    ] {
        assert!(forms(micros, interop).is_err(), "{micros} {interop}");
    }
}

#[test]
fn a_range_is_written_as_its_bounds_and_read_back() {
    let (start, end) = (at("2025-06-22T10:00:00Z"), at("2025-06-22T11:00:00Z"));
    for (range, expected) in [
        (TimeRange::all(), json!({"start": null, "end": null})),
        (
            TimeRange::since(start),
            json!({"start": start, "end": null}),
        ),
        (TimeRange::before(end), json!({"start": null, "end": end})),
        (
            TimeRange::between(start, end).unwrap(),
            json!({"start": start, "end": end}),
        ),
    ] {
        let value = to_value(range).unwrap();
        assert_eq!(value, expected);
        assert_eq!(from_value::<TimeRange>(value).unwrap(), range);
    }
    assert_eq!(from_str::<TimeRange>("{}").unwrap(), TimeRange::all());
}

#[test]
fn a_range_that_is_inverted_or_has_unknown_fields_is_refused() {
    for refused in [
        r#"{"start": "2025-06-22T11:00:00Z", "end": "2025-06-22T10:00:00Z"}"#,
        r#"{"start": "2025-06-22", "end": null}"#,
        r#"{"from": "2025-06-22T11:00:00Z"}"#,
    ] {
        assert!(from_str::<TimeRange>(refused).is_err(), "{refused}");
    }
}
