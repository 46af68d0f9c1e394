//! The statements that move runs along the transition table, with all that follows from it.

use crate::row::{lease_columns, payload_columns, reason, run_columns, status};

/// One transition of running or pending runs, with all that an ending for good brings about.
///
/// - `seen`: a query for the ids and tokens of the runs to move, and the names of their worktrees, without which a run has none;
/// - `guard`: on the run `r` as it is;
/// - `status` and `reason`: expressions over `r` before the change, the reason null unless the run ends;
/// - `set`: further columns, each after a comma;
/// - `events`: rows of (place, kind, detail) over `r` after the change; a null kind is no event;
/// - `carry`: further columns of `seen`, each with a comma before it, which `guard`, `status` and `reason` find in `counted`;
/// - `more`: how many events an ending has besides the first and those of its worktrees;
/// - `stored`: a further part that writes the payload, or nothing;
/// - `answer`: the query over `r`.
macro_rules! transition {
    (seen: $seen:expr, guard: $guard:expr, status: $status:expr, reason: $reason:expr, set: $set:expr, events: $events:expr,
     carry: $carry:literal, more: $more:literal, stored: $stored:expr, answer: $answer:expr) => {
        concat!(
            "WITH seen AS MATERIALIZED (", $seen, "),
            counted AS MATERIALIZED (
                SELECT seen.id, seen.token", $carry, ", CASE WHEN seen.worktree_name IS NULL THEN 0 ELSE (
                    SELECT count(*) FROM runtree_run_worktrees w
                    WHERE w.namespace = $1 AND w.run_id = seen.id AND w.state IN ('adding', 'ready')) END AS worktrees
                FROM seen),
            r AS (
                UPDATE runtree_runs r SET
                    status = ", $status, ",
                    end_reason = ", $reason, ",
                    ended_at = CASE WHEN ", $status, " IN ", endings!(), "
                        THEN greatest(statement_timestamp(), r.created_at, r.started_at) END,
                    updated_at = greatest(statement_timestamp(), r.updated_at),
                    last_event = r.last_event + 1 + CASE WHEN ", $status, " IN ", endings!(), "
                        THEN counted.worktrees + ", $more, " ELSE 0 END",
                    $set, "
                FROM counted
                WHERE r.namespace = $1 AND r.id = counted.id AND r.token = counted.token AND r.ended_at IS NULL
                    AND ", $guard, "
                RETURNING r.*, counted.token AS seen_token, counted.worktrees", $carry, ",
                    r.last_event - CASE WHEN r.ended_at IS NOT NULL THEN counted.worktrees + ", $more, " ELSE 0 END AS first_event),
            given_up AS (
                -- Not a join: for a planner that takes the table for empty, as it often is, one would look at every lease for each run.
                DELETE FROM runtree_run_leases l
                WHERE l.namespace = $1
                    AND l.run_id = ANY (ARRAY(SELECT r.id FROM r WHERE r.status <> ", status!(Running), "))),
            -- The worktrees as the snapshot shows them, which is how they were counted.
            left_behind AS MATERIALIZED (
                SELECT r.id, r.token, r.last_event - r.worktrees + w.place AS number, r.updated_at, w.planned_by, w.persistence
                FROM r CROSS JOIN LATERAL (
                    SELECT w.planned_by, w.persistence, row_number() OVER (ORDER BY w.planned_by) AS place
                    FROM runtree_run_worktrees w
                    WHERE w.namespace = $1 AND w.run_id = r.id AND w.state IN ('adding', 'ready')) w
                WHERE r.ended_at IS NOT NULL AND r.worktrees > 0),
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
        "SELECT r.id, r.token, r.worktree_name FROM runtree_runs r WHERE r.namespace = $1 AND r.id = $2 AND r.token = $3"
    };
}

macro_rules! anybody {
    () => {
        "SELECT r.id, r.token, r.worktree_name FROM runtree_runs r WHERE r.namespace = $1 AND r.id = $2"
    };
}

/// As [`answer_whole`], for runs that run no longer.
macro_rules! answer_stopped {
    () => {
        concat!(whole_run!(), " FROM r", payload!(), beside_without_lease!())
    };
}

macro_rules! answer_whole {
    () => {
        concat!(whole_run!(), " FROM r", payload!(), beside_while_running!())
    };
}

macro_rules! ended {
    () => {
        "(0, r.status, json_build_object('reason', r.end_reason))"
    };
}

/// `$4` the result, as JSON.
pub(in crate::postgres) const COMPLETE: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running), " AND EXISTS (
        SELECT FROM runtree_run_leases l
        WHERE l.namespace = $1 AND l.run_id = $2 AND l.token = $3 AND l.expires_at > statement_timestamp())"),
    status: status!(Completed),
    reason: reason!(Succeeded),
    set: "",
    events: ended!(),
    carry: "",
    more: "0",
    stored: ", stored AS (
        UPDATE runtree_run_payloads p SET result = $4::json FROM r
        WHERE $4::text IS NOT NULL AND p.namespace = $1 AND p.run_id = r.id)",
    answer: concat!(
        whole_run!(), " FROM r JOIN LATERAL (
            SELECT o.input, coalesce($4::json, o.result) AS result, o.error, o.metadata, o.file_changes
            FROM runtree_run_payloads o WHERE o.namespace = r.namespace AND o.run_id = r.id) p ON true", beside_without_lease!()
    )
);

