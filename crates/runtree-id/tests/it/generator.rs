//! The generator under clocks and sources that misbehave, and under threads.

use std::collections::HashSet;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use runtree_id::{
    Entropy, EntropyError, GenerateErrorKind, IdGenerator, OwnerId, PredictableEntropy, RunId,
};
use runtree_time::{Clock, ManualClock, Timestamp};

/// Ticks of one millisecond, and so the ids that fit one.
const TICKS_PER_MILLI: usize = 4096;

/// Counts how often and for how many bytes it is asked.
#[derive(Debug, Default)]
struct Counted {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        PredictableEntropy::new(1).fill(bytes)
    }
}

/// Fails from some call on, after having written half of the bytes.
#[derive(Debug)]
struct Failing {
    good_calls: AtomicUsize,
}

impl Entropy for Failing {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        let take_one = |left: usize| left.checked_sub(1);
        let is_good = self
            .good_calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
            .is_ok();
        if is_good {
            bytes.fill(1);
            return Ok(());
        }
        let half = bytes.len() / 2;
        bytes[..half].fill(1);
        Err(EntropyError::new("the source is dry"))
    }
}

/// Every bit is set, so that the fixed ones show.
#[derive(Debug)]
struct AllOnes;

impl Entropy for AllOnes {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.fill(0xff);
        Ok(())
    }
}

fn instant(text: &str) -> Timestamp {
    text.parse().expect("is an instant")
}

fn noon() -> ManualClock {
    ManualClock::new(instant("2025-06-22T12:00:00.123456Z"))
}

fn predictable(clock: &ManualClock) -> IdGenerator {
    IdGenerator::new(
        Arc::new(clock.clone()),
        Arc::new(PredictableEntropy::new(7)),
    )
}

fn next(generator: &IdGenerator) -> RunId {
    generator.run_id().expect("makes an id")
}

fn refused(generator: &IdGenerator) -> GenerateErrorKind {
    generator.run_id().expect_err("makes no id").kind()
}

#[test]
fn an_id_holds_the_clock_and_the_random_bits_where_rfc_9562_wants_them() {
    let clock = noon();
    let generator = IdGenerator::new(Arc::new(clock.clone()), Arc::new(AllOnes));
    let bits = next(&generator).as_uuid().as_u128();
    let millis = u128::try_from(clock.now().as_unix_millis()).expect("is after 1970");
    assert_eq!(bits >> 80, millis);
    assert_eq!(bits >> 76 & 0xf, 7);
    assert_eq!(bits >> 64 & 0xfff, 456 * 4096 / 1000);
    assert_eq!(bits & u128::from(u64::MAX), 0xbfff_ffff_ffff_ffff);
}

#[test]
fn the_instant_of_an_id_is_that_of_the_clock_to_the_millisecond() {
    let id = next(&predictable(&noon()));
    assert_eq!(id.timestamp(), instant("2025-06-22T12:00:00.123Z"));
}

