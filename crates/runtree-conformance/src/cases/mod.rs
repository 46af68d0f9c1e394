//! The cases, grouped by what they are about; the table names each of them.

pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod cleanup;
pub(crate) mod cleanup_lease;
pub(crate) mod create;
pub(crate) mod end;
pub(crate) mod events;
pub(crate) mod find;
pub(crate) mod list;
pub(crate) mod namespace;
pub(crate) mod release;
pub(crate) mod renew;
pub(crate) mod rescue;
pub(crate) mod store;
pub(crate) mod time;
pub(crate) mod worktree;
