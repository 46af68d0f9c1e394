//! Identifiers of other systems, kept as they are and never trusted.

use std::fmt;

use crate::error::{ParseError, ParseErrorKind};
use crate::text_serde::text_serde;

const WHAT: &str = "an external reference";

/// Holds what another system calls something: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, no `..`.
///
/// It is never part of a path or a ref, nor an argument of a program without `--` before it.
///
/// # Examples
///
/// ```
/// use runtree_id::ExternalRef;
///
/// let ticket: ExternalRef = "PROJ-1234".parse()?;
/// assert_eq!(ticket.as_str(), "PROJ-1234");
/// assert!("../PROJ".parse::<ExternalRef>().is_err());
/// # Ok::<(), runtree_id::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalRef(Box<str>);

impl ExternalRef {
    /// The longest reference, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ExternalRef {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ExternalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ExternalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalRef({:?})", self.as_str())
    }
}

impl std::str::FromStr for ExternalRef {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = |kind, detail: String| Err(ParseError::new(WHAT, text, kind, detail));
        if text.is_empty() {
            return fail(ParseErrorKind::Empty, "it is empty".to_owned());
        }
        if text.len() > Self::MAX_BYTES {
            return fail(
                ParseErrorKind::Length,
                format!(
                    "it has {} bytes; at most {} are allowed",
                    text.len(),
                    Self::MAX_BYTES
                ),
            );
        }
        let wrong = text.bytes().enumerate().find(|(at, byte)| {
            let is_inner = *at > 0 && matches!(byte, b'.' | b'_' | b'-');
            !byte.is_ascii_alphanumeric() && !is_inner
        });
        if let Some((at, _)) = wrong {
            return fail(
                ParseErrorKind::Character,
                format!(
                    "the byte at {at} has no place there; letters and digits do, after the first also . _ -"
                ),
            );
        }
        if text.contains("..") {
            return fail(
                ParseErrorKind::Structure,
                "two dots may not follow each other".to_owned(),
            );
        }
        Ok(Self(text.into()))
    }
}

text_serde!(ExternalRef, "an external reference");
