//! Tells when it is worth looking again: at once within this process, by `NOTIFY` between processes.
//!
//! A notification is a hint and no more. It is sent after the write and outside of its transaction, because the server makes
//! transactions that notify commit one after the other; a task sends at most one in [`DEBOUNCE`]. It is heard by a connection of its own, whose
//! task is started when somebody waits first, and makes its connection anew when that is lost. What is missed in between is found by
//! whoever looks again after the wait.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use runtree_repository::id::IdGenerator;
use runtree_repository::{ChangeMark, ErrorKind, RepositoryError, WatchRuns};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

use super::PostgresRepository;
use super::connect::Connector;
use super::statement::Statement;
use super::store::{Done, Purpose, Store};

/// How long a notification is held back after another.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// How long a notification to oneself may take before it is taken for lost.
const SELF_TEST: Duration = Duration::from_secs(5);

/// How long to wait before a lost connection is made anew: first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Sends a notification on the channel of this schema's repositories.
pub(crate) const NOTIFY: &str =
    "SELECT pg_notify('runtree_' || md5('runtree_runs'::regclass::oid::text), $1) IS NULL AS done";

const CHANNEL: &str = "SELECT 'runtree_' || md5('runtree_runs'::regclass::oid::text)";

/// Whether a repository hears of other processes' changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notifications {
    /// Nobody has waited for a change yet, so nobody listens.
    NotAsked,
    /// The connection is being made, or was lost and is made anew.
    Connecting,
    /// A notification to itself has arrived: changes are told soon.
    Heard,
    /// A notification to itself was lost, as behind a pooler in transaction mode. Changes of other processes are seen by those who
    /// look again. It is still listened: the first that comes through makes it `Heard`.
    Unheard,
}

impl Notifications {
    const ALL: [Self; 4] = [Self::NotAsked, Self::Connecting, Self::Heard, Self::Unheard];
}

/// Whoever watches, and the tasks that tell them.
pub(super) struct Watch {
    shared: Arc<Shared>,
    tasks: Mutex<Tasks>,
}

struct Shared {
    /// Counts the changes that were made or heard of, from 1.
    changes: watch::Sender<u64>,
    /// Something was written here that others were not told of.
    written: Notify,
    /// Which of [`Notifications::ALL`].
    state: AtomicU8,
    /// What this repository's notifications say, so that it does not take them for somebody else's.
    origin: String,
    connector: Connector,
}

#[derive(Default)]
struct Tasks {
    telling: Option<JoinHandle<()>>,
    listening: Option<JoinHandle<()>>,
}

