//! The words for where a run stands, and the one table of how it moves.
//!
//! ```
//! use runtree_status::{Event, RunStatus};
//!
//! let mut status = RunStatus::Pending;
//! for event in [Event::Claim, Event::RequestCancel, Event::AcknowledgeCancel] {
//!     status = status.apply(event)?;
//! }
//! assert_eq!(status, RunStatus::Killed);
//! assert!(status.apply(Event::Complete).is_err());
//! # Ok::<(), runtree_status::TransitionError>(())
//! ```
//!
//! # First steps
//!
//! A status is a word in a row. What is stored is read tolerantly, what a person types is not, and
//! a word of a newer version goes through an older one unharmed:
//!
//! ```
//! use runtree_status::{Event, RunStatus};
//!
//! let stored = RunStatus::from_stored("quarantined")?; // a newer version wrote it
//! assert_eq!(stored.to_string(), "quarantined"); // shown, listed and written back as it is
//! assert!(stored.apply(Event::Claim).is_err()); // and nothing here acts on it
//!
//! let typed = "quarantined".parse::<RunStatus>().unwrap_err();
//! assert_eq!(
//!     typed.to_string(),
//!     "\"quarantined\" is not a run status; \
//!      expected one of: pending, running, completed, failed, killed",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A refused event says whether there was nothing to do or something was wrong, so that a repeated
//! request is told from a mistaken one:
//!
//! ```
//! use runtree_status::{Event, RunStatus, TransitionErrorKind};
//!
//! let again = RunStatus::Killed.apply(Event::ForceKill).unwrap_err();
//! assert_eq!(again.kind(), TransitionErrorKind::NoOp);
//! let too_late = RunStatus::Completed.apply(Event::ForceKill).unwrap_err();
//! assert_eq!(too_late.kind(), TransitionErrorKind::Invalid);
//! ```
//!
//! # Types
//!
//! [`RunStatus`] is the stored word and [`EndReason`] the stored word of why a run ended;
//! both keep words they do not know in an inline [`Word`]. [`Phase`] is what people see,
//! computed by [`phase`]. An [`Event`] moves a run as its row of [`TRANSITIONS`] says;
//! [`RunStatus::apply`] is the one place that asks the table.
//!
//! # Why only five words
//!
//! Scheduled, queued, retrying, cancelling, timed out, lost: each is true *beside* a status, not in its
//! place. As statuses they multiply (a run can be cancelling while it backs off) and every query must
//! know all of them. They are columns, and [`phase`] computes from them the one word that people see.
//!
//! ```
//! use runtree_status::{EndReason, Phase, PhaseInput, RunStatus, phase};
//!
//! let run = PhaseInput {
//!     status: RunStatus::Running,
//!     is_due: true,
//!     is_cancel_requested: true,
//!     has_ended: false,
//!     end_reason: None,
//! };
//! assert_eq!(phase(&run), Phase::Cancelling);
//!
//! let ended = PhaseInput {
//!     status: RunStatus::Failed,
//!     has_ended: true,
//!     end_reason: Some(EndReason::TimedOut),
//!     ..run
//! };
//! assert_eq!(phase(&ended).to_string(), "ended (timed_out)");
//! ```
//!
//! # Why an unknown word is no error
//!
//! Two versions share a store while one is rolled out. If the older one failed on a word it does not
//! know, one new row would break every listing; if it took the word for a known one, it would act on a
//! run that it does not understand. Kept as [`RunStatus::Unknown`], the row is listed, ordered last,
//! and left alone. Whether such a run has ended, its `ended_at` says.
//!
//! # What it does not do
//!
//! It does not store, lock or decide who may act: the guards of the table are checked by the
//! statement that writes, in the run repository. It reads no clock.
//!
//! # Transitions
//!
#![doc = include_str!("../tests/snapshots/transitions.md")]
//!
//! # Guarantees
//!
//! - A run ends at most once: no row leads out of an ended status.
//! - An unknown word of 1 to 32 bytes of `[a-z0-9_]` survives every round trip byte for byte
//!   and allows no event.
//! - A known word has one representation: an unknown-word value never holds one.
//! - The methods, the table above and the diagrams come from one table, [`TRANSITIONS`].
//!
//! # Limits
//!
//! Words are at most 32 bytes. A status and an end reason are 33 bytes, `Copy`, and never
//! allocate.
//!
//! # Features
//!
//! - `serde` (default): text in both directions; reading is tolerant, as from the store.
//!
//! # Alternatives
//!
//! A plain enum that derives its text is enough where no older reader ever meets a newer
//! writer. A typed state machine, one type for each status, fits where one process holds
//! the only copy; here the copy that counts is a row that other processes change.

mod open_set;
mod phase;
mod reason;
mod render;
mod status;
mod transition;
mod word;

pub use phase::{Phase, PhaseInput, phase};
pub use reason::{EndReason, OtherReason};
pub use render::{transition_diagram_dot, transition_diagram_mermaid, transition_table_markdown};
pub use status::{RunStatus, UnknownStatus};
pub use transition::{Event, TRANSITIONS, Transition, TransitionError, TransitionErrorKind};
pub use word::{NotOneOf, Word, WordError, WordErrorKind};
