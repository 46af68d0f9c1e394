//! What an administrative directory tells: operations in progress, lock files, and every commit it mentions.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use gix::{ObjectId, bstr::ByteSlice, objs::Kind};

use crate::{
    error::{Result, WorktreeError},
    report::{InProgress, RepoPath},
};

/// The files of an administrative directory that tell where it lies and who has it, not what was done in it.
const PLACE_FILES: [&str; 4] = ["gitdir", "commondir", "locked", "runtree"];

/// The largest file that is searched for the commits it mentions.
const MENTIONS_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// A file of an administrative directory.
#[derive(Clone, Debug)]
pub(crate) struct AdminFile {
    pub(crate) path: RepoPath,
    pub(crate) place: PathBuf,
}

/// Lists the files that make up a worktree's state, in order.
pub(crate) fn admin_files(admin: &Path) -> Result<Vec<AdminFile>> {
    let mut files = Vec::new();
    list_into(admin, &RepoPath::from_bytes(""), &mut files)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn list_into(place: &Path, path: &RepoPath, files: &mut Vec<AdminFile>) -> Result<()> {
    let fail = |error| WorktreeError::io("list", place, error);
    for entry in fs::read_dir(place).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let top = path.as_bytes().is_empty();
        if top && PLACE_FILES.iter().any(|file| name == *file) {
            continue;
        }
        let below = path.join(name.as_encoded_bytes());
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            list_into(&entry.path(), &below, files)?;
        } else if kind.is_file() {
            files.push(AdminFile {
                path: below,
                place: entry.path(),
            });
        }
    }
    Ok(())
}

/// Names git's lock files among the files of an administrative directory.
pub(crate) fn lock_files(files: &[AdminFile]) -> Vec<String> {
    files
        .iter()
        .filter(|file| file.path.as_bytes().ends_with(b".lock"))
        .map(|file| file.path.to_string())
        .collect()
}

/// Tells which operations were begun and not finished.
pub(crate) fn in_progress(admin: &Path) -> BTreeSet<InProgress> {
    let there = |name: &str| fs::symlink_metadata(admin.join(name)).is_ok();
    let mut found = BTreeSet::new();
    for (name, operation) in [
        ("MERGE_HEAD", InProgress::Merge),
        ("CHERRY_PICK_HEAD", InProgress::CherryPick),
        ("REVERT_HEAD", InProgress::Revert),
        ("BISECT_LOG", InProgress::Bisect),
        ("sequencer", InProgress::Sequencer),
        ("rebase-merge", InProgress::Rebase),
    ] {
        if there(name) {
            found.insert(operation);
        }
    }
    if there("rebase-apply/applying") {
        found.insert(InProgress::ApplyMailbox);
    } else if there("rebase-apply") {
        found.insert(InProgress::Rebase);
    }
    found
}

/// The objects an administrative directory mentions.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    pub(crate) commits: BTreeSet<ObjectId>,
    /// Trees and blobs, which no history holds.
    pub(crate) others: BTreeSet<ObjectId>,
}

/// Finds every object that a file other than the index mentions by its full id: HEAD, reflogs, private references, and whatever an
/// operation in progress wrote down.
pub(crate) fn mentions(repository: &gix::Repository, files: &[AdminFile]) -> Result<Mentions> {
    let mut mentions = Mentions::default();
    for file in files {
        let name = file.path.as_bytes();
        if name == b"index" || name.starts_with(b"sharedindex.") {
            continue;
        }
        let fail = |error| WorktreeError::io("read", &file.place, error);
        if fs::metadata(&file.place).map_err(fail)?.len() > MENTIONS_LIMIT_BYTES {
            return Err(WorktreeError::io(
                "search",
                &file.place,
                std::io::ErrorKind::FileTooLarge.into(),
            ));
        }
        for id in ids_in(
            &fs::read(&file.place).map_err(fail)?,
            repository.object_hash(),
        ) {
            note(repository, id, &mut mentions)?;
        }
    }
    Ok(mentions)
}

/// Finds the ids in a reference's log, which goes when the reference goes.
pub(crate) fn logged(repository: &gix::Repository, log: &Path) -> Result<Mentions> {
    let mut mentions = Mentions::default();
    let bytes = crate::files::read_optional(log)
        .map_err(|error| WorktreeError::io("read", log, error))?
        .unwrap_or_default();
    for id in ids_in(&bytes, repository.object_hash()) {
        note(repository, id, &mut mentions)?;
    }
    Ok(mentions)
}

/// Sorts an object; one that is not there cannot be saved, and git has given it up already.
fn note(repository: &gix::Repository, id: ObjectId, mentions: &mut Mentions) -> Result<()> {
    let fail = |error| WorktreeError::git(format!("read the object {id}"), error);
    if mentions.commits.contains(&id) || mentions.others.contains(&id) {
        return Ok(());
    }
    let Some(object) = repository.try_find_object(id).map_err(fail)? else {
        return Ok(());
    };
    match object.kind {
        Kind::Commit => {
            mentions.commits.insert(id);
        }
        Kind::Tag => {
            let peeled = object.peel_tags_to_end().map_err(fail)?;
            if peeled.kind == Kind::Commit {
                mentions.commits.insert(peeled.id);
            } else {
                mentions.others.insert(peeled.id);
            }
        }
        Kind::Tree | Kind::Blob => {
            mentions.others.insert(id);
        }
    }
    Ok(())
}

/// Finds the runs of hexadecimal digits that are as long as an id.
fn ids_in(bytes: &[u8], hash: gix::hash::Kind) -> BTreeSet<ObjectId> {
    bytes
        .split(|byte| !byte.is_ascii_hexdigit())
        .filter(|run| run.len() == hash.len_in_hex())
        .filter_map(|run| ObjectId::from_hex(run.as_bstr()).ok())
        .filter(|id| !id.is_null())
        .collect()
}
