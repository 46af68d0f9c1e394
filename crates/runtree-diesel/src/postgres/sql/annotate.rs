//! The statements that add to runs at any time, and the one that deletes them.

use crate::row::{payload_columns, run_columns, status};

/// A fact of the run as the annotation leaves it: what the object `$3` names, else what was known.
macro_rules! fact {
    ($name:literal) => {
        concat!(
            "CASE WHEN $3::jsonb ? '",
            $name,
            "' THEN $3::jsonb ->> '",
            $name,
            "' ELSE s.",
            $name,
            " END AS ",
            $name
        )
    };
}

macro_rules! number {
    ($name:literal) => {
        concat!(
            "CASE WHEN $3::jsonb ? '",
            $name,
            "' THEN ($3::jsonb ->> '",
            $name,
            "')::bigint ELSE s.",
            $name,
            " END AS ",
            $name
        )
    };
}

/// A number of the usage: `$at` what is set or added.
macro_rules! used_up {
    ($name:literal, $at:literal) => {
        concat!(
            "coalesce(CASE WHEN $13::boolean THEN least(s.",
            $name,
            " + ",
            $at,
            "::bigint, 9007199254740991) ELSE ",
            $at,
            "::bigint END, s.",
            $name,
            ") AS ",
            $name
        )
    };
}

macro_rules! fact_names {
    () => {
        "agent, model, session_name, git_repository, first_commit, last_commit, diff_files, diff_added, diff_removed"
    };
}

macro_rules! fact_values {
    ($of:literal) => {
        concat!(
            $of,
            ".agent, ",
            $of,
            ".model, ",
            $of,
            ".session_name, ",
            $of,
            ".git_repository, ",
            $of,
            ".first_commit, ",
            $of,
            ".last_commit, ",
            $of,
            ".diff_files, ",
            $of,
            ".diff_added, ",
            $of,
            ".diff_removed"
        )
    };
}

