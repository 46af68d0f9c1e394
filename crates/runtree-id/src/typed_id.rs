//! Ids with a prefix that says what they name, over UUIDs that sort by time.

use std::fmt;

use runtree_time::Timestamp;
use uuid::{Uuid, Variant};

use crate::base32::{self, Base32Error};
use crate::ending::IdEnding;
use crate::error::{ParseError, ParseErrorKind};
use crate::text_serde::text_serde;

/// The length of a prefix, the underscore and 26 characters.
const TEXT_BYTES: usize = PREFIX_BYTES + 1 + base32::LENGTH;

/// The length of a prefix. All are alike, so that the text fits one array.
const PREFIX_BYTES: usize = 3;

/// The longest text the tolerant reader looks at.
const HUMAN_TEXT_BYTES: usize = 128;

/// Is implemented by the id types of this crate, and by nothing else.
///
/// Code that works for any of them is written over this trait.
pub trait Id:
    Copy + Ord + std::hash::Hash + fmt::Debug + fmt::Display + Send + Sync + sealed::Sealed
{
    /// What the text begins with, before the underscore.
    const PREFIX: &'static str;

    /// Takes an id from a UUID.
    ///
    /// # Errors
    ///
    /// [`ParseError`] when the UUID is not version 7 of the RFC 9562 variant, or its instant
    /// lies past the year 9999.
    fn from_uuid(uuid: Uuid) -> Result<Self, ParseError>;

    /// Returns the UUID.
    fn as_uuid(&self) -> &Uuid;

    /// Returns the canonical text, on the stack.
    fn to_text(self) -> IdText;
}

/// Holds the canonical text of an id, on the stack; dereferences to `str`.
// Aligned, and filled up with ASCII that is never shown: the standard library checks whether bytes are text by two aligned words
// at once, and what is left over byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct IdText([[u8; 8]; 4]);

impl IdText {
    /// Returns the text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        let filled = std::str::from_utf8(self.0.as_flattened())
            .expect("because prefix and alphabet are ASCII");
        &filled[..TEXT_BYTES]
    }
}

