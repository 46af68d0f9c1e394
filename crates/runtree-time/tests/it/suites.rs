//! The texts of public suites: what each says, what we say, and a reason wherever the two differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use runtree_testkit::fuzz;
use runtree_time::{NaivePolicy, Normalizer, ParseError, Timestamp};

/// How the texts of a section are put to the parser.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// As they are.
    Whole,
    /// As times of day, after a date.
    AfterDate,
}

/// The sections, with how many texts each has: one that is lost or cut off is seen.
const SECTIONS: [(&str, Way, usize); 8] = [
    ("JSON Schema: date-time", Way::Whole, 24),
    ("JSON Schema: date", Way::Whole, 69),
    ("JSON Schema: time", Way::AfterDate, 43),
    ("toml-test: offset date-times", Way::Whole, 51),
    ("toml-test: no seconds", Way::Whole, 3),
    ("toml-test: local date-times and dates", Way::Whole, 42),
    ("toml-test: local times", Way::AfterDate, 12),
    ("test262: Temporal.Instant.from", Way::Whole, 50),
];

#[test]
fn every_text_of_the_suites_is_read_as_stated() {
    for case in cases() {
        let (strict, loosest) = case.verdicts();
        assert_eq!(
            strict, case.strict,
            "{:?} under {}",
            case.text, case.section
        );
        assert_eq!(
            loosest, case.loosest,
            "{:?} under {}",
            case.text, case.section
        );
    }
}

#[test]
fn a_reason_is_given_exactly_where_a_verdict_is_not_the_suites() {
    let reasons: BTreeSet<String> = rows("Reasons").map(|row| row[0].clone()).collect();
    let mut given = BTreeSet::new();
    for case in cases() {
        let agrees = |verdict: &str| (case.suite == "valid") == is_instant(verdict);
        let differs = !agrees(&case.strict) || !agrees(&case.loosest);
        assert_eq!(
            !case.why.is_empty(),
            differs,
            "{:?} under {}",
            case.text,
            case.section
        );
        if differs {
            assert!(
                reasons.contains(&case.why),
                "{:?}: no reason {}",
                case.text,
                case.why
            );
            given.insert(case.why);
        }
    }
    assert_eq!(given, reasons, "a reason that nothing needs");
}

#[test]
fn of_offset_date_times_the_strict_profile_accepts_exactly_what_the_suites_do() {
    for case in cases() {
        if case.section == "JSON Schema: date-time"
            || case.section == "toml-test: offset date-times"
        {
            assert_eq!(
                is_instant(&case.strict),
                case.suite == "valid",
                "{:?}",
                case.text
            );
        }
    }
}

#[test]
fn the_fuzz_body_holds_on_every_text_of_the_suites() {
    for case in cases() {
        fuzz::timestamp(case.text.as_bytes());
    }
}

#[test]
fn every_section_is_there_and_whole() {
    let mut found = BTreeMap::new();
    for case in cases() {
        *found.entry(case.section).or_insert(0) += 1;
        assert!(
            ["valid", "invalid"].contains(&&*case.suite),
            "{:?}",
            case.text
        );
    }
    let expected: BTreeMap<_, _> = SECTIONS.map(|(title, _, count)| (title, count)).into();
    assert_eq!(found, expected);
}

struct Case {
    section: &'static str,
    way: Way,
    text: String,
    suite: String,
    strict: String,
    loosest: String,
    why: String,
}

impl Case {
    /// What the strict and the loosest rules make of the text.
    fn verdicts(&self) -> (String, String) {
        let loosest = Normalizer::interop().naive(NaivePolicy::AssumeUtc);
        (self.verdict(&Normalizer::strict()), self.verdict(&loosest))
    }

    fn verdict(&self, rules: &Normalizer) -> String {
        let read: Result<Timestamp, ParseError> = match self.way {
            Way::Whole => rules.parse(&self.text),
            // A leap second at an eastern offset is on the day after in local time.
            Way::AfterDate => rules
                .parse(&format!("1998-12-31T{}", self.text))
                .or_else(|first| {
                    let next = format!("1999-01-01T{}", self.text);
                    rules.parse(&next).map_err(|_| first)
                }),
        };
        match read {
            Ok(instant) => instant.to_string(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }
}

/// A verdict is an instant, which begins with its year, or the name of an error.
fn is_instant(verdict: &str) -> bool {
    verdict.starts_with(|first: char| first.is_ascii_digit())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, way, _) in SECTIONS {
        for row in rows(section) {
            let [text, suite, strict, loosest, why] = &row[..] else {
                panic!("{section}: {row:?} has not five cells");
            };
            let text = serde_json::from_str(text.trim_matches('`'));
            cases.push(Case {
                section,
                way,
                text: text.expect("because a text is a JSON string"),
                suite: suite.clone(),
                strict: strict.clone(),
                loosest: if loosest.is_empty() { strict } else { loosest }.clone(),
                why: why.clone(),
            });
        }
    }
    cases
}

/// The rows of the table under a heading, without its two first lines.
fn rows(heading: &str) -> impl Iterator<Item = Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/suites.md");
    let page = fs::read_to_string(path).unwrap();
    let heading = format!("## {heading}");
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let table = lines
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| "))
        .skip(1)
        // A cell of white space counts: only the bars at the ends part nothing.
        .map(|line| line.trim_start_matches("| ").trim_end_matches('|'))
        .map(|line| {
            line.split(" |")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect::<Vec<Vec<String>>>();
    table.into_iter()
}
