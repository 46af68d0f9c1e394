//! A run repository in a SQLite file: one thread writes, a few read, and no SQLite call runs on an async worker.

mod annotate;
mod cleanup;
mod create;
mod dialect;
mod end;
mod explain;
mod file_system;
mod filter;
mod json;
mod open;
mod operation;
mod overdue;
mod own;
#[cfg(test)]
mod plans;
mod read;
mod reader;
mod rescue;
mod retain;
mod rows;
mod sql;
mod statement;
mod statistics;
mod stop;
mod watch;
mod worktree;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtree_repository::time::{Clock, SystemClock};
use runtree_repository::{
    Capabilities, Durability, ErrorKind, Namespace, RepositoryError, RunRepository, Sharing,
};
use tokio::sync::{mpsc, oneshot};

use crate::migrate::Migration;

use self::open::{Opened, Settings};
use self::operation::{Queued, Reply, Request};
use self::reader::Reader;
use self::sql::Transaction;
use self::watch::Watch;
use self::writer::{QUEUE, Writer};

/// What a host's own transaction needs as well.
pub(crate) mod within {
    pub(crate) use super::create::create;
    pub(crate) use super::default_namespace;
    pub(crate) use super::dialect::classify;
    pub(crate) use super::end::end;
    pub(crate) use super::open::{MIGRATIONS, TextRow, check_version};
    pub(crate) use super::rows::NumberRow;
    pub(crate) use super::sql::Transaction;
    pub(crate) use super::statement::Statement;
    pub(crate) use super::stop::cancel;
}

/// How long others may hold the database before an operation gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run repository in a SQLite file, shared by its clones and by any number of processes of one machine.
///
/// Its clones share one writing thread and a few reading ones. A dropped future leaves nothing half done: its operation is written
/// whole or not at all. The threads end by themselves after the last clone is gone and what was accepted is written;
/// [`close`](Self::close) waits for that.
///
/// # Durability
/// What was acknowledged survives a crash of the process, and by default a power cut: every commit is flushed, and operations that
/// wait together share a flush. See [`SqliteBuilder::durability`].
///
/// # Examples
/// ```
/// use runtree_diesel::SqliteRepository;
/// use runtree_repository::{PageRequest, ReadRuns, RunFilter};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("runs.db");
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let runs = SqliteRepository::open(&path).await?;
/// assert!(runs.list(&RunFilter::new(), &PageRequest::default()).await?.runs.is_empty());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SqliteRepository {
    namespace: Namespace,
    store: Arc<Store>,
}

/// The ways to the threads, shared by all handles. Dropping it ends them.
struct Store {
    path: PathBuf,
    durability: Durability,
    clock: Arc<dyn Clock>,
    /// Or why nothing may be written.
    writer: Result<mpsc::Sender<Request>, String>,
    reader: mpsc::Sender<reader::Read>,
    watch: Arc<Watch>,
    /// Each closes when its thread has ended.
    threads: Vec<mpsc::Sender<Infallible>>,
}

/// How a SQLite file is opened; made by [`SqliteRepository::builder`].
#[derive(Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct SqliteBuilder {
    settings: Settings,
    namespace: Option<Namespace>,
    clock: Arc<dyn Clock>,
}

impl SqliteBuilder {
    /// Sets whose runs the handle sees; `default` unless set. [`SqliteRepository::with_namespace`] gives handles on others.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Sets the clock that stamps records; the machine's unless set. All processes that share the file should agree on the time.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets what an acknowledged write survives: [`Full`](Durability::Full), a power cut, unless set;
    /// [`Normal`](Durability::Normal), a crash of the process, flushes far less often.
    ///
    /// # Durability
    /// With `Normal` a power cut, or a crash of the system, may take back the writes since the last checkpoint, which SQLite makes
    /// about every thousand pages: the last ones of them, never one in the middle, and each whole. The file stays sound. So a run
    /// that was acknowledged may be missing, and one that ended may run again under its old token once its lease has expired: use it
    /// where repeating the last minutes of work does no harm.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Sets how long others may hold the database before an operation gives up with [`ErrorKind::Busy`]; 30 seconds unless set.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// Creates the directories above the file when they are missing. Unless set, a missing directory is an error: it is more often
    /// a typing error or a volume that is not mounted.
    pub fn create_directories(mut self) -> Self {
        self.settings.creates_directories = true;
        self
    }

