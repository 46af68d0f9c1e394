//! git's registry of worktrees, read as git reads it, and whose branch is checked out where.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind as IoErrorKind,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use runtree_id::{BranchName, CommitId};

use crate::{
    error::{Result, WorktreeError},
    files,
    layout::{self, Layout, Ours},
    record::Owner,
    refs,
    report::{Head, ListedWorktree, Whose},
    repository::Worktrees,
};

impl Worktrees {
    /// Lists the worktrees as `git worktree list` does: the main one first, the linked ones by path.
    ///
    /// Registrations that are broken are listed with what is wrong, and stop nothing.
    ///
    /// # Errors
    ///
    /// Those of the file system, on the registry as a whole.
    pub fn list(&self) -> Result<Vec<ListedWorktree>> {
        read_all(&self.inner.layout, &self.repository())
    }
}

pub(crate) fn read_all(
    layout: &Layout,
    repository: &gix::Repository,
) -> Result<Vec<ListedWorktree>> {
    let mut linked = Vec::new();
    for admin in registrations(layout)? {
        linked.push(read_linked(&admin, repository));
    }
    linked.sort_by(|one, other| {
        let bytes = |worktree: &ListedWorktree| worktree.path.as_os_str().as_bytes().to_vec();
        bytes(one).cmp(&bytes(other))
    });
    linked.insert(0, read_main(layout, repository));
    Ok(linked)
}

/// Lists the administrative directories.
pub(crate) fn registrations(layout: &Layout) -> Result<Vec<PathBuf>> {
    directories_in(&layout.registry())
}

/// Lists the directories in `place`, in order; none if there is no such place.
pub(crate) fn directories_in(place: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| WorktreeError::io("list", place, error);
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if files::is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        // git lists whatever is here; what is no directory has no HEAD either.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.push(entry.path()),
            Ok(_) => {}
            Err(error) if files::is_absent(&error) => {}
            Err(error) => return Err(fail(error)),
        }
    }
    found.sort();
    Ok(found)
}

fn read_main(layout: &Layout, repository: &gix::Repository) -> ListedWorktree {
    let common = &layout.common;
    let path = match common.file_name() {
        Some(name) if name == ".git" => common.parent().unwrap_or(common).to_owned(),
        Some(_) | None => common.clone(),
    };
    ListedWorktree {
        id: None,
        path,
        head: read_head(common, repository),
        bare: layout.main.is_none(),
        locked: None,
        prunable: None,
        corrupt: None,
        whose: Whose::Main,
    }
}

fn read_linked(admin: &Path, repository: &gix::Repository) -> ListedWorktree {
    let id = admin
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let locked = read_lock(admin);
    let (path, corrupt) = match read_gitdir(admin) {
        Ok(path) => (path, None),
        Err(why) => (admin.to_owned(), Some(why)),
    };
    let prunable = match (&locked, &corrupt) {
        (Some(_), _) => None,
        (None, Some(why)) => Some(why.clone()),
        (None, None) => (!dot_git_exists(&path, admin))
            .then(|| "gitdir file points to non-existent location".to_owned()),
    };
    ListedWorktree {
        id,
        path,
        head: read_head(admin, repository),
        bare: false,
        locked,
        prunable,
        corrupt,
        whose: whose(admin),
    }
}

/// git looks for the file that `gitdir` names, whatever it is called.
fn dot_git_exists(path: &Path, admin: &Path) -> bool {
    let named = files::read_optional(&admin.join("gitdir"))
        .ok()
        .flatten()
        .and_then(|line| layout::parse_path_line(&line, "", admin));
    let file = named.unwrap_or_else(|| path.join(".git"));
    // What cannot be looked at is not known to be gone.
    file.metadata()
        .map_or_else(|error| !files::is_absent(&error), |_| true)
}

