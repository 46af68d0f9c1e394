//! The statements that make runs, and those that find what stood in the way.

use crate::row::{payload_columns, run_columns, status};

/// The rows beside the new runs `r` that lists are ordered and found by.
macro_rules! sort_keys {
    () => {
        "INSERT INTO runtree_run_sort_keys (namespace, run_id, workflow, branch, session_id, user_id, cost, tokens, created_at)
        SELECT r.namespace, r.id, r.workflow, coalesce(r.worktree_branch, ''), r.session_id, r.user_id, r.cost,
            r.input_tokens + r.output_tokens, r.created_at
        FROM r"
    };
}

/// The requests, one place of each array for each; the conflicts are decided in their order.
///
/// `$1` namespace, `$2` ids, then the columns in order, each an array; the last is the tags, each an array as JSON. The answer has no
/// tags, facts or payload: the caller has them. What was inserted is found again by hashed sub-selects (`IS TRUE` keeps the planner
/// from making joins of them), because parts of a statement have no index.
pub(in crate::postgres) const CREATE: &str = concat!(
    "WITH asked AS MATERIALIZED (
        SELECT * FROM unnest(
            $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::uuid[],
            $11::text[], $12::bytea[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[], $18::timestamptz[],
            $19::timestamptz[], $20::text[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[], $26::text[]
        ) WITH ORDINALITY AS a (
            id, workflow, queue, priority, idempotency_key, unique_key, concurrency_key, concurrency_limit, session_id,
            user_id, fingerprint, max_attempts, worktree_name, worktree_branch, worktree_base, worktree_persistence, available_at,
            deadline_at, input, metadata, agent, model, session_name, git_repository, tags, place)),
    r AS (
        INSERT INTO runtree_runs (
            namespace, id, workflow, status, queue, priority, idempotency_key, unique_key, concurrency_key, concurrency_limit,
            session_id, user_id, fingerprint, max_attempts, last_event, worktree_name, worktree_branch, worktree_base,
            worktree_persistence, available_at, deadline_at, created_at, updated_at)
        SELECT
            $1, a.id, a.workflow, ", status!(Pending), ", a.queue, a.priority::smallint, a.idempotency_key, a.unique_key,
            a.concurrency_key, a.concurrency_limit, a.session_id, a.user_id, a.fingerprint, a.max_attempts, 1, a.worktree_name,
            a.worktree_branch, a.worktree_base, a.worktree_persistence, coalesce(a.available_at, statement_timestamp()),
            a.deadline_at, statement_timestamp(), statement_timestamp()
        FROM asked a ORDER BY a.place
        ON CONFLICT DO NOTHING
        RETURNING *),
    made AS MATERIALIZED (
        SELECT a.* FROM asked a WHERE ((a.id, a.fingerprint) IN (SELECT r.id, r.fingerprint FROM r)) IS TRUE),
    p AS (
        INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata)
        SELECT $1, n.id, n.input, n.metadata::json FROM made n),
    f AS (
        INSERT INTO runtree_run_facts (namespace, run_id, agent, model, session_name, git_repository)
        SELECT $1, n.id, n.agent, n.model, n.session_name, n.git_repository FROM made n
        WHERE num_nonnulls(n.agent, n.model, n.session_name, n.git_repository) > 0),
    k AS (", sort_keys!(), "),
    t AS (
        INSERT INTO runtree_run_tags (namespace, run_id, tag)
        SELECT $1, n.id, t.tag FROM made n CROSS JOIN LATERAL json_array_elements_text(n.tags::json) AS t (tag)),
    told AS (
        INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token)
        SELECT r.namespace, r.id, r.last_event, r.created_at, 'created', r.token FROM r)
    SELECT ", run_columns!(id, instant, int, no_tags), ", r.fingerprint
    FROM r LEFT JOIN runtree_run_leases l ON false LEFT JOIN runtree_run_facts f ON false"
);

