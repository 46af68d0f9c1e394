//! The store of runs: what it promises, what it keeps, and a backend in memory.
//!
//! ```
//! use std::sync::Arc;
//!
//! use runtree_id::IdGenerator;
//! use runtree_repository::{CreateRun, CreateRuns, Created, MemoryRepository, NewRun};
//! use runtree_time::SystemClock;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let runs = MemoryRepository::new(Arc::new(SystemClock));
//! let request = CreateRun {
//!     id: IdGenerator::system().run_id()?,
//!     run: NewRun::new("builder").input("fix the flaky test").idempotency_key("order-17"),
//!     worktree: None,
//! };
//! let Created::New(run) = runs.create(&request).await? else { panic!("the store was empty") };
//!
//! // The same request again, as after a lost answer, makes no second run.
//! let Created::Existing(same) = runs.create(&request).await? else { panic!("it was made before") };
//! assert_eq!(run.id, same.id);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The main types
//!
//! [`RunRepository`] is the sum of narrow traits: [`CreateRuns`], [`ReadRuns`], [`OwnRuns`] (claim, renew, end), [`StopRuns`]
//! (cancel), [`RescueRuns`] (owners that died, deadlines that passed), [`AnnotateRuns`] (facts, usage, tags), [`CleanUpWorktrees`],
//! [`RetainRuns`] (deleting what is old) and [`WatchRuns`] (when to look again); [`RunRepositoryExt`] follows and waits. A [`NewRun`] becomes a [`Run`]; a [`Claim`] gives a
//! [`LeaseRef`] out, which every write of an owner shows. Guarded writes answer [`Write`]: losing is an answer, not an error.
//!
//! # What it does not do
//!
//! It starts no process and touches no worktree; it keeps records of both. It never retries by itself, and deletes only what
//! [`RetainRuns`] is asked to.
//!
//! # Guarantees
//!
//! The same on every backend, and held by the public suite in `runtree-conformance`:
//!
//! - one run for a request, decided by unique indexes;
//! - one owner at a time: a write with an old [`Token`] is rejected, recorded in the run's history, and told;
//! - one ending: an ended run never changes its status;
//! - a wish to clean up is made in the transaction that ends the run;
//! - a status word of a newer version is read, listed and kept, never claimed, rescued or overwritten.
//!
//! # Limits
//!
//! Texts have the bounds of their types (`MAX_BYTES`), JSON values [`MAX_JSON_BYTES`] and [`MAX_JSON_DEPTH`], pages and batches
//! [`Limit`], lease times [`LeaseTime`]. A run has at most 4,294,967,295 events and claims.
//!
//! # Features
//!
//! None: the backends are crates of their own.
//!
//! # Alternatives
//!
//! A job queue such as `apalis` or `graphile_worker` serves jobs that need no history, no fencing and no worktree.

mod annotation;
mod answer;
mod change;
mod error;
mod event;
mod explanation;
mod ext;
mod facts;
mod json;
mod lease;
mod memory;
mod order;
mod query;
mod repository;
mod request;
mod run;
mod statistics;
mod stop;
mod subscription;
mod text;
mod worktree;

pub use annotation::{Annotation, Change, MAX_TAGS, UsageChange};
pub use answer::{ConflictOver, Created, Rescue, Rescued, Retention, Write};
pub use change::ChangeMark;
pub use error::{ErrorKind, RepositoryError};
pub use event::{EventKind, EventNumber, RunEvent};
pub use explanation::{Because, Explanation, Surroundings};
pub use ext::RunRepositoryExt;
pub use facts::{
    Cost, DiffStatistics, FileChange, MAX_FILE_CHANGES, MAX_FILE_CHANGES_BYTES, RunFacts, Usage,
};
pub use json::{MAX_JSON_BYTES, MAX_JSON_DEPTH};
pub use lease::{
    Claim, ClaimOf, Claimed, Lease, LeaseRef, LeaseTime, Limit, Owner, Renewal, Token, WaitingRuns,
};
pub use memory::MemoryRepository;
pub use order::{Cursor, Direction, Position, RunOrder, SortKey, SortValue};
pub use query::{MAX_FILTER_VALUES, PageRequest, RunFilter, RunPage};
pub use repository::{
    AnnotateRuns, Capabilities, CleanUpWorktrees, CreateRuns, Durability, DynRunRepository,
    OwnRuns, ReadRuns, RescueRuns, RetainRuns, RunRepository, Sharing, StopRuns, WatchRuns,
};
pub use request::{
    CheckedRun, Concurrency, CreateRun, Fingerprint, NewRun, Persistence, Priority, RetryRun,
    WantedWorktree, WorktreeWish,
};
pub use run::{Run, RunSummary};
pub use statistics::{Measure, RunStatistics};
pub use stop::{CancelCause, CancelIntent, CancelMode, CancelRequest, Ending, Outcome, Overdue};
pub use subscription::{Follower, RunNews, Watcher};
pub use text::{
    Actor, AgentType, ChangedPath, ConcurrencyKey, ErrorText, GitRepositoryName, HostName,
    HostPath, IdempotencyKey, ModelName, Namespace, ProcessMark, QueueName, Reason, RunInput,
    SalvageRef, SessionName, Tag, UniqueKey, UserId, WorkflowName,
};
pub use worktree::{
    CleanupClaim, CleanupLease, CleanupOutcome, CleanupRef, CleanupTask, WorktreeKey,
    WorktreeQuery, WorktreeRecord, WorktreeSite, WorktreeState,
};

// The vocabulary that these signatures are written in.
pub use runtree_id as id;
pub use runtree_status as status;
pub use runtree_time as time;
