//! How a worktree comes to be: the durable steps of `add` and `restore`, and their undoing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gix::ObjectId;

use runtree_id::BranchName;

use crate::{
    checkout,
    error::{ErrorKind, Result, WorktreeError},
    files::{self, Identity},
    layout::{self, Lock, Ours},
    record::Owner,
    refs, registry,
    report::Worktree,
    repository::Worktrees,
    request::{AddWorktree, Checkout},
    restore,
    salvage::Loaded,
    steps::{Interrupt, Journey, Operation, Step},
};

/// A worktree about to be made.
pub(crate) struct Making<'a> {
    pub(crate) worktrees: &'a Worktrees,
    pub(crate) repository: gix::Repository,
    pub(crate) owner: Owner,
    pub(crate) base: ObjectId,
    pub(crate) source: Source<'a>,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) journey: Journey<'a>,
}

/// Where the files of a new worktree come from.
pub(crate) enum Source<'a> {
    /// The base commit.
    Base,
    /// A salvage.
    Salvage(&'a Loaded),
}

/// What was begun, in the order in which it is undone.
#[derive(Default)]
struct Begun {
    lock: Option<Lock>,
    directory: bool,
    registered: bool,
}

impl Worktrees {
    /// Tells whether worktrees can be added here at all: there is a main worktree and a commit, and this process may write both to the
    /// git repository and to the root, or where the root is to be made.
    ///
    /// A pure read, for whoever wants to know before anything is begun. That a file system is full shows only when it is written to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Bare`], [`ErrorKind::NoCommit`], [`ErrorKind::ReadOnly`], and those of the file system.
    pub fn check(&self) -> Result<()> {
        self.refuse_bare()?;
        if refs::has_no_commit(&self.repository()) {
            return Err(self.no_commit());
        }
        let layout = &self.inner.layout;
        let is_there = |path: &&Path| path.symlink_metadata().is_ok();
        let places = [layout.common.as_path(), layout.root.as_path()];
        for place in places {
            let nearest = place.ancestors().find(is_there).unwrap_or(place);
            files::check_writable(nearest)?;
        }
        Ok(())
    }

    /// Makes a linked worktree: whole, or not at all.
    ///
    /// git sees it from one moment to the next, complete in its registry and locked with a reason that names the ownership; it stays
    /// locked until [`unlock`](Self::unlock) or [`release`](Self::release). The checkout leaves submodules alone (their directories are made, empty) and applies
    /// the repository's filters. Every other failure than a crash undoes branch, registration and directory together; what a crash
    /// leaves, [`recover`](Self::recover) undoes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BranchExists`], [`ErrorKind::BranchNotFound`], [`ErrorKind::BranchCheckedOut`], [`ErrorKind::BranchMoved`],
    /// [`ErrorKind::PathExists`], [`ErrorKind::NameTaken`], [`ErrorKind::Unfinished`], [`ErrorKind::Bare`],
    /// [`ErrorKind::NoCommit`], [`ErrorKind::RevisionNotFound`], [`ErrorKind::ReadOnly`], [`ErrorKind::Interrupted`], and those of
    /// the file system and of git's data. All of them leave everything as it was.
    ///
    /// # Durability
    ///
    /// The registration, the branch and the ownership survive a power cut. The files checked out may not be complete after one; they
    /// hold nothing that the base commit does not, and `git status` tells.
    pub fn add(&self, request: &AddWorktree) -> Result<Worktree> {
        self.making(request)?.make()
    }

    fn making<'a>(&'a self, request: &'a AddWorktree) -> Result<Making<'a>> {
        let repository = self.repository();
        self.refuse_bare()?;
        let base = refs::object_id(&repository, &request.base)?;
        if refs::has_no_commit(&repository) {
            return Err(self.no_commit());
        }
        repository.find_commit(base).map_err(|error| {
            WorktreeError::new(
                ErrorKind::RevisionNotFound,
                format!(
                    "{} is no commit of {}",
                    request.base,
                    self.main_path().display()
                ),
            )
            .with_source(error)
        })?;
        let (branch, makes_branch) = match &request.checkout {
            Checkout::NewBranch(branch) => (Some(branch.clone()), true),
            Checkout::Existing(branch) => (Some(branch.clone()), false),
            Checkout::Detached => (None, false),
        };
        let mut owner = Owner::new(
            Worktree {
                path: self.inner.layout.worktree(request.name.as_str()),
                name: request.name.clone(),
                branch,
                base: request.base,
                ownership: request.ownership.clone(),
                persistent: request.persistent,
                created: self.inner.clock.now(),
            },
            self.inner.holder.clone(),
            request.reason.clone(),
        );
        owner.makes_branch = makes_branch;
        Ok(Making {
            worktrees: self,
            repository,
            owner,
            base,
            source: Source::Base,
            interrupt: &request.interrupt,
            journey: self.journey(Operation::Add),
        })
    }