#[test]
fn ids_increase_while_the_clock_stands_still() {
    let generator = predictable(&noon());
    let ids: Vec<RunId> = (0..10_000).map(|_| next(&generator)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(generator.restarts(), 0);
}

#[test]
fn run_ids_and_owner_ids_share_one_order() {
    let generator = predictable(&noon());
    let run = next(&generator);
    let owner: OwnerId = generator.owner_id().expect("makes an id");
    let later = next(&generator);
    assert!(run.as_bytes() < owner.as_bytes() && owner.as_bytes() < later.as_bytes());
}

#[test]
fn the_generator_counts_on_through_a_step_back_of_ten_seconds() {
    let clock = noon();
    let generator = predictable(&clock);
    let before = next(&generator);
    clock.step_back(Duration::from_secs(10));
    let after = next(&generator);
    assert!(before < after);
    assert_eq!(after.timestamp(), before.timestamp());
    assert_eq!(generator.restarts(), 0);
}

#[test]
fn the_generator_starts_again_after_a_larger_step_back_and_reports_it_once() {
    let clock = noon();
    let reports = Arc::new(Mutex::new(Vec::new()));
    let generator = predictable(&clock).on_restart({
        let reports = Arc::clone(&reports);
        move |restart| reports.lock().expect("is not poisoned").push(restart)
    });
    let before = next(&generator);
    clock.step_back(Duration::from_millis(10_001));
    let after = next(&generator);
    let following = next(&generator);
    assert!(after < before && after < following);
    assert_eq!(generator.restarts(), 1);
    let reports = reports.lock().expect("is not poisoned");
    let [report] = reports.as_slice() else {
        panic!("one report, not {reports:?}");
    };
    assert_eq!(report.last, before.timestamp());
    assert_eq!(report.now, after.timestamp());
}

#[test]
fn a_clock_that_jumps_ahead_and_back_restarts_once_and_goes_on() {
    let clock = noon();
    let generator = predictable(&clock);
    let first = next(&generator);
    clock.advance(Duration::from_secs(365 * 86_400));
    let far = next(&generator);
    clock.step_back(Duration::from_secs(365 * 86_400));
    let back = next(&generator);
    assert!(first < far);
    assert_eq!(back.timestamp(), first.timestamp());
    assert_eq!(generator.restarts(), 1);
}

#[test]
fn counting_stops_one_second_ahead_of_a_clock_that_stands_still() {
    let clock = noon();
    let generator = predictable(&clock);
    let (second, batch) = (1000 * TICKS_PER_MILLI, IdGenerator::MAX_BATCH);
    // The first id takes the present tick, so one more than a second's worth fits.
    for _ in 0..(second + 1) / batch {
        assert_eq!(generator.batch::<RunId>(batch).expect("fits").len(), batch);
    }
    let refusal = generator.batch::<RunId>(batch).expect_err("is too much");
    assert_eq!(refusal.kind(), GenerateErrorKind::ClockStalled);
    // A refused batch takes nothing: what is left of the second can still be had one by one.
    for _ in 0..(second + 1) % batch {
        next(&generator);
    }
    assert_eq!(refused(&generator), GenerateErrorKind::ClockStalled);
    assert_eq!(generator.restarts(), 0);

    clock.advance(Duration::from_millis(1));
    assert_eq!(
        generator
            .batch::<RunId>(TICKS_PER_MILLI)
            .expect("fits")
            .len(),
        TICKS_PER_MILLI
    );
    assert_eq!(refused(&generator), GenerateErrorKind::ClockStalled);
}

/// Goes back by one step each time it is read.
#[derive(Debug)]
struct Backwards {
    reads: AtomicUsize,
    step: Duration,
}

impl Backwards {
    fn by(step: Duration) -> Arc<Self> {
        let reads = AtomicUsize::new(0);
        Arc::new(Self { reads, step })
    }
}

impl Clock for Backwards {
    fn now(&self) -> Timestamp {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let reads = u32::try_from(reads).expect("is not read that often");
        let clock = noon();
        clock.step_back(self.step * reads);
        clock.now()
    }
}

#[test]
fn a_clock_that_goes_back_a_little_on_every_read_restarts_once_in_ten_seconds() {
    let clock = Backwards::by(Duration::from_millis(1));
    let generator = IdGenerator::new(clock, Arc::new(PredictableEntropy::new(7)));
    let ids: Vec<RunId> = (0..30_003).map(|_| next(&generator)).collect();
    let falls: Vec<usize> = (1..ids.len()).filter(|at| ids[*at] < ids[at - 1]).collect();
    // Ten seconds are borne; the reading that is one step further behind is not.
    assert_eq!(falls, [10_001, 20_002]);
    assert_eq!(generator.restarts(), 2);
    let distinct: HashSet<RunId> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[test]
fn a_clock_that_goes_back_an_hour_on_every_read_restarts_each_time_and_is_followed() {
    let clock = Backwards::by(Duration::from_secs(3600));
    let generator = IdGenerator::new(clock, Arc::new(PredictableEntropy::new(7)));
    let ids: Vec<RunId> = (0..100).map(|_| next(&generator)).collect();
    assert!(ids.is_sorted_by(|a, b| a > b));
    assert_eq!(generator.restarts(), 99);
}

#[test]
fn small_steps_back_neither_restart_nor_lose_order() {
    for step in [1, 10, 1_000, 1_000_000, 9_999_999, 10_000_000] {
        let clock = noon();
        let generator = predictable(&clock);
        let before = next(&generator);
        clock.step_back(Duration::from_micros(step));
        let after: Vec<RunId> = generator.batch(10).expect("makes a batch");
        assert!(before < after[0], "{step}");
        assert_eq!(generator.restarts(), 0, "{step}");
    }
}

#[test]
fn an_instant_that_no_id_holds_takes_nothing_and_passes() {
    let clock = noon();
    let generator = predictable(&clock);
    let before = next(&generator);
    clock.set(Timestamp::MIN);
    for _ in 0..10 {
        assert_eq!(refused(&generator), GenerateErrorKind::ClockTooEarly);
    }
    clock.set(instant("2025-06-22T12:00:00.123456Z"));
    let after = next(&generator);
    assert_eq!(tick(after), tick(before) + 1);
    assert_eq!(generator.restarts(), 0);
}

#[test]
fn an_instant_before_1970_is_refused() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let generator = predictable(&clock);
    assert_eq!(next(&generator).timestamp(), Timestamp::UNIX_EPOCH);
    clock.step_back(Duration::from_micros(1));
    assert_eq!(refused(&generator), GenerateErrorKind::ClockTooEarly);
    clock.set(Timestamp::MIN);
    assert_eq!(refused(&generator), GenerateErrorKind::ClockTooEarly);
}

#[test]
fn the_end_of_the_year_9999_is_the_end() {
    let generator = predictable(&ManualClock::new(Timestamp::MAX));
    let mut last = next(&generator);
    let mut refusal = None;
    for _ in 0..TICKS_PER_MILLI {
        match generator.run_id() {
            Ok(id) => {
                assert!(last < id);
                last = id;
            }
            Err(error) => refusal = Some(error.kind()),
        }
    }
    assert_eq!(refusal, Some(GenerateErrorKind::ClockTooLate));
    assert_eq!(
        last.timestamp().as_unix_millis(),
        Timestamp::MAX.as_unix_millis()
    );
    assert_eq!(last.to_string().parse(), Ok(last));
}

#[test]
fn without_random_bytes_there_is_no_id_and_the_cause_is_told() {
    let entropy = Arc::new(Failing {
        good_calls: AtomicUsize::new(1),
    });
    let generator = IdGenerator::new(Arc::new(noon()), entropy);
    let first = next(&generator);
    let error = generator.run_id().expect_err("the source is dry");
    assert_eq!(error.kind(), GenerateErrorKind::Entropy);
    assert_eq!(error.to_string(), "no id: there are no random bytes for it");
    let cause = error.source().and_then(Error::source).expect("has a cause");
    assert_eq!(cause.to_string(), "the source is dry");
    let error = generator.batch::<RunId>(3).expect_err("the source is dry");
    assert_eq!(error.kind(), GenerateErrorKind::Entropy);
    assert!(first.to_string().starts_with("run_"));
}

#[test]
fn every_id_draws_its_own_random_bytes_and_keeps_none() {
    let entropy = Arc::new(Counted::default());
    let generator = IdGenerator::new(Arc::new(noon()), entropy.clone());
    for made in 1..=5 {
        next(&generator);
        assert_eq!(entropy.calls.load(Ordering::Relaxed), made);
        assert_eq!(entropy.bytes.load(Ordering::Relaxed), made * 8);
    }
}

#[test]
fn a_batch_draws_once_for_all_its_ids() {
    let entropy = Arc::new(Counted::default());
    let generator = IdGenerator::new(Arc::new(noon()), entropy.clone());
    let before = next(&generator);
    let ids: Vec<RunId> = generator.batch(1000).expect("makes a batch");
    let after = next(&generator);
    assert_eq!(entropy.calls.load(Ordering::Relaxed), 3);
    assert_eq!(entropy.bytes.load(Ordering::Relaxed), 1002 * 8);
    assert_eq!(ids.len(), 1000);
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert!(before < ids[0] && ids[999] < after);
    let random: HashSet<u64> = ids.iter().map(|id| id.as_uuid().as_u64_pair().1).collect();
    assert_eq!(random.len(), 1000);
}

#[test]
fn a_batch_may_be_empty_and_has_a_limit() {
    let entropy = Arc::new(Counted::default());
    let generator = IdGenerator::new(Arc::new(noon()), entropy.clone());
    assert_eq!(generator.batch::<RunId>(0).expect("is empty"), []);
    for too_many in [IdGenerator::MAX_BATCH + 1, usize::MAX] {
        let error = generator
            .batch::<RunId>(too_many)
            .expect_err("is too large");
        assert_eq!(error.kind(), GenerateErrorKind::BatchTooLarge);
        let text = error.to_string();
        assert!(text.contains(&IdGenerator::MAX_BATCH.to_string()), "{text}");
    }
    assert_eq!(entropy.calls.load(Ordering::Relaxed), 0);
}

#[test]
fn ids_never_repeat_and_rise_in_every_thread() {
    let generator = Arc::new(IdGenerator::system());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let generator = Arc::clone(&generator);
            std::thread::spawn(move || {
                let mut ids = Vec::new();
                for _ in 0..200 {
                    ids.push(next(&generator));
                    ids.extend(generator.batch::<RunId>(7).expect("makes a batch"));
                }
                ids
            })
        })
        .collect();
    let mut ticks = HashSet::new();
    let mut made = 0;
    for thread in threads {
        let ids = thread.join().expect("did not panic");
        assert!(ids.is_sorted_by(|a, b| a < b));
        made += ids.len();
        ticks.extend(ids.iter().map(|id| id.as_uuid().as_u64_pair().0));
    }
    // Not even the halves without random bits repeat.
    assert_eq!(ticks.len(), made);
    assert_eq!(generator.restarts(), 0);
}

