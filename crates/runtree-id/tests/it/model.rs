//! The generator's core under a model checker: every interleaving of a few threads, and every stale value they may read.
//!
//! This includes the core's own source, so what is checked is what is shipped; only the atomic
//! word is loom's. Up to [`PREEMPTIONS`] switches of thread at any place are tried, and all of
//! those that a thread asks for by ending; `LOOM_MAX_PREEMPTIONS` asks for more of them.
//!
//! The last tests break the word on purpose. Should one of them stop failing as it must, the
//! checks above it prove nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::sync::atomic::Ordering::Relaxed;

use tick::{BEHIND_LIMIT, FRACTION_BITS, LEAD_LIMIT, Refused, SECOND, Tick};

#[path = "../../src/tick.rs"]
mod tick;

/// The switches of thread, beyond those at a thread's end, that are tried by default.
const PREEMPTIONS: usize = 2;

const NOW: u64 = 1_700_000_000_000 << FRACTION_BITS;

/// What the core finds beside it: loom's word, or one that is broken on purpose.
mod atomic {
    use std::cell::Cell;

    pub(super) use loom::sync::atomic::Ordering;

    /// How the word is broken.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Fault {
        /// Compare and exchange are two steps.
        TornExchange,
        /// Nothing that one thread wrote before is seen with what it wrote.
        Unordered,
    }

    thread_local! {
        /// The threads of a model all run in the one thread of the test.
        pub(super) static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    #[derive(Debug)]
    pub(super) struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(super) fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        pub(super) fn load(&self, order: Ordering) -> u64 {
            self.0.load(weaken(order))
        }

        pub(super) fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, weaken(order));
        }

        pub(super) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_max(value, weaken(order))
        }

        pub(super) fn compare_exchange_weak(
            &self,
            expected: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            if FAULT.get() == Some(Fault::TornExchange) {
                let found = self.0.load(Ordering::Acquire);
                if found != expected {
                    return Err(found);
                }
                self.0.store(new, Ordering::Release);
                return Ok(found);
            }
            self.0
                .compare_exchange_weak(expected, new, weaken(success), weaken(failure))
        }
    }

    fn weaken(order: Ordering) -> Ordering {
        match FAULT.get() {
            Some(Fault::Unordered) => Ordering::Relaxed,
            Some(Fault::TornExchange) | None => order,
        }
    }
}

/// What one call of a thread was given.
#[derive(Clone, Copy, Debug)]
struct Taken {
    first: u64,
    count: u64,
    restarted_from: Option<u64>,
}

impl Taken {
    fn last(self) -> u64 {
        self.first + (self.count - 1)
    }
}

/// A core and a clock that threads share. The clock is only as strict as a clock has to be: no
/// thread sees it go back unless it was set back, and no thread learns anything else from it.
#[derive(Debug)]
struct World {
    tick: Tick,
    clock: loom::sync::atomic::AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            tick: Tick::new(),
            clock: loom::sync::atomic::AtomicU64::new(NOW),
        })
    }

    fn take(&self, count: u64) -> Result<Taken, Refused> {
        let span = self
            .tick
            .take(count, || Ok::<_, Refused>(self.clock.load(Relaxed)))?;
        Ok(Taken {
            first: span.first,
            count,
            restarted_from: span.restarted_from,
        })
    }

    fn must_take(&self, count: u64) -> Taken {
        self.take(count).expect("nothing speaks against it")
    }
}

/// Lets threads take as many ticks as their scripts say, while the hand moves the clock, and
/// returns what each was given, in its order.
fn race(world: &Arc<World>, scripts: &'static [&'static [u64]], hand: &[u64]) -> Vec<Vec<Taken>> {
    let takers: Vec<_> = scripts
        .iter()
        .map(|script| {
            let world = Arc::clone(world);
            loom::thread::spawn(move || {
                script.iter().map(|count| world.must_take(*count)).collect()
            })
        })
        .collect();
    for instant in hand {
        world.clock.store(*instant, Relaxed);
    }
    let join = |taker: loom::thread::JoinHandle<Vec<Taken>>| taker.join().expect("did not panic");
    takers.into_iter().map(join).collect()
}

