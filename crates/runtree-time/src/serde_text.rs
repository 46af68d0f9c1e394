//! The default forms in serde: strict text for an instant, two of them for a range.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    normalizer::Normalizer,
    range::{TimeRange, TimeRangeError},
    timestamp::Timestamp,
};

impl Serialize for Timestamp {
    /// Writes the canonical 27 bytes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// Reads a text under the strict profile.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(Normalizer::strict()))
    }
}

/// Reads a text under the rules it is given.
pub(crate) struct TextVisitor(pub(crate) Normalizer);

impl de::Visitor<'_> for TextVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timestamp such as \"2025-06-22T10:00:00Z\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        self.0.parse(text).map_err(E::custom)
    }
}

impl Serialize for TimeRange {
    /// Writes `start` and `end`, each null where it does not bound.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Bounds {
            start: self.start(),
            end: self.end(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TimeRange {
    /// Reads `start` and `end`; one that is null or absent does not bound.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bounds = Bounds::deserialize(deserializer)?;
        Self::try_from(bounds).map_err(de::Error::custom)
    }
}

/// The fields of a range before they are known to be in order.
#[derive(Serialize, Deserialize)]
#[serde(rename = "TimeRange", deny_unknown_fields)]
struct Bounds {
    #[serde(default)]
    start: Option<Timestamp>,
    #[serde(default)]
    end: Option<Timestamp>,
}

impl TryFrom<Bounds> for TimeRange {
    type Error = TimeRangeError;

    fn try_from(bounds: Bounds) -> Result<Self, TimeRangeError> {
        match (bounds.start, bounds.end) {
            (Some(start), Some(end)) => Self::between(start, end),
            (Some(start), None) => Ok(Self::since(start)),
            (None, Some(end)) => Ok(Self::before(end)),
            (None, None) => Ok(Self::all()),
        }
    }
}
