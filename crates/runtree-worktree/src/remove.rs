//! How a worktree goes: plan, salvage, rename to the trash, look again, delete, registration, branch.

use std::{
    io,
    path::{Path, PathBuf},
};

use runtree_id::DirectoryName;

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files::{self, Identity},
    layout::{self, Ours},
    lock,
    names::{Ownership, SalvageRef},
    record::{Owner, Removing},
    recover::clear_retired,
    refs, registry,
    report::{BranchFate, KeepReason, Outcome, Removal, RepoPath, Worktree},
    repository::Worktrees,
    request::{BranchPolicy, InProgressPolicy, RemoveWorktree},
    scan::{self, Store},
    snapshot::{self, Place, Snapshot},
    state,
    steps::{Journey, Operation, Step},
};

/// A worktree that may go, as far as a look can tell.
struct Examined {
    owner: Owner,
    path: PathBuf,
    present: bool,
    snapshot: Snapshot,
    branch: BranchFate,
}

/// Either what to go on with, or why the worktree stays.
type Verdict<T> = Result<std::result::Result<T, KeepReason>>;

impl Worktrees {
    /// Tells what [`remove`](Self::remove) would do, and changes nothing at all.
    ///
    /// # Errors
    ///
    /// Those of the file system and of git's data, where they leave nothing to report; what cannot be read inside the worktree is a
    /// reason to keep it and no error.
    pub fn plan_remove(&self, request: &RemoveWorktree) -> Result<Removal> {
        let mut removal = self.blank(request);
        let Some(admin) = self.registered(request, &mut removal)? else {
            return Ok(removal);
        };
        let examined = self.examine(request, &admin)?;
        removal.outcome = match &examined {
            Ok(_) => Outcome::WouldRemove,
            Err(reason) => Outcome::Kept(reason.clone()),
        };
        if let Ok(examined) = &examined {
            report(&mut removal, examined)?;
        }
        Ok(removal)
    }

    /// Saves what the worktree holds and no surviving reference does, and removes it: files, registration and, by policy, branch.
    ///
    /// Whatever speaks against that keeps the worktree, which is an answer and no error: see [`KeepReason`].
    ///
    /// # Errors
    ///
    /// Those of the file system and of git's data. Up to the moment the salvage is proven whole, they leave the worktree as it was;
    /// after it, [`recover`](Self::recover) or another call finishes the removal.
    ///
    /// # Durability
    ///
    /// The salvage is on the disk, synced and read back, before the first file goes.
    pub fn remove(&self, request: &RemoveWorktree) -> Result<Removal> {
        let mut removal = self.blank(request);
        let Some(admin) = self.registered(request, &mut removal)? else {
            self.finish_retired(request, &mut removal)?;
            return Ok(removal);
        };
        let ours = Ours::inside(&admin);
        let owned = check_owner(&ours, &request.ownership)?;
        let locked = match owned {
            Ok(_) => ours.try_lock()?.ok_or(KeepReason::Busy),
            Err(reason) => Err(reason),
        };
        let _lock = match locked {
            Ok(lock) => lock,
            Err(reason) => {
                removal.outcome = Outcome::Kept(reason);
                return Ok(removal);
            }
        };
        match self.finish_earlier(&admin, &ours)? {
            Some(Finished::Kept(reason)) => {
                removal.outcome = Outcome::Kept(reason);
                return Ok(removal);
            }
            Some(Finished::Removed { salvage, branch }) => {
                removal.salvage = salvage;
                removal.branch = branch;
                removal.outcome = Outcome::Removed;
                return Ok(removal);
            }
            Some(Finished::CalledOff) | None => {}
        }
        let examined = match self.examine(request, &admin)? {
            Ok(examined) => examined,
            Err(reason) => {
                removal.outcome = Outcome::Kept(reason);
                return Ok(removal);
            }
        };
        report(&mut removal, &examined)?;
        let journey = self.journey(Operation::Remove);
        let removing = match self.salvage_examined(request, &examined, &admin)? {
            Ok(removing) => removing,
            Err(reason) => {
                removal.outcome = Outcome::Kept(reason);
                return Ok(removal);
            }
        };
        removal.salvage = removing
            .salvage
            .as_ref()
            .map(|saved| saved.reference.clone());
        journey.reached(Step::Salvaged)?;
        match self.carry_out(&examined.owner, &admin, &removing, journey)? {
            Ok(branch) => {
                removal.branch = branch;
                removal.outcome = Outcome::Removed;
            }
            Err(reason) => {
                removal.outcome = Outcome::Kept(reason);
                removal.salvage = self.still_there(removal.salvage)?;
            }
        }
        Ok(removal)
    }

