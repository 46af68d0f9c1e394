//! The one place where these commands read their environment.

#![expect(
    clippy::disallowed_methods,
    reason = "a development tool is the host here: it takes its surroundings as they are"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Answers the cargo that runs this program, else the one on the path.
pub(crate) fn cargo() -> OsString {
    variable("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Answers a variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Answers where cargo builds, as cargo itself reads it.
pub(crate) fn target() -> OsString {
    variable("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())
}

/// Finds a program on the search path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Answers the root of the workspace that this program was built from.
pub(crate) fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this package stands two directories below the workspace")
}
