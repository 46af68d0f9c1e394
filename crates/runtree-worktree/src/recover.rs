//! What a crash left, finished or undone; the undoing of a half-made worktree is the same whether its maker failed or died.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use gix::ObjectId;
use runtree_id::BranchName;

use crate::{
    error::{Result, WorktreeError},
    files::{self, Identity},
    layout::{self, Lock, Ours},
    names::{LockHolder, SalvageRef},
    record::{Owner, Removing},
    refs, registry,
    remove::{Finished, current_path, names_admin, unknown},
    report::{InProgress, KeepReason, Liveness, Outcome, Recovered, Recovery, Removal, RepoPath},
    repository::Worktrees,
    request::{Disposable, RemoveWorktree},
    salvage::{self, Loaded},
    scan::{self, Store, Unfinished},
    snapshot::{Place, Snapshot},
};

impl Worktrees {
    /// Finishes or undoes what a crash left: half-made worktrees are undone, removals are finished or called off.
    ///
    /// Only what carries a token of ours is touched, only where no operation is at work on it (a lock that the kernel releases with
    /// its process), and only where `probe` answers that whoever held it is dead. A half-made worktree in which somebody put files is
    /// kept and counts as made, so that [`remove`](Self::remove) can save them.
    ///
    /// # Errors
    ///
    /// Those of the file system on the registry as a whole; trouble with one worktree is a reason to keep it.
    pub fn recover(&self, probe: &dyn Fn(&LockHolder) -> Liveness) -> Result<Vec<Recovered>> {
        let layout = &self.inner.layout;
        let mut recovered = Vec::new();
        for (place, lock) in self.lock_staging(&mut recovered)? {
            recovered.push(self.recover_one(&place, probe, Self::recover_staged));
            drop(lock);
        }
        for place in registry::registrations(layout)? {
            let ours = Ours::inside(&place);
            if !files::exists(&ours.owner())? || is_settled(&ours)? {
                continue;
            }
            recovered.extend(self.recover_locked(&place, probe, Self::recover_registered));
        }
        for place in registry::directories_in(&layout.retired())? {
            recovered.extend(self.recover_one_retired(&place));
        }
        Ok(recovered)
    }

    /// Takes the locks of the staging directories whose makers are gone.
    ///
    /// That is done under the registry's lock, under which makers begin: a directory without a lock file is a maker's that died.
    fn lock_staging(&self, recovered: &mut Vec<Recovered>) -> Result<Vec<(PathBuf, Lock)>> {
        let layout = &self.inner.layout;
        if !files::exists(&layout.staging())? {
            return Ok(Vec::new());
        }
        let _registry_lock = layout.lock_registry()?;
        let mut locked = Vec::new();
        for place in registry::directories_in(&layout.staging())? {
            let ours = Ours::inside(&place);
            if !files::exists(&ours.owner())? {
                files::remove_tree(&place)?;
                recovered.push(describe(&place, None, Recovery::AddUndone));
                continue;
            }
            match ours.try_lock()? {
                Some(lock) => locked.push((place, lock)),
                None => recovered.push(describe(
                    &place,
                    Owner::read(&ours).ok().flatten().as_ref(),
                    Recovery::Kept(KeepReason::Busy),
                )),
            }
        }
        Ok(locked)
    }

    /// Finishes with a registration that git no longer sees, whoever took it out: nothing of it is of value, and its lock tells
    /// whether somebody is at work on it.
    fn recover_one_retired(&self, place: &Path) -> Option<Recovered> {
        match files::exists(&Ours::inside(place).owner()) {
            Ok(true) => self.recover_locked(place, &|_| Liveness::Dead, Self::recover_retired),
            Ok(false) => Some(describe(
                place,
                None,
                match clear_retired(place) {
                    Ok(()) => Recovery::RemovalFinished,
                    Err(error) => Recovery::Kept(unknown(&error)),
                },
            )),
            Err(error) => Some(describe(place, None, Recovery::Kept(unknown(&error)))),
        }
    }

    fn recover_locked(
        &self,
        place: &Path,
        probe: &dyn Fn(&LockHolder) -> Liveness,
        how: fn(&Self, &Owner, &Path) -> Result<Option<Recovery>>,
    ) -> Option<Recovered> {
        let ours = Ours::inside(place);
        match ours.try_lock() {
            Ok(Some(_lock)) => Some(self.recover_one(place, probe, how)),
            // Gone meanwhile: whoever works on it finishes it.
            Ok(None) if !place.exists() => None,
            Ok(None) => {
                let owner = Owner::read(&ours).ok().flatten();
                let busy = Recovery::Kept(KeepReason::Busy);
                Some(describe(place, owner.as_ref(), busy))
            }
            Err(error) => Some(describe(place, None, Recovery::Kept(unknown(&error)))),
        }
    }

