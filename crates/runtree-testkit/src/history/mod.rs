//! Histories of concurrent calls to a store of runs: recorded by every process as it goes, and checked afterwards.
//!
//! Each process writes a line before a call and a line after it, each by one write, so that a process that is killed loses at most its
//! last line, and a call without an answer is one whose outcome is not known. Lines carry the machine's monotonic clock, which all
//! processes of a machine share: when one call was answered before another began, the store must not show them the other way round.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtree_id::RunId;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use self::check::{Expectations, Rule, Violation, check};

/// The machine's monotonic clock in nanoseconds, the same for all of its processes.
pub fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.expect("the monotonic clock begins with 0") * 1_000_000_000
        + nanos.expect("a part of a second is positive")
}

/// What an owner shows: a run, and the token of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// The run.
    pub run: RunId,
    /// The token.
    pub token: u32,
}

/// A call, as far as a checker needs to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the call")]
pub enum Call {
    Create {
        run: RunId,
        key: Option<String>,
        /// What it uses, and how many may.
        limit: Option<(String, usize)>,
        has_deadline: bool,
    },
    Retry {
        of: RunId,
        run: RunId,
    },
    Claim {
        owner: String,
        lease: Duration,
    },
    Renew {
        held: Held,
        lease: Duration,
    },
    End {
        held: Held,
        outcome: EndedBy,
    },
    Release {
        held: Held,
    },
    Cancel {
        run: RunId,
    },
    ForceKill {
        run: RunId,
    },
    Rescue {
        proven_dead: Vec<Held>,
    },
    TimeOut,
    Annotate {
        run: RunId,
        /// A key of the metadata that nobody else writes.
        key: String,
    },
}

/// How an owner ends an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the outcomes")]
pub enum EndedBy {
    Completed,
    Failed,
    /// With another attempt, when one is left.
    FailedForNow,
    Killed,
}

/// An answer, as far as a checker needs to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the answers")]
pub enum Answer {
    /// The run is new.
    New {
        run: RunId,
    },
    /// The same request made this run before.
    Existing {
        run: RunId,
    },
    /// Something of it belongs to this run, which is another request.
    Conflict {
        run: RunId,
    },
    Claimed {
        held: Vec<Held>,
    },
    Renewed,
    Lost,
    Applied,
    Already,
    Stale,
    NotFound,
    /// The runs that were taken away, under the tokens that their owners had.
    Rescued {
        held: Vec<Held>,
    },
    /// The runs that were changed for their deadlines.
    TimedOut {
        runs: Vec<RunId>,
    },
    Failed {
        failure: Failure,
        text: String,
    },
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Failure {
    /// Nothing was written.
    Busy,
    /// Whether something was written is not known.
    Unavailable,
    /// Anything else; nothing was written.
    Other,
}

/// One call of a history, with its answer when there was one.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The file that told of it.
    pub process: String,
    /// What was asked for.
    pub call: Call,
    /// When it began.
    pub invoked_at: u64,
    /// The answer, and when it came.
    pub answer: Option<(u64, Answer)>,
}

impl Operation {
    /// The answer when there was one.
    pub fn answered(&self) -> Option<&Answer> {
        self.answer.as_ref().map(|(_, answer)| answer)
    }
}

/// A line of a recorded history.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    number: u64,
    /// On the machine's monotonic clock.
    at: u64,
    /// On the machine's calendar, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    wall: Option<String>,
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
enum What {
    Call(Call),
    Answer(Answer),
}

/// Writes the history of one process, or of one part of it.
#[derive(Debug)]
pub struct Recorder {
    file: Mutex<(File, u64)>,
}

/// The number of a recorded call, to record its answer under.
#[derive(Debug)]
#[must_use = "a call without an answer is one whose outcome is not known"]
pub struct Recorded(u64);