/// `$2` run, `$3` facts as an object whose members are the new values, `$4` members of the metadata to set and `$5` to remove, `$6` whether
/// the changes of files change and `$7` to what, `$8` tags to add and `$9` to remove, `$10` to `$12` input tokens, output tokens and
/// cost, `$13` whether these are added, `$14` the most tags, `$15` the most bytes of the metadata.
///
/// What the run has beside its row is read by the snapshot; the number of the last event tells whether it still is what the run has. No
/// row is changed when nothing would change or a limit would be passed: the caller finds out which. The metadata is put together as
/// text, because the types of JSON rewrite numbers or white space; equal values have equal texts, as they were written.
pub(in crate::postgres) const ANNOTATE: &str = concat!(
    "WITH s AS MATERIALIZED (
        SELECT r.last_event, r.input_tokens, r.output_tokens, r.cost, p.metadata, p.file_changes, p.input, p.result, p.error,
            ARRAY(SELECT t.tag FROM runtree_run_tags t WHERE t.namespace = $1 AND t.run_id = $2 ORDER BY t.tag COLLATE \"C\") AS tags,
            ", fact_values!("f"), "
        FROM runtree_runs r", payload!(), facts!(), "
        WHERE r.namespace = $1 AND r.id = $2 AND r.status IN (", status!(Pending), ", ", status!(Running), ", ", status!(Completed), ", ",
            status!(Failed), ", ", status!(Killed), ")),
    n AS MATERIALIZED (
        SELECT s.last_event, s.input, s.result, s.error, ",
            fact!("agent"), ", ", fact!("model"), ", ", fact!("session_name"), ", ", fact!("git_repository"), ", ",
            fact!("first_commit"), ", ", fact!("last_commit"), ", ",
            number!("diff_files"), ", ", number!("diff_added"), ", ", number!("diff_removed"), ", ",
            used_up!("input_tokens", "$10"), ", ", used_up!("output_tokens", "$11"), ", ", used_up!("cost", "$12"), ",
            CASE WHEN $6::boolean THEN $7::json ELSE s.file_changes END AS file_changes,
            ARRAY(SELECT t.tag FROM (
                SELECT unnest(s.tags) AS tag EXCEPT SELECT unnest($9::text[]) UNION SELECT unnest($8::text[])) t
                ORDER BY t.tag COLLATE \"C\") AS tags,
            -- Made anew only where a member differs: what a person or a newer version spelt otherwise stays as it is.
            CASE WHEN EXISTS (
                SELECT FROM json_each($4::json) m
                WHERE ", unsigned_zeros!("(s.metadata -> m.key)::text"), " IS DISTINCT FROM ", unsigned_zeros!("m.value::text"), ")
                OR EXISTS (SELECT FROM unnest($5::text[]) AS m (key) WHERE (s.metadata -> m.key) IS NOT NULL)
            THEN (
                SELECT '{' || coalesce(string_agg(to_json(m.key)::text || ':' || m.value::text, ',' ORDER BY m.key COLLATE \"C\"), '') || '}'
                FROM (
                    SELECT o.key, o.value FROM json_each(s.metadata) o
                    WHERE o.key <> ALL ($5::text[]) AND ($4::json -> o.key) IS NULL
                    UNION ALL
                    SELECT c.key, c.value FROM json_each($4::json) c) m)
            ELSE s.metadata::text END AS metadata
        FROM s),
    r AS (
        UPDATE runtree_runs r SET
            input_tokens = n.input_tokens, output_tokens = n.output_tokens, cost = n.cost,
            last_event = r.last_event + 1, updated_at = greatest(statement_timestamp(), r.updated_at)
        FROM n CROSS JOIN s
        WHERE r.namespace = $1 AND r.id = $2 AND r.last_event = n.last_event
            AND cardinality(n.tags) <= $14 AND octet_length(n.metadata) <= $15
            AND (n.tags IS DISTINCT FROM s.tags OR n.metadata IS DISTINCT FROM s.metadata::text
                OR n.file_changes::text IS DISTINCT FROM s.file_changes::text
                OR (n.input_tokens, n.output_tokens, n.cost) IS DISTINCT FROM (s.input_tokens, s.output_tokens, s.cost)
                OR (", fact_values!("n"), ") IS DISTINCT FROM (", fact_values!("s"), "))
        RETURNING r.*),
    stored AS (
        UPDATE runtree_run_payloads p SET metadata = n.metadata::json, file_changes = n.file_changes
        FROM r CROSS JOIN n CROSS JOIN s
        WHERE p.namespace = $1 AND p.run_id = r.id
            AND (n.metadata IS DISTINCT FROM s.metadata::text OR n.file_changes::text IS DISTINCT FROM s.file_changes::text)),
    sorted AS (
        UPDATE runtree_run_sort_keys k SET cost = r.cost, tokens = r.input_tokens + r.output_tokens
        FROM r CROSS JOIN s
        WHERE k.namespace = $1 AND k.run_id = $2
            AND (r.cost, r.input_tokens + r.output_tokens) IS DISTINCT FROM (s.cost, s.input_tokens + s.output_tokens)),
    known AS (
        INSERT INTO runtree_run_facts (namespace, run_id, ", fact_names!(), ")
        SELECT $1, r.id, ", fact_values!("n"), " FROM r CROSS JOIN n WHERE $3::jsonb <> '{}'
        ON CONFLICT (namespace, run_id) DO UPDATE SET (", fact_names!(), ") = (", fact_values!("excluded"), ")),
    untagged AS (
        DELETE FROM runtree_run_tags t USING r, n
        WHERE t.namespace = $1 AND t.run_id = r.id AND t.tag <> ALL (n.tags)),
    tagged AS (
        INSERT INTO runtree_run_tags (namespace, run_id, tag)
        SELECT $1, r.id, t.tag FROM r CROSS JOIN n CROSS JOIN LATERAL unnest(n.tags) AS t (tag)
        ON CONFLICT DO NOTHING),
    told AS (
        INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token)
        SELECT r.namespace, r.id, r.last_event, r.updated_at, 'annotated', r.token FROM r)
    SELECT ", run_columns!(id, instant, int, annotated_tags), ", ", payload_columns!(), "
    FROM r CROSS JOIN n", lease!(), " CROSS JOIN LATERAL (SELECT ", fact_values!("n"), ") f
        CROSS JOIN LATERAL (SELECT n.input, n.result, n.error, n.metadata, n.file_changes) p"
);

/// Takes the row of a run, so that the next statement of the transaction sees all that belongs to it as it is.
pub(in crate::postgres) const LOCK_RUN: &str =
    "SELECT true AS done FROM runtree_runs r WHERE r.namespace = $1 AND r.id = $2 FOR UPDATE";

/// `$2` before when a run ended, `$3` how many. What a run has beside its row is deleted as the snapshot shows it; the number of the last
/// event, which is the newest where it was locked and the snapshot's where it is deleted, tells whether that is all.
pub(in crate::postgres) const DELETE_ENDED: &str = concat!(
    "WITH old AS MATERIALIZED (
        SELECT r.id, r.last_event FROM runtree_runs r
        WHERE r.namespace = $1 AND coalesce(r.ended_at, timestamptz '-infinity') > '-infinity'
            AND coalesce(r.ended_at, timestamptz '-infinity') < $2 AND r.status IN (",
    status!(Completed),
    ", ",
    status!(Failed),
    ", ",
    status!(Killed),
    ")
            AND NOT EXISTS (SELECT FROM runtree_run_cleanup c WHERE c.namespace = $1 AND c.run_id = r.id)
            AND NOT EXISTS (
                SELECT FROM runtree_run_worktrees w WHERE w.namespace = $1 AND w.run_id = r.id AND w.state <> 'removed')
        ORDER BY coalesce(r.ended_at, timestamptz '-infinity'), r.id
        LIMIT $3 FOR UPDATE OF r SKIP LOCKED),
    r AS (
        DELETE FROM runtree_runs r USING old
        WHERE r.namespace = $1 AND r.id = old.id AND r.last_event = old.last_event
        RETURNING r.id, r.ended_at),
    k AS (DELETE FROM runtree_run_sort_keys k USING r WHERE k.namespace = $1 AND k.run_id = r.id),
    p AS (DELETE FROM runtree_run_payloads p USING r WHERE p.namespace = $1 AND p.run_id = r.id),
    l AS (DELETE FROM runtree_run_leases l USING r WHERE l.namespace = $1 AND l.run_id = r.id),
    f AS (DELETE FROM runtree_run_facts f USING r WHERE f.namespace = $1 AND f.run_id = r.id),
    t AS (DELETE FROM runtree_run_tags t USING r WHERE t.namespace = $1 AND t.run_id = r.id),
    w AS (DELETE FROM runtree_run_worktrees w USING r WHERE w.namespace = $1 AND w.run_id = r.id),
    e AS (DELETE FROM runtree_run_events e USING r WHERE e.namespace = $1 AND e.run_id = r.id)
    SELECT ", id!("r.id"), " AS id FROM r ORDER BY r.ended_at, r.id"
);