/// How a run ends that stops because it was asked to: its deadline, when that was the cause, makes it fail.
macro_rules! stopped_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_cause = 'deadline' THEN ",
            status!(Failed),
            " ELSE ",
            status!(Killed),
            " END"
        )
    };
}

macro_rules! stopped_reason {
    () => {
        concat!(
            "CASE WHEN r.cancel_cause = 'deadline' THEN ",
            reason!(TimedOut),
            " ELSE ",
            reason!(Killed),
            " END"
        )
    };
}

/// The reason of a run that moves to `$to`: that of a stop when one was asked for, else `$failed` where it fails.
macro_rules! reason_when {
    ($to:expr, $failed:expr) => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            stopped_reason!(),
            " WHEN (",
            $to,
            ") = ",
            status!(Failed),
            " THEN ",
            $failed,
            " END"
        )
    };
}

macro_rules! failed_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            stopped_to!(),
            "
            WHEN $5::bigint IS NOT NULL AND r.attempts < r.max_attempts THEN ",
            status!(Pending),
            " ELSE ",
            status!(Failed),
            " END"
        )
    };
}

/// The event of an ending after which the run may wait for another attempt.
macro_rules! after_failure {
    () => {
        concat!("(0, CASE r.status WHEN ", status!(Pending), " THEN 'retry_planned' ELSE r.status END,
        CASE r.status
            WHEN ", status!(Pending), " THEN json_build_object(
                'available_at', to_char(r.available_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))
            ELSE json_build_object('reason', r.end_reason) END)")
    };
}

/// `$4` the error, `$5` the wait before another attempt.
pub(in crate::postgres) const FAIL: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running)),
    status: failed_to!(),
    reason: reason_when!(failed_to!(), reason!(Error)),
    set: concat!(", available_at = CASE ", failed_to!(), " WHEN ", status!(Pending), " THEN ", after!("$5"), " ELSE r.available_at END"),
    events: after_failure!(),
    carry: "",
    more: "0",
    stored: ", stored AS (
        UPDATE runtree_run_payloads p SET error = $4 FROM r WHERE p.namespace = $1 AND p.run_id = r.id)",
    answer: concat!(
        whole_run!(), " FROM r JOIN LATERAL (
            SELECT o.input, o.result, $4::text AS error, o.metadata, o.file_changes
            FROM runtree_run_payloads o WHERE o.namespace = r.namespace AND o.run_id = r.id) p ON true", beside_without_lease!()
    )
);

