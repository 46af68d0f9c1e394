//! The public suite that any run repository must pass.
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use runtree_conformance::{Backend, BackendError, ClockSource, Declaration};
//! use runtree_repository::time::ManualClock;
//! use runtree_repository::{
//!     Capabilities, Durability, DynRunRepository, MemoryRepository, Namespace, Sharing,
//! };
//!
//! struct Memory;
//!
//! #[async_trait]
//! impl Backend for Memory {
//!     type Store = MemoryRepository;
//!
//!     fn declaration(&self) -> Declaration {
//!         let capabilities = Capabilities::new(Durability::Process, Sharing::Process);
//!         Declaration::new(capabilities, ClockSource::Passed)
//!     }
//!
//!     async fn make(&self, clock: ManualClock) -> Result<MemoryRepository, BackendError> {
//!         Ok(MemoryRepository::new(Arc::new(clock)))
//!     }
//!
//!     async fn open(
//!         &self,
//!         store: &MemoryRepository,
//!         namespace: &Namespace,
//!     ) -> Result<DynRunRepository, BackendError> {
//!         Ok(Arc::new(store.with_namespace(namespace.clone())))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let report = runtree_conformance::check(Memory).await;
//! report.assert_conforms(); // prints what was skipped and why
//! # });
//! # Ok::<_, std::io::Error>(())
//! ```
//!
//! # The main types
//!
//! A [`Backend`] makes stores, opens handles on them, and gives a [`Declaration`] of what it can do. [`check`] puts the table of
//! [`cases`] to it and answers with a [`Report`]: a [`Verdict`] for each [`Case`]. [`check_case`] puts one case by its name;
//! [`tests!`] makes one `#[test]` of each. Where a store is made and opened without waiting, [`SimpleBackend`] is a backend of two
//! closures: the whole suite in ten lines.
//!
//! A case that needs what the backend does not declare is [skipped](Verdict::Skipped), with its name and the reason in the report.
//! There is no other way past a case: a backend cannot pick.
//!
//! # What it does not do
//!
//! It crashes nothing and starts no other process: that what was acknowledged survives a power cut, and that two processes may
//! share a file, are tests of the backend that claims it. It measures no speed.
//!
//! # Guarantees
//!
//! - Every case of the table is in every report: passed, skipped or failed.
//! - Each case gets a store of its own, and fails alone: a backend that panics or hangs fails that case, and the next one runs.
//! - No case sleeps to let something happen. Where the clock can be moved it is moved; where it is the server's, a case waits until
//!   the store's own clock shows the instant.
//! - The suite is itself tested: repositories that are broken on purpose must be rejected, each by the case that is named for it.
//!
//! # Limits
//!
//! A case may take two minutes. With a server's clock the whole table waits about ten seconds.
//!
//! # Features
//!
//! None.
//!
//! # Alternatives
//!
//! Random calls find what no list of cases names: [`model`] compares a backend with a naive model of the repository. It complements
//! the table and does not replace it, because a case says which promise was broken.

mod backend;
mod cases;
mod context;
mod failure;
mod generated;
pub mod model;
mod simple;
mod suite;
mod table;

pub use backend::{Backend, BackendError, ClockSource, Declaration, ForeignWords};
pub use failure::Failure;
pub use simple::SimpleBackend;
pub use suite::{Case, Need, Report, Verdict, cases, check, check_case};

#[doc(hidden)]
pub use suite::__assert_case;
