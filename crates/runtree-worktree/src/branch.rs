//! What becomes of a worktree's branch when the worktree goes.

use std::path::Path;

use crate::{
    error::Result,
    record::Owner,
    refs, registry,
    report::{BranchFate, Head},
    repository::Worktrees,
    request::BranchPolicy,
};

impl Worktrees {
    /// Tells what becomes of the branch; `admin` is the registration that may have it checked out.
    pub(crate) fn branch_fate(
        &self,
        owner: &Owner,
        admin: Option<&Path>,
        policy: BranchPolicy,
    ) -> Result<BranchFate> {
        let Some(branch) = owner.branch.clone() else {
            return Ok(BranchFate::None);
        };
        let main = self.repository();
        let Some(tip) = refs::read(&main, branch.full_ref())? else {
            return Ok(BranchFate::AlreadyGone(branch));
        };
        let ours =
            owner.branch_made && refs::was_made_by_us(&main, &branch, &owner.branch_message())?;
        if !ours {
            return Ok(BranchFate::KeptForeign(branch));
        }
        match policy {
            BranchPolicy::Keep => return Ok(BranchFate::KeptByPolicy(branch)),
            BranchPolicy::DeleteMerged => {}
        }
        if registry::holder_of_branch(&self.inner.layout, &branch, admin)?.is_some() {
            return Ok(BranchFate::KeptForeign(branch));
        }
        let moved = tip != refs::object_id(&main, &owner.base)?;
        let trunk = match registry::read_head(&self.inner.layout.common, &main) {
            Head::Branch { reference, .. } => Some(reference),
            Head::Detached(_) | Head::Unreadable => None,
        };
        let held = refs::held_by(&main, |name| {
            let counts = if name.starts_with(b"refs/heads/") {
                !moved || trunk.as_ref().is_some_and(|trunk| name == trunk.as_bytes())
            } else {
                name.starts_with(b"refs/remotes/") || name.starts_with(b"refs/tags/")
            };
            counts && name != branch.full_ref().as_bytes()
        })?;
        let alone = refs::unreachable(&main, &[tip].into(), &held)?;
        Ok(if alone.is_empty() {
            BranchFate::Deleted(branch)
        } else {
            BranchFate::KeptUnmerged(branch)
        })
    }

    /// Deletes the branch of a worktree that is no longer registered, if that is its fate.
    ///
    /// One at a time, so that of two branches that hold each other's commits one stays; and no worktree is registered meanwhile.
    pub(crate) fn settle_branch(&self, owner: &Owner, policy: BranchPolicy) -> Result<BranchFate> {
        let _registry_lock = self.inner.layout.lock_registry()?;
        let main = self.repository();
        let tip = match &owner.branch {
            Some(branch) => refs::read(&main, branch.full_ref())?,
            None => None,
        };
        let fate = self.branch_fate(owner, None, policy)?;
        let (BranchFate::Deleted(branch), Some(tip)) = (&fate, tip) else {
            return Ok(fate);
        };
        let deleted = refs::delete(&main, branch.full_ref(), tip, self.inner.clock.now())?;
        Ok(if deleted {
            fate
        } else {
            BranchFate::KeptForeign(branch.clone())
        })
    }
}
