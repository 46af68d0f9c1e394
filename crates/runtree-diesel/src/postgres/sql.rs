//! Every statement, as a constant text: each transition is one statement, decided by guards that PostgreSQL checks.
//!
//! What makes them correct under READ COMMITTED, in one place:
//!
//! - All parts of a statement see one snapshot, and not each other's changes; they hand rows on by `RETURNING`. An `UPDATE` that
//!   waited for a lock re-checks its guards against the new row, but what it joins stays as the snapshot saw it.
//! - So the row of the run is the one point of order: everything that changes a run's lease, worktrees or clean-ups also updates it.
//!   A transition that acts on worktrees reads the token with the same snapshot (`seen`) and repeats it as a guard: if somebody
//!   claimed the run meanwhile, and planned a worktree that the snapshot does not show, the guard fails and nothing is written.
//! - Locks are taken on the run first, then on its lease. What locks many runs skips those that are locked, so nothing waits in a
//!   circle.
//! - `now` is `statement_timestamp()`: the server's clock, the same instant wherever a statement says it, re-checks included.
//! - The partial indexes say `IS TRUE`, and so do the few statements that are meant to use them. The others cannot: statistics that
//!   were taken while nothing ran would make such an index look like the shortest way to any running run.
//! - The numbers of events come from the run's own `last_event`, counted up by the same update.

use crate::row::{
    cleanup_columns, cleanup_lease_columns, event_columns, lease_columns, payload_columns, reason,
    run_columns, status, worktree_columns,
};

macro_rules! id {
    ($column:expr) => {
        concat!("uuid_send(", $column, ")")
    };
}

macro_rules! instant {
    ($column:expr) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000000)::bigint")
    };
}

macro_rules! int {
    ($column:expr) => {
        concat!($column, "::bigint")
    };
}

/// The instant some microseconds from now, as far as an instant of ours goes.
macro_rules! after {
    ($micros:literal) => {
        concat!(
            "least(statement_timestamp() + ",
            $micros,
            "::bigint * interval '1 microsecond', ",
            "timestamptz '9999-12-31 23:59:59.999999+00')"
        )
    };
}

/// The lease of the run `r`, as the snapshot shows it, while the run is running.
macro_rules! lease_while_running {
    () => {
        concat!(" LEFT JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id AND r.status = ", status!(Running))
    };
}

macro_rules! payload {
    () => {
        " LEFT JOIN runtree_run_payloads p ON p.namespace = r.namespace AND p.run_id = r.id"
    };
}

macro_rules! lease {
    () => {
        " LEFT JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id"
    };
}

macro_rules! whole_run {
    () => {
        concat!(
            "SELECT ",
            run_columns!(id, instant, int),
            ", ",
            payload_columns!()
        )
    };
}

macro_rules! summary {
    () => {
        concat!("SELECT ", run_columns!(id, instant, int))
    };
}

pub(super) const NOW: &str = concat!("SELECT ", instant!("clock_timestamp()"), " AS now");

/// `$1` namespace, `$2` id, then the columns in order.
pub(super) const CREATE: &str = concat!(
    "WITH r AS (
        INSERT INTO runtree_runs (
            namespace, id, workflow, status, priority, idempotency_key, unique_key, session_id, user_id, fingerprint, max_attempts,
            last_event, worktree_name, worktree_branch, worktree_base, worktree_persistence, available_at, created_at, updated_at)
        VALUES (
            $1, $2, $3, ", status!(Pending), ", $4, $5, $6, $7, $8, $9, $10, 1, $11, $12, $13, $14,
            coalesce($15, statement_timestamp()), statement_timestamp(), statement_timestamp())
        ON CONFLICT DO NOTHING
        RETURNING *),
    p AS (
        INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata)
        SELECT r.namespace, r.id, $16, $17::json FROM r
        RETURNING run_id, input, result, error, metadata),
    told AS (
        INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token)
        SELECT r.namespace, r.id, r.last_event, r.created_at, 'created', r.token FROM r) ",
    whole_run!(), " FROM r JOIN p ON p.run_id = r.id", lease!()
);