    /// Applies no migrations, for a host that applies [`SqliteRepository::migrations`] itself. A file that lacks steps, or is not
    /// there, is then an error of the kind [`ErrorKind::Configuration`], and is not touched.
    pub fn without_migrating(mut self) -> Self {
        self.settings.migrates = false;
        self
    }

    /// Opens the file, makes it when it is missing, and brings its schema up to date.
    ///
    /// A file with a host's own tables is welcome: all names here begin with `runtree_`.
    ///
    /// Steps of the schema hold the file's write lock while they are applied. The one to version 2 builds an index for each order of
    /// lists and takes about 30 microseconds for each run: half a minute for a million, in which the writes of other processes wait,
    /// and give up after their [`patience`](Self::patience). Where that is too long, upgrade while nobody else has the file open, or
    /// delete ended runs before with [`delete_ended`](runtree_repository::RetainRuns::delete_ended).
    ///
    /// # Errors
    /// - [`ErrorKind::Configuration`]: the directory is missing, or the file is no SQLite database.
    /// - [`ErrorKind::ReadOnly`]: the file or its directory may not be written.
    /// - [`ErrorKind::SchemaTooNew`]: a newer version of runtree changed the schema so that this one cannot read it. Nothing is touched.
    /// - [`ErrorKind::Unsupported`]: a network file system, or a SQLite with a known corruption bug.
    /// - [`ErrorKind::InvalidInput`]: a durability that a file does not have.
    /// - [`ErrorKind::Busy`]: others hold the database for too long.
    ///
    /// A schema that this version may read but not write opens; each write then answers [`ErrorKind::ReadOnly`]. A schema that is
    /// changed later, under an open handle, is noticed by the next call, which answers the same.
    ///
    /// # Cancel safety
    /// A dropped future leaves the file opened or not; the threads end by themselves.
    pub async fn open(self) -> Result<SqliteRepository, RepositoryError> {
        if !matches!(
            self.settings.durability,
            Durability::Normal | Durability::Full
        ) {
            let message = format!(
                "a SQLite file has the durability Normal or Full, not {:?}",
                self.settings.durability
            );
            return Err(RepositoryError::new(ErrorKind::InvalidInput, message));
        }
        let namespace = self.namespace.unwrap_or_else(default_namespace);
        let (settings, clock) = (self.settings, self.clock);
        let durability = settings.durability;
        let (reply, answer) = oneshot::channel();
        let opener = Arc::clone(&clock);
        spawn("open", move || {
            let store = open::open(&settings, reader::READERS, opener.now())
                .and_then(|opened| start(opened, durability, &settings, opener));
            // Nobody waits any more when this fails; dropping the store ends its threads.
            drop(reply.send(store));
        })?;
        let store = answer.await.map_err(|_| ended("open the database"))??;
        Ok(SqliteRepository {
            namespace,
            store: Arc::new(store),
        })
    }
}

