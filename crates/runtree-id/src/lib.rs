//! Run ids that never collide, and names that are safe for paths and refs.
//!
//! ```
//! use runtree_id::{BranchName, DirectoryName, IdGenerator, RunId, Slug};
//!
//! // One generator for the process, shared behind an `Arc`.
//! let generator = IdGenerator::system();
//! let id = generator.run_id()?; // run_01m823xfxgfmzs5wf9e0q3sm9g
//! assert!(id < generator.run_id()?);
//!
//! // A readable word, and the id that makes it unique.
//! let slug = Slug::from_text("Fix the flaky test");
//! let directory = DirectoryName::for_run(&slug, id); // fix-the-flaky-test-run_01m82...
//! let branch = BranchName::for_run(&slug, id); // runtree/fix-the-flaky-test-run_01m82...
//! assert_eq!(directory.as_str(), format!("fix-the-flaky-test-{id}"));
//! assert_eq!(branch.full_ref(), format!("refs/heads/runtree/{directory}"));
//!
//! // From all of them there is a way back.
//! assert_eq!(directory.run_id(), Some(id));
//! assert_eq!(branch.run_id(), Some(id));
//! assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
//! # Ok::<(), runtree_id::GenerateError>(())
//! ```
//!
//! # Types
//!
//! | type | names | made by |
//! |---|---|---|
//! | [`RunId`], [`OwnerId`] | a run; a process that owns runs | [`IdGenerator`] |
//! | [`IdEnding`], [`Lookup`] | what a person types of an id; the answer to it | [`RunId::short`], a person |
//! | [`Slug`] | the readable part of a name | any text |
//! | [`DirectoryName`], [`BranchName`] | a worktree's directory; a branch | a slug and a run id, or a person |
//! | [`SessionId`], [`ExternalRef`] | a session of the host; something of another system | the host |
//! | [`CommitId`] | a commit | git |
//!
//! An id is a UUID of version 7 in the text form of TypeID; [`Id`] is what ids have in common.
//! A generator makes them from a clock and a source of random bytes ([`Entropy`]), which are
//! passed in: [`IdGenerator::system`] takes the machine's, a test takes its own.
//!
//! ## Why the short form is an ending
//!
//! Ids begin with the clock, so that they sort by time. What people see first is therefore
//! the same for all ids of a moment, and tells nothing apart:
//!
//! ```
//! use std::collections::HashSet;
//! use std::sync::Arc;
//!
//! use runtree_id::{IdEnding, IdGenerator, Lookup, PredictableEntropy, RunId};
//! use runtree_time::ManualClock;
//!
//! let clock = ManualClock::new("2025-06-22T12:00:00Z".parse()?);
//! let generator = IdGenerator::new(Arc::new(clock), Arc::new(PredictableEntropy::new(1)));
//! let ids: Vec<RunId> = generator.batch(1000)?;
//!
//! let beginnings: HashSet<String> = ids.iter().map(|id| id.to_string()[..14].into()).collect();
//! let endings: HashSet<IdEnding> = ids.iter().map(RunId::short).collect();
//! assert_eq!(beginnings.len(), 1); // `run_` and ten characters: all the same
//! assert_eq!(endings.len(), 1000); // the last eight: all different
//!
//! // So people type an ending, of four characters or more, and the answer says what it means.
//! let typed: IdEnding = ids[7].short().as_str()[2..].to_uppercase().parse()?;
//! let matches = ids.iter().filter(|id| typed.matches(*id));
//! match Lookup::from_matches(matches) {
//!     Lookup::Found(id) => assert_eq!(id, &ids[7]),
//!     Lookup::NotFound => println!("there is no run ...{typed}"),
//!     Lookup::Ambiguous(ids) => println!("...{typed} may be any of {ids:?}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## What comes from others
//!
//! What a host or another system calls things is read strictly, and never replaced: an
//! identifier that is wrong is an error that quotes it and says why, not "none".
//!
//! ```
//! use runtree_id::{ExternalRef, ParseErrorKind, RunId, SessionId};
//!
//! let session: SessionId = "2EB8AA08-AA98-11EA-B4AA-73B441D16380".parse()?;
//! assert_eq!(session.to_string(), "2eb8aa08-aa98-11ea-b4aa-73b441d16380");
//!
//! let error = "2eb8aa08aa9811eab4aa73b441d16380".parse::<SessionId>().unwrap_err();
//! assert_eq!(error.kind(), ParseErrorKind::Form);
//! assert_eq!(
//!     error.to_string(),
//!     "\"2eb8aa08aa9811eab4aa73b441d16380\" is not a session id: \
//!      it is a UUID without hyphens; write it as 8-4-4-4-12 digits",
//! );
//!
//! // What is no UUID is an external reference, which is text with an alphabet.
//! let ticket: ExternalRef = "PROJ-1234".parse()?;
//! assert_eq!(ticket.as_str(), "PROJ-1234");
//! assert_eq!("../x".parse::<ExternalRef>().unwrap_err().kind(), ParseErrorKind::Character);
//!
//! // A run id has one text. What a person typed or pasted is read by a reader of its own.
//! let pasted = " RUN_01H455VB4PEX5VSKNK084SN02Q\n";
//! assert!(pasted.parse::<RunId>().is_err());
//! assert!(RunId::parse_human(pasted)? == RunId::parse_human("01890a5d-ac96-774b-bcce-b302099a8057")?);
//! # Ok::<(), runtree_id::ParseError>(())
//! ```
//!
//! ## What to do at an error
//!
//! - [`GenerateError`]: no id was made, and none is lost. There are no random bytes, or the
//!   clock is wrong, or ids are asked for faster than four million a second; its
//!   [kind](GenerateErrorKind) says whether to try again or to set the clock.
//! - [`ParseError`]: show its text to whoever gave the value; its [kind](ParseErrorKind) says
//!   what to change.
//! - An id that is taken, which the database tells: make a new one, once. See below how often
//!   that is.
//! - A branch or a directory that exists: with a run's id in its name it is that run's.
//!
//! # What it does not do
//!
//! It does not look whether an id or a name is taken: the database's unique index and the
//! lock on the ref decide that. It touches no file and asks no git.
//!
//! # Guarantees
//!
//! - The ids of one generator strictly increase, across all threads, as long as the clock
//!   does not fall more than ten seconds behind the latest instant it has shown; when it
//!   does, the generator starts again from it and reports that.
//! - Every id has 62 random bits of its own, or is not made. No random bytes are kept in the
//!   process, so a fork is safe.
//! - One value has one text: parsing what was printed gives the same value, and of all texts
//!   only that one is accepted by `FromStr` (a [`SessionId`] and an [`IdEnding`] also take
//!   upper case, an ending also white space around it).
//! - Names of different runs differ, also where case is ignored, and are names on Linux, macOS
//!   and Windows alike.
//!
//! # Limits
//!
//! Ids hold instants from 1970 to 9999, to the millisecond. Generators do not know of each
//! other: ids of two of them are ordered only as their clocks are.
//!
//! ## Collisions, calculated
//!
//! One generator never hands out the same tick twice, so its ids never collide, until its
//! clock has stepped back so far that it starts again. Ids of two processes collide when
//! both the tick and the 62 random bits are the same. A tick could tell 4096 parts of a
//! millisecond apart; but clocks are read in microseconds, so there are a million ticks a second.
//! Of `r` ids a second, made at random moments, `r * r / 2` pairs a second could meet:
//!
//! ```text
//! collisions in a year = seconds in a year * pairs a second / ticks a second / 2^62
//!                      = 31557600 * (r * r / 2) / 1000000 / 2^62
//!
//! at    1000 ids a second: 3.4e-12
//! at 1000000 ids a second: 3.4e-6
//! ```
//!
//! A clock that only moves each millisecond makes a thousand times as many. Even if a
//! thousand processes make an id at the same tick, the chance that two are the same
//! is 1.1e-13. The database's primary key tells the difference between that and never.
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

mod atomic;
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
#[cfg(test)]
mod tick_tests;
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
