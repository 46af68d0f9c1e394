//! What holds for all inputs, tried on random ones.

use std::time::Duration;

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use runtree_testkit::fuzz;
use runtree_time::{
    ConvertErrorKind, NaivePolicy, Normalizer, SubMicros, TimeRange, Timestamp, UtcOffset,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Any instant, the edges of the range and of days more often than their share.
fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    let whole = Timestamp::MIN.as_unix_micros()..=Timestamp::MAX.as_unix_micros();
    let day = 86_400_000_000;
    let days = Timestamp::MIN.as_unix_micros() / day..=Timestamp::MAX.as_unix_micros() / day;
    let near = -3_i64..=3;
    prop_oneof![
        4 => whole.clone(),
        2 => (days, near.clone()).prop_map(move |(days, near)| days * day + near),
        1 => near.clone(),
        1 => near.clone().prop_map(|near| Timestamp::MIN.as_unix_micros() + near),
        1 => near.prop_map(|near| Timestamp::MAX.as_unix_micros() + near),
    ]
    .prop_filter_map("in range", |micros| {
        Timestamp::from_unix_micros(micros).ok()
    })
}

/// Two instants, near each other more often than not: far ones differ in their first digits.
fn any_pair() -> impl Strategy<Value = (Timestamp, Timestamp)> {
    let steps = vec![1_u64, 9, 999_999, 1_000_000, 60_000_000, 86_400_000_000];
    let step = prop::sample::select(steps).prop_map(Duration::from_micros);
    prop_oneof![
        (any_timestamp(), any_timestamp()),
        (any_timestamp(), step.clone()).prop_map(|(one, step)| (one, one.saturating_add(step))),
        (any_timestamp(), step).prop_map(|(one, step)| (one, one.saturating_sub(step))),
    ]
}

/// Any offset, none and the largest more often than their share.
fn any_offset() -> impl Strategy<Value = UtcOffset> {
    let edges = vec![-1439, -60, -1, 0, 1, 60, 1439];
    prop_oneof![
        2 => -1439_i16..=1439,
        1 => prop::sample::select(edges),
    ]
    .prop_map(|minutes| UtcOffset::from_minutes(minutes).unwrap())
}

/// A way to write an instant, of all that one of the profiles reads.
#[derive(Debug, Clone)]
struct Spelling {
    offset: UtcOffset,
    /// Between date and time, and for a zero offset: as it is, or its letter.
    separator: char,
    letter: Option<char>,
    /// Digits of the fraction, where they say what the instant needs.
    digits: usize,
    /// What only the interop profile reads.
    comma: bool,
    compact_offset: bool,
    short: bool,
    annotation: &'static str,
}

impl Spelling {
    /// Writes an instant; `None` where its local date leaves the years 1 to 9999.
    fn write(&self, instant: Timestamp) -> Option<String> {
        let local = instant.as_unix_micros() + i64::from(self.offset.minutes()) * 60_000_000;
        let local = Timestamp::from_unix_micros(local).ok()?.to_text();
        let (date, time) = (&local[..10], &local[11..]);
        let (seconds, micros) = (&time[6..8], &time[9..15]);
        let needed = micros.trim_end_matches('0').len();
        let fraction = format!("{micros}000000");
        let digits = self.digits.max(needed);
        let mark = if self.comma { ',' } else { '.' };
        let mut text = format!("{date}{}{}", self.separator, &time[..5]);
        if !(self.short && seconds == "00" && digits == 0) {
            text.push(':');
            text.push_str(seconds);
        }
        if digits > 0 {
            text.push(mark);
            text.push_str(&fraction[..digits]);
        }
        text.push_str(&self.write_offset());
        text.push_str(self.annotation);
        Some(text)
    }

    fn write_offset(&self) -> String {
        let colon = self.offset.to_string();
        match self.letter {
            Some(letter) if self.offset == UtcOffset::UTC => letter.to_string(),
            _ if self.compact_offset && self.short && colon.ends_with(":00") => {
                colon[..3].to_owned()
            }
            _ if self.compact_offset => colon.replace(':', ""),
            _ => colon,
        }
    }
}