impl SqliteRepository {
    /// Opens a file with the usual settings; see [`SqliteBuilder::open`].
    ///
    /// # Errors
    /// Those of [`SqliteBuilder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::builder(path.as_ref()).open().await
    }

    /// Returns the steps of the schema, oldest first, for people who apply them themselves.
    pub fn migrations() -> &'static [Migration] {
        open::MIGRATIONS
    }

    /// Begins to open a file.
    pub fn builder(path: impl Into<PathBuf>) -> SqliteBuilder {
        SqliteBuilder {
            settings: Settings {
                path: path.into(),
                durability: Durability::Full,
                patience: PATIENCE,
                creates_directories: false,
                migrates: true,
            },
            namespace: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Returns a handle on another namespace of the same file.
    #[must_use]
    pub fn with_namespace(&self, namespace: Namespace) -> Self {
        Self {
            namespace,
            store: Arc::clone(&self.store),
        }
    }

    /// Returns the file, as an absolute path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.store.path
    }

    /// Gives this handle up, and if it is the last one waits until what was accepted is written and the file is closed.
    pub async fn close(self) {
        if let Some(store) = Arc::into_inner(self.store) {
            let threads = store.threads.clone();
            drop(store);
            for thread in threads {
                thread.closed().await;
            }
        }
    }

    /// Sends an operation to the writing thread and waits for the commit. The work may be done more than once before it is
    /// committed, and must therefore start from what it finds each time.
    async fn write<T, W>(&self, doing: &'static str, work: W) -> Result<T, RepositoryError>
    where
        T: Send + 'static,
        W: FnMut(&mut Transaction<'_>) -> Result<T, RepositoryError> + Send + 'static,
    {
        self.request(doing, |namespace, reply| {
            Request::One(Box::new(Queued {
                namespace,
                doing,
                work,
                result: None,
                reply,
            }))
        })
        .await
    }

    /// Sends what `packed` makes of the way back to the caller to the writing thread, and waits for the commit.
    async fn request<T>(
        &self,
        doing: &'static str,
        packed: impl FnOnce(Namespace, Reply<T>) -> Request,
    ) -> Result<T, RepositoryError> {
        let writer = match &self.store.writer {
            Ok(writer) => writer,
            Err(why) => return Err(RepositoryError::new(ErrorKind::ReadOnly, why.clone())),
        };
        let (reply, answer) = oneshot::channel();
        let request = packed(self.namespace.clone(), reply);
        writer.send(request).await.map_err(|_| ended(doing))?;
        answer.await.map_err(|_| ended(doing))?
    }

    /// Sends a read to a reading thread.
    async fn read<T, W>(&self, doing: &'static str, work: W) -> Result<T, RepositoryError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Transaction<'_>) -> Result<T, RepositoryError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read = reader::read(self.namespace.clone(), doing, work, reply);
        self.store
            .reader
            .send(read)
            .await
            .map_err(|_| ended(doing))?;
        answer.await.map_err(|_| ended(doing))?
    }
}

impl RunRepository for SqliteRepository {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.store.durability, Sharing::Machine)
    }
}

impl fmt::Debug for SqliteRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRepository")
            .field("path", &self.store.path)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Starts the threads of an opened file.
fn start(
    opened: Opened,
    durability: Durability,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Store, RepositoryError> {
    let mut threads = Vec::new();
    let mut running = |name, work: Box<dyn FnOnce() + Send>| {
        let (alive, until_ended) = mpsc::channel::<Infallible>(1);
        threads.push(alive);
        spawn(name, move || {
            work();
            drop(until_ended);
        })
    };
    let (alive, until_closed) = mpsc::channel(1);
    let watch = Arc::new(Watch::new(opened.listener, until_closed));
    let (reader, reads) = mpsc::channel(QUEUE);
    let reads: reader::Reads = Arc::new(Mutex::new(reads));
    for connection in opened.readers {
        let (reads, clock) = (Arc::clone(&reads), Arc::clone(&clock));
        let reader = Reader {
            connection,
            schema: opened.schema.clone(),
        };
        running(
            "read",
            Box::new(move || reader::work(reader, clock.as_ref(), &reads)),
        )?;
    }
    let writer = match opened.writer {
        Ok(connection) => {
            let (writer, requests) = mpsc::channel(QUEUE);
            let patience = settings.patience;
            let thread = Writer {
                connection,
                place: file_system::Place::of(&opened.path),
                schema: opened.schema,
                clock: Arc::clone(&clock),
                patience,
                requests,
                watch: Arc::clone(&watch),
            };
            running("write", Box::new(move || thread.work()))?;
            Ok(writer)
        }
        Err(why) => Err(why),
    };
    threads.push(alive);
    Ok(Store {
        path: opened.path,
        durability,
        clock,
        writer,
        reader,
        watch,
        threads,
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), RepositoryError> {
    // Threads are not joined: a drop must not block an async worker. `close` waits for them.
    let started = std::thread::Builder::new()
        .name(format!("runtree-{name}"))
        .spawn(work);
    started.map(drop).map_err(|error| {
        RepositoryError::new(
            ErrorKind::Unavailable,
            "a thread for the database cannot be started",
        )
        .with_source(error)
    })
}

fn ended(doing: &str) -> RepositoryError {
    let message = format!(
        "failed to {doing}: the thread of the database has ended, whether it was done is not known"
    );
    RepositoryError::new(ErrorKind::Unavailable, message)
}

pub(crate) fn default_namespace() -> Namespace {
    Namespace::new("default").expect("because the name is within its limits")
}