    /// Finds a finished worktree by its name and the token it was made under.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::NotOurs`], [`ErrorKind::Unfinished`], and those of the file system.
    pub fn get(&self, name: &DirectoryName, ownership: &Ownership) -> Result<Worktree> {
        let owner = self.owned(name, ownership)?;
        let admin = self.inner.layout.admin(name.as_str());
        let path = current_path(&owner, &admin);
        Ok(Worktree {
            path,
            ..owner.worktree()
        })
    }

    /// Reads the token of a finished worktree that was made under `ownership`.
    pub(crate) fn owned(&self, name: &DirectoryName, ownership: &Ownership) -> Result<Owner> {
        let ours = Ours::inside(&self.inner.layout.admin(name.as_str()));
        let owner = Owner::read(&ours)?.ok_or_else(|| {
            WorktreeError::new(
                ErrorKind::NotFound,
                format!("there is no worktree of ours named {name}"),
            )
        })?;
        if owner.ownership != *ownership {
            return Err(WorktreeError::new(
                ErrorKind::NotOurs,
                format!(
                    "the worktree {name} was made under {}, not {ownership}",
                    owner.ownership
                ),
            ));
        }
        if !files::exists(&ours.ready())? {
            return Err(WorktreeError::new(
                ErrorKind::Unfinished,
                format!("the worktree {name} is not finished; recover first"),
            ));
        }
        Ok(owner)
    }

    fn still_there(&self, salvage: Option<SalvageRef>) -> Result<Option<SalvageRef>> {
        let there = match &salvage {
            Some(reference) => refs::read(&self.repository(), reference.as_str())?.is_some(),
            None => false,
        };
        Ok(salvage.filter(|_| there))
    }

    fn blank(&self, request: &RemoveWorktree) -> Removal {
        Removal {
            name: request.name.clone(),
            path: None,
            outcome: Outcome::AlreadyGone,
            saved: Vec::new(),
            saved_commits: Vec::new(),
            disposed: Vec::new(),
            salvage: None,
            branch: BranchFate::None,
        }
    }

    /// Finds the registration; if there is none, the report says whether anything of that name is left.
    fn registered(
        &self,
        request: &RemoveWorktree,
        removal: &mut Removal,
    ) -> Result<Option<PathBuf>> {
        let layout = &self.inner.layout;
        let name = request.name.as_str();
        let admin = layout.admin(name);
        if files::exists(&admin)? {
            removal.path = registry::read_gitdir(&admin).ok();
            return Ok(Some(admin));
        }
        if files::exists(&layout.staging().join(name))?
            || files::exists(&layout.retired().join(name))?
        {
            removal.outcome = Outcome::Kept(KeepReason::NotReady);
        }
        Ok(None)
    }

    /// Looks at everything that might speak against the removal.
    fn examine(&self, request: &RemoveWorktree, admin: &Path) -> Verdict<Examined> {
        let ours = Ours::inside(admin);
        let owner = match check_owner(&ours, &request.ownership)? {
            Ok(owner) => owner,
            Err(reason) => return Ok(Err(reason)),
        };
        if !files::exists(&ours.ready())? || files::exists(&ours.removing())? {
            return Ok(Err(KeepReason::NotReady));
        }
        if owner.persistent && !request.persistent {
            return Ok(Err(KeepReason::Persistent));
        }
        if let Some(reason) = foreign_lock(&owner, admin) {
            return Ok(Err(reason));
        }
        let (path, present) = match self.locate(&owner, admin)? {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        let snapshot = match self.look(request, &path, present, admin, Store::Hash) {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(unknown(&error))),
        };
        if let Some(reason) = objection(&snapshot, request.in_progress) {
            return Ok(Err(reason));
        }
        let branch = match self.branch_fate(&owner, Some(admin), request.branch) {
            Ok(branch) => branch,
            Err(error) => return Ok(Err(unknown(&error))),
        };
        Ok(Ok(Examined {
            owner,
            path,
            present,
            snapshot,
            branch,
        }))
    }

