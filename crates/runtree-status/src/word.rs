//! An open word held inline, so that a value of a newer version can be kept byte for byte.

use std::fmt;

/// The longest word, in bytes.
const MAX_BYTES: usize = 32;

/// Holds a word of 1 to 32 bytes of `[a-z0-9_]`, inline and `Copy`.
///
/// It is the form of every open vocabulary of runtree: whatever a newer version writes in
/// this form, an older one reads, orders, lists and writes back unchanged.
///
/// Words are ordered as their bytes.
///
/// # Examples
///
/// ```
/// use runtree_status::Word;
///
/// let word = Word::new("waiting_for_review")?;
/// assert_eq!(word.as_str(), "waiting_for_review");
/// assert!(Word::new("Waiting").is_err());
/// # Ok::<(), runtree_status::WordError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    // Padded with zero bytes, which no word contains: equality, order and hash of the array
    // are those of the text.
    bytes: [u8; MAX_BYTES],
}

impl Word {
    /// Takes a word from text.
    ///
    /// # Errors
    ///
    /// [`WordError`] when the text is empty, longer than 32 bytes, or holds any byte other
    /// than `[a-z0-9_]`. Nothing is trimmed and no case is changed.
    pub fn new(text: &str) -> Result<Self, WordError> {
        if text.is_empty() {
            return Err(WordError::new(WordErrorKind::Empty, text));
        }
        let mut bytes = [0; MAX_BYTES];
        let Some(target) = bytes.get_mut(..text.len()) else {
            return Err(WordError::new(WordErrorKind::TooLong, text));
        };
        if let Some(at) = text.bytes().position(|byte| !is_word_byte(byte)) {
            return Err(WordError::new(WordErrorKind::Character { at }, text));
        }
        target.copy_from_slice(text.as_bytes());
        Ok(Self { bytes })
    }

    /// Makes the word of a literal while compiling; a literal that is no word does not compile.
    pub(crate) const fn known(literal: &'static str) -> Self {
        let text = literal.as_bytes();
        let mut bytes = [0; MAX_BYTES];
        let mut at = 0;
        while at < text.len() {
            assert!(is_word_byte(text[at]), "a known word is a word");
            bytes[at] = text[at];
            at += 1;
        }
        assert!(at > 0, "a known word is a word");
        Self { bytes }
    }

    /// Returns the word as text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        let mut length = 0;
        while length < MAX_BYTES && self.bytes[length] != 0 {
            length += 1;
        }
        match std::str::from_utf8(self.bytes.split_at(length).0) {
            Ok(text) => text,
            Err(_) => panic!("a word holds only ASCII, checked when it was made"),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Word({:?})", self.as_str())
    }
}

impl std::str::FromStr for Word {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// Tells why a text is not a [`Word`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a word: {}", self.preview, self.kind)]
pub struct WordError {
    kind: WordErrorKind,
    preview: String,
}

impl WordError {
    fn new(kind: WordErrorKind, text: &str) -> Self {
        Self {
            kind,
            preview: preview(text),
        }
    }

    /// Returns what was wrong.
    #[must_use]
    pub fn kind(&self) -> WordErrorKind {
        self.kind
    }
}

/// Says what was wrong with a text that should have been a [`Word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WordErrorKind {
    /// The text is empty. Pass a word; where the column may be empty, read it as an option.
    Empty,
    /// The text is longer than 32 bytes. Choose a shorter word; a stored one means that
    /// something other than runtree wrote the column: tell a person.
    TooLong,
    /// A byte is not one of `[a-z0-9_]`. Write the word in lower-case ASCII; a stored one
    /// means that something other than runtree wrote the column: tell a person.
    Character {
        /// Where the byte is, from 0.
        at: usize,
    },
}

impl fmt::Display for WordErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {MAX_BYTES} bytes"),
            Self::Character { at } => {
                write!(
                    f,
                    "the byte at {at} is not a lower-case letter, a digit or an underscore"
                )
            }
        }
    }
}

/// Tells that what a person typed is none of the words of a closed list.
///
/// Its text lists the words that would have been accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not {}; expected one of: {}", self.preview, self.what, self.expected.join(", "))]
pub struct NotOneOf {
    what: &'static str,
    preview: String,
    expected: &'static [&'static str],
}

impl NotOneOf {
    pub(crate) fn new(what: &'static str, text: &str, expected: &'static [&'static str]) -> Self {
        Self {
            what,
            preview: preview(text),
            expected,
        }
    }

    /// Returns the words that would have been accepted.
    #[must_use]
    pub fn expected(&self) -> &'static [&'static str] {
        self.expected
    }
}

/// Quotes at most 40 characters of a value for an error's text, with everything unprintable escaped.
fn preview(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut shown = String::from("\"");
    for (count, character) in text.chars().enumerate() {
        if count == MAX_CHARS {
            shown.push_str("\"...");
            return shown;
        }
        shown.extend(character.escape_debug());
    }
    shown.push('"');
    shown
}

const fn is_word_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')
}
