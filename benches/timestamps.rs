//! Timestamps: reading and writing the canonical 27 bytes, beside the crates one would otherwise take.

use std::{cell::Cell, fmt::Write, hint::black_box};

use chrono04::{DateTime as ChronoDateTime, FixedOffset, SecondsFormat, Utc};
use jiff02::{
    Timestamp as JiffTimestamp,
    fmt::{
        StdFmtWrite,
        temporal::{DateTimeParser, DateTimePrinter},
    },
};
use runtree_benches::{Bench, Group, Options, StackText};
use runtree_time::{Normalizer, Timestamp, TimestampText};
use speedate::DateTime as SpeedateDateTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

fn main() {
    let bench = Bench::new(Options::from_args());
    let instants = instants();
    let texts = instants.map(Timestamp::to_text);
    check(&instants);
    parse(&bench, &texts);
    format(&bench, &instants);
    format_to_string(&bench, &instants);
    other_forms(&bench);
}

/// How many values each side works through in turn; one alone would be learnt by heart by the branch predictor.
const COUNT: usize = 64;

/// Instants of all the years with four digits, each with six digits of fraction that are not zero at the end.
fn instants() -> [Timestamp; COUNT] {
    let whole = Timestamp::MIN
        .as_unix_micros()
        .abs_diff(Timestamp::MAX.as_unix_micros());
    // Multiples of the golden ratio fall evenly and without a pattern.
    let mut micros = 0_u64;
    std::array::from_fn(|_| {
        micros = (micros + whole / 1_000 * 618) % whole;
        let offset = i64::try_from(micros / 10 * 10 + 7).expect("because the range fits");
        Timestamp::from_unix_micros(Timestamp::MIN.as_unix_micros() + offset)
            .expect("because the offset is within the range")
    })
}

/// Hands out the values in turn, for ever.
fn turns<'a, T>(values: &'a [T; COUNT]) -> impl Fn() -> &'a T {
    let next = Cell::new(0);
    move || {
        let index = next.get();
        next.set((index + 1) % COUNT);
        black_box(&values[index])
    }
}

fn parse(bench: &Bench, texts: &[TimestampText; COUNT]) {
    let strings = texts.map(|text| text.to_string());
    let (ours, of_time, of_jiff) = (turns(&strings), turns(&strings), turns(&strings));
    let (of_chrono, of_speedate) = (turns(&strings), turns(&strings));
    let jiff = DateTimeParser::new();
    bench.run(
        Group::new("timestamp/parse")
            .reference("time", || OffsetDateTime::parse(of_time(), &Rfc3339))
            .goal("runtree", 0.9, || ours().parse::<Timestamp>())
            .side("jiff", || jiff.parse_timestamp(of_jiff()))
            .side("chrono", || {
                ChronoDateTime::<FixedOffset>::parse_from_rfc3339(of_chrono())
            })
            .side("speedate", || {
                SpeedateDateTime::parse_bytes_rfc3339(of_speedate().as_bytes())
            }),
    );
}

/// Writes to the stack, which every side can.
fn format(bench: &Bench, instants: &[Timestamp; COUNT]) {
    let (time, jiff, chrono, speedate) = peers(instants);
    let (ours, of_time, of_jiff) = (turns(instants), turns(&time), turns(&jiff));
    let (of_chrono, of_speedate) = (turns(&chrono), turns(&speedate));
    bench.run(
        Group::new("timestamp/format on the stack")
            .reference("time", || format_time(*of_time()))
            .goal("runtree", 0.7, || {
                black_box(ours().to_text()).as_str().len()
            })
            .side("runtree, as bytes", || {
                black_box(ours().to_text()).as_bytes().len()
            })
            .side("jiff", || format_jiff(*of_jiff()))
            .side("chrono", || format_chrono(of_chrono()))
            .side("speedate", || format_speedate(of_speedate())),
    );
}