/// What stands in the way of a create: `$1` namespace, `$2` id, `$3` idempotency key, `$4` unique key.
pub(super) const EXISTING: &str = concat!(
    whole_run!(),
    ", r.fingerprint FROM runtree_runs r",
    payload!(),
    lease!(),
    " WHERE r.namespace = $1
        AND (r.idempotency_key = $3 OR r.id = $2 OR (r.unique_key = $4 AND r.ended_at IS NULL))
    ORDER BY CASE WHEN r.idempotency_key = $3 THEN 1 WHEN r.id = $2 THEN 2 ELSE 3 END
    LIMIT 1"
);

pub(super) const GET: &str = concat!(
    whole_run!(),
    " FROM runtree_runs r",
    payload!(),
    lease!(),
    " WHERE r.namespace = $1 AND r.id = $2"
);

/// `$2` the last five digits, which the index has; `$3` the number of bits and `$4` the bits that the ending speaks of.
pub(super) const FIND: &str = concat!(
    summary!(),
    " FROM runtree_runs r",
    lease!(),
    " WHERE r.namespace = $1 AND right(r.id::text, 5) = $2
        AND right(('x' || replace(r.id::text, '-', ''))::bit(128)::text, $3::bigint::integer) = $4
    ORDER BY r.id LIMIT $5"
);

/// The conditions of a list; a range without an end has an infinite one, so that the order of the index can be used.
macro_rules! list {
    ($beyond:literal, $order:literal) => {
        concat!(
            summary!(), " FROM runtree_runs r", lease!(),
            " WHERE r.namespace = $1
                AND ($2::text[] IS NULL OR r.status = ANY ($2))
                AND ($3::text[] IS NULL OR r.workflow = ANY ($3))
                AND ($4::uuid IS NULL OR r.session_id = $4)
                AND ($5::text IS NULL OR r.user_id = $5)
                AND r.created_at >= $6 AND r.created_at < $7
                AND ($8::timestamptz IS NULL OR r.started_at >= $8) AND ($9::timestamptz IS NULL OR r.started_at < $9)
                AND ($10::timestamptz IS NULL OR r.ended_at >= $10) AND ($11::timestamptz IS NULL OR r.ended_at < $11)
                AND (r.created_at, r.id) ", $beyond, " ($12, $13)
            ORDER BY r.created_at ", $order, ", r.id ", $order, " LIMIT $14"
        )
    };
}

pub(super) const LIST_NEWEST_FIRST: &str = list!("<", "DESC");
pub(super) const LIST_OLDEST_FIRST: &str = list!(">", "ASC");

pub(super) const EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(id, instant, int),
    " FROM runtree_run_events e
    WHERE e.namespace = $1 AND e.run_id = $2 AND e.number > $3 ORDER BY e.number LIMIT $4"
);

/// `$1` namespace, `$2` limit, `$3` owner, `$4` host, `$5` process, `$6` lease time, `$7` owner as text, `$8` to `$11` the site: host,
/// git repository, root, and the root with a slash at its end; `$12` workflows, `$13` run.
macro_rules! claim {
    ($of:literal) => {
        concat!(
            "WITH chosen AS MATERIALIZED (
                SELECT r.id, r.token FROM runtree_runs r
                WHERE r.namespace = $1
                    AND (r.status = ", status!(Pending), " AND r.ended_at IS NULL AND r.cancel_requested_at IS NULL) IS TRUE
                    AND r.available_at <= statement_timestamp() AND ($8::text IS NOT NULL OR r.worktree_name IS NULL)", $of, "
                ORDER BY r.priority DESC, r.created_at, r.id
                LIMIT $2 FOR UPDATE SKIP LOCKED),
            r AS (
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
                SELECT DISTINCT ON (w.run_id) w.run_id, w.planned_by
                FROM r JOIN runtree_run_worktrees w ON w.namespace = $1 AND w.run_id = r.id
                WHERE r.worktree_name IS NOT NULL AND w.host = $8 AND w.git_repository = $9
                    AND w.state IN ('adding', 'ready', 'kept')
                ORDER BY w.run_id, w.planned_by DESC),
            handed_on AS (
                UPDATE runtree_run_worktrees w SET
                    held_by = r.token, state = CASE w.state WHEN 'kept' THEN 'ready' ELSE w.state END,
                    updated_at = greatest(r.updated_at, w.updated_at)
                FROM here JOIN r ON r.id = here.run_id
                WHERE w.namespace = $1 AND w.run_id = here.run_id AND w.planned_by = here.planned_by
                RETURNING w.*),
            planned AS (
                INSERT INTO runtree_run_worktrees (
                    namespace, run_id, planned_by, host, git_repository, root, path, name, branch, base, persistence, state,
                    held_by, created_at, updated_at)
                SELECT r.namespace, r.id, r.token, $8, $9, $10, $11 || r.worktree_name, r.worktree_name, r.worktree_branch,
                    r.worktree_base, r.worktree_persistence, 'adding', r.token, r.updated_at, r.updated_at
                FROM r
                WHERE r.worktree_name IS NOT NULL AND NOT EXISTS (SELECT FROM here WHERE here.run_id = r.id)) ",
            // What was inserted is said again rather than joined: parts of a statement have no index.
            whole_run!(), ",
                coalesce(w.planned_by, r.token) AS planned_by, coalesce(w.root, $10) AS root,
                coalesce(w.path, $11 || r.worktree_name) AS path, coalesce(w.state, 'adding') AS state, w.salvage, w.reason, ",
                instant!("coalesce(w.created_at, r.updated_at)"), " AS worktree_created_at, ",
                instant!("coalesce(w.updated_at, r.updated_at)"), " AS worktree_updated_at
            FROM r CROSS JOIN (VALUES ($3::uuid, $4::text, $5::text, ", after!("$6"), "))
                AS l (owner_id, owner_host, owner_process, expires_at)", payload!(),
            " LEFT JOIN handed_on w ON w.run_id = r.id
            ORDER BY r.priority DESC, r.created_at, r.id"
        )
    };
}