impl Recorder {
    /// Begins a history in a file that is not there yet.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            file: Mutex::new((file, 0)),
        }
    }

    /// Records that a call begins.
    pub fn call(&self, call: Call) -> Recorded {
        Recorded(self.write(None, What::Call(call)))
    }

    /// Records what a call was answered.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a call has one answer: who has given it cannot give another"
    )]
    pub fn answer(&self, of: Recorded, answer: Answer) {
        let Recorded(number) = of;
        self.write(Some(number), What::Answer(answer));
    }

    fn write(&self, number: Option<u64>, what: What) -> u64 {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, count) = &mut *file;
        let number = number.unwrap_or_else(|| {
            *count += 1;
            *count
        });
        // Read under the lock: the lines of a file are in the order of their instants.
        let line = Line {
            number,
            at: monotonic_nanos(),
            wall: Some(wall_clock()),
            what,
        };
        let mut text = serde_json::to_string(&line).expect("a line has only plain values");
        text.push('\n');
        file.write_all(text.as_bytes())
            .expect("a history can be written");
        number
    }
}

fn wall_clock() -> String {
    use runtree_time::Clock as _;
    runtree_time::SystemClock.now().to_string()
}

/// Reads every history of a directory. A last line that was cut off by a kill is left out; any other must be whole.
///
/// # Errors
/// What cannot be read, or is no history.
pub fn read(directory: &Path) -> io::Result<Vec<Operation>> {
    let mut operations = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "history")
        {
            operations.extend(read_file(&path)?);
        }
    }
    operations.sort_by_key(|operation| operation.invoked_at);
    Ok(operations)
}

fn read_file(path: &Path) -> io::Result<Vec<Operation>> {
    let process = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let wrong = |line: usize, why: &dyn std::fmt::Display| {
        let place = format!("{}:{}: {why}", path.display(), line + 1);
        io::Error::new(io::ErrorKind::InvalidData, place)
    };
    let text = fs::read_to_string(path)?;
    let mut operations: Vec<Operation> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, text) in text.split_inclusive('\n').enumerate() {
        let Some(text) = text.strip_suffix('\n') else {
            break;
        };
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(index, &error))?;
        match line.what {
            What::Call(call) => {
                open.insert(line.number, operations.len());
                operations.push(Operation {
                    process: process.clone(),
                    call,
                    invoked_at: line.at,
                    answer: None,
                });
            }
            What::Answer(answer) => {
                let operation = open
                    .remove(&line.number)
                    .and_then(|at| operations.get_mut(at));
                let operation =
                    operation.ok_or_else(|| wrong(index, &"the answer of no call before it"))?;
                operation.answer = Some((line.at, answer));
            }
        }
    }
    Ok(operations)
}

/// A run as the store shows it in the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FinalRun {
    /// The run.
    pub id: RunId,
    /// The word of its status.
    pub status: String,
    /// Whether it has ended.
    pub has_ended: bool,
    /// The last token that was given out.
    pub token: u32,
    /// What names its request.
    pub idempotency_key: Option<String>,
    /// The ended run that it repeats.
    pub retry_of: Option<RunId>,
    /// Whether it needs a worktree that is removed in the end.
    pub needs_worktree: bool,
    /// Whether somebody is wanted to clean up.
    pub is_cleanup_wanted: bool,
    /// When it was made, first started and ended, and last changed, in microseconds since 1970.
    pub instants: Instants,
    /// The keys of its metadata.
    pub metadata: BTreeSet<String>,
    /// What happened to it, oldest first.
    pub events: Vec<FinalEvent>,
}

/// The instants of a run, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of the run's record")]
pub struct Instants {
    pub created: i64,
    pub started: Option<i64>,
    pub ended: Option<i64>,
    pub updated: i64,
}

/// An event as the store shows it in the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FinalEvent {
    /// Its place in the run's history, from 1.
    pub number: u32,
    /// When, in microseconds since 1970.
    pub at: i64,
    /// Its word.
    pub kind: String,
    /// The token that it names.
    pub token: u32,
    /// The owner, where the event names one.
    pub owner: Option<String>,
    /// The run that was made from this one, where the event names one.
    pub retried_as: Option<RunId>,
}
