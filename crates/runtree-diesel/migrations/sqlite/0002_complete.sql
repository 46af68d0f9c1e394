-- Queues, concurrency limits, deadlines, retries, tags, facts and usage, and an index for every order of lists.

ALTER TABLE runtree_runs ADD COLUMN queue TEXT NOT NULL DEFAULT 'default';
ALTER TABLE runtree_runs ADD COLUMN concurrency_key TEXT;
ALTER TABLE runtree_runs ADD COLUMN concurrency_limit INTEGER CHECK (concurrency_limit BETWEEN 1 AND 4294967295);
ALTER TABLE runtree_runs ADD COLUMN retry_of BLOB CHECK (length(retry_of) = 16);
-- NULL means that somebody asked for it.
ALTER TABLE runtree_runs ADD COLUMN cancel_cause TEXT;
ALTER TABLE runtree_runs ADD COLUMN deadline_at INTEGER CHECK (deadline_at BETWEEN -62135596800000000 AND 253402300799999999);
-- Each at most 2^53 - 1; the cost in millionths of the host's unit.
ALTER TABLE runtree_runs ADD COLUMN input_tokens INTEGER NOT NULL DEFAULT 0 CHECK (input_tokens BETWEEN 0 AND 9007199254740991);
ALTER TABLE runtree_runs ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0 CHECK (output_tokens BETWEEN 0 AND 9007199254740991);
ALTER TABLE runtree_runs ADD COLUMN cost INTEGER NOT NULL DEFAULT 0 CHECK (cost BETWEEN 0 AND 9007199254740991);

-- What lists are ordered by where it is no column: a run without the value comes before all that have one. Columns and not
-- expressions in the indexes, because SQLite walks an index from a pair (value, id) only when the value is a column.
ALTER TABLE runtree_runs ADD COLUMN order_started INTEGER NOT NULL
    GENERATED ALWAYS AS (coalesce(started_at, -9223372036854775808)) VIRTUAL;
ALTER TABLE runtree_runs ADD COLUMN order_ended INTEGER NOT NULL
    GENERATED ALWAYS AS (coalesce(ended_at, -9223372036854775808)) VIRTUAL;
ALTER TABLE runtree_runs ADD COLUMN order_duration INTEGER NOT NULL
    GENERATED ALWAYS AS (coalesce(ended_at - started_at, -9223372036854775808)) VIRTUAL;
ALTER TABLE runtree_runs ADD COLUMN order_branch TEXT NOT NULL GENERATED ALWAYS AS (coalesce(worktree_branch, '')) VIRTUAL;
ALTER TABLE runtree_runs ADD COLUMN order_tokens INTEGER NOT NULL GENERATED ALWAYS AS (input_tokens + output_tokens) VIRTUAL;

ALTER TABLE runtree_run_payloads ADD COLUMN file_changes TEXT;