pub(super) const CLAIM_ANY: &str = claim!("");
pub(super) const CLAIM_WORKFLOWS: &str = claim!(" AND r.workflow = ANY ($12::text[])");
pub(super) const CLAIM_RUN: &str = claim!(" AND r.id = $13");

/// `$2` ids and `$3` tokens, `$4` lease time.
pub(super) const RENEW: &str = concat!(
    "WITH asked AS MATERIALIZED (
        SELECT DISTINCT a.id, a.token FROM unnest($2::uuid[], $3::bigint[]) AS a (id, token)),
    l AS (
        UPDATE runtree_run_leases l SET
            heartbeat_at = greatest(statement_timestamp(), l.heartbeat_at), expires_at = ", after!("$4"), "
        FROM asked JOIN runtree_runs r
            ON r.namespace = $1 AND r.id = asked.id AND r.token = asked.token AND r.status = ", status!(Running), " AND r.ended_at IS NULL
        WHERE l.namespace = $1 AND l.run_id = asked.id AND l.token = asked.token AND l.expires_at > statement_timestamp()
        RETURNING l.*) ",
    summary!(), " FROM l JOIN runtree_runs r ON r.namespace = $1 AND r.id = l.run_id"
);

/// `$2` id, `$3` token, `$4` the child.
pub(super) const RECORD_CHILD: &str = concat!(
    "
    UPDATE runtree_run_leases l SET child_process = $4
    FROM runtree_runs r
    WHERE l.namespace = $1 AND l.run_id = $2 AND l.token = $3
        AND r.namespace = $1 AND r.id = $2 AND r.token = $3 AND r.status = ",
    status!(Running),
    " AND r.ended_at IS NULL"
);

