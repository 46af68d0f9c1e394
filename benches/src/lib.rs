//! runtree beside its references, as ratios of medians.
//!
//! A bench is a program that hands [`Group`]s of sides to a [`Bench`]. All
//! sides of a group do the same work; their samples are taken in turns in one
//! run, so that whatever else the machine does falls on all of them alike, and
//! what is compared is the median of one side with the median of the named
//! reference.
//!
//! ```
//! use runtree_benches::{Bench, Group, Options};
//!
//! let numbers: Vec<u64> = (0..100).collect();
//! let report = Bench::new(Options::smoke()).measure(
//!     Group::new("sum")
//!         .reference("loop", || numbers.iter().sum::<u64>())
//!         .goal("formula", 0.5, || 99 * 100 / 2),
//! );
//! assert!(report.to_string().contains("| formula |"));
//! ```
//!
//! # What it does not do
//!
//! It asserts no time: a goal is printed beside the ratio, and whether it was
//! met is for the reader to say of a quiet machine. It keeps no history.

mod rates;
mod remote;
mod report;
mod stack;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

pub use crate::{
    rates::{Lap, Phase, Rates, RatesReport, Round},
    remote::{INPUT, Orders, Remote, answer},
    report::{Report, Row},
    stack::StackText,
};

/// How long and how often is measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How many samples each side gives.
    pub samples: usize,
    /// How long one sample should take; the work is repeated until it does.
    pub sample_time: Duration,
    /// How many rounds [`Rates`] take.
    pub rounds: usize,
    /// Whether this is a measurement, and not only a look whether every side runs.
    pub is_measured: bool,
    /// Only groups whose name contains one of these are measured; none means all.
    pub filters: Vec<String>,
    /// What was given besides, as `name=value`.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// Makes the options of a measurement.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            samples: 501,
            sample_time: Duration::from_micros(500),
            rounds: 7,
            is_measured: true,
            filters: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Makes the options that only show that every side runs.
    #[must_use]
    pub const fn smoke() -> Self {
        Self {
            samples: 1,
            sample_time: Duration::ZERO,
            rounds: 1,
            is_measured: false,
            filters: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Makes the options that the arguments of the program ask for.
    ///
    /// Cargo passes `--bench` when it benches and does not when it tests; a
    /// test run is a smoke run. Arguments that are not options are filters, or
    /// settings where they have a `=`.
    #[must_use]
    pub fn from_args() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let measured = arguments.iter().any(|argument| argument == "--bench");
        let mut options = if measured {
            Self::full()
        } else {
            Self::smoke()
        };
        for argument in arguments {
            match argument.split_once('=') {
                _ if argument.starts_with('-') => {}
                Some((name, value)) => options.settings.push((name.to_owned(), value.to_owned())),
                None => options.filters.push(argument),
            }
        }
        options
    }

    /// Picks how much to do: this in a measurement, that where only to see whether it runs.
    #[must_use]
    pub fn pick<T>(&self, measured: T, smoke: T) -> T {
        if self.is_measured { measured } else { smoke }
    }
}

/// One run over groups of sides.
#[derive(Debug)]
pub struct Bench {
    options: Options,
}

impl Bench {
    /// Makes a run with these options.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options }
    }

    /// Returns the options.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Answers whether the filters let a group of this name through.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let filters = &self.options.filters;
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// Measures a group, if the filters let it through, and prints its table.
    pub fn run(&self, group: Group<'_>) {
        if self.wants(group.name) {
            #[expect(clippy::print_stdout, reason = "the table is what the program is for")]
            {
                println!("{}", self.measure(group));
            }
        }
    }

    /// Measures a group and returns its table.
    #[must_use]
    pub fn measure(&self, mut group: Group<'_>) -> Report {
        let repeats: Vec<u64> = group
            .sides
            .iter_mut()
            .map(|side| self.calibrate(side))
            .collect();
        let count = group.sides.len();
        let mut samples = vec![Vec::with_capacity(self.options.samples); count];
        for round in 0..self.options.samples {
            // Each round begins with another side, so that none always follows the same one.
            for turn in 0..count {
                let index = (round + turn) % count;
                let spent = (group.sides[index].work)(repeats[index]);
                let nanos = spent.as_secs_f64() * 1e9;
                #[expect(clippy::cast_precision_loss, reason = "repeats are far below 2^52")]
                samples[index].push(nanos / repeats[index] as f64);
            }
        }
        let rows = group.sides.into_iter().zip(samples);
        let rows = rows.map(|(side, samples)| Row::new(side.name, side.goal, samples));
        Report::new(group.name, &group.references, rows.collect())
    }

    /// Finds how often a side must work to fill a sample.
    fn calibrate(&self, side: &mut Side<'_>) -> u64 {
        let mut repeats = 1;
        while (side.work)(repeats) < self.options.sample_time {
            repeats *= 2;
        }
        repeats
    }
}

