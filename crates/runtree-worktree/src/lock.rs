//! git's lock of a worktree, put on and taken off: whole, once, and never another's.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use runtree_id::DirectoryName;

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files,
    layout::{self, Lock, Ours},
    names::{Ownership, Reason},
    record::Owner,
    registry,
    repository::Worktrees,
};

/// How long to wait for another operation on the worktree that may yet leave it: a removal that is still looking, another locker.
const OPERATION_WAIT: Duration = Duration::from_secs(10);

/// How a wait for the worktree goes on.
type Waiting<'a> = &'a dyn Fn() -> Result<()>;

impl Worktrees {
    /// Locks a worktree for a reason, as `git worktree lock --reason` does: git neither moves nor prunes nor removes it, and
    /// [`remove`](Self::remove) keeps it too, until [`unlock`](Self::unlock) or `git worktree unlock`.
    ///
    /// Of any number of callers one locks it, and the others are told by whom and why it is locked. A lock that is there, be it a person's
    /// or the one that [`add`](Self::add) makes a worktree with, is never replaced; `unlock` takes the latter off. git's list shows the
    /// lock as `runtree: <ownership> locked by <holder>: <reason>`, with the holder of this handle.
    ///
    /// git itself looks first and then writes over whatever is there: a `git worktree lock` that runs at the same moment may replace this
    /// lock by its own, and both are told that they locked it. The worktree is locked all the same.
    ///
    /// git takes a reason of several lines, writes it as it is, and quotes it in `git worktree list --porcelain` without `-z`; here a
    /// [`Reason`] is one line without control characters. Blanks at its end are kept in the file, and no list shows them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`], [`ErrorKind::NotFound`] also once it is removed, [`ErrorKind::NotOurs`], [`ErrorKind::Unfinished`] also
    /// where a removal was cut short, [`ErrorKind::Busy`] while it is being removed or another operation works on it for long, and those
    /// of the file system.
    ///
    /// # Durability
    ///
    /// The lock is on the disk before the call answers. A crash leaves it whole or not there at all, and
    /// [`recover`](Self::recover) leaves it alone.
    pub fn lock(&self, name: &DirectoryName, ownership: &Ownership, reason: &Reason) -> Result<()> {
        let admin = self.inner.layout.admin(name.as_str());
        let refuse_locked = || match registry::read_lock(&admin) {
            // A removal locks the worktree once it is journalled.
            Some(_) if files::exists(&Ours::inside(&admin).removing())? => Ok(()),
            Some(text) => Err(locked(name, &text)),
            None => Ok(()),
        };
        let (owner, _lock) = self.wait_for(name, ownership, &refuse_locked)?;
        refuse_locked()?;
        if put(
            &admin,
            &owner.requested_lock_text(&self.inner.holder, reason),
        )? {
            return Ok(());
        }
        refuse_locked()?;
        Err(WorktreeError::new(
            ErrorKind::Busy,
            format!("the worktree {name} was locked and unlocked meanwhile"),
        ))
    }

    /// Takes our lock off a worktree, the one it was made with or one of [`lock`](Self::lock), so that git's own commands may move, prune
    /// and remove it; tells whether there was one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::NotOurs`], [`ErrorKind::Unfinished`], [`ErrorKind::Busy`] while it is being removed or another
    /// operation works on it for long, and those of the file system. A lock of somebody else is left, and the answer is `false`.
    ///
    /// # Durability
    ///
    /// The lock is off the disk before the call answers.
    pub fn unlock(&self, name: &DirectoryName, ownership: &Ownership) -> Result<bool> {
        self.take_off(name, ownership, |owner, text| {
            owner.made_lock(text) || owner.requested_lock(text)
        })
    }

    /// Takes off the lock a worktree was made with, and no other; tells whether there was one.
    ///
    /// For a maker that hands the worktree over: what was locked by [`lock`](Self::lock) since stays locked.
    ///
    /// # Errors
    ///
    /// As [`unlock`](Self::unlock).
    ///
    /// # Durability
    ///
    /// As [`unlock`](Self::unlock).
    pub fn release(&self, name: &DirectoryName, ownership: &Ownership) -> Result<bool> {
        self.take_off(name, ownership, Owner::made_lock)
    }

    fn take_off(
        &self,
        name: &DirectoryName,
        ownership: &Ownership,
        goes: impl Fn(&Owner, &str) -> bool,
    ) -> Result<bool> {
        let admin = self.inner.layout.admin(name.as_str());
        // While a removal is under way its lock keeps git from pruning the registration, so that is waited for.
        let (owner, _lock) = self.wait_for(name, ownership, &|| Ok(()))?;
        match registry::read_lock(&admin) {
            Some(text) if goes(&owner, &text) => {
                files::remove_file(&admin.join("locked"))?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Waits until no other operation of ours is at work on a finished worktree, unless it is being removed or `waiting` objects.
    fn wait_for(
        &self,
        name: &DirectoryName,
        ownership: &Ownership,
        waiting: Waiting<'_>,
    ) -> Result<(Owner, Lock)> {
        let ours = Ours::inside(&self.inner.layout.admin(name.as_str()));
        let deadline = Instant::now() + OPERATION_WAIT;
        let mut pause = Duration::from_micros(200);
        loop {
            self.owned(name, ownership)?;
            if let Some(lock) = ours.try_lock()?
                && layout::is_lock_at(&lock, &ours.lock())?
            {
                let owner = self.owned(name, ownership)?;
                refuse_removing(
                    name,
                    &ours,
                    ErrorKind::Unfinished,
                    "cut short; recover first",
                )?;
                return Ok((owner, lock));
            }
            waiting()?;
            refuse_removing(name, &ours, ErrorKind::Busy, "under way")?;
            if Instant::now() >= deadline {
                return Err(WorktreeError::new(
                    ErrorKind::Busy,
                    format!("another operation works on the worktree {name} for long"),
                ));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Writes git's lock of a worktree unless there is one; tells whether it did. The caller holds our own lock of the worktree.
pub(crate) fn put(admin: &Path, text: &str) -> Result<bool> {
    let beside = Ours::inside(admin).locking();
    files::place_new(&beside, &admin.join("locked"), text.as_bytes())
}

fn refuse_removing(name: &DirectoryName, ours: &Ours, kind: ErrorKind, how: &str) -> Result<()> {
    if !files::exists(&ours.removing())? {
        return Ok(());
    }
    Err(WorktreeError::new(
        kind,
        format!("a removal of the worktree {name} is {how}"),
    ))
}

fn locked(name: &DirectoryName, text: &str) -> WorktreeError {
    let message = if text.is_empty() {
        format!("the worktree {name} is locked, without a reason")
    } else {
        format!("the worktree {name} is locked: {text}")
    };
    WorktreeError::new(ErrorKind::Locked, message)
}
