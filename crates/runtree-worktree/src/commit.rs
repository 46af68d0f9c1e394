//! A commit of everything in a worktree that git does not ignore, without a git program.

use std::{collections::BTreeSet, fs, io::Read, os::unix::ffi::OsStrExt, path::Path};

use gix::{
    ObjectId,
    filter::plumbing::pipeline::convert::ToGitOutcome,
    index::entry::{Flags, Mode, Stage, Stat},
    objs::{self, tree::EntryKind},
};
use runtree_id::{CommitId, DirectoryName};

use crate::{
    checkout,
    error::{ErrorKind, Result, WorktreeError},
    files,
    layout::Ours,
    names::Ownership,
    refs,
    remove::current_path,
    report::{Dirt, RepoPath},
    repository::Worktrees,
    request::{CommitRequest, Disposable},
    scan::{self, Store},
    snapshot::{Place, Snapshot},
    tree,
};

impl Worktrees {
    /// Commits everything in a worktree of ours that git does not ignore onto what HEAD names; none if that would change nothing.
    ///
    /// As `git add --all` and `git commit` do: filters apply, what was staged is included, submodules and files marked skip-worktree
    /// stay as the index has them. Hooks do not run and nothing is signed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::NotOurs`], [`ErrorKind::Conflicted`], [`ErrorKind::NestedRepository`],
    /// [`ErrorKind::BranchMoved`] when HEAD moved meanwhile, [`ErrorKind::Busy`], and those of the file system and of git's data. The
    /// files stay as they are in each case; the index may hold what would have been committed.
    ///
    /// # Durability
    ///
    /// The commit is on the disk, synced, when its id is returned.
    pub fn commit(
        &self,
        name: &DirectoryName,
        ownership: &Ownership,
        request: &CommitRequest,
    ) -> Result<Option<CommitId>> {
        let owner = self.owned(name, ownership)?;
        let admin = self.inner.layout.admin(name.as_str());
        let _lock = Ours::inside(&admin).try_lock()?.ok_or_else(|| {
            WorktreeError::new(
                ErrorKind::Busy,
                format!("another operation works on the worktree {name}"),
            )
        })?;
        let directory = current_path(&owner, &admin);
        let place = Place {
            admin: &admin,
            directory: &directory,
            present: true,
        };
        let options = scan::Options {
            store: Store::Hash,
            disposable: &Disposable::none(),
            unfinished: None,
        };
        let snapshot = Snapshot::take(self, place, options)?;
        refuse(&snapshot, name)?;
        let repository = self.open_worktree(&admin, &directory)?;
        let head = snapshot.head;
        let index = stage_all(&repository, snapshot, &directory)?;
        let tree = tree::of_index(&index, Stage::Unconflicted).write(&repository)?;
        self.commit_tree(&repository, request, index, head, tree)
    }

    fn commit_tree(
        &self,
        repository: &gix::Repository,
        request: &CommitRequest,
        mut index: gix::index::File,
        head: ObjectId,
        tree: ObjectId,
    ) -> Result<Option<CommitId>> {
        let fail = |error| WorktreeError::git("write the commit", error);
        let head_tree = repository
            .find_commit(head)
            .and_then(|commit| commit.tree_id().map(gix::Id::detach))
            .map_err(fail)?;
        if head_tree == tree {
            return Ok(None);
        }
        let time = request.time.unwrap_or_else(|| self.inner.clock.now());
        let by = refs::signature(request.author.name(), request.author.email(), time);
        let mut message = request.message.trim_end().to_owned();
        message.push('\n');
        let commit = objs::Commit {
            tree,
            parents: [head].into_iter().collect(),
            author: by.clone(),
            committer: by.clone(),
            encoding: None,
            message: message.as_str().into(),
            extra_headers: Vec::new(),
        };
        let commit = repository
            .write_object(&commit)
            .map(gix::Id::detach)
            .map_err(fail)?;
        files::sync_file_system(&self.inner.layout.common)?;
        // The index first: cut short here, everything is staged and the next commit takes it.
        checkout::write_index(&mut index)?;
        let subject = message.lines().next().unwrap_or_default();
        let log = format!("commit: {subject}");
        if refs::advance_head(repository, head, commit, &log, &by)? {
            files::sync_file_system(&self.inner.layout.common)?;
            return refs::commit_id(commit).map(Some);
        }
        Err(WorktreeError::new(
            ErrorKind::BranchMoved,
            format!("HEAD is no longer at {head}; commit again"),
        ))
    }
}