fn strict_spelling() -> impl Strategy<Value = Spelling> {
    let letter = prop::option::of(prop::sample::select(vec!['Z', 'z']));
    let separator = prop::sample::select(vec!['T', 't', ' ']);
    (any_offset(), separator, letter, 0_usize..=12).prop_map(
        |(offset, separator, letter, digits)| Spelling {
            offset,
            separator,
            letter,
            digits,
            comma: false,
            compact_offset: false,
            short: false,
            annotation: "",
        },
    )
}

fn any_spelling() -> impl Strategy<Value = Spelling> {
    let annotations = vec!["", "[Europe/Paris]", "[u-ca=hebrew]", "[+02:00][_x=1]"];
    let interop = (any::<[bool; 3]>(), prop::sample::select(annotations));
    (strict_spelling(), interop).prop_map(
        |(strict, ([comma, compact_offset, short], annotation))| Spelling {
            comma,
            compact_offset,
            short,
            annotation,
            ..strict
        },
    )
}

/// Texts that are nearly timestamps: pieces of valid ones in an order that is mostly right.
fn near_timestamps() -> impl Strategy<Value = String> {
    let date = "[0-9]{4}-(0[0-9]|1[0-3])-([0-2][0-9]|3[0-2])";
    let time = "([01][0-9]|2[0-4]):[0-6][0-9](:([0-5][0-9]|6[01]))?([.,][0-9]{0,10})?";
    let offset = "(Z|z|[+-]([01][0-9]|2[0-4])(:?[0-6][0-9])?)?";
    let annotation = "(\\[!?[A-Za-z=/+0-9:-]{0,9}\\]?){0,2}";
    let pattern = format!("{date}([Tt _]{time}{offset}{annotation})?.?");
    proptest::string::string_regex(&pattern).expect("because the pattern is one")
}

/// What the laws are tried on: without the edges they would hold too easily.
#[test]
fn the_generators_reach_the_edges() {
    fn drawn<S: Strategy>(strategy: S) -> Vec<S::Value> {
        let mut runner = TestRunner::deterministic();
        let mut draw = || strategy.new_tree(&mut runner).unwrap().current();
        (0..4_000).map(|_| draw()).collect()
    }
    let instants = drawn(any_timestamp());
    for edge in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        assert!(instants.contains(&edge), "{edge}");
    }
    let negative =
        |instant: &&Timestamp| instant.as_unix_micros() < 0 && instant.subsec_micros() > 0;
    assert!(instants.iter().filter(negative).count() > 500);
    let offsets = drawn(any_offset());
    for minutes in [-1439, -1, 0, 1, 1439] {
        assert!(
            offsets.iter().any(|offset| offset.minutes() == minutes),
            "{minutes}"
        );
    }
    let pairs = drawn(any_pair());
    let neighbours = |(one, another): &&(Timestamp, Timestamp)| {
        one.as_unix_micros().abs_diff(another.as_unix_micros()) == 1
    };
    assert!(pairs.iter().filter(neighbours).count() > 100);
    let written = drawn((any_timestamp(), any_spelling()));
    let written = written
        .iter()
        .filter(|(instant, spelling)| spelling.write(*instant).is_some());
    assert!(written.count() > 3_000);
}

