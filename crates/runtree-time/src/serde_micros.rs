//! For `#[serde(with = "runtree_time::serde_micros")]`: an integer of microseconds since 1970 UTC.
//!
//! # Examples
//!
//! ```
//! use runtree_time::Timestamp;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Event {
//!     #[serde(with = "runtree_time::serde_micros")]
//!     at: Timestamp,
//!     #[serde(with = "runtree_time::serde_micros::option", default)]
//!     until: Option<Timestamp>,
//! }
//!
//! let event: Event = serde_json::from_str(r#"{"at": 1750586400000000}"#)?;
//! assert_eq!(event.at.to_string(), "2025-06-22T10:00:00.000000Z");
//! assert_eq!(serde_json::to_string(&event)?, r#"{"at":1750586400000000,"until":null}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::timestamp::Timestamp;

/// Writes the microseconds as an integer.
///
/// # Errors
///
/// Only those of the serializer.
pub fn serialize<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(value.as_unix_micros())
}

/// Reads an integer of microseconds.
///
/// # Errors
///
/// Values that are no integer, and instants out of range.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let micros = i64::deserialize(deserializer)?;
    Timestamp::from_unix_micros(micros).map_err(de::Error::custom)
}

crate::serde_option::option_module!();
