//! Names of worktree directories that mean the same on every file system.

use std::fmt;
use std::path::Path;

use crate::error::{ParseError, ParseErrorKind};
use crate::slug::Slug;
use crate::text_serde::text_serde;
use crate::typed_id::RunId;

const WHAT: &str = "a directory name";

/// Names a worktree's directory, and with it git's registration of the worktree.
///
/// Lower-case `[a-z0-9._-]`, at most 100 bytes, beginning with a letter or digit. So that it
/// is one name everywhere, whatever file system it meets, these are refused: upper case,
/// `..`, a dot at the end, the ending `.lock`, and the device names of Windows. Git keeps
/// such a name as it is instead of inventing another.
///
/// # Examples
///
/// ```
/// use runtree_id::{DirectoryName, IdGenerator, Slug};
///
/// let id = IdGenerator::system().run_id()?;
/// let name = DirectoryName::for_run(&Slug::from_text("fix tests"), id);
/// assert_eq!(name.as_str(), format!("fix-tests-{id}"));
/// assert_eq!(name.run_id(), Some(id));
/// # Ok::<(), runtree_id::GenerateError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryName(Box<str>);

impl DirectoryName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// Names the directory of a run: `<slug>-<run id>`.
    ///
    /// Different runs have different names, whatever their slugs.
    #[must_use]
    pub fn for_run(slug: &Slug, id: RunId) -> Self {
        Self(format!("{slug}-{id}").into())
    }

    /// Returns the run id at the end of the name, if there is one.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        trailing_run_id(&self.0)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for DirectoryName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<Path> for DirectoryName {
    fn as_ref(&self) -> &Path {
        Path::new(self.as_str())
    }
}

impl fmt::Display for DirectoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for DirectoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryName({:?})", self.as_str())
    }
}

impl std::str::FromStr for DirectoryName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match fault(text) {
            None => Ok(Self(text.into())),
            Some((kind, detail)) => Err(ParseError::new(WHAT, text, kind, detail)),
        }
    }
}

text_serde!(DirectoryName, "a directory name");

/// Returns the run id a name ends with, when it stands there by itself.
pub(crate) fn trailing_run_id(text: &str) -> Option<RunId> {
    let start = text.rfind("run_")?;
    let (before, id) = text.split_at(start);
    if before.ends_with(|last: char| last.is_alphanumeric() || last == '_') {
        return None;
    }
    id.parse().ok()
}

/// Says what is wrong with a name, if anything is.
fn fault(text: &str) -> Option<(ParseErrorKind, &'static str)> {
    if text.is_empty() {
        return Some((ParseErrorKind::Empty, "it is empty"));
    }
    if text.len() > DirectoryName::MAX_BYTES {
        return Some((ParseErrorKind::Length, "it has more than 100 bytes"));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some((
            ParseErrorKind::Case,
            "it has upper-case letters, which some file systems do not tell from lower case",
        ));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !text.bytes().all(is_plain) {
        return Some((
            ParseErrorKind::Character,
            "only a-z, 0-9, dot, underscore and hyphen are allowed",
        ));
    }
    if text.starts_with(['.', '_', '-']) {
        return Some((
            ParseErrorKind::Structure,
            "it should begin with a letter or a digit",
        ));
    }
    if text.ends_with('.') || text.contains("..") {
        return Some((
            ParseErrorKind::Structure,
            "a dot may not stand at the end or beside another",
        ));
    }
    if text.ends_with(".lock") {
        return Some((
            ParseErrorKind::Reserved,
            "names that end in .lock are git's lock files",
        ));
    }
    if is_device_name(text) {
        return Some((ParseErrorKind::Reserved, "Windows takes it for a device"));
    }
    None
}

/// Returns whether Windows takes the name for a device, with or without an extension.
fn is_device_name(text: &str) -> bool {
    let stem = text.split_once('.').map_or(text, |(stem, _)| stem);
    match stem.strip_prefix("com").or(stem.strip_prefix("lpt")) {
        Some(number) => matches!(number.as_bytes(), [b'0'..=b'9']),
        None => matches!(stem, "con" | "prn" | "aux" | "nul"),
    }
}
