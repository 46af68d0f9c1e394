//! Ids: making them, and writing and reading their text, beside the crates one would otherwise take.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::hint::{self, black_box};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mti::prelude::{MagicTypeId, MagicTypeIdExt, TypeIdPrefix, TypeIdSuffix, V7};
use runtree_benches::{Bench, Group, Options, StackText};
use runtree_id::{Entropy, IdGenerator, OwnerId, RunId, SystemEntropy};
use runtree_peers::{Run, now_v7};
use type_safe_id::TypeSafeId;
use ulid::{Generator, ULID_LEN, Ulid};
use uuid::Uuid;

fn main() {
    let bench = Bench::new(Options::from_args());
    let generator = IdGenerator::system();
    let ids: [RunId; COUNT] = generator
        .batch(COUNT)
        .ok()
        .and_then(|ids| ids.try_into().ok())
        .expect("because a batch holds as many ids as were asked for");
    check(&ids);
    one(&bench, &generator);
    two_threads(&generator);
    batch(&bench, &generator);
    write_on_stack(&bench, &ids);
    write_string(&bench, &ids);
    read(&bench, &ids);
    refuse(&bench, &ids);
}

/// How many values each side works through in turn; one alone would be learnt by heart by the branch predictor.
const COUNT: usize = 64;

/// How many ids are made at once.
const BATCH: u64 = 1_000;

/// Hands out the values in turn, for ever.
fn turns<'a, T>(values: &'a [T; COUNT]) -> impl Fn() -> &'a T {
    let next = Cell::new(0);
    move || {
        let index = next.get();
        next.set((index + 1) % COUNT);
        black_box(&values[index])
    }
}

/// The name of [`floor`] in the tables.
const FLOOR: &str = "(8 random bytes of the system)";

/// Asks the system for the random bits of one id: who asks for each id can be no faster.
fn floor() -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes).ok().map(|()| bytes)
}

/// Makes one id on one thread. Only runtree and `uuid` ask the system for each id's random bits.
fn one(bench: &Bench, generator: &IdGenerator) {
    let monotonic = RefCell::new(Generator::new());
    bench.run(
        Group::new("id/one")
            .reference("uuid", now_v7)
            .goal("runtree", 1.0, || generator.run_id())
            .side(FLOOR, floor)
            .side("ulid", Ulid::generate)
            .side("ulid, Generator", || monotonic.borrow_mut().generate().ok())
            .side("type-safe-id", TypeSafeId::<Run>::new)
            .side("mti, with its text", || "run".create_type_id::<V7>())
            .side("ferroid, of a thread", || {
                ferroid::generator::thread_local::Ulid::new_ulid_mono(|_| thread::yield_now())
            }),
    );
}

/// Makes ids on two threads at once, of one generator, beside one thread of `uuid`; and what all threads of `uuid` share, beside it.
///
/// The time on two threads is that until both are done, over all their ids.
fn two_threads(generator: &IdGenerator) {
    // Longer samples, because threads do not end at one instant.
    let mut options = Options::from_args();
    options.sample_time *= 8;
    options.samples = options.samples.div_ceil(4);
    Bench::new(options).run(
        Group::new("id/two threads")
            .reference("uuid, on one thread", now_v7)
            .timed("uuid", None, |repeats| in_two_threads(repeats, now_v7))
            .timed("runtree", Some(0.5), |repeats| {
                in_two_threads(repeats, || generator.run_id())
            })
            .timed(FLOOR, None, |repeats| in_two_threads(repeats, floor))
            .timed("ulid", None, |repeats| {
                in_two_threads(repeats, Ulid::generate)
            })
            .timed("type-safe-id", None, |repeats| {
                in_two_threads(repeats, TypeSafeId::<Run>::new)
            }),
    );
}

