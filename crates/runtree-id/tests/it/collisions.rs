//! The figures on collisions in the crate's documentation, calculated again from what ids are made of.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use runtree_id::{Entropy, EntropyError, IdGenerator, RunId};
use runtree_time::{Clock, ManualClock};

const DOCUMENTATION: &str = include_str!("../../src/lib.rs");

const SECONDS_IN_A_YEAR: f64 = 365.25 * 86_400.0;

/// Gives the same byte for ever.
#[derive(Debug)]
struct Same(u8);

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.fill(self.0);
        Ok(())
    }
}

fn first_id(clock: &ManualClock, byte: u8) -> RunId {
    let generator = IdGenerator::new(Arc::new(clock.clone()), Arc::new(Same(byte)));
    generator.run_id().expect("makes an id")
}

/// Counts the bits that entropy decides.
fn random_bits() -> u32 {
    let clock = ManualClock::default();
    let (zeroes, ones) = (first_id(&clock, 0), first_id(&clock, 0xff));
    (zeroes.as_uuid().as_u128() ^ ones.as_uuid().as_u128()).count_ones()
}

/// Counts the ticks that a clock can show in a second.
fn ticks_a_second() -> u32 {
    let clock = ManualClock::default();
    let start = clock.now();
    let mut ticks = HashSet::new();
    // Generators of other processes: none of them counts on from another.
    while clock.now() < start.saturating_add(Duration::from_millis(1)) {
        ticks.insert(first_id(&clock, 0));
        // A timestamp holds nothing finer.
        clock.advance(Duration::from_micros(1));
    }
    1000 * u32::try_from(ticks.len()).expect("fits")
}

fn pairs(things: f64) -> f64 {
    things * things / 2.0
}

#[test]
fn the_documented_figures_follow_from_the_bits_of_an_id() {
    let (bits, ticks) = (random_bits(), ticks_a_second());
    assert_eq!((bits, ticks), (62, 1_000_000));
    let same_bits = (-f64::from(bits)).exp2();
    let in_a_year = |rate: f64| SECONDS_IN_A_YEAR * pairs(rate) / f64::from(ticks) * same_bits;
    for (rate, shown) in [(1_000.0, "   1000"), (1_000_000.0, "1000000")] {
        let line = format!("//! at {shown} ids a second: {:.1e}\n", in_a_year(rate));
        assert!(DOCUMENTATION.contains(&line), "{line}");
    }
    let formula = format!("//! = {SECONDS_IN_A_YEAR:.0} * (r * r / 2) / {ticks} / 2^{bits}\n");
    let plain = DOCUMENTATION
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(plain.contains(formula.trim()), "{formula}");
    let crowd = format!("//! is {:.1e}.", pairs(1_000.0) * same_bits);
    assert!(DOCUMENTATION.contains(&crowd), "{crowd}");
}
