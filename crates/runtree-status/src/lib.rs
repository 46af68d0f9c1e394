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
//! # Types
//!
//! [`RunStatus`] is the stored word and [`EndReason`] the stored word of why a run ended;
//! both keep words they do not know in an inline [`Word`]. [`Phase`] is what people see,
//! computed by [`phase`]. An [`Event`] moves a run as its row of [`TRANSITIONS`] says;
//! [`RunStatus::apply`] is the one place that asks the table.
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
