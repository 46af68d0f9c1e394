//! The statements that claim runs.
//!
//! Runs without a concurrency key are claimed by one statement. It takes from the head of the queue only what comes before the first
//! run with a key that has room, as the snapshot shows it, and tells whether there is such a run. For that run the claimer then takes
//! its turn, and waits for it only if it has claimed nothing yet: under an advisory lock it lists what may be claimed with what is in use (`CANDIDATES_..`), walks down the list, and claims
//! what fits (`CLAIM_CHOSEN`). An expired lease gives its place back only to who locks it first, so that no renewal comes between. So keys cost those who do not meet them nothing, the order holds between runs with and without keys,
//! and a run whose key is full holds nobody up. A place that became free after the snapshot is found by the next claim.

use crate::row::{payload_columns, run_columns, status};

/// What waits and may be claimed, in the words of the partial index over runs that have a key, or have none.
macro_rules! waiting {
    ($keyed:literal) => {
        concat!(
            "r.namespace = $1 AND (r.status = ",
            status!(Pending),
            " AND r.ended_at IS NULL AND r.cancel_requested_at IS NULL AND r.concurrency_key ",
            $keyed,
            ") IS TRUE AND r.available_at <= statement_timestamp() AND ($8::text IS NOT NULL OR r.worktree_name IS NULL)
            AND ($12::text[] IS NULL OR r.workflow = ANY ($12))"
        )
    };
}

