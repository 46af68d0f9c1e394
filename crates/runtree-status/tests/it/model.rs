//! Random histories, checked by a model that does not know the table.

use proptest::prelude::*;
use runtree_status::{Event, RunStatus};

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

    #[test]
    fn an_unknown_status_allows_nothing(word in "[a-z0-9_]{1,32}", events in events()) {
        let status = RunStatus::from_stored(&word).expect("is a word");
        prop_assume!(!status.is_known());
        for event in events {
            prop_assert!(status.apply(event).is_err(), "{} in {}", event, status);
        }
    }
}