/// Ends a task when it is dropped.
struct Ended(JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl WatchRuns for PostgresRepository {
    async fn changed(
        &self,
        seen: ChangeMark,
        wait: Duration,
    ) -> Result<ChangeMark, RepositoryError> {
        let watch = &self.store.watch;
        let mut changes = watch.shared.changes.subscribe();
        watch.listen(&self.store);
        let news = changes.wait_for(|count| *count > seen.get());
        let told = match tokio::time::timeout(wait, news).await {
            Ok(told) => told.map_or(seen.get(), |count| *count),
            Err(_) => seen.get(),
        };
        Ok(ChangeMark::new(told))
    }
}

impl Watch {
    pub(super) fn new(origin: String, connector: Connector) -> Self {
        Self {
            shared: Arc::new(Shared {
                changes: watch::Sender::new(1),
                written: Notify::new(),
                state: AtomicU8::new(0),
                origin,
                connector,
            }),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn notifications(&self) -> Notifications {
        let state = usize::from(self.shared.state.load(Ordering::Relaxed));
        let state = Notifications::ALL.get(state);
        state.copied().unwrap_or(Notifications::NotAsked)
    }

    /// Tells those who watch, here at once and elsewhere soon.
    pub(super) fn wrote(&self, store: &Arc<Store>) {
        self.shared.changed();
        self.shared.written.notify_one();
        let mut tasks = self.tasks();
        // A task ends with the runtime that it was started on.
        if tasks.telling.as_ref().is_none_or(JoinHandle::is_finished) {
            let (shared, store) = (Arc::clone(&self.shared), Arc::downgrade(store));
            tasks.telling = Some(tokio::spawn(tell(shared, store)));
        }
    }

    /// Listens, from the first call on.
    fn listen(&self, store: &Arc<Store>) {
        let mut tasks = self.tasks();
        if tasks.listening.as_ref().is_none_or(JoinHandle::is_finished) {
            self.shared.set(Notifications::Connecting);
            let (shared, store) = (Arc::clone(&self.shared), Arc::downgrade(store));
            tasks.listening = Some(tokio::spawn(listen(shared, store)));
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut tasks = self.tasks();
        let tasks = [tasks.telling.take(), tasks.listening.take()];
        tasks.into_iter().flatten().for_each(|task| task.abort());
    }
}

impl Shared {
    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn set(&self, state: Notifications) {
        let at = Notifications::ALL.iter().position(|known| *known == state);
        let at = at.and_then(|at| u8::try_from(at).ok()).unwrap_or_default();
        self.state.store(at, Ordering::Relaxed);
    }
}

/// Tells other processes of what was written here, one notification for all that was written meanwhile.
async fn tell(shared: Arc<Shared>, store: Weak<Store>) {
    loop {
        shared.written.notified().await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = notify(&store, &shared.origin).await {
            tracing::debug!(%error, "other processes were not told of a change");
        }
        drop(store);
        tokio::time::sleep(DEBOUNCE).await;
    }
}

async fn notify(store: &Store, payload: &str) -> Result<(), RepositoryError> {
    let statement = || Statement::new(NOTIFY).text(payload);
    store
        .rows::<Done>(Purpose::Read, "notify other processes", &statement)
        .await?;
    Ok(())
}

/// Hears of other processes' changes until the repository is dropped.
async fn listen(shared: Arc<Shared>, store: Weak<Store>) {
    let (mut back_off, most) = BACK_OFF;
    loop {
        let mut was_heard = false;
        match hear(&shared, &store, &mut was_heard).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "the connection for notifications was lost"),
        }
        shared.set(Notifications::Connecting);
        if was_heard {
            (back_off, _) = BACK_OFF;
        }
        tokio::time::sleep(back_off).await;
        back_off = back_off.saturating_mul(2).min(most);
    }
}

/// Listens on one connection as long as it lasts. `Ok` means that there is no repository any more.
async fn hear(
    shared: &Arc<Shared>,
    store: &Weak<Store>,
    was_heard: &mut bool,
) -> Result<(), RepositoryError> {
    let connector = &shared.connector;
    let failed = |error: tokio_postgres::Error| {
        let message = format!("failed to listen on {}", connector.target());
        RepositoryError::new(ErrorKind::Unavailable, message).with_source(error)
    };
    let (client, mut messages) = connector.listen().await?;
    let (payloads, mut heard) = mpsc::unbounded_channel();
    // The channel ends with the connection, and this task with whoever listens.
    let _pump = Ended(tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(&mut *messages).await {
            if let AsyncMessage::Notification(notification) = message
                && payloads.send(notification.payload().to_owned()).is_err()
            {
                return;
            }
        }
    }));
    client
        .batch_execute(connector.settings())
        .await
        .map_err(failed)?;
    let channel: String = client.query_one(CHANNEL, &[]).await.map_err(failed)?.get(0);
    client
        .batch_execute(&format!("LISTEN \"{channel}\""))
        .await
        .map_err(failed)?;
    let nonce = IdGenerator::system().owner_id().map_err(|error| {
        RepositoryError::new(ErrorKind::Internal, "failed to draw an id").with_source(error)
    })?;
    let nonce = nonce.to_string();
    {
        let Some(store) = store.upgrade() else {
            return Ok(());
        };
        notify(&store, &nonce).await?;
    }
    // What was written before anybody listened was not heard of.
    shared.changed();
    let test = async {
        while let Some(payload) = heard.recv().await {
            if payload == nonce {
                return true;
            }
            shared.told(&payload);
        }
        false
    };
    match tokio::time::timeout(SELF_TEST, test).await {
        Ok(true) => {
            *was_heard = true;
            shared.set(Notifications::Heard);
        }
        Ok(false) => return Err(lost(connector)),
        Err(_) => {
            shared.set(Notifications::Unheard);
            tracing::warn!(
                "notifications of {} are not heard, as behind a pooler in transaction mode; changes of other processes are seen \
                 by looking again",
                connector.target()
            );
        }
    }
    while let Some(payload) = heard.recv().await {
        // It was only late, or the way has become free.
        *was_heard = true;
        shared.set(Notifications::Heard);
        if payload != nonce {
            shared.told(&payload);
        }
    }
    Err(lost(connector))
}

impl Shared {
    /// Takes a notification; one's own was told before it was sent.
    fn told(&self, payload: &str) {
        if payload != self.origin {
            self.changed();
        }
    }
}

fn lost(connector: &Connector) -> RepositoryError {
    let message = format!("the connection to {} was closed", connector.target());
    RepositoryError::new(ErrorKind::Unavailable, message)
}