/// Repeats the work, half on each of two threads, and answers the time from the first to begin to
/// the last to end. Neither begins before both are there.
fn in_two_threads<T>(repeats: u64, work: impl Fn() -> T + Sync) -> Duration {
    let there = AtomicUsize::new(0);
    let half = |repeats: u64| {
        there.fetch_add(1, Ordering::AcqRel);
        while there.load(Ordering::Acquire) < 2 {
            hint::spin_loop();
        }
        let start = Instant::now();
        for _ in 0..repeats {
            black_box(work());
        }
        (start, Instant::now())
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| half(repeats / 2));
        let one = half(repeats.div_ceil(2));
        (one, other.join().expect("because the work does not panic"))
    });
    one.1.max(other.1) - one.0.min(other.0)
}

/// Makes a thousand ids at once, beside as many made one by one.
fn batch(bench: &Bench, generator: &IdGenerator) {
    bench.run(
        Group::new("id/batch of 1000, for each")
            .reference("uuid, one", now_v7)
            .timed("runtree", Some(0.2), |repeats| {
                let batches = repeats.div_ceil(BATCH);
                let count = usize::try_from(BATCH).expect("because a batch is small");
                let start = Instant::now();
                for _ in 0..batches {
                    black_box(generator.batch::<RunId>(count)).ok();
                }
                // As if it had made no more than it was asked for.
                let nanos = start.elapsed().as_nanos() * u128::from(repeats);
                let nanos = nanos / u128::from(batches * BATCH);
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            })
            .side("runtree, one", || generator.run_id()),
    );
}

/// Writes the text on the stack.
fn write_on_stack(bench: &Bench, ids: &[RunId; COUNT]) {
    let peers = peers(ids);
    let (ours, ours_text, of_ulid) = (turns(ids), turns(ids), turns(&peers.ulid));
    let (of_safe, of_mti) = (turns(&peers.type_safe), turns(&peers.uuid));
    bench.run(
        Group::new("id/text on the stack")
            .reference("ulid, without a prefix", || {
                let mut text = [0; ULID_LEN];
                of_ulid().array_to_str(&mut text);
                text
            })
            .goal("runtree", 1.0, || ours().to_text())
            .side("runtree, and asked for the `&str`", || {
                black_box(ours_text().to_text()).as_str().len()
            })
            .side("type-safe-id, through `fmt`", || {
                let mut text = StackText::new();
                write!(text, "{}", of_safe()).map(|()| text)
            })
            .side("mti, without a prefix", || TypeIdSuffix::from(*of_mti())),
    );
}

/// Writes the text to a new string.
fn write_string(bench: &Bench, ids: &[RunId; COUNT]) {
    let peers = peers(ids);
    let (ours, ours_text, of_ulid) = (turns(ids), turns(ids), turns(&peers.ulid));
    let (of_safe, of_mti) = (turns(&peers.type_safe), turns(&peers.uuid));
    let prefix = prefix();
    bench.run(
        Group::new("id/text to a string")
            .reference("ulid, without a prefix", || of_ulid().to_string())
            .goal(
                "runtree, `String::from`",
                1.0,
                || String::from(*ours_text()),
            )
            .goal("runtree, `to_string`", 1.0, || ours().to_string())
            .side("type-safe-id", || of_safe().to_string())
            // It keeps the string, so the string is made with it.
            .side("mti, of the UUID", || {
                MagicTypeId::new(prefix.clone(), TypeIdSuffix::from(*of_mti()))
            }),
    );
}

/// Reads the text, each side as strictly as it can.
fn read(bench: &Bench, ids: &[RunId; COUNT]) {
    let peers = peers(ids);
    let texts = ids.map(|id| id.to_string());
    let ulids = peers.ulid.map(|id| id.to_string());
    let (ours, of_ulid) = (turns(&texts), turns(&ulids));
    let (of_safe, of_mti, of_suffix) = (turns(&texts), turns(&texts), turns(&texts));
    bench.run(
        Group::new("id/read")
            .reference("ulid, without a prefix", || Ulid::from_string(of_ulid()))
            .goal("runtree", 1.0, || ours().parse::<RunId>())
            .side("type-safe-id", || of_safe().parse::<TypeSafeId<Run>>())
            .side("mti", || read_mti(of_mti()))
            .side("mti, without a prefix", || {
                TypeIdSuffix::from_str(&of_suffix()[4..]).map(|suffix| suffix.to_uuid())
            }),
    );
}

