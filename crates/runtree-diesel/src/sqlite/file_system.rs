//! What can be told from outside about where a database lies: whether the file system can keep its locks, and what may be written.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use runtree_repository::{ErrorKind, RepositoryError};
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// File systems whose locks or shared memory do not hold between machines, by the number that `statfs` tells.
#[cfg(target_os = "linux")]
const NETWORK: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// Refuses a network file system.
///
/// A file system in user space (FUSE) is let through, because most of them are local and nothing tells which.
///
/// # Errors
/// [`ErrorKind::Unsupported`], naming the file system.
pub(super) fn refuse_network(path: &Path) -> Result<(), RepositoryError> {
    #[cfg(target_os = "linux")]
    {
        let directory = path.parent().unwrap_or(path);
        let found = rustix::fs::statfs(directory).map_err(|error| {
            let message = format!(
                "the file system of {} cannot be asked for its kind",
                directory.display()
            );
            RepositoryError::new(ErrorKind::Configuration, message)
                .with_source(std::io::Error::from(error))
        })?;
        if let Some(name) = network_name(i128::from(found.f_type)) {
            return Err(RepositoryError::new(
                ErrorKind::Unsupported,
                format!(
                    "the database {} lies on {name}, a network file system, where SQLite's locks and shared memory do not hold; use a \
                     local disk, or PostgreSQL for several machines",
                    path.display()
                ),
            ));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
    Ok(())
}

/// Names a network file system; the number arrives sign-extended on some architectures.
#[cfg(target_os = "linux")]
fn network_name(number: i128) -> Option<&'static str> {
    let low = u32::try_from(number & 0xffff_ffff).ok()?;
    NETWORK
        .iter()
        .find(|(known, _)| *known == low)
        .map(|(_, name)| *name)
}

/// Refuses a file that may not be written, or whose directory or log may not: SQLite keeps its log beside the file.
///
/// SQLite itself opens such a file without a word, begins transactions on it, and fails at the first write.
///
/// # Errors
/// [`ErrorKind::ReadOnly`], naming what may not be written.
pub(super) fn refuse_read_only(path: &Path) -> Result<(), RepositoryError> {
    let refuse = |what: &str, denied: &Path, error: Errno| {
        let message = format!(
            "the database {} cannot be written: the {what} {} may not be written",
            path.display(),
            denied.display()
        );
        Err(RepositoryError::new(ErrorKind::ReadOnly, message)
            .with_source(std::io::Error::from(error)))
    };
    let directory = path.parent().unwrap_or(path);
    if let Err(error) = access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        return refuse("directory", directory, error);
    }
    for ending in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(ending);
        match access(&file, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return refuse("file", Path::new(&file), error),
        }
    }
    Ok(())
}

/// Which file a path named when it was opened.
///
/// SQLite goes on writing to a file that was removed or replaced, and what it acknowledges then is lost.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Place {
    /// Remembers the file that is there now.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: file_at(path),
        }
    }

    /// Makes sure that it is still the same file.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] when it was removed or replaced.
    pub(super) fn check(&self) -> Result<(), RepositoryError> {
        if file_at(&self.path) == self.file {
            return Ok(());
        }
        let message = format!(
            "the database {} was removed, moved or replaced while it was open",
            self.path.display()
        );
        Err(RepositoryError::new(ErrorKind::Configuration, message))
    }
}

/// The number of the device and of the file on it.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    path.metadata()
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_network_file_system_is_known_by_its_number() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("CIFS"));
        assert_eq!(
            network_name(i128::from(0xff53_4d42_u32.cast_signed())),
            Some("CIFS")
        );
        assert_eq!(network_name(0xef53), None, "ext4");
        assert_eq!(network_name(0x6573_5546), None, "FUSE");
    }
}