/// Reads where a registration says its files are, or why git hides it.
pub(crate) fn read_gitdir(admin: &Path) -> Result<PathBuf, String> {
    let line = match fs::read(admin.join("gitdir")) {
        Ok(line) => line,
        Err(error) if error.kind() == IoErrorKind::NotFound => {
            return Err("gitdir file does not exist".to_owned());
        }
        Err(error) => return Err(format!("unable to read gitdir file ({error})")),
    };
    let file = layout::parse_path_line(&line, "", admin)
        .ok_or_else(|| "invalid gitdir file".to_owned())?;
    if file.file_name() == Some(OsStr::new(".git")) {
        return Ok(file.parent().unwrap_or(&file).to_owned());
    }
    Ok(file)
}

/// Reads git's lock of a worktree; a lock that cannot be read is one.
pub(crate) fn read_lock(admin: &Path) -> Option<String> {
    match files::read_optional(&admin.join("locked")) {
        Ok(None) => None,
        // git's own idea of blanks, at both ends.
        Ok(Some(text)) => Some(
            String::from_utf8_lossy(&text)
                .trim_matches([' ', '\t', '\n', '\r'])
                .to_owned(),
        ),
        Err(error) => Some(format!("the lock cannot be read: {error}")),
    }
}

fn whose(admin: &Path) -> Whose {
    let ours = Ours::inside(admin);
    match Owner::read(&ours) {
        Ok(None) => Whose::Foreign,
        Ok(Some(owner)) => Whose::Ours {
            ownership: owner.ownership,
            ready: ours.ready().is_file(),
        },
        Err(_) => Whose::Unknown,
    }
}

/// Reads HEAD from its file: opening a worktree to learn its branch would fail where anything else in it is broken.
pub(crate) fn read_head(git_dir: &Path, repository: &gix::Repository) -> Head {
    let Ok(Some(text)) = files::read_optional(&git_dir.join("HEAD")) else {
        return Head::Unreadable;
    };
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    match text.strip_prefix("ref:") {
        Some(reference) => {
            let reference = reference.trim();
            let commit = refs::read(repository, reference)
                .ok()
                .flatten()
                .and_then(|id| refs::commit_id(id).ok());
            Head::Branch {
                reference: reference.to_owned(),
                commit,
            }
        }
        None => text
            .parse::<CommitId>()
            .map_or(Head::Unreadable, Head::Detached),
    }
}

/// Finds the worktree, other than `but`, that has a branch checked out or reserves it for a rebase or bisect.
pub(crate) fn holder_of_branch(
    layout: &Layout,
    branch: &BranchName,
    but: Option<&Path>,
) -> Result<Option<PathBuf>> {
    let mut git_dirs = registrations(layout)?;
    // Nothing is checked out in a bare repository, whatever its HEAD says.
    if layout.main.is_some() {
        git_dirs.push(layout.common.clone());
    }
    let full = branch.full_ref();
    for git_dir in git_dirs {
        if Some(git_dir.as_path()) != but && holds(&git_dir, full)? {
            let place = if git_dir == layout.common {
                layout.main.clone().unwrap_or(git_dir)
            } else {
                read_gitdir(&git_dir).unwrap_or(git_dir)
            };
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn holds(git_dir: &Path, full: &str) -> Result<bool> {
    let read = |file: &str| -> Result<String> {
        let path = git_dir.join(file);
        let bytes =
            files::read_optional(&path).map_err(|error| WorktreeError::io("read", &path, error))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let names_it = |text: &str| {
        let text = text.trim();
        text == full || full.strip_prefix("refs/heads/") == Some(text)
    };
    if read("HEAD")?
        .strip_prefix("ref:")
        .is_some_and(|reference| reference.trim() == full)
    {
        return Ok(true);
    }
    for file in ["rebase-merge/head-name", "rebase-apply/head-name"] {
        if names_it(&read(file)?) {
            return Ok(true);
        }
    }
    if git_dir.join("BISECT_LOG").is_file() && names_it(&read("BISECT_START")?) {
        return Ok(true);
    }
    // Three lines each: the reference, its old and its new value.
    Ok(read("rebase-merge/update-refs")?
        .lines()
        .step_by(3)
        .any(|line| line == full))
}
