//! Makes ids that strictly increase within a process and do not collide between processes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtree_time::{Clock, SystemClock, Timestamp};
use uuid::Uuid;

use crate::entropy::{Entropy, EntropyError, SystemEntropy};
use crate::tick::{FRACTION_BITS, Refused, Tick};
use crate::typed_id::{Id, OwnerId, RunId};

/// The random bytes drawn for one id; two of their 64 bits make room for the variant.
const ENTROPY_BYTES: usize = 8;

/// Makes ids.
///
/// Each id holds the clock's instant, counted on so that the ids of one generator strictly
/// increase whatever thread asks, and 62 random bits drawn for it alone, so that generators
/// of other processes need not know of each other. Share one generator behind an `Arc`
/// where the order of its ids matters.
///
/// While the clock is up to ten seconds behind the latest millisecond it has shown, in one step
/// or in many, the generator counts on. When it is further behind, the generator starts again
/// from the clock and reports it: from there the order of ids is that of the clock, and
/// their uniqueness rests on the random bits.
///
/// It keeps no random bytes between calls, so it stays safe when the process forks.
///
/// # Examples
///
/// ```
/// use runtree_id::IdGenerator;
///
/// let generator = IdGenerator::system();
/// let first = generator.run_id()?;
/// let second = generator.run_id()?;
/// assert!(first < second);
/// # Ok::<(), runtree_id::GenerateError>(())
/// ```
pub struct IdGenerator {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tick: Tick,
    restarts: AtomicU64,
    on_restart: Option<Box<dyn Fn(ClockRestart) + Send + Sync>>,
}

impl IdGenerator {
    /// The most ids of one [`batch`](Self::batch).
    pub const MAX_BATCH: usize = 65_536;

    /// Makes a generator from a clock and a source of random bytes.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            clock,
            entropy,
            tick: Tick::new(),
            restarts: AtomicU64::new(0),
            on_restart: None,
        }
    }

    /// Makes a generator from the machine's clock and the operating system's random bytes.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemEntropy))
    }

    /// Asks to be told each time the clock steps back so far that counting starts again.
    ///
    /// The function runs in the thread that asked for the id, before it gets it.
    #[must_use]
    pub fn on_restart(self, report: impl Fn(ClockRestart) + Send + Sync + 'static) -> Self {
        Self {
            on_restart: Some(Box::new(report)),
            ..self
        }
    }

    /// Makes a run id.
    ///
    /// # Errors
    ///
    /// As [`next_id`](Self::next_id).
    pub fn run_id(&self) -> Result<RunId, GenerateError> {
        self.next_id()
    }

    /// Makes an owner id.
    ///
    /// # Errors
    ///
    /// As [`next_id`](Self::next_id).
    pub fn owner_id(&self) -> Result<OwnerId, GenerateError> {
        self.next_id()
    }

    /// Makes an id of either type.
    ///
    /// # Errors
    ///
    /// [`GenerateError`] when there are no random bytes, or when the clock stands still for
    /// more than four million ids, shows an instant before 1970, or the end of the year 9999.
    /// No id is ever made with fewer random bits.
    pub fn next_id<I: Id>(&self) -> Result<I, GenerateError> {
        let mut random = [0; ENTROPY_BYTES];
        self.entropy.fill(&mut random)?;
        let first = self.take(1)?;
        Ok(I::from_generated(layout(first, random)))
    }

    /// Makes `count` ids at once, in ascending order, and asks for random bytes only once.
    ///
    /// Every id still has 62 bits of its own. Between two ids of a batch no other id of this
    /// generator lies.
    ///
    /// # Errors
    ///
    /// As [`next_id`](Self::next_id); also when `count` is more than
    /// [`MAX_BATCH`](Self::MAX_BATCH). Then no id was made.
    pub fn batch<I: Id>(&self, count: usize) -> Result<Vec<I>, GenerateError> {
        if count > Self::MAX_BATCH {
            return Err(GenerateError::new(GenerateErrorKind::BatchTooLarge));
        }
        let ticks = u64::try_from(count).expect("because the largest batch is small");
        if ticks == 0 {
            return Ok(Vec::new());
        }
        let mut random = vec![0; count * ENTROPY_BYTES];
        self.entropy.fill(&mut random)?;
        let first = self.take(ticks)?;
        let (chunks, _) = random.as_chunks::<ENTROPY_BYTES>();
        let ids = (first..).zip(chunks);
        Ok(ids
            .map(|(tick, random)| I::from_generated(layout(tick, *random)))
            .collect())
    }

    /// Returns how often the clock stepped back so far that counting started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Takes ticks from the core and reports a restart.
    fn take(&self, count: u64) -> Result<u64, GenerateError> {
        let span = self.tick.take(count, || tick_of(self.clock.now()))?;
        if let Some(from) = span.restarted_from {
            self.restarts.fetch_add(1, Ordering::Relaxed);
            if let Some(report) = &self.on_restart {
                report(ClockRestart {
                    last: instant_of(from),
                    now: instant_of(span.first),
                });
            }
        }
        Ok(span.first)
    }
}