/// The runs at work under a key, with the expiry of their leases.
macro_rules! at_work {
    () => {
        concat!(
            "at_work AS MATERIALIZED (
                SELECT o.id, o.token, o.concurrency_key,
                    -- Not a join, which might begin with every lease there is.
                    (SELECT w.expires_at FROM runtree_run_leases w
                        WHERE w.namespace = $1 AND w.run_id = o.id AND w.token = o.token) AS expires_at
                FROM runtree_runs o
                WHERE o.namespace = $1 AND (o.status = ",
            status!(Running),
            " AND o.ended_at IS NULL AND o.concurrency_key IS NOT NULL) IS TRUE)"
        )
    };
}

/// How many leases each key has, as one object; of those at work, `$lives` says which count.
macro_rules! used {
    ($lives:literal) => {
        concat!(
            "used AS MATERIALIZED (
                SELECT jsonb_object_agg(u.key, u.runs) AS counts FROM (
                    SELECT o.concurrency_key AS key, count(*) AS runs FROM at_work o WHERE ",
            $lives,
            " GROUP BY o.concurrency_key) u)"
        )
    };
}

/// As [`used`]; an expired lease is free only for who holds its row until the places are taken. One that somebody else holds may be
/// under a renewal that is not committed yet, and counts.
macro_rules! used_for_certain {
    () => {
        concat!(
            at_work!(),
            ", expired AS MATERIALIZED (
                SELECT w.run_id FROM at_work o
                JOIN runtree_run_leases w ON w.namespace = $1 AND w.run_id = o.id AND w.token = o.token
                WHERE o.expires_at <= statement_timestamp() AND w.expires_at <= statement_timestamp()
                FOR UPDATE OF w SKIP LOCKED), ",
            used!("o.expires_at IS NOT NULL AND (o.id IN (SELECT e.run_id FROM expired e)) IS NOT TRUE")
        )
    };
}

macro_rules! in_use {
    () => {
        "coalesce(((SELECT u.counts FROM used u) ->> r.concurrency_key)::bigint, 0)"
    };
}

/// The part that turns `chosen` runs into owned ones, and the answer; `$keyed` tells whether a run with a key comes next.
macro_rules! own_chosen {
    ($keyed:literal) => {
        concat!(
            "r AS (
                UPDATE runtree_runs r SET
                    status = ", status!(Running), ", token = r.token + 1, attempts = r.attempts + 1, last_event = r.last_event + 1,
                    started_at = coalesce(r.started_at, greatest(statement_timestamp(), r.created_at)),
                    updated_at = greatest(statement_timestamp(), r.updated_at)
                -- What was locked is the newest row; what is joined here is first the snapshot's. Tokens that differ mean that
                -- an attempt began and failed in between, whose worktree the snapshot does not show.
                FROM chosen
                WHERE r.namespace = $1 AND r.id = chosen.id AND r.token = chosen.token AND r.status = ", status!(Pending), "
                    AND r.ended_at IS NULL AND r.cancel_requested_at IS NULL AND r.available_at <= statement_timestamp()
                RETURNING r.*),
            leased AS (
                INSERT INTO runtree_run_leases (
                    namespace, run_id, token, owner_id, owner_host, owner_process, heartbeat_at, expires_at)
                SELECT r.namespace, r.id, r.token, $3, $4, $5, statement_timestamp(), ", after!("$6"), " FROM r
                ON CONFLICT (namespace, run_id) DO UPDATE SET
                    token = excluded.token, owner_id = excluded.owner_id, owner_host = excluded.owner_host,
                    owner_process = excluded.owner_process, child_process = NULL, heartbeat_at = excluded.heartbeat_at,
                    expires_at = excluded.expires_at),
            told AS (
                INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail)
                SELECT r.namespace, r.id, r.last_event, r.updated_at, 'claimed', r.token,
                    json_build_object('attempt', r.attempts, 'owner', $7::text, 'host', $4::text) FROM r),
            here AS MATERIALIZED (
                SELECT DISTINCT ON (w.run_id) w.run_id, w.planned_by, r.token, r.updated_at
                FROM r JOIN runtree_run_worktrees w ON w.namespace = $1 AND w.run_id = r.id
                WHERE r.worktree_name IS NOT NULL AND w.host = $8 AND w.git_repository = $9
                    AND w.state IN ('adding', 'ready', 'kept')
                ORDER BY w.run_id, w.planned_by DESC),
            handed_on AS (
                UPDATE runtree_run_worktrees w SET
                    held_by = here.token, state = CASE w.state WHEN 'kept' THEN 'ready' ELSE w.state END,
                    updated_at = greatest(here.updated_at, w.updated_at)
                FROM here
                WHERE w.namespace = $1 AND w.run_id = here.run_id AND w.planned_by = here.planned_by
                RETURNING w.*),
            planned AS (
                INSERT INTO runtree_run_worktrees (
                    namespace, run_id, planned_by, host, git_repository, root, path, name, branch, base, persistence, state,
                    held_by, created_at, updated_at)
                SELECT r.namespace, r.id, r.token, $8, $9, $10, $11 || r.worktree_name, r.worktree_name, r.worktree_branch,
                    r.worktree_base, r.worktree_persistence, 'adding', r.token, r.updated_at, r.updated_at
                FROM r
                WHERE r.worktree_name IS NOT NULL AND (r.id IN (SELECT here.run_id FROM here)) IS NOT TRUE) ",
            // What was inserted is said again rather than joined: parts of a statement have no index.
            "SELECT k.keyed, ", run_columns!(id, instant, int, tags), ", ", payload_columns!(), ",
                coalesce(w.planned_by, r.token) AS planned_by, coalesce(w.root, $10) AS root,
                coalesce(w.path, $11 || r.worktree_name) AS path, coalesce(w.state, 'adding') AS state, w.salvage, w.reason, ",
                instant!("coalesce(w.created_at, r.updated_at)"), " AS worktree_created_at, ",
                instant!("coalesce(w.updated_at, r.updated_at)"), " AS worktree_updated_at
            FROM (SELECT ", $keyed, " AS keyed) k LEFT JOIN (
                r CROSS JOIN (VALUES ($3::uuid, $4::text, $5::text, ", after!("$6"), "))
                    AS l (owner_id, owner_host, owner_process, expires_at)", payload!(), facts!(),
                " LEFT JOIN handed_on w ON w.run_id = r.id) ON true
            ORDER BY r.priority DESC, r.created_at, r.id"
        )
    };
}

/// `$1` namespace, `$2` limit, `$3` owner, `$4` host, `$5` process, `$6` lease time, `$7` owner as text, `$8` to `$11` the site: host,
/// git repository, root, and the root with a slash at its end; `$12` workflows, `$13` run, `$14` queue, `$15` queues, `$16` ids.
///
/// The answer is a row for each run, or one without a run.
macro_rules! claim {
    ($of:literal) => {
        concat!(
            "WITH ", at_work!(), ", ", used!("o.expires_at > statement_timestamp()"), ",
            keyed AS MATERIALIZED (
                SELECT r.priority, r.created_at, r.id FROM runtree_runs r
                WHERE ", waiting!("IS NOT NULL"), $of, " AND ", in_use!(), " < r.concurrency_limit
                ORDER BY r.priority DESC, r.created_at, r.id
                LIMIT 1),
            head AS MATERIALIZED (
                SELECT r.id, r.token, r.priority, r.created_at FROM runtree_runs r
                WHERE ", waiting!("IS NULL"), $of, "
                ORDER BY r.priority DESC, r.created_at, r.id
                LIMIT $2 FOR UPDATE SKIP LOCKED),
            chosen AS MATERIALIZED (
                SELECT h.id, h.token FROM head h
                WHERE NOT EXISTS (
                    SELECT FROM keyed k
                    WHERE k.priority > h.priority
                        OR (k.priority = h.priority AND (k.created_at, k.id) < (h.created_at, h.id)))), ",
            own_chosen!("EXISTS (SELECT FROM keyed)")
        )
    };
}