/// `$2` id, `$3` token. Two reports at once are told apart by the number of the last event: the second starts again.
pub(super) const WORKTREE_READY: &str = concat!(
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
pub(super) const REJECT: &str = "
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

/// One transition of running or pending runs, with all that an ending for good brings about.
///
/// - `seen`: a query for the ids and tokens of the runs to move;
/// - `guard`: on the run `r` as it is;
/// - `status` and `reason`: expressions over `r` before the change, the reason null unless the run ends;
/// - `set`: further columns, each after a comma;
/// - `events`: rows of (place, kind, detail) over `r` after the change; a null kind is no event;
/// - `more`: how many events an ending has besides the first and those of its worktrees;
/// - `stored`: a further part that writes the payload, or nothing;
/// - `answer`: the query over `r`.
macro_rules! transition {
    (seen: $seen:expr, guard: $guard:expr, status: $status:expr, reason: $reason:expr, set: $set:expr, events: $events:expr,
     more: $more:literal, stored: $stored:expr, answer: $answer:expr) => {
        concat!(
            "WITH seen AS MATERIALIZED (", $seen, "),
            live AS MATERIALIZED (
                SELECT w.run_id, w.planned_by, w.persistence,
                    row_number() OVER (PARTITION BY w.run_id ORDER BY w.planned_by) AS place
                FROM seen JOIN runtree_run_worktrees w ON w.namespace = $1 AND w.run_id = seen.id
                WHERE w.state IN ('adding', 'ready')),
            counted AS MATERIALIZED (
                SELECT seen.id, seen.token, (SELECT count(*) FROM live WHERE live.run_id = seen.id) AS worktrees FROM seen),
            r AS (
                UPDATE runtree_runs r SET
                    status = ", $status, ",
                    end_reason = ", $reason, ",
                    ended_at = CASE WHEN ", $status, " IN (", status!(Completed), ", ", status!(Failed), ", ", status!(Killed), ")
                        THEN greatest(statement_timestamp(), r.created_at, r.started_at) END,
                    updated_at = greatest(statement_timestamp(), r.updated_at),
                    last_event = r.last_event + 1 + CASE WHEN ", $status, " IN (", status!(Completed), ", ", status!(Failed), ", ", status!(Killed), ")
                        THEN counted.worktrees + ", $more, " ELSE 0 END",
                    $set, "
                FROM counted
                WHERE r.namespace = $1 AND r.id = counted.id AND r.token = counted.token AND r.ended_at IS NULL
                    AND ", $guard, "
                RETURNING r.*, counted.token AS seen_token, counted.worktrees,
                    r.last_event - CASE WHEN r.ended_at IS NOT NULL THEN counted.worktrees + ", $more, " ELSE 0 END AS first_event),
            given_up AS (
                DELETE FROM runtree_run_leases l USING r
                WHERE l.namespace = $1 AND l.run_id = r.id AND r.status <> ", status!(Running), "),
            left_behind AS MATERIALIZED (
                SELECT r.id, r.token, r.last_event - r.worktrees + live.place AS number, r.updated_at, live.planned_by,
                    live.persistence
                FROM r JOIN live ON live.run_id = r.id
                WHERE r.ended_at IS NOT NULL),
            kept AS (
                UPDATE runtree_run_worktrees w SET state = 'kept', updated_at = greatest(b.updated_at, w.updated_at)
                FROM left_behind b
                WHERE b.persistence = 'persistent' AND w.namespace = $1 AND w.run_id = b.id AND w.planned_by = b.planned_by),
            wanted AS (
                INSERT INTO runtree_run_cleanup (namespace, run_id, planned_by, wanted_at, available_at)
                SELECT $1, b.id, b.planned_by, statement_timestamp(), statement_timestamp()
                FROM left_behind b WHERE b.persistence <> 'persistent'
                ON CONFLICT DO NOTHING),
            told AS (
                INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail)
                SELECT $1, r.id, r.first_event + e.place, r.updated_at, e.kind, r.token, e.detail
                FROM r CROSS JOIN LATERAL (VALUES ", $events, ") AS e (place, kind, detail)
                WHERE e.kind IS NOT NULL
                UNION ALL
                SELECT $1, b.id, b.number, b.updated_at,
                    CASE b.persistence WHEN 'persistent' THEN 'worktree_kept' ELSE 'cleanup_wanted' END, b.token, NULL
                FROM left_behind b)",
            $stored, " ", $answer
        )
    };
}

/// What an owner shows: `$1` namespace, `$2` id, `$3` token.
macro_rules! owned {
    () => {
        "SELECT r.id, r.token FROM runtree_runs r WHERE r.namespace = $1 AND r.id = $2 AND r.token = $3"
    };
}

macro_rules! anybody {
    () => {
        "SELECT r.id, r.token FROM runtree_runs r WHERE r.namespace = $1 AND r.id = $2"
    };
}

macro_rules! answer_whole {
    () => {
        concat!(whole_run!(), " FROM r", payload!(), lease_while_running!())
    };
}

macro_rules! ended {
    () => {
        "(0, r.status, json_build_object('reason', r.end_reason))"
    };
}