/// Writes to a new string, the way that costs least to type.
fn format_to_string(bench: &Bench, instants: &[Timestamp; COUNT]) {
    let (time, jiff, chrono, speedate) = peers(instants);
    let (ours, of_time, of_jiff) = (turns(instants), turns(&time), turns(&jiff));
    let (of_chrono, of_speedate) = (turns(&chrono), turns(&speedate));
    bench.run(
        Group::new("timestamp/format to a string")
            .reference("time", || of_time().format(&Rfc3339))
            .side("runtree", || ours().to_string())
            .side("runtree, of its text", || {
                ours().to_text().as_str().to_owned()
            })
            .side("jiff", || of_jiff().to_string())
            .side("chrono", || {
                of_chrono().to_rfc3339_opts(SecondsFormat::Micros, true)
            })
            .side("speedate", || of_speedate().to_string()),
    );
}

/// Reads forms that are not canonical, which go through the scanner.
fn other_forms(bench: &Bench) {
    for (name, text) in [
        ("timestamp/parse without fraction", "2025-06-22T10:00:00Z"),
        (
            "timestamp/parse with offset",
            "2025-06-22T12:00:00.123456+02:00",
        ),
    ] {
        let text = || black_box(text);
        let strict = Normalizer::strict();
        bench.run(
            Group::new(name)
                .reference("time", || OffsetDateTime::parse(text(), &Rfc3339))
                .side("runtree", || strict.parse(text()))
                .side("jiff", || text().parse::<JiffTimestamp>())
                .side("chrono", || {
                    ChronoDateTime::<FixedOffset>::parse_from_rfc3339(text())
                })
                .side("speedate", || {
                    SpeedateDateTime::parse_bytes_rfc3339(text().as_bytes())
                }),
        );
    }
}

type Peers = (
    [OffsetDateTime; COUNT],
    [JiffTimestamp; COUNT],
    [ChronoDateTime<Utc>; COUNT],
    [SpeedateDateTime; COUNT],
);

/// Makes the same instants in the peers' types.
fn peers(instants: &[Timestamp; COUNT]) -> Peers {
    let because = "because every peer reads the canonical text";
    let texts = instants.map(|instant| instant.to_string());
    (
        instants.map(OffsetDateTime::from),
        texts.each_ref().map(|text| text.parse().expect(because)),
        texts.each_ref().map(|text| text.parse().expect(because)),
        texts
            .each_ref()
            .map(|text| SpeedateDateTime::parse_str(text).expect(because)),
    )
}

fn format_time(value: OffsetDateTime) -> usize {
    let mut text = StackText::new();
    // The count it answers leaves digits of the fraction out, so the text is asked instead.
    let written = value.format_into(&mut text, &Rfc3339);
    written.map_or(0, |_| black_box(&text).as_bytes().len())
}

fn format_jiff(value: JiffTimestamp) -> usize {
    const PRINTER: DateTimePrinter = DateTimePrinter::new();
    let mut text = StackText::new();
    let written = PRINTER.print_timestamp(&value, StdFmtWrite(&mut text));
    written.map_or(0, |()| black_box(&text).as_bytes().len())
}

fn format_chrono(value: &ChronoDateTime<Utc>) -> usize {
    let mut text = StackText::new();
    let written = write!(text, "{:?}", value);
    written.map_or(0, |()| black_box(&text).as_bytes().len())
}

fn format_speedate(value: &SpeedateDateTime) -> usize {
    let mut text = StackText::new();
    let written = write!(text, "{value}");
    written.map_or(0, |()| black_box(&text).as_bytes().len())
}

/// Checks that all sides do the same work: a measurement of something else is worth nothing.
fn check(instants: &[Timestamp; COUNT]) {
    let (time, jiff, chrono, speedate) = peers(instants);
    for index in 0..COUNT {
        let expected = instants[index].to_string();
        let written = [
            time[index]
                .format(&Rfc3339)
                .expect("because the year has four digits"),
            jiff[index].to_string(),
            chrono[index].to_rfc3339_opts(SecondsFormat::Micros, true),
            format!("{:?}", chrono[index]),
            speedate[index].to_string(),
        ];
        for text in written {
            assert_eq!(text, expected);
        }
        for len in [
            format_time(time[index]),
            format_jiff(jiff[index]),
            format_chrono(&chrono[index]),
            format_speedate(&speedate[index]),
        ] {
            assert_eq!(len, TimestampText::LEN);
        }
    }
}
