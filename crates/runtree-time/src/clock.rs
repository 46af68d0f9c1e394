//! Where the present instant comes from, as a value that is passed in.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::timestamp::Timestamp;

/// A source of the present instant.
///
/// Nothing in runtree reads the machine's clock but [`SystemClock`]; everything
/// else is handed a clock, so that a test can hold time still.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the present instant.
    ///
    /// It may be earlier than the last one: clocks are set. A clock outside the
    /// range of [`Timestamp`] answers with the nearer end of it.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the machine's clock"
        )]
        let now = SystemTime::now();
        Timestamp::try_from(now).unwrap_or(if now < SystemTime::UNIX_EPOCH {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }
}

/// A clock that stands still until it is moved; clones share one hand.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use runtree_time::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
/// let seen_elsewhere = clock.clone();
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(seen_elsewhere.now().to_string(), "1970-01-01T00:01:30.000000Z");
/// ```
#[derive(Clone)]
pub struct ManualClock {
    micros: Arc<AtomicI64>,
}

impl ManualClock {
    /// Makes a clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self {
            micros: Arc::new(AtomicI64::new(start.as_unix_micros())),
        }
    }

    /// Makes the clock show `now`.
    pub fn set(&self, now: Timestamp) {
        self.micros.store(now.as_unix_micros(), Ordering::SeqCst);
    }

    /// Moves the clock forward, at most to [`Timestamp::MAX`].
    pub fn advance(&self, by: Duration) {
        self.turn(|now| now.saturating_add(by));
    }

    /// Moves the clock back, at most to [`Timestamp::MIN`], as setting a real one does.
    pub fn step_back(&self, by: Duration) {
        self.turn(|now| now.saturating_sub(by));
    }

    /// Moves the hand in one step, so that clones moved at once lose nothing.
    fn turn(&self, step: impl Fn(Timestamp) -> Timestamp) {
        let turned = self
            .micros
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |micros| {
                Some(step(Timestamp::from_proven_micros(micros)).as_unix_micros())
            });
        debug_assert!(turned.is_ok(), "the step always answers");
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_proven_micros(self.micros.load(Ordering::SeqCst))
    }
}

impl Default for ManualClock {
    /// Makes a clock that shows [`Timestamp::UNIX_EPOCH`].
    fn default() -> Self {
        Self::new(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}
