//! What a worktree held, kept under a reference: written, read back, listed and dropped. The format is told in [`crate::format`].

use std::collections::{BTreeMap, BTreeSet};

use gix::{
    ObjectId,
    bstr::ByteSlice,
    index::entry::{Flags, Stage},
    objs::{self, tree::EntryKind},
};
use runtree_id::{BranchName, CommitId, DirectoryName};
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files,
    names::{Ownership, SalvageRef},
    record::{Owner, SavedAs},
    refs,
    report::{Dirt, DirtyFile, InProgress, RepoPath, Salvage},
    repository::Worktrees,
    snapshot::Snapshot,
    tree::{self, Flat, TreeBuilder},
};

/// The one format there is.
const FORMAT: u32 = 1;

/// How many salvages of one name there may be.
const SAME_NAME_LIMIT: u32 = 10_000;

/// The line of the commit's message that tells when.
const SAVED_AT: &str = "Saved-at: ";

/// What `meta.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    format: u32,
    pub(crate) name: DirectoryName,
    pub(crate) ownership: Ownership,
    pub(crate) base: CommitId,
    pub(crate) head: CommitId,
    /// The full name of the reference that HEAD named.
    pub(crate) reference: Option<String>,
    /// The files written as they were, unfiltered, with their permissions.
    pub(crate) files: Vec<MetaFile>,
    pub(crate) staged: Vec<RepoPath>,
    pub(crate) conflicted: Vec<RepoPath>,
    pub(crate) announced: Vec<RepoPath>,
    /// In the index, not on disk.
    pub(crate) deleted: Vec<RepoPath>,
    /// In the index, marked skip-worktree, not on disk.
    pub(crate) skipped: Vec<RepoPath>,
    pub(crate) empty_directories: Vec<RepoPath>,
    pub(crate) commits: Vec<CommitId>,
    pub(crate) in_progress: BTreeSet<InProgress>,
}

/// A file whose bytes on disk were saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MetaFile {
    pub(crate) path: RepoPath,
    pub(crate) dirt: Dirt,
    pub(crate) permissions: u32,
}

/// A salvage read from the object database.
pub(crate) struct Loaded {
    pub(crate) commit: ObjectId,
    pub(crate) meta: Meta,
    pub(crate) saved_at: Timestamp,
    pub(crate) index_tree: ObjectId,
    pub(crate) worktree: BTreeMap<RepoPath, Flat>,
    pub(crate) admin: BTreeMap<RepoPath, Flat>,
}

impl Worktrees {
    /// Lists what was saved, ordered by reference.
    ///
    /// One that cannot be read is left out, with a warning in the log, so that it hides no other; [`salvage`](Self::salvage) tells what
    /// is wrong with it.
    ///
    /// # Errors
    ///
    /// Those of git's data, on the references as a whole.
    pub fn salvages(&self) -> Result<Vec<Salvage>> {
        let repository = self.repository();
        let mut found = BTreeSet::new();
        for reference in refs::list(&repository)? {
            if let Ok(name) = reference.name().as_bstr().to_str()
                && let Ok(name) = SalvageRef::new(name)
            {
                found.insert(name);
            }
        }
        let readable = found.iter().filter_map(|name| match self.salvage(name) {
            Ok(salvage) => Some(salvage),
            Err(error) => {
                tracing::warn!(reference = name.as_str(), %error, "a salvage cannot be read");
                None
            }
        });
        Ok(readable.collect())
    }

    /// Reads one salvage.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SalvageNotFound`], [`ErrorKind::SalvageCorrupt`], and those of git's data.
    pub fn salvage(&self, reference: &SalvageRef) -> Result<Salvage> {
        self.load_salvage(reference)?.report(reference)
    }

    /// Drops a salvage that is still the commit the caller saw; what it alone held will be collected by git.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SalvageNotFound`], [`ErrorKind::SalvageCorrupt`] when it is another commit by now, and those of git's data.
    pub fn drop_salvage(&self, reference: &SalvageRef, expected: &CommitId) -> Result<()> {
        let repository = self.repository();
        let expected_id = refs::object_id(&repository, expected)?;
        let now = self.inner.clock.now();
        if refs::delete(&repository, reference.as_str(), expected_id, now)? {
            return Ok(());
        }
        match refs::read(&repository, reference.as_str())? {
            None => Err(not_found(reference)),
            Some(other) => Err(corrupt(
                reference,
                &format!("it is {other} by now, not {expected}"),
            )),
        }
    }

    pub(crate) fn load_salvage(&self, reference: &SalvageRef) -> Result<Loaded> {
        let repository = self.repository();
        let commit =
            refs::read(&repository, reference.as_str())?.ok_or_else(|| not_found(reference))?;
        load(&repository, commit)
            .map_err(|error| corrupt(reference, &error.to_string()).with_source(error))
    }

