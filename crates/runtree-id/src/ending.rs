//! Looking an id up by its last characters, which are the random ones.

use std::fmt;

use crate::base32;
use crate::error::{ParseError, ParseErrorKind};
use crate::text_serde::text_serde;
use crate::typed_id::{Id, IdText};

const WHAT: &str = "the ending of an id";

/// The fewest characters that are worth looking up: 20 random bits.
const MIN_CHARS: usize = 4;

/// The characters of the short form: 40 random bits.
const SHORT_CHARS: usize = 8;

/// Holds the last 4 to 26 characters of an id.
///
/// Up to 12 characters it is random bits only, so that two ids of the same moment differ.
///
/// # Examples
///
/// ```
/// use runtree_id::{IdEnding, IdGenerator};
///
/// let id = IdGenerator::system().run_id()?;
/// assert!(id.short().matches(&id));
/// assert!(id.to_string().ends_with(id.short().as_str()));
/// assert!("abc".parse::<IdEnding>().is_err());
/// # Ok::<(), runtree_id::GenerateError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdEnding {
    // Padded with zero bytes, which no ending contains.
    bytes: [u8; base32::LENGTH],
}

impl IdEnding {
    /// Takes an ending as a person writes it: white space around it and upper case are
    /// forgiven.
    ///
    /// # Errors
    ///
    /// [`ParseError`] when it has fewer than 4 or more than 26 characters, or one that no id
    /// contains.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let fail = |kind, detail: String| Err(ParseError::new(WHAT, text, kind, detail));
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return fail(ParseErrorKind::Empty, "it is empty".to_owned());
        }
        if !(MIN_CHARS..=base32::LENGTH).contains(&trimmed.len()) {
            return fail(
                ParseErrorKind::Length,
                format!(
                    "it should have {MIN_CHARS} to {} characters; a longer one is a whole id",
                    base32::LENGTH
                ),
            );
        }
        let lower = trimmed.to_ascii_lowercase();
        if let Err(error) = base32::decode_short(lower.as_bytes()) {
            return match error {
                base32::Base32Error::Digit { at } => {
                    let at = text.len() - text.trim_start().len() + at;
                    fail(
                        ParseErrorKind::Character,
                        format!("the byte at {at} is not one of 0-9 and a-z without i, l, o, u"),
                    )
                }
                base32::Base32Error::Overflow => fail(
                    ParseErrorKind::Range,
                    "no id has it; the first of 26 characters is at most 7".to_owned(),
                ),
            };
        }
        Ok(Self::from_checked(lower.as_bytes()))
    }

    /// Returns the characters, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length()])
            .expect("because the alphabet is ASCII, checked when it was made")
    }

    /// Returns whether the id ends so.
    #[must_use]
    pub fn matches<I: Id>(&self, id: &I) -> bool {
        id.as_uuid().as_u128() & self.mask() == self.value()
    }

    /// Returns the low bits of a matching id's UUID, as a number.
    ///
    /// With [`mask`](Self::mask) a store can match without knowing the text.
    #[must_use]
    pub fn value(&self) -> u128 {
        base32::decode_short(self.as_str().as_bytes())
            .expect("because the characters were decoded when it was made")
    }

    /// Returns which bits [`value`](Self::value) speaks of: five for each character.
    #[must_use]
    pub fn mask(&self) -> u128 {
        let bits = (0..self.length()).fold(0_u32, |bits, _| bits + 5);
        1_u128.checked_shl(bits).map_or(u128::MAX, |next| next - 1)
    }

    pub(crate) fn short_of(text: &IdText) -> Self {
        let bytes = text.as_str().as_bytes();
        Self::from_checked(&bytes[bytes.len() - SHORT_CHARS..])
    }

    fn from_checked(text: &[u8]) -> Self {
        let mut bytes = [0; base32::LENGTH];
        bytes[..text.len()].copy_from_slice(text);
        Self { bytes }
    }

    fn length(&self) -> usize {
        self.bytes.iter().take_while(|byte| **byte != 0).count()
    }
}

impl fmt::Display for IdEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IdEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdEnding({})", self.as_str())
    }
}

/// Reads it as [`new`](Self::new) does.
impl std::str::FromStr for IdEnding {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}

text_serde!(IdEnding, "the ending of an id");

/// Answers a look-up that may name more than one thing.
///
/// It will not gain variants: none, one and several are all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Exactly one thing matches.
    Found(T),
    /// Nothing matches.
    NotFound,
    /// Several things match; these are candidates, at least two. Ask for a longer ending.
    Ambiguous(Vec<T>),
}

impl<T> Lookup<T> {
    /// Makes the answer from everything that matches.
    pub fn from_matches(matches: impl IntoIterator<Item = T>) -> Self {
        let mut matches: Vec<T> = matches.into_iter().collect();
        match (matches.pop(), matches.is_empty()) {
            (None, _) => Self::NotFound,
            (Some(only), true) => Self::Found(only),
            (Some(last), false) => {
                matches.push(last);
                Self::Ambiguous(matches)
            }
        }
    }

    /// Returns the one thing that matches, if it is one.
    #[must_use]
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(thing) => Some(thing),
            Self::NotFound | Self::Ambiguous(_) => None,
        }
    }

    /// Changes what is in the answer, not how many.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Lookup<U> {
        let mut change = change;
        match self {
            Self::Found(thing) => Lookup::Found(change(thing)),
            Self::NotFound => Lookup::NotFound,
            Self::Ambiguous(things) => Lookup::Ambiguous(things.into_iter().map(change).collect()),
        }
    }
}