    pub(crate) fn refuse_bare(&self) -> Result<()> {
        if self.inner.layout.main.is_some() {
            return Ok(());
        }
        Err(WorktreeError::new(
            ErrorKind::Bare,
            format!(
                "the git repository {} is bare; name a clone that has a main worktree",
                self.main_path().display()
            ),
        ))
    }
}

impl Making<'_> {
    /// Takes all steps; on any failure undoes those taken.
    pub(crate) fn make(mut self) -> Result<Worktree> {
        self.refuse_what_exists()?;
        let mut begun = Begun::default();
        match self.take_steps(&mut begun) {
            Ok(()) => Ok(self.owner.worktree()),
            Err(error) => Err(self.undo(&begun, error)),
        }
    }

    /// Looks before the first step, so that the usual mistakes leave no trace at all; the steps themselves look again.
    fn refuse_what_exists(&self) -> Result<()> {
        let layout = &self.worktrees.inner.layout;
        let name = self.owner.name.as_str();
        if files::exists(&layout.staging().join(name))?
            || files::exists(&layout.retired().join(name))?
        {
            return Err(self.unfinished());
        }
        if files::exists(&layout.admin(name))? {
            return Err(self.name_taken());
        }
        if files::exists(&self.owner.path())? {
            return Err(self.path_exists());
        }
        let Some(branch) = &self.owner.branch else {
            return Ok(());
        };
        let tip = refs::read(&self.repository, branch.full_ref())?;
        match (tip, self.owner.makes_branch) {
            (Some(_), true) => return Err(branch_exists(branch)),
            (None, false) => {
                return Err(WorktreeError::new(
                    ErrorKind::BranchNotFound,
                    format!("there is no branch {branch}"),
                ));
            }
            (Some(tip), false) if tip != self.base => {
                return Err(WorktreeError::new(
                    ErrorKind::BranchMoved,
                    format!("the branch {branch} is at {tip}, not at {}", self.base),
                ));
            }
            (Some(_), false) | (None, true) => {}
        }
        self.refuse_branch_in_use()
    }

    fn refuse_branch_in_use(&self) -> Result<()> {
        let Some(branch) = &self.owner.branch else {
            return Ok(());
        };
        match registry::holder_of_branch(&self.worktrees.inner.layout, branch, None)? {
            None => Ok(()),
            Some(place) => Err(WorktreeError::new(
                ErrorKind::BranchCheckedOut,
                format!("the branch {branch} is checked out at {}", place.display()),
            )),
        }
    }

    fn take_steps(&mut self, begun: &mut Begun) -> Result<()> {
        let staging = self.staging();
        begun.lock = Some(self.record_intent(&staging)?);
        self.journey.reached(Step::Intent)?;
        self.interrupt.check()?;

        self.make_branch()?;
        self.journey.reached(Step::Branch)?;

        self.make_directory(begun)?;
        self.journey.reached(Step::Directory)?;

        self.make_admin(&staging)?;
        self.journey.reached(Step::Admin)?;
        self.interrupt.check()?;

        self.register(&staging)?;
        begun.registered = true;
        self.journey.reached(Step::Registered)?;

        self.fill_in()?;
        self.interrupt.check()?;

        files::write_new(&Ours::inside(&self.admin()).ready(), b"")?;
        files::sync_directory(Ours::inside(&self.admin()).directory())?;
        self.journey.reached(Step::Ready)
    }

    fn staging(&self) -> PathBuf {
        self.worktrees
            .inner
            .layout
            .staging()
            .join(self.owner.name.as_str())
    }

    fn admin(&self) -> PathBuf {
        self.worktrees.inner.layout.admin(self.owner.name.as_str())
    }

    /// Makes the staging directory with our token in it, and takes its lock.
    ///
    /// All of that is under the registry's lock: a staging directory seen by a holder of that lock is locked, or its maker is dead.
    fn record_intent(&mut self, staging: &Path) -> Result<Lock> {
        let layout = &self.worktrees.inner.layout;
        for place in [&layout.root, &layout.staging(), &layout.registry()] {
            files::create_directories(place)?;
        }
        let ours = Ours::inside(staging);
        let registry_lock = layout.lock_registry()?;
        // Whoever makes the same worktree may have come to its end between the first look and the lock.
        if let Err(error) = self.refuse_what_exists() {
            files::remove_if_empty(&layout.registry());
            return Err(error);
        }
        match fs::create_dir(staging) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.unfinished());
            }
            Err(error) => return Err(WorktreeError::io("create", staging, error)),
        }
        let begin = || -> Result<Lock> {
            files::create_directories(ours.directory())?;
            let lock = ours.try_lock()?.ok_or_else(|| self.unfinished())?;
            self.owner.write(&ours)?;
            Ok(lock)
        };
        let begun = begin();
        if begun.is_err() {
            // Nobody else saw it: the registry's lock is ours.
            files::remove_tree(staging)?;
        }
        drop(registry_lock);
        let lock = begun?;
        self.owner.admin = Identity::of_directory(staging)
            .map_err(|error| WorktreeError::io("look at", staging, error))?;
        files::sync_directory(staging)?;
        files::sync_directory(&layout.staging())?;
        Ok(lock)
    }

    fn make_branch(&mut self) -> Result<()> {
        let (Some(branch), true) = (&self.owner.branch, self.owner.makes_branch) else {
            return Ok(());
        };
        let message = self.owner.branch_message();
        let _registry_lock = self.worktrees.inner.layout.lock_registry()?;
        let made = refs::read(&self.repository, branch.full_ref())?.is_none()
            && refs::create(
                &self.repository,
                branch.full_ref(),
                self.base,
                &message,
                self.owner.created,
            )?
            // git does not know our lock, so it may have made the branch since we looked.
            && refs::was_made_by_us(&self.repository, branch, &message)?;
        if !made {
            return Err(branch_exists(branch));
        }
        self.owner.branch_made = true;
        refs::sync(&self.repository, branch.full_ref())
    }

    /// Makes the worktree's directory under a hidden name with its `.git` in it, and renames it into place: what has the final name is
    /// known for ours by its `.git`.
    fn make_directory(&mut self, begun: &mut Begun) -> Result<()> {
        let path = self.owner.path();
        let nursery = layout::nursery(&path);
        files::remove_tree(&nursery)?;
        layout::in_hidden_parent(&nursery, || fs::create_dir(&nursery))
            .map_err(|error| WorktreeError::io("create", &nursery, error))?;
        files::write_new(
            &nursery.join(".git"),
            &layout::path_line("gitdir: ", &self.admin()),
        )?;
        files::sync_directory(&nursery)?;
        let renamed = files::rename_directory(&nursery, &path);
        if renamed.is_err() {
            files::remove_tree(&nursery)?;
        }
        layout::tidy_hidden(&path);
        match renamed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.path_exists());
            }
            Err(error) => return Err(WorktreeError::io("create", &path, error)),
        }
        begun.directory = true;
        self.owner.directory = Identity::of_directory(&path)
            .map_err(|error| WorktreeError::io("look at", &path, error))?;
        Ok(())
    }

    /// Completes the administrative directory where no git looks.
    fn make_admin(&self, staging: &Path) -> Result<()> {
        let by = refs::our_signature(self.owner.created);
        let head = match &self.owner.branch {
            Some(branch) => format!("ref: {}\n", branch.full_ref()),
            None => format!("{}\n", self.base),
        };
        let log = refs::log_line(
            self.base.kind().null(),
            self.base,
            &by,
            self.owner.branch_message().as_str().into(),
        );
        let gitdir = layout::path_line("", &self.owner.path().join(".git"));
        for directory in ["logs", "refs"] {
            files::create_directories(&staging.join(directory))?;
        }
        files::write_new(&staging.join("HEAD"), head.as_bytes())?;
        files::write_new(&staging.join("commondir"), b"../..\n")?;
        files::write_new(&staging.join("gitdir"), &gitdir)?;
        files::write_new(&staging.join("logs/HEAD"), &log)?;
        files::write_new(&staging.join("locked"), self.owner.lock_text().as_bytes())?;
        checkout::write_first_index(&self.repository, self.base, &staging.join("index"))?;
        self.owner.write(&Ours::inside(staging))?;
        files::sync_directory(&staging.join("logs"))?;
        files::sync_directory(staging)
    }

    /// Shows the worktree to git, in one step.
    fn register(&self, staging: &Path) -> Result<()> {
        let layout = &self.worktrees.inner.layout;
        let admin = self.admin();
        let _registry_lock = layout.lock_registry()?;
        self.refuse_branch_in_use()?;
        // git takes its registry away when it prunes the last entry, so it may be gone again.
        for _ in 0..100 {
            files::create_directories(&layout.registry())?;
            match files::rename_directory(staging, &admin) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(self.name_taken());
                }
                Err(error) => return Err(WorktreeError::io("register", &admin, error)),
            }
        }
        Err(WorktreeError::io(
            "register",
            &admin,
            io::ErrorKind::NotFound.into(),
        ))
    }

    fn fill_in(&self) -> Result<()> {
        let path = self.owner.path();
        let repository = self.worktrees.open_worktree(&self.admin(), &path)?;
        match self.source {
            Source::Base => {
                checkout::check_out_base(&repository, self.base, &path, self.interrupt)?;
                self.journey.reached(Step::CheckedOut)
            }
            Source::Salvage(loaded) => {
                let placed = restore::check_out(&repository, loaded, &path, self.interrupt)?;
                self.journey.reached(Step::CheckedOut)?;
                restore::fill(&repository, loaded, &self.admin(), &path, &placed)?;
                self.journey.reached(Step::Filled)
            }
        }
    }

    /// Undoes what was begun and returns the error that made it necessary.
    fn undo(&self, begun: &Begun, error: WorktreeError) -> WorktreeError {
        if begun.lock.is_none() {
            return error;
        }
        let at = if begun.registered {
            self.admin()
        } else {
            self.staging()
        };
        match self.worktrees.discard(&self.owner, &at) {
            Ok(None) => error,
            Ok(Some(reason)) => WorktreeError::new(
                error.kind(),
                format!("{error}; the half-made worktree was kept: {reason}"),
            )
            .with_source(error),
            Err(second) => WorktreeError::new(
                error.kind(),
                format!("{error}; undoing it failed too: {second}; `recover` will finish that"),
            )
            .with_source(error),
        }
    }

    fn unfinished(&self) -> WorktreeError {
        WorktreeError::new(
            ErrorKind::Unfinished,
            format!(
                "an earlier operation on the worktree {} is under way or was cut short; recover first",
                self.owner.name
            ),
        )
    }

    fn name_taken(&self) -> WorktreeError {
        WorktreeError::new(
            ErrorKind::NameTaken,
            format!(
                "a worktree named {} is registered; choose another name",
                self.owner.name
            ),
        )
    }

    fn path_exists(&self) -> WorktreeError {
        WorktreeError::new(
            ErrorKind::PathExists,
            format!(
                "{} exists; choose another name",
                self.owner.path().display()
            ),
        )
    }
}