    /// Saves what a worktree holds, and reads it back.
    ///
    /// The bytes of its files were written by the snapshot already.
    pub(crate) fn save(&self, owner: &Owner, snapshot: &Snapshot) -> Result<SavedAs> {
        let repository = self.repository();
        let tree = write_tree(&repository, owner, snapshot)?;
        let mut parents = vec![snapshot.head];
        parents.extend(
            refs::tips(&snapshot.lost)
                .into_iter()
                .filter(|tip| *tip != snapshot.head),
        );
        let saved = match self.find_same(&repository, owner, tree, &parents)? {
            Some(saved) => saved,
            None => self.write_commit(&repository, owner, tree, parents)?,
        };
        if let Err(error) = self.read_back(&saved, snapshot) {
            self.withdraw(&saved);
            return Err(error);
        }
        Ok(saved)
    }

    /// Takes back the reference to a salvage that no removal needs: the worktree is where it was, with all that it holds.
    pub(crate) fn withdraw(&self, saved: &SavedAs) {
        if !saved.made {
            return;
        }
        if let Err(error) = self.drop_salvage(&saved.reference, &saved.commit) {
            tracing::warn!(
                reference = saved.reference.as_str(),
                %error,
                "a salvage that is not needed stays"
            );
        }
    }

    fn write_commit(
        &self,
        repository: &gix::Repository,
        owner: &Owner,
        tree: ObjectId,
        parents: Vec<ObjectId>,
    ) -> Result<SavedAs> {
        let saved_at = self.inner.clock.now();
        let by = refs::our_signature(saved_at);
        let commit = objs::Commit {
            tree,
            parents: parents.into(),
            author: by.clone(),
            committer: by,
            encoding: None,
            message: format!(
                "runtree: salvage of {}\n\nOwnership: {}\n{SAVED_AT}{saved_at}\n",
                owner.name, owner.ownership
            )
            .into(),
            extra_headers: Vec::new(),
        };
        let commit = repository
            .write_object(&commit)
            .map(gix::Id::detach)
            .map_err(|error| WorktreeError::git("write the salvage", error))?;
        // The reference must never point to what a power cut could still take.
        files::sync_file_system(&self.inner.layout.common)?;
        let reference = self.name_salvage(repository, owner, commit, saved_at)?;
        files::sync_file_system(&self.inner.layout.common)?;
        Ok(SavedAs {
            reference,
            commit: refs::commit_id(commit)?,
            made: true,
        })
    }

    /// Finds a salvage of the same state that a removal cut short left behind.
    fn find_same(
        &self,
        repository: &gix::Repository,
        owner: &Owner,
        tree: ObjectId,
        parents: &[ObjectId],
    ) -> Result<Option<SavedAs>> {
        for number in 1..SAME_NAME_LIMIT {
            let reference = SalvageRef::for_name(owner.name.as_str(), number)?;
            let Some(id) = refs::read(repository, reference.as_str())? else {
                return Ok(None);
            };
            let same = repository.find_commit(id).ok().is_some_and(|commit| {
                let found: Vec<_> = commit.parent_ids().map(gix::Id::detach).collect();
                commit.tree_id().ok().map(gix::Id::detach) == Some(tree) && found == parents
            });
            if same {
                return Ok(Some(SavedAs {
                    reference,
                    commit: refs::commit_id(id)?,
                    made: false,
                }));
            }
        }
        Ok(None)
    }

    fn name_salvage(
        &self,
        repository: &gix::Repository,
        owner: &Owner,
        commit: ObjectId,
        now: Timestamp,
    ) -> Result<SalvageRef> {
        let message = format!("runtree: salvage for {}", owner.ownership);
        for number in 1..SAME_NAME_LIMIT {
            let reference = SalvageRef::for_name(owner.name.as_str(), number)?;
            if refs::create(repository, reference.as_str(), commit, &message, now)? {
                return Ok(reference);
            }
        }
        Err(WorktreeError::new(
            ErrorKind::Busy,
            format!("there are {SAME_NAME_LIMIT} salvages of {}", owner.name),
        ))
    }

    /// Reads a salvage back through a handle that has cached nothing, and compares it with what should be in it.
    fn read_back(&self, saved: &SavedAs, snapshot: &Snapshot) -> Result<()> {
        let fresh = Self::builder(&self.inner.layout.common)
            .root(&self.inner.layout.root)
            .config_scope(self.inner.scope)
            .open()?;
        let loaded = fresh.load_salvage(&saved.reference)?;
        let differs = |what: &str| Err(corrupt(&saved.reference, what));
        if refs::commit_id(loaded.commit)? != saved.commit {
            return differs("it is another commit");
        }
        for found in &snapshot.scan.found {
            let expected = Flat {
                kind: found.kind,
                id: found.id,
            };
            if loaded.worktree.get(&found.path) != Some(&expected) {
                return differs(&format!("{} is not in it as it was", found.path));
            }
        }
        let repository = fresh.repository();
        for commit in snapshot.lost.keys() {
            repository
                .find_commit(*commit)
                .map_err(|error| WorktreeError::git(format!("read {commit} back"), error))?;
        }
        verify_objects(&repository, loaded.commit, snapshot.head)
    }
}

