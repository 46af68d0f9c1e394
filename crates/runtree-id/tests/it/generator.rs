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

/// What a clock may do between two ids, in microseconds.
fn clock_steps() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(
        prop_oneof![
            4 => Just(0_i64),
            4 => 0..5_000_i64,
            2 => -9_000_000..0_i64,
            1 => -100_000_000..100_000_000_i64,
        ],
        1..200,
    )
}

proptest! {
    #[test]
    fn whatever_the_clock_does_ids_rise_between_reported_restarts(steps in clock_steps()) {
        let clock = noon();
        let generator = predictable(&clock);
        let mut last = next(&generator);
        let mut seen = HashSet::from([last]);
        let mut restarts = 0;
        for step in steps {
            let size = Duration::from_micros(step.unsigned_abs());
            if step < 0 {
                clock.step_back(size);
            } else {
                clock.advance(size);
            }
            let behind = last.timestamp().saturating_duration_since(clock.now());
            let id = next(&generator);
            prop_assert!(seen.insert(id));
            if generator.restarts() == restarts {
                prop_assert!(last < id);
                prop_assert!(behind <= Duration::from_secs(10));
            } else {
                restarts += 1;
                prop_assert_eq!(generator.restarts(), restarts);
                prop_assert!(id < last);
                prop_assert!(behind >= Duration::from_millis(9_999));
            }
            last = id;
        }
    }
}
