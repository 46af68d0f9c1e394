//! Random choices that are the same for the same seed, for tests that must be told again as they were.

/// Dice that fall the same way for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Takes a seed; every seed is as good as any other.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Throws a number of 64 bits.
    pub fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 when that is 0.
    pub fn below(&mut self, number: u64) -> u64 {
        self.roll() % number.max(1)
    }

    /// A number from the first to the last, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// Yes, once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some values; none of none.
    pub fn one_of<'v, T>(&mut self, values: &'v [T]) -> Option<&'v T> {
        let count = u64::try_from(values.len()).ok()?;
        let at = usize::try_from(self.below(count)).ok()?;
        values.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_story_and_another_one_another() {
        let story = |seed| {
            let mut dice = Dice::new(seed);
            [(); 8].map(|()| dice.between(3, 9))
        };
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
        assert!(story(7).iter().all(|number| (3..=9).contains(number)));
        assert_eq!(Dice::new(7).one_of::<u8>(&[]), None);
    }
}
