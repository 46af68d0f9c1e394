//! Branch names that git accepts and that cannot be mistaken for anything else.

use std::fmt;

use crate::directory::trailing_run_id;
use crate::error::{ParseError, ParseErrorKind};
use crate::slug::Slug;
use crate::text_serde::text_serde;
use crate::typed_id::RunId;

const WHAT: &str = "a branch name";

/// Where branches are among refs.
const HEADS: &str = "refs/heads/";

/// What the names of the branches of runs begin with.
const RUN_PREFIX: &str = "runtree/";

/// Names a branch, without `refs/heads/`.
///
/// A name is accepted exactly when `git check-ref-format --branch` accepts it as it stands
/// and, beyond that, it has at most 200 bytes, no `@{`, and is neither `@` nor `HEAD` in any
/// case, which git resolves to what is checked out.
///
/// The names of [`for_run`](Self::for_run) are of `[a-z0-9_/-]` and mean the same on every
/// file system. A name that a person chose need not: git itself takes `con` or `a|b`, which
/// Windows cannot have as files, and two names that differ only by case are one file on some
/// file systems; [`eq_ignore_case`](Self::eq_ignore_case) finds those.
///
/// # Examples
///
/// ```
/// use runtree_id::{BranchName, IdGenerator, Slug};
///
/// let id = IdGenerator::system().run_id()?;
/// let branch = BranchName::for_run(&Slug::from_text("fix tests"), id);
/// assert_eq!(branch.as_str(), format!("runtree/fix-tests-{id}"));
/// assert_eq!(branch.run_id(), Some(id));
/// assert!("feat/../x".parse::<BranchName>().is_err());
/// # Ok::<(), runtree_id::GenerateError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchName {
    /// With `refs/heads/`, so that both forms are slices of it.
    full: Box<str>,
}

impl BranchName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Names the branch of a run: `runtree/<slug>-<run id>`.
    ///
    /// Different runs have different names, whatever their slugs.
    #[must_use]
    pub fn for_run(slug: &Slug, id: RunId) -> Self {
        Self {
            full: format!("{HEADS}{RUN_PREFIX}{slug}-{id}").into(),
        }
    }

    /// Takes a branch name from a full ref.
    ///
    /// # Errors
    ///
    /// [`ParseError`] when the ref is not below `refs/heads/` or the rest is no branch name.
    pub fn from_full_ref(text: &str) -> Result<Self, ParseError> {
        match text.strip_prefix(HEADS) {
            Some(name) => name.parse(),
            None => Err(ParseError::new(
                WHAT,
                text,
                ParseErrorKind::Prefix,
                "it should begin with refs/heads/",
            )),
        }
    }

    /// Returns the name, without `refs/heads/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full[HEADS.len()..]
    }

    /// Returns the name with `refs/heads/`, which means the branch and nothing else.
    #[must_use]
    pub fn full_ref(&self) -> &str {
        &self.full
    }

    /// Returns the run id at the end of the name, if there is one.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        trailing_run_id(self.as_str())
    }

    /// Returns whether a file system that ignores case may take both names for one.
    ///
    /// It rather says so once too often: `straße` and `STRASSE` are equal here. Accents are
    /// compared as they are written, and characters that show nothing count: where a file
    /// system also takes the two ways of writing `é` for one, or leaves out a soft hyphen,
    /// that is not found.
    #[must_use]
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        // Some letters meet only in upper case: `ſ` and `s`, `ß` and `ss`, `ς` and `σ`; and `ẞ` only
        // the second time, because in lower case it is `ß`.
        let once = |name: &str| name.to_uppercase().to_lowercase();
        let folded = |name: &Self| once(&once(name.as_str()));
        folded(self) == folded(other)
    }
}

impl AsRef<str> for BranchName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BranchName({:?})", self.as_str())
    }
}

impl std::str::FromStr for BranchName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match stricter_fault(text).or_else(|| git_fault(text)) {
            None => Ok(Self {
                full: format!("{HEADS}{text}").into(),
            }),
            Some((kind, detail)) => Err(ParseError::new(WHAT, text, kind, detail)),
        }
    }
}

text_serde!(BranchName, "a branch name");

type Fault = (ParseErrorKind, &'static str);

/// Finds what git would accept and this type does not.
fn stricter_fault(text: &str) -> Option<Fault> {
    if text.len() > BranchName::MAX_BYTES {
        return Some((ParseErrorKind::Length, "it has more than 200 bytes"));
    }
    if text.eq_ignore_ascii_case("HEAD") || text == "@" {
        return Some((
            ParseErrorKind::Reserved,
            "git resolves it to what is checked out",
        ));
    }
    None
}

/// Finds what git refuses: the rules of `git check-ref-format` under `refs/heads/`.
fn git_fault(text: &str) -> Option<Fault> {
    if text.is_empty() {
        return Some((ParseErrorKind::Empty, "it is empty"));
    }
    if text.starts_with('-') {
        return Some((
            ParseErrorKind::Structure,
            "a leading hyphen makes it an option of programs",
        ));
    }
    let is_refused = |byte: u8| {
        byte.is_ascii_control()
            || matches!(byte, b' ' | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\')
    };
    if text.bytes().any(is_refused) {
        return Some((
            ParseErrorKind::Character,
            "spaces, control characters and ~ ^ : ? * [ \\ are not allowed",
        ));
    }
    if text.contains("..") || text.contains("@{") {
        return Some((
            ParseErrorKind::Structure,
            "neither .. nor @{ may be part of it: both have a meaning of their own",
        ));
    }
    if text.ends_with('.') {
        return Some((ParseErrorKind::Structure, "it may not end with a dot"));
    }
    text.split('/').find_map(component_fault)
}

/// Finds what git refuses of the parts between slashes.
fn component_fault(component: &str) -> Option<Fault> {
    let detail = if component.is_empty() {
        "slashes may only stand singly and between other characters"
    } else if component.starts_with('.') {
        "no part of it may begin with a dot"
    } else if component.ends_with(".lock") {
        "no part of it may end in .lock, which are git's lock files"
    } else {
        return None;
    };
    Some((ParseErrorKind::Structure, detail))
}
