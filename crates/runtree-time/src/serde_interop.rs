//! For `#[serde(with = "runtree_time::serde_interop")]`: reads the interop profile, writes the canonical text.
//!
//! Naive texts are refused here too: an attribute has no place to say what they mean.
//!
//! # Examples
//!
//! ```
//! use runtree_time::Timestamp;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Event {
//!     #[serde(with = "runtree_time::serde_interop")]
//!     at: Timestamp,
//!     #[serde(with = "runtree_time::serde_interop::option", default)]
//!     until: Option<Timestamp>,
//! }
//!
//! let event: Event = serde_json::from_str(r#"{"at": "2025-06-22T10:00+00[Etc/UTC]"}"#)?;
//! assert_eq!(
//!     serde_json::to_string(&event)?,
//!     r#"{"at":"2025-06-22T10:00:00.000000Z","until":null}"#,
//! );
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserializer, Serialize, Serializer};

use crate::{normalizer::Normalizer, serde_text::TextVisitor, timestamp::Timestamp};

/// Writes the canonical text.
///
/// # Errors
///
/// Only those of the serializer.
pub fn serialize<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}

/// Reads a text under the interop profile.
///
/// # Errors
///
/// Values that are no text, and texts that are no timestamp.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    deserializer.deserialize_str(TextVisitor(Normalizer::interop()))
}

crate::serde_option::option_module!();