pub(in crate::postgres) const ACKNOWLEDGE_CANCEL: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running)),
    status: stopped_to!(),
    reason: stopped_reason!(),
    set: "",
    events: ended!(),
    carry: "",
    more: "0",
    stored: "",
    answer: answer_stopped!()
);

/// How an ending of a batch moves its run.
macro_rules! ended_to {
    () => {
        concat!(
            "CASE WHEN counted.kind = ",
            status!(Completed),
            " THEN ",
            status!(Completed),
            "
                WHEN counted.kind = ",
            status!(Killed),
            " OR r.cancel_requested_at IS NOT NULL THEN ",
            stopped_to!(),
            "
                WHEN counted.retry_after IS NOT NULL AND r.attempts < r.max_attempts THEN ",
            status!(Pending),
            "
                ELSE ",
            status!(Failed),
            " END"
        )
    };
}

/// Tells whether the lease of the asked token still lasts, which a completion needs.
macro_rules! lasts {
    () => {
        // Not EXISTS, which beside an OR may be answered by reading every lease there is.
        "(SELECT l.expires_at FROM runtree_run_leases l
            WHERE l.namespace = $1 AND l.run_id = a.id AND l.token = a.token) > statement_timestamp()"
    };
}

/// A batch of endings: `$2` ids, `$3` tokens, `$4` the statuses that the owners ask for, `$5` results as JSON or errors, `$6` waits before
/// another attempt. Of several for one run the first that its owner may ask for; in the order of ids, as all that lock many leases.
pub(in crate::postgres) const END_MANY: &str = transition!(
    seen: concat!("SELECT DISTINCT ON (a.id) a.id, a.token, r.worktree_name, a.kind, a.payload, a.retry_after
        FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::bigint[]) WITH ORDINALITY
            AS a (id, token, kind, payload, retry_after, place)
        -- Looked for by its id each: a join may read every run of the namespace.
        CROSS JOIN LATERAL (
            SELECT r.worktree_name FROM runtree_runs r
            WHERE r.namespace = $1 AND r.id = a.id AND r.token = a.token AND r.status = ", status!(Running), " AND r.ended_at IS NULL
            OFFSET 0) r
        WHERE a.kind <> ", status!(Completed), " OR ", lasts!(), "
        ORDER BY a.id, a.place"),
    // Whether the lease lasts is the snapshot's answer, which `seen` has asked for.
    guard: concat!("r.status = ", status!(Running)),
    status: ended_to!(),
    reason: concat!("CASE WHEN counted.kind = ", status!(Completed), " THEN ", reason!(Succeeded), "
        WHEN counted.kind = ", status!(Killed), " OR r.cancel_requested_at IS NOT NULL THEN ", stopped_reason!(), "
        WHEN (", ended_to!(), ") = ", status!(Failed), " THEN ", reason!(Error), " END"),
    set: concat!(", available_at = CASE ", ended_to!(), " WHEN ", status!(Pending), " THEN ", after!("counted.retry_after"), " ELSE r.available_at END"),
    events: after_failure!(),
    carry: ", kind, payload, retry_after",
    more: "0",
    stored: concat!(", stored AS (
        UPDATE runtree_run_payloads p SET
            result = CASE r.kind WHEN ", status!(Completed), " THEN r.payload::json ELSE p.result END,
            error = CASE r.kind WHEN ", status!(Failed), " THEN r.payload ELSE p.error END
        FROM r WHERE r.payload IS NOT NULL AND p.namespace = $1 AND p.run_id = r.id)"),
    answer: concat!(summary!(), " FROM r", beside_without_lease!())
);

macro_rules! released_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            stopped_to!(),
            " ELSE ",
            status!(Pending),
            " END"
        )
    };
}

