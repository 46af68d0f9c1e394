//! Tells those who wait that something changed: writes of this process at once, those of others by looking at the file.
//!
//! SQLite keeps a number for each connection that moves when another connection has written. A thread looks at it while somebody
//! waits, and ends when nobody does. The connection stays, so that a change between two waits is seen by the second one.

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
        let watch = &self.store.watch;
        let mut changes = watch.changes.subscribe();
        let now = *changes.borrow_and_update();
        if now > seen.get() || wait.is_zero() {
            return Ok(ChangeMark::new(now.max(seen.get())));
        }
        let caller = Caller::enter(watch)?;
        let news = changes.wait_for(|count| *count > seen.get());
        let told = match tokio::time::timeout(wait, news).await {
            Ok(told) => told.map_or(seen.get(), |count| *count),
            Err(_) => seen.get(),
        };
        drop(caller);
        Ok(ChangeMark::new(told))
    }
}

impl Watch {
    /// Takes a connection of its own; `alive` closes when the connection is closed.
    pub(super) fn new(connection: SqliteConnection, alive: mpsc::Receiver<Infallible>) -> Self {
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
    fn enter(watch: &'w Arc<Watch>) -> Result<Self, RepositoryError> {
        let mut waiting = watch.waiting();
        waiting.callers += 1;
        let needs_thread = !std::mem::replace(&mut waiting.has_thread, true);
        drop(waiting);
        let caller = Self { watch };
        if needs_thread {
            let thread = Arc::clone(watch);
            if let Err(error) = spawn("watch", move || thread.look()) {
                watch.waiting().has_thread = false;
                return Err(error);
            }
        }
        Ok(caller)
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
