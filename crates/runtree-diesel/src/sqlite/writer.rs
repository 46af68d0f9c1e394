//! The one thread that writes: it gathers waiting operations into one transaction and answers them after the commit.
//!
//! One commit costs one flush to the disk however many operations it holds, so waiting callers share it, and endings share their
//! statements as well. An operation that fails is taken back alone: the others are then done again, each in a savepoint of its own.
//! Savepoints from the start would cost a copy of every page that several operations change, and failures are rare. A caller that is
//! gone is not missed: an operation is written whole or, when its caller left before its turn, not at all.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{RunQueryDsl, SqliteConnection};
use runtree_repository::time::Clock;
use runtree_repository::{ErrorKind, RepositoryError};
use tokio::sync::mpsc;

use super::dialect::classify;
use super::file_system::Place;
use super::open::Schema;
use super::operation::{Operation, Request, copy, operations};
use super::statement::Statement;
use super::watch::Watch;

/// How many operations share one commit at most. Beyond this the flush is no longer what costs.
const MAX_BATCH: usize = 128;

/// How many operations may wait; further callers wait for a place.
pub(super) const QUEUE: usize = 1_024;

/// How long SQLite itself waits for another process's transaction before the writer looks up and tries again.
///
/// Short, because SQLite sleeps longer and longer within one wait, and a process that has slept for long loses every race.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(20);

/// What the writing thread works with.
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) place: Place,
    pub(super) schema: Schema,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) patience: Duration,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) watch: Arc<Watch>,
}

/// An operation of a transaction, and what became of it.
struct Part {
    operation: Box<dyn Operation>,
    refused: Option<RepositoryError>,
    /// It took the whole transaction back when it was tried, so that it is not tried again.
    is_out: bool,
}

/// What became of a transaction.
enum Attempt {
    /// It is durable; the flag tells whether it is news to watchers.
    Written(bool),
    /// An operation failed, and nothing was written.
    Refused(usize, RepositoryError),
}

impl Writer {
    /// Works until the last handle is gone and everything accepted before is written.
    pub(super) fn work(mut self) {
        let short_wait = format!("PRAGMA busy_timeout = {}", BUSY_WAIT.as_millis());
        if let Err(error) = self.connection.batch_execute(&short_wait) {
            tracing::warn!(%error, "the time limit of SQLite's own waiting cannot be set");
        }
        while let Some(first) = self.requests.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH {
                match self.requests.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            let operations = operations(batch);
            if !operations.is_empty() {
                self.write(operations);
            }
        }
    }

