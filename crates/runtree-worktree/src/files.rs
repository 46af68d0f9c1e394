//! File system calls that last, that do not overwrite, and that neither follow links nor leave their device.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Result, WorktreeError};

/// Which directory this is, whatever it is called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    /// Reads the identity of the directory at `path`, which must not be a link; none if there is none.
    pub(crate) fn of_directory(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(Some(Self {
                device: meta.dev(),
                inode: meta.ino(),
            })),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Tells whether the error means that nothing has that path.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Tells whether anything, a dangling link included, has that path.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(WorktreeError::io("look at", path, error)),
    }
}

/// Reads a file, none if there is none.
pub(crate) fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a file that must not exist, and sees it to the disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| WorktreeError::io("create", path, error))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|error| WorktreeError::io("write", path, error))
}

/// Replaces a file in one step: a reader sees the old bytes or the new ones, also after a power cut.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| WorktreeError::io("write", path, error))?;
    match path.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes a file in one step from `beside`, which no other process uses, unless something has its name; tells whether it did.
///
/// A reader sees none or all of its bytes, also after a power cut, and nothing is ever replaced.
pub(crate) fn place_new(beside: &Path, path: &Path, bytes: &[u8]) -> Result<bool> {
    // What a crash left may be a second name of another file, so it is not written over.
    remove_file(beside)?;
    write_new(beside, bytes)?;
    match move_file(beside, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_file(beside)?;
            Ok(false)
        }
        Err(error) => Err(WorktreeError::io("create", path, error)),
    }
}

/// Renames a file unless something has the new name, which is told as [`io::ErrorKind::AlreadyExists`].
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return sync_both_parents(from, to),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
        }
        Err(error) => return Err(error.into()),
    }
    link_file(from, to)
}

/// Moves a file by a second name, which no system lets replace anything.
fn link_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)?;
    sync_both_parents(from, to)
}

/// Makes a directory and its parents.
pub(crate) fn create_directories(path: &Path) -> Result<()> {
    make_directories(path).map_err(|error| WorktreeError::io("create", path, error))
}

/// Tells whether this process may make entries in a directory.
pub(crate) fn check_writable(directory: &Path) -> Result<()> {
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| WorktreeError::io("write to the directory", directory, error.into()))
}

/// How often making a directory is tried while others take its empty parents away.
const MAKE_ATTEMPTS: usize = 100;

/// Makes a directory and its parents, also while another process takes them away for empty.
///
/// `create_dir_all` then fails in two ways: with `NotFound` below a parent that went, and with `AlreadyExists` for a directory that was
/// there when it was to be made and gone when it was looked at.
pub(crate) fn make_directories(path: &Path) -> io::Result<()> {
    for _ in 0..MAKE_ATTEMPTS {
        match fs::create_dir_all(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                ) => {}
            outcome => return outcome,
        }
    }
    fs::create_dir_all(path)
}

/// Sees the bytes of a file to the disk.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| WorktreeError::io("sync", path, error))
}

/// Sees the entries of a directory to the disk.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| WorktreeError::io("sync", path, error))
}

/// Sees everything written to the file system that holds `path` to the disk.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(|error| WorktreeError::io("open", path, error))?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(&directory)
        .map_err(|error| WorktreeError::io("sync", path, error.into()))?;
    #[cfg(not(target_os = "linux"))]
    {
        drop(directory);
        rustix::fs::sync();
    }
    Ok(())
}

/// Renames a directory unless something has the new name, which is told as [`io::ErrorKind::AlreadyExists`].
///
/// Where the system cannot do that in one step, a look comes before a plain rename, which for directories replaces nothing but an
/// empty directory.
pub(crate) fn rename_directory(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return sync_both_parents(from, to),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
        }
        Err(error) => return Err(error.into()),
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)?;
    sync_both_parents(from, to)
}

fn sync_both_parents(from: &Path, to: &Path) -> io::Result<()> {
    let parents: BTreeSet<_> = [from.parent(), to.parent()].into_iter().flatten().collect();
    for parent in parents {
        match File::open(parent).and_then(|directory| directory.sync_all()) {
            // Nothing is left in it, so another process tidied it away.
            Err(error) if is_absent(&error) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Deletes a directory and everything in it: links are deleted and not followed, and anything mounted inside stops it.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let identity =
        Identity::of_directory(path).map_err(|error| WorktreeError::io("look at", path, error))?;
    let Some(identity) = identity else {
        return Ok(());
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(WorktreeError::io(
            "remove",
            path,
            io::ErrorKind::InvalidInput.into(),
        ));
    };
    let remove = || -> io::Result<()> {
        // A part of the same file system mounted inside has the same device number, so the table is asked before anything goes.
        if let Some(mount) = mounts_under(&parent.canonicalize()?.join(name))?.first() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("{} is mounted inside", mount.display()),
            ));
        }
        let parent = File::open(parent)?;
        remove_directory_at(&parent, name, identity.device)?;
        parent.sync_all()
    };
    remove().map_err(|error| WorktreeError::io("remove", path, error))
}

