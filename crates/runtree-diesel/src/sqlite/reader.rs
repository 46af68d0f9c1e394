//! A few threads that read, each with a connection that cannot write.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use diesel::{RunQueryDsl, SqliteConnection};
use runtree_repository::time::Clock;
use runtree_repository::{Namespace, RepositoryError};
use tokio::sync::{mpsc, oneshot};

use super::dialect::classify;
use super::open::Schema;
use super::sql::Transaction;
use super::statement::Statement;
use super::writer::panicked;

/// How many threads read. Reads are short; more threads than disks or cores gain nothing.
pub(super) const READERS: usize = 3;

/// A read that waits for a thread.
pub(super) type Read = Box<dyn FnOnce(&mut Reader, &dyn Clock) + Send>;

/// What a reading thread works with.
pub(super) struct Reader {
    pub(super) connection: SqliteConnection,
    pub(super) schema: Schema,
}

/// Packs a read and the caller to answer. All its statements see the same state of the database.
pub(super) fn read<T: Send + 'static>(
    namespace: Namespace,
    doing: &'static str,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, RepositoryError> + Send + 'static,
    reply: oneshot::Sender<Result<T, RepositoryError>>,
) -> Read {
    Box::new(move |reader, clock| {
        if reply.is_closed() {
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(|| {
            snapshot(reader, doing, |connection| {
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
pub(super) fn work(mut reader: Reader, clock: &dyn Clock, reads: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let next = reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        match next {
            Some(read) => read(&mut reader, clock),
            None => return,
        }
    }
}

/// What the reading threads share.
pub(super) type Reads = Arc<Mutex<mpsc::Receiver<Read>>>;

fn snapshot<T>(
    reader: &mut Reader,
    doing: &'static str,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, RepositoryError>,
) -> Result<T, RepositoryError> {
    let Reader { connection, schema } = reader;
    let command = |connection: &mut SqliteConnection, sql| {
        let done = Statement::command(sql).execute(connection);
        done.map(drop).map_err(|error| classify(error, doing))
    };
    // A read that panicked may have left its transaction open.
    if command(connection, "BEGIN").is_err() {
        command(connection, "ROLLBACK")?;
        command(connection, "BEGIN")?;
    }
    let result = schema
        .check_reader(connection)
        .and_then(|()| work(connection));
    // There is nothing to keep; what was read is read.
    let ended = command(connection, "ROLLBACK");
    result.and_then(|value| ended.map(|()| value))
}
