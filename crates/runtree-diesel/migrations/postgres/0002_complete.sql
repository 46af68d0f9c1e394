-- The tables of version 2: queues, concurrency keys, deadlines, retries, facts, tags and usage, and an index for every order of a list.
--
-- For operators: no row is rewritten, but indexes are built over all runs, and nobody reads or writes runs meanwhile; calls that wait
-- longer than their time limit answer that the store is busy. Programs of version 1 know nothing of queues, keys and deadlines and are
-- not kept from writing: stop them first. The tables are locked in the order in which statements name them, so that none of these waits
-- for the step while the step waits for it. The leases that live when it begins are given the time that it took, because nobody could
-- renew them.

-- As a number: how an instant is written, and with which name of a zone, is up to the session.
SELECT set_config('runtree.step_began', extract(epoch FROM clock_timestamp())::text, true);
LOCK TABLE runtree_runs, runtree_run_payloads IN ACCESS EXCLUSIVE MODE;

ALTER TABLE runtree_runs
    ADD COLUMN queue             text   NOT NULL DEFAULT 'default',
    ADD COLUMN concurrency_key   text,
    ADD COLUMN concurrency_limit bigint CHECK (concurrency_limit BETWEEN 1 AND 4294967295),
    ADD COLUMN retry_of          uuid,
    -- What made somebody want it to stop; null means that it was asked for.
    ADD COLUMN cancel_cause      text,
    ADD COLUMN deadline_at       timestamptz,
    -- Each at most 2^53 - 1, so that the sum of two stays within the type.
    ADD COLUMN input_tokens      bigint NOT NULL DEFAULT 0 CHECK (input_tokens BETWEEN 0 AND 9007199254740991),
    ADD COLUMN output_tokens     bigint NOT NULL DEFAULT 0 CHECK (output_tokens BETWEEN 0 AND 9007199254740991),
    -- In millionths of the unit.
    ADD COLUMN cost              bigint NOT NULL DEFAULT 0 CHECK (cost BETWEEN 0 AND 9007199254740991);

ALTER TABLE runtree_run_payloads ADD COLUMN file_changes json;

-- What is known of a run's work; a row only where something is.
CREATE TABLE runtree_run_facts (
    namespace      text   NOT NULL,
    run_id         uuid   NOT NULL,
    agent          text,
    model          text,
    session_name   text,
    git_repository text,
    first_commit   text,
    last_commit    text,
    diff_files     bigint,
    diff_added     bigint,
    diff_removed   bigint,
    CONSTRAINT runtree_run_facts_pkey PRIMARY KEY (namespace, run_id)
);

-- The words that runs are found by.
CREATE TABLE runtree_run_tags (
    namespace text NOT NULL,
    run_id    uuid NOT NULL,
    tag       text NOT NULL,
    CONSTRAINT runtree_run_tags_pkey PRIMARY KEY (namespace, tag, run_id)
);
CREATE INDEX runtree_run_tags_run ON runtree_run_tags (namespace, run_id);

-- What may be claimed. Runs with a concurrency key stand apart: a thousand of them that wait for their turn are no hindrance to a
-- claim of others.
DROP INDEX runtree_runs_claim;
CREATE INDEX runtree_runs_claim ON runtree_runs (namespace, priority DESC, created_at, id)
    WHERE (status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL AND concurrency_key IS NULL) IS TRUE;
CREATE INDEX runtree_runs_claim_queue ON runtree_runs (namespace, queue, priority DESC, created_at, id)
    WHERE (status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL AND concurrency_key IS NULL) IS TRUE;
CREATE INDEX runtree_runs_claim_keyed ON runtree_runs (namespace, priority DESC, created_at, id)
    WHERE (status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL AND concurrency_key IS NOT NULL) IS TRUE;

-- Who uses a concurrency key.
CREATE INDEX runtree_runs_running_keyed ON runtree_runs (namespace, concurrency_key)
    WHERE (status = 'running' AND ended_at IS NULL AND concurrency_key IS NOT NULL) IS TRUE;

-- Whose deadline passes next.
CREATE INDEX runtree_runs_deadline ON runtree_runs (namespace, deadline_at, id)
    WHERE (ended_at IS NULL AND deadline_at IS NOT NULL) IS TRUE;

-- Lists: one index for each order, over the value (the smallest there is for a run without one) and the id, so that a page is one range of
-- an index whatever it begins after. Texts are in the order of their bytes, whatever the database's collation. The order by creation
-- has its index from version 1.
DROP INDEX runtree_runs_ended;
CREATE INDEX runtree_runs_by_started ON runtree_runs (namespace, coalesce(started_at, timestamptz '-infinity'), id);
CREATE INDEX runtree_runs_by_ended ON runtree_runs (namespace, coalesce(ended_at, timestamptz '-infinity'), id);
CREATE INDEX runtree_runs_by_duration ON runtree_runs (
    namespace, coalesce((extract(epoch FROM ended_at - started_at) * 1000000)::bigint, -1), id);
CREATE INDEX runtree_runs_by_workflow ON runtree_runs (namespace, workflow COLLATE "C", id);
CREATE INDEX runtree_runs_by_status ON runtree_runs (namespace, status COLLATE "C", id);
CREATE INDEX runtree_runs_by_branch ON runtree_runs (namespace, coalesce(worktree_branch, '') COLLATE "C", id);
CREATE INDEX runtree_runs_by_cost ON runtree_runs (namespace, cost, id);
CREATE INDEX runtree_runs_by_tokens ON runtree_runs (namespace, (input_tokens + output_tokens), id);

-- Lists of one session or user, newest or oldest first.
CREATE INDEX runtree_runs_session ON runtree_runs (namespace, session_id, created_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX runtree_runs_user ON runtree_runs (namespace, user_id, created_at, id) WHERE user_id IS NOT NULL;

-- The time that the step took.
UPDATE runtree_run_leases SET expires_at = least(
        expires_at + (clock_timestamp() - to_timestamp(current_setting('runtree.step_began')::double precision)),
        timestamptz '9999-12-31 23:59:59.999999+00')
    WHERE expires_at > to_timestamp(current_setting('runtree.step_began')::double precision);
UPDATE runtree_run_cleanup SET expires_at = least(
        expires_at + (clock_timestamp() - to_timestamp(current_setting('runtree.step_began')::double precision)),
        timestamptz '9999-12-31 23:59:59.999999+00')
    WHERE expires_at > to_timestamp(current_setting('runtree.step_began')::double precision);
