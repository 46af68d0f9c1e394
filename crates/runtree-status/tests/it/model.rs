//! Random histories, checked by a model that does not know the table.

use proptest::prelude::*;
use runtree_status::{Event, RunStatus, TransitionErrorKind};

/// A run as somebody would write it down who never saw the table: three facts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct NaiveRun {
    is_held: bool,
    ending: Option<&'static str>,
}

impl NaiveRun {
    fn word(self) -> &'static str {
        match self {
            Self {
                ending: Some(word), ..
            } => word,
            Self { is_held: true, .. } => "running",
            Self { is_held: false, .. } => "pending",
        }
    }

    /// Returns whether the event happened.
    fn see(&mut self, event: Event) -> bool {
        let is_over = self.ending.is_some();
        let event = event.as_str();
        let needs_holder = matches!(
            event,
            "renew" | "complete" | "release" | "force_kill" | "acknowledge_cancel"
        ) || event.starts_with("fail")
            || event.starts_with("rescue")
            || event.starts_with("request");
        if event == "annotate" {
            return true;
        }
        if event == "retry" {
            return is_over;
        }
        if is_over || event == "create" || (needs_holder && !self.is_held) {
            return false;
        }
        if self.is_held && matches!(event, "claim" | "cancel_before_start") {
            return false;
        }
        self.is_held = match event {
            "claim" => true,
            "release" | "fail_retry" | "rescue_pending" => false,
            _ => self.is_held,
        };
        self.ending = match event {
            "complete" => Some("completed"),
            "fail" | "rescue_lost" | "time_out" => Some("failed"),
            "fail_cancelled"
            | "rescue_killed"
            | "force_kill"
            | "acknowledge_cancel"
            | "cancel_before_start" => Some("killed"),
            _ => None,
        };
        true
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(prop::sample::select(Event::ALL.to_vec()), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_history_agrees_with_the_model_and_ends_at_most_once(events in events()) {
        let mut status = RunStatus::Pending;
        let mut model = NaiveRun { is_held: false, ending: None };
        let mut endings = 0;
        for event in events {
            let before = status;
            let happened = match status.apply(event) {
                Ok(after) => {
                    status = after;
                    true
                }
                Err(_) => false,
            };
            prop_assert_eq!(happened, model.see(event), "{} in {}", event, before);
            prop_assert_eq!(status.as_str(), model.word());
            if before.is_ended() == Some(true) {
                prop_assert_eq!(status, before);
            } else if status.is_ended() == Some(true) {
                endings += 1;
            }
        }
        prop_assert!(endings <= 1);
    }

    /// Two readers of different versions share a row: the older one passes the word on and acts on nothing.
    #[test]
    fn an_unknown_word_that_went_through_every_round_trip_still_allows_nothing(
        word in "[a-z0-9_]{1,32}",
        trips in prop::collection::vec(0..3_u8, 0..8),
        events in events(),
    ) {
        prop_assume!(!RunStatus::KNOWN_WORDS.contains(&word.as_str()));
        let mut status = RunStatus::from_stored(&word).expect("is a word");
        for trip in trips {
            status = match trip {
                0 => RunStatus::from_stored(&status.to_string()).expect("is a word"),
                1 => RunStatus::from_word(status.to_word()),
                _ => RunStatus::from_stored(status.as_str()).expect("is a word"),
            };
        }
        prop_assert_eq!(status.as_str(), word);
        for event in events {
            let refused = status.apply(event).expect_err("nothing is allowed");
            prop_assert_eq!(refused.kind(), TransitionErrorKind::Invalid);
            prop_assert!(!event.transition().from.contains(&status));
        }
    }

    /// Whatever word a history begins with, it ends at most once, and an ended one not again.
    #[test]
    fn a_history_from_any_word_ends_at_most_once(
        word in prop_oneof![
            prop::sample::select(RunStatus::KNOWN_WORDS.to_vec()).prop_map(str::to_owned),
            "[a-z0-9_]{1,32}",
        ],
        events in events(),
    ) {
        let mut status = RunStatus::from_stored(&word).expect("is a word");
        let began_ended = status.is_ended() == Some(true);
        let mut endings = 0;
        for event in events {
            let before = status;
            status = status.apply(event).unwrap_or(status);
            if status != before && status.is_ended() == Some(true) {
                endings += 1;
            }
        }
        let most = i32::from(!began_ended && RunStatus::KNOWN_WORDS.contains(&word.as_str()));
        prop_assert!(endings <= most, "{} endings from {}", endings, word);
    }
}
