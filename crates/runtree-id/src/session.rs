//! The identifier of a session in the host's world, in one notation.

use std::fmt;

use uuid::Uuid;

use crate::error::{ParseError, ParseErrorKind};
use crate::text_serde::text_serde;

const WHAT: &str = "a session id";

/// Names a session of the host: a hyphenated UUID, any case in, lower case out.
///
/// The nil and the max UUID are refused, because they stand for "none" and "all" elsewhere,
/// and so are the other notations of a UUID: one session has one text. Bad input is always
/// an error, never "no session".
///
/// # Examples
///
/// ```
/// use runtree_id::{ParseErrorKind, SessionId};
///
/// let id: SessionId = "0194F3B2-6D1A-7C3E-9A55-0D2B8C4E6F10".parse()?;
/// assert_eq!(id.to_string(), "0194f3b2-6d1a-7c3e-9a55-0d2b8c4e6f10");
///
/// let braced = "{0194f3b2-6d1a-7c3e-9a55-0d2b8c4e6f10}".parse::<SessionId>();
/// assert_eq!(braced.unwrap_err().kind(), ParseErrorKind::Form);
/// # Ok::<(), runtree_id::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Takes a session id from a UUID of any version.
    ///
    /// # Errors
    ///
    /// [`ParseError`] when it is the nil or the max UUID.
    pub fn from_uuid(uuid: Uuid) -> Result<Self, ParseError> {
        let reason = if uuid.is_nil() {
            "the nil UUID names no session"
        } else if uuid.is_max() {
            "the max UUID names no session"
        } else {
            return Ok(Self(uuid));
        };
        Err(ParseError::new(
            WHAT,
            uuid,
            ParseErrorKind::Reserved,
            reason,
        ))
    }

    /// Returns the UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = Uuid::encode_buffer();
        f.pad(self.0.hyphenated().encode_lower(&mut buffer))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for SessionId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;
        let fail = |kind, detail: String| Err(ParseError::new(WHAT, text, kind, detail));
        if text.is_empty() {
            return fail(ParseErrorKind::Empty, "it is empty".to_owned());
        }
        if text.len() != LENGTH {
            return match other_notation(text) {
                Some(notation) => fail(
                    ParseErrorKind::Form,
                    format!("it is a UUID {notation}; write it as 8-4-4-4-12 digits"),
                ),
                None => fail(
                    ParseErrorKind::Length,
                    format!(
                        "it has {} bytes; a hyphenated UUID has {LENGTH}",
                        text.len()
                    ),
                ),
            };
        }
        let wrong = text.bytes().enumerate().find(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte != b'-',
            _ => !byte.is_ascii_hexdigit(),
        });
        if let Some((at, _)) = wrong {
            return fail(
                ParseErrorKind::Character,
                format!(
                    "the byte at {at} has no place there; it should be 8-4-4-4-12 hexadecimal digits"
                ),
            );
        }
        match Uuid::try_parse(text) {
            Ok(uuid) => Self::from_uuid(uuid),
            Err(error) => fail(ParseErrorKind::Character, error.to_string()),
        }
    }
}

impl From<SessionId> for Uuid {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl TryFrom<Uuid> for SessionId {
    type Error = ParseError;

    fn try_from(uuid: Uuid) -> Result<Self, ParseError> {
        Self::from_uuid(uuid)
    }
}

text_serde!(SessionId, "a hyphenated UUID");

/// Names the notation of a UUID that is not hyphenated.
fn other_notation(text: &str) -> Option<&'static str> {
    Uuid::try_parse(text).ok()?;
    Some(match text.as_bytes() {
        [b'{', ..] => "in braces",
        [b'u' | b'U', ..] => "with the prefix urn:uuid:",
        _ => "without hyphens",
    })
}