impl std::ops::Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for IdText {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

pub(crate) mod sealed {
    /// Keeps [`Id`](super::Id) to this crate and gives its generator the unchecked way in.
    pub trait Sealed {
        /// Wraps a UUID that the generator made, which is correct by construction.
        fn from_generated(uuid: uuid::Uuid) -> Self;
    }
}

macro_rules! typed_id {
    (
        what = $what:literal, prefix = $prefix:literal;
        $(#[$meta:meta])*
        pub struct $name:ident;
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Takes an id from a UUID.
            ///
            /// # Errors
            ///
            /// [`ParseError`] when the UUID is not version 7 of the RFC 9562 variant, or its
            /// instant lies past the year 9999.
            pub fn from_uuid(uuid: Uuid) -> Result<Self, ParseError> {
                check($what, uuid).map(Self)
            }

            /// Takes an id from the 16 bytes that [`as_bytes`](Self::as_bytes) returns.
            ///
            /// # Errors
            ///
            /// As [`from_uuid`](Self::from_uuid).
            pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, ParseError> {
                Self::from_uuid(Uuid::from_bytes(bytes))
            }

            /// Takes an id as a person may write it.
            ///
            /// White space anywhere and upper case are forgiven, and the hyphenated UUID is
            /// understood as well.
            ///
            /// # Errors
            ///
            /// [`ParseError`] when even so it is not such an id.
            pub fn parse_human(text: &str) -> Result<Self, ParseError> {
                let plain = plain_text($what, $prefix, text)?;
                let read = match Uuid::try_parse(&plain) {
                    Ok(uuid) if plain.len() == uuid::fmt::Hyphenated::LENGTH => {
                        Self::from_uuid(uuid)
                    }
                    Ok(_) => Err(other_uuid($what, text)),
                    Err(_) => plain.parse(),
                };
                read.map_err(|error| error.of_typed(text, &plain))
            }

            /// Returns the UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// Returns the 16 bytes, whose order is the order of the ids.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Returns the canonical text, on the stack.
            #[inline]
            #[must_use]
            pub fn to_text(self) -> IdText {
                encode($prefix, self.0)
            }

            /// Returns the canonical text, which is what `Display` writes, without the detour
            /// that formatting takes.
            #[inline]
            #[must_use]
            pub fn to_string(&self) -> String {
                String::from(*self)
            }

            /// Returns when the id was made, to the millisecond.
            #[must_use]
            pub fn timestamp(&self) -> Timestamp {
                timestamp(self.0).expect("because every constructor checks the instant")
            }

            /// Returns the short form for people: the last 8 characters, 40 random bits.
            ///
            /// Never a prefix: the first characters of ids that sort by time are the clock.
            #[must_use]
            pub fn short(&self) -> IdEnding {
                IdEnding::short_of(&self.to_text())
            }
        }

        impl Id for $name {
            const PREFIX: &'static str = $prefix;

            fn from_uuid(uuid: Uuid) -> Result<Self, ParseError> {
                Self::from_uuid(uuid)
            }

            fn as_uuid(&self) -> &Uuid {
                self.as_uuid()
            }

            fn to_text(self) -> IdText {
                self.to_text()
            }
        }

        impl sealed::Sealed for $name {
            fn from_generated(uuid: Uuid) -> Self {
                debug_assert!(check($what, uuid).is_ok(), "{uuid} is such an id");
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.to_text().as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_text().as_str())
            }
        }

        impl From<$name> for String {
            /// Returns the canonical text, without the detour that formatting takes.
            #[inline]
            fn from(id: $name) -> Self {
                id.to_text().as_str().to_owned()
            }
        }

        /// Reads the canonical text and nothing else.
        impl std::str::FromStr for $name {
            type Err = ParseError;

            /// Reads the canonical text.
            ///
            /// # Errors
            ///
            /// [`ParseError`] for any other text; its kind says what is wrong. What a person
            /// typed is read by [`parse_human`](Self::parse_human).
            #[inline]
            fn from_str(text: &str) -> Result<Self, ParseError> {
                match decode($prefix, text) {
                    Some(uuid) if is_id(uuid) => Ok(Self(uuid)),
                    Some(_) | None => Err(refusal($what, $prefix, text)),
                }
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl TryFrom<Uuid> for $name {
            type Error = ParseError;

            fn try_from(uuid: Uuid) -> Result<Self, ParseError> {
                Self::from_uuid(uuid)
            }
        }

        text_serde!($name, $what);
    };
}

typed_id! {
    what = "a run id", prefix = "run";
    /// Names a run: `run_` and 26 characters, 30 in all, that sort by time.
    ///
    /// It holds a UUID of version 7. The text is safe in file names, refs and addresses,
    /// sorts by time in every collation, and is selected by a double click.
    ///
    /// # Examples
    ///
    /// ```
    /// use runtree_id::{IdGenerator, RunId};
    ///
    /// let id = IdGenerator::system().run_id()?;
    /// assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
    /// assert_eq!(RunId::parse_human(&format!(" {} ", id.as_uuid())), Ok(id));
    /// # Ok::<(), runtree_id::GenerateError>(())
    /// ```
    pub struct RunId;
}

typed_id! {
    what = "an owner id", prefix = "own";
    /// Names one owner: a process, for as long as it lives.
    pub struct OwnerId;
}

/// The last millisecond of the year 9999.
const LAST_MILLI: u128 = Timestamp::MAX.as_unix_micros().unsigned_abs() as u128 / 1000;

/// Checks version, variant and instant.
#[inline]
fn check(what: &'static str, uuid: Uuid) -> Result<Uuid, ParseError> {
    if is_id(uuid) {
        Ok(uuid)
    } else {
        Err(no_id(what, uuid))
    }
}

#[inline]
fn is_id(uuid: Uuid) -> bool {
    has_version(uuid) && uuid.as_u128() >> 80 <= LAST_MILLI
}

#[inline]
fn has_version(uuid: Uuid) -> bool {
    uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122
}

/// Says why a UUID is no id, which is known.
#[cold]
fn no_id(what: &'static str, uuid: Uuid) -> ParseError {
    if has_version(uuid) {
        ParseError::new(
            what,
            uuid,
            ParseErrorKind::Range,
            "its instant lies past the year 9999",
        )
    } else {
        ParseError::new(
            what,
            uuid,
            ParseErrorKind::Version,
            "only UUIDs of version 7 and the RFC 9562 variant are",
        )
    }
}

/// Returns the instant in the first 48 bits.
fn timestamp(uuid: Uuid) -> Option<Timestamp> {
    let millis = i64::try_from(uuid.as_u128() >> 80).ok()?;
    Timestamp::from_unix_millis(millis).ok()
}

#[inline]
fn encode(prefix: &str, uuid: Uuid) -> IdText {
    let mut head = [b'_'; PREFIX_BYTES + 1];
    head[..PREFIX_BYTES].copy_from_slice(prefix.as_bytes());
    IdText(base32::encode(head, uuid.as_u128()))
}

/// Reads a text; whether the UUID is an id is not looked at.
#[inline]
fn decode(prefix: &str, text: &str) -> Option<Uuid> {
    let digits = digits(prefix, text)?;
    base32::decode(digits).ok().map(Uuid::from_u128)
}

/// Returns the characters after the prefix, of a text of the right length.
#[inline]
fn digits<'a>(prefix: &str, text: &'a str) -> Option<&'a [u8; base32::LENGTH]> {
    let text: &[u8; TEXT_BYTES] = text.as_bytes().try_into().ok()?;
    let (head, digits) = text.split_first_chunk::<PREFIX_BYTES>()?;
    let (underscore, digits) = digits.split_first()?;
    let is_prefix = head.as_slice() == prefix.as_bytes() && *underscore == b'_';
    digits.try_into().ok().filter(|_| is_prefix)
}

