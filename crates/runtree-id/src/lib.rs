//! Run ids that never collide, and names that are safe for paths and refs.
//!
//! ```
//! use runtree_id::{BranchName, DirectoryName, IdGenerator, RunId, Slug};
//!
//! let generator = IdGenerator::system();
//! let id = generator.run_id()?;
//! let slug = Slug::from_text("Fix the flaky test");
//!
//! let directory = DirectoryName::for_run(&slug, id); // fix-the-flaky-test-run_01j...
//! let branch = BranchName::for_run(&slug, id); // runtree/fix-the-flaky-test-run_01j...
//! assert_eq!(directory.run_id(), Some(id));
//! assert_eq!(branch.run_id(), Some(id));
//!
//! assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
//! # Ok::<(), runtree_id::GenerateError>(())
//! ```
//!
//! # Types
//!
//! [`RunId`] and [`OwnerId`] are UUIDs of version 7 in the text form of TypeID; [`Id`] is
//! what they have in common. An [`IdGenerator`] makes them from a clock and a source of
//! random bytes ([`Entropy`]), both passed in. An [`IdEnding`] is what a person types of an
//! id, and [`Lookup`] the answer to it. [`SessionId`] and [`ExternalRef`] name things of the
//! host and of other systems.
//!
//! [`Slug`], [`DirectoryName`] and [`BranchName`] are names that files and refs may have;
//! the last two are made from a run id and lead back to it. [`CommitId`] names a commit.
//!
//! # What it does not do
//!
//! It does not look whether an id or a name is taken: the database's unique index and the
//! lock on the ref decide that. It touches no file and asks no git.
//!
//! # Guarantees
//!
//! - The ids of one generator strictly increase, across all threads, as long as the clock
//!   does not step back by more than ten seconds at once; a larger step is reported.
//! - Every id has 62 random bits of its own, or is not made. No random bytes are kept in the
//!   process, so a fork is safe.
//! - One value has one text: parsing what was printed gives the same value, and of all texts
//!   only that one is accepted by `FromStr` (a [`SessionId`] and an [`IdEnding`] also take
//!   upper case).
//! - Names of different runs differ, also where case is ignored.
//!
//! # Limits
//!
//! Ids hold instants from 1970 to 9999, to the millisecond. Generators do not know of each
//! other: ids of two of them are ordered only as their clocks are. The expected number of
//! collisions among a thousand ids a second over a year is about 8e-13; among a million a
//! second, 8e-7.
//!
//! # Features
//!
//! - `serde` (default): every type as its text, read as strictly as by `FromStr`.
//!
//! # Alternatives
//!
//! `uuid` alone makes UUIDs of version 7, in order within a process by a mutex, and can be
//! switched to a random generator that a fork duplicates by any crate of the build. ULIDs
//! sort as well but are no UUIDs. Ids counted by the database need the database before
//! there is an id.

mod base32;
mod branch;
mod commit;
mod directory;
mod ending;
mod entropy;
mod error;
mod external;
mod generator;
mod session;
mod slug;
mod text_serde;
mod tick;
mod typed_id;

pub use branch::BranchName;
pub use commit::CommitId;
pub use directory::DirectoryName;
pub use ending::{IdEnding, Lookup};
pub use entropy::{Entropy, EntropyError, PredictableEntropy, SystemEntropy};
pub use error::{ParseError, ParseErrorKind};
pub use external::ExternalRef;
pub use generator::{ClockRestart, GenerateError, GenerateErrorKind, IdGenerator};
pub use session::SessionId;
pub use slug::Slug;
pub use typed_id::{Id, IdText, OwnerId, RunId};