/// `$4` the result, as JSON.
pub(super) const COMPLETE: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running), " AND EXISTS (
        SELECT FROM runtree_run_leases l
        WHERE l.namespace = $1 AND l.run_id = $2 AND l.token = $3 AND l.expires_at > statement_timestamp())"),
    status: status!(Completed),
    reason: reason!(Succeeded),
    set: "",
    events: ended!(),
    more: "0",
    stored: ", stored AS (
        UPDATE runtree_run_payloads p SET result = $4::json FROM r
        WHERE $4::text IS NOT NULL AND p.namespace = $1 AND p.run_id = r.id)",
    answer: concat!(
        whole_run!(), " FROM r JOIN LATERAL (
            SELECT o.input, coalesce($4::json, o.result) AS result, o.error, o.metadata
            FROM runtree_run_payloads o WHERE o.namespace = r.namespace AND o.run_id = r.id) p ON true", lease_while_running!()
    )
);

macro_rules! failed_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            status!(Killed),
            "
            WHEN $5::bigint IS NOT NULL AND r.attempts < r.max_attempts THEN ",
            status!(Pending),
            " ELSE ",
            status!(Failed),
            " END"
        )
    };
}

/// `$4` the error, `$5` the wait before another attempt.
pub(super) const FAIL: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running)),
    status: failed_to!(),
    reason: concat!("CASE ", failed_to!(), " WHEN ", status!(Killed), " THEN ", reason!(Killed), " WHEN ", status!(Failed), " THEN ", reason!(Error), " END"),
    set: concat!(", available_at = CASE ", failed_to!(), " WHEN ", status!(Pending), " THEN ", after!("$5"), " ELSE r.available_at END"),
    events: concat!("(0, CASE r.status WHEN ", status!(Pending), " THEN 'retry_planned' ELSE r.status END,
        CASE r.status
            WHEN ", status!(Pending), " THEN json_build_object(
                'available_at', to_char(r.available_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))
            ELSE json_build_object('reason', r.end_reason) END)"),
    more: "0",
    stored: ", stored AS (
        UPDATE runtree_run_payloads p SET error = $4 FROM r WHERE p.namespace = $1 AND p.run_id = r.id)",
    answer: concat!(
        whole_run!(), " FROM r JOIN LATERAL (
            SELECT o.input, o.result, $4::text AS error, o.metadata
            FROM runtree_run_payloads o WHERE o.namespace = r.namespace AND o.run_id = r.id) p ON true", lease_while_running!()
    )
);

pub(super) const ACKNOWLEDGE_CANCEL: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running)),
    status: status!(Killed),
    reason: reason!(Killed),
    set: "",
    events: ended!(),
    more: "0",
    stored: "",
    answer: answer_whole!()
);

macro_rules! released_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            status!(Killed),
            " ELSE ",
            status!(Pending),
            " END"
        )
    };
}

pub(super) const RELEASE: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running)),
    status: released_to!(),
    reason: concat!("CASE ", released_to!(), " WHEN ", status!(Killed), " THEN ", reason!(Killed), " END"),
    set: concat!(
        ", attempts = CASE ", released_to!(), " WHEN ", status!(Pending), " THEN greatest(r.attempts - 1, 0) ELSE r.attempts END",
        ", available_at = CASE ", released_to!(), " WHEN ", status!(Pending), " THEN statement_timestamp() ELSE r.available_at END"
    ),
    events: concat!("(0, CASE r.status WHEN ", status!(Pending), " THEN 'released' ELSE r.status END,
        CASE r.status WHEN ", status!(Pending), " THEN NULL ELSE json_build_object('reason', r.end_reason) END)"),
    more: "0",
    stored: "",
    answer: answer_whole!()
);

/// `$3` mode, `$4` grace, `$5` reason, `$6` who wants it. What a first request leaves open, a second may fill.
pub(super) const CANCEL: &str = transition!(
    seen: anybody!(),
    guard: concat!("(r.status = ", status!(Pending), " OR (r.status = ", status!(Running), "
        AND (r.cancel_requested_at IS NULL OR (r.cancel_mode = 'graceful' AND $3 = 'forced'))))"),
    status: concat!("CASE r.status WHEN ", status!(Pending), " THEN ", status!(Killed), " ELSE ", status!(Running), " END"),
    reason: concat!("CASE r.status WHEN ", status!(Pending), " THEN ", reason!(CancelledBeforeStart), " END"),
    set: concat!(
        ", cancel_requested_at = coalesce(r.cancel_requested_at, statement_timestamp()), cancel_mode = $3",
        ", cancel_deadline = CASE WHEN $4::bigint IS NULL THEN r.cancel_deadline ELSE ", after!("$4"), " END",
        ", cancel_reason = coalesce($5, r.cancel_reason), cancelled_by = coalesce($6, r.cancelled_by)"
    ),
    events: concat!("(0, CASE r.status WHEN ", status!(Killed), " THEN ", status!(Killed), " ELSE 'cancel_requested' END,
        CASE r.status WHEN ", status!(Killed), " THEN json_build_object('reason', r.end_reason)
            ELSE json_build_object('mode', r.cancel_mode, 'by', r.cancelled_by) END)"),
    more: "0",
    stored: "",
    answer: answer_whole!()
);