/// Runs a model over every interleaving within the bound.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.check(model);
}

fn all(taken: &[Vec<Taken>]) -> impl Iterator<Item = Taken> {
    taken.iter().flatten().copied()
}

fn restarts(taken: &[Vec<Taken>]) -> usize {
    all(taken)
        .filter(|taken| taken.restarted_from.is_some())
        .count()
}

fn assert_no_tick_twice(taken: impl Iterator<Item = Taken>) {
    let mut spans: Vec<Taken> = taken.collect();
    spans.sort_by_key(|span| span.first);
    for pair in spans.windows(2) {
        assert!(
            pair[0].last() < pair[1].first,
            "a tick was handed out twice: {pair:?}"
        );
    }
}

fn assert_rising(thread: &[Taken]) {
    for pair in thread.windows(2) {
        assert!(
            pair[0].last() < pair[1].first,
            "a thread's ticks fell: {pair:?}"
        );
    }
}

/// Two or three threads while the clock stands still.
fn standing(scripts: &'static [&'static [u64]]) {
    let world = World::new();
    let before = world.must_take(1);
    let taken = race(&world, scripts, &[]);
    let after = world.must_take(1);
    assert_eq!(restarts(&taken), 0);
    taken.iter().for_each(|thread| assert_rising(thread));
    assert_no_tick_twice(all(&taken).chain([before, after]));
    // No tick is lost either: what is handed out is all there is from the clock on.
    let handed_out: u64 = all(&taken).map(|taken| taken.count).sum();
    assert_eq!((before.first, after.first), (NOW, NOW + 1 + handed_out));
}

#[test]
fn while_the_clock_stands_still_each_tick_is_handed_out_once() {
    explore(|| standing(&[&[1, 1], &[3, 1]]));
}

#[test]
fn three_threads_share_ticks_and_batches_without_loss() {
    explore(|| standing(&[&[1], &[2], &[3]]));
}

/// Two threads while the clock goes on, at last so far that an old reading looks like a step back.
fn advancing() {
    const LATER: u64 = NOW + 6 * BEHIND_LIMIT;
    let world = World::new();
    let before = world.must_take(1);
    let taken = race(&world, &[&[1, 1], &[2]], &[NOW + 5, LATER]);
    let after = world.must_take(1);
    assert_eq!(
        restarts(&taken),
        0,
        "a restart without a step back: {taken:?}"
    );
    assert_eq!(after.restarted_from, None);
    taken.iter().for_each(|thread| assert_rising(thread));
    assert_no_tick_twice(all(&taken).chain([before, after]));
    for taken in all(&taken) {
        assert!(before.first < taken.first && taken.last() < after.first);
        assert!(taken.last() <= LATER + LEAD_LIMIT);
    }
    assert!((LATER..=LATER + 4).contains(&after.first));
}

#[test]
fn a_clock_that_goes_on_never_starts_the_count_again() {
    explore(advancing);
}

/// Two threads while the clock steps back by as much as the count bears.
fn stepping_back_a_little() {
    let world = World::new();
    let before = world.must_take(1);
    let taken = race(&world, &[&[1, 2], &[1]], &[NOW - BEHIND_LIMIT]);
    let after = world.must_take(1);
    assert_eq!(restarts(&taken), 0);
    assert_no_tick_twice(all(&taken).chain([before, after]));
    assert_eq!(after.first, NOW + 5);
}

#[test]
fn a_small_step_back_changes_nothing() {
    explore(stepping_back_a_little);
}

const BACK: u64 = NOW - BEHIND_LIMIT - 1;

/// Two threads while the clock steps back by more than the count bears.
fn stepping_back() {
    let world = World::new();
    let before = world.must_take(1);
    let taken = race(&world, &[&[1, 1], &[2]], &[BACK]);
    assert_one_restart(&world, before, &taken);
}

