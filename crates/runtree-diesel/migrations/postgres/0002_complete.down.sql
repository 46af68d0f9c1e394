-- Takes away what version 2 added. Queues, concurrency limits, deadlines, retries, tags, facts and usage are lost.

DROP TABLE runtree_run_facts;
DROP TABLE runtree_run_tags;

DROP INDEX runtree_runs_claim;
DROP INDEX runtree_runs_claim_queue;
DROP INDEX runtree_runs_claim_keyed;
DROP INDEX runtree_runs_running_keyed;
DROP INDEX runtree_runs_deadline;
DROP INDEX runtree_runs_by_started;
DROP INDEX runtree_runs_by_ended;
DROP INDEX runtree_runs_by_duration;
DROP INDEX runtree_runs_by_workflow;
DROP INDEX runtree_runs_by_status;
DROP INDEX runtree_runs_by_branch;
DROP INDEX runtree_runs_by_cost;
DROP INDEX runtree_runs_by_tokens;
DROP INDEX runtree_runs_session;
DROP INDEX runtree_runs_user;

ALTER TABLE runtree_run_payloads DROP COLUMN file_changes;
ALTER TABLE runtree_runs
    DROP COLUMN queue,
    DROP COLUMN concurrency_key,
    DROP COLUMN concurrency_limit,
    DROP COLUMN retry_of,
    DROP COLUMN cancel_cause,
    DROP COLUMN deadline_at,
    DROP COLUMN input_tokens,
    DROP COLUMN output_tokens,
    DROP COLUMN cost;

CREATE INDEX runtree_runs_claim ON runtree_runs (namespace, priority DESC, created_at, id)
    WHERE (status = 'pending' AND ended_at IS NULL AND cancel_requested_at IS NULL) IS TRUE;
CREATE INDEX runtree_runs_ended ON runtree_runs (namespace, ended_at, id) WHERE ended_at IS NOT NULL;