impl Loaded {
    pub(crate) fn report(&self, reference: &SalvageRef) -> Result<Salvage> {
        let meta = &self.meta;
        let mut files: BTreeSet<_> = meta
            .files
            .iter()
            .map(|file| DirtyFile {
                path: file.path.clone(),
                dirt: file.dirt,
            })
            .collect();
        for (paths, dirt) in [
            (&meta.staged, Dirt::Staged),
            (&meta.conflicted, Dirt::Conflicted),
            (&meta.announced, Dirt::IntentToAdd),
            (&meta.deleted, Dirt::Deleted),
        ] {
            files.extend(paths.iter().map(|path| DirtyFile {
                path: path.clone(),
                dirt,
            }));
        }
        Ok(Salvage {
            reference: reference.clone(),
            commit: refs::commit_id(self.commit)?,
            name: meta.name.clone(),
            ownership: meta.ownership.clone(),
            saved_at: self.saved_at,
            head: meta.head,
            branch: self.branch(),
            files: files.into_iter().collect(),
            commits: meta.commits.clone(),
            in_progress: meta.in_progress.iter().copied().collect(),
        })
    }

    pub(crate) fn branch(&self) -> Option<BranchName> {
        BranchName::from_full_ref(self.meta.reference.as_deref()?).ok()
    }
}

fn not_found(reference: &SalvageRef) -> WorktreeError {
    WorktreeError::new(
        ErrorKind::SalvageNotFound,
        format!("there is no salvage {reference}"),
    )
}

fn corrupt(reference: &SalvageRef, why: &str) -> WorktreeError {
    WorktreeError::new(
        ErrorKind::SalvageCorrupt,
        format!("the salvage {reference} cannot be trusted: {why}"),
    )
}

fn write_tree(
    repository: &gix::Repository,
    owner: &Owner,
    snapshot: &Snapshot,
) -> Result<ObjectId> {
    let mut top = TreeBuilder::default();
    let path = |text: &str| RepoPath::from_bytes(text);
    let write_blob = |bytes: &[u8]| {
        repository
            .write_blob(bytes)
            .map(gix::Id::detach)
            .map_err(|error| WorktreeError::git("write a file of the salvage", error))
    };
    let meta = serde_json::to_vec_pretty(&meta_of(owner, snapshot)?).map_err(|error| {
        WorktreeError::new(ErrorKind::Corrupt, "cannot encode the salvage").with_source(error)
    })?;
    top.insert(&path("meta.json"), EntryKind::Blob, write_blob(&meta)?);
    let index = tree::of_index(&snapshot.index, Stage::Unconflicted).write(repository)?;
    top.insert(&path("index"), EntryKind::Tree, index);
    let worktree = worktree_tree(snapshot).write(repository)?;
    top.insert(&path("worktree"), EntryKind::Tree, worktree);
    for (stage, name) in [
        (Stage::Base, "stages/1"),
        (Stage::Ours, "stages/2"),
        (Stage::Theirs, "stages/3"),
    ] {
        let stage = tree::of_index(&snapshot.index, stage);
        if !stage.is_empty() {
            top.insert(&path(name), EntryKind::Tree, stage.write(repository)?);
        }
    }
    for file in &snapshot.admin_files {
        let bytes = std::fs::read(&file.place)
            .map_err(|error| WorktreeError::io("read", &file.place, error))?;
        let below = RepoPath::from_bytes([b"admin/", file.path.as_bytes()].concat());
        top.insert(&below, EntryKind::Blob, write_blob(&bytes)?);
    }
    for id in &snapshot.others {
        let header = repository
            .find_header(*id)
            .map_err(|error| WorktreeError::git(format!("read the object {id}"), error))?;
        let kind = match header.kind() {
            objs::Kind::Tree => EntryKind::Tree,
            objs::Kind::Blob => EntryKind::Blob,
            objs::Kind::Commit | objs::Kind::Tag => continue,
        };
        top.insert(&path(&format!("objects/{id}")), kind, *id);
    }
    top.write(repository)
}

