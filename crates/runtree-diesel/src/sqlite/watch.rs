//! Tells those who wait that something changed: writes of this process at once, those of others by looking at the file.
//!
//! SQLite keeps a number for each connection that moves when another connection has written. A thread looks at it while somebody
//! waits, and ends when nobody does. The connection stays, so that a change between two waits is seen by the second one.
//!
//! The number tells of the writes of this process too, and not which. So whoever waits is woken a second time by a write that was
//! told already, and once by what was not worth telling, such as a heartbeat. That is allowed: being told is a hint.

use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, SqliteConnection};
use runtree_repository::{ChangeMark, RepositoryError, WatchRuns};
use tokio::sync::{mpsc, watch};

use super::dialect::classify;
use super::statement::Statement;
use super::{SqliteRepository, spawn};

/// How often the file is looked at while somebody waits.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counts the changes, and knows who waits for the next one.
pub(super) struct Watch {
    changes: watch::Sender<u64>,
    waiting: Mutex<Waiting>,
    /// Tells the thread that nobody waits any more.
    left: Condvar,
    file: Mutex<File>,
    /// Starts the thread.
    start: fn(Arc<Watch>) -> Result<(), RepositoryError>,
}

#[derive(Default)]
struct Waiting {
    callers: usize,
    has_thread: bool,
}

/// The connection that hears of other connections' writes.
struct File {
    connection: SqliteConnection,
    /// What it has heard of last.
    version: Option<i64>,
    /// Closes after the connection.
    _alive: mpsc::Receiver<Infallible>,
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = BigInt)]
    version: i64,
}

#[async_trait]
impl WatchRuns for SqliteRepository {
    async fn changed(
        &self,
        seen: ChangeMark,
        wait: Duration,
    ) -> Result<ChangeMark, RepositoryError> {
        let told = self.store.watch.wait(seen.get(), wait).await;
        Ok(ChangeMark::new(told))
    }
}

impl Watch {
    /// Takes a connection of its own; `alive` closes when the connection is closed.
    pub(super) fn new(connection: SqliteConnection, alive: mpsc::Receiver<Infallible>) -> Self {
        Self::started_by(
            |watch| spawn("watch", move || watch.look()),
            connection,
            alive,
        )
    }

    fn started_by(
        start: fn(Arc<Self>) -> Result<(), RepositoryError>,
        connection: SqliteConnection,
        alive: mpsc::Receiver<Infallible>,
    ) -> Self {
        let mut file = File {
            connection,
            version: None,
            _alive: alive,
        };
        // What was written before this is nobody's news.
        if let Err(error) = file.has_changed() {
            tracing::debug!(%error, "the version of the file cannot be read yet");
        }
        Self {
            changes: watch::Sender::new(1),
            waiting: Mutex::default(),
            left: Condvar::new(),
            file: Mutex::new(file),
            start,
        }
    }

    /// Waits until more changes were counted than were seen, at the latest until `wait` is over; answers how many.
    ///
    /// While the thread that looks at the file cannot be started, it is tried again and again: the writes of this process are told
    /// all the same, and those of others once there is a thread, or when the wait is over.
    async fn wait(self: &Arc<Self>, seen: u64, wait: Duration) -> u64 {
        let mut changes = self.changes.subscribe();
        let now = *changes.borrow_and_update();
        if now > seen || wait.is_zero() {
            return now.max(seen);
        }
        let _caller = Caller::enter(self);
        // None of a wait that no clock of ours reaches the end of.
        let until = tokio::time::Instant::now().checked_add(wait);
        loop {
            let is_looked_at = self.start_looking();
            let left = until.map_or(wait, |until| {
                until.saturating_duration_since(tokio::time::Instant::now())
            });
            let turn = if is_looked_at {
                left
            } else {
                left.min(INTERVAL)
            };
            let news = changes.wait_for(|count| *count > seen);
            match tokio::time::timeout(turn, news).await {
                Ok(told) => return told.map_or(seen, |count| *count),
                Err(_) if turn == left => return seen,
                Err(_) => {}
            }
        }
    }

    /// Starts the thread that looks at the file unless there is one; tells whether there is one.
    fn start_looking(self: &Arc<Self>) -> bool {
        if std::mem::replace(&mut self.waiting().has_thread, true) {
            return true;
        }
        match (self.start)(Arc::clone(self)) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "nobody looks for the writes of other processes");
                self.waiting().has_thread = false;
                false
            }
        }
    }

    /// Tells everybody that something changed.
    pub(super) fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the file again and again until nobody waits. The callers' lock is never held over a look.
    fn look(&self) {
        loop {
            let looked = self
                .file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .has_changed();
            match looked {
                Ok(true) => self.tell(),
                Ok(false) => {}
                // Who waits looks for himself when the time is over.
                Err(error) => tracing::debug!(%error, "the version of the file cannot be read"),
            }
            let waiting = self.waiting();
            let waited = self
                .left
                .wait_timeout_while(waiting, INTERVAL, |waiting| waiting.callers > 0);
            let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if waiting.callers == 0 {
                waiting.has_thread = false;
                return;
            }
        }
    }
}

impl File {
    fn has_changed(&mut self) -> Result<bool, RepositoryError> {
        let row: VersionRow =
            Statement::new("SELECT data_version AS version FROM pragma_data_version")
                .get_result(&mut self.connection)
                .map_err(|error| classify(error, "look for changes"))?;
        let before = self.version.replace(row.version);
        Ok(before.is_some_and(|before| before != row.version))
    }
}

/// One who waits; leaves when dropped, also in the middle.
struct Caller<'w> {
    watch: &'w Arc<Watch>,
}

impl<'w> Caller<'w> {
    fn enter(watch: &'w Arc<Watch>) -> Self {
        watch.waiting().callers += 1;
        Self { watch }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let mut waiting = self.watch.waiting();
        waiting.callers -= 1;
        if waiting.callers == 0 {
            self.watch.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use diesel::Connection as _;
    use diesel::connection::SimpleConnection as _;
    use runtree_repository::ErrorKind;

    use super::*;

    /// Longer than any test waits.
    const LONG: Duration = Duration::from_secs(300);

    fn no_thread() -> RepositoryError {
        RepositoryError::new(ErrorKind::Unavailable, "no thread")
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn a_thread_that_cannot_be_started_does_not_fail_who_waits() {
        let connection = SqliteConnection::establish(":memory:").unwrap();
        let watch = Watch::started_by(|_| Err(no_thread()), connection, mpsc::channel(1).1);
        let watch = Arc::new(watch);
        block_on(async {
            assert_eq!(watch.wait(1, Duration::from_millis(1)).await, 1);
            // What this process writes is told all the same.
            let waits = watch.wait(1, LONG);
            let tells = async { watch.tell() };
            assert_eq!(tokio::join!(waits, tells).0, 2);
        });
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_tried_again_while_somebody_waits() {
        static STARTS: AtomicU32 = AtomicU32::new(0);
        fn second_time(watch: Arc<Watch>) -> Result<(), RepositoryError> {
            match STARTS.fetch_add(1, Ordering::Relaxed) {
                0 => Err(no_thread()),
                _ => spawn("watch", move || watch.look()),
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs.db");
        let connect = || SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        let mut other = connect();
        let watch = Watch::started_by(second_time, connect(), mpsc::channel(1).1);
        other.batch_execute("CREATE TABLE t (a)").unwrap();
        assert_eq!(block_on(Arc::new(watch).wait(1, LONG)), 2);
        assert_eq!(STARTS.load(Ordering::Relaxed), 2);
    }
}
