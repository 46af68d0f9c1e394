//! Every case of `tests/corpus`; its README says what a case looks like.

use std::{collections::BTreeMap, fs, path::Path};

use runtree_testkit::fuzz;
use runtree_time::{NaivePolicy, Normalizer, Profile, SubMicros, Timestamp, UtcOffset};

#[test]
fn every_valid_text_becomes_its_canonical_text() {
    for case in cases(
        "valid",
        &["profile", "naive", "sub-micros", "input", "text"],
    ) {
        let input = case.input();
        let expected: Timestamp = case.get("text").parse().expect("because it is canonical");
        for rules in case.rules() {
            match rules.parse(&input) {
                Ok(read) => assert_eq!(read, expected, "{}: {input:?}", case.name),
                Err(error) => panic!("{}: {input:?}: {error}", case.name),
            }
        }
        assert_eq!(
            expected.to_text().as_str(),
            case.get("text"),
            "{}",
            case.name
        );
    }
}

#[test]
fn every_invalid_text_is_refused_for_its_reason() {
    let keys = ["profile", "naive", "sub-micros", "input", "kind", "offset"];
    for case in cases("invalid", &keys) {
        let input = case.input();
        for rules in case.rules() {
            let error = match rules.parse(&input) {
                Ok(read) => panic!("{}: {input:?} was read as {read}", case.name),
                Err(error) => error,
            };
            let found = (format!("{:?}", error.kind()), error.offset().to_string());
            let expected = (case.get("kind").to_owned(), case.get("offset").to_owned());
            assert_eq!(found, expected, "{}: {error}", case.name);
        }
    }
}

#[test]
fn every_text_that_strict_rules_read_tolerant_rules_read_alike() {
    for case in cases("valid", &[]) {
        let input = case.input();
        if let Ok(read) = input.parse::<Timestamp>() {
            assert_eq!(
                Normalizer::interop().parse(&input),
                Ok(read),
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn every_kind_of_error_has_a_case() {
    let cases = cases("invalid", &[]);
    for kind in [
        "Empty",
        "TooLong",
        "NonAscii",
        "Number",
        "Syntax",
        "InteropForm",
        "Naive",
        "NoSuchField",
        "EndOfDay",
        "LeapSecond",
        "NoSuchOffset",
        "OutOfRange",
        "SubMicros",
        "CriticalAnnotation",
    ] {
        assert!(cases.iter().any(|case| case.get("kind") == kind), "{kind}");
    }
}

#[test]
fn the_fuzz_body_holds_on_every_case() {
    for case in cases("valid", &[]).iter().chain(&cases("invalid", &[])) {
        fuzz::timestamp(case.input().as_bytes());
        fuzz::timestamp(case.file.as_bytes());
    }
}

/// The invalid cases for other tests: name, text, and each set of rules that it is read under.
pub(crate) fn invalid() -> impl Iterator<Item = (String, String, Normalizer)> {
    cases("invalid", &[]).into_iter().flat_map(|case| {
        let (name, input) = (case.name.clone(), case.input());
        let rules = case.rules().into_iter();
        rules.map(move |rules| (name.clone(), input.clone(), rules))
    })
}

/// The texts of all cases, valid and invalid.
pub(crate) fn texts() -> Vec<String> {
    let (valid, invalid) = (cases("valid", &[]), cases("invalid", &[]));
    valid.iter().chain(&invalid).map(Case::input).collect()
}

struct Case {
    name: String,
    file: String,
    fields: BTreeMap<String, String>,
}

impl Case {
    fn get(&self, key: &str) -> &str {
        match self.fields.get(key) {
            Some(value) => value,
            None => panic!("{} has no line {key}", self.name),
        }
    }

    fn input(&self) -> String {
        serde_json::from_str(self.get("input")).expect("because an input is a JSON string")
    }

    /// The rules that the case asks for: one for each profile it concerns.
    fn rules(&self) -> Vec<Normalizer> {
        let profiles = match self.fields.get("profile").map(String::as_str) {
            None => vec![Profile::Strict, Profile::Interop],
            Some("strict") => vec![Profile::Strict],
            Some("interop") => vec![Profile::Interop],
            Some(other) => panic!("{}: no profile {other}", self.name),
        };
        let naive = match self.fields.get("naive").map(String::as_str) {
            None => NaivePolicy::Reject,
            Some("utc") => NaivePolicy::AssumeUtc,
            Some(minutes) => {
                let minutes = minutes.parse().expect("because minutes are a number");
                let offset = UtcOffset::from_minutes(minutes).expect("because it is an offset");
                NaivePolicy::AssumeOffset(offset)
            }
        };
        let sub_micros = match self.fields.get("sub-micros").map(String::as_str) {
            None => SubMicros::Floor,
            Some("reject") => SubMicros::Reject,
            Some(other) => panic!("{}: no sub-micros {other}", self.name),
        };
        let rules = |profile| Normalizer::new(profile).naive(naive).sub_micros(sub_micros);
        profiles.into_iter().map(rules).collect()
    }
}

/// Reads the cases of a directory; of their keys, only those named may occur, if any are named.
fn cases(directory: &str, keys: &[&str]) -> Vec<Case> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases = Vec::new();
    for entry in fs::read_dir(corpus.join(directory)).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{directory}/{}", path.file_name().unwrap().display());
        let file = fs::read_to_string(&path).unwrap();
        let mut fields = BTreeMap::new();
        for line in file.lines() {
            let Some((key, value)) = line.split_once(": ") else {
                panic!("{name}: no key in {line:?}");
            };
            assert!(keys.is_empty() || keys.contains(&key), "{name}: key {key}");
            let before = fields.insert(key.to_owned(), value.to_owned());
            assert_eq!(before, None, "{name}: key {key} twice");
        }
        cases.push(Case { name, file, fields });
    }
    assert!(!cases.is_empty(), "{directory} has no cases");
    cases
}