#[test]
fn ids_rise_from_one_thread_to_the_next() {
    let generator = Arc::new(IdGenerator::system());
    let (to_other, from_this) = std::sync::mpsc::channel::<RunId>();
    let (to_this, from_other) = std::sync::mpsc::channel::<RunId>();
    let echo = {
        let generator = Arc::clone(&generator);
        std::thread::spawn(move || {
            for seen in from_this {
                let id = next(&generator);
                assert!(seen < id);
                to_this.send(id).expect("is listened to");
            }
        })
    };
    let mut last = next(&generator);
    for _ in 0..500 {
        to_other.send(last).expect("is listened to");
        let theirs = from_other.recv().expect("answers");
        last = next(&generator);
        assert!(theirs < last);
    }
    drop(to_other);
    echo.join().expect("did not panic");
}

/// Returns the millisecond and the fraction of an id as one number.
fn tick(id: RunId) -> u64 {
    let (high, _) = id.as_uuid().as_u64_pair();
    (high >> 16) * 4096 + high % 4096
}

/// Says what the next ids should be, from the documentation alone: one thread, no bits.
#[derive(Debug, Default)]
struct Model {
    last: Option<u64>,
    /// The latest millisecond the clock has shown.
    shown: u64,
    restarts: u64,
}

impl Model {
    const SECOND: u64 = 1000 * 4096;