/// Sides that do the same work.
#[derive(Debug)]
pub struct Group<'a> {
    name: &'a str,
    references: Vec<usize>,
    sides: Vec<Side<'a>>,
}

impl<'a> Group<'a> {
    /// Makes a group without sides.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self {
            name,
            references: Vec::new(),
            sides: Vec::new(),
        }
    }

    /// Adds a side that the others are compared with; of several it is the fastest.
    #[must_use]
    pub fn reference<T: 'a>(self, name: &'a str, work: impl FnMut() -> T + 'a) -> Self {
        self.timed_reference(name, repeated(work))
    }

    /// Adds a side.
    #[must_use]
    pub fn side<T: 'a>(self, name: &'a str, work: impl FnMut() -> T + 'a) -> Self {
        self.timed(name, None, repeated(work))
    }

    /// Adds a side whose ratio to the reference should be at most `goal`.
    #[must_use]
    pub fn goal<T: 'a>(self, name: &'a str, goal: f64, work: impl FnMut() -> T + 'a) -> Self {
        self.timed(name, Some(goal), repeated(work))
    }

    /// Adds a side that the others are compared with, which takes its own time; of several it is the fastest.
    #[must_use]
    pub fn timed_reference(
        mut self,
        name: &'a str,
        work: impl FnMut(u64) -> Duration + 'a,
    ) -> Self {
        self.references.push(self.sides.len());
        self.timed(name, None, work)
    }

    /// Adds a side that takes its own time.
    ///
    /// It is told how often to work and answers how long that took; what
    /// prepares or cleans up can stay outside the time it answers.
    #[must_use]
    pub fn timed(
        mut self,
        name: &'a str,
        goal: Option<f64>,
        work: impl FnMut(u64) -> Duration + 'a,
    ) -> Self {
        self.sides.push(Side {
            name,
            goal,
            work: Box::new(work),
        });
        self
    }
}

struct Side<'a> {
    name: &'a str,
    goal: Option<f64>,
    work: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl std::fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Side");
        debug.field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes work that can be repeated, and timed, of work that is done once.
fn repeated<T>(mut work: impl FnMut() -> T) -> impl FnMut(u64) -> Duration {
    move |repeats| {
        let start = Instant::now();
        for _ in 0..repeats {
            black_box(work());
        }
        start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_gives_every_sample_and_the_reference_is_one() {
        let options = Options {
            samples: 3,
            ..Options::smoke()
        };
        let (mut one, mut two) = (0, 0);
        let report = Bench::new(options).measure(
            Group::new("counting")
                .reference("one", || one += 1)
                .side("two", || two += 1),
        );
        let text = report.to_string();
        // Calibrating takes one turn more.
        assert_eq!((one, two), (4, 4));
        assert!(text.contains("1.00"), "{text}");
    }

    #[test]
    fn a_side_is_repeated_until_it_fills_a_sample() {
        let options = Options {
            samples: 1,
            sample_time: Duration::from_nanos(1_000),
            ..Options::smoke()
        };
        let mut asked = Vec::new();
        let each = |repeats: u64| {
            asked.push(repeats);
            Duration::from_nanos(100 * repeats)
        };
        let report = Bench::new(options).measure(Group::new("timed").timed("side", None, each));
        assert_eq!(asked, [1, 2, 4, 8, 16, 16]);
        assert!(report.to_string().contains("100.0"), "{report}");
    }
}