    fn look(
        &self,
        request: &RemoveWorktree,
        path: &Path,
        present: bool,
        admin: &Path,
        store: Store,
    ) -> Result<Snapshot> {
        let place = Place {
            admin,
            directory: path,
            present,
        };
        let options = scan::Options {
            store,
            disposable: &request.disposable,
            unfinished: None,
        };
        Snapshot::take(self, place, options)
    }

    /// Finds the worktree's directory and makes sure that it is the one that was made; tells whether it is there.
    fn locate(&self, owner: &Owner, admin: &Path) -> Verdict<(PathBuf, bool)> {
        let fail = |path: &Path, error| WorktreeError::io("look at", path, error);
        let identity = Identity::of_directory(admin).map_err(|error| fail(admin, error))?;
        if identity.is_none() || identity != owner.admin {
            return Ok(Err(KeepReason::IdentityChanged));
        }
        let Ok(path) = registry::read_gitdir(admin) else {
            return Ok(Err(KeepReason::LinkMismatch));
        };
        if let Some(reason) = self.protects(&path)? {
            return Ok(Err(reason));
        }
        let identity = Identity::of_directory(&path).map_err(|error| fail(&path, error))?;
        if identity.is_none() && !files::exists(&path)? {
            // Gone for good only where its parent is still on the device that it was on.
            let parent = path.parent().unwrap_or(&path);
            let beside = Identity::of_directory(parent).map_err(|error| fail(parent, error))?;
            let same = beside.zip(owner.directory);
            return Ok(
                if same.is_some_and(|(one, other)| one.device == other.device) {
                    Ok((path, false))
                } else {
                    Err(KeepReason::DirectoryMissing)
                },
            );
        }
        if identity.is_none() || identity != owner.directory {
            return Ok(Err(KeepReason::IdentityChanged));
        }
        if !names_admin(&path, admin) {
            return Ok(Err(KeepReason::LinkMismatch));
        }
        if let Some(process_id) = files::process_inside(&path) {
            return Ok(Err(KeepReason::InUse { process_id }));
        }
        Ok(Ok((path, true)))
    }

    /// Refuses paths that hold more than a worktree.
    fn protects(&self, path: &Path) -> Result<Option<KeepReason>> {
        let layout = &self.inner.layout;
        let held = [
            layout.main.as_ref(),
            Some(&layout.common),
            Some(&layout.root),
        ]
        .into_iter()
        .flatten()
        .chain(&self.inner.forbidden);
        for place in held {
            if place.starts_with(path) {
                return Ok(Some(KeepReason::ProtectedPath(place.clone())));
            }
        }
        let mounts = files::mounts_under(path)
            .map_err(|error| WorktreeError::io("list the mounts under", path, error))?;
        Ok(mounts.into_iter().next().map(|mount| {
            if mount == path {
                KeepReason::ProtectedPath(mount)
            } else {
                KeepReason::MountInside(mount)
            }
        }))
    }

    /// Saves what must be saved, from a second look that must see what the first one saw.
    fn salvage_examined(
        &self,
        request: &RemoveWorktree,
        examined: &Examined,
        admin: &Path,
    ) -> Verdict<Removing> {
        let mut salvage = None;
        if examined.snapshot.must_be_saved() {
            let saved = self
                .look(
                    request,
                    &examined.path,
                    examined.present,
                    admin,
                    Store::Write,
                )
                .and_then(|again| match again.first_difference(&examined.snapshot) {
                    Some(path) => Ok(Err(KeepReason::Changed(path))),
                    None => self.save(&examined.owner, &again).map(Ok),
                });
            match saved {
                Ok(Ok(saved)) => salvage = Some(saved),
                Ok(Err(reason)) => return Ok(Err(reason)),
                Err(error) => return Ok(Err(KeepReason::SalvageFailed(chain(&error)))),
            }
        }
        let hash = self.repository().object_hash();
        Ok(Ok(Removing {
            holder: self.inner.holder.clone(),
            salvage,
            fingerprint: examined.snapshot.fingerprint(hash)?,
            disposable: request.disposable.clone(),
            delete_merged_branch: request.branch == BranchPolicy::DeleteMerged,
        }))
    }

