//! Where everything lies: git's registry, our own corner beside it, and the root of the worktrees.

use std::{
    ffi::OsStr,
    fs::{File, TryLockError},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files,
};

/// How long to wait for another process that changes git's registry; it holds the lock for milliseconds.
const REGISTRY_LOCK_WAIT: Duration = Duration::from_secs(60);

/// How often to make a hidden directory again that other processes take away.
const HIDDEN_ATTEMPTS: u32 = 100;

/// A lock on a file, given up when dropped and by the kernel when the process dies.
///
/// It is given up by name, not by closing the file: a process that another thread is just starting shares the open file for a moment, and
/// would keep the lock with it.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file, which follows, gives the lock up as well.
        let _ = self.0.unlock();
    }
}

/// The places of one git repository.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The common directory of all worktrees.
    pub(crate) common: PathBuf,
    /// The main worktree, none for a bare repository.
    pub(crate) main: Option<PathBuf>,
    /// Where new worktrees go.
    pub(crate) root: PathBuf,
}

impl Layout {
    /// git's registry of linked worktrees.
    pub(crate) fn registry(&self) -> PathBuf {
        self.common.join("worktrees")
    }

    pub(crate) fn admin(&self, name: &str) -> PathBuf {
        self.registry().join(name)
    }

    /// Our corner of the common directory; no git looks there.
    fn corner(&self) -> PathBuf {
        self.common.join("runtree")
    }

    /// Administrative directories that are being made.
    pub(crate) fn staging(&self) -> PathBuf {
        self.corner().join("staging")
    }

    /// Administrative directories that were taken out of the registry.
    pub(crate) fn retired(&self) -> PathBuf {
        self.corner().join("retired")
    }

    pub(crate) fn worktree(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Takes the lock that serialises changes to the registry; the kernel releases it with the process.
    pub(crate) fn lock_registry(&self) -> Result<Lock> {
        let corner = self.corner();
        files::create_directories(&corner)?;
        let path = corner.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| WorktreeError::io("open", &path, error))?;
        let deadline = Instant::now() + REGISTRY_LOCK_WAIT;
        let mut pause = Duration::from_micros(200);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(WorktreeError::new(
                        ErrorKind::Busy,
                        format!("another process holds {} for long", path.display()),
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(WorktreeError::io("lock", &path, error));
                }
            }
        }
    }
}

/// Our hidden directory beside a worktree: on the same file system, so that a rename into it is one step.
pub(crate) fn hidden_beside(worktree: &Path) -> PathBuf {
    worktree.parent().unwrap_or(Path::new("/")).join(".runtree")
}

/// Where the directory of a worktree is made before it is renamed into place.
pub(crate) fn nursery(worktree: &Path) -> PathBuf {
    in_hidden(worktree, "new")
}

/// Where the directory of a worktree goes before it is deleted.
pub(crate) fn trash(worktree: &Path) -> PathBuf {
    in_hidden(worktree, "trash")
}

fn in_hidden(worktree: &Path, part: &str) -> PathBuf {
    let name = worktree.file_name().unwrap_or(OsStr::new("worktree"));
    hidden_beside(worktree).join(part).join(name)
}

/// Does something that needs the parent of `place`, one of our hidden directories, to be there.
///
/// Another process may take the directory away for empty just after it was made, so that is done again.
pub(crate) fn in_hidden_parent(
    place: &Path,
    mut work: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let parent = place.parent().unwrap_or(Path::new("/"));
    for _ in 0..HIDDEN_ATTEMPTS {
        files::make_directories(parent)?;
        match work() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
    }
    work()
}

/// Takes our hidden directories away when they are empty.
pub(crate) fn tidy_hidden(worktree: &Path) {
    let hidden = hidden_beside(worktree);
    for part in ["new", "trash"] {
        files::remove_if_empty(&hidden.join(part));
    }
    files::remove_if_empty(&hidden);
}