/// As [`CANCEL`]; an intent that is there stays as it is.
pub(super) const FORCE_KILL: &str = transition!(
    seen: anybody!(),
    guard: concat!("r.status IN (", status!(Pending), ", ", status!(Running), ")"),
    status: status!(Killed),
    reason: concat!("CASE r.status WHEN ", status!(Pending), " THEN ", reason!(CancelledBeforeStart), " ELSE ", reason!(Killed), " END"),
    set: concat!(
        ", token = CASE r.status WHEN ", status!(Running), " THEN r.token + 1 ELSE r.token END",
        ", cancel_requested_at = coalesce(r.cancel_requested_at, statement_timestamp())",
        ", cancel_mode = coalesce(r.cancel_mode, $3)",
        ", cancel_deadline = CASE WHEN r.cancel_requested_at IS NOT NULL OR $4::bigint IS NULL THEN r.cancel_deadline ELSE ",
        after!("$4"), " END",
        ", cancel_reason = CASE WHEN r.cancel_requested_at IS NOT NULL THEN r.cancel_reason ELSE $5 END",
        ", cancelled_by = CASE WHEN r.cancel_requested_at IS NOT NULL THEN r.cancelled_by ELSE $6 END"
    ),
    events: ended!(),
    more: "0",
    stored: "",
    answer: answer_whole!()
);

pub(super) const LEASES: &str = concat!(
    "SELECT ",
    lease_columns!(id, instant, int),
    " FROM runtree_run_leases l
    JOIN runtree_runs r ON r.namespace = l.namespace AND r.id = l.run_id AND r.token = l.token
    WHERE l.namespace = $1 AND r.status = ",
    status!(Running),
    " AND r.ended_at IS NULL AND ($2::text IS NULL OR l.owner_host = $2)
    ORDER BY l.run_id"
);

macro_rules! rescued_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            status!(Killed),
            " WHEN r.attempts < r.max_attempts THEN ",
            status!(Pending),
            "
            ELSE ",
            status!(Failed),
            " END"
        )
    };
}

/// `$2` ids and `$3` tokens of owners that are proven dead, `$4` how many expired leases besides, `$5` ids
/// of runs whose expired leases are left alone. Run and lease are locked together,
/// so that a renewal is either before, and the lease has not expired, or after, and finds no lease.
pub(super) const RESCUE: &str = transition!(
    seen: concat!("WITH dead AS MATERIALIZED (
            SELECT r.id, r.token
            FROM (SELECT DISTINCT a.id, a.token FROM unnest($2::uuid[], $3::bigint[]) AS a (id, token)) AS asked
            JOIN runtree_run_leases l ON l.namespace = $1 AND l.run_id = asked.id AND l.token = asked.token
            JOIN runtree_runs r ON r.namespace = $1 AND r.id = asked.id AND r.token = asked.token
            WHERE r.status = ", status!(Running), " AND r.ended_at IS NULL
            FOR UPDATE OF l, r SKIP LOCKED),
        expired AS MATERIALIZED (
            SELECT r.id, r.token
            FROM runtree_run_leases l
            JOIN runtree_runs r ON r.namespace = $1 AND r.id = l.run_id AND r.token = l.token
            WHERE l.namespace = $1 AND l.expires_at <= statement_timestamp() AND r.status = ", status!(Running), " AND r.ended_at IS NULL
                AND NOT EXISTS (SELECT FROM dead WHERE dead.id = l.run_id) AND l.run_id <> ALL ($5::uuid[])
            ORDER BY l.expires_at, l.run_id
            LIMIT $4 FOR UPDATE OF l, r SKIP LOCKED),
        ownerless AS MATERIALIZED (
            SELECT r.id, r.token
            FROM runtree_runs r
            WHERE r.namespace = $1 AND r.id <> ALL ($5::uuid[]) AND (r.status = ", status!(Running), " AND r.ended_at IS NULL) IS TRUE AND NOT EXISTS (
                SELECT FROM runtree_run_leases l WHERE l.namespace = $1 AND l.run_id = r.id AND l.token = r.token)
            ORDER BY r.id
            LIMIT greatest($4 - (SELECT count(*) FROM expired), 0) FOR UPDATE OF r SKIP LOCKED)
        SELECT id, token FROM dead UNION ALL SELECT id, token FROM expired UNION ALL SELECT id, token FROM ownerless"),
    guard: concat!("r.status = ", status!(Running)),
    status: rescued_to!(),
    reason: concat!("CASE ", rescued_to!(), " WHEN ", status!(Killed), " THEN ", reason!(Killed), " WHEN ", status!(Failed), " THEN ", reason!(Lost), " END"),
    set: concat!(
        ", token = r.token + 1",
        ", available_at = CASE ", rescued_to!(), " WHEN ", status!(Pending), " THEN statement_timestamp() ELSE r.available_at END"
    ),
    events: "(0, 'rescued', json_build_object('to', r.status)),
        (1, CASE WHEN r.ended_at IS NOT NULL THEN r.status END, json_build_object('reason', r.end_reason))",
    more: "1",
    stored: "",
    answer: concat!(summary!(), ", r.seen_token FROM r", lease_while_running!())
);