    /// Takes the steps that follow the salvage.
    fn carry_out(
        &self,
        owner: &Owner,
        admin: &Path,
        removing: &Removing,
        journey: Journey<'_>,
    ) -> Verdict<BranchFate> {
        let ours = Ours::inside(admin);
        removing.write(&ours)?;
        // While its directory is away, git must not take the registration for an orphan.
        // A lock that is there, or comes at this moment, does that too; whether it calls the removal off is looked at below.
        if registry::read_lock(admin).is_none() {
            lock::put(admin, &owner.lock_text())?;
        }
        let moved = journey
            .reached(Step::Journalled)
            .and_then(|()| self.move_to_trash(owner, admin))
            .and_then(|()| journey.reached(Step::Trashed))
            .and_then(|()| self.check_trash(owner, admin, removing));
        match moved {
            Ok(None) => {}
            Ok(Some(reason)) => {
                self.call_off(owner, admin, removing)?;
                return Ok(Err(reason));
            }
            Err(error) => {
                self.call_off(owner, admin, removing)?;
                return Err(error);
            }
        }
        files::write_new(&ours.verified(), b"")?;
        files::sync_directory(ours.directory())?;
        journey.reached(Step::Rescanned)?;
        self.finish_removal(owner, admin, removing, journey).map(Ok)
    }

    fn move_to_trash(&self, owner: &Owner, admin: &Path) -> Result<()> {
        let path = current_path(owner, admin);
        if !files::exists(&path)? {
            return Ok(());
        }
        let trash = layout::trash(&path);
        layout::in_hidden_parent(&trash, || files::rename_directory(&path, &trash))
            .map_err(|error| WorktreeError::io("move to the trash", &path, error))
    }

    /// Looks whether the trash holds just what was saved.
    pub(crate) fn check_trash(
        &self,
        owner: &Owner,
        admin: &Path,
        removing: &Removing,
    ) -> Result<Option<KeepReason>> {
        let trash = layout::trash(&current_path(owner, admin));
        let identity = Identity::of_directory(&trash)
            .map_err(|error| WorktreeError::io("look at", &trash, error))?;
        // There was no directory; its registration must still be what it was.
        let present = identity.is_some() || files::exists(&trash)?;
        if present && identity != owner.directory {
            return Ok(Some(KeepReason::IdentityChanged));
        }
        if let Some(reason) = foreign_lock(owner, admin) {
            return Ok(Some(reason));
        }
        if present && let Some(reason) = self.protects(&trash)? {
            return Ok(Some(reason));
        }
        if let Some(process_id) = files::process_inside(&trash) {
            return Ok(Some(KeepReason::InUse { process_id }));
        }
        let place = Place {
            admin,
            directory: &trash,
            present,
        };
        let options = scan::Options {
            store: Store::Hash,
            disposable: &removing.disposable,
            unfinished: None,
        };
        let now = match Snapshot::take(self, place, options) {
            Ok(now) => now,
            Err(error) => return Ok(Some(unknown(&error))),
        };
        let hash = self.repository().object_hash();
        if let Some(mount) = now.scan.mounts.first() {
            return Ok(Some(KeepReason::MountInside(mount.clone())));
        }
        // Looking at the files takes time; the registration, which is still in sight of git, must not have changed in it.
        let same = now.contents == snapshot::contents(admin, hash)?;
        if same && now.fingerprint(hash)? == removing.fingerprint {
            return Ok(None);
        }
        let path = match &removing.salvage {
            Some(saved) => self.changed_since(saved, &now),
            None => now.scan.found.first().map(|found| found.path.clone()),
        };
        Ok(Some(KeepReason::Changed(
            path.unwrap_or_else(|| RepoPath::from_bytes(".")),
        )))
    }

