//! Bounded text types, so that no record holds a text nobody checked.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, RepositoryError};

/// What a text may consist of.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One line: no control characters.
    Line,
    /// Several lines: anything but NUL, which PostgreSQL cannot store.
    Block,
}

fn check(
    what: &'static str,
    shape: Shape,
    limit: usize,
    text: &str,
) -> Result<(), RepositoryError> {
    let refuse = |why: String| {
        Err(RepositoryError::new(
            ErrorKind::InvalidInput,
            format!("{what} {why}"),
        ))
    };
    if text.is_empty() {
        return refuse("is empty".to_owned());
    }
    if text.len() > limit {
        return refuse(format!(
            "has {} bytes, at most {limit} are allowed",
            text.len()
        ));
    }
    let bad = text.char_indices().find(|(_, c)| match shape {
        Shape::Line => c.is_control(),
        Shape::Block => *c == '\0',
    });
    match bad {
        Some((at, c)) => refuse(format!(
            "holds the character {c:?} at byte {at}, which is not allowed"
        )),
        None => Ok(()),
    }
}

macro_rules! text_types {
    ($($(#[$doc:meta])* $name:ident = $what:literal, $shape:ident, $limit:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The most bytes that this text may have.
            pub const MAX_BYTES: usize = $limit;

            /// Checks the text and keeps it.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`] when the text is empty, too long, or holds a character that is not allowed.
            pub fn new(text: impl Into<String>) -> Result<Self, RepositoryError> {
                let text = text.into();
                check($what, Shape::$shape, Self::MAX_BYTES, &text)?;
                Ok(Self(text))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = RepositoryError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = RepositoryError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

text_types! {
    /// Separates the runs of one tenant from those of another in one database.
    Namespace = "the namespace", Line, 64;
    /// The name of what a run executes, such as `builder` or `review`.
    WorkflowName = "the workflow name", Line, 128;
    /// The name of a queue: what workers choose to take runs from.
    QueueName = "the queue name", Line, 64;
    /// Something of which only so many runs may use at once, such as an account or a machine.
    ConcurrencyKey = "the concurrency key", Line, 255;
    /// A word that runs are found by.
    Tag = "the tag", Line, 64;
    /// What kind of agent does the work, in the host application's own terms.
    AgentType = "the agent type", Line, 128;
    /// The model that an agent uses.
    ModelName = "the model name", Line, 128;
    /// What people call a session.
    SessionName = "the session name", Line, 255;
    /// A git repository as the host application names it: a URL, a path, a short name.
    GitRepositoryName = "the git repository", Line, 4_096;
    /// A changed file, from the top of the working tree; bytes that are no UTF-8 are replaced by whoever made the text.
    ChangedPath = "the changed path", Block, 4_096;
    /// What makes two create requests the same request.
    IdempotencyKey = "the idempotency key", Line, 255;
    /// Something that at most one run that has not ended may hold.
    UniqueKey = "the unique key", Line, 255;
    /// Whom a run belongs to, in the host application's own terms.
    UserId = "the user id", Line, 255;
    /// The task that a run is given.
    RunInput = "the input", Block, 1_048_576;
    /// The machine that an owner or a worktree lives on.
    HostName = "the host name", Line, 255;
    /// A process, written so that its death can be proven (`runtree-process` writes and reads it).
    ProcessMark = "the process mark", Line, 255;
    /// Who asked for something: a user, a service, a signal.
    Actor = "the actor", Line, 255;
    /// Why something was asked for or decided.
    Reason = "the reason", Block, 2_000;
    /// What went wrong in a run, for people.
    ErrorText = "the error text", Block, 65_536;
    /// An absolute path on the host that it belongs to.
    HostPath = "the path", Line, 4_096;
    /// The full name of a ref that holds what was saved from a worktree.
    SalvageRef = "the salvage ref", Line, 512;
}

impl Default for QueueName {
    /// The queue `default`.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

macro_rules! lossy {
    ($($name:ident = $nothing:literal;)*) => {$(
        impl $name {
            #[doc = concat!("Makes the text of anything: NUL becomes `U+FFFD`, what is too long is cut and says so, nothing is said as `", $nothing, "`.")]
            ///
            /// An ending must never be refused because it is too long to tell why.
            pub fn lossy(text: &str) -> Self {
                Self(lossy(text, $nothing, Self::MAX_BYTES))
            }
        }
    )*};
}

lossy! {
    ErrorText = "no error text";
    Reason = "no reason";
}

fn lossy(text: &str, nothing: &str, limit: usize) -> String {
    const CUT: &str = " [cut]";
    if text.is_empty() {
        return nothing.to_owned();
    }
    let mut text = text.replace('\0', "\u{fffd}");
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit - CUT.len()));
        text.push_str(CUT);
    }
    text
}

impl HostPath {
    /// Keeps a path of this host.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the path is not absolute, not UTF-8, or not one line: databases store it as text.
    pub fn from_path(path: &std::path::Path) -> Result<Self, RepositoryError> {
        let refuse = |why: &str| {
            let preview = path.display();
            Err(RepositoryError::new(
                ErrorKind::InvalidInput,
                format!("the path {preview:?} is not {why}"),
            ))
        };
        if !path.is_absolute() {
            return refuse("absolute");
        }
        match path.to_str() {
            Some(text) => Self::new(text),
            None => refuse("valid UTF-8"),
        }
    }

    /// Returns the path.
    pub fn as_path(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_refused_with_its_name_and_the_reason() {
        let error = WorkflowName::new("a\nb").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            r"the workflow name holds the character '\n' at byte 1, which is not allowed"
        );
        assert_eq!(
            Namespace::new("").unwrap_err().to_string(),
            "the namespace is empty"
        );
        assert_eq!(
            Namespace::new("n".repeat(65)).unwrap_err().to_string(),
            "the namespace has 65 bytes, at most 64 are allowed"
        );
        assert!(RunInput::new("two\nlines").is_ok());
        assert!(RunInput::new("a\0b").is_err());
    }

    #[test]
    fn an_error_text_is_made_of_anything() {
        assert_eq!(ErrorText::lossy("").as_str(), "no error text");
        assert_eq!(ErrorText::lossy("a\0b").as_str(), "a\u{fffd}b");
        let long = ErrorText::lossy(&"ä".repeat(40_000));
        assert!(long.as_str().len() <= ErrorText::MAX_BYTES);
        assert!(long.as_str().ends_with("ä [cut]"));
        assert!(ErrorText::new(long.as_str()).is_ok());
    }

    #[test]
    fn a_path_is_absolute_text() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        use std::path::Path;
        assert!(HostPath::from_path(Path::new("relative")).is_err());
        assert!(HostPath::from_path(Path::new(OsStr::from_bytes(b"/a\xff"))).is_err());
        assert_eq!(
            HostPath::from_path(Path::new("/a/b")).unwrap().as_path(),
            Path::new("/a/b")
        );
    }
}
