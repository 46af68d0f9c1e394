//! Rates: how many operations a second each side does, phase by phase, in rounds that the sides take in turns.

use std::fmt;
use std::time::{Duration, Instant};

use crate::{Bench, report::at_tenth};

/// How many operations a side did in one phase of a round, and how long that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// How many operations.
    pub operations: u64,
    /// How long they took together.
    pub spent: Duration,
}

impl Lap {
    /// Does so many operations and takes the time.
    pub fn of<T>(operations: u64, work: impl FnOnce() -> T) -> (Self, T) {
        let start = Instant::now();
        let answer = work();
        let spent = start.elapsed();
        (Self { operations, spent }, answer)
    }

    #[expect(clippy::cast_precision_loss, reason = "operations are far below 2^52")]
    fn per_second(self) -> f64 {
        self.operations as f64 / self.spent.as_secs_f64()
    }
}

/// What a side did in one round: a lap for each phase, none for a phase that it does not have.
pub type Round = Vec<Option<Lap>>;

/// A phase of every round.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    /// What the sides do in it.
    pub name: &'a str,
    /// Which share of the reference's rate the others should reach at least.
    pub goal: Option<f64>,
}

impl<'a> Phase<'a> {
    /// Makes a phase without a goal.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self { name, goal: None }
    }

    /// Makes a phase in which at least this share of the reference's rate should be reached.
    #[must_use]
    pub const fn with_goal(name: &'a str, goal: f64) -> Self {
        Self {
            name,
            goal: Some(goal),
        }
    }
}

/// What a side does for a round.
type Work<'a> = Box<dyn FnMut() -> Round + 'a>;

/// Sides that do the same phases; the first one is what the others are compared with.
pub struct Rates<'a> {
    name: &'a str,
    phases: &'a [Phase<'a>],
    sides: Vec<(&'a str, Work<'a>)>,
}

impl<'a> Rates<'a> {
    /// Makes a comparison without sides.
    #[must_use]
    pub const fn new(name: &'a str, phases: &'a [Phase<'a>]) -> Self {
        Self {
            name,
            phases,
            sides: Vec::new(),
        }
    }

    /// Adds a side that answers with a lap for each phase whenever it is asked for a round.
    #[must_use]
    pub fn side(mut self, name: &'a str, work: impl FnMut() -> Round + 'a) -> Self {
        self.sides.push((name, Box::new(work)));
        self
    }
}

impl fmt::Debug for Rates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates")
            .field("name", &self.name)
            .field("phases", &self.phases)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// Measures rates and prints their table.
    ///
    /// It does not look at the filters: sides are dear to prepare, so that who makes them asks [`Bench::wants`] before.
    pub fn run_rates(&self, rates: Rates<'_>) {
        #[expect(clippy::print_stdout, reason = "the table is what the program is for")]
        {
            println!("{}", self.measure_rates(rates));
        }
    }

    /// Measures rates and returns their table.
    #[must_use]
    pub fn measure_rates(&self, mut rates: Rates<'_>) -> RatesReport {
        let count = rates.sides.len();
        let mut samples = vec![vec![Vec::new(); rates.phases.len()]; count];
        // The first round warms up, and is thrown away.
        let warm_up = usize::from(self.options.is_measured);
        for round in 0..self.options.rounds + warm_up {
            for turn in 0..count {
                let index = (round + turn) % count;
                let laps = (rates.sides[index].1)();
                if round >= warm_up {
                    let phases = samples[index].iter_mut().zip(laps);
                    phases.for_each(|(samples, lap)| samples.extend(lap.map(Lap::per_second)));
                }
            }
        }
        RatesReport {
            name: rates.name.to_owned(),
            phases: rates
                .phases
                .iter()
                .map(|p| (p.name.to_owned(), p.goal))
                .collect(),
            sides: rates
                .sides
                .into_iter()
                .map(|(name, _)| name.to_owned())
                .zip(samples)
                .collect(),
        }
    }
}

