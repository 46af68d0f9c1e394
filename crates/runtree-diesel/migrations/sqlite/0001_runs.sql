-- The tables of version 1. Ids are 16 bytes. Instants are microseconds since 1970 UTC, in the range of the years 1 to 9999: one
-- stray text would break every comparison, so the tables are STRICT. No CHECK lists words: a newer version may add some.

CREATE TABLE runtree_runs (
    namespace            TEXT    NOT NULL,
    id                   BLOB    NOT NULL CHECK (length(id) = 16),
    workflow             TEXT    NOT NULL,
    status               TEXT    NOT NULL,
    end_reason           TEXT,
    priority             INTEGER NOT NULL,
    idempotency_key      TEXT,
    unique_key           TEXT,
    session_id           BLOB    CHECK (length(session_id) = 16),
    user_id              TEXT,
    fingerprint          BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    attempts             INTEGER NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 4294967295),
    max_attempts         INTEGER NOT NULL CHECK (max_attempts BETWEEN 1 AND 4294967295),
    token                INTEGER NOT NULL DEFAULT 0 CHECK (token BETWEEN 0 AND 4294967295),
    cancel_requested_at  INTEGER CHECK (cancel_requested_at BETWEEN -62135596800000000 AND 253402300799999999),
    cancel_mode          TEXT,
    cancel_deadline      INTEGER CHECK (cancel_deadline BETWEEN -62135596800000000 AND 253402300799999999),
    cancel_reason        TEXT,
    cancelled_by         TEXT,
    worktree_name        TEXT,
    worktree_branch      TEXT,
    worktree_base        TEXT,
    worktree_persistence TEXT,
    available_at         INTEGER NOT NULL CHECK (available_at BETWEEN -62135596800000000 AND 253402300799999999),
    created_at           INTEGER NOT NULL CHECK (created_at BETWEEN -62135596800000000 AND 253402300799999999),
    updated_at           INTEGER NOT NULL CHECK (updated_at BETWEEN created_at AND 253402300799999999),
    started_at           INTEGER CHECK (started_at BETWEEN -62135596800000000 AND 253402300799999999),
    ended_at             INTEGER CHECK (ended_at BETWEEN -62135596800000000 AND 253402300799999999),
    PRIMARY KEY (namespace, id)
) STRICT;