pub(in crate::postgres) const RELEASE: &str = transition!(
    seen: owned!(),
    guard: concat!("r.status = ", status!(Running)),
    status: released_to!(),
    reason: concat!("CASE WHEN r.cancel_requested_at IS NOT NULL THEN ", stopped_reason!(), " END"),
    set: concat!(
        ", attempts = CASE ", released_to!(), " WHEN ", status!(Pending), " THEN greatest(r.attempts - 1, 0) ELSE r.attempts END",
        ", available_at = CASE ", released_to!(), " WHEN ", status!(Pending), " THEN statement_timestamp() ELSE r.available_at END"
    ),
    events: concat!("(0, CASE r.status WHEN ", status!(Pending), " THEN 'released' ELSE r.status END,
        CASE r.status WHEN ", status!(Pending), " THEN NULL ELSE json_build_object('reason', r.end_reason) END)"),
    carry: "",
    more: "0",
    stored: "",
    answer: answer_stopped!()
);

/// `$3` mode, `$4` grace, `$5` reason, `$6` who wants it. What a first request leaves open, a second may fill.
pub(in crate::postgres) const CANCEL: &str = transition!(
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
    carry: "",
    more: "0",
    stored: "",
    answer: answer_whole!()
);

/// As [`CANCEL`]; an intent that is there stays as it is.
pub(in crate::postgres) const FORCE_KILL: &str = transition!(
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
    carry: "",
    more: "0",
    stored: "",
    answer: answer_whole!()
);

/// Runs at work are found by the index of the order by status, which compares bytes.
pub(in crate::postgres) const LEASES: &str = concat!(
    "SELECT ",
    lease_columns!(id, instant, int),
    " FROM runtree_run_leases l
    JOIN runtree_runs r ON r.namespace = l.namespace AND r.id = l.run_id AND r.token = l.token
    WHERE r.namespace = $1 AND r.status COLLATE \"C\" = ",
    status!(Running),
    " AND r.ended_at IS NULL AND ($2::text IS NULL OR l.owner_host = $2)
    ORDER BY l.run_id"
);

