//! What people see, for every combination of the stored facts.

use proptest::prelude::*;
use runtree_status::{EndReason, Phase, PhaseInput, RunStatus, Word, phase};

const WAITING: PhaseInput = PhaseInput {
    status: RunStatus::Pending,
    is_due: true,
    is_cancel_requested: false,
    has_ended: false,
    end_reason: None,
};

fn word(text: &str) -> Word {
    Word::new(text).expect("is a word")
}

fn unknown(text: &str) -> RunStatus {
    RunStatus::from_word(word(text))
}

#[test]
fn a_pending_run_is_scheduled_until_it_is_due() {
    assert_eq!(phase(&WAITING), Phase::Queued);
    let delayed = PhaseInput {
        is_due: false,
        ..WAITING
    };
    assert_eq!(phase(&delayed), Phase::Scheduled);
}

#[test]
fn a_wish_to_cancel_shows_until_the_run_has_ended() {
    for status in [RunStatus::Pending, RunStatus::Running] {
        for is_due in [false, true] {
            let wanted = PhaseInput {
                status,
                is_due,
                is_cancel_requested: true,
                ..WAITING
            };
            assert_eq!(phase(&wanted), Phase::Cancelling);
            let ended = PhaseInput {
                status: RunStatus::Killed,
                has_ended: true,
                end_reason: Some(EndReason::Killed),
                ..wanted
            };
            assert_eq!(phase(&ended), Phase::Ended(EndReason::Killed));
        }
    }
}

#[test]
fn a_running_run_is_running_whether_due_or_not() {
    for is_due in [false, true] {
        let running = PhaseInput {
            status: RunStatus::Running,
            is_due,
            ..WAITING
        };
        assert_eq!(phase(&running), Phase::Running);
    }
}

#[test]
fn an_ending_without_a_reason_shows_the_one_its_status_implies() {
    for (status, reason) in [
        (RunStatus::Completed, EndReason::Succeeded),
        (RunStatus::Failed, EndReason::Error),
        (RunStatus::Killed, EndReason::Killed),
        (unknown("archived"), EndReason::from_word(word("archived"))),
        // Nobody recorded that it succeeded: the status is a word of which nothing is known.
        (
            unknown("succeeded"),
            EndReason::from_word(word("unspecified")),
        ),
        (
            RunStatus::Running,
            EndReason::from_word(word("unspecified")),
        ),
    ] {
        let ended = PhaseInput {
            status,
            has_ended: true,
            ..WAITING
        };
        assert_eq!(phase(&ended), Phase::Ended(reason));
    }
}

#[test]
fn an_ending_status_without_an_end_is_shown_as_it_is_stored() {
    let contradictory = PhaseInput {
        status: RunStatus::Completed,
        ..WAITING
    };
    assert_eq!(phase(&contradictory), Phase::Unknown(word("completed")));
}

#[test]
fn phases_are_shown_by_name_and_word() {
    let shown: Vec<String> = [
        Phase::Scheduled,
        Phase::Queued,
        Phase::Running,
        Phase::Cancelling,
        Phase::Ended(EndReason::TimedOut),
        Phase::Unknown(word("paused")),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    assert_eq!(
        shown,
        [
            "scheduled",
            "queued",
            "running",
            "cancelling",
            "ended (timed_out)",
            "unknown (paused)"
        ]
    );
}

proptest! {
    #[test]
    fn ended_at_alone_decides_whether_a_run_shows_as_ended(
        status in "pending|running|completed|failed|killed|[a-z0-9_]{1,32}",
        reason in prop::option::of("[a-z0-9_]{1,32}"),
        is_due: bool,
        is_cancel_requested: bool,
        has_ended: bool,
    ) {
        let status = RunStatus::from_stored(&status).expect("is a word");
        let end_reason = reason.map(|text| EndReason::from_word(word(&text)));
        let seen = phase(&PhaseInput { status, is_due, is_cancel_requested, has_ended, end_reason });
        prop_assert_eq!(matches!(seen, Phase::Ended(_)), has_ended);
        if let (Phase::Ended(shown), Some(stored)) = (seen, end_reason) {
            prop_assert_eq!(shown, stored);
        }
        if !status.is_known() && !has_ended {
            prop_assert_eq!(seen, Phase::Unknown(status.to_word()));
        }
    }
}
