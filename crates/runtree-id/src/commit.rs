//! The name of a commit, in git's own notation.

use std::fmt;

use crate::error::{ParseError, ParseErrorKind};
use crate::text_serde::text_serde;

const WHAT: &str = "a commit id";

/// The digits of a SHA-1 name.
const SHA1_DIGITS: usize = 40;

/// The digits of a SHA-256 name.
const SHA256_DIGITS: usize = 64;

/// Names a commit: 40 or 64 lower-case hexadecimal digits, not all zero.
///
/// The name with only zeros is git's word for "none" and is refused; use an `Option`.
///
/// # Examples
///
/// ```
/// use runtree_id::CommitId;
///
/// let id: CommitId = "9fceb02d0ae598e95dc970b74767f19372d61af8".parse()?;
/// assert_eq!(id.as_str().len(), 40);
/// assert!("9fceb02".parse::<CommitId>().is_err());
/// # Ok::<(), runtree_id::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId {
    // A SHA-1 name is padded with zero bytes, which no name contains.
    digits: [u8; SHA256_DIGITS],
}

impl CommitId {
    /// Returns the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = if self.digits[SHA1_DIGITS] == 0 {
            SHA1_DIGITS
        } else {
            SHA256_DIGITS
        };
        std::str::from_utf8(&self.digits[..length])
            .expect("because the digits are ASCII, checked when it was made")
    }
}

impl AsRef<str> for CommitId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitId({})", self.as_str())
    }
}

impl std::str::FromStr for CommitId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = |kind, detail: &'static str| Err(ParseError::new(WHAT, text, kind, detail));
        if text.is_empty() {
            return fail(ParseErrorKind::Empty, "it is empty");
        }
        if text.len() != SHA1_DIGITS && text.len() != SHA256_DIGITS {
            return fail(
                ParseErrorKind::Length,
                "it should have 40 or 64 digits; abbreviations are resolved by git",
            );
        }
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return fail(
                ParseErrorKind::Character,
                "only hexadecimal digits are allowed",
            );
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return fail(
                ParseErrorKind::Case,
                "it has upper-case letters; write it in lower case",
            );
        }
        if text.bytes().all(|byte| byte == b'0') {
            return fail(
                ParseErrorKind::Reserved,
                "only zeros stand for no commit at all",
            );
        }
        let mut digits = [0; SHA256_DIGITS];
        digits[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { digits })
    }
}

text_serde!(CommitId, "a commit id");