/// Deletes an empty directory if it is there and empty.
pub(crate) fn remove_if_empty(path: &Path) {
    // Anything else that keeps it is no error: the directory is only tidied away.
    let _ = fs::remove_dir(path);
}

fn remove_directory_at(parent: &File, name: &OsStr, device: u64) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::ACCESS) => {
            make_accessible(parent, name)?;
            File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?)
        }
        // Somebody else deletes it too.
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if directory.metadata()?.dev() != device {
        return Err(io::Error::new(
            io::ErrorKind::CrossesDevices,
            format!("another file system is mounted at {}", name.display()),
        ));
    }
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    for (child, kind) in names {
        remove_child(&directory, &child, kind, device)?;
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_child(directory: &File, name: &OsStr, kind: FileType, device: u64) -> io::Result<()> {
    if kind == FileType::Directory {
        return remove_directory_at(directory, name, device);
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        // The listing did not know the kind of the entry.
        Err(rustix::io::Errno::ISDIR) => remove_directory_at(directory, name, device),
        Err(rustix::io::Errno::ACCESS) => {
            rustix::fs::fchmod(directory, Mode::RWXU)?;
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Lets us into a directory of our own that was made read-only, as package caches do.
fn make_accessible(parent: &File, name: &OsStr) -> io::Result<()> {
    rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    Ok(())
}

/// Lists the mount points at `path` and below it, as far as this system tells them.
pub(crate) fn mounts_under(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(table) = read_optional(Path::new("/proc/self/mountinfo"))? else {
        return Ok(Vec::new());
    };
    Ok(table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsStr::from_bytes(&unescape_octal(field))))
        .filter(|mount| mount.starts_with(path))
        .collect())
}

/// The kernel writes blanks and backslashes in paths as `\ooo`.
fn unescape_octal(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    bytes
}

/// Deletes a file that may be gone already, and sees that to the disk.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(WorktreeError::io("remove", path, error)),
    }
    match path.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Finds a process whose working directory is `path` or below it, as far as this system tells it to us.
pub(crate) fn process_inside(path: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let directory = fs::read_link(entry.path().join("cwd")).ok()?;
        directory.starts_with(path).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn remove_tree_does_not_follow_links_and_opens_read_only_directories() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "x").unwrap();
        let tree = place.path().join("tree");
        fs::create_dir_all(tree.join("locked/deep")).unwrap();
        fs::write(tree.join("locked/deep/file"), "x").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        fs::set_permissions(tree.join("locked"), fs::Permissions::from_mode(0o500)).unwrap();

        remove_tree(&tree).unwrap();

        assert!(!tree.exists());
        assert_eq!(fs::read(outside.join("keep")).unwrap(), b"x");
    }

    #[test]
    fn rename_directory_replaces_nothing_not_even_an_empty_directory() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        let error = rename_directory(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(from.exists());
    }

    #[test]
    fn a_file_is_placed_whole_and_replaces_nothing_not_even_a_dangling_link() {
        let place = tempfile::tempdir().unwrap();
        let (beside, path) = (place.path().join("beside"), place.path().join("path"));
        assert!(place_new(&beside, &path, b"first").unwrap());
        // As after a crash between the two halves of a move by a second name.
        fs::hard_link(&path, &beside).unwrap();
        assert!(!place_new(&beside, &path, b"second").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert!(!beside.exists());

        fs::write(&beside, "third").unwrap();
        let error = link_file(&beside, &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
        link_file(&beside, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert!(!beside.exists());

        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        assert!(!place_new(&beside, &path, b"fourth").unwrap());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn mount_table_escapes_are_undone() {
        assert_eq!(unescape_octal(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescape_octal(br"/a\9"), br"/a\9");
    }

    #[test]
    fn the_root_is_a_mount_point() {
        let mounts = mounts_under(Path::new("/proc")).unwrap();
        assert!(mounts.contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn a_directory_is_made_while_another_takes_its_parent_away() {
        let place = tempfile::tempdir().unwrap();
        let parent = place.path().join("shared");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    remove_if_empty(&parent);
                }
            });
            let made: Vec<_> = (0..5_000).map(|_| make_directories(&parent)).collect();
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        });
    }
}
