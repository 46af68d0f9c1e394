//! The statements about worktrees and clean-ups.

use crate::row::{cleanup_columns, cleanup_lease_columns, worktree_columns};

/// `$2` host, `$3` git repository.
pub(in crate::postgres) const WORKTREES_OF_SITE: &str = concat!(
    "SELECT ", worktree_columns!(id, instant, int), " FROM runtree_run_worktrees w
    WHERE w.namespace = $1 AND w.host = $2 AND hashtextextended(w.git_repository, 0) = hashtextextended($3, 0)
        AND w.git_repository = $3 AND (w.state <> 'removed') IS TRUE
    ORDER BY w.run_id, w.planned_by"
);

pub(in crate::postgres) const WORKTREES_OF_RUN: &str = concat!(
    "SELECT ",
    worktree_columns!(id, instant, int),
    " FROM runtree_run_worktrees w
    WHERE w.namespace = $1 AND w.run_id = $2
    ORDER BY w.planned_by"
);

/// `$2` host, `$3` git repository, `$4` run or null, `$5` limit, `$6` owner, `$7` its host, `$8` its process, `$9` lease time.
pub(in crate::postgres) const CLAIM_CLEANUPS: &str = concat!(
    "WITH due AS MATERIALIZED (
        SELECT c.run_id, c.planned_by, c.token
        FROM runtree_run_cleanup c JOIN runtree_run_worktrees w
            ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by
        WHERE c.namespace = $1 AND w.host = $2 AND w.git_repository = $3 AND w.state IN ('adding', 'ready', 'kept')
            AND c.available_at <= statement_timestamp() AND (c.expires_at IS NULL OR c.expires_at <= statement_timestamp())
            AND ($4::uuid IS NULL OR c.run_id = $4)
        ORDER BY c.wanted_at, c.run_id, c.planned_by
        LIMIT $5 FOR UPDATE OF c SKIP LOCKED),
    c AS (
        UPDATE runtree_run_cleanup c SET
            token = c.token + 1, tries = c.tries + 1, owner_id = $6, owner_host = $7, owner_process = $8,
            expires_at = ", after!("$9"), "
        FROM due
        WHERE c.namespace = $1 AND c.run_id = due.run_id AND c.planned_by = due.planned_by AND c.token = due.token
            AND c.available_at <= statement_timestamp() AND (c.expires_at IS NULL OR c.expires_at <= statement_timestamp())
        RETURNING c.*)
    SELECT ", worktree_columns!(id, instant, int), ", ", cleanup_columns!(id, instant, int), "
    FROM c JOIN runtree_run_worktrees w ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by
    ORDER BY c.wanted_at, c.run_id, c.planned_by"
);

/// `$2` host, `$3` git repository.
pub(in crate::postgres) const CLEANUP_LEASES: &str = concat!(
    "SELECT ",
    cleanup_lease_columns!(id, instant, int),
    "
    FROM runtree_run_cleanup c JOIN runtree_run_worktrees w
        ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by
    WHERE c.namespace = $1 AND w.host = $2 AND w.git_repository = $3 AND c.expires_at IS NOT NULL
    ORDER BY c.run_id, c.planned_by"
);

/// `$2` runs, `$3` tokens of their worktrees' plans, `$4` tokens of the clean-ups, as they were observed.
pub(in crate::postgres) const FREE_CLEANUPS: &str = "
    UPDATE runtree_run_cleanup c SET owner_id = NULL, owner_host = NULL, owner_process = NULL, expires_at = NULL
    FROM (
        SELECT a.run_id, a.planned_by, a.token FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS a (run_id, planned_by, token)
        ORDER BY a.run_id, a.planned_by) d
    WHERE c.namespace = $1 AND c.run_id = d.run_id AND c.planned_by = d.planned_by AND c.token = d.token
        AND c.expires_at IS NOT NULL";

/// `$2` run, `$3` the token under which the worktree was planned, `$4` the clean-up's own token, `$5` a text of the outcome.
/// The row of the clean-up decides: of two reports the second waits, for the run, and finds it gone or changed.
macro_rules! finish_cleanup {
    ($row:expr, $set:literal, $kind:literal, $detail:literal) => {
        concat!(
            "WITH run AS MATERIALIZED (SELECT r.id FROM runtree_runs r WHERE r.namespace = $1 AND r.id = $2 FOR UPDATE),
            c AS (", $row, "),
            w AS (
                UPDATE runtree_run_worktrees w SET ", $set, "updated_at = greatest(statement_timestamp(), w.updated_at)
                FROM c
                WHERE w.namespace = $1 AND w.run_id = c.run_id AND w.planned_by = c.planned_by
                RETURNING w.*),
            r AS (
                UPDATE runtree_runs r SET
                    last_event = r.last_event + 1, updated_at = greatest(statement_timestamp(), r.updated_at)
                FROM c
                WHERE r.namespace = $1 AND r.id = c.run_id
                RETURNING r.*),
            told AS (
                INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail)
                SELECT r.namespace, r.id, r.last_event, r.updated_at, '", $kind, "', r.token,
                    json_build_object('", $detail, "', $5::text) FROM r)
            SELECT ", worktree_columns!(id, instant, int), " FROM w"
        )
    };
}

macro_rules! cleanup_held {
    () => {
        " CROSS JOIN run WHERE c.namespace = $1 AND c.run_id = run.id AND c.planned_by = $3 AND c.token = $4
            AND w.namespace = $1 AND w.run_id = $2 AND w.planned_by = $3 AND w.state IN ('adding', 'ready', 'kept')
        RETURNING c.run_id, c.planned_by"
    };
}

macro_rules! cleanup_done {
    () => {
        concat!(
            "DELETE FROM runtree_run_cleanup c USING runtree_run_worktrees w",
            cleanup_held!()
        )
    };
}

pub(in crate::postgres) const CLEANUP_REMOVED: &str = finish_cleanup!(
    cleanup_done!(),
    "state = 'removed', salvage = $5, ",
    "worktree_removed",
    "salvage"
);
pub(in crate::postgres) const CLEANUP_KEPT: &str = finish_cleanup!(
    cleanup_done!(),
    "state = 'kept', reason = $5, ",
    "worktree_kept",
    "reason"
);
/// `$6` the wait before the next try.
pub(in crate::postgres) const CLEANUP_POSTPONED: &str = finish_cleanup!(
    concat!(
        "UPDATE runtree_run_cleanup c SET
            last_error = $5, available_at = ",
        after!("$6"),
        ", owner_id = NULL, owner_host = NULL, owner_process = NULL,
            expires_at = NULL
        FROM runtree_run_worktrees w",
        cleanup_held!()
    ),
    "",
    "cleanup_postponed",
    "error"
);
