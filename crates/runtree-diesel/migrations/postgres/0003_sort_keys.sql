-- The table of version 3: what lists are ordered and found by and no claim or ending changes, with the indexes over it. A row that is
-- written anew is written into every index of its table, since a claim and an ending change columns that are in some of them; these here
-- were seven of twelve, and half of the work of both.
--
-- Primary keys begin with the id now, which ends most comparisons at its first bytes, while every namespace is compared as far as it goes;
-- and a planner that takes a table for empty, as that of leases often is, cannot mean to look at a whole namespace of it for each run.
--
-- For operators: most tables are written anew (an index that is built over rows of which older versions stand about is not used while any
-- transaction is open that began before), a row is added to the new table for each run, indexes are built over all of them, and nobody
-- reads or writes runs meanwhile; calls that wait longer than their time limit answer that the store is busy. Applied by hand beside
-- running programs, it may be chosen as the victim of a deadlock; nothing has changed then, and it can be applied again. Foreign keys of
-- a host's own tables that refer to these primary keys must be dropped before and can be made again after. Roles that were granted rights on
-- runtree_runs need them on runtree_run_sort_keys.
--
-- Programs of version 2 that run still read, more slowly; they know nothing of the new table and are not kept from writing: stop them
-- first. What one of them wrote afterwards is mended by executing these two again, the second of which is part of the step:
--     DELETE FROM runtree_run_sort_keys k WHERE NOT EXISTS (
--         SELECT FROM runtree_runs r WHERE r.namespace = k.namespace AND r.id = k.run_id);
--     INSERT INTO runtree_run_sort_keys ... (below)
--
-- The leases that live when it begins are given the time that it took, because nobody could renew them.

-- As a number: how an instant is written, and with which name of a zone, is up to the session.
SELECT set_config('runtree.step_began', extract(epoch FROM clock_timestamp())::text, true);
LOCK TABLE runtree_runs, runtree_run_payloads, runtree_run_leases, runtree_run_events, runtree_run_worktrees, runtree_run_cleanup,
    runtree_run_facts, runtree_run_tags IN ACCESS EXCLUSIVE MODE;

-- A row for each run, made by the statement that makes the run. Texts are in the order of their bytes, whatever the database's collation.
CREATE TABLE runtree_run_sort_keys (
    namespace  text             NOT NULL,
    run_id     uuid             NOT NULL,
    workflow   text COLLATE "C" NOT NULL,
    -- Empty for a run without a worktree.
    branch     text COLLATE "C" NOT NULL,
    session_id uuid,
    user_id    text,
    cost       bigint           NOT NULL,
    -- In and out.
    tokens     bigint           NOT NULL,
    created_at timestamptz      NOT NULL,
    CONSTRAINT runtree_run_sort_keys_pkey PRIMARY KEY (run_id, namespace)
);

INSERT INTO runtree_run_sort_keys (namespace, run_id, workflow, branch, session_id, user_id, cost, tokens, created_at)
    SELECT r.namespace, r.id, r.workflow, coalesce(r.worktree_branch, ''), r.session_id, r.user_id, r.cost,
        r.input_tokens + r.output_tokens, r.created_at
    FROM runtree_runs r
    ON CONFLICT (run_id, namespace) DO UPDATE SET cost = excluded.cost, tokens = excluded.tokens;

-- Lists: one index for each order, over the value and the id, as those over runs.
CREATE INDEX runtree_run_sort_keys_by_workflow ON runtree_run_sort_keys (namespace, workflow, run_id);
CREATE INDEX runtree_run_sort_keys_by_branch ON runtree_run_sort_keys (namespace, branch, run_id);
CREATE INDEX runtree_run_sort_keys_by_cost ON runtree_run_sort_keys (namespace, cost, run_id);
CREATE INDEX runtree_run_sort_keys_by_tokens ON runtree_run_sort_keys (namespace, tokens, run_id);

-- Lists of one session or user, newest or oldest first.
CREATE INDEX runtree_run_sort_keys_session ON runtree_run_sort_keys (namespace, session_id, created_at, run_id)
    WHERE session_id IS NOT NULL;
CREATE INDEX runtree_run_sort_keys_user ON runtree_run_sort_keys (namespace, user_id, created_at, run_id) WHERE user_id IS NOT NULL;

-- Look-ups by the ending of an id: the last five digits of the UUID are part of every ending.
CREATE INDEX runtree_run_sort_keys_ending ON runtree_run_sort_keys (namespace, right(run_id::text, 5));

DROP INDEX runtree_runs_by_workflow;
DROP INDEX runtree_runs_by_branch;
DROP INDEX runtree_runs_by_cost;
DROP INDEX runtree_runs_by_tokens;
DROP INDEX runtree_runs_session;
DROP INDEX runtree_runs_user;
DROP INDEX runtree_runs_ending;

-- Runs at work are found by the order by status.
DROP INDEX runtree_runs_running;

-- With a new value for a column the tables are written anew, without old versions of rows. Events and tags have none: they are only added
-- and deleted.
ALTER TABLE runtree_runs
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_runs_pkey,
    ADD CONSTRAINT runtree_runs_pkey PRIMARY KEY (id, namespace);
ALTER TABLE runtree_run_payloads
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_payloads_pkey,
    ADD CONSTRAINT runtree_run_payloads_pkey PRIMARY KEY (run_id, namespace);
ALTER TABLE runtree_run_leases
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_leases_pkey,
    ADD CONSTRAINT runtree_run_leases_pkey PRIMARY KEY (run_id, namespace);
ALTER TABLE runtree_run_events
    DROP CONSTRAINT runtree_run_events_pkey,
    ADD CONSTRAINT runtree_run_events_pkey PRIMARY KEY (run_id, number, namespace);
ALTER TABLE runtree_run_facts
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_facts_pkey,
    ADD CONSTRAINT runtree_run_facts_pkey PRIMARY KEY (run_id, namespace);
ALTER TABLE runtree_run_worktrees
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_worktrees_pkey,
    ADD CONSTRAINT runtree_run_worktrees_pkey PRIMARY KEY (run_id, planned_by, namespace);
ALTER TABLE runtree_run_cleanup
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_cleanup_pkey,
    ADD CONSTRAINT runtree_run_cleanup_pkey PRIMARY KEY (run_id, planned_by, namespace);
DROP INDEX runtree_run_tags_run;
CREATE INDEX runtree_run_tags_run ON runtree_run_tags (run_id, namespace);

-- The time that the step took.
UPDATE runtree_run_leases SET expires_at = least(
        expires_at + (clock_timestamp() - to_timestamp(current_setting('runtree.step_began')::double precision)),
        timestamptz '9999-12-31 23:59:59.999999+00')
    WHERE expires_at > to_timestamp(current_setting('runtree.step_began')::double precision);
UPDATE runtree_run_cleanup SET expires_at = least(
        expires_at + (clock_timestamp() - to_timestamp(current_setting('runtree.step_began')::double precision)),
        timestamptz '9999-12-31 23:59:59.999999+00')
    WHERE expires_at > to_timestamp(current_setting('runtree.step_began')::double precision);