/// What stands in the way of creates: `$1` namespace, `$2` ids, `$3` idempotency keys, `$4` unique keys; at most one run for each place.
/// Runs that came later stood in nobody's way: `$5` their ids, `$6` up to which place each came after the request.
pub(in crate::postgres) const EXISTING: &str = concat!(
    whole_run!(),
    ", r.fingerprint, a.place::bigint AS place
    FROM unnest($2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY AS a (id, idempotency_key, unique_key, place)
    CROSS JOIN LATERAL (
        SELECT o.* FROM (
            SELECT 1 AS way, o.* FROM runtree_runs o WHERE o.namespace = $1 AND o.idempotency_key = a.idempotency_key
            UNION ALL
            SELECT 2 AS way, o.* FROM runtree_runs o WHERE o.namespace = $1 AND o.id = a.id
            UNION ALL
            SELECT 3 AS way, o.* FROM runtree_runs o
            WHERE o.namespace = $1 AND o.unique_key = a.unique_key AND o.ended_at IS NULL) o
        WHERE NOT EXISTS (
            SELECT 1 FROM unnest($5::uuid[], $6::bigint[]) AS later (id, place)
            WHERE later.id = o.id AND later.place >= a.place)
        ORDER BY o.way
        LIMIT 1) r",
    payload!(),
    beside!()
);

/// `$2` the ended run, `$3` the id of the new one, also as a text in `$4`; `$5` to `$8` its worktree, `$9` when it may start, `$10` its
/// deadline.
///
/// What the ended run has beside its row is copied as the snapshot shows it; the number of the last event, the snapshot's and the locked
/// one, tells whether that is of one moment with the row. Else nothing is made, and the caller starts again.
pub(in crate::postgres) const RETRY: &str = concat!(
    "WITH seen AS MATERIALIZED (
        SELECT o.last_event FROM runtree_runs o WHERE o.namespace = $1 AND o.id = $2),
    ended AS MATERIALIZED (
        SELECT o.* FROM runtree_runs o
        WHERE o.namespace = $1 AND o.id = $2 AND o.ended_at IS NOT NULL AND o.status IN (", status!(Pending), ", ",
            status!(Running), ", ", status!(Completed), ", ", status!(Failed), ", ", status!(Killed), ")
        FOR UPDATE),
    r AS (
        INSERT INTO runtree_runs (
            namespace, id, workflow, status, queue, priority, unique_key, concurrency_key, concurrency_limit, session_id,
            user_id, fingerprint, max_attempts, last_event, worktree_name, worktree_branch, worktree_base, worktree_persistence,
            retry_of, available_at, deadline_at, created_at, updated_at)
        SELECT
            o.namespace, $3, o.workflow, ", status!(Pending), ", o.queue, o.priority, o.unique_key, o.concurrency_key,
            o.concurrency_limit, o.session_id, o.user_id, o.fingerprint, o.max_attempts, 1, $5, $6, $7, $8, o.id,
            coalesce($9, statement_timestamp()), $10, statement_timestamp(), statement_timestamp()
        FROM ended o JOIN seen ON seen.last_event = o.last_event
        ON CONFLICT DO NOTHING
        RETURNING *),
    o AS (
        UPDATE runtree_runs o SET
            last_event = o.last_event + 1, updated_at = greatest(statement_timestamp(), o.updated_at)
        FROM r
        WHERE o.namespace = $1 AND o.id = $2
        RETURNING o.*),
    p AS (
        INSERT INTO runtree_run_payloads (namespace, run_id, input, metadata)
        SELECT $1, r.id, p.input, p.metadata
        FROM r JOIN runtree_run_payloads p ON p.namespace = $1 AND p.run_id = $2
        RETURNING run_id, input, result, error, metadata, file_changes),
    f AS (
        INSERT INTO runtree_run_facts (namespace, run_id, agent, model, session_name, git_repository)
        SELECT $1, r.id, f.agent, f.model, f.session_name, f.git_repository
        FROM r JOIN runtree_run_facts f ON f.namespace = $1 AND f.run_id = $2
        WHERE num_nonnulls(f.agent, f.model, f.session_name, f.git_repository) > 0
        RETURNING *),
    k AS (", sort_keys!(), "),
    t AS (
        INSERT INTO runtree_run_tags (namespace, run_id, tag)
        SELECT $1, r.id, t.tag FROM r JOIN runtree_run_tags t ON t.namespace = $1 AND t.run_id = $2
        RETURNING tag),
    told AS (
        INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail)
        SELECT r.namespace, r.id, r.last_event, r.created_at, 'created', r.token, NULL FROM r
        UNION ALL
        SELECT o.namespace, o.id, o.last_event, o.updated_at, 'retried', o.token, json_build_object('run', $4::text) FROM o)
    SELECT ", run_columns!(id, instant, int, new_tags), ", ", payload_columns!(), "
    FROM r JOIN p ON p.run_id = r.id LEFT JOIN f ON f.run_id = r.id LEFT JOIN runtree_run_leases l ON false
        CROSS JOIN (SELECT json_agg(t.tag)::text AS tags FROM t) n"
);