/// Our files inside an administrative directory.
#[derive(Clone, Debug)]
pub(crate) struct Ours(PathBuf);

impl Ours {
    pub(crate) fn inside(admin: &Path) -> Self {
        Self(admin.join("runtree"))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    pub(crate) fn owner(&self) -> PathBuf {
        self.0.join("owner")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn ready(&self) -> PathBuf {
        self.0.join("ready")
    }

    pub(crate) fn removing(&self) -> PathBuf {
        self.0.join("removing")
    }

    pub(crate) fn verified(&self) -> PathBuf {
        self.0.join("verified")
    }

    /// git's lock of the worktree while it is written.
    pub(crate) fn locking(&self) -> PathBuf {
        self.0.join("locking")
    }

    /// Takes the lock of one worktree, none if another operation has it.
    ///
    /// The file moves with its directory, so the lock holds across the renames of the registration; whoever gets it knows that no
    /// operation on this machine is at work on the worktree.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let path = self.lock();
        let file = match File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if files::is_absent(&error) => return Ok(None),
            Err(error) => return Err(WorktreeError::io("open", &path, error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(WorktreeError::io("lock", &path, error)),
        }
    }
}

/// Tells whether the file at `path` is the one this lock is on: whoever waited for it may hold that of a worktree which is gone.
pub(crate) fn is_lock_at(lock: &Lock, path: &Path) -> Result<bool> {
    let fail = |error| WorktreeError::io("look at", path, error);
    let held = lock.0.metadata().map_err(fail)?;
    match path.metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if files::is_absent(&error) => Ok(false),
        Err(error) => Err(fail(error)),
    }
}

/// Writes a path as git does in `gitdir` and `.git` files.
pub(crate) fn path_line(prefix: &str, path: &Path) -> Vec<u8> {
    let mut line = prefix.as_bytes().to_vec();
    line.extend_from_slice(path.as_os_str().as_bytes());
    line.push(b'\n');
    line
}

/// Reads a path that git wrote: the line without its end, relative paths against `base`.
pub(crate) fn parse_path_line(line: &[u8], prefix: &str, base: &Path) -> Option<PathBuf> {
    let rest = line.strip_prefix(prefix.as_bytes())?;
    let text = rest.trim_ascii_end();
    if text.is_empty() {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(text));
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    Some(normalize(&base.join(path)))
}

/// Resolves `.` and `..` by the text alone.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::Normal(_) => clean.push(part),
        }
    }
    clean
}

/// Resolves links in the longest part of `path` that exists, and keeps the rest.
pub(crate) fn resolve_existing(path: &Path) -> io::Result<PathBuf> {
    let mut rest = Vec::new();
    let mut existing = path;
    loop {
        match existing.canonicalize() {
            Ok(mut real) => {
                real.extend(rest.iter().rev());
                return Ok(real);
            }
            Err(error) if files::is_absent(&error) => {
                let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
                    return Err(error);
                };
                rest.push(name);
                existing = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_is_free_after_its_drop_even_while_another_process_shares_the_file() {
        let place = tempfile::tempdir().unwrap();
        let ours = Ours::inside(place.path());
        fs::create_dir(ours.directory()).unwrap();
        let lock = ours.try_lock().unwrap().unwrap();
        assert!(ours.try_lock().unwrap().is_none());
        // What a process between fork and exec has: the same open file.
        let shared = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(ours.try_lock().unwrap().is_some());
        drop(shared);
    }

    #[test]
    fn path_lines_are_read_as_git_writes_them() {
        let base = Path::new("/base/worktrees/a");
        let read = |line: &str| parse_path_line(line.as_bytes(), "gitdir: ", base);
        assert_eq!(read("gitdir: /x/.git\n"), Some("/x/.git".into()));
        assert_eq!(read("gitdir: ../../c/.git"), Some("/base/c/.git".into()));
        assert_eq!(read("gitdir: \n"), None);
        assert_eq!(read("/x/.git\n"), None);
    }
}
