//! Tests of the generator's core with the standard library's atomic word, which a model checker replaces in `tests/it/model.rs`.

use crate::atomic::Ordering;
use crate::tick::{
    BEHIND_LIMIT, FRACTION_BITS, LAST, LEAD_LIMIT, Refused, SECOND, Span, Tick, View,
};

const NOW: u64 = 1_700_000_000_000 << FRACTION_BITS;

fn next(last: u64, latest: u64, now: u64, count: u64) -> Result<Span, Refused> {
    View::new(last, latest, now).next(count)
}

fn span(first: u64) -> Result<Span, Refused> {
    Ok(Span {
        first,
        restarted_from: None,
    })
}

#[test]
fn the_clock_leads_when_it_is_ahead() {
    assert_eq!(next(NOW - 1, NOW + 5, NOW + 5, 1), span(NOW + 5));
    assert_eq!(next(0, NOW, NOW, 1), span(NOW));
}

#[test]
fn the_count_leads_when_the_clock_stands_still_or_is_behind() {
    assert_eq!(next(NOW, NOW, NOW, 1), span(NOW + 1));
    for behind in [1, SECOND, BEHIND_LIMIT] {
        assert_eq!(next(NOW, NOW, NOW - behind, 3), span(NOW + 1));
    }
}

#[test]
fn counting_stays_within_a_second_of_the_latest_instant_shown() {
    for behind in [0, 1, SECOND, BEHIND_LIMIT] {
        let now = NOW - behind;
        let full = NOW + LEAD_LIMIT;
        assert_eq!(next(full - 1, NOW, now, 1), span(full));
        assert_eq!(next(full - 1, NOW, now, 2), Err(Refused::Ahead));
        assert_eq!(next(full, NOW, now, 1), Err(Refused::Ahead));
    }
}

#[test]
fn a_clock_too_far_behind_starts_the_count_again() {
    let now = NOW - BEHIND_LIMIT - 1;
    let restarted = Span {
        first: now,
        restarted_from: Some(NOW),
    };
    assert_eq!(next(NOW, NOW, now, 1), Ok(restarted));
}

#[test]
fn a_count_that_started_again_does_not_do_so_twice() {
    let now = NOW - BEHIND_LIMIT - 1;
    assert_eq!(next(now + 7, NOW, now, 1), span(now + 8));
    assert_eq!(next(now + LEAD_LIMIT, NOW, now, 1), Err(Refused::Ahead));
}

#[test]
fn a_count_that_ran_to_a_leap_proves_that_the_clock_showed_it() {
    // `latest` was written by a thread that had read the clock before it leapt.
    let leapt = NOW + 6 * BEHIND_LIMIT;
    let restarted = Span {
        first: NOW,
        restarted_from: Some(leapt),
    };
    assert_eq!(next(leapt, NOW, NOW, 1), Ok(restarted));
}

#[test]
fn a_restart_by_another_thread_is_no_reason_to_refuse() {
    // This thread read the last tick, then the clock stepped back and another thread started
    // the count again, before this one asked what the clock had shown.
    let tick = Tick::new();
    let far = NOW - BEHIND_LIMIT - 1;
    assert_eq!(tick.take(1, || Ok::<u64, Refused>(NOW)), span(NOW));
    let readings = std::cell::Cell::new(0);
    let taken = tick.take(1, || {
        readings.set(readings.get() + 1);
        if readings.get() == 1 {
            let other = tick.take(1, || Ok::<u64, Refused>(far));
            assert_eq!(other.map(|span| span.restarted_from), Ok(Some(NOW)));
        }
        Ok::<u64, Refused>(far)
    });
    assert_eq!(taken, span(far + 1));
}

#[test]
fn a_restart_is_told_to_the_next_caller() {
    let tick = Tick::new();
    let take = |now: u64| tick.take(1, || Ok::<u64, Refused>(now));
    assert_eq!(take(NOW), span(NOW));
    let far = NOW - BEHIND_LIMIT - 1;
    assert_eq!(take(far).map(|span| span.restarted_from), Ok(Some(NOW)));
    assert_eq!(take(far), span(far + 1));
    // It remembers whole milliseconds.
    let start = far >> FRACTION_BITS << FRACTION_BITS;
    assert_eq!(tick.latest.load(Ordering::Acquire), start);
}

#[test]
fn a_reading_older_than_what_others_took_since_does_not_start_the_count_again() {
    // This thread read the last tick and then the clock, and was stopped for a minute
    // while others went on; the exchange fails and it looks again.
    let tick = Tick::new();
    let minute = 60 * SECOND;
    let readings = std::cell::Cell::new(0);
    let taken = tick.take(1, || {
        readings.set(readings.get() + 1);
        if readings.get() > 1 {
            return Ok(NOW + minute);
        }
        let others = tick.take(1, || Ok::<u64, Refused>(NOW + minute));
        assert_eq!(others, span(NOW + minute));
        Ok::<u64, Refused>(NOW)
    });
    assert_eq!(taken, span(NOW + minute + 1));
}

#[test]
fn the_count_ends_with_the_year_9999() {
    assert_eq!(next(LAST - 1, LAST, LAST, 1), span(LAST));
    assert_eq!(next(LAST, LAST, LAST, 1), Err(Refused::PastEnd));
    assert_eq!(next(LAST - 2, LAST - 1, LAST - 1, 2), span(LAST - 1));
    assert_eq!(next(LAST - 2, LAST - 1, LAST - 1, 3), Err(Refused::PastEnd));
}

#[test]
fn what_the_clock_showed_is_told_once_in_a_millisecond() {
    let tick = Tick::new();
    let take = |now: u64| {
        tick.take(1, || Ok::<u64, Refused>(now))
            .map(|span| span.first)
    };
    let latest = || tick.latest.load(Ordering::Acquire);
    assert_eq!((take(NOW + 7), latest()), (Ok(NOW + 7), NOW));
    assert_eq!((take(NOW + 4095), latest()), (Ok(NOW + 4095), NOW));
    assert_eq!((take(NOW + 4096), latest()), (Ok(NOW + 4096), NOW + 4096));
    assert_eq!((take(NOW), latest()), (Ok(NOW + 4097), NOW + 4096));
}
