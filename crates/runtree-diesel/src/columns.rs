//! The words and columns that statements share: macros, because statements are put together when the crate is compiled.
//!
//! A dialect projects its own types to the four neutral ones of [`crate::row`] with [`run_columns`] and its sisters, which take macros
//! of the dialect: `$id` shows an id as 16 bytes, `$instant` an instant as [`Moment`](crate::instant::Moment) reads it, `$int` any
//! other number as a 64-bit integer. Text columns are text on both; the dialect stores JSON as text.

/// A status as SQL writes it; its word comes from the transition table's crate.
macro_rules! status {
    ($status:ident) => {
        concat!("'", runtree_repository::status::status_word!($status), "'")
    };
}

/// An end reason as SQL writes it; SQLite is given them as values.
#[cfg(feature = "postgres")]
macro_rules! reason {
    ($reason:ident) => {
        concat!(
            "'",
            runtree_repository::status::end_reason_word!($reason),
            "'"
        )
    };
}

/// The columns of [`RunRow`](crate::row::RunRow), of the run `r`, its lease `l` and its facts `f` (`LEFT JOIN` both).
///
/// `$tags` is a macro of the dialect without arguments: a sub-select that shows the tags of `r` as the text of a JSON array; `NULL`
/// for none.
macro_rules! run_columns {
    ($id:ident, $instant:ident, $int:ident, $tags:ident) => {
        concat!(
            $id!("r.id"),
            " AS id, r.workflow, r.status, r.end_reason, r.queue, ",
            $int!("r.priority"),
            " AS priority, ",
            "r.idempotency_key, r.unique_key, r.concurrency_key, ",
            $int!("r.concurrency_limit"),
            " AS concurrency_limit, ",
            $id!("r.session_id"),
            " AS session_id, r.user_id, ",
            $int!("r.attempts"),
            " AS attempts, ",
            $int!("r.max_attempts"),
            " AS max_attempts, ",
            $int!("r.token"),
            " AS token, ",
            $id!("l.owner_id"),
            " AS owner_id, l.owner_host, l.owner_process, ",
            $instant!("l.expires_at"),
            " AS lease_expires_at, ",
            $instant!("r.cancel_requested_at"),
            " AS cancel_requested_at, r.cancel_mode, r.cancel_cause, ",
            $instant!("r.cancel_deadline"),
            " AS cancel_deadline, r.cancel_reason, r.cancelled_by, ",
            "r.worktree_name, r.worktree_branch, r.worktree_base, r.worktree_persistence, ",
            $id!("r.retry_of"),
            " AS retry_of, ",
            $tags!(),
            " AS tags, f.agent, f.model, f.session_name, f.git_repository, f.first_commit, f.last_commit, ",
            $int!("f.diff_files"),
            " AS diff_files, ",
            $int!("f.diff_added"),
            " AS diff_added, ",
            $int!("f.diff_removed"),
            " AS diff_removed, ",
            $int!("r.input_tokens"),
            " AS input_tokens, ",
            $int!("r.output_tokens"),
            " AS output_tokens, ",
            $int!("r.cost"),
            " AS cost, ",
            $instant!("r.available_at"),
            " AS available_at, ",
            $instant!("r.deadline_at"),
            " AS deadline_at, ",
            $instant!("r.created_at"),
            " AS created_at, ",
            $instant!("r.updated_at"),
            " AS updated_at, ",
            $instant!("r.started_at"),
            " AS started_at, ",
            $instant!("r.ended_at"),
            " AS ended_at"
        )
    };
}

/// The columns of [`PayloadRow`](crate::row::PayloadRow), of the payload `p`; they follow [`run_columns`].
macro_rules! payload_columns {
    () => {
        "p.input, p.result, p.error, p.metadata, p.file_changes"
    };
}

/// The columns of [`WorktreeRow`](crate::row::WorktreeRow), of the worktree `w`.
macro_rules! worktree_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("w.run_id"),
            " AS run_id, ",
            $int!("w.planned_by"),
            " AS planned_by, w.host, w.git_repository, w.root, w.path, ",
            "w.name, w.branch, w.base, w.persistence, w.state, ",
            $int!("w.held_by"),
            " AS held_by, w.salvage, w.reason, ",
            $instant!("w.created_at"),
            " AS created_at, ",
            $instant!("w.updated_at"),
            " AS updated_at"
        )
    };
}

/// The columns of [`LeaseRow`](crate::row::LeaseRow), of the run `r` and its lease `l`.
macro_rules! lease_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("r.id"),
            " AS id, ",
            $int!("r.token"),
            " AS token, ",
            $id!("l.owner_id"),
            " AS owner_id, l.owner_host, ",
            "l.owner_process, l.child_process, ",
            $instant!("l.heartbeat_at"),
            " AS heartbeat_at, ",
            $instant!("l.expires_at"),
            " AS expires_at"
        )
    };
}

/// The columns of [`EventRow`](crate::row::EventRow), of the event `e`.
macro_rules! event_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $int!("e.number"),
            " AS number, ",
            $instant!("e.at"),
            " AS at, e.kind, ",
            $int!("e.token"),
            " AS token, e.detail"
        )
    };
}

/// The columns of [`CleanupRow`](crate::row::CleanupRow) besides those of the worktree `w`, of the clean-up `c`.
macro_rules! cleanup_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $int!("c.token"),
            " AS cleanup_token, ",
            $int!("c.tries"),
            " AS tries, ",
            $instant!("c.expires_at"),
            " AS expires_at"
        )
    };
}

/// The columns of [`CleanupLeaseRow`](crate::row::CleanupLeaseRow), of the clean-up `c`.
macro_rules! cleanup_lease_columns {
    ($id:ident, $instant:ident, $int:ident) => {
        concat!(
            $id!("c.run_id"),
            " AS id, ",
            $int!("c.planned_by"),
            " AS planned_by, ",
            $int!("c.token"),
            " AS token, ",
            $id!("c.owner_id"),
            " AS owner_id, c.owner_host, c.owner_process, ",
            $instant!("c.expires_at"),
            " AS expires_at"
        )
    };
}

#[cfg(feature = "postgres")]
pub(crate) use reason;
pub(crate) use {
    cleanup_columns, cleanup_lease_columns, event_columns, lease_columns, payload_columns,
    run_columns, status, worktree_columns,
};