impl fmt::Debug for IdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdGenerator")
            .field("clock", &self.clock)
            .field("entropy", &self.entropy)
            .field("tick", &self.tick)
            .field("restarts", &self.restarts)
            .finish_non_exhaustive()
    }
}

/// Tells that the clock stepped back so far that ids start again from an earlier instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockRestart {
    /// The instant of the last id before, to the millisecond.
    pub last: Timestamp,
    /// The instant of the first id after, to the millisecond.
    pub now: Timestamp,
}

/// Tells why no id was made.
#[derive(Debug, thiserror::Error)]
#[error("no id: {}", self.kind.describe())]
pub struct GenerateError {
    kind: GenerateErrorKind,
    source: Option<EntropyError>,
}

impl GenerateError {
    fn new(kind: GenerateErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Returns what was wrong.
    #[must_use]
    pub fn kind(&self) -> GenerateErrorKind {
        self.kind
    }
}

impl From<EntropyError> for GenerateError {
    fn from(error: EntropyError) -> Self {
        Self {
            kind: GenerateErrorKind::Entropy,
            source: Some(error),
        }
    }
}

impl From<Refused> for GenerateError {
    fn from(refused: Refused) -> Self {
        Self::new(match refused {
            Refused::Ahead => GenerateErrorKind::ClockStalled,
            Refused::PastEnd => GenerateErrorKind::ClockTooLate,
        })
    }
}

/// Says why no id was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerateErrorKind {
    /// The source gave no random bytes. Try again; if it stays so, tell a person.
    Entropy,
    /// Ids were drawn a second ahead of the latest instant the clock has shown, because it
    /// stands still, has stepped back, or they are drawn faster than four million a second.
    /// Wait a moment and try again.
    ClockStalled,
    /// The clock shows an instant before 1970. Set the machine's clock.
    ClockTooEarly,
    /// The clock shows the end of the year 9999. Set the machine's clock.
    ClockTooLate,
    /// More ids were asked for than one batch makes. Ask for several batches.
    BatchTooLarge,
}

impl GenerateErrorKind {
    const fn describe(self) -> &'static str {
        match self {
            Self::Entropy => "there are no random bytes for it",
            Self::ClockStalled => "ids were drawn a second ahead of the clock",
            Self::ClockTooEarly => "the clock shows an instant before 1970",
            Self::ClockTooLate => "the clock shows the end of the year 9999",
            Self::BatchTooLarge => "one batch makes at most 65536",
        }
    }
}

/// Lays a tick and random bytes out as a UUID of version 7 (RFC 9562, 6.2, method 3).
fn layout(tick: u64, random: [u8; ENTROPY_BYTES]) -> Uuid {
    const FRACTION: u64 = (1 << FRACTION_BITS) - 1;
    const VERSION: u64 = 7 << FRACTION_BITS;
    const VARIANT: u64 = 0b10 << 62;
    let high = (tick >> FRACTION_BITS) << 16 | VERSION | tick & FRACTION;
    let low = VARIANT | u64::from_be_bytes(random) >> 2;
    Uuid::from_u64_pair(high, low)
}

/// Returns the tick of an instant, floored.
fn tick_of(now: Timestamp) -> Result<u64, GenerateError> {
    let micros = u64::try_from(now.as_unix_micros())
        .map_err(|_| GenerateError::new(GenerateErrorKind::ClockTooEarly))?;
    let fraction = ((micros % 1000) << FRACTION_BITS) / 1000;
    Ok((micros / 1000) << FRACTION_BITS | fraction)
}

/// Returns the millisecond of a tick.
fn instant_of(tick: u64) -> Timestamp {
    i64::try_from(tick >> FRACTION_BITS)
        .ok()
        .and_then(|millis| Timestamp::from_unix_millis(millis).ok())
        .expect("because no tick lies past the year 9999")
}
