//! The one way in which the texts of this crate are read: canonical or refused.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// What stands in a text for a part that the system did not tell.
pub(crate) const UNKNOWN: &str = "-";

pub(crate) fn invalid(what: &str, text: &str) -> Error {
    // The text may come from anywhere: only its beginning goes into a message, escaped.
    let beginning: String = text.chars().take(64).collect();
    Error::new(ErrorKind::InvalidText, format!("not {what}: {beginning:?}"))
}

/// Reads a part, accepting only the text that the value would be written as.
pub(crate) fn canonical<T: FromStr + fmt::Display>(what: &str, text: &str) -> Result<T> {
    match text.parse::<T>() {
        Ok(value) if value.to_string() == text => Ok(value),
        Ok(_) | Err(_) => Err(invalid(what, text)),
    }
}

/// Reads a part that may be unknown.
pub(crate) fn optional<T: FromStr + fmt::Display>(what: &str, text: &str) -> Result<Option<T>> {
    if text == UNKNOWN {
        return Ok(None);
    }
    canonical(what, text).map(Some)
}

/// Writes a part that may be unknown.
pub(crate) struct OrUnknown<'a, T>(pub(crate) &'a Option<T>);

impl<T: fmt::Display> fmt::Display for OrUnknown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(UNKNOWN),
        }
    }
}

/// Tells whether `text` is a word that is safe between the separators of our texts.
pub(crate) fn is_word(text: &str, max_len: usize) -> bool {
    (1..=max_len).contains(&text.len())
        && text != UNKNOWN
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Gives a type whose text is canonical its serde form: that text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
