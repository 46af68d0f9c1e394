//! One error for every text that is not what it should be.

use std::borrow::Cow;
use std::fmt;

/// Tells why a text or a value is not the id or name it should be.
///
/// The text of the error quotes the value, says what is wrong with it and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{preview} is not {what}: {detail}")]
pub struct ParseError {
    what: &'static str,
    kind: ParseErrorKind,
    preview: String,
    detail: Cow<'static, str>,
}

impl ParseError {
    pub(crate) fn new(
        what: &'static str,
        value: impl fmt::Display,
        kind: ParseErrorKind,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            what,
            kind,
            preview: preview(&value.to_string()),
            detail: detail.into(),
        }
    }

    /// Makes the error one of the text that a person typed, of which only `plain` was read.
    pub(crate) fn of_typed(self, typed: &str, plain: &str) -> Self {
        if typed == plain {
            return self;
        }
        let detail = format!("without white space and in lower case, {}", self.detail);
        Self {
            preview: preview(typed),
            detail: detail.into(),
            ..self
        }
    }

    /// Returns what was wrong.
    #[must_use]
    pub fn kind(&self) -> ParseErrorKind {
        self.kind
    }
}

/// Says what was wrong with a text or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// It is empty. Ask for a value; where none is allowed, pass an `Option` instead.
    Empty,
    /// It is too short or too long. Check that it was copied whole.
    Length,
    /// It does not begin with the prefix of its type. Check that it is an id of this type.
    Prefix,
    /// It holds a character that has no place there. Remove or replace the character.
    Character,
    /// It has upper-case letters where only lower case is canonical. Write it in lower case,
    /// or use the tolerant reader if a person typed it.
    Case,
    /// It stands for a number or an instant that the type cannot hold. It was not made by
    /// runtree: look for where it came from.
    Range,
    /// It is a UUID, but not of the version or variant that the type requires. It was not
    /// made by runtree: look for where it came from.
    Version,
    /// It is well formed for another notation of the same thing. Convert it to the one notation
    /// that the error names.
    Form,
    /// It is a name that another program or an operating system gives a meaning of its own.
    /// Choose another name.
    Reserved,
    /// Its parts are each allowed but may not stand in this order. Change it as the error
    /// says.
    Structure,
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