    fn next(&mut self, now: Timestamp, count: u64) -> Result<u64, GenerateErrorKind> {
        let micros = now.as_unix_micros();
        let micros = u64::try_from(micros).map_err(|_| GenerateErrorKind::ClockTooEarly)?;
        let now = micros / 1000 * 4096 + micros % 1000 * 4096 / 1000;
        // An id never lies more than a second ahead, so it also tells what the clock has shown.
        let told = self.last.map_or(0, |last| last - Self::SECOND);
        let mut shown = self.shown.max(told);
        if now + 10 * Self::SECOND < shown {
            self.restarts += 1;
            (self.shown, shown, self.last) = (0, 0, None);
        }
        self.shown = self.shown.max(now / 4096 * 4096);
        let first = self.last.map_or(now, |last| now.max(last + 1));
        let last = first + count - 1;
        if last > shown.max(now) + Self::SECOND {
            return Err(GenerateErrorKind::ClockStalled);
        }
        self.last = Some(last);
        Ok(first)
    }
}

/// What happens to the clock before ids are asked for.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// Ahead by so many microseconds.
    Ahead(u64),
    /// Back by so many microseconds.
    Back(u64),
    /// To an instant that no id holds, and where it was once they were refused.
    BeforeTime,
}

/// Clocks that stand, go, stumble and leap, and how many ids are asked for then.
fn scripts() -> impl Strategy<Value = Vec<(Move, usize)>> {
    let limits = vec![10_000_000, 10_000_001, 10_000_244, 10_001_000];
    let moves = prop_oneof![
        8 => Just(Move::Ahead(0)),
        6 => (0..5_000_u64).prop_map(Move::Ahead),
        1 => (0..100_000_000_u64).prop_map(Move::Ahead),
        3 => (1..5_000_u64).prop_map(Move::Back),
        3 => (1..10_000_000_u64).prop_map(Move::Back),
        1 => prop::sample::select(limits).prop_map(Move::Back),
        1 => (1..100_000_000_u64).prop_map(Move::Back),
        1 => Just(Move::BeforeTime),
    ];
    let counts = prop_oneof![10 => Just(1_usize), 5 => 2..50_usize, 1 => 1_000..5_000_usize];
    prop::collection::vec((moves, counts), 1..100)
}

proptest! {
    #[test]
    fn whatever_the_clock_does_the_ids_are_those_of_the_model(script in scripts()) {
        let clock = noon();
        let generator = predictable(&clock);
        let mut model = Model::default();
        let mut seen = HashSet::new();
        for (step, count) in script {
            let here = clock.now();
            match step {
                Move::Ahead(micros) => clock.advance(Duration::from_micros(micros)),
                Move::Back(micros) => clock.step_back(Duration::from_micros(micros)),
                Move::BeforeTime => clock.set(Timestamp::MIN),
            }
            let expected = model.next(clock.now(), u64::try_from(count).expect("fits"));
            let found = generator.batch::<RunId>(count);
            prop_assert_eq!(generator.restarts(), model.restarts);
            match (found, expected) {
                (Ok(ids), Ok(first)) => {
                    prop_assert_eq!(ids.len(), count);
                    for (id, expected) in ids.iter().zip(first..) {
                        prop_assert_eq!(tick(*id), expected);
                        prop_assert!(seen.insert(*id));
                    }
                }
                (Err(error), Err(kind)) => {
                    prop_assert_eq!(error.kind(), kind);
                    clock.set(here);
                }
                (found, expected) => prop_assert!(false, "{found:?}, not {expected:?}"),
            }
        }
    }
}
