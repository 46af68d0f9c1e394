//! Words: what is kept, what is refused, and that a known word has one form.

use std::collections::HashSet;

use proptest::prelude::*;
use runtree_status::{
    EndReason, OtherReason, RunStatus, UnknownStatus, Word, WordError, WordErrorKind,
};

const STATUS_WORDS: [&str; 5] = ["pending", "running", "completed", "failed", "killed"];
const REASON_WORDS: [&str; 6] = [
    "succeeded",
    "error",
    "timed_out",
    "lost",
    "cancelled_before_start",
    "killed",
];

fn kind_of(text: &str) -> WordErrorKind {
    Word::new(text).expect_err("is no word").kind()
}

#[test]
fn the_known_words_are_those_of_the_design_in_its_order() {
    assert_eq!(RunStatus::KNOWN_WORDS, STATUS_WORDS);
    assert_eq!(EndReason::KNOWN_WORDS, REASON_WORDS);
    let shown: Vec<_> = RunStatus::KNOWN.iter().map(ToString::to_string).collect();
    assert_eq!(shown, STATUS_WORDS);
    let shown: Vec<_> = EndReason::KNOWN.iter().map(ToString::to_string).collect();
    assert_eq!(shown, REASON_WORDS);
}

#[test]
fn words_are_usable_in_constants() {
    const PENDING: &str = RunStatus::Pending.as_str();
    const LOST: &str = EndReason::Lost.as_str();
    assert_eq!((PENDING, LOST), ("pending", "lost"));
}

#[test]
fn values_are_as_small_as_documented() {
    assert_eq!(size_of::<RunStatus>(), 33);
    assert_eq!(size_of::<EndReason>(), 33);
}

#[test]
fn a_known_word_has_one_representation() {
    for status in RunStatus::KNOWN {
        let word = status.to_word();
        assert_eq!(word.as_str(), status.as_str());
        assert_eq!(UnknownStatus::new(word), None);
        assert_eq!(RunStatus::from_word(word), *status);
        assert_eq!(RunStatus::from_stored(status.as_str()), Ok(*status));
        assert_eq!(status.as_str().parse(), Ok(*status));
        assert!(status.is_known());
    }
    for reason in EndReason::KNOWN {
        assert_eq!(OtherReason::new(reason.to_word()), None);
        assert_eq!(EndReason::from_word(reason.to_word()), *reason);
        assert_eq!(EndReason::from_stored(reason.as_str()), Ok(*reason));
        assert_eq!(reason.as_str().parse(), Ok(*reason));
    }
}

#[test]
fn what_is_no_word_is_refused_and_told_why() {
    assert_eq!(kind_of(""), WordErrorKind::Empty);
    assert_eq!(kind_of(&"a".repeat(33)), WordErrorKind::TooLong);
    for (text, at) in [
        ("Pending", 0),
        (" pending", 0),
        ("pending\n", 7),
        ("pen\0ding", 3),
        ("a-b", 1),
        ("ü", 0),
        ("a٣", 1),
    ] {
        assert_eq!(kind_of(text), WordErrorKind::Character { at }, "{text:?}");
        assert!(RunStatus::from_stored(text).is_err(), "{text:?}");
        assert!(EndReason::from_stored(text).is_err(), "{text:?}");
    }
    assert_eq!(
        RunStatus::from_stored("Pending\n").unwrap_err().to_string(),
        "\"Pending\\n\" is not a word: the byte at 0 is not a lower-case letter, a digit or an underscore"
    );
}

#[test]
fn the_longest_word_is_kept() {
    let longest = "z".repeat(32);
    assert_eq!(
        Word::new(&longest).map(|word| word.to_string()),
        Ok(longest)
    );
}

#[test]
fn what_a_person_types_is_one_of_the_known_words_or_an_error_that_lists_them() {
    for text in ["paused", "Running", "running ", "", "RUNNING"] {
        let error = text.parse::<RunStatus>().expect_err("is not one of them");
        assert_eq!(error.expected(), STATUS_WORDS);
        assert_eq!(
            error.to_string(),
            format!(
                "{text:?} is not a run status; expected one of: pending, running, completed, failed, killed"
            )
        );
    }
    assert!("budget_spent".parse::<EndReason>().is_err());
}

#[test]
fn an_errors_text_stays_short_whatever_was_given() {
    let text = "\u{7f}".repeat(10_000);
    let status = text.parse::<RunStatus>().expect_err("is not one of them");
    let word: WordError = Word::new(&text).expect_err("is no word");
    assert!(status.to_string().len() < 500);
    assert!(word.to_string().len() < 500);
}

#[test]
fn listings_show_known_words_as_declared_and_unknown_ones_last() {
    let mut listed: Vec<RunStatus> = ["zzz", "killed", "aaa", "pending", "failed", "running"]
        .iter()
        .map(|word| RunStatus::from_stored(word).expect("is a word"))
        .collect();
    listed.sort();
    let words: Vec<_> = listed.iter().map(RunStatus::as_str).collect();
    assert_eq!(
        words,
        ["pending", "running", "failed", "killed", "aaa", "zzz"]
    );
}

#[test]
fn the_word_alone_says_nothing_of_the_ending_of_an_unknown_status() {
    let ended: Vec<_> = RunStatus::KNOWN.iter().map(RunStatus::is_ended).collect();
    assert_eq!(
        ended,
        [Some(false), Some(false), Some(true), Some(true), Some(true)]
    );
    let unknown = RunStatus::from_stored("archived").expect("is a word");
    assert_eq!(unknown.is_ended(), None);
    assert!(!unknown.is_known());
}

#[test]
fn every_known_reason_goes_with_an_ended_status() {
    for reason in EndReason::KNOWN {
        let status = reason.status().expect("a known reason has a status");
        assert_eq!(status.is_ended(), Some(true), "{reason}");
    }
}

proptest! {
    #[test]
    fn every_word_survives_every_round_trip(text in "[a-z0-9_]{1,32}") {
        let word = Word::new(&text).expect("is a word");
        prop_assert_eq!(word.as_str(), &text);

        let status = RunStatus::from_stored(&text).expect("is a word");
        prop_assert_eq!(status.as_str(), &text);
        prop_assert_eq!(status.to_string(), text.clone());
        prop_assert_eq!(RunStatus::from_word(status.to_word()), status);
        prop_assert_eq!(status.is_known(), STATUS_WORDS.contains(&text.as_str()));
        prop_assert_eq!(text.parse::<RunStatus>().is_ok(), status.is_known());

        let reason = EndReason::from_stored(&text).expect("is a word");
        prop_assert_eq!(reason.as_str(), &text);
        prop_assert_eq!(EndReason::from_word(reason.to_word()), reason);
    }

    #[test]
    fn any_text_is_a_word_exactly_when_its_bytes_are_those_of_a_word(text in "\\PC{0,40}|[a-z0-9_ ]{0,40}") {
        let is_word = (1..=32).contains(&text.len())
            && text.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789_".contains(c));
        prop_assert_eq!(Word::new(&text).is_ok(), is_word);
        prop_assert_eq!(RunStatus::from_stored(&text).is_ok(), is_word);
    }

    #[test]
    fn order_equality_and_hash_are_those_of_the_text(a in "[a-z0-9_]{1,32}", b in "[a-z0-9_]{1,32}") {
        let (x, y) = (Word::new(&a).expect("is a word"), Word::new(&b).expect("is a word"));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        let distinct: HashSet<Word> = [x, y].into();
        prop_assert_eq!(distinct.len() == 1, a == b);
    }
}
