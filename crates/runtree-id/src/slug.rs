//! The readable part of a name, made from whatever text there is.

use std::fmt;

use crate::error::{ParseError, ParseErrorKind};
use crate::text_serde::text_serde;

const WHAT: &str = "a slug";

/// What an empty slug would be.
const FALLBACK: &str = "run";

/// Holds a short readable word for names: `[a-z0-9]` in groups joined by single hyphens.
///
/// A slug is decoration. Different texts may have the same slug; what makes a name unique
/// is the id beside it.
///
/// # Examples
///
/// ```
/// use runtree_id::Slug;
///
/// assert_eq!(Slug::from_text("Fix the *flaky* test!").as_str(), "fix-the-flaky-test");
/// assert_eq!(Slug::from_text("...").as_str(), "run");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(Box<str>);

impl Slug {
    /// The longest slug, in bytes.
    pub const MAX_BYTES: usize = 40;

    /// Makes a slug of any text; never an empty one.
    ///
    /// ASCII letters become lower case, everything else but digits separates groups. What
    /// does not fit is cut between groups where there is a place to.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut slug = String::new();
        let groups = text
            .split(|character: char| !character.is_ascii_alphanumeric())
            .filter(|group| !group.is_empty());
        for group in groups {
            let separator = usize::from(!slug.is_empty());
            let room = Self::MAX_BYTES - slug.len();
            if separator + group.len() > room {
                if slug.is_empty() {
                    slug.push_str(&group[..room]);
                }
                break;
            }
            if separator == 1 {
                slug.push('-');
            }
            slug.push_str(group);
        }
        slug.make_ascii_lowercase();
        if slug.is_empty() {
            slug.push_str(FALLBACK);
        }
        Self(slug.into())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Slug {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({:?})", self.as_str())
    }
}

/// Takes a text that already is a slug.
impl std::str::FromStr for Slug {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = |kind, detail: &'static str| Err(ParseError::new(WHAT, text, kind, detail));
        if text.is_empty() {
            return fail(ParseErrorKind::Empty, "it is empty");
        }
        if text.len() > Self::MAX_BYTES {
            return fail(ParseErrorKind::Length, "it has more than 40 bytes");
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return fail(
                ParseErrorKind::Case,
                "it has upper-case letters; write it in lower case",
            );
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return fail(
                ParseErrorKind::Character,
                "only a-z, 0-9 and hyphens are allowed",
            );
        }
        if text.split('-').any(str::is_empty) {
            return fail(
                ParseErrorKind::Structure,
                "hyphens only stand singly and between letters or digits",
            );
        }
        Ok(Self(text.into()))
    }
}

text_serde!(Slug, "a slug");
