//! What a backend hands to the suite: a way to make and open stores, and a declaration of what they can do.

use std::error::Error;

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::Word;
use runtree_repository::time::ManualClock;
use runtree_repository::{Capabilities, DynRunRepository, Namespace};

/// Whatever went wrong while a store was made or opened.
pub type BackendError = Box<dyn Error + Send + Sync>;

/// A backend that is put to the suite.
///
/// It cannot pick its cases: it declares what it can do, and the [table of cases](crate::cases) decides the rest.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What lives as long as one case: a store, or whatever a store is opened from (a directory, the name of a database). Dropping
    /// it cleans up.
    type Store: Send + Sync + 'static;

    /// Says what the backend can do. Write it as a literal: the suite compares it with what the repository says of itself.
    fn declaration(&self) -> Declaration;

    /// Makes a store that holds no runs and no worktrees.
    ///
    /// A backend of [`ClockSource::Passed`] stamps everything with this clock, which the suite moves.
    ///
    /// # Errors
    /// Whatever went wrong; the case then fails.
    async fn make(&self, clock: ManualClock) -> Result<Self::Store, BackendError>;

    /// Opens a handle on a namespace of the store, as another part of the host application would: with its own connections where
    /// the backend has connections.
    ///
    /// Called several times for one store, also while other handles are open.
    ///
    /// # Errors
    /// Whatever went wrong; the case then fails.
    async fn open(
        &self,
        store: &Self::Store,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError>;

    /// Overwrites the status word of a run past the repository, as a newer version would write a word of its own.
    ///
    /// Called only when the declaration says [`ForeignWords::Written`].
    ///
    /// # Errors
    /// Whatever went wrong; the case then fails.
    async fn write_status(
        &self,
        store: &Self::Store,
        namespace: &Namespace,
        run: RunId,
        status: &Word,
    ) -> Result<(), BackendError> {
        let (_, _, _) = (store, namespace, status);
        Err(format!("this backend cannot overwrite the status of the run {run}").into())
    }
}

/// What a backend can do, pinned in its test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Declaration {
    /// What its repository must say of itself.
    pub capabilities: Capabilities,
    /// Whose clock stamps what is written.
    pub clock: ClockSource,
    /// Whether words of newer versions can be put into its store.
    pub foreign_words: ForeignWords,
}

impl Declaration {
    /// Declares the capabilities and the clock, and that no foreign words can be written.
    pub const fn new(capabilities: Capabilities, clock: ClockSource) -> Self {
        Self {
            capabilities,
            clock,
            foreign_words: ForeignWords::NotWritten,
        }
    }

    /// Declares that [`Backend::write_status`] works.
    #[must_use]
    pub const fn writes_foreign_words(mut self) -> Self {
        self.foreign_words = ForeignWords::Written;
        self
    }
}

/// Whose clock stamps what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the suite either moves the clock or waits for it; there is no third"
)]
pub enum ClockSource {
    /// The one passed to [`Backend::make`]: cases move it.
    Passed,
    /// The server's: cases wait for it, with the shortest leases there are.
    Server,
}

/// Whether the suite can put words of newer versions into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "words can be written or they cannot"
)]
pub enum ForeignWords {
    /// By [`Backend::write_status`].
    Written,
    /// Nothing but the repository writes to the store, as in the memory of one process.
    NotWritten,
}