fn refuse(snapshot: &Snapshot, name: &DirectoryName) -> Result<()> {
    if let Some(operation) = snapshot.in_progress.first() {
        return Err(WorktreeError::new(
            ErrorKind::Conflicted,
            format!("a {operation:?} is in progress in the worktree {name}; finish it first"),
        ));
    }
    if let Some(path) = snapshot.conflicted.first() {
        return Err(WorktreeError::new(
            ErrorKind::Conflicted,
            format!("{path} in the worktree {name} has unresolved conflicts"),
        ));
    }
    if let Some(path) = snapshot.scan.nested.first() {
        return Err(WorktreeError::new(
            ErrorKind::NestedRepository,
            format!("a git repository lies at {path} in the worktree {name}; move it or ignore it"),
        ));
    }
    Ok(())
}

/// Brings the index to what is on disk.
fn stage_all(
    repository: &gix::Repository,
    snapshot: Snapshot,
    directory: &Path,
) -> Result<gix::index::File> {
    let mut index = snapshot.index;
    let scan = snapshot.scan;
    let mut gone: BTreeSet<_> = scan.deleted.into_iter().collect();
    let (mut filters, attributes) = repository
        .filter_pipeline(None)
        .map_err(|error| WorktreeError::git("set up the filters", error))?;
    let mut staged = Vec::new();
    for found in scan.found {
        match found.dirt {
            Dirt::Ignored | Dirt::SkipWorktree => continue,
            Dirt::Modified
            | Dirt::Untracked
            | Dirt::AssumeUnchanged
            | Dirt::IntentToAdd
            | Dirt::Conflicted
            | Dirt::Staged
            | Dirt::Deleted => {}
        }
        let place = directory.join(found.path.to_path());
        // Its times first: a write that comes after them shows.
        let meta = gix::index::fs::Metadata::from_path_no_follow(&place)
            .map_err(|error| WorktreeError::io("look at", &place, error))?;
        let stat = Stat::from_fs(&meta).unwrap_or_default();
        let bytes = if found.kind == EntryKind::Link {
            fs::read_link(&place).map(|target| target.as_os_str().as_bytes().to_vec())
        } else {
            fs::read(&place)
        }
        .map_err(|error| WorktreeError::io("read", &place, error))?;
        let clean = match found.kind {
            EntryKind::Link => bytes,
            EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Tree | EntryKind::Commit => {
                clean(&mut filters, &attributes, &found.path, bytes)?
            }
        };
        let id = repository
            .write_blob(&clean)
            .map_err(|error| WorktreeError::git(format!("store {}", found.path), error))?
            .detach();
        gone.insert(found.path.clone());
        staged.push((found.path, mode_of(found.kind), id, stat));
    }
    index.remove_entries(|_, path, _| gone.contains(&RepoPath::from_bytes(path.to_vec())));
    for (path, mode, id, stat) in staged {
        index.dangerously_push_entry(stat, id, Flags::empty(), mode, path.as_bytes().into());
    }
    index.sort_entries();
    Ok(index)
}

/// Turns the bytes on disk into those that git stores.
fn clean(
    filters: &mut gix::filter::Pipeline<'_>,
    attributes: &gix::index::State,
    path: &RepoPath,
    bytes: Vec<u8>,
) -> Result<Vec<u8>> {
    let fail = |error| WorktreeError::git(format!("filter {path}"), error);
    let outcome = filters
        .convert_to_git(bytes.as_slice(), &path.to_path(), attributes)
        .map_err(fail)?;
    Ok(match outcome {
        ToGitOutcome::Unchanged(_) => bytes,
        ToGitOutcome::Buffer(buffer) => buffer.to_vec(),
        ToGitOutcome::Process(mut process) => {
            let mut cleaned = Vec::new();
            process
                .read_to_end(&mut cleaned)
                .map_err(|error| WorktreeError::git(format!("filter {path}"), error))?;
            cleaned
        }
    })
}

fn mode_of(kind: EntryKind) -> Mode {
    match kind {
        EntryKind::BlobExecutable => Mode::FILE_EXECUTABLE,
        EntryKind::Link => Mode::SYMLINK,
        EntryKind::Blob | EntryKind::Tree | EntryKind::Commit => Mode::FILE,
    }
}
