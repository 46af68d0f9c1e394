//! The generator's core: a number in an atomic word that only goes up.
//!
//! A tick is a 48-bit millisecond and a 12-bit fraction of it, about 244 nanoseconds. The
//! clock is passed in as a function and the atomic word comes from the module beside this one,
//! because a model checker drives this very file: `tests/it/model.rs` includes it with a word
//! of its own.

use super::atomic::{AtomicU64, Ordering};

/// The bits of a tick below the millisecond.
pub(crate) const FRACTION_BITS: u32 = 12;

/// The ticks of one second.
pub(crate) const SECOND: u64 = 1000 << FRACTION_BITS;

/// How far counting may run ahead of the latest instant the clock has shown.
pub(crate) const LEAD_LIMIT: u64 = SECOND;

/// How far the clock may fall behind the latest instant it has shown before the count starts
/// again from it.
pub(crate) const BEHIND_LIMIT: u64 = 10 * SECOND;

/// The last tick whose millisecond is in the year 9999.
pub(crate) const LAST: u64 = ((253_402_300_799_999 + 1) << FRACTION_BITS) - 1;

/// Hands out ticks, each once as long as the clock does not fall behind by more than
/// [`BEHIND_LIMIT`].
///
/// It has its cache lines to itself: every id of every thread writes to it, and what lies
/// beside it, such as the way to the clock, would be fetched anew for each.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Tick {
    /// The last tick that was handed out; 0 before the first. Only this word decides who gets
    /// which ticks.
    last: AtomicU64,
    /// The start of the latest millisecond the clock has shown. It tells a clock that stepped
    /// back from a count that ran ahead, and may be a little stale: it guards limits, not
    /// uniqueness. Whole milliseconds make it a word that is read for each id and written
    /// once in thousands.
    pub(crate) latest: AtomicU64,
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
    pub(crate) fn new() -> Self {
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
            let view = View::new(last, self.show(now), now);
            let span = match view.next(count) {
                Ok(span) => span,
                Err(refused) => {
                    // Another thread may have started the count again since, and have told
                    // `latest` of it; only what is refused after the present last tick is.
                    let current = self.last.load(Ordering::Acquire);
                    if current == last {
                        return Err(refused.into());
                    }
                    last = current;
                    continue;
                }
            };
            let final_tick = span.first + (count - 1);
            match self.last.compare_exchange_weak(
                last,
                final_tick,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if view.is_behind() {
                        self.latest.store(millisecond(now), Ordering::Release);
                    }
                    return Ok(span);
                }
                Err(current) => last = current,
            }
        }
    }

    /// Remembers what the clock shows, and returns the latest it has shown.
    fn show(&self, now: u64) -> u64 {
        let latest = self.latest.load(Ordering::Acquire);
        let shown = millisecond(now);
        if latest < shown {
            self.latest.fetch_max(shown, Ordering::AcqRel)
        } else {
            latest
        }
    }
}

/// Returns the tick at the start of a tick's millisecond.
const fn millisecond(tick: u64) -> u64 {
    tick >> FRACTION_BITS << FRACTION_BITS
}

/// Holds what one attempt sees; `last` was read first, and `latest` is not before `now`.
///
/// `latest` is also at most [`LEAD_LIMIT`] before `last`, because the count never runs further
/// ahead than that of what the clock has shown, even if the word has not heard of it: a thread
/// that read the clock before it leapt may have written it later.
#[derive(Clone, Copy)]
pub(crate) struct View {
    last: u64,
    latest: u64,
    now: u64,
}

impl View {
    pub(crate) fn new(last: u64, latest: u64, now: u64) -> Self {
        let proven = last.saturating_sub(LEAD_LIMIT);
        Self {
            last,
            latest: latest.max(now).max(proven),
            now,
        }
    }

    /// Returns whether the clock is so far behind that counting on would mislead.
    fn is_behind(self) -> bool {
        self.latest - self.now > BEHIND_LIMIT
    }

    /// Decides which ticks come next.
    pub(crate) fn next(self, count: u64) -> Result<Span, Refused> {
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