macro_rules! rescued_to {
    () => {
        concat!(
            "CASE WHEN r.cancel_requested_at IS NOT NULL THEN ",
            stopped_to!(),
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
pub(in crate::postgres) const RESCUE: &str = transition!(
    seen: concat!("WITH dead AS MATERIALIZED (
            SELECT r.id, r.token, r.worktree_name
            FROM (SELECT DISTINCT a.id, a.token FROM unnest($2::uuid[], $3::bigint[]) AS a (id, token)) AS asked
            JOIN runtree_run_leases l ON l.namespace = $1 AND l.run_id = asked.id AND l.token = asked.token
            JOIN runtree_runs r ON r.namespace = $1 AND r.id = asked.id AND r.token = asked.token
            WHERE r.status = ", status!(Running), " AND r.ended_at IS NULL
            FOR UPDATE OF l, r SKIP LOCKED),
        expired AS MATERIALIZED (
            SELECT r.id, r.token, r.worktree_name
            FROM runtree_run_leases l
            JOIN runtree_runs r ON r.namespace = $1 AND r.id = l.run_id AND r.token = l.token
            WHERE l.namespace = $1 AND l.expires_at <= statement_timestamp()
                AND r.status COLLATE \"C\" = ", status!(Running), " AND r.ended_at IS NULL
                AND NOT EXISTS (SELECT FROM dead WHERE dead.id = l.run_id) AND l.run_id <> ALL ($5::uuid[])
            ORDER BY l.expires_at, l.run_id
            LIMIT $4 FOR UPDATE OF l, r SKIP LOCKED),
        ownerless AS MATERIALIZED (
            SELECT r.id, r.token, r.worktree_name
            FROM runtree_runs r
            WHERE r.namespace = $1 AND r.status COLLATE \"C\" = ", status!(Running), " AND r.ended_at IS NULL
                AND r.id <> ALL ($5::uuid[]) AND NOT EXISTS (
                SELECT FROM runtree_run_leases l WHERE l.namespace = $1 AND l.run_id = r.id AND l.token = r.token)
            ORDER BY r.id
            LIMIT greatest($4 - (SELECT count(*) FROM expired), 0) FOR UPDATE OF r SKIP LOCKED)
        SELECT * FROM dead UNION ALL SELECT * FROM expired UNION ALL SELECT * FROM ownerless"),
    guard: concat!("r.status = ", status!(Running)),
    status: rescued_to!(),
    reason: reason_when!(rescued_to!(), reason!(Lost)),
    set: concat!(
        ", token = r.token + 1",
        ", available_at = CASE ", rescued_to!(), " WHEN ", status!(Pending), " THEN statement_timestamp() ELSE r.available_at END"
    ),
    events: "(0, 'rescued', json_build_object('to', r.status)),
        (1, CASE WHEN r.ended_at IS NOT NULL THEN r.status END, json_build_object('reason', r.end_reason))",
    carry: "",
    more: "1",
    stored: "",
    answer: concat!(summary!(), ", r.seen_token FROM r", beside_without_lease!())
);

macro_rules! timed_out_to {
    () => {
        concat!(
            "CASE WHEN r.status = ",
            status!(Running),
            " AND r.cancel_requested_at IS NULL THEN ",
            status!(Running),
            " ELSE ",
            status!(Failed),
            " END"
        )
    };
}

macro_rules! overdue {
    () => {
        concat!(
            "r.deadline_at <= statement_timestamp() AND r.status IN ",
            open!(),
            " AND (r.cancel_requested_at IS NULL
                OR (r.cancel_cause = 'deadline' AND r.cancel_deadline <= statement_timestamp()))"
        )
    };
}

/// `$2` how many, `$3` how long a running one has to stop by itself.
pub(in crate::postgres) const TIME_OUT: &str = transition!(
    seen: concat!("SELECT r.id, r.token, r.worktree_name FROM runtree_runs r
        WHERE r.namespace = $1 AND (r.ended_at IS NULL AND r.deadline_at IS NOT NULL) IS TRUE AND ", overdue!(), "
        ORDER BY r.deadline_at, r.id
        LIMIT $2 FOR UPDATE SKIP LOCKED"),
    guard: overdue!(),
    status: timed_out_to!(),
    reason: concat!("CASE ", timed_out_to!(), " WHEN ", status!(Failed), " THEN ", reason!(TimedOut), " END"),
    set: concat!(
        ", token = CASE r.status WHEN ", status!(Running), " THEN r.token + CASE WHEN r.cancel_requested_at IS NULL THEN 0 ELSE 1 END ELSE r.token END",
        ", cancel_cause = CASE WHEN (", timed_out_to!(), ") = ", status!(Running), " THEN 'deadline' ELSE r.cancel_cause END",
        ", cancel_mode = CASE WHEN (", timed_out_to!(), ") = ", status!(Running), " THEN 'graceful' ELSE r.cancel_mode END",
        ", cancel_requested_at = CASE WHEN (", timed_out_to!(), ") = ", status!(Running), " THEN statement_timestamp() ELSE r.cancel_requested_at END",
        ", cancel_deadline = CASE WHEN (", timed_out_to!(), ") = ", status!(Running), " THEN ", after!("$3"), " ELSE r.cancel_deadline END"
    ),
    events: concat!("(0, CASE r.status WHEN ", status!(Running), " THEN 'deadline_passed' ELSE r.status END,
        CASE r.status WHEN ", status!(Running), " THEN NULL ELSE json_build_object('reason', r.end_reason) END)"),
    carry: "",
    more: "0",
    stored: "",
    answer: concat!(summary!(), " FROM r", beside_while_running!(), " ORDER BY r.deadline_at, r.id")
);