    /// Recovers what lies at `place`, whose lock the caller holds.
    fn recover_one(
        &self,
        place: &Path,
        probe: &dyn Fn(&LockHolder) -> Liveness,
        how: fn(&Self, &Owner, &Path) -> Result<Option<Recovery>>,
    ) -> Recovered {
        let ours = Ours::inside(place);
        let (owner, removing) = match (Owner::read(&ours), Removing::read(&ours)) {
            (Ok(Some(owner)), Ok(removing)) => (owner, removing),
            (Ok(None), _) => {
                return describe(place, None, Recovery::Kept(KeepReason::Foreign));
            }
            (Err(error), _) | (_, Err(error)) => {
                return describe(place, None, Recovery::Kept(unknown(&error)));
            }
        };
        let holder = removing
            .as_ref()
            .map_or(&owner.holder, |removing| &removing.holder);
        // What was found to be saved is only to be deleted yet: the lock, which we hold, tells that nobody is doing it.
        let verified = removing.is_some() && ours.verified().is_file();
        let liveness = if verified {
            Liveness::Dead
        } else {
            probe(holder)
        };
        let recovery = match liveness {
            Liveness::Dead => match how(self, &owner, place) {
                Ok(recovery) => recovery.unwrap_or(Recovery::Kept(KeepReason::Busy)),
                Err(error) => Recovery::Kept(unknown(&error)),
            },
            Liveness::Alive | Liveness::Unknown => Recovery::Kept(KeepReason::Busy),
        };
        let mut recovered = describe(place, Some(&owner), recovery);
        recovered.holder = Some(holder.clone());
        recovered.salvage = removing
            .and_then(|removing| removing.salvage)
            .map(|saved| saved.reference);
        recovered
    }

    fn recover_staged(&self, owner: &Owner, place: &Path) -> Result<Option<Recovery>> {
        Ok(Some(self.undo_add(owner, place)?))
    }

    fn recover_registered(&self, owner: &Owner, place: &Path) -> Result<Option<Recovery>> {
        let ours = Ours::inside(place);
        if let Some(finished) = self.finish_earlier(place, &ours)? {
            return Ok(Some(match finished {
                Finished::Removed { .. } => Recovery::RemovalFinished,
                Finished::CalledOff => Recovery::RemovalUndone,
                Finished::Kept(reason) => Recovery::Kept(reason),
            }));
        }
        if files::exists(&ours.ready())? {
            // Its maker finished between our two looks.
            return Ok(None);
        }
        Ok(Some(self.undo_add(owner, place)?))
    }

    /// Finishes the end of an earlier removal, or of an undoing, of a worktree that git no longer sees.
    pub(crate) fn finish_retired(
        &self,
        request: &RemoveWorktree,
        removal: &mut Removal,
    ) -> Result<()> {
        let place = self.inner.layout.retired().join(request.name.as_str());
        let ours = Ours::inside(&place);
        let Some(owner) = Owner::read(&ours)? else {
            if files::exists(&place)? {
                clear_retired(&place)?;
                removal.outcome = Outcome::Removed;
            }
            return Ok(());
        };
        if owner.ownership != request.ownership {
            removal.outcome = Outcome::Kept(KeepReason::OwnedByOther(owner.ownership));
            return Ok(());
        }
        let Some(_lock) = ours.try_lock()? else {
            removal.outcome = Outcome::Kept(KeepReason::Busy);
            return Ok(());
        };
        let removing = Removing::read(&ours)?;
        removal.salvage = removing
            .and_then(|removing| removing.salvage)
            .map(|saved| saved.reference);
        self.recover_retired(&owner, &place)?;
        removal.outcome = Outcome::Removed;
        Ok(())
    }

    fn recover_retired(&self, owner: &Owner, place: &Path) -> Result<Option<Recovery>> {
        let removing = Removing::read(&Ours::inside(place))?;
        let recovery = match removing {
            Some(removing) => {
                self.settle_branch(owner, removing.branch_policy())?;
                Recovery::RemovalFinished
            }
            None => {
                self.undo_branch(owner)?;
                Recovery::AddUndone
            }
        };
        clear_retired(place)?;
        Ok(Some(recovery))
    }

    fn undo_add(&self, owner: &Owner, place: &Path) -> Result<Recovery> {
        Ok(match self.discard(owner, place)? {
            None => Recovery::AddUndone,
            Some(reason) => Recovery::Kept(reason),
        })
    }

