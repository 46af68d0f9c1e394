//! The transition table, asked exhaustively and held against the design.

use std::collections::HashSet;

use runtree_status::{Event, RunStatus, TRANSITIONS, TransitionErrorKind};

/// What the table says of each event in each status, written by hand: `!` invalid, `=` no-op,
/// a letter the status it leads to. Columns: pending, running, completed, failed, killed,
/// unknown.
const OUTCOMES: [(&str, &str); 19] = [
    ("create", "=!!!!!"),
    ("claim", "R=!!!!"),
    ("renew", "!R!!!!"),
    ("complete", "!C=!!!"),
    ("fail_retry", "=P!!!!"),
    ("fail", "!F!=!!"),
    ("fail_cancelled", "!K!!=!"),
    ("cancel_before_start", "K!!!=!"),
    ("request_cancel", "!R!!!!"),
    ("acknowledge_cancel", "!K!!=!"),
    ("force_kill", "!K!!=!"),
    ("rescue_pending", "=P!!!!"),
    ("rescue_lost", "!F!=!!"),
    ("rescue_killed", "!K!!=!"),
    ("release", "=P!!!!"),
    ("request_time_out", "!R!!!!"),
    ("time_out", "FF!=!!"),
    ("retry", "!!CFK!"),
    ("annotate", "PRCFK!"),
];

fn statuses() -> Vec<RunStatus> {
    let unknown = RunStatus::from_stored("archived").expect("is a word");
    RunStatus::KNOWN.iter().copied().chain([unknown]).collect()
}

fn outcome(status: RunStatus, event: Event) -> char {
    match status.apply(event) {
        Ok(RunStatus::Pending) => 'P',
        Ok(RunStatus::Running) => 'R',
        Ok(RunStatus::Completed) => 'C',
        Ok(RunStatus::Failed) => 'F',
        Ok(RunStatus::Killed) => 'K',
        Ok(other) => panic!("{event} leads from {status} to {other}"),
        Err(error) => {
            assert_eq!((error.status(), error.event()), (status, event));
            match error.kind() {
                TransitionErrorKind::NoOp => '=',
                TransitionErrorKind::Invalid => '!',
                other => panic!("{other:?} is new"),
            }
        }
    }
}

#[test]
fn every_event_in_every_status_has_the_outcome_written_here() {
    let found: Vec<(String, String)> = Event::ALL
        .iter()
        .map(|event| {
            let outcomes = statuses().into_iter().map(|status| outcome(status, *event));
            (event.to_string(), outcomes.collect())
        })
        .collect();
    let expected: Vec<(String, String)> = OUTCOMES
        .iter()
        .map(|(event, outcomes)| ((*event).to_owned(), (*outcomes).to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_event_has_one_row_and_one_word() {
    let words: HashSet<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
    assert_eq!(words.len(), TRANSITIONS.len());
    for (row, event) in TRANSITIONS.iter().zip(Event::ALL) {
        assert_eq!(row.event, event);
        assert_eq!(event.transition(), row);
    }
}

#[test]
fn the_rows_cover_the_numbers_of_the_design_in_order() {
    let mut numbers: Vec<u8> = TRANSITIONS.iter().map(|row| row.number).collect();
    assert!(numbers.is_sorted());
    numbers.dedup();
    assert_eq!(numbers, (1..=14).collect::<Vec<u8>>());
}

#[test]
fn a_row_names_an_end_reason_exactly_when_it_ends_a_run_and_the_two_agree() {
    for row in TRANSITIONS {
        let ended_status = row.to.filter(|to| to.is_ended() == Some(true));
        let reason_status = row.end_reason.and_then(|reason| reason.status());
        assert_eq!(reason_status, ended_status, "{}", row.event);
    }
}

#[test]
fn no_row_leads_out_of_an_ended_status() {
    for row in TRANSITIONS {
        for from in row.from {
            if from.is_ended() == Some(true) {
                assert_eq!(row.to, None, "{} leaves {from}", row.event);
            }
        }
    }
}

#[test]
fn texts_fit_a_table_cell() {
    for row in TRANSITIONS {
        for text in [row.guard, row.effect] {
            assert!(!text.contains(['|', '\n']), "{}: {text}", row.event);
            assert_eq!(text.trim(), text);
        }
    }
}

#[test]
fn a_refusal_names_the_event_and_the_status() {
    let invalid = RunStatus::Completed.apply(Event::Claim).unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "the event is not allowed in this status (claim, completed)"
    );
    let no_op = RunStatus::Killed.apply(Event::ForceKill).unwrap_err();
    assert_eq!(
        no_op.to_string(),
        "the run already is where the event leads (force_kill, killed)"
    );
}