/// What may be claimed in turn, in its order, with what is in use; runs with a key only where the run's own limit leaves room. A thousand
/// of one key and ten thousand in all are looked at, many more than one claim takes; what is behind them is for the next.
macro_rules! candidates {
    ($of:literal) => {
        concat!(
            "WITH ", used_for_certain!(), ",
            plain AS MATERIALIZED (
                SELECT r.id, r.priority, r.created_at FROM runtree_runs r
                WHERE ", waiting!("IS NULL"), $of, "
                ORDER BY r.priority DESC, r.created_at, r.id
                LIMIT $2 FOR UPDATE SKIP LOCKED),
            keyed AS MATERIALIZED (
                SELECT r.id, r.priority, r.created_at, r.concurrency_key, r.concurrency_limit, ", in_use!(), " AS in_use,
                    row_number() OVER (PARTITION BY r.concurrency_key ORDER BY r.priority DESC, r.created_at, r.id) AS place
                FROM runtree_runs r
                WHERE ", waiting!("IS NOT NULL"), $of, " AND ", in_use!(), " < r.concurrency_limit)
            SELECT ", id!("c.id"), " AS id, c.concurrency_key, c.concurrency_limit, c.in_use FROM (
                SELECT p.id, p.priority, p.created_at, NULL AS concurrency_key, NULL::bigint AS concurrency_limit, 0::bigint AS in_use
                FROM plain p
                UNION ALL
                SELECT k.id, k.priority, k.created_at, k.concurrency_key, k.concurrency_limit, k.in_use
                FROM keyed k WHERE k.place <= 1000) c
            ORDER BY c.priority DESC, c.created_at, c.id
            LIMIT 10000"
        )
    };
}

pub(in crate::postgres) const CLAIM_ANY: &str = claim!("");
pub(in crate::postgres) const CLAIM_QUEUE: &str = claim!(" AND r.queue = $14");
pub(in crate::postgres) const CLAIM_QUEUES: &str = claim!(" AND r.queue = ANY ($15::text[])");
pub(in crate::postgres) const CLAIM_RUN: &str = claim!(" AND r.id = $13");

pub(in crate::postgres) const CANDIDATES_ANY: &str = candidates!("");
pub(in crate::postgres) const CANDIDATES_QUEUE: &str = candidates!(" AND r.queue = $14");
pub(in crate::postgres) const CANDIDATES_QUEUES: &str =
    candidates!(" AND r.queue = ANY ($15::text[])");
pub(in crate::postgres) const CANDIDATES_RUN: &str = candidates!(" AND r.id = $13");

/// The turn among those who claim runs with keys, as a lock. The first number is its own among those of the database: the bytes of
/// "rtck"; the second is of the namespace in its schema.
macro_rules! turn {
    () => {
        "(1920230251, hashtext('runtree_runs'::regclass::oid::text || '/' || $1))"
    };
}

/// Waits for the turn and takes it until the transaction ends.
pub(in crate::postgres) const TAKE_TURN: &str =
    concat!("SELECT pg_advisory_xact_lock", turn!(), " IS NULL AS done");

/// Takes the turn if nobody has it, until the transaction ends: a row, or none.
pub(in crate::postgres) const TRY_TURN: &str = concat!(
    "SELECT t.done FROM (SELECT pg_try_advisory_xact_lock",
    turn!(),
    " AS done) t WHERE t.done"
);

/// As the other claims, of the runs `$16`.
pub(in crate::postgres) const CLAIM_CHOSEN: &str = concat!(
    "WITH chosen AS MATERIALIZED (
        SELECT r.id, r.token FROM runtree_runs r
        WHERE r.namespace = $1 AND r.id = ANY ($16::uuid[]) AND r.status = ",
    status!(Pending),
    " FOR UPDATE SKIP LOCKED), ",
    own_chosen!("false")
);
