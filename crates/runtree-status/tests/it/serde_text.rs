//! Serde writes text and reads it tolerantly.

use std::collections::BTreeMap;

use proptest::prelude::*;
use runtree_status::{EndReason, RunStatus};

#[test]
fn words_are_written_as_text() {
    let text = serde_json::to_string(&(RunStatus::Running, EndReason::TimedOut));
    assert_eq!(text.expect("is JSON"), r#"["running","timed_out"]"#);
}

#[test]
fn what_is_no_word_is_an_error() {
    for json in [r#""Running""#, r#""""#, "1", "null", r#"{"running":null}"#] {
        assert!(serde_json::from_str::<RunStatus>(json).is_err(), "{json}");
        assert!(serde_json::from_str::<EndReason>(json).is_err(), "{json}");
    }
}

#[test]
fn statuses_can_be_keys_and_are_listed_in_their_order_the_unknown_last() {
    let archived = RunStatus::from_stored("archived").expect("is a word");
    let counts = BTreeMap::from([
        (archived, 3),
        (RunStatus::Killed, 2),
        (RunStatus::Pending, 1),
    ]);
    let text = serde_json::to_string(&counts).expect("is JSON");
    assert_eq!(text, r#"{"pending":1,"killed":2,"archived":3}"#);
    let read: BTreeMap<RunStatus, i32> = serde_json::from_str(&text).expect("is its own JSON");
    assert_eq!(read, counts);
}

/// A text with an escape, and one from a reader, are not borrowed from the input.
#[test]
fn a_word_is_read_from_any_kind_of_text() {
    let escaped: RunStatus = serde_json::from_str(r#""arch\u0069ved""#).expect("is a word");
    let streamed: RunStatus = serde_json::from_reader(&b"\"archived\""[..]).expect("is a word");
    let value: RunStatus =
        serde_json::from_value(serde_json::json!("archived")).expect("is a word");
    for status in [escaped, streamed, value] {
        assert_eq!(status.as_str(), "archived");
    }
}

proptest! {
    #[test]
    fn unknown_words_survive_serde(text in "[a-z0-9_]{1,32}") {
        let json = format!("\"{text}\"");
        let status: RunStatus = serde_json::from_str(&json).expect("is a word");
        let reason: EndReason = serde_json::from_str(&json).expect("is a word");
        prop_assert_eq!(serde_json::to_string(&status).expect("is JSON"), json.clone());
        prop_assert_eq!(serde_json::to_string(&reason).expect("is JSON"), json);
    }
}