proptest! {
    #[test]
    fn reading_a_canonical_text_gives_back_its_instant(instant in any_timestamp()) {
        let text = instant.to_text();
        prop_assert_eq!(text.len(), 27);
        prop_assert_eq!(text.parse::<Timestamp>(), Ok(instant));
        prop_assert_eq!(instant.to_string(), text.as_str());
    }

    #[test]
    fn the_canonical_text_is_the_one_the_time_crate_would_write(instant in any_timestamp()) {
        let foreign = OffsetDateTime::from(instant);
        let (date, time) = (foreign.date(), foreign.time());
        let expected = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            date.year(), u8::from(date.month()), date.day(),
            time.hour(), time.minute(), time.second(), time.microsecond(),
        );
        prop_assert_eq!(instant.to_string(), expected);
    }

    #[test]
    fn what_strict_rules_read_the_time_crate_reads_as_the_same_instant(text in near_timestamps()) {
        if let Ok(instant) = text.parse::<Timestamp>() {
            let foreign = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
            prop_assert_eq!(Timestamp::try_from(foreign), Ok(instant), "{}", text);
        }
    }

    #[test]
    fn order_of_texts_is_order_of_instants((one, another) in any_pair()) {
        let order = one.cmp(&another);
        prop_assert_eq!(one.to_text().as_str().cmp(another.to_text().as_str()), order);
        prop_assert_eq!(one.to_text().cmp(&another.to_text()), order);
        prop_assert_eq!(one.as_unix_micros().cmp(&another.as_unix_micros()), order);
    }

    #[test]
    fn normalizing_twice_is_normalizing_once(instant in any_timestamp(), spelling in any_spelling()) {
        if let Some(text) = spelling.write(instant) {
            let once = Normalizer::interop().parse(&text).unwrap();
            for rules in [Normalizer::strict(), Normalizer::interop()] {
                prop_assert_eq!(rules.parse(&once.to_text()), Ok(once), "{}", text);
            }
        }
    }

    #[test]
    fn normalizing_twice_is_normalizing_once_whatever_is_read(text in near_timestamps()) {
        let rules = Normalizer::interop().naive(NaivePolicy::AssumeUtc);
        if let Ok(once) = rules.parse(&text) {
            prop_assert_eq!(rules.parse(&once.to_text()), Ok(once));
            prop_assert_eq!(Normalizer::strict().parse(&once.to_text()), Ok(once));
        }
    }

    #[test]
    fn an_instant_is_the_same_in_any_spelling_at_any_offset(
        instant in any_timestamp(),
        strict in strict_spelling(),
        any in any_spelling(),
    ) {
        if let Some(text) = strict.write(instant) {
            prop_assert_eq!(text.parse::<Timestamp>(), Ok(instant), "{}", text);
            let foreign = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
            prop_assert_eq!(Timestamp::try_from(foreign), Ok(instant), "{}", text);
        }
        if let Some(text) = any.write(instant) {
            prop_assert_eq!(Normalizer::interop().parse(&text), Ok(instant), "{}", text);
        }
    }

    #[test]
    fn a_naive_text_is_the_instant_at_the_offset_of_the_policy(
        instant in any_timestamp(),
        offset in any_offset(),
    ) {
        let local = instant.as_unix_micros() + i64::from(offset.minutes()) * 60_000_000;
        // Where the local date leaves the years 1 to 9999 there is no such text.
        if let Ok(local) = Timestamp::from_unix_micros(local) {
            let naive = NaivePolicy::AssumeOffset(offset);
            let text = local.to_text();
            let text = text.trim_end_matches('Z');
            prop_assert_eq!(Normalizer::interop().naive(naive).parse(text), Ok(instant));
            prop_assert!(Normalizer::interop().parse(text).is_err());
            prop_assert!(Normalizer::strict().naive(naive).parse(text).is_err());
        }
    }

    #[test]
    fn flooring_keeps_order_and_loses_less_than_a_microsecond(
        one in -62_135_596_800_000_000_000_i128..=253_402_300_799_999_999_999,
        step in 0_i128..=2_000,
    ) {
        let floored = Timestamp::from_unix_nanos(one).unwrap();
        prop_assert!((0..1_000).contains(&(one - floored.as_unix_nanos())));
        if let Ok(later) = Timestamp::from_unix_nanos(one + step) {
            prop_assert!(floored <= later);
        }
        let again = Timestamp::from_unix_nanos(floored.as_unix_nanos()).unwrap();
        prop_assert_eq!(again, floored);
    }

    #[test]
    fn more_digits_never_make_a_text_earlier_nor_reach_the_next_microsecond(
        instant in any_timestamp(),
        digits in "[0-9]{0,30}",
    ) {
        let text = instant.to_text();
        let longer = format!("{}{digits}Z", text.trim_end_matches('Z'));
        prop_assert_eq!(longer.parse::<Timestamp>(), Ok(instant));
        let exact = Normalizer::strict().sub_micros(SubMicros::Reject).parse(&longer);
        prop_assert_eq!(exact.is_ok(), digits.bytes().all(|digit| digit == b'0'));
    }

    #[test]
    fn adding_and_taking_away_a_duration_cancel_out(
        instant in any_timestamp(),
        micros in 0_u64..=400_000_000_000_000_000,
    ) {
        let duration = Duration::from_micros(micros);
        if let Some(later) = instant.checked_add(duration) {
            prop_assert_eq!(later.checked_sub(duration), Some(instant));
            prop_assert_eq!(later.duration_since(instant), Some(duration));
            prop_assert_eq!(instant.saturating_add(duration), later);
            prop_assert_eq!(instant.saturating_duration_since(later), Duration::ZERO);
        } else {
            prop_assert_eq!(instant.saturating_add(duration), Timestamp::MAX);
        }
        if instant.checked_sub(duration).is_none() {
            prop_assert_eq!(instant.saturating_sub(duration), Timestamp::MIN);
        }
    }

    #[test]
    fn arithmetic_floors_the_exact_result(
        instant in any_timestamp(),
        nanos in 0_u64..=10_000_000_000,
    ) {
        let duration = Duration::from_nanos(nanos);
        let exact = |nanos: i128| Timestamp::from_unix_nanos(instant.as_unix_nanos() + nanos).ok();
        prop_assert_eq!(instant.checked_add(duration), exact(i128::from(nanos)));
        prop_assert_eq!(instant.checked_sub(duration), exact(-i128::from(nanos)));
    }

    #[test]
    fn every_number_is_an_instant_or_out_of_range(number: i64, wide: i128) {
        let results = [
            (Timestamp::from_unix_seconds(number), i128::from(number), 1_000_000_000),
            (Timestamp::from_unix_millis(number), i128::from(number), 1_000_000),
            (Timestamp::from_unix_micros(number), i128::from(number), 1_000),
            (Timestamp::from_unix_nanos(wide), wide, 1),
        ];
        for (result, count, nanos) in results {
            let exact = count.checked_mul(nanos);
            let in_range = exact.is_some_and(|exact| {
                let end = Timestamp::MAX.as_unix_nanos() + 1_000;
                (Timestamp::MIN.as_unix_nanos()..end).contains(&exact)
            });
            match result {
                Ok(instant) => {
                    prop_assert!(in_range);
                    prop_assert_eq!(Some(instant.as_unix_nanos()), exact.map(|n| n.div_euclid(1_000) * 1_000));
                }
                Err(error) => {
                    prop_assert!(!in_range);
                    prop_assert_eq!(error.kind(), ConvertErrorKind::OutOfRange);
                    prop_assert!(error.to_string().contains(&count.to_string()));
                }
            }
        }
    }

    #[test]
    fn a_range_contains_what_its_bounds_say(
        one in any_timestamp(),
        another in any_timestamp(),
        instant in any_timestamp(),
    ) {
        let (start, end) = (one.min(another), one.max(another));
        let range = TimeRange::between(start, end).unwrap();
        prop_assert_eq!(range.contains(instant), start <= instant && instant < end);
        prop_assert_eq!(range, TimeRange::since(start).intersect(TimeRange::before(end)));
        prop_assert_eq!(range.is_empty(), start == end);
        prop_assert_eq!(TimeRange::through(end).contains(instant), instant <= end);
        if start < end {
            prop_assert!(TimeRange::between(end, start).is_err());
        }
    }

    #[test]
    fn an_intersection_contains_what_both_contain(
        bounds in proptest::array::uniform4(proptest::option::of(any_timestamp())),
        instant in any_timestamp(),
    ) {
        let side = |start: Option<Timestamp>, end: Option<Timestamp>| {
            let start = start.map_or(TimeRange::all(), TimeRange::since);
            start.intersect(end.map_or(TimeRange::all(), TimeRange::before))
        };
        let (one, another) = (side(bounds[0], bounds[1]), side(bounds[2], bounds[3]));
        let both = one.intersect(another);
        prop_assert_eq!(both.contains(instant), one.contains(instant) && another.contains(instant));
        prop_assert_eq!(both.is_empty(), another.intersect(one).is_empty());
        if let (Some(start), Some(end)) = (both.start(), both.end()) {
            prop_assert!(start <= end);
        }
    }

    #[test]
    fn the_fuzz_body_holds_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..140)) {
        fuzz::timestamp(&bytes);
    }

    #[test]
    fn the_fuzz_body_holds_on_any_text(text in "\\PC{0,70}") {
        fuzz::timestamp(text.as_bytes());
    }

    #[test]
    fn the_fuzz_body_holds_on_texts_that_are_nearly_timestamps(text in near_timestamps()) {
        fuzz::timestamp(text.as_bytes());
    }
}
