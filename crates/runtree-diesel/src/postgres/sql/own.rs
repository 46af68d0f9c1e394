//! The statements of owners that move no run: heartbeats, reports, and the record of what was rejected.

use crate::row::{run_columns, status, worktree_columns};

/// `$2` ids and `$3` tokens, `$4` lease time.
///
/// The leases are locked first, in the order of ids, and only then asked whether they live: a claim that has found one expired holds it
/// until its turn is over, and a renewal that waited for that must not go by the instant at which it began.
pub(in crate::postgres) const RENEW: &str = concat!(
    "WITH asked AS MATERIALIZED (
        SELECT DISTINCT a.id, a.token FROM unnest($2::uuid[], $3::bigint[]) AS a (id, token) ORDER BY a.id, a.token),
    -- No joins: for a planner that takes a table for empty, as that of leases often is, they would read all of it for each.
    held AS MATERIALIZED (
        SELECT l.run_id, l.token, l.expires_at
        FROM asked CROSS JOIN LATERAL (
            SELECT l.run_id, l.token, l.expires_at FROM runtree_run_leases l
            WHERE l.namespace = $1 AND l.run_id = asked.id AND l.token = asked.token FOR UPDATE) l),
    l AS (
        UPDATE runtree_run_leases l SET
            heartbeat_at = greatest(statement_timestamp(), l.heartbeat_at), expires_at = ", after!("$4"), "
        WHERE l.namespace = $1 AND l.run_id = ANY (ARRAY(
            SELECT held.run_id FROM held CROSS JOIN LATERAL (
                SELECT FROM runtree_runs r
                WHERE r.namespace = $1 AND r.id = held.run_id AND r.token = held.token AND r.status = ", status!(Running), "
                    AND r.ended_at IS NULL OFFSET 0) r
            WHERE held.expires_at > clock_timestamp()))
        RETURNING l.*) ",
    summary!(), " FROM l JOIN runtree_runs r ON r.namespace = $1 AND r.id = l.run_id", facts!()
);

/// `$2` id, `$3` token, `$4` the child.
pub(in crate::postgres) const RECORD_CHILD: &str = concat!(
    "
    UPDATE runtree_run_leases l SET child_process = $4
    FROM runtree_runs r
    WHERE l.namespace = $1 AND l.run_id = $2 AND l.token = $3
        AND r.namespace = $1 AND r.id = $2 AND r.token = $3 AND r.status = ",
    status!(Running),
    " AND r.ended_at IS NULL"
);

/// `$2` id, `$3` token. Two reports at once are told apart by the number of the last event: the second starts again.
pub(in crate::postgres) const WORKTREE_READY: &str = concat!(
    "WITH seen AS MATERIALIZED (
        SELECT r.last_event, w.planned_by
        FROM runtree_runs r JOIN runtree_run_worktrees w ON w.namespace = $1 AND w.run_id = $2 AND w.held_by = $3
        WHERE r.namespace = $1 AND r.id = $2 AND w.state = 'adding'
        ORDER BY w.planned_by DESC LIMIT 1),
    r AS (
        UPDATE runtree_runs r SET
            last_event = r.last_event + 1, updated_at = greatest(statement_timestamp(), r.updated_at)
        FROM seen
        WHERE r.namespace = $1 AND r.id = $2 AND r.token = $3 AND r.status = ", status!(Running), " AND r.ended_at IS NULL
            AND r.last_event = seen.last_event
        RETURNING r.*, seen.planned_by),
    w AS (
        UPDATE runtree_run_worktrees w SET state = 'ready', updated_at = greatest(r.updated_at, w.updated_at)
        FROM r
        WHERE w.namespace = $1 AND w.run_id = $2 AND w.planned_by = r.planned_by
        RETURNING w.*),
    told AS (
        INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token)
        SELECT r.namespace, r.id, r.last_event, r.updated_at, 'worktree_ready', r.token FROM r) ",
    "SELECT ", worktree_columns!(id, instant, int), " FROM w"
);

/// Records a rejected write, unless the last event says the same: `$2` id, `$3` the token that it showed, `$4` what it was.
pub(in crate::postgres) const REJECT: &str = "
    WITH r AS (
        UPDATE runtree_runs r SET
            last_event = r.last_event + 1, updated_at = greatest(statement_timestamp(), r.updated_at)
        WHERE r.namespace = $1 AND r.id = $2 AND NOT EXISTS (
            SELECT FROM runtree_run_events e
            WHERE e.namespace = $1 AND e.run_id = $2 AND e.number = r.last_event AND e.kind = 'rejected' AND e.token = $3
                AND e.detail ->> 'event' = $4)
        RETURNING r.*)
    INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail)
    SELECT r.namespace, r.id, r.last_event, r.updated_at, 'rejected', $3, json_build_object('event', $4::text) FROM r";