-- What is known of a run's work; a row only where something is.
CREATE TABLE runtree_run_facts (
    namespace      TEXT NOT NULL,
    run_id         BLOB NOT NULL,
    agent          TEXT,
    model          TEXT,
    session_name   TEXT,
    git_repository TEXT,
    first_commit   TEXT,
    last_commit    TEXT,
    diff_files     INTEGER CHECK (diff_files BETWEEN 0 AND 4294967295),
    diff_added     INTEGER CHECK (diff_added BETWEEN 0 AND 4294967295),
    diff_removed   INTEGER CHECK (diff_removed BETWEEN 0 AND 4294967295),
    PRIMARY KEY (namespace, run_id),
    FOREIGN KEY (namespace, run_id) REFERENCES runtree_runs (namespace, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE runtree_run_tags (
    namespace TEXT NOT NULL,
    run_id    BLOB NOT NULL,
    tag       TEXT NOT NULL,
    PRIMARY KEY (namespace, tag, run_id),
    FOREIGN KEY (namespace, run_id) REFERENCES runtree_runs (namespace, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX runtree_run_tags_run ON runtree_run_tags (namespace, run_id, tag);

-- What may be claimed from one queue, in the order of claims. Claims from several queues walk runtree_runs_claim.
CREATE INDEX runtree_runs_queue ON runtree_runs (namespace, queue, priority DESC, created_at, id, available_at)
    WHERE status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL;
-- Who uses a concurrency key.
CREATE INDEX runtree_runs_concurrency ON runtree_runs (namespace, concurrency_key, id)
    WHERE concurrency_key IS NOT NULL AND status = 'running';
-- Whose deadline has passed.
CREATE INDEX runtree_runs_deadline ON runtree_runs (namespace, deadline_at, id)
    WHERE deadline_at IS NOT NULL AND ended_at IS NULL;

-- Lists, one index for each order; runtree_runs_created stays. That of the ends takes the place of runtree_runs_ended.
DROP INDEX runtree_runs_ended;
CREATE INDEX runtree_runs_by_started ON runtree_runs (namespace, order_started, id);
CREATE INDEX runtree_runs_by_ended ON runtree_runs (namespace, order_ended, id);
CREATE INDEX runtree_runs_by_duration ON runtree_runs (namespace, order_duration, id);
CREATE INDEX runtree_runs_by_workflow ON runtree_runs (namespace, workflow, id);
CREATE INDEX runtree_runs_by_status ON runtree_runs (namespace, status, id);
CREATE INDEX runtree_runs_by_branch ON runtree_runs (namespace, order_branch, id);
CREATE INDEX runtree_runs_by_cost ON runtree_runs (namespace, cost, id);
CREATE INDEX runtree_runs_by_tokens ON runtree_runs (namespace, order_tokens, id);

-- Lists of few runs among many, by creation. That of the running ones serves rescues as well.
CREATE INDEX runtree_runs_session ON runtree_runs (namespace, session_id, created_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX runtree_runs_user ON runtree_runs (namespace, user_id, created_at, id) WHERE user_id IS NOT NULL;
CREATE INDEX runtree_runs_branch ON runtree_runs (namespace, worktree_branch, created_at, id) WHERE worktree_branch IS NOT NULL;
DROP INDEX runtree_runs_running;
CREATE INDEX runtree_runs_running ON runtree_runs (namespace, created_at, id) WHERE status = 'running';

DROP VIEW runtree_runs_readable;
CREATE VIEW runtree_runs_readable AS
SELECT
    namespace, lower(hex(id)) AS uuid, workflow, status, end_reason, queue, priority, attempts, max_attempts, token,
    idempotency_key, unique_key, concurrency_key, concurrency_limit, lower(hex(retry_of)) AS retry_of, user_id, cancel_mode, cancel_cause, cancel_reason, cancelled_by, worktree_branch,
    input_tokens, output_tokens, cost,
    strftime('%Y-%m-%dT%H:%M:%S', (available_at - ((available_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((available_at % 1000000) + 1000000) % 1000000) AS available_at,
    strftime('%Y-%m-%dT%H:%M:%S', (created_at - ((created_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((created_at % 1000000) + 1000000) % 1000000) AS created_at,
    strftime('%Y-%m-%dT%H:%M:%S', (updated_at - ((updated_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((updated_at % 1000000) + 1000000) % 1000000) AS updated_at,
    strftime('%Y-%m-%dT%H:%M:%S', (started_at - ((started_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((started_at % 1000000) + 1000000) % 1000000) AS started_at,
    strftime('%Y-%m-%dT%H:%M:%S', (ended_at - ((ended_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((ended_at % 1000000) + 1000000) % 1000000) AS ended_at,
    strftime('%Y-%m-%dT%H:%M:%S', (deadline_at - ((deadline_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((deadline_at % 1000000) + 1000000) % 1000000) AS deadline_at,
    strftime('%Y-%m-%dT%H:%M:%S', (cancel_requested_at - ((cancel_requested_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((cancel_requested_at % 1000000) + 1000000) % 1000000) AS cancel_requested_at,
    strftime('%Y-%m-%dT%H:%M:%S', (cancel_deadline - ((cancel_deadline % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((cancel_deadline % 1000000) + 1000000) % 1000000) AS cancel_deadline
FROM runtree_runs;