    /// Undoes the making of a worktree whose administrative directory is at `admin`, staged or registered.
    ///
    /// Directory, registration and branch go together; if somebody put files into the directory, all of them stay, for that reason.
    pub(crate) fn discard(&self, owner: &Owner, admin: &Path) -> Result<Option<KeepReason>> {
        let registered = self.inner.layout.admin(owner.name.as_str());
        if admin == registered {
            return self.discard_registered(owner, admin);
        }
        let path = owner.path();
        files::remove_tree(&layout::nursery(&path))?;
        layout::tidy_hidden(&path);
        if let Some(reason) = discard_directory(owner, &path, &registered)? {
            return Ok(Some(reason));
        }
        self.undo_branch(owner)?;
        files::remove_tree(admin)?;
        files::remove_if_empty(&self.inner.layout.registry());
        Ok(None)
    }

    fn discard_registered(&self, owner: &Owner, admin: &Path) -> Result<Option<KeepReason>> {
        let path = current_path(owner, admin);
        let trash = layout::trash(&path);
        for place in [&path, &trash] {
            if let Some(reason) = obstacle(owner, place)? {
                return Ok(Some(reason));
            }
        }
        if files::exists(&path)? {
            layout::in_hidden_parent(&trash, || files::rename_directory(&path, &trash))
                .map_err(|error| WorktreeError::io("move to the trash", &path, error))?;
        }
        // Whoever was on the way in when we looked is in now.
        if let Some(reason) = obstacle(owner, &trash)? {
            self.put_back(owner, admin)?;
            return Ok(Some(reason));
        }
        if let Some(reason) = self.foreign_content(owner, admin, &trash)? {
            self.put_back(owner, admin)?;
            // It is a worktree with something of value in it, and can be removed like any other.
            files::replace(&Ours::inside(admin).ready(), b"")?;
            return Ok(Some(reason));
        }
        self.empty_trash(owner, admin)?;
        let retired = self.retire(owner, admin)?;
        self.undo_branch(owner)?;
        clear_retired(&retired)?;
        Ok(None)
    }

    /// Looks in a half-made checkout for anything that we did not write.
    fn foreign_content(
        &self,
        owner: &Owner,
        admin: &Path,
        trash: &Path,
    ) -> Result<Option<KeepReason>> {
        if !files::exists(trash)? {
            return Ok(None);
        }
        let loaded = match &owner.restores {
            None => None,
            Some(commit) => {
                let repository = self.repository();
                let id = refs::object_id(&repository, commit)?;
                Some(salvage::load(&repository, id)?)
            }
        };
        let salvaged = loaded.iter().flat_map(|loaded| &loaded.worktree);
        let salvaged = salvaged
            .map(|(path, flat)| (path.clone(), flat.id))
            .collect();
        let place = Place {
            admin,
            directory: trash,
            present: true,
        };
        let options = scan::Options {
            store: Store::Hash,
            disposable: &Disposable::none(),
            unfinished: Some(Unfinished { salvaged }),
        };
        // A look that fails proves nothing, and keeps.
        let snapshot = match Snapshot::take(self, place, options) {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Some(unknown(&error))),
        };
        match self.foreign_state(owner, &snapshot, loaded.as_ref()) {
            Ok(None) => {}
            Ok(Some(reason)) => return Ok(Some(reason)),
            Err(error) => return Ok(Some(unknown(&error))),
        }
        let scan = snapshot.scan;
        let strange = scan
            .found
            .into_iter()
            .map(|found| found.path)
            .chain(scan.nested)
            .chain(scan.unsavable)
            .next();
        Ok(strange
            .map(KeepReason::Changed)
            .or_else(|| scan.mounts.into_iter().next().map(KeepReason::MountInside)))
    }

    /// Looks in the administrative directory of a half-made worktree for anything that neither its base nor its salvage holds.
    fn foreign_state(
        &self,
        owner: &Owner,
        snapshot: &Snapshot,
        restores: Option<&Loaded>,
    ) -> Result<Option<KeepReason>> {
        let main = self.repository();
        let base = refs::object_id(&main, &owner.base)?;
        let state = || Some(KeepReason::Changed(RepoPath::from_bytes(".git")));
        let reference = owner.branch.as_ref().map(BranchName::full_ref);
        if snapshot.head != base || snapshot.head_reference.as_deref() != reference {
            return Ok(state());
        }
        let begun = |operation: &&InProgress| {
            restores.is_none_or(|loaded| !loaded.meta.in_progress.contains(operation))
        };
        if let Some(operation) = snapshot.in_progress.iter().find(begun) {
            return Ok(Some(KeepReason::InProgress(*operation)));
        }
        let known = restores.map_or(base, |loaded| loaded.commit);
        let lost = snapshot.lost.keys().copied().collect();
        if !refs::unreachable(&main, &lost, &[base, known].into())?.is_empty()
            || (restores.is_none() && !snapshot.others.is_empty())
        {
            return Ok(state());
        }
        // What the index holds beyond the commit must be what the index of the salvage holds.
        let saved = match restores {
            None => BTreeSet::new(),
            Some(loaded) => {
                let fail = |error| WorktreeError::git("read the index of the salvage", error);
                entries_of(&main.index_from_tree(&loaded.index_tree).map_err(fail)?)
            }
        };
        let here = entries_of(&snapshot.index);
        let is_saved = |path: &&RepoPath| {
            let entry = |entries: &BTreeSet<(RepoPath, ObjectId)>| -> Vec<ObjectId> {
                let of_path = entries.iter().filter(|(other, _)| other == *path);
                of_path.map(|(_, id)| *id).collect()
            };
            restores.is_some_and(|loaded| loaded.meta.conflicted.contains(path))
                || (restores.is_some() && entry(&here) == entry(&saved))
        };
        Ok(snapshot
            .staged
            .iter()
            .chain(&snapshot.conflicted)
            .chain(&snapshot.announced)
            .find(|path| !is_saved(path))
            .cloned()
            .map(KeepReason::Changed))
    }

    /// Deletes the branch that this very making made, if nothing was done with it and nobody has it checked out.
    fn undo_branch(&self, owner: &Owner) -> Result<()> {
        let (Some(branch), true) = (&owner.branch, owner.makes_branch) else {
            return Ok(());
        };
        let main = self.repository();
        let base = refs::object_id(&main, &owner.base)?;
        // Under it, no worktree of ours comes to have the branch checked out.
        let _registry_lock = self.inner.layout.lock_registry()?;
        if refs::read(&main, branch.full_ref())? == Some(base)
            && refs::was_made_by_us(&main, branch, &owner.branch_message())?
            && registry::holder_of_branch(&self.inner.layout, branch, None)?.is_none()
        {
            refs::delete(&main, branch.full_ref(), base, self.inner.clock.now())?;
        }
        Ok(())
    }
}