    /// Names a path that is not as it was saved.
    fn changed_since(&self, saved: &crate::record::SavedAs, now: &Snapshot) -> Option<RepoPath> {
        let loaded = self.load_salvage(&saved.reference).ok()?;
        now.scan
            .found
            .iter()
            .find(|found| {
                loaded
                    .worktree
                    .get(&found.path)
                    .is_none_or(|flat| flat.id != found.id)
            })
            .map(|found| found.path.clone())
    }

    /// Calls a removal off, and takes its salvage back where the worktree is whole again.
    fn call_off(&self, owner: &Owner, admin: &Path, removing: &Removing) -> Result<()> {
        self.put_back(owner, admin)?;
        let path = current_path(owner, admin);
        let identity = Identity::of_directory(&path)
            .map_err(|error| WorktreeError::io("look at", &path, error))?;
        if let Some(saved) = &removing.salvage
            && identity.is_some()
            && identity == owner.directory
        {
            self.withdraw(saved);
        }
        Ok(())
    }

    /// Puts back what a removal moved, before anything was deleted.
    ///
    /// Whatever lies in the trash goes back to where it came from, also a directory that is not the one that was made: there whoever
    /// put it there finds it.
    pub(crate) fn put_back(&self, owner: &Owner, admin: &Path) -> Result<()> {
        let path = current_path(owner, admin);
        let trash = layout::trash(&path);
        if files::exists(&trash)? {
            files::rename_directory(&trash, &path)
                .map_err(|error| WorktreeError::io("put back", &path, error))?;
        }
        layout::tidy_hidden(&path);
        files::remove_file(&Ours::inside(admin).removing())
    }

    /// Deletes what was found to be saved, then the registration, then settles the branch.
    pub(crate) fn finish_removal(
        &self,
        owner: &Owner,
        admin: &Path,
        removing: &Removing,
        journey: Journey<'_>,
    ) -> Result<BranchFate> {
        self.empty_trash(owner, admin)?;
        journey.reached(Step::Deleted)?;
        let retired = self.retire(owner, admin)?;
        journey.reached(Step::Unregistered)?;
        let fate = self.settle_branch(owner, removing.branch_policy())?;
        journey.reached(Step::BranchSettled)?;
        clear_retired(&retired)?;
        journey.reached(Step::Finished)?;
        Ok(fate)
    }

    pub(crate) fn empty_trash(&self, owner: &Owner, admin: &Path) -> Result<()> {
        let path = current_path(owner, admin);
        let trash = layout::trash(&path);
        let identity = Identity::of_directory(&trash)
            .map_err(|error| WorktreeError::io("look at", &trash, error))?;
        if identity.is_some() && identity == owner.directory {
            files::remove_tree(&trash)?;
        }
        layout::tidy_hidden(&path);
        Ok(())
    }

    /// Takes the registration out of git's sight in one step.
    pub(crate) fn retire(&self, owner: &Owner, admin: &Path) -> Result<PathBuf> {
        let layout = &self.inner.layout;
        files::create_directories(&layout.retired())?;
        let retired = layout.retired().join(owner.name.as_str());
        let _registry_lock = layout.lock_registry()?;
        files::rename_directory(admin, &retired)
            .map_err(|error| WorktreeError::io("unregister", admin, error))?;
        // As git does: an empty registry goes.
        files::remove_if_empty(&layout.registry());
        Ok(retired)
    }

    /// Finishes or calls off an earlier removal that was cut short; the caller holds the worktree's lock.
    pub(crate) fn finish_earlier(&self, admin: &Path, ours: &Ours) -> Result<Option<Finished>> {
        let Some(removing) = Removing::read(ours)? else {
            return Ok(None);
        };
        let Some(owner) = Owner::read(ours)? else {
            return Ok(None);
        };
        let journey = self.journey(Operation::Remove);
        let trash = layout::trash(&current_path(&owner, admin));
        let identity = Identity::of_directory(&trash)
            .map_err(|error| WorktreeError::io("look at", &trash, error))?;
        let is_another = files::exists(&trash)? && identity != owner.directory;
        if files::exists(&ours.verified())? {
            if is_another {
                return Ok(Some(Finished::Kept(KeepReason::IdentityChanged)));
            }
        } else {
            let reason = if files::exists(&trash)? {
                self.check_trash(&owner, admin, &removing)?
            } else {
                Some(KeepReason::NotReady)
            };
            if let Some(reason) = reason {
                self.put_back(&owner, admin)?;
                return Ok(Some(if is_another {
                    Finished::Kept(reason)
                } else {
                    Finished::CalledOff
                }));
            }
            files::write_new(&ours.verified(), b"")?;
            files::sync_directory(ours.directory())?;
        }
        let branch = self.finish_removal(&owner, admin, &removing, journey)?;
        Ok(Some(Finished::Removed {
            salvage: removing.salvage.map(|saved| saved.reference),
            branch,
        }))
    }
}

