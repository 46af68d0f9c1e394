//! A side that is a program of its own: what it is built of may clash with what the other sides are built of.
//!
//! The driver writes a line for each round, and the program answers with a line of laps: operations and nanoseconds, or `-`.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::rates::{Lap, Round};

/// A running program that answers rounds.
#[derive(Debug)]
pub struct Remote {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Remote {
    /// Starts the program.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        let output = child.stdout.take().expect("because it is piped");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(output),
            child,
        }
    }

    /// Asks for a round.
    ///
    /// # Panics
    ///
    /// When the program ended or answers something else.
    pub fn round(&mut self) -> Round {
        let input = self
            .input
            .as_mut()
            .expect("because it is open until the drop");
        let asked = input.write_all(b"round\n").and_then(|()| input.flush());
        asked.expect("the program reads until it is told to end");
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.expect("what the program says is text");
        parse(&line).unwrap_or_else(|| panic!("the program answered a round with {line:?}"))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The end of its input tells it to end.
        drop(self.input.take());
        self.child.wait().ok();
    }
}

/// What every job and run is given to work on.
pub const INPUT: &str =
    r#"{"repository":"example/project","issue":4711,"text":"fix the flaky test"}"#;

/// What a program is told to do: its arguments, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orders {
    /// The file or the URL of the database, which is new.
    pub place: String,
    /// How many jobs one caller creates, one by one.
    pub alone: u64,
    /// How many jobs 64 callers create, one by one each.
    pub together: u64,
    /// How many more are added in any way before all are drained, with no look at the time.
    pub more: u64,
}

impl Orders {
    /// How many callers create at once.
    pub const CALLERS: u64 = 64;

    /// Reads the arguments of the program.
    ///
    /// # Panics
    ///
    /// When they are others.
    #[must_use]
    pub fn from_args() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [place, counts @ ..] = &arguments[..] else {
            panic!("the place of the database is missing")
        };
        let counts: Vec<u64> = counts
            .iter()
            .filter_map(|count| count.parse().ok())
            .collect();
        let [alone, together, more] = counts[..] else {
            panic!("three numbers follow the place, not {counts:?}")
        };
        Self {
            place: place.clone(),
            alone,
            together,
            more,
        }
    }

    /// How many jobs there are to drain.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.alone + self.together + self.more
    }
}

/// Answers rounds until there are no more; what a program does that is started by [`Remote::start`].
///
/// # Errors
///
/// When the driver has gone.
pub fn answer(mut round: impl FnMut() -> Round) -> std::io::Result<()> {
    for line in std::io::stdin().lines() {
        line?;
        let mut text = String::new();
        for lap in round() {
            match lap {
                Some(Lap { operations, spent }) => {
                    write!(text, "{operations}/{} ", spent.as_nanos())
                }
                None => write!(text, "- "),
            }
            .expect("because a string takes what is written");
        }
        let mut output = std::io::stdout().lock();
        writeln!(output, "{}", text.trim_end())?;
        output.flush()?;
    }
    Ok(())
}

fn parse(line: &str) -> Option<Round> {
    let laps = line.split_whitespace().map(|word| {
        if word == "-" {
            return Some(None);
        }
        let (operations, nanos) = word.split_once('/')?;
        Some(Some(Lap {
            operations: operations.parse().ok()?,
            spent: Duration::from_nanos(nanos.parse().ok()?),
        }))
    });
    laps.collect::<Option<Round>>()
        .filter(|laps| !laps.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_answers_each_round_with_its_laps() {
        let mut command = Command::new("sh");
        command.args(["-c", "while read -r _; do echo '10/2000 - 3/7'; done"]);
        let mut remote = Remote::start(command);
        let lap = |operations, nanos| {
            Some(Lap {
                operations,
                spent: Duration::from_nanos(nanos),
            })
        };
        for _ in 0..2 {
            assert_eq!(remote.round(), [lap(10, 2_000), None, lap(3, 7)]);
        }
    }

    #[test]
    fn another_answer_is_none() {
        for line in ["", "10", "10/x", "error: no table"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
