-- Takes back what version 3 added. Nothing is lost: the runs have all that the table had. Tables are written anew, and leases are given the
-- time that it took, as by the step up.

SELECT set_config('runtree.step_began', extract(epoch FROM clock_timestamp())::text, true);
LOCK TABLE runtree_runs, runtree_run_payloads, runtree_run_leases, runtree_run_events, runtree_run_worktrees, runtree_run_cleanup,
    runtree_run_facts, runtree_run_tags IN ACCESS EXCLUSIVE MODE;
DROP TABLE runtree_run_sort_keys;

ALTER TABLE runtree_runs
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_runs_pkey,
    ADD CONSTRAINT runtree_runs_pkey PRIMARY KEY (namespace, id);
ALTER TABLE runtree_run_payloads
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_payloads_pkey,
    ADD CONSTRAINT runtree_run_payloads_pkey PRIMARY KEY (namespace, run_id);
ALTER TABLE runtree_run_leases
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_leases_pkey,
    ADD CONSTRAINT runtree_run_leases_pkey PRIMARY KEY (namespace, run_id);
ALTER TABLE runtree_run_events
    DROP CONSTRAINT runtree_run_events_pkey,
    ADD CONSTRAINT runtree_run_events_pkey PRIMARY KEY (namespace, run_id, number);
ALTER TABLE runtree_run_facts
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_facts_pkey,
    ADD CONSTRAINT runtree_run_facts_pkey PRIMARY KEY (namespace, run_id);
ALTER TABLE runtree_run_worktrees
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_worktrees_pkey,
    ADD CONSTRAINT runtree_run_worktrees_pkey PRIMARY KEY (namespace, run_id, planned_by);
ALTER TABLE runtree_run_cleanup
    ALTER COLUMN namespace TYPE text USING namespace || '',
    DROP CONSTRAINT runtree_run_cleanup_pkey,
    ADD CONSTRAINT runtree_run_cleanup_pkey PRIMARY KEY (namespace, run_id, planned_by);
DROP INDEX runtree_run_tags_run;
CREATE INDEX runtree_run_tags_run ON runtree_run_tags (namespace, run_id);

CREATE INDEX runtree_runs_running ON runtree_runs (namespace, id) WHERE (status = 'running' AND ended_at IS NULL) IS TRUE;
CREATE INDEX runtree_runs_by_workflow ON runtree_runs (namespace, workflow COLLATE "C", id);
CREATE INDEX runtree_runs_by_branch ON runtree_runs (namespace, coalesce(worktree_branch, '') COLLATE "C", id);
CREATE INDEX runtree_runs_by_cost ON runtree_runs (namespace, cost, id);
CREATE INDEX runtree_runs_by_tokens ON runtree_runs (namespace, (input_tokens + output_tokens), id);
CREATE INDEX runtree_runs_session ON runtree_runs (namespace, session_id, created_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX runtree_runs_user ON runtree_runs (namespace, user_id, created_at, id) WHERE user_id IS NOT NULL;
CREATE INDEX runtree_runs_ending ON runtree_runs (namespace, right(id::text, 5));

-- The time that the step took.
UPDATE runtree_run_leases SET expires_at = least(
        expires_at + (clock_timestamp() - to_timestamp(current_setting('runtree.step_began')::double precision)),
        timestamptz '9999-12-31 23:59:59.999999+00')
    WHERE expires_at > to_timestamp(current_setting('runtree.step_began')::double precision);
UPDATE runtree_run_cleanup SET expires_at = least(
        expires_at + (clock_timestamp() - to_timestamp(current_setting('runtree.step_began')::double precision)),
        timestamptz '9999-12-31 23:59:59.999999+00')
    WHERE expires_at > to_timestamp(current_setting('runtree.step_began')::double precision);
