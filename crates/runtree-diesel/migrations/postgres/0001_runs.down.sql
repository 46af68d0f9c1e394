-- Takes every run away.

DROP TABLE runtree_run_cleanup;
DROP TABLE runtree_run_worktrees;
DROP TABLE runtree_run_events;
DROP TABLE runtree_run_leases;
DROP TABLE runtree_run_payloads;
DROP TABLE runtree_runs;