/// Three threads after the clock has stepped back, of which one has to be the first.
fn stepped_back() {
    let world = World::new();
    let before = world.must_take(1);
    world.clock.store(BACK, Relaxed);
    let taken = race(&world, &[&[1], &[2], &[1]], &[]);
    assert_one_restart(&world, before, &taken);
}

fn assert_one_restart(world: &World, before: Taken, taken: &[Vec<Taken>]) {
    let after = world.must_take(1);
    let restarts = restarts(taken) + usize::from(after.restarted_from.is_some());
    assert_eq!(restarts, 1, "one step back is one restart: {taken:?}");
    assert_no_tick_twice(all(taken).chain([before, after]));
    for thread in taken {
        let falls = thread
            .windows(2)
            .filter(|pair| pair[1].first < pair[0].first);
        assert!(falls.count() <= 1, "{thread:?}");
    }
    for taken in all(taken).chain([after]) {
        let is_old = (NOW + 1..NOW + 10).contains(&taken.first);
        let is_new = (BACK..BACK + 10).contains(&taken.first);
        assert!(is_old || is_new, "{taken:?}");
        if let Some(from) = taken.restarted_from {
            assert!(taken.first == BACK && from >= NOW, "{taken:?}");
        }
    }
    assert!(after.first < NOW, "the count follows the clock in the end");
}

#[test]
fn a_large_step_back_starts_the_count_again_once() {
    explore(stepping_back);
}

#[test]
fn three_threads_see_one_restart() {
    explore(stepped_back);
}

/// Two threads while the clock leaps ahead and comes back.
fn leaping() {
    const AHEAD: u64 = NOW + 6 * BEHIND_LIMIT;
    let world = World::new();
    let taken = race(&world, &[&[1, 1], &[1]], &[AHEAD, NOW]);
    let after = world.must_take(1);
    let restarts = restarts(&taken) + usize::from(after.restarted_from.is_some());
    assert!(restarts <= 1, "{taken:?}");
    let leapt = all(&taken).any(|taken| taken.first >= AHEAD);
    assert_eq!(restarts == 1, leapt, "{taken:?}");
    // Whoever saw what: once the clock is back, so is the count, and it is not refused.
    assert!((NOW..NOW + 4).contains(&after.first), "{taken:?} {after:?}");
}

#[test]
fn a_leap_ahead_and_back_leaves_no_trace() {
    explore(leaping);
}

/// Two threads of which one alone fits below the limit.
fn crowding() {
    let world = World::new();
    let before = world.must_take(SECOND - 1);
    let takers: Vec<_> = (0..2)
        .map(|_| {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.take(2))
        })
        .collect();
    let answers = takers
        .into_iter()
        .map(|taker| taker.join().expect("did not panic"));
    let (given, refused): (Vec<_>, Vec<_>) = answers.partition(Result::is_ok);
    let last: Vec<u64> = given.into_iter().flatten().map(Taken::last).collect();
    assert_eq!(last, [NOW + LEAD_LIMIT], "one fits: {before:?}");
    assert!(
        matches!(refused.as_slice(), [Err(Refused::Ahead)]),
        "{refused:?}"
    );
}

#[test]
fn threads_together_never_pass_the_lead_limit() {
    explore(crowding);
}

/// Breaks the word and returns what the checker says about the model.
fn broken(fault: atomic::Fault, model: fn()) -> String {
    atomic::FAULT.set(Some(fault));
    let outcome = catch_unwind(AssertUnwindSafe(|| explore(model)));
    atomic::FAULT.set(None);
    let payload = outcome.expect_err("the checker rejects a broken word");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(_) => "a panic without a text".to_owned(),
    }
}

#[test]
fn canary_an_exchange_in_two_steps_hands_a_tick_out_twice() {
    let verdict = broken(atomic::Fault::TornExchange, || standing(&[&[1], &[1]]));
    assert!(verdict.contains("handed out twice"), "{verdict}");
}

#[test]
fn canary_words_without_order_start_the_count_again_for_nothing() {
    let verdict = broken(atomic::Fault::Unordered, advancing);
    assert!(
        verdict.contains("a restart without a step back"),
        "{verdict}"
    );
}
