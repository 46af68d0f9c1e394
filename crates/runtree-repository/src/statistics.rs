//! Counts and measures over all runs that a filter shows.

use std::collections::BTreeMap;
use std::time::Duration;

use runtree_status::RunStatus;
use serde::Serialize;

use crate::facts::{Cost, Usage};
use crate::text::WorkflowName;

/// What the runs of a filter come to, computed by the store over all of them and not over a page.
///
/// All numbers are of one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunStatistics {
    /// How many runs there are.
    pub runs: u64,
    /// How many runs stand at each status; a status that no run has is missing.
    pub by_status: BTreeMap<RunStatus, u64>,
    /// How many runs each workflow has: those with the most, at most [`MAX_WORKFLOWS`](Self::MAX_WORKFLOWS) of
    /// them; of those with as many the first by name.
    pub by_workflow: BTreeMap<WorkflowName, u64>,
    /// The time from the first start to the end, of runs that have both.
    pub duration: Measure,
    /// The time from the instant that a run could start at to its first start, of runs that started. Of a run that waited
    /// again for another attempt it is unknown how long it waited first; it counts with nothing.
    pub waiting: Measure,
    /// Tokens that models read.
    pub input_tokens: u64,
    /// Tokens that models wrote.
    pub output_tokens: u64,
    /// What it cost.
    pub cost: Cost,
}

impl RunStatistics {
    /// The most workflows that are counted one by one.
    pub const MAX_WORKFLOWS: usize = 100;

    /// Returns the share of completed runs among completed and failed ones, from 0 to 1; none while there are neither.
    ///
    /// Killed runs count for nothing: that somebody stopped them says nothing of their success.
    pub fn success_rate(&self) -> Option<f64> {
        let count = |status| self.by_status.get(&status).copied().unwrap_or_default();
        let (completed, failed) = (count(RunStatus::Completed), count(RunStatus::Failed));
        let all = completed + failed;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share needs no more digits than a float has"
        )]
        (all > 0).then(|| completed as f64 / all as f64)
    }

    /// Returns the sum of all usages; a sum beyond the limit of one usage stays at the limit.
    pub fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cost: self.cost,
        }
    }
}

/// The distribution of a time over some runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Measure {
    /// How many runs have it.
    pub count: u64,
    /// The mean, to the microsecond below; zero when no run has it.
    pub mean: Duration,
    /// The median: of the values in order, the one at place `ceil(count / 2)`.
    pub median: Duration,
    /// The ninetieth percentile: the one at place `ceil(0.9 * count)`.
    pub p90: Duration,
    /// The ninety-ninth percentile: the one at place `ceil(0.99 * count)`.
    pub p99: Duration,
    /// The greatest.
    pub max: Duration,
}

impl Measure {
    /// Measures values: the meaning that every backend's query has.
    pub fn of(values: impl IntoIterator<Item = Duration>) -> Self {
        let mut values: Vec<u64> = values
            .into_iter()
            .map(|value| u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
            .collect();
        values.sort_unstable();
        let count = values.len();
        // In hundredths, so that no float decides a place: the nearest-rank percentile, which is always a value that was there.
        let at = |hundredths: usize| {
            let place = (count * hundredths).div_ceil(100);
            let value = values.get(place.saturating_sub(1));
            Duration::from_micros(value.copied().unwrap_or_default())
        };
        let sum: u128 = values.iter().copied().map(u128::from).sum();
        let number = u128::try_from(count).unwrap_or(u128::MAX);
        let mean = sum.checked_div(number).unwrap_or_default();
        Self {
            count: u64::try_from(count).unwrap_or(u64::MAX),
            mean: Duration::from_micros(u64::try_from(mean).unwrap_or(u64::MAX)),
            median: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }

    /// Makes a measure from its parts in microseconds, as a backend reads them: count, mean, median, p90, p99, max.
    pub const fn from_micros(parts: [u64; 6]) -> Self {
        let [count, mean, median, p90, p99, max] = parts;
        Self {
            count,
            mean: Duration::from_micros(mean),
            median: Duration::from_micros(median),
            p90: Duration::from_micros(p90),
            p99: Duration::from_micros(p99),
            max: Duration::from_micros(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_there() {
        assert_eq!(Measure::of([]), Measure::default());
        let seconds = |numbers: &[u64]| {
            let values: Vec<Duration> = numbers.iter().map(|n| Duration::from_secs(*n)).collect();
            Measure::of(values)
        };
        let one = seconds(&[7]);
        assert_eq!(
            [one.mean, one.median, one.p90, one.p99, one.max],
            [Duration::from_secs(7); 5]
        );
        let many = seconds(&(1..=200).rev().collect::<Vec<_>>());
        let parts = [
            200,
            100_500_000,
            100_000_000,
            180_000_000,
            198_000_000,
            200_000_000,
        ];
        assert_eq!(many, Measure::from_micros(parts));
        assert_eq!(seconds(&[1, 2]).median, Duration::from_secs(1));
    }

    #[test]
    fn what_somebody_stopped_does_not_count_as_failed() {
        let mut statistics = RunStatistics::default();
        assert_eq!(statistics.success_rate(), None);
        statistics.by_status = BTreeMap::from([
            (RunStatus::Completed, 3),
            (RunStatus::Failed, 1),
            (RunStatus::Killed, 9),
        ]);
        assert_eq!(statistics.success_rate(), Some(0.75));
    }
}
