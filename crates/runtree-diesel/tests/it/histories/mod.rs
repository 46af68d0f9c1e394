//! Recorded histories: threads and processes do what they like with one store at once, and a checker reads what they were told.
//!
//! A child is this test binary again, told by a variable what to do.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails its test by panicking"
)]

mod concurrent;
mod ending;
mod worker;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use runtree_diesel::{PostgresRepository, SqliteRepository};
use runtree_repository::time::{Clock, SystemClock};
use runtree_repository::{DynRunRepository, RepositoryError};
use runtree_testkit::history::{
    Expectations, Failure, Operation, Recorder, Rule, Violation, check, monotonic_nanos, read,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use self::ending::{finish, stored};
pub(crate) use self::worker::{Mix, claim, request, work};

/// What a child does, as JSON.
pub(crate) const JOB: &str = "RUNTREE_TEST_CHILD";

/// The file beside the histories that tells every process to stop.
const STOP: &str = "stop";

/// How many processes work at once.
pub(crate) fn processes() -> u64 {
    number("RUNTREE_TEST_HISTORY_PROCESSES").unwrap_or(8)
}

/// For how long they work.
pub(crate) fn working_time() -> Duration {
    Duration::from_secs(number("RUNTREE_TEST_HISTORY_SECONDS").unwrap_or(2))
}

pub(crate) fn seed() -> u64 {
    number("RUNTREE_TEST_SEED").unwrap_or(20_250_622)
}

fn number(name: &str) -> Option<u64> {
    variable(name).map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sizes of tests, and what a child does, come from the environment"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A store that histories are made on.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Store {
    /// Opens it with short time limits, so that calls are answered in bounded time whatever happens.
    pub(crate) async fn open(&self) -> DynRunRepository {
        self.open_by(Arc::new(SystemClock)).await
    }

    /// As [`open`](Self::open), by a clock of the process's own; PostgreSQL has its own.
    pub(crate) async fn open_by(&self, clock: Arc<dyn Clock>) -> DynRunRepository {
        // A server that was stopped takes a while to come back.
        let deadline = monotonic_nanos() + 60_000_000_000;
        loop {
            match self.try_open(Arc::clone(&clock)).await {
                Ok(runs) => return runs,
                Err(error) => {
                    let may_wait = error.is_retryable() && monotonic_nanos() < deadline;
                    assert!(may_wait, "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn try_open(&self, clock: Arc<dyn Clock>) -> Result<DynRunRepository, RepositoryError> {
        Ok(match self {
            Self::Sqlite(path) => {
                let builder = SqliteRepository::builder(path).clock(clock);
                Arc::new(builder.open().await?)
            }
            Self::Postgres(url) => {
                let builder = PostgresRepository::builder(url)
                    .max_connections(4.try_into().unwrap())
                    .connect_timeout(Duration::from_secs(5))
                    .answer_timeout(Duration::from_secs(20));
                Arc::new(builder.connect().await?)
            }
        })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Sqlite(path) => json!({ "sqlite": path }),
            Self::Postgres(url) => json!({ "postgres": url }),
        }
    }

    fn from_json(value: &Value) -> Self {
        match (value["sqlite"].as_str(), value["postgres"].as_str()) {
            (Some(path), _) => Self::Sqlite(path.into()),
            (None, Some(url)) => Self::Postgres(url.to_owned()),
            (None, None) => panic!("no store: {value}"),
        }
    }
}

/// The work of one process.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) store: Store,
    pub(crate) history: PathBuf,
    pub(crate) seed: u64,
    /// On the machine's monotonic clock.
    pub(crate) until: u64,
    /// How many callers it has.
    pub(crate) tasks: u64,
    /// By how many hours its clock steps back and forth.
    pub(crate) stepping_hours: u64,
}

impl Job {
    pub(crate) fn to_json(&self) -> String {
        json!({
            "store": self.store.to_json(),
            "history": self.history,
            "seed": self.seed,
            "until": self.until,
            "tasks": self.tasks,
            "stepping_hours": self.stepping_hours,
        })
        .to_string()
    }

    fn from_json(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap();
        let number = |name: &str| value[name].as_u64().unwrap();
        Self {
            store: Store::from_json(&value["store"]),
            history: value["history"].as_str().unwrap().into(),
            seed: number("seed"),
            until: number("until"),
            tasks: number("tasks"),
            stepping_hours: number("stepping_hours"),
        }
    }

    /// Whether it is time to stop: by the clock, or because the test says so.
    fn is_over(&self) -> bool {
        monotonic_nanos() >= self.until || self.history.with_file_name(STOP).exists()
    }

    /// How much it has recorded, in bytes.
    pub(crate) fn recorded(&self) -> u64 {
        std::fs::metadata(&self.history).map_or(0, |file| file.len())
    }

    /// Starts a process that does it.
    pub(crate) fn spawn(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        self.spawn_by(&mut command)
    }

    pub(crate) fn spawn_by(&self, command: &mut Command) -> Child {
        let log = self.history.with_extension("log");
        let log = File::create(log).unwrap();
        command
            .args(["--exact", "histories::child", "--ignored", "--nocapture"])
            .env(JOB, self.to_json())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// What the process printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.history.with_extension("log")).unwrap_or_default()
    }
}

#[test]
#[ignore = "the body of child processes; does nothing when it is run by itself"]
fn child() {
    let Some(job) = variable(JOB) else {
        return;
    };
    let job = Job::from_json(&job);
    runtime().block_on(work(job, &Mix::EVERYTHING));
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// The place of the histories of one test; kept when they cannot be.
pub(crate) struct Scene {
    directory: TempDir,
    pub(crate) store: Store,
    count: u64,
}

impl Scene {
    pub(crate) fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::Sqlite(directory.path().join("runs.db"));
        Self {
            directory,
            store,
            count: 0,
        }
    }

    /// On a file in a directory whose file system is a matter of the test's own; the histories are elsewhere.
    pub(crate) fn on_sqlite_in(directory: &Path) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            store: Store::Sqlite(directory.join("runs.db")),
            count: 0,
        }
    }

    pub(crate) fn on_postgres(url: String) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            store: Store::Postgres(url),
            count: 0,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The work of the next process.
    pub(crate) fn next_job(&mut self, until: u64) -> Job {
        self.count += 1;
        Job {
            store: self.store.clone(),
            history: self.path().join(format!("{}.history", self.count)),
            seed: seed().wrapping_add(self.count),
            until,
            tasks: 3,
            stepping_hours: 0,
        }
    }

    /// Tells every process to stop.
    pub(crate) fn stop(&self) {
        std::fs::write(self.path().join(STOP), "").unwrap();
    }

    /// Reads what was recorded.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        read(self.path()).unwrap()
    }

    /// Lets every run come to its end, and checks everything; answers how many calls were made.
    pub(crate) async fn conclude(self, failures: &[Failure]) -> Figures {
        let expectations = Expectations {
            failures: failures.to_vec(),
            longest_call: Duration::from_secs(45),
            clocks_agree: true,
            all_ended: true,
        };
        let runs = self.store.open().await;
        self.conclude_by(runs, expectations).await
    }

    /// As [`conclude`](Self::conclude), with a store that was opened in a way of the test's own.
    pub(crate) async fn conclude_by(
        self,
        runs: DynRunRepository,
        expectations: Expectations,
    ) -> Figures {
        let recorder = Arc::new(Recorder::create(&self.path().join("end.history")));
        finish(&runs, &recorder).await;
        let stored = stored(&runs).await;
        let operations = self.operations();
        let violations = check(&operations, &stored, &expectations);
        let figures = Figures::of(&operations, stored.len());
        if let Store::Sqlite(path) = &self.store {
            assert_eq!(integrity(path), "ok");
        }
        if !violations.is_empty() {
            let kept = self.directory.keep();
            panic!(
                "{figures:?}: {} violations, {:?}, histories in {}: {}",
                violations.len(),
                rules(&violations),
                kept.display(),
                shown(&violations),
            );
        }
        figures
    }
}

