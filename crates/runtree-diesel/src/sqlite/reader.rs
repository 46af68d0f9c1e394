//! A few threads that read, each with a connection that cannot write.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use runtree_repository::time::Clock;
use runtree_repository::{Namespace, RepositoryError};
use tokio::sync::{mpsc, oneshot};

use super::dialect::classify;
use super::sql::Transaction;
use super::writer::panicked;

/// How many threads read. Reads are short; more threads than disks or cores gain nothing.
pub(super) const READERS: usize = 3;

/// A read that waits for a thread.
pub(super) type Read = Box<dyn FnOnce(&mut SqliteConnection, &dyn Clock) + Send>;

/// Packs a read and the caller to answer. All its statements see the same state of the database.
pub(super) fn read<T: Send + 'static>(
    namespace: Namespace,
    doing: &'static str,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, RepositoryError> + Send + 'static,
    reply: oneshot::Sender<Result<T, RepositoryError>>,
) -> Read {
    Box::new(move |connection, clock| {
        if reply.is_closed() {
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(|| {
            snapshot(connection, doing, |connection| {
                work(&mut Transaction::new(
                    connection,
                    &namespace,
                    clock.now(),
                    doing,
                ))
            })
        }));
        let result = done.unwrap_or_else(|panic| Err(panicked(&*panic)));
        // Nobody waits any more when this fails.
        drop(reply.send(result));
    })
}

/// Works until the last handle is gone. The threads take turns at waiting for the next read.
pub(super) fn work(
    mut connection: SqliteConnection,
    clock: &dyn Clock,
    reads: &Mutex<mpsc::Receiver<Read>>,
) {
    loop {
        let next = reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        match next {
            Some(read) => read(&mut connection, clock),
            None => return,
        }
    }
}

/// What the reading threads share.
pub(super) type Reads = Arc<Mutex<mpsc::Receiver<Read>>>;

fn snapshot<T>(
    connection: &mut SqliteConnection,
    doing: &'static str,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, RepositoryError>,
) -> Result<T, RepositoryError> {
    // A read that panicked may have left its transaction open.
    if connection.batch_execute("BEGIN").is_err() {
        connection
            .batch_execute("ROLLBACK; BEGIN")
            .map_err(|error| classify(error, doing))?;
    }
    let result = work(connection);
    // There is nothing to keep; what was read is read.
    let ended = connection
        .batch_execute("ROLLBACK")
        .map_err(|error| classify(error, doing));
    result.and_then(|value| ended.map(|()| value))
}
