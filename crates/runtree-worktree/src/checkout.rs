//! Files onto the disk: the first index and the parallel checkout of a new worktree.

use std::{fs, path::Path};

use gix::{ObjectId, index::entry::Mode};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files,
    report::RepoPath,
    steps::Interrupt,
};

/// Writes an index that holds the commit's tree and knows nothing of files yet.
pub(crate) fn write_first_index(
    repository: &gix::Repository,
    commit: ObjectId,
    path: &Path,
) -> Result<()> {
    let mut index = index_of_commit(repository, commit)?;
    index.set_path(path);
    write_index(&mut index)?;
    files::sync_file(path)
}

pub(crate) fn index_of_commit(
    repository: &gix::Repository,
    commit: ObjectId,
) -> Result<gix::index::File> {
    let read = || {
        let tree = repository.find_commit(commit)?.tree_id()?;
        repository.index_from_tree(&tree)
    };
    read().map_err(|error| WorktreeError::git(format!("read the tree of {commit}"), error))
}

pub(crate) fn write_index(index: &mut gix::index::File) -> Result<()> {
    // The cache of trees would be written as it is, and may be stale.
    index.remove_tree();
    let place = index.path().display().to_string();
    index
        .write(gix::index::write::Options::default())
        .map_err(|error| WorktreeError::git(format!("write the index {place}"), error))
}

/// Checks out the base commit into a directory that holds only `.git`, and writes the index with what git will see on disk.
pub(crate) fn check_out_base(
    repository: &gix::Repository,
    base: ObjectId,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut index = index_of_commit(repository, base)?;
    check_out(repository, &mut index, directory, interrupt)?;
    write_index(&mut index)
}

/// Checks out every entry of the index, and notes in it what is on disk.
pub(crate) fn check_out(
    repository: &gix::Repository,
    index: &mut gix::index::File,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    let fail = |error| WorktreeError::git(format!("check out {}", directory.display()), error);
    let mut options = repository
        .checkout_options(gix::worktree::stack::state::attributes::Source::IdMapping)
        .map_err(fail)?;
    options.destination_is_initially_empty = true;
    let objects = repository
        .objects
        .clone()
        .into_arc()
        .map_err(|error| WorktreeError::git("open the objects for the checkout", error))?;
    let outcome = gix::worktree::state::checkout(
        index,
        directory,
        objects,
        &gix::progress::Discard,
        &gix::progress::Discard,
        interrupt.flag(),
        options,
    )
    .map_err(fail)?;
    // An interrupted checkout calls itself a success.
    interrupt.check()?;
    refuse_unclean(&outcome, directory)?;
    make_submodule_directories(index, directory)
}

fn refuse_unclean(
    outcome: &gix::worktree::state::checkout::Outcome,
    directory: &Path,
) -> Result<()> {
    let unclean = |path: &dyn std::fmt::Display, why: String| {
        Err(WorktreeError::new(
            ErrorKind::Git,
            format!("cannot check out {path} in {}: {why}", directory.display()),
        ))
    };
    if let Some(collision) = outcome.collisions.first() {
        return unclean(
            &collision.path,
            format!("something has that name already ({})", collision.error_kind),
        );
    }
    if let Some(record) = outcome.errors.first() {
        return unclean(&record.path, record.error.to_string());
    }
    if let Some(path) = outcome
        .delayed_paths_unknown
        .first()
        .or(outcome.delayed_paths_unprocessed.first())
    {
        return unclean(path, "its filter did not deliver it".to_owned());
    }
    Ok(())
}

/// git takes a submodule without a directory for deleted, so each gets an empty one.
fn make_submodule_directories(index: &mut gix::index::File, directory: &Path) -> Result<()> {
    for (entry, path) in index.entries_mut_with_paths() {
        if entry.mode == Mode::COMMIT {
            let place = directory.join(RepoPath::from_bytes(path.to_vec()).to_path());
            fs::create_dir_all(&place)
                .map_err(|error| WorktreeError::io("create", &place, error))?;
        }
    }
    Ok(())
}