fn rules(violations: &[Violation]) -> std::collections::BTreeMap<Rule, usize> {
    let mut rules = std::collections::BTreeMap::new();
    for violation in violations {
        *rules.entry(violation.rule).or_default() += 1;
    }
    rules
}

fn shown(violations: &[Violation]) -> String {
    let few = violations.iter().take(12);
    few.map(|violation| format!("\n  {violation}")).collect()
}

/// What was done, for people who let it run for long.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "the fields are printed, and a test looks at some of them"
)]
pub(crate) struct Figures {
    pub(crate) calls: usize,
    pub(crate) unanswered: usize,
    pub(crate) failed: usize,
    pub(crate) processes: usize,
    pub(crate) runs: usize,
}

impl Figures {
    #[expect(
        clippy::print_stdout,
        reason = "people who let it run for long read it"
    )]
    pub(crate) fn show(&self, what: &str) {
        println!("{what}: {self:?}");
    }

    fn of(operations: &[Operation], runs: usize) -> Self {
        let answers = || operations.iter().map(Operation::answered);
        let is_failed = |answer: &runtree_testkit::history::Answer| {
            matches!(answer, runtree_testkit::history::Answer::Failed { .. })
        };
        let processes: std::collections::BTreeSet<&str> = operations
            .iter()
            .map(|operation| operation.process.as_str())
            .collect();
        Self {
            calls: operations.len(),
            unanswered: answers().filter(Option::is_none).count(),
            failed: answers()
                .flatten()
                .filter(|answer| is_failed(answer))
                .count(),
            processes: processes.len(),
            runs,
        }
    }
}

fn integrity(path: &Path) -> String {
    use diesel::sql_types::Text;
    use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection};

    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        answer: String,
    }
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let sql = "SELECT integrity_check AS answer FROM pragma_integrity_check";
    let rows: Vec<Row> = diesel::sql_query(sql).load(&mut connection).unwrap();
    let answers: Vec<String> = rows.into_iter().map(|row| row.answer).collect();
    answers.join("; ")
}

/// Waits for processes that are to end by themselves.
pub(crate) fn wait_for(children: Vec<(Job, Child)>) {
    for (job, mut child) in children {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", job.log());
    }
}
