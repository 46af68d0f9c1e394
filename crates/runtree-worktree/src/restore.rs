//! A worktree made again from a salvage, as it was.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use gix::{
    ObjectId,
    index::entry::{Stage, Stat},
    objs::tree::EntryKind,
};
use runtree_id::BranchName;

use crate::{
    checkout,
    error::{ErrorKind, Result, WorktreeError},
    files,
    making::{Making, Source},
    names::SalvageRef,
    record::Owner,
    refs,
    report::{RepoPath, Worktree},
    repository::Worktrees,
    request::{RestoreBranch, RestoreWorktree},
    salvage::Loaded,
    steps::{Interrupt, Operation},
};

impl Worktrees {
    /// Makes a worktree of a salvage again, as it was: HEAD, index, files with their permissions, links, conflicts, operations in
    /// progress, reflog and private references.
    ///
    /// The salvage stays until [`drop_salvage`](Self::drop_salvage). Owners, extended attributes, hard links and times of files are
    /// not saved and so not restored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SalvageNotFound`], [`ErrorKind::SalvageCorrupt`], and those of [`add`](Self::add); in particular
    /// [`ErrorKind::BranchMoved`] when the branch is elsewhere by now. All of them leave everything as it was.
    ///
    /// # Durability
    ///
    /// As [`add`](Self::add).
    pub fn restore(&self, salvage: &SalvageRef, request: &RestoreWorktree) -> Result<Worktree> {
        self.refuse_bare()?;
        let repository = self.repository();
        let loaded = self.load_salvage(salvage)?;
        let head = refs::object_id(&repository, &loaded.meta.head)?;
        let (branch, makes_branch) = choose_branch(&repository, &loaded, &request.branch)?;
        let mut owner = Owner::new(
            Worktree {
                path: self.inner.layout.worktree(request.name.as_str()),
                name: request.name.clone(),
                branch,
                base: loaded.meta.head,
                ownership: request.ownership.clone(),
                persistent: request.persistent,
                created: self.inner.clock.now(),
            },
            self.inner.holder.clone(),
            request.reason.clone(),
        );
        owner.makes_branch = makes_branch;
        owner.restores = Some(refs::commit_id(loaded.commit)?);
        Making {
            worktrees: self,
            repository,
            owner,
            base: head,
            source: Source::Salvage(&loaded),
            interrupt: &request.interrupt,
            journey: self.journey(Operation::Restore),
        }
        .make()
    }
}

/// Tells which branch to check out, and whether it is to be made.
fn choose_branch(
    repository: &gix::Repository,
    loaded: &Loaded,
    wanted: &RestoreBranch,
) -> Result<(Option<BranchName>, bool)> {
    match wanted {
        RestoreBranch::Detached => Ok((None, false)),
        RestoreBranch::New(branch) => Ok((Some(branch.clone()), true)),
        RestoreBranch::AsItWas => match (loaded.branch(), &loaded.meta.reference) {
            (Some(branch), _) => {
                let exists = refs::read(repository, branch.full_ref())?.is_some();
                Ok((Some(branch), !exists))
            }
            (None, None) => Ok((None, false)),
            (None, Some(reference)) => Err(WorktreeError::new(
                ErrorKind::InvalidInput,
                format!("HEAD named {reference}, which is no branch name here; ask for another"),
            )),
        },
    }
}

