//! Holds two databases against each other: the reference must do the work that runtree does.

use std::path::Path;

use diesel::dsl::sql;
use diesel::sql_types::Text;
use diesel::{Connection, RunQueryDsl, SqliteConnection};

/// All that runs leave behind, without ids and instants: those that are there, not what they are.
const CONTENTS: &[&str] = &[
    "SELECT json_array(namespace, workflow, status, end_reason, queue, priority, idempotency_key, unique_key, concurrency_key, \
     concurrency_limit, session_id, user_id, attempts, max_attempts, token, cancel_requested_at, worktree_name, retry_of, \
     deadline_at, input_tokens, output_tokens, cost, started_at >= created_at, ended_at >= started_at, updated_at >= created_at, \
     available_at = created_at, updated_at = coalesce(ended_at, started_at, created_at)) FROM runtree_runs ORDER BY 1",
    "SELECT json_array(namespace, input, result, error, metadata, file_changes) FROM runtree_run_payloads ORDER BY 1",
    "SELECT json_array(namespace, hex(owner_id), owner_host, owner_process, child_process, expires_at - heartbeat_at) \
     FROM runtree_run_leases ORDER BY 1",
    "SELECT json_array(namespace, number, kind, token, detail) FROM runtree_run_events ORDER BY 1",
    "SELECT json_array(count(*)) FROM runtree_run_tags",
    "SELECT json_array(count(*)) FROM runtree_run_facts",
    "SELECT json_array(count(*)) FROM runtree_run_worktrees",
];

/// Checks that two files hold the same, whose runs were moved in the same way.
pub(crate) fn check(one: &Path, other: &Path) {
    let (one, other) = (contents(one), contents(other));
    assert_eq!(one.len(), other.len());
    for (one, other) in one.into_iter().zip(other) {
        assert_eq!(one, other, "the reference does other work");
    }
}

fn contents(file: &Path) -> Vec<String> {
    let path = file.to_str().expect("because the path is UTF-8");
    let mut connection = SqliteConnection::establish(path).expect("the file can be opened");
    let queries = CONTENTS.iter();
    queries
        .flat_map(|query| {
            let rows = sql::<Text>(query).load::<String>(&mut connection);
            rows.unwrap_or_else(|error| panic!("{query}: {error}"))
        })
        .collect()
}
