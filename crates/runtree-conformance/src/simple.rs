//! A backend of two closures, for stores that are made and opened without waiting.

use std::fmt;

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::Word;
use runtree_repository::time::ManualClock;
use runtree_repository::{Capabilities, DynRunRepository, Namespace};

use crate::backend::{Backend, BackendError, ClockSource, Declaration};

type Make<S> = dyn Fn(ManualClock) -> Result<S, BackendError> + Send + Sync;
type Open<S> = dyn Fn(&S, &Namespace) -> Result<DynRunRepository, BackendError> + Send + Sync;
type WriteStatus<S> =
    dyn Fn(&S, &Namespace, RunId, &Word) -> Result<(), BackendError> + Send + Sync;

/// A [`Backend`] made of what it can do and of what makes and opens a store, where neither has to wait.
///
/// ```
/// use std::sync::Arc;
///
/// use runtree_conformance::SimpleBackend;
/// use runtree_repository::{Capabilities, Durability, MemoryRepository, Sharing};
///
/// runtree_conformance::tests!(SimpleBackend::new(
///     Capabilities::new(Durability::Process, Sharing::Process),
///     |clock| Ok(MemoryRepository::new(Arc::new(clock))),
///     |store, namespace| Ok(Arc::new(store.with_namespace(namespace.clone()))),
/// ));
/// ```
pub struct SimpleBackend<S> {
    declaration: Declaration,
    make: Box<Make<S>>,
    open: Box<Open<S>>,
    write_status: Option<Box<WriteStatus<S>>>,
}

impl<S: Send + Sync + 'static> SimpleBackend<S> {
    /// Takes what the repository must say of itself, what does [`Backend::make`], and what does [`Backend::open`]. Whatever is
    /// written is stamped with the clock that is passed.
    pub fn new(
        capabilities: Capabilities,
        make: impl Fn(ManualClock) -> Result<S, BackendError> + Send + Sync + 'static,
        open: impl Fn(&S, &Namespace) -> Result<DynRunRepository, BackendError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            declaration: Declaration::new(capabilities, ClockSource::Passed),
            make: Box::new(make),
            open: Box::new(open),
            write_status: None,
        }
    }

    /// Takes what does [`Backend::write_status`], and declares that it works.
    #[must_use]
    pub fn writing_status(
        mut self,
        write: impl Fn(&S, &Namespace, RunId, &Word) -> Result<(), BackendError> + Send + Sync + 'static,
    ) -> Self {
        self.declaration = self.declaration.writes_foreign_words();
        self.write_status = Some(Box::new(write));
        self
    }
}

#[async_trait]
impl<S: Send + Sync + 'static> Backend for SimpleBackend<S> {
    type Store = S;

    fn declaration(&self) -> Declaration {
        self.declaration
    }

    async fn make(&self, clock: ManualClock) -> Result<S, BackendError> {
        (self.make)(clock)
    }

    async fn open(
        &self,
        store: &S,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        (self.open)(store, namespace)
    }

    async fn write_status(
        &self,
        store: &S,
        namespace: &Namespace,
        run: RunId,
        status: &Word,
    ) -> Result<(), BackendError> {
        match &self.write_status {
            Some(write) => write(store, namespace, run, status),
            None => {
                Err(format!("this backend cannot overwrite the status of the run {run}").into())
            }
        }
    }
}

impl<S> fmt::Debug for SimpleBackend<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleBackend")
            .field("declaration", &self.declaration)
            .finish_non_exhaustive()
    }
}