fn branch_exists(branch: &BranchName) -> WorktreeError {
    WorktreeError::new(
        ErrorKind::BranchExists,
        format!("the branch {branch} exists; choose another name"),
    )
}

#[cfg(test)]
mod tests {
    use runtree_testkit::git::{self, GitFixture};

    use super::*;
    use crate::{names::Ownership, repository::ConfigScope};

    #[test]
    fn a_maker_whose_first_look_came_too_early_leaves_the_worktree_of_another_alone() {
        let fixture = GitFixture::new();
        // Without files, the directory of a worktree looks as if it was only just begun.
        fixture.git(["rm", "-rq", "."]);
        fixture.git(["commit", "-q", "-m", "empty"]);
        let worktrees = Worktrees::builder(fixture.path())
            .config_scope(ConfigScope::Repository)
            .open()
            .unwrap();
        let request = AddWorktree::new(
            "victim".parse().unwrap(),
            Checkout::NewBranch("runtree/victim".parse().unwrap()),
            worktrees.resolve("HEAD").unwrap(),
            Ownership::new("victim/1").unwrap(),
        );
        let mut late = worktrees.making(&request).unwrap();
        late.refuse_what_exists().unwrap();
        let made = worktrees.add(&request).unwrap();

        let mut begun = Begun::default();
        let error = late.take_steps(&mut begun).unwrap_err();
        let error = late.undo(&begun, error);

        assert_eq!(error.kind(), ErrorKind::NameTaken, "{error}");
        let status = git::git(&made.path, ["status", "-sb", "--porcelain"]);
        assert_eq!(status, "## runtree/victim");
        assert!(!files::exists(&late.staging()).unwrap());
    }
}
