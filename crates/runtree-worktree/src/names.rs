//! The small texts this crate is handed: who owns a worktree, who holds its lock, why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result, WorktreeError};

/// Makes a validated text type; every way in goes through its `new`.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::InvalidInput`] when the text does not have the form the type's documentation states.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    return Ok(Self(text));
                }
                let preview: String = text.chars().take(40).collect();
                Err(WorktreeError::new(
                    ErrorKind::InvalidInput,
                    format!(concat!("not ", $what, ": {:?}"), preview),
                ))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = WorktreeError;

            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    };
}

text!(
    /// The token under which a worktree is made and may be removed: 1 to 128 of `[A-Za-z0-9_./:-]`.
    ///
    /// It is opaque here; a caller might use `<run id>/<attempt>`.
    Ownership,
    "an ownership token (1 to 128 of A-Za-z0-9_./:-)",
    |text| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte))
    }
);

text!(
    /// Who holds the lock of a worktree, in the caller's words: 1 to 256 printable ASCII characters.
    ///
    /// It should be enough to prove the holder dead later: host, boot id, process id and start time.
    LockHolder,
    "a lock holder (1 to 256 printable ASCII characters)",
    |text| (1..=256).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
);

text!(
    /// Why a worktree exists, for people who meet its lock: one line of at most 200 bytes, perhaps empty.
    Reason,
    "a reason (one line of at most 200 bytes)",
    |text| text.len() <= 200 && !text.chars().any(char::is_control)
);

text!(
    /// The full name of a salvage reference: `refs/runtree/salvage/` and a safe last part.
    SalvageRef,
    "a salvage reference (refs/runtree/salvage/<name>)",
    |text| text.strip_prefix(SalvageRef::PREFIX).is_some_and(|rest| {
        (1..=220).contains(&rest.len())
            && !rest.starts_with('.')
            && !rest.ends_with('.')
            && !rest.ends_with(".lock")
            && !rest.contains("..")
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    })
);

impl LockHolder {
    /// Returns the holder of a caller that did not name itself; nobody can prove it dead.
    #[must_use]
    pub fn unnamed() -> Self {
        Self("unnamed".to_owned())
    }
}

impl Reason {
    /// Returns the empty reason.
    #[must_use]
    pub fn none() -> Self {
        Self(String::new())
    }
}

impl SalvageRef {
    /// What every salvage reference begins with.
    pub const PREFIX: &str = "refs/runtree/salvage/";

    /// Derives the reference for a worktree's name, the `number`th of that name.
    pub(crate) fn for_name(name: &str, number: u32) -> Result<Self> {
        let mut safe: String = name
            .chars()
            .map(|char| match char {
                'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' => char,
                _ => '-',
            })
            .take(200)
            .collect();
        if number > 1 {
            safe.push_str(&format!(".{number}"));
        }
        Self::new(format!("{}{safe}", Self::PREFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ownership_takes_its_alphabet_and_nothing_else() {
        assert!(Ownership::new("run_0abc/3").is_ok());
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(129)] {
            let error = Ownership::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn salvage_references_are_made_safe() {
        assert_eq!(
            SalvageRef::for_name("fix.lock", 1).unwrap().as_str(),
            "refs/runtree/salvage/fix-lock"
        );
        assert_eq!(
            SalvageRef::for_name("a", 2).unwrap().as_str(),
            "refs/runtree/salvage/a.2"
        );
        for bad in [
            "refs/heads/main",
            "refs/runtree/salvage/",
            "refs/runtree/salvage/a/b",
            "refs/runtree/salvage/a..b",
        ] {
            assert!(SalvageRef::new(bad).is_err(), "{bad}");
        }
    }
}
