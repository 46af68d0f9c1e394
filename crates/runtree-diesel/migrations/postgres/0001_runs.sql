-- The tables of version 1. Instants are timestamptz, which holds microseconds exactly. JSON is json, not jsonb, because jsonb
-- rewrites numbers (1e16 becomes an integer) and what was stored must come back as it was. No CHECK lists words: a newer version
-- may add some. No foreign keys: each row is written by the one statement that writes its run, and the triggers that check them
-- would take a second lock on the run for every event.

CREATE TABLE runtree_runs (
    namespace            text        NOT NULL,
    id                   uuid        NOT NULL,
    workflow             text        NOT NULL,
    status               text        NOT NULL,
    end_reason           text,
    priority             smallint    NOT NULL,
    idempotency_key      text,
    unique_key           text,
    session_id           uuid,
    user_id              text,
    fingerprint          bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    attempts             bigint      NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 4294967295),
    max_attempts         bigint      NOT NULL CHECK (max_attempts BETWEEN 1 AND 4294967295),
    token                bigint      NOT NULL DEFAULT 0 CHECK (token BETWEEN 0 AND 4294967295),
    last_event           bigint      NOT NULL CHECK (last_event BETWEEN 1 AND 4294967295),
    cancel_requested_at  timestamptz,
    cancel_mode          text,
    cancel_deadline      timestamptz,
    cancel_reason        text,
    cancelled_by         text,
    worktree_name        text,
    worktree_branch      text,
    worktree_base        text,
    worktree_persistence text,
    available_at         timestamptz NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL CHECK (updated_at >= created_at),
    started_at           timestamptz,
    ended_at             timestamptz CHECK (ended_at >= started_at),
    CONSTRAINT runtree_runs_pkey PRIMARY KEY (namespace, id)
);

-- What makes a create idempotent.
CREATE UNIQUE INDEX runtree_runs_idempotency_key ON runtree_runs (namespace, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runtree_runs_unique_key ON runtree_runs (namespace, unique_key)
    WHERE ended_at IS NULL AND unique_key IS NOT NULL;

-- What may be claimed, in the order of claims. IS TRUE keeps these indexes for the statements that say it too: a guard of another
-- statement would admit them, and they look short to a planner whose statistics are from a time when nothing waited.
CREATE INDEX runtree_runs_claim ON runtree_runs (namespace, priority DESC, created_at, id)
    WHERE (status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL) IS TRUE;
CREATE INDEX runtree_runs_running ON runtree_runs (namespace, id) WHERE (status = 'running' AND ended_at IS NULL) IS TRUE;

-- Lists, by creation and by ending.
CREATE INDEX runtree_runs_created ON runtree_runs (namespace, created_at, id);
CREATE INDEX runtree_runs_ended ON runtree_runs (namespace, ended_at, id) WHERE ended_at IS NOT NULL;

-- Look-ups by the ending of an id: the last five digits of the UUID are part of every ending.
CREATE INDEX runtree_runs_ending ON runtree_runs (namespace, right(id::text, 5));

-- The wide texts, apart from what is rewritten often.
CREATE TABLE runtree_run_payloads (
    namespace text NOT NULL,
    run_id    uuid NOT NULL,
    input     text,
    result    json,
    error     text,
    metadata  json NOT NULL,
    CONSTRAINT runtree_run_payloads_pkey PRIMARY KEY (namespace, run_id)
);

-- Who owns a running run. Apart from the run, so that a heartbeat rewrites a short row; with room on each page and no index over
-- what a heartbeat changes, so that it rewrites nothing else.
CREATE TABLE runtree_run_leases (
    namespace     text        NOT NULL,
    run_id        uuid        NOT NULL,
    token         bigint      NOT NULL,
    owner_id      uuid        NOT NULL,
    owner_host    text        NOT NULL,
    owner_process text        NOT NULL,
    child_process text,
    heartbeat_at  timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    CONSTRAINT runtree_run_leases_pkey PRIMARY KEY (namespace, run_id)
) WITH (fillfactor = 70);

-- The history of each run: rows are added, never changed. The run's own last_event gives the numbers out.
CREATE TABLE runtree_run_events (
    namespace text        NOT NULL,
    run_id    uuid        NOT NULL,
    number    bigint      NOT NULL,
    at        timestamptz NOT NULL,
    kind      text        NOT NULL,
    token     bigint      NOT NULL,
    detail    json,
    CONSTRAINT runtree_run_events_pkey PRIMARY KEY (namespace, run_id, number)
);

-- Every worktree that was ever planned.
CREATE TABLE runtree_run_worktrees (
    namespace      text        NOT NULL,
    run_id         uuid        NOT NULL,
    planned_by     bigint      NOT NULL,
    host           text        NOT NULL,
    git_repository text        NOT NULL,
    root           text        NOT NULL,
    path           text        NOT NULL,
    name           text        NOT NULL,
    branch         text        NOT NULL,
    base           text        NOT NULL,
    persistence    text        NOT NULL,
    state          text        NOT NULL,
    held_by        bigint      NOT NULL,
    salvage        text,
    reason         text,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CONSTRAINT runtree_run_worktrees_pkey PRIMARY KEY (namespace, run_id, planned_by)
);

-- By a hash of the path: a path may be longer than an index entry.
CREATE INDEX runtree_run_worktrees_site ON runtree_run_worktrees (namespace, host, hashtextextended(git_repository, 0))
    WHERE (state <> 'removed') IS TRUE;

-- The wish to clean a worktree up, made by the statement that ends its run.
CREATE TABLE runtree_run_cleanup (
    namespace     text        NOT NULL,
    run_id        uuid        NOT NULL,
    planned_by    bigint      NOT NULL,
    wanted_at     timestamptz NOT NULL,
    available_at  timestamptz NOT NULL,
    token         bigint      NOT NULL DEFAULT 0,
    tries         bigint      NOT NULL DEFAULT 0,
    owner_id      uuid,
    owner_host    text,
    owner_process text,
    expires_at    timestamptz,
    last_error    text,
    CONSTRAINT runtree_run_cleanup_pkey PRIMARY KEY (namespace, run_id, planned_by)
);

CREATE INDEX runtree_run_cleanup_wanted ON runtree_run_cleanup (namespace, wanted_at, run_id, planned_by);
