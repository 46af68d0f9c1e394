//! Clocks: the real one is near the machine's, the manual one moves only when moved.

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use runtree_time::{Clock, ManualClock, SystemClock, Timestamp};

#[test]
#[expect(clippy::disallowed_methods, reason = "the reading to compare with")]
fn the_system_clock_is_the_machines() {
    let before = Timestamp::try_from(SystemTime::now()).unwrap();
    let now = SystemClock.now();
    let after = Timestamp::try_from(SystemTime::now()).unwrap();
    assert!(before <= now && now <= after, "{before} {now} {after}");
}

#[test]
fn a_manual_clock_stands_still_until_it_is_moved() {
    let start = Timestamp::from_unix_seconds(1_750_586_400).unwrap();
    let clock = ManualClock::new(start);
    assert_eq!((clock.now(), clock.now()), (start, start));
    clock.advance(Duration::from_secs(2));
    assert_eq!(clock.now(), start.saturating_add(Duration::from_secs(2)));
    clock.step_back(Duration::from_secs(3));
    assert_eq!(clock.now(), start.saturating_sub(Duration::from_secs(1)));
    clock.set(Timestamp::MIN);
    assert_eq!(clock.now(), Timestamp::MIN);
    assert_eq!(ManualClock::default().now(), Timestamp::UNIX_EPOCH);
    assert_eq!(
        format!("{clock:?}"),
        "ManualClock(0001-01-01T00:00:00.000000Z)"
    );
}

#[test]
fn a_manual_clock_stops_at_the_edges_of_time() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), Timestamp::MAX);
    clock.step_back(Duration::MAX);
    assert_eq!(clock.now(), Timestamp::MIN);
}

#[test]
fn clones_of_a_manual_clock_share_one_hand_and_lose_no_step() {
    let clock = ManualClock::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            let clone = clock.clone();
            scope.spawn(move || {
                for _ in 0..1_000 {
                    clone.advance(Duration::from_micros(1));
                }
            });
        }
    });
    assert_eq!(clock.now().as_unix_micros(), 4_000);
}

#[test]
fn a_clock_is_used_through_any_pointer() {
    fn read(clock: impl Clock) -> Timestamp {
        clock.now()
    }
    let manual = ManualClock::default();
    let shared: Arc<dyn Clock> = Arc::new(manual.clone());
    manual.advance(Duration::from_micros(7));
    let expected = Timestamp::from_unix_micros(7).unwrap();
    assert_eq!(read(&manual), expected);
    assert_eq!(read(&*shared), expected);
    assert_eq!(read(Arc::clone(&shared)), expected);
    assert_eq!(read(&shared), expected);
}
