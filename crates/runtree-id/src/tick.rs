//! The generator's core: a number in an atomic word that only goes up.
//!
//! A tick is a 48-bit millisecond and a 12-bit fraction of it, about 244 nanoseconds. The
//! clock is passed in as a function, so that a model checker can drive the loop.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bits of a tick below the millisecond.
pub(crate) const FRACTION_BITS: u32 = 12;

/// The ticks of one second.
const SECOND: u64 = 1000 << FRACTION_BITS;

/// How far counting may run ahead of the latest instant the clock has shown.
const LEAD_LIMIT: u64 = SECOND;

/// How far the clock may fall behind the latest instant it has shown before the count starts
/// again from it.
const BEHIND_LIMIT: u64 = 10 * SECOND;

/// The last tick whose millisecond is in the year 9999.
const LAST: u64 = ((253_402_300_799_999 + 1) << FRACTION_BITS) - 1;

/// Hands out ticks, each once as long as the clock does not fall behind by more than
/// [`BEHIND_LIMIT`].
#[derive(Debug)]
pub(crate) struct Tick {
    /// The last tick that was handed out; 0 before the first. Only this word decides who gets
    /// which ticks.
    last: AtomicU64,
    /// The latest instant the clock has shown. It tells a clock that stepped back from a
    /// count that ran ahead, and may be a little stale: it guards limits, not uniqueness.
    latest: AtomicU64,
}

/// Ticks that now belong to one caller: `first` and those that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    /// The last tick before the count started again, if it did.
    pub(crate) restarted_from: Option<u64>,
}

/// Says why no ticks were handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Counting would run too far ahead of the clock.
    Ahead,
    /// The ticks would lie past the year 9999.
    PastEnd,
}

impl Tick {
    pub(crate) const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }

    /// Takes `count` ticks, at least one, that follow every tick handed out before.
    pub(crate) fn take<E: From<Refused>>(
        &self,
        count: u64,
        now: impl Fn() -> Result<u64, E>,
    ) -> Result<Span, E> {
        // The clock is read after the last tick, each time round: a thread that was stopped
        // in between would otherwise hold a reading older than the tick it is compared with,
        // which looks like a clock that stepped back.
        let mut last = self.last.load(Ordering::Acquire);
        loop {
            let now = now()?;
            let latest = self.latest.fetch_max(now, Ordering::AcqRel).max(now);
            let view = View { last, latest, now };
            let span = view.next(count)?;
            let final_tick = span.first + (count - 1);
            match self.last.compare_exchange_weak(
                last,
                final_tick,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if view.is_behind() {
                        self.latest.store(now, Ordering::Release);
                    }
                    return Ok(span);
                }
                Err(current) => last = current,
            }
        }
    }
}

/// Holds what one attempt sees; `last` was read first, and `latest` is not before `now`.
#[derive(Clone, Copy)]
struct View {
    last: u64,
    latest: u64,
    now: u64,
}

impl View {
    /// Returns whether the clock is so far behind that counting on would mislead.
    fn is_behind(self) -> bool {
        self.latest - self.now > BEHIND_LIMIT
    }

    /// Decides which ticks come next.
    fn next(self, count: u64) -> Result<Span, Refused> {
        // When the count has started again already, only `latest` has not heard of it yet.
        let is_restart = self.is_behind() && self.last.saturating_sub(self.now) > LEAD_LIMIT;
        let first = if is_restart {
            self.now
        } else {
            self.now.max(self.last + 1)
        };
        let final_tick = first + (count - 1);
        if final_tick > LAST {
            return Err(Refused::PastEnd);
        }
        let shown = if self.is_behind() {
            self.now
        } else {
            self.latest
        };
        if final_tick.saturating_sub(shown) > LEAD_LIMIT {
            return Err(Refused::Ahead);
        }
        Ok(Span {
            first,
            restarted_from: is_restart.then_some(self.last),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000 << FRACTION_BITS;

    fn next(last: u64, latest: u64, now: u64, count: u64) -> Result<Span, Refused> {
        View { last, latest, now }.next(count)
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
    fn a_restart_is_told_to_the_next_caller() {
        let tick = Tick::new();
        let take = |now: u64| tick.take(1, || Ok::<u64, Refused>(now));
        assert_eq!(take(NOW), span(NOW));
        let far = NOW - BEHIND_LIMIT - 1;
        assert_eq!(take(far).map(|span| span.restarted_from), Ok(Some(NOW)));
        assert_eq!(take(far), span(far + 1));
        assert_eq!(tick.latest.load(Ordering::Acquire), far);
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
}