    /// Writes operations in one transaction, again from the start while others hold the database, and answers every caller.
    fn write(&mut self, operations: Vec<Box<dyn Operation>>) {
        let mut parts: Vec<Part> = operations.into_iter().map(Part::new).collect();
        let mut began = Instant::now();
        let mut divided = false;
        let failure = loop {
            match self.attempt(&mut parts, divided) {
                Ok(Attempt::Written(is_news)) => {
                    // Before the callers are answered: who hears of a write from its writer finds the mark moved.
                    if is_news {
                        self.watch.tell();
                    }
                    break None;
                }
                Ok(Attempt::Refused(place, error)) => {
                    self.roll_back();
                    // What is done again has its own time.
                    began = Instant::now();
                    if divided {
                        parts[place].refused = Some(error);
                        parts[place].is_out = true;
                        continue;
                    }
                    parts = parts.into_iter().flat_map(Part::apart).collect();
                    if let [part] = parts.as_mut_slice() {
                        part.refused = Some(error);
                        break None;
                    }
                    tracing::debug!(%error, place, "an operation failed, each is done again for itself");
                    divided = true;
                }
                Err(failure) => {
                    self.roll_back();
                    if failure.kind() != ErrorKind::Busy || began.elapsed() >= self.patience {
                        break Some(Arc::new(failure));
                    }
                    // SQLite answers some conflicts at once instead of waiting.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        for part in parts {
            match (part.refused, &failure) {
                (Some(error), _) if part.is_out => part.operation.fail(error),
                (_, Some(failure)) => part.operation.fail(copy(failure)),
                (Some(error), None) => part.operation.fail(error),
                (None, None) => part.operation.succeed(),
            }
        }
    }

    /// Does the operations in one transaction; `divided` gives each a savepoint, so that one that fails is taken back alone.
    fn attempt(&mut self, parts: &mut [Part], divided: bool) -> Result<Attempt, RepositoryError> {
        self.place.check()?;
        self.command("BEGIN IMMEDIATE")?;
        self.schema.check_writer(&mut self.connection)?;
        let mut is_news = false;
        for (place, part) in parts
            .iter_mut()
            .enumerate()
            .filter(|(_, part)| !part.is_out)
        {
            part.refused = None;
            if divided {
                self.command("SAVEPOINT operation")?;
            }
            let (connection, clock) = (&mut self.connection, self.clock.as_ref());
            let done = catch_unwind(AssertUnwindSafe(|| part.operation.run(connection, clock)))
                .unwrap_or_else(|panic| Err(panicked(&*panic)));
            match done {
                Ok(told) => is_news |= told,
                Err(error) if error.kind() == ErrorKind::Busy => return Err(error),
                // After some errors SQLite takes the whole transaction back by itself, and there is no savepoint any more.
                Err(error) if !divided || self.command("ROLLBACK TO operation").is_err() => {
                    return Ok(Attempt::Refused(place, error));
                }
                Err(error) => part.refused = Some(error),
            }
            if divided {
                self.command("RELEASE operation")?;
            }
        }
        self.command("COMMIT")?;
        Ok(Attempt::Written(is_news))
    }

    fn command(&mut self, sql: &'static str) -> Result<(), RepositoryError> {
        let done = Statement::command(sql).execute(&mut self.connection);
        done.map(drop)
            .map_err(|error| classify(error, "write to the database"))
    }

    fn roll_back(&mut self) {
        // Fails when SQLite has rolled back already, which is what is wanted.
        if let Err(error) = self.connection.batch_execute("ROLLBACK") {
            tracing::debug!(%error, "there was no transaction to roll back");
        }
    }
}

impl Part {
    fn new(operation: Box<dyn Operation>) -> Self {
        Self {
            operation,
            refused: None,
            is_out: false,
        }
    }

    /// The operations that this one stands for.
    fn apart(self) -> impl Iterator<Item = Self> {
        self.operation.apart().into_iter().map(Self::new)
    }
}

/// The error of an operation or a read that panicked: a defect, told to its caller alone.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> RepositoryError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    RepositoryError::new(
        ErrorKind::Internal,
        format!("an operation panicked and was taken back: {text}"),
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use diesel::QueryableByName;
    use diesel::sql_types::BigInt;
    use runtree_repository::id::IdGenerator;
    use runtree_repository::time::SystemClock;
    use runtree_repository::{
        Claim, ClaimOf, CreateRun, Durability, Ending, HostName, LeaseRef, LeaseTime, Limit,
        NewRun, Outcome, Owner, ProcessMark, Run, Write,
    };
    use tokio::sync::oneshot;

    use super::super::open::Settings;
    use super::super::operation::{EndRequest, Queued};
    use super::super::sql::Transaction;
    use super::super::{create, default_namespace, open, own};
    use super::*;

    /// A writing thread's work on a new file, done by whoever calls it.
    struct Bench {
        writer: Writer,
        _alive: mpsc::Sender<Infallible>,
        _directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let settings = Settings {
                path: directory.path().join("runs.db"),
                durability: Durability::Full,
                patience: Duration::from_secs(1),
                creates_directories: false,
                migrates: true,
            };
            let opened = open::open(&settings, 0, SystemClock.now()).unwrap();
            let (alive, until_closed) = mpsc::channel(1);
            let (_, requests) = mpsc::channel(1);
            let writer = Writer {
                connection: opened.writer.unwrap(),
                place: Place::of(&opened.path),
                schema: opened.schema,
                clock: Arc::new(SystemClock),
                patience: settings.patience,
                requests,
                watch: Arc::new(Watch::new(opened.listener, until_closed)),
            };
            Self {
                writer,
                _alive: alive,
                _directory: directory,
            }
        }

        /// Does what a transaction of its own does.
        fn within<T>(&mut self, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
            let namespace = default_namespace();
            let connection = &mut self.writer.connection;
            work(&mut Transaction::new(
                connection,
                &namespace,
                SystemClock.now(),
                "test",
            ))
        }

        fn numbers(&mut self, sql: &str) -> Vec<i64> {
            let rows: Vec<Number> = diesel::sql_query(sql)
                .load(&mut self.writer.connection)
                .unwrap();
            rows.into_iter().map(|row| row.number).collect()
        }

        /// Creates and claims so many runs.
        fn leases(&mut self, count: u64) -> Vec<LeaseRef> {
            let ids = IdGenerator::system();
            let claim = Claim {
                owner: Owner {
                    id: ids.owner_id().unwrap(),
                    host: HostName::new("here").unwrap(),
                    process: ProcessMark::new("1").unwrap(),
                },
                lease_time: LeaseTime::default(),
                limit: Limit::new(count).unwrap(),
                of: ClaimOf::ANY,
                site: None,
            };
            self.within(|transaction| {
                for _ in 0..count {
                    let request = CreateRun {
                        id: ids.run_id().unwrap(),
                        run: NewRun::new("builder"),
                        worktree: None,
                    };
                    let _ = create::create(transaction, &request, &request.run.check().unwrap())
                        .unwrap();
                }
                let claimed = own::claim_runs(transaction, &claim).unwrap();
                claimed.into_iter().map(|claimed| claimed.lease).collect()
            })
        }
    }

    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }

    type Answer<T> = oneshot::Receiver<Result<T, RepositoryError>>;

    fn executes(sql: &'static str) -> (Request, Answer<usize>) {
        let (reply, answer) = oneshot::channel();
        let request = Request::One(Box::new(Queued {
            namespace: default_namespace(),
            doing: "insert",
            work: move |transaction: &mut Transaction<'_>| {
                let insert = transaction.here_dynamic(format!("{sql} WHERE ?1 IS NOT NULL"));
                transaction.execute(insert)
            },
            result: None,
            reply,
        }));
        (request, answer)
    }

    fn completes(lease: LeaseRef) -> (Request, Answer<Write<Run>>) {
        let (reply, answer) = oneshot::channel();
        let request = Request::End(EndRequest {
            namespace: default_namespace(),
            ending: Ending {
                lease,
                outcome: Outcome::Completed { result: None },
            },
            reply,
        });
        (request, answer)
    }

    /// Writes what these statements insert, in one go, and answers whether each was acknowledged, and how many rows there are.
    fn inserted(bench: &mut Bench, statements: &[&'static str]) -> (Vec<bool>, i64) {
        let (requests, answers): (Vec<_>, Vec<_>) =
            statements.iter().map(|sql| executes(sql)).unzip();
        bench.writer.write(operations(requests));
        let acknowledged = answers
            .into_iter()
            .map(|answer| answer.blocking_recv().unwrap().is_ok());
        let acknowledged = acknowledged.collect();
        let count = bench.numbers("SELECT count(*) AS number FROM t");
        (acknowledged, count[0])
    }

    const SMALL: &str = "INSERT INTO t SELECT 'small'";

    #[test]
    fn whoever_fills_the_disk_does_not_fail_those_that_share_its_commit() {
        const LARGE: &str = "INSERT INTO t SELECT zeroblob(100000000)";
        let mut bench = Bench::new();
        let setup = "CREATE TABLE t (a); PRAGMA max_page_count = 1000";
        bench.writer.connection.batch_execute(setup).unwrap();
        let all = inserted(&mut bench, &[SMALL, LARGE, SMALL, LARGE, SMALL]);
        assert_eq!(all, (vec![true, false, true, false, true], 3));
    }

    /// As SQLite does by itself after some errors of the disk.
    #[test]
    fn whoever_takes_the_transaction_back_does_not_fail_those_that_share_its_commit() {
        const TAKES_BACK: &str = "INSERT OR ROLLBACK INTO t SELECT NULL";
        let mut bench = Bench::new();
        let setup = "CREATE TABLE t (a NOT NULL)";
        bench.writer.connection.batch_execute(setup).unwrap();
        let all = inserted(&mut bench, &[SMALL, TAKES_BACK, SMALL, TAKES_BACK, SMALL]);
        assert_eq!(all, (vec![true, false, true, false, true], 3));
        let all = inserted(&mut bench, &[TAKES_BACK, TAKES_BACK]);
        assert_eq!(all, (vec![false, false], 3));
    }

    #[test]
    fn endings_that_wait_together_are_one_operation_and_each_is_answered() {
        let mut bench = Bench::new();
        let mut leases = bench.leases(5);
        leases[3].token = leases[3].token.next();
        let (requests, answers): (Vec<_>, Vec<_>) = leases.iter().copied().map(completes).unzip();
        let operations = operations(requests);
        assert_eq!(operations.len(), 1);
        bench.writer.write(operations);
        for (place, answer) in answers.into_iter().enumerate() {
            match answer.blocking_recv().unwrap().unwrap() {
                Write::Applied(run) => {
                    assert!(place != 3 && run.has_ended());
                    assert_eq!(run.id, leases[place].run);
                }
                Write::Stale { current } => {
                    assert!(place == 3 && !current.has_ended());
                }
                other @ (Write::Already(_) | Write::NotFound) => panic!("{place}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_came_before_an_ending_is_done_before_it() {
        let mut bench = Bench::new();
        bench
            .writer
            .connection
            .batch_execute("CREATE TABLE t (a)")
            .unwrap();
        let leases = bench.leases(2);
        const LOOKS: &str =
            "INSERT INTO t SELECT (SELECT count(*) FROM runtree_runs WHERE ended_at IS NOT NULL)";
        let (before, _kept) = executes(LOOKS);
        let (between, _kept_too) = executes(LOOKS);
        let (after, _kept_as_well) = executes(LOOKS);
        let (ends, _answer) = completes(leases[0]);
        let (ends_too, _other_answer) = completes(leases[1]);
        let all = operations(vec![before, ends, between, ends_too, after]);
        bench.writer.write(all);
        let ended = bench.numbers("SELECT a AS number FROM t ORDER BY rowid");
        assert_eq!(ended, [0, 0, 2]);
    }

    #[test]
    fn an_ending_that_fails_does_not_fail_those_that_wait_with_it() {
        let mut bench = Bench::new();
        let leases = bench.leases(4);
        let damage = "UPDATE runtree_run_payloads SET metadata = 'no JSON' \
             WHERE run_id = (SELECT id FROM runtree_runs ORDER BY id LIMIT 1)";
        bench.writer.connection.batch_execute(damage).unwrap();
        let (requests, answers): (Vec<_>, Vec<_>) = leases.iter().copied().map(completes).unzip();
        bench.writer.write(operations(requests));
        for (place, answer) in answers.into_iter().enumerate() {
            match answer.blocking_recv().unwrap() {
                Ok(Write::Applied(run)) => assert!(place > 0 && run.has_ended()),
                Err(error) if error.kind() == ErrorKind::Corrupt => assert_eq!(place, 0),
                other => panic!("{place}: {other:?}"),
            }
        }
        let after = bench.within(|transaction| transaction.summary(leases[0].run));
        assert!(!after.unwrap().unwrap().has_ended(), "it was taken back");
    }

    #[test]
    fn whoever_left_before_its_turn_is_not_written() {
        let mut bench = Bench::new();
        let leases = bench.leases(3);
        let (requests, mut answers): (Vec<_>, Vec<_>) =
            leases.iter().copied().map(completes).unzip();
        drop(answers.remove(1));
        bench.writer.write(operations(requests));
        let mut has_ended = |lease: &LeaseRef| {
            let run = bench.within(|transaction| transaction.summary(lease.run));
            run.unwrap().unwrap().has_ended()
        };
        let ended: Vec<bool> = leases.iter().map(&mut has_ended).collect();
        assert_eq!(ended, [true, false, true]);
    }
}