-- What makes a create idempotent.
CREATE UNIQUE INDEX runtree_runs_idempotency_key ON runtree_runs (namespace, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runtree_runs_unique_key ON runtree_runs (namespace, unique_key)
    WHERE ended_at IS NULL AND unique_key IS NOT NULL;

-- What may be claimed, in the order of claims.
CREATE INDEX runtree_runs_claim ON runtree_runs (namespace, priority DESC, created_at, id, available_at)
    WHERE status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL;
CREATE INDEX runtree_runs_running ON runtree_runs (namespace, id) WHERE status = 'running';

-- Lists, by creation and by ending.
CREATE INDEX runtree_runs_created ON runtree_runs (namespace, created_at, id);
CREATE INDEX runtree_runs_ended ON runtree_runs (namespace, ended_at, id) WHERE ended_at IS NOT NULL;

-- Look-ups by the ending of an id: the last two bytes are part of every ending.
CREATE INDEX runtree_runs_ending ON runtree_runs (namespace, substr(id, 15));

-- The wide texts, apart from what is rewritten often.
CREATE TABLE runtree_run_payloads (
    namespace TEXT NOT NULL,
    run_id    BLOB NOT NULL,
    input     TEXT,
    result    TEXT,
    error     TEXT,
    metadata  TEXT NOT NULL,
    PRIMARY KEY (namespace, run_id),
    FOREIGN KEY (namespace, run_id) REFERENCES runtree_runs (namespace, id) ON DELETE CASCADE
) STRICT;

-- Who owns a running run. Apart from the run, so that a heartbeat rewrites a short row.
CREATE TABLE runtree_run_leases (
    namespace     TEXT    NOT NULL,
    run_id        BLOB    NOT NULL,
    owner_id      BLOB    NOT NULL CHECK (length(owner_id) = 16),
    owner_host    TEXT    NOT NULL,
    owner_process TEXT    NOT NULL,
    child_process TEXT,
    heartbeat_at  INTEGER NOT NULL CHECK (heartbeat_at BETWEEN -62135596800000000 AND 253402300799999999),
    expires_at    INTEGER NOT NULL CHECK (expires_at BETWEEN -62135596800000000 AND 253402300799999999),
    PRIMARY KEY (namespace, run_id),
    FOREIGN KEY (namespace, run_id) REFERENCES runtree_runs (namespace, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The history of each run: rows are added, never changed.
CREATE TABLE runtree_run_events (
    namespace TEXT    NOT NULL,
    run_id    BLOB    NOT NULL,
    number    INTEGER NOT NULL CHECK (number BETWEEN 1 AND 4294967295),
    at        INTEGER NOT NULL CHECK (at BETWEEN -62135596800000000 AND 253402300799999999),
    kind      TEXT    NOT NULL,
    token     INTEGER NOT NULL,
    detail    TEXT,
    PRIMARY KEY (namespace, run_id, number),
    FOREIGN KEY (namespace, run_id) REFERENCES runtree_runs (namespace, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- Every worktree that was ever planned. No cascade: a run whose worktree is on record is not to be deleted.
CREATE TABLE runtree_run_worktrees (
    namespace      TEXT    NOT NULL,
    run_id         BLOB    NOT NULL,
    planned_by     INTEGER NOT NULL CHECK (planned_by BETWEEN 0 AND 4294967295),
    host           TEXT    NOT NULL,
    git_repository TEXT    NOT NULL,
    root           TEXT    NOT NULL,
    path           TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    branch         TEXT    NOT NULL,
    base           TEXT    NOT NULL,
    persistence    TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    held_by        INTEGER NOT NULL CHECK (held_by BETWEEN 0 AND 4294967295),
    salvage        TEXT,
    reason         TEXT,
    created_at     INTEGER NOT NULL CHECK (created_at BETWEEN -62135596800000000 AND 253402300799999999),
    updated_at     INTEGER NOT NULL CHECK (updated_at BETWEEN created_at AND 253402300799999999),
    PRIMARY KEY (namespace, run_id, planned_by),
    FOREIGN KEY (namespace, run_id) REFERENCES runtree_runs (namespace, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX runtree_run_worktrees_site ON runtree_run_worktrees (namespace, host, git_repository, run_id, planned_by)
    WHERE state <> 'removed';

-- The wish to clean a worktree up, made in the transaction that ends its run.
CREATE TABLE runtree_run_cleanup (
    namespace     TEXT    NOT NULL,
    run_id        BLOB    NOT NULL,
    planned_by    INTEGER NOT NULL,
    wanted_at     INTEGER NOT NULL CHECK (wanted_at BETWEEN -62135596800000000 AND 253402300799999999),
    available_at  INTEGER NOT NULL CHECK (available_at BETWEEN -62135596800000000 AND 253402300799999999),
    token         INTEGER NOT NULL DEFAULT 0 CHECK (token BETWEEN 0 AND 4294967295),
    tries         INTEGER NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND 4294967295),
    owner_id      BLOB    CHECK (length(owner_id) = 16),
    owner_host    TEXT,
    owner_process TEXT,
    expires_at    INTEGER CHECK (expires_at BETWEEN -62135596800000000 AND 253402300799999999),
    last_error    TEXT,
    PRIMARY KEY (namespace, run_id, planned_by),
    FOREIGN KEY (namespace, run_id, planned_by) REFERENCES runtree_run_worktrees (namespace, run_id, planned_by)
) STRICT, WITHOUT ROWID;

CREATE INDEX runtree_run_cleanup_wanted ON runtree_run_cleanup (namespace, wanted_at, run_id, planned_by);

-- For people with the sqlite3 shell, instants in RFC 3339; no program reads it. The microseconds are taken off first, toward the
-- past, because strftime takes whole seconds.
CREATE VIEW runtree_runs_readable AS
SELECT
    namespace, lower(hex(id)) AS uuid, workflow, status, end_reason, priority, attempts, max_attempts, token,
    idempotency_key, unique_key, user_id, cancel_mode, cancel_reason, cancelled_by, worktree_branch,
    strftime('%Y-%m-%dT%H:%M:%S', (available_at - ((available_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((available_at % 1000000) + 1000000) % 1000000) AS available_at,
    strftime('%Y-%m-%dT%H:%M:%S', (created_at - ((created_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((created_at % 1000000) + 1000000) % 1000000) AS created_at,
    strftime('%Y-%m-%dT%H:%M:%S', (updated_at - ((updated_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((updated_at % 1000000) + 1000000) % 1000000) AS updated_at,
    strftime('%Y-%m-%dT%H:%M:%S', (started_at - ((started_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((started_at % 1000000) + 1000000) % 1000000) AS started_at,
    strftime('%Y-%m-%dT%H:%M:%S', (ended_at - ((ended_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((ended_at % 1000000) + 1000000) % 1000000) AS ended_at,
    strftime('%Y-%m-%dT%H:%M:%S', (cancel_requested_at - ((cancel_requested_at % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((cancel_requested_at % 1000000) + 1000000) % 1000000) AS cancel_requested_at,
    strftime('%Y-%m-%dT%H:%M:%S', (cancel_deadline - ((cancel_deadline % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((cancel_deadline % 1000000) + 1000000) % 1000000) AS cancel_deadline
FROM runtree_runs;
