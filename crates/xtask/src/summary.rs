//! Counts of tests, read from the summaries that the runners print themselves.

use std::fmt;

/// What the runners said of their tests so far; reads both nextest's summary and libtest's results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    left_out: u64,
    summaries: u64,
    postgres: u64,
}

impl Tally {
    /// Answers how many tests passed.
    #[must_use]
    pub const fn passed(&self) -> u64 {
        self.passed
    }

    /// Answers how many tests failed, in whichever way.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.failed
    }

    /// Answers how many tests were marked as ignored.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Answers how many summaries were read; none means that the counts mean nothing.
    #[must_use]
    pub const fn summaries(&self) -> u64 {
        self.summaries
    }

    /// Answers how many tests passed that stand in a module `postgres`, and so need the server.
    #[must_use]
    pub const fn postgres(&self) -> u64 {
        self.postgres
    }

    /// Reads one line of a runner's output.
    pub fn read_line(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.read_libtest(counts);
        } else if let Some(("", rest)) = line.split_once("Summary [")
            && let Some((_, counts)) = rest.split_once("run: ")
        {
            self.read_nextest(counts);
        } else if is_pass(line) && line.contains("postgres::") {
            self.postgres += 1;
        }
    }

    /// Reads `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s`.
    fn read_libtest(&mut self, counts: &str) {
        let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
        let mut understood = false;
        for (count, what) in counts.split("; ").filter_map(count_of) {
            match what {
                "passed" => {
                    self.passed += count;
                    understood = true;
                }
                "failed" => self.failed += count,
                "ignored" => self.left_out += count,
                // Measured are benches; filtered out is what the caller asked not to run.
                _ => {}
            }
        }
        self.summaries += u64::from(understood);
    }

    /// Reads `120 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 1 skipped`.
    fn read_nextest(&mut self, counts: &str) {
        let mut understood = false;
        for (count, what) in without_remarks(counts).split(", ").filter_map(count_of) {
            match what {
                "passed" => {
                    self.passed += count;
                    understood = true;
                }
                "skipped" => self.left_out += count,
                // Failed, failed to start, timed out: whatever else there is, it did not pass.
                _ => self.failed += count,
            }
        }
        self.summaries += u64::from(understood);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Answers whether a line reports one test that passed, as `PASS [..] name` or `test name ... ok`.
fn is_pass(line: &str) -> bool {
    line.starts_with("PASS [") || (line.starts_with("test ") && line.ends_with(" ... ok"))
}

fn count_of(part: &str) -> Option<(u64, &str)> {
    let (count, what) = part.trim().split_once(' ')?;
    Some((count.parse().ok()?, what.trim()))
}

fn without_remarks(counts: &str) -> String {
    let mut depth = 0_u32;
    let keep = |character: &char| {
        match character {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                return false;
            }
            _ => {}
        }
        depth == 0
    };
    counts.chars().filter(keep).collect()
}

/// Removes the escape sequences that set colours: `ESC [ ... letter`.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // The sequence ends with its first letter.
            characters.find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read_line(line);
        }
        tally
    }

    #[test]
    fn results_of_several_libtest_programs_add_up() {
        let tally = tally(&[
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ]);
        assert_eq!(tally.to_string(), "7 passed, 2 failed");
        assert_eq!((tally.left_out(), tally.summaries()), (1, 2));
    }

    #[test]
    fn remarks_of_nextest_are_no_counts_and_every_other_way_to_end_is_a_failure() {
        let tally = tally(&[
            "     Summary [  12.3s] 14/15 tests run: 9 passed (1 slow, 2 leaky), 3 failed, 1 exec failed, 1 timed out, 2 skipped",
        ]);
        assert_eq!(tally.to_string(), "9 passed, 5 failed");
        assert_eq!((tally.left_out(), tally.summaries()), (2, 1));
    }

    #[test]
    fn colours_do_not_hide_a_summary() {
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.052s] \u{1b}[1m5\u{1b}[0m tests run: \u{1b}[1m5\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m \u{1b}[33;1mskipped\u{1b}[0m";
        assert_eq!(tally(&[coloured]).passed(), 5);
    }

    #[test]
    fn lines_that_are_no_summary_count_nothing() {
        let tally = tally(&[
            "test summary::passes ... ok",
            "the Summary [ of 3 tests run: 3 passed",
            "test result: pending",
            "Summary [ 1s] 0 tests run: something else",
        ]);
        assert_eq!(tally, Tally::default());
    }

    #[test]
    fn tests_on_postgresql_are_seen_under_both_runners() {
        let tally = tally(&[
            "        PASS [   0.013s] ( 7/90) runtree-diesel::it postgres::conformance",
            "        FAIL [   0.013s] ( 8/90) runtree-diesel::it postgres::other",
            "test postgres::conformance ... ok",
            "test postgres::other ... FAILED",
            "test sqlite::conformance ... ok",
            "test words::of_postgresql ... ok",
        ]);
        assert_eq!(tally.postgres(), 2);
    }
}