fn meta_of(owner: &Owner, snapshot: &Snapshot) -> Result<Meta> {
    let scan = &snapshot.scan;
    Ok(Meta {
        format: FORMAT,
        name: owner.name.clone(),
        ownership: owner.ownership.clone(),
        base: owner.base,
        head: refs::commit_id(snapshot.head)?,
        reference: snapshot.head_reference.clone(),
        files: scan
            .found
            .iter()
            .map(|found| MetaFile {
                path: found.path.clone(),
                dirt: found.dirt,
                permissions: found.permissions,
            })
            .collect(),
        staged: snapshot.staged.clone(),
        conflicted: snapshot.conflicted.clone(),
        announced: snapshot.announced.clone(),
        deleted: scan.deleted.clone(),
        skipped: scan.skipped.clone(),
        empty_directories: scan.empty_directories.clone(),
        commits: snapshot
            .lost
            .keys()
            .map(|id| refs::commit_id(*id))
            .collect::<Result<_>>()?,
        in_progress: snapshot.in_progress.clone(),
    })
}

/// What is on disk: the index's entries that are there, and over them the files that differ.
fn worktree_tree(snapshot: &Snapshot) -> TreeBuilder {
    let scan = &snapshot.scan;
    let absent: BTreeSet<_> = scan.deleted.iter().chain(&scan.skipped).collect();
    let mut builder = TreeBuilder::default();
    let index = &snapshot.index;
    for entry in index.entries() {
        let path = RepoPath::from_bytes(entry.path(index).to_vec());
        if entry.stage() == Stage::Unconflicted
            && !entry.flags.contains(Flags::INTENT_TO_ADD)
            && !absent.contains(&path)
            && let Some(kind) = tree::kind_of(entry.mode)
        {
            builder.insert(&path, kind, entry.id);
        }
    }
    for found in &scan.found {
        builder.insert(&found.path, found.kind, found.id);
    }
    builder
}

/// Reads a salvage from its commit.
pub(crate) fn load(repository: &gix::Repository, id: ObjectId) -> Result<Loaded> {
    let fail = |error| WorktreeError::git(format!("read the salvage {id}"), error);
    let malformed =
        |why: String| WorktreeError::new(ErrorKind::SalvageCorrupt, format!("{id} {why}"));
    let commit = repository.find_commit(id).map_err(fail)?;
    let message = commit.message_raw().map_err(fail)?.to_string();
    let saved_at = message
        .lines()
        .find_map(|line| line.strip_prefix(SAVED_AT))
        .and_then(|text| text.parse::<Timestamp>().ok())
        .ok_or_else(|| malformed("does not tell when it was made".to_owned()))?;
    let tree = commit.tree().map_err(fail)?;
    let mut parts = BTreeMap::new();
    for entry in tree.iter() {
        let entry = entry.map_err(fail)?;
        parts.insert(entry.filename().to_string(), entry.object_id());
    }
    let part = |name: &str| {
        parts
            .get(name)
            .copied()
            .ok_or_else(|| malformed(format!("has no {name}")))
    };
    let meta = repository.find_blob(part("meta.json")?).map_err(fail)?;
    let meta: Meta = serde_json::from_slice(&meta.data).map_err(|error| {
        malformed("has a meta.json of another form".to_owned()).with_source(error)
    })?;
    if meta.format != FORMAT {
        return Err(malformed(format!(
            "is of the unknown format {}",
            meta.format
        )));
    }
    Ok(Loaded {
        commit: id,
        saved_at,
        index_tree: part("index")?,
        worktree: tree::flatten(repository, part("worktree")?)?,
        admin: match parts.get("admin") {
            Some(admin) => tree::flatten(repository, *admin)?,
            None => BTreeMap::new(),
        },
        meta,
    })
}

/// Hashes every object of the salvage again that HEAD's tree does not hold.
fn verify_objects(repository: &gix::Repository, salvage: ObjectId, head: ObjectId) -> Result<()> {
    let tree_of = |commit: ObjectId| {
        repository
            .find_commit(commit)
            .and_then(|commit| commit.tree_id().map(gix::Id::detach))
            .map_err(|error| WorktreeError::git(format!("read {commit} back"), error))
    };
    let held: BTreeSet<_> = tree::flatten(repository, tree_of(head)?)?
        .into_values()
        .map(|flat| flat.id)
        .collect();
    let saved = tree::flatten(repository, tree_of(salvage)?)?;
    for (path, flat) in saved {
        if held.contains(&flat.id) || flat.kind == EntryKind::Commit {
            continue;
        }
        let fail = |error| WorktreeError::git(format!("read {path} back"), error);
        let object = repository.find_object(flat.id).map_err(fail)?;
        let hash = objs::compute_hash(repository.object_hash(), object.kind, &object.data)
            .map_err(fail)?;
        if hash != flat.id {
            return Err(WorktreeError::new(
                ErrorKind::SalvageCorrupt,
                format!("{path} was read back with other bytes"),
            ));
        }
    }
    Ok(())
}