/// How an earlier removal came out.
pub(crate) enum Finished {
    Removed {
        salvage: Option<SalvageRef>,
        branch: BranchFate,
    },
    CalledOff,
    /// Neither: what is in the trash is not what was put there.
    Kept(KeepReason),
}

/// Where the worktree's directory is registered, which `git worktree move` may have changed.
pub(crate) fn current_path(owner: &Owner, admin: &Path) -> PathBuf {
    registry::read_gitdir(admin).unwrap_or_else(|_| owner.path())
}

/// Tells whether the `.git` file in `path` names the administrative directory.
pub(crate) fn names_admin(path: &Path, admin: &Path) -> bool {
    let named = files::read_optional(&path.join(".git"))
        .ok()
        .flatten()
        .and_then(|line| layout::parse_path_line(&line, "gitdir: ", path));
    let real = |path: &Path| -> io::Result<PathBuf> { path.canonicalize() };
    match named {
        Some(named) if named == admin => true,
        Some(named) => matches!((real(&named), real(admin)), (Ok(one), Ok(other)) if one == other),
        None => false,
    }
}

/// Reads the token and compares it with the one the caller has.
fn check_owner(ours: &Ours, ownership: &Ownership) -> Verdict<Owner> {
    Ok(match Owner::read(ours) {
        Ok(None) => Err(KeepReason::Foreign),
        Ok(Some(owner)) if owner.ownership != *ownership => {
            Err(KeepReason::OwnedByOther(owner.ownership))
        }
        Ok(Some(owner)) => Ok(owner),
        Err(error) => Err(unknown(&error)),
    })
}

fn foreign_lock(owner: &Owner, admin: &Path) -> Option<KeepReason> {
    registry::read_lock(admin)
        .filter(|text| !owner.made_lock(text))
        .map(KeepReason::Locked)
}

/// Names what in a worktree speaks against its removal.
fn objection(snapshot: &Snapshot, in_progress: InProgressPolicy) -> Option<KeepReason> {
    let scan = &snapshot.scan;
    if let Some(mount) = scan.mounts.first() {
        return Some(KeepReason::MountInside(mount.clone()));
    }
    if let Some(nested) = scan.nested.first() {
        return Some(KeepReason::NestedRepository(nested.clone()));
    }
    if let Some(path) = scan.unsavable.first() {
        return Some(KeepReason::CannotSave(path.clone()));
    }
    if let Some(name) = state::lock_files(&snapshot.admin_files).into_iter().next() {
        return Some(KeepReason::LockFile(name));
    }
    match in_progress {
        InProgressPolicy::Salvage => None,
        InProgressPolicy::Keep => {
            let operation = snapshot.in_progress.first().copied();
            let conflict = snapshot.conflicted.first().cloned();
            operation
                .map(KeepReason::InProgress)
                .or(conflict.map(KeepReason::Conflicted))
        }
    }
}

fn report(removal: &mut Removal, examined: &Examined) -> Result<()> {
    removal.saved = examined.snapshot.dirty_files();
    removal.saved_commits = examined
        .snapshot
        .lost
        .keys()
        .map(|id| refs::commit_id(*id))
        .collect::<Result<_>>()?;
    removal
        .disposed
        .clone_from(&examined.snapshot.scan.disposed);
    removal.branch = examined.branch.clone();
    Ok(())
}

pub(crate) fn unknown(error: &WorktreeError) -> KeepReason {
    KeepReason::Unknown(chain(error))
}

/// An error with its causes, for a report that carries text.
fn chain(error: &WorktreeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
