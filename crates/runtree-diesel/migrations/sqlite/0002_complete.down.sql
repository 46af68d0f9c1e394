-- Takes away what version 2 added. Queues, concurrency limits, deadlines, retries, tags, facts and usage are lost.

DROP VIEW runtree_runs_readable;

DROP INDEX runtree_runs_queue;
DROP INDEX runtree_runs_concurrency;
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
DROP INDEX runtree_runs_branch;
DROP INDEX runtree_runs_running;

DROP TABLE runtree_run_tags;
DROP TABLE runtree_run_facts;

ALTER TABLE runtree_run_payloads DROP COLUMN file_changes;
ALTER TABLE runtree_runs DROP COLUMN order_tokens;
ALTER TABLE runtree_runs DROP COLUMN order_branch;
ALTER TABLE runtree_runs DROP COLUMN order_duration;
ALTER TABLE runtree_runs DROP COLUMN order_ended;
ALTER TABLE runtree_runs DROP COLUMN order_started;
ALTER TABLE runtree_runs DROP COLUMN cost;
ALTER TABLE runtree_runs DROP COLUMN output_tokens;
ALTER TABLE runtree_runs DROP COLUMN input_tokens;
ALTER TABLE runtree_runs DROP COLUMN deadline_at;
ALTER TABLE runtree_runs DROP COLUMN cancel_cause;
ALTER TABLE runtree_runs DROP COLUMN retry_of;
ALTER TABLE runtree_runs DROP COLUMN concurrency_limit;
ALTER TABLE runtree_runs DROP COLUMN concurrency_key;
ALTER TABLE runtree_runs DROP COLUMN queue;

CREATE INDEX runtree_runs_running ON runtree_runs (namespace, id) WHERE status = 'running';
CREATE INDEX runtree_runs_ended ON runtree_runs (namespace, ended_at, id) WHERE ended_at IS NOT NULL;

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