/// `$2` host, `$3` git repository.
pub(super) const WORKTREES_OF_SITE: &str = concat!(
    "SELECT ", worktree_columns!(id, instant, int), " FROM runtree_run_worktrees w
    WHERE w.namespace = $1 AND w.host = $2 AND hashtextextended(w.git_repository, 0) = hashtextextended($3, 0)
        AND w.git_repository = $3 AND (w.state <> 'removed') IS TRUE
    ORDER BY w.run_id, w.planned_by"
);

pub(super) const WORKTREES_OF_RUN: &str = concat!(
    "SELECT ",
    worktree_columns!(id, instant, int),
    " FROM runtree_run_worktrees w
    WHERE w.namespace = $1 AND w.run_id = $2
    ORDER BY w.planned_by"
);

/// `$2` host, `$3` git repository, `$4` run or null, `$5` limit, `$6` owner, `$7` its host, `$8` its process, `$9` lease time.
pub(super) const CLAIM_CLEANUPS: &str = concat!(
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
pub(super) const CLEANUP_LEASES: &str = concat!(
    "SELECT ",
    cleanup_lease_columns!(id, instant, int),
    "
    FROM runtree_run_cleanup c JOIN runtree_run_worktrees w
        ON w.namespace = c.namespace AND w.run_id = c.run_id AND w.planned_by = c.planned_by
    WHERE c.namespace = $1 AND w.host = $2 AND w.git_repository = $3 AND c.expires_at IS NOT NULL
    ORDER BY c.run_id, c.planned_by"
);

/// `$2` runs, `$3` tokens of their worktrees' plans, `$4` tokens of the clean-ups, as they were observed.
pub(super) const FREE_CLEANUPS: &str = "
    UPDATE runtree_run_cleanup c SET owner_id = NULL, owner_host = NULL, owner_process = NULL, expires_at = NULL
    FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS d (run_id, planned_by, token)
    WHERE c.namespace = $1 AND c.run_id = d.run_id AND c.planned_by = d.planned_by AND c.token = d.token
        AND c.expires_at IS NOT NULL";

/// `$2` run, `$3` the token under which the worktree was planned, `$4` the clean-up's own token, `$5` a text of the outcome.
/// The row of the clean-up decides: of two reports the second waits for it and finds it gone or changed.
macro_rules! finish_cleanup {
    ($row:expr, $set:literal, $kind:literal, $detail:literal) => {
        concat!(
            "WITH c AS (", $row, "),
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
        " WHERE c.namespace = $1 AND c.run_id = $2 AND c.planned_by = $3 AND c.token = $4
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

pub(super) const CLEANUP_REMOVED: &str = finish_cleanup!(
    cleanup_done!(),
    "state = 'removed', salvage = $5, ",
    "worktree_removed",
    "salvage"
);
pub(super) const CLEANUP_KEPT: &str = finish_cleanup!(
    cleanup_done!(),
    "state = 'kept', reason = $5, ",
    "worktree_kept",
    "reason"
);
/// `$6` the wait before the next try.
pub(super) const CLEANUP_POSTPONED: &str = finish_cleanup!(
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