/// Says what is wrong with a text that is known to be wrong.
#[cold]
fn refusal(what: &'static str, prefix: &str, text: &str) -> ParseError {
    let fail = |kind, detail: String| ParseError::new(what, text, kind, detail);
    if text.is_empty() {
        return fail(ParseErrorKind::Empty, "it is empty".to_owned());
    }
    if text.len() != TEXT_BYTES {
        let length = text.len();
        return fail(
            ParseErrorKind::Length,
            format!(
                "it has {length} bytes; it should be {prefix}_ and {} characters",
                base32::LENGTH
            ),
        );
    }
    let Some(digits) = digits(prefix, text) else {
        return fail(
            ParseErrorKind::Prefix,
            format!("it should begin with {prefix}_ in lower case"),
        );
    };
    match base32::decode(digits) {
        Err(Base32Error::Digit { at })
            if digits
                .iter()
                .all(|byte| base32::digit(byte.to_ascii_lowercase()).is_some()) =>
        {
            fail(
                ParseErrorKind::Case,
                format!(
                    "it has an upper-case letter at byte {}; write it in lower case",
                    at + PREFIX_BYTES + 1
                ),
            )
        }
        Err(Base32Error::Digit { at }) => fail(
            ParseErrorKind::Character,
            format!(
                "the byte at {} is not one of 0-9 and a-z without i, l, o, u",
                at + PREFIX_BYTES + 1
            ),
        ),
        Err(Base32Error::Overflow) => fail(
            ParseErrorKind::Range,
            "it stands for more than 128 bits; the first character is at most 7".to_owned(),
        ),
        Ok(number) => no_id(what, Uuid::from_u128(number)),
    }
}

/// The error of a UUID in another spelling than the one with hyphens.
#[cold]
fn other_uuid(what: &'static str, text: &str) -> ParseError {
    ParseError::new(
        what,
        text,
        ParseErrorKind::Form,
        "it is a UUID in another form; write it as 8-4-4-4-12 digits",
    )
}

/// Removes what a person may add: white space and upper case.
fn plain_text(what: &'static str, prefix: &str, text: &str) -> Result<String, ParseError> {
    if text.len() > HUMAN_TEXT_BYTES {
        return Err(ParseError::new(
            what,
            text,
            ParseErrorKind::Length,
            format!(
                "it has {} bytes; it should be {prefix}_ and {} characters, or a UUID with hyphens",
                text.len(),
                base32::LENGTH
            ),
        ));
    }
    let kept = text.chars().filter(|character| !character.is_whitespace());
    Ok(kept
        .map(|character| character.to_ascii_lowercase())
        .collect())
}