/// What [`Rates`] measured; shown as a Markdown table: median and best of each side, and the ratio of its median to the first side's.
#[derive(Clone, Debug)]
pub struct RatesReport {
    name: String,
    phases: Vec<(String, Option<f64>)>,
    sides: Vec<(String, Vec<Vec<f64>>)>,
}

impl RatesReport {
    /// Returns the ratio of a side's median rate to the first side's; none where one of them lacks the phase.
    #[must_use]
    pub fn ratio(&self, side: usize, phase: usize) -> Option<f64> {
        Some(self.rate(side, phase)?.0 / self.rate(0, phase)?.0)
    }

    /// Median and best.
    fn rate(&self, side: usize, phase: usize) -> Option<(f64, f64)> {
        let mut samples = self.sides.get(side)?.1.get(phase)?.clone();
        samples.sort_by(f64::total_cmp);
        Some((*at_tenth(&samples, 5)?, *samples.last()?))
    }
}

impl fmt::Display for RatesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_goals = self.phases.iter().any(|(_, goal)| goal.is_some());
        write!(f, "| {}, per second: median (best) |", self.name)?;
        for (index, (side, _)) in self.sides.iter().enumerate() {
            let ratio = if index == 0 { "" } else { " ratio |" };
            write!(f, " {side} |{ratio}")?;
        }
        let columns = self.sides.len() * 2 - 1 + usize::from(has_goals);
        let goal = if has_goals { " goal |" } else { "" };
        writeln!(f, "{goal}\n|:---|{}", "---:|".repeat(columns))?;
        for (phase, (name, goal)) in self.phases.iter().enumerate() {
            write!(f, "| {name} |")?;
            for side in 0..self.sides.len() {
                match self.rate(side, phase) {
                    Some((median, best)) => {
                        write!(f, " {} ({}) |", rounded(median), rounded(best))?;
                    }
                    None => write!(f, " |")?,
                }
                match self.ratio(side, phase) {
                    _ if side == 0 => {}
                    Some(ratio) => write!(f, " **{ratio:.2}** |")?,
                    None => write!(f, " |")?,
                }
            }
            match goal {
                Some(goal) => write!(f, " {goal:.2} |")?,
                None if has_goals => write!(f, " |")?,
                None => {}
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Writes a rate with three digits that count, and its thousands apart.
fn rounded(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits;
    }
    let digits: String = digits
        .char_indices()
        .map(|(at, digit)| if at < 3 { digit } else { '0' })
        .collect();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn lap(operations: u64) -> Option<Lap> {
        Some(Lap {
            operations,
            spent: Duration::from_secs(1),
        })
    }

    #[test]
    fn the_table_has_median_rates_and_their_ratios_to_the_first_side() {
        let mut options = Options::smoke();
        options.rounds = 3;
        let phases = [Phase::with_goal("create", 0.6), Phase::new("drain")];
        let mut speeds = [1_000, 9_000, 2_000].into_iter();
        let report = Bench::new(options).measure_rates(
            Rates::new("sqlite", &phases)
                .side("raw", move || vec![lap(speeds.next().unwrap()), None])
                .side("ours", || vec![lap(1_500), lap(123_456)]),
        );
        assert_eq!(report.ratio(1, 0), Some(0.75));
        assert_eq!(report.ratio(1, 1), None);
        let table = report.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "| sqlite, per second: median (best) | raw | ours | ratio | goal |",
                "|:---|---:|---:|---:|---:|",
                "| create | 2,000 (9,000) | 1,500 (1,500) | **0.75** | 0.60 |",
                "| drain | | 123,000 (123,000) | | |",
            ]
        );
    }

    #[test]
    fn the_first_round_of_a_measurement_is_thrown_away() {
        let mut options = Options::full();
        options.rounds = 2;
        let phases = [Phase::new("create")];
        let mut speeds = [1, 50, 50].into_iter();
        let report = Bench::new(options).measure_rates(
            Rates::new("warm", &phases).side("side", || vec![lap(speeds.next().unwrap())]),
        );
        assert!(report.to_string().contains("| 50 (50) |"), "{report}");
        assert_eq!(speeds.next(), None);
    }
}