/// Tells whether nothing was being done with a registered worktree.
fn is_settled(ours: &Ours) -> Result<bool> {
    Ok(files::exists(&ours.ready())? && !files::exists(&ours.removing())?)
}

/// Names what speaks against touching a directory that is to be undone: it is another one, or in use.
fn obstacle(owner: &Owner, place: &Path) -> Result<Option<KeepReason>> {
    let fail = |error| WorktreeError::io("look at", place, error);
    if !files::exists(place)? {
        return Ok(None);
    }
    let identity = Identity::of_directory(place).map_err(fail)?;
    if identity.is_none() || identity != owner.directory {
        return Ok(Some(KeepReason::IdentityChanged));
    }
    if let Some(mount) = files::mounts_under(place).map_err(fail)?.into_iter().next() {
        return Ok(Some(KeepReason::MountInside(mount)));
    }
    Ok(files::process_inside(place).map(|process_id| KeepReason::InUse { process_id }))
}

/// Deletes what is left of a registration once nothing remains to be done.
///
/// The token goes first: a directory without one is finished, however much of it a crash leaves.
pub(crate) fn clear_retired(retired: &Path) -> Result<()> {
    files::remove_file(&Ours::inside(retired).owner())?;
    files::remove_tree(retired)
}

/// Lists the entries of an index.
fn entries_of(index: &gix::index::File) -> BTreeSet<(RepoPath, ObjectId)> {
    let entries = index.entries().iter();
    entries
        .map(|entry| (RepoPath::from_bytes(entry.path(index).to_vec()), entry.id))
        .collect()
}

/// Removes the directory of a worktree that was never registered: it may hold its `.git` file and nothing else.
fn discard_directory(owner: &Owner, path: &Path, admin: &Path) -> Result<Option<KeepReason>> {
    let identity =
        Identity::of_directory(path).map_err(|error| WorktreeError::io("look at", path, error))?;
    if identity.is_none() || !names_admin(path, admin) {
        return Ok(None);
    }
    // Registered by somebody else: then it is the directory of that worktree and none of ours.
    if files::exists(admin)? && registry::read_gitdir(admin).map_or(true, |named| named == path) {
        return Ok(None);
    }
    if owner.directory.is_some() && identity != owner.directory {
        return Ok(Some(KeepReason::IdentityChanged));
    }
    let fail = |error| WorktreeError::io("list", path, error);
    for entry in fs::read_dir(path).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if name != ".git" {
            let strange = RepoPath::from_bytes(name.as_encoded_bytes());
            return Ok(Some(KeepReason::Changed(strange)));
        }
    }
    files::remove_tree(path)?;
    Ok(None)
}

fn describe(place: &Path, owner: Option<&Owner>, recovery: Recovery) -> Recovered {
    let salvage: Option<SalvageRef> = None;
    Recovered {
        name: place
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        ownership: owner.map(|owner| owner.ownership.clone()),
        holder: owner.map(|owner| owner.holder.clone()),
        recovery,
        salvage,
    }
}