/// Checks out what the salvage has in common with its index, and returns what is on disk of it.
pub(crate) fn check_out(
    repository: &gix::Repository,
    loaded: &Loaded,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<BTreeMap<RepoPath, (ObjectId, Stat)>> {
    let meta = &loaded.meta;
    let apart: std::collections::BTreeSet<_> = meta
        .files
        .iter()
        .map(|file| &file.path)
        .chain(&meta.deleted)
        .chain(&meta.skipped)
        .collect();
    let mut index = repository
        .index_from_tree(&loaded.index_tree)
        .map_err(|error| WorktreeError::git("read the index of the salvage", error))?;
    index.remove_entries(|_, path, _| apart.contains(&RepoPath::from_bytes(path.to_vec())));
    checkout::check_out(repository, &mut index, directory, interrupt)?;
    Ok(index
        .entries()
        .iter()
        .map(|entry| {
            let path = RepoPath::from_bytes(entry.path(&index).to_vec());
            (path, (entry.id, entry.stat))
        })
        .collect())
}

/// Writes what differed from the index, the index itself, and the state of operations.
pub(crate) fn fill(
    repository: &gix::Repository,
    loaded: &Loaded,
    admin: &Path,
    directory: &Path,
    placed: &BTreeMap<RepoPath, (ObjectId, Stat)>,
) -> Result<()> {
    refuse_paths_that_lead_out(loaded)?;
    for file in &loaded.meta.files {
        write_file(repository, loaded, directory, &file.path, file.permissions)?;
    }
    for empty in &loaded.meta.empty_directories {
        make_parents(directory, &empty.join(b"below"))?;
    }
    fill_admin(repository, loaded, admin)?;
    fill_index(repository, loaded, admin, placed)
}

/// A salvage comes from a git repository that others may write to, so its paths are not taken on trust.
fn refuse_paths_that_lead_out(loaded: &Loaded) -> Result<()> {
    let options = gix::validate::path::component::Options {
        protect_windows: false,
        ..Default::default()
    };
    let files = loaded.meta.files.iter().map(|file| &file.path);
    let paths = files
        .chain(&loaded.meta.empty_directories)
        .chain(loaded.admin.keys());
    for path in paths {
        let safe = path
            .as_bytes()
            .split(|&byte| byte == b'/')
            .all(|part| gix::validate::path::component(part.into(), None, options).is_ok());
        if !safe {
            return Err(WorktreeError::new(
                ErrorKind::SalvageCorrupt,
                format!("the salvage {} holds the path {path}", loaded.commit),
            ));
        }
    }
    Ok(())
}

/// Makes the directories above a file, and refuses to go through a link.
fn make_parents(directory: &Path, path: &RepoPath) -> Result<()> {
    let mut place = directory.to_owned();
    let relative = path.to_path();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        place.push(part);
        match fs::create_dir(&place) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let identity = files::Identity::of_directory(&place)
                    .map_err(|error| WorktreeError::io("look at", &place, error))?;
                if identity.is_none() {
                    return Err(WorktreeError::io("go through", &place, error));
                }
            }
            Err(error) => return Err(WorktreeError::io("create", &place, error)),
        }
    }
    Ok(())
}

fn write_file(
    repository: &gix::Repository,
    loaded: &Loaded,
    directory: &Path,
    path: &RepoPath,
    permissions: u32,
) -> Result<()> {
    let flat = loaded.worktree.get(path).ok_or_else(|| {
        WorktreeError::new(
            ErrorKind::SalvageCorrupt,
            format!("the salvage {} lacks {path}", loaded.commit),
        )
    })?;
    let blob = repository
        .find_blob(flat.id)
        .map_err(|error| WorktreeError::git(format!("read {path}"), error))?;
    let place = directory.join(path.to_path());
    make_parents(directory, path)?;
    let fail = |error| WorktreeError::io("write", &place, error);
    if flat.kind == EntryKind::Link {
        return symlink(OsStr::from_bytes(&blob.data), &place).map_err(fail);
    }
    fs::File::create_new(&place)
        .and_then(|mut file| file.write_all(&blob.data))
        .map_err(fail)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(permissions)).map_err(fail)
}

/// Writes the files of the administrative directory but those that tell where it is, whose HEAD it has, and the index.
fn fill_admin(repository: &gix::Repository, loaded: &Loaded, admin: &Path) -> Result<()> {
    for (path, flat) in &loaded.admin {
        if matches!(path.as_bytes(), b"HEAD" | b"index") || path.as_bytes().ends_with(b".lock") {
            continue;
        }
        let blob = repository
            .find_blob(flat.id)
            .map_err(|error| WorktreeError::git(format!("read {path}"), error))?;
        let mut bytes = blob.data.clone();
        let place = admin.join(path.to_path());
        if let Some(parent) = place.parent() {
            files::create_directories(parent)?;
        }
        if path.as_bytes() == b"logs/HEAD" {
            bytes.extend(
                fs::read(&place).map_err(|error| WorktreeError::io("read", &place, error))?,
            );
        }
        fs::write(&place, bytes).map_err(|error| WorktreeError::io("write", &place, error))?;
    }
    Ok(())
}

/// Puts the saved index in place, with what is on disk now; entries whose file was written by us get no times, so that git looks.
fn fill_index(
    repository: &gix::Repository,
    loaded: &Loaded,
    admin: &Path,
    placed: &BTreeMap<RepoPath, (ObjectId, Stat)>,
) -> Result<()> {
    let place = admin.join("index");
    let Some(saved) = loaded.admin.get(&RepoPath::from_bytes("index")) else {
        return fs::remove_file(&place).map_err(|error| WorktreeError::io("remove", &place, error));
    };
    let blob = repository
        .find_blob(saved.id)
        .map_err(|error| WorktreeError::git("read the saved index", error))?;
    files::replace(&place, &blob.data)?;
    let mut index = repository
        .open_index()
        .map_err(|error| WorktreeError::git("read the saved index", error))?;
    for (entry, path) in index.entries_mut_with_paths() {
        entry.stat = placed
            .get(&RepoPath::from_bytes(path.to_vec()))
            .filter(|(id, _)| entry.stage() == Stage::Unconflicted && *id == entry.id)
            .map(|(_, stat)| *stat)
            .unwrap_or_default();
    }
    checkout::write_index(&mut index)
}
