//! The one thread that writes: it gathers waiting operations into one transaction and answers them after the commit.
//!
//! One commit costs one flush to the disk however many operations it holds, so waiting callers share it. An operation that fails is
//! taken back alone: the others are then done again, each in a savepoint of its own. Savepoints from the start would cost a copy of
//! every page that several operations change, and failures are rare. A caller that is gone is not missed: an operation is written
//! whole or, when its caller left before its turn, not at all.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{RunQueryDsl, SqliteConnection};
use runtree_repository::time::Clock;
use runtree_repository::{ErrorKind, Namespace, RepositoryError};
use tokio::sync::{mpsc, oneshot};

use super::dialect::classify;
use super::file_system::Place;
use super::open::Schema;
use super::sql::Transaction;
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

/// An operation that waits to be written.
pub(super) trait Operation: Send {
    /// Tells whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;

    /// Does the work inside a transaction, and answers whether it is news to watchers. May be called again when the transaction
    /// could not be committed, or when another operation in it failed.
    ///
    /// # Errors
    /// What the caller is told; what was done is taken back.
    fn run(
        &mut self,
        connection: &mut SqliteConnection,
        clock: &dyn Clock,
    ) -> Result<bool, RepositoryError>;

    /// Tells the caller that the operation is durable.
    fn succeed(self: Box<Self>);

    /// Tells the caller that the operation did not happen, or what is known of it.
    fn fail(self: Box<Self>, error: RepositoryError);
}

/// An operation in the queue, with the work to do and the caller to answer.
pub(super) struct Queued<T, W> {
    pub(super) namespace: Namespace,
    pub(super) doing: &'static str,
    pub(super) work: W,
    pub(super) result: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T, RepositoryError>>,
}

impl<T, W> Operation for Queued<T, W>
where
    T: Send,
    W: FnMut(&mut Transaction<'_>) -> Result<T, RepositoryError> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(
        &mut self,
        connection: &mut SqliteConnection,
        clock: &dyn Clock,
    ) -> Result<bool, RepositoryError> {
        self.result = None;
        // Read inside the transaction, so that the order of the stamps is the order of the writes.
        let mut transaction =
            Transaction::new(connection, &self.namespace, clock.now(), self.doing);
        self.result = Some((self.work)(&mut transaction)?);
        Ok(transaction.is_news())
    }

    fn succeed(self: Box<Self>) {
        let result = self.result.ok_or_else(|| {
            RepositoryError::new(ErrorKind::Internal, "a write was committed but never done")
        });
        // Nobody waits any more when this fails; the write is durable all the same.
        drop(self.reply.send(result));
    }

    fn fail(self: Box<Self>, error: RepositoryError) {
        drop(self.reply.send(Err(error)));
    }
}

/// What the writing thread works with.
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) place: Place,
    pub(super) schema: Schema,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) patience: Duration,
    pub(super) operations: mpsc::Receiver<Box<dyn Operation>>,
    pub(super) watch: Arc<Watch>,
}

/// Why a whole transaction did not happen; told to every caller whose operation was in it.
type Failure = Arc<RepositoryError>;

/// Operations, each with what it was refused for.
type Batch = [(Box<dyn Operation>, Option<RepositoryError>)];

/// What became of a transaction.
enum Attempt {
    /// It is durable; the flag tells whether it is news to watchers.
    Written(bool),
    /// One operation failed, and nothing was written.
    Refused(usize, RepositoryError),
}

impl Writer {
    /// Works until the last handle is gone and everything accepted before is written.
    pub(super) fn work(mut self) {
        let short_wait = format!("PRAGMA busy_timeout = {}", BUSY_WAIT.as_millis());
        if let Err(error) = self.connection.batch_execute(&short_wait) {
            tracing::warn!(%error, "the time limit of SQLite's own waiting cannot be set");
        }
        while let Some(first) = self.operations.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH {
                match self.operations.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            batch.retain(|operation| operation.is_wanted());
            if !batch.is_empty() {
                self.write(batch);
            }
        }
    }

    /// Writes a batch in one transaction, again from the start while others hold the database, and answers every caller.
    fn write(&mut self, batch: Vec<Box<dyn Operation>>) {
        let mut batch: Vec<_> = batch
            .into_iter()
            .map(|operation| (operation, None))
            .collect();
        let began = Instant::now();
        let mut divided = false;
        let failure = loop {
            match self.attempt(&mut batch, divided) {
                Ok(Attempt::Written(is_news)) => {
                    // Before the callers are answered: who hears of a write from its writer finds the mark moved.
                    if is_news {
                        self.watch.tell();
                    }
                    break None;
                }
                Ok(Attempt::Refused(place, error)) => {
                    self.roll_back();
                    if let [(_, refused)] = batch.as_mut_slice() {
                        *refused = Some(error);
                        break None;
                    }
                    tracing::debug!(%error, place, "an operation failed, the others are done again without it");
                    divided = true;
                }
                Err(failure) => {
                    self.roll_back();
                    if failure.kind() != ErrorKind::Busy || began.elapsed() >= self.patience {
                        break Some(failure);
                    }
                    // SQLite answers some conflicts at once instead of waiting.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        for (operation, refused) in batch {
            match (refused, &failure) {
                (_, Some(failure)) => operation.fail(copy(failure)),
                (Some(error), None) => operation.fail(error),
                (None, None) => operation.succeed(),
            }
        }
    }

    /// Does the operations in one transaction; `divided` gives each a savepoint, so that one that fails is taken back alone.
    fn attempt(&mut self, batch: &mut Batch, divided: bool) -> Result<Attempt, Failure> {
        self.place.check()?;
        self.command("BEGIN IMMEDIATE")?;
        self.schema.check_writer(&mut self.connection)?;
        let mut is_news = false;
        for (place, (operation, refused)) in batch.iter_mut().enumerate() {
            *refused = None;
            if divided {
                self.command("SAVEPOINT operation")?;
            }
            let (connection, clock) = (&mut self.connection, self.clock.as_ref());
            let done = catch_unwind(AssertUnwindSafe(|| operation.run(connection, clock)))
                .unwrap_or_else(|panic| Err(panicked(&*panic)));
            match done {
                Ok(told) => is_news |= told,
                Err(error) if error.kind() == ErrorKind::Busy => return Err(Arc::new(error)),
                Err(error) if !divided => return Ok(Attempt::Refused(place, error)),
                Err(error) => {
                    // SQLite takes the whole transaction back by itself after some errors; then there is no savepoint any more, and
                    // the error of this operation is the error of all.
                    if self.command("ROLLBACK TO operation").is_err() {
                        return Err(Arc::new(error));
                    }
                    *refused = Some(error);
                }
            }
            if divided {
                self.command("RELEASE operation")?;
            }
        }
        self.command("COMMIT")?;
        Ok(Attempt::Written(is_news))
    }

    fn command(&mut self, sql: &'static str) -> Result<(), Failure> {
        let done = Statement::command(sql).execute(&mut self.connection);
        done.map(drop)
            .map_err(|error| Arc::new(classify(error, "write to the database")))
    }

    fn roll_back(&mut self) {
        // Fails when SQLite has rolled back already, which is what is wanted.
        if let Err(error) = self.connection.batch_execute("ROLLBACK") {
            tracing::debug!(%error, "there was no transaction to roll back");
        }
    }
}

fn copy(failure: &Failure) -> RepositoryError {
    RepositoryError::new(failure.kind(), failure.to_string()).with_source(Arc::clone(failure))
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