/// Reads a text of another type, which is an error.
fn refuse(bench: &Bench, ids: &[RunId; COUNT]) {
    let texts = ids.map(|id| of_another_type(id).to_string());
    let (ours, of_safe, of_mti) = (turns(&texts), turns(&texts), turns(&texts));
    bench.run(
        Group::new("id/refuse another prefix")
            .reference("type-safe-id", || of_safe().parse::<TypeSafeId<Run>>())
            .side("runtree", || ours().parse::<RunId>())
            .side("mti", || read_mti(of_mti())),
    );
}

/// Reads a run's id with `mti`, whose ids have any prefix.
fn read_mti(text: &str) -> Option<MagicTypeId> {
    let id = MagicTypeId::from_str(text).ok()?;
    (id.prefix().as_str() == "run").then_some(id)
}

fn prefix() -> TypeIdPrefix {
    TypeIdPrefix::try_from("run").expect("because it is lower case")
}

fn of_another_type(id: RunId) -> OwnerId {
    OwnerId::from_uuid(*id.as_uuid()).expect("because any such UUID will do")
}

/// The same 128 bits in the peers' types.
struct Peers {
    uuid: [Uuid; COUNT],
    ulid: [Ulid; COUNT],
    type_safe: [TypeSafeId<Run>; COUNT],
}

fn peers(ids: &[RunId; COUNT]) -> Peers {
    let uuid = ids.map(|id| *id.as_uuid());
    Peers {
        uuid,
        ulid: uuid.map(|uuid| Ulid(uuid.as_u128())),
        type_safe: uuid.map(TypeSafeId::from_uuid),
    }
}

/// Checks that all sides do the same work: a measurement of something else is worth nothing.
fn check(ids: &[RunId; COUNT]) {
    let peers = peers(ids);
    for (index, id) in ids.iter().copied().enumerate() {
        let uuid = peers.uuid[index];
        let text = id.to_string();
        let (_, digits) = text.split_once('_').expect("because every text has one");
        let type_safe = peers.type_safe[index];
        let mti = MagicTypeId::new(prefix(), TypeIdSuffix::from(uuid));

        assert_eq!(id.to_text().as_str(), text);
        assert_eq!(type_safe.to_string(), text);
        assert_eq!(mti.as_str(), text);
        // The same digits, but that it writes them in upper case and reads them in either.
        assert_eq!(peers.ulid[index].to_string().to_lowercase(), digits);
        assert_eq!(TypeIdSuffix::from(uuid).to_string(), digits);

        assert_eq!(text.parse(), Ok(id));
        assert_eq!(Ulid::from_string(digits), Ok(peers.ulid[index]));
        let read = text.parse::<TypeSafeId<Run>>().ok();
        assert_eq!(read.map(|id| id.uuid()), Some(uuid));
        let read = read_mti(&text).map(|id| id.suffix().to_uuid());
        assert_eq!(read, Some(uuid));
        let read = TypeIdSuffix::from_str(digits).ok();
        assert_eq!(read.map(|suffix| suffix.to_uuid()), Some(uuid));

        let other = of_another_type(id).to_string();
        for text in [other.as_str(), &text[..29], &text.replace('_', "-")] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
            assert!(text.parse::<TypeSafeId<Run>>().is_err(), "{text}");
            assert!(read_mti(text).is_none(), "{text}");
        }
        let (short, strange) = (&digits[..25], digits.replace(&digits[25..], "u"));
        for digits in [short, strange.as_str()] {
            assert!(Ulid::from_string(digits).is_err(), "{digits}");
            assert!(TypeIdSuffix::from_str(digits).is_err(), "{digits}");
        }
    }
}
