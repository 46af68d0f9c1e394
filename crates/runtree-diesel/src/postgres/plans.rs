//! Tests that every statement finds runs by an index in a table of some thousand, and that pages walk the index of their order.
//!
//! The plans, nodes and indexes only, are kept in `tests/snapshots/postgres-plans.txt`; `RUNTREE_UPDATE_SNAPSHOTS=1` writes them anew. They
//! are compared on the version of the server that they were made on, and looked through on every version.

use std::fmt::Write as _;
use std::path::Path;

use runtree_repository::id::{IdGenerator, SessionId};
use runtree_repository::{Direction, HostName, RunFilter, RunOrder, SortKey, Tag, UserId};
use runtree_testkit::postgres::TestPostgres;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::PostgresRepository;
use super::sql::{self, Measured, Shape};

/// The types of the values that every filter has, after the namespace.
const FILTER: &str = "text, text[], text[], text[], text[], timestamptz, timestamptz, timestamptz, timestamptz, timestamptz, timestamptz, \
                      uuid, text, text, uuid, text, text[], text[], text[]";
const CLAIM: &str = "text, bigint, uuid, text, text, bigint, text, text, text, text, text, text[], uuid, text, text[], uuid[]";
const OWNED: &str = "text, uuid, bigint";
const ENDED: &str = "text, uuid, bigint, text, bigint";
const STOPPED: &str = "text, uuid, text, bigint, text, text";

/// The statements with one text, and the types of their values.
fn fixed() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        (
            "create",
            sql::CREATE,
            "text, uuid[], text[], text[], bigint[], text[], text[], text[], bigint[], uuid[], text[], bytea[], \
          bigint[], text[], text[], text[], text[], timestamptz[], timestamptz[], text[], text[], text[], text[], text[], text[], text[]",
        ),
        (
            "existing",
            sql::EXISTING,
            "text, uuid[], text[], text[], uuid[], bigint[]",
        ),
        (
            "retry",
            sql::RETRY,
            "text, uuid, uuid, text, text, text, text, text, timestamptz, timestamptz",
        ),
        ("get", sql::GET, "text, uuid"),
        ("get many", sql::GET_MANY, "text, uuid[]"),
        ("get by key", sql::GET_BY_KEY, "text, text"),
        ("find", sql::FIND, "text, text, bigint, text, bigint"),
        ("events", sql::EVENTS, "text, uuid, bigint, bigint"),
        ("explain", sql::EXPLAIN, "text, uuid, bigint"),
        ("claim any", sql::CLAIM_ANY, CLAIM),
        ("claim of one queue", sql::CLAIM_QUEUE, CLAIM),
        ("claim of queues", sql::CLAIM_QUEUES, CLAIM),
        ("claim of a run", sql::CLAIM_RUN, CLAIM),
        ("candidates of any", sql::CANDIDATES_ANY, CLAIM),
        ("candidates of one queue", sql::CANDIDATES_QUEUE, CLAIM),
        ("candidates of queues", sql::CANDIDATES_QUEUES, CLAIM),
        ("candidate run", sql::CANDIDATES_RUN, CLAIM),
        ("claim of the chosen", sql::CLAIM_CHOSEN, CLAIM),
        ("renew", sql::RENEW, "text, uuid[], bigint[], bigint"),
        (
            "record child",
            sql::RECORD_CHILD,
            "text, uuid, bigint, text",
        ),
        ("worktree ready", sql::WORKTREE_READY, OWNED),
        ("reject", sql::REJECT, "text, uuid, bigint, text"),
        ("complete", sql::COMPLETE, ENDED),
        ("fail", sql::FAIL, ENDED),
        ("acknowledge cancel", sql::ACKNOWLEDGE_CANCEL, OWNED),
        (
            "end many",
            sql::END_MANY,
            "text, uuid[], bigint[], text[], text[], bigint[]",
        ),
        ("release", sql::RELEASE, OWNED),
        ("cancel", sql::CANCEL, STOPPED),
        ("force kill", sql::FORCE_KILL, STOPPED),
        ("leases", sql::LEASES, "text, text"),
        (
            "rescue",
            sql::RESCUE,
            "text, uuid[], bigint[], bigint, uuid[]",
        ),
        ("time out", sql::TIME_OUT, "text, bigint, bigint"),
        (
            "annotate",
            sql::ANNOTATE,
            "text, uuid, text, text, text[], boolean, text, text[], text[], bigint, bigint, bigint, boolean, \
          bigint, bigint",
        ),
        ("lock run", sql::LOCK_RUN, "text, uuid"),
        (
            "delete ended",
            sql::DELETE_ENDED,
            "text, timestamptz, bigint",
        ),
        (
            "worktrees of a site",
            sql::WORKTREES_OF_SITE,
            "text, text, text",
        ),
        ("worktrees of a run", sql::WORKTREES_OF_RUN, "text, uuid"),
        (
            "claim clean-ups",
            sql::CLAIM_CLEANUPS,
            "text, text, text, uuid, bigint, uuid, text, text, bigint",
        ),
        ("clean-up leases", sql::CLEANUP_LEASES, "text, text, text"),
        (
            "free clean-ups",
            sql::FREE_CLEANUPS,
            "text, uuid[], bigint[], bigint[]",
        ),
        (
            "clean-up removed",
            sql::CLEANUP_REMOVED,
            "text, uuid, bigint, bigint, text, bigint",
        ),
        (
            "clean-up kept",
            sql::CLEANUP_KEPT,
            "text, uuid, bigint, bigint, text, bigint",
        ),
        (
            "clean-up postponed",
            sql::CLEANUP_POSTPONED,
            "text, uuid, bigint, bigint, text, bigint",
        ),
    ]
}

/// Some thousand runs, as they are in a store that has been used: most have ended.
const FILL: &str = "
    INSERT INTO runtree_runs (
        namespace, id, workflow, status, end_reason, priority, idempotency_key, session_id, user_id, fingerprint, attempts,
        max_attempts, token, last_event, worktree_branch, available_at, created_at, updated_at, started_at, ended_at, queue,
        concurrency_key, concurrency_limit, deadline_at, input_tokens, output_tokens, cost)
    SELECT 'default', gen_random_uuid(), 'workflow-' || n % 20,
        (ARRAY['pending', 'running', 'completed', 'completed', 'completed', 'completed', 'completed', 'failed', 'failed', 'killed'])[n % 10 + 1],
        NULL, n % 5, CASE n % 3 WHEN 0 THEN 'key-' || n END, gen_random_uuid(), 'user-' || n % 200,
        sha256(n::text::bytea), 1, 1, 1, 1, 'branch-' || n, at, at, at,
        CASE WHEN n % 10 > 0 THEN at END, CASE WHEN n % 10 > 1 THEN at + n * interval '1 second' END, 'queue-' || n % 7,
        CASE n % 4 WHEN 0 THEN 'key-' || n % 13 END, CASE n % 4 WHEN 0 THEN 3 END, CASE n % 6 WHEN 0 THEN at + interval '1 day' END,
        n, n * 3, n % 977
    FROM (SELECT n, timestamptz '2026-01-01 00:00:00+00' + n * interval '1 minute' AS at FROM generate_series(1, 6000) n) s;
    INSERT INTO runtree_run_sort_keys (namespace, run_id, workflow, branch, session_id, user_id, cost, tokens, created_at)
    SELECT namespace, id, workflow, worktree_branch, session_id, user_id, cost, input_tokens + output_tokens, created_at FROM runtree_runs;
    INSERT INTO runtree_run_payloads (namespace, run_id, metadata) SELECT namespace, id, '{}' FROM runtree_runs;
    INSERT INTO runtree_run_leases (namespace, run_id, token, owner_id, owner_host, owner_process, heartbeat_at, expires_at)
    SELECT namespace, id, token, gen_random_uuid(), 'host', 'process', updated_at, updated_at FROM runtree_runs WHERE status = 'running';
    INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token)
    SELECT namespace, id, n, created_at, 'created', 0 FROM runtree_runs CROSS JOIN generate_series(1, 3) n;
    INSERT INTO runtree_run_tags (namespace, run_id, tag) SELECT namespace, id, 'tag-' || input_tokens % 50 FROM runtree_runs;
    INSERT INTO runtree_run_facts (namespace, run_id, agent) SELECT namespace, id, 'agent' FROM runtree_runs WHERE input_tokens % 2 = 0;
    INSERT INTO runtree_run_worktrees (
        namespace, run_id, planned_by, host, git_repository, root, path, name, branch, base, persistence, state, held_by, created_at,
        updated_at)
    SELECT namespace, id, 1, 'host', '/repository', '/srv/worktrees', '/srv/worktrees/' || id, 'name', 'branch', 'base', 'temporary',
        CASE WHEN ended_at IS NULL THEN 'ready' ELSE 'removed' END, 1, created_at, created_at
    FROM runtree_runs WHERE status <> 'pending';
    ANALYZE;";

/// The nodes of a plan, with the indexes that they use.
async fn plan(client: &Client, text: &str, types: &str) -> Vec<String> {
    let is_node =
        |(place, line): &(usize, String)| *place == 0 || line.trim_start().starts_with("->");
    let lines = whole_plan(client, text, types).await.into_iter();
    lines
        .enumerate()
        .filter(is_node)
        .map(|(_, line)| line)
        .collect()
}

async fn whole_plan(client: &Client, text: &str, types: &str) -> Vec<String> {
    let nulls = vec!["NULL"; types.split(", ").count()].join(", ");
    let explain = format!(
        "PREPARE s ({types}) AS {text}; EXPLAIN (COSTS OFF) EXECUTE s ({nulls}); DEALLOCATE s"
    );
    let mut lines = Vec::new();
    for message in client.simple_query(&explain).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            lines.push(row.get(0).unwrap().to_owned());
        }
    }
    lines
}

/// An index over all runs that is searched for nothing but the namespace reads every run.
fn assert_looks_for_more_than_a_namespace(name: &str, lines: &[String]) {
    for (place, line) in lines.iter().enumerate() {
        let is_over_all = ["pkey", "created", "by_"]
            .iter()
            .any(|index| line.contains(&format!("runtree_runs_{index}")));
        if !is_over_all || line.contains("Conflict") {
            continue;
        }
        let condition = lines[place + 1..]
            .iter()
            .find(|line| line.contains("Index Cond:"));
        let is_more = condition.is_some_and(|condition| condition.contains(" AND "));
        assert!(is_more, "{name}: {lines:#?}");
    }
}

/// The index over endings begins with the namespace as all do; whoever uses it for that alone reads every run.
fn assert_finds_runs_by_an_index(name: &str, plan: &[String]) {
    let reads_all = |node: &&String| {
        node.contains("Seq Scan on runtree_")
            || node.contains("Bitmap")
            || (name != "find" && node.contains("runtree_run_sort_keys_ending"))
    };
    let scan = plan.iter().find(reads_all);
    assert_eq!(scan, None, "{name}: {plan:#?}");
}

fn filters() -> Vec<(&'static str, RunFilter)> {
    let ids = IdGenerator::system();
    let session: SessionId = uuid::Uuid::from_bytes([7; 16]).to_string().parse().unwrap();
    let any = RunFilter::new();
    vec![
        ("any", any.clone()),
        ("session", any.clone().session(session)),
        ("user", any.clone().user(UserId::new("user-1").unwrap())),
        ("branch", any.clone().branch("branch-1".parse().unwrap())),
        ("owner", any.clone().owner(ids.owner_id().unwrap())),
        (
            "owner's host",
            any.clone().owner_host(HostName::new("host").unwrap()),
        ),
        ("tag", any.clone().tag(Tag::new("tag-1").unwrap())),
        ("metadata", any.metadata_key("key")),
    ]
}

/// Every plan, with its name.
async fn plans(client: &Client) -> Vec<(String, Vec<String>)> {
    let mut plans = Vec::new();
    for (name, text, types) in fixed() {
        let lines = whole_plan(client, text, types).await;
        assert_looks_for_more_than_a_namespace(name, &lines);
        plans.push((name.to_owned(), plan(client, text, types).await));
    }
    for (name, filter) in filters() {
        let asked = [
            ("count", Measured::Count),
            ("statistics", Measured::Statistics),
        ];
        for (what, asked) in asked {
            let text = Shape::new(asked, &filter).text();
            let types = format!("{FILTER}, bigint");
            let nodes = plan(client, &text, &types).await;
            plans.push((format!("{what}, {name}"), nodes));
        }
        let keys = if filter == RunFilter::new() {
            SortKey::ALL
        } else {
            &[SortKey::Created, SortKey::Cost]
        };
        for by in keys {
            plans.extend(pages(client, *by, name, &filter).await);
        }
    }
    plans
}

/// The plans of pages in both directions; where the filter shows every run, they are walks of the order's index.
async fn pages(
    client: &Client,
    by: SortKey,
    name: &str,
    filter: &RunFilter,
) -> Vec<(String, Vec<String>)> {
    let is_instant = [SortKey::Created, SortKey::Started, SortKey::Ended].contains(&by);
    let value = match (is_instant, by.is_text()) {
        (true, _) => "timestamptz",
        (false, true) => "text",
        (false, false) => "bigint",
    };
    let types = format!("{FILTER}, bigint, {value}, uuid");
    let table = if sql::is_apart(by) {
        "runtree_run_sort_keys"
    } else {
        "runtree_runs"
    };
    let index = if by == SortKey::Created {
        "runtree_runs_created".to_owned()
    } else {
        format!("{table}_by_{}", by.as_str())
    };
    let mut plans = Vec::new();
    for direction in [Direction::Ascending, Direction::Descending] {
        for (page, is_first) in [("first page", true), ("next page", false)] {
            let order = RunOrder { by, direction };
            let text = Shape::new(Measured::page(order, is_first).unwrap(), filter).text();
            let nodes = plan(client, &text, &types).await;
            let label = format!("{page} by {order}, {name}");
            if *filter == RunFilter::new() {
                let is_walk = nodes.iter().any(|node| node.contains(&index));
                let sorts = nodes.iter().any(|node| node.contains("Sort"));
                assert!(is_walk && !sorts, "{label}: {nodes:#?}");
            }
            plans.push((label, nodes));
        }
    }
    plans
}

#[tokio::test]
async fn every_statement_finds_runs_by_an_index_and_the_plans_are_the_reviewed_ones() {
    let server = TestPostgres::get();
    let url = server.fresh_database();
    let runs = PostgresRepository::connect(&url).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let driven = tokio::spawn(connection);
    let settings = runs.store.pool.manager().settings();
    client.batch_execute(settings).await.unwrap();
    client.batch_execute(FILL).await.unwrap();
    let version = client
        .query_one("SHOW server_version_num", &[])
        .await
        .unwrap();
    let version: String = version.get(0);
    let mut told = format!("PostgreSQL {}\n", &version[..2]);
    for (name, nodes) in plans(&client).await {
        assert_finds_runs_by_an_index(&name, &nodes);
        write!(told, "\n{name}\n    {}\n", nodes.join("\n    ")).unwrap();
    }
    drop(client);
    driven.await.unwrap().unwrap();
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/postgres-plans.txt");
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever runs the test says by a variable that snapshots are to be written anew"
    )]
    if std::env::var_os("RUNTREE_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&snapshot, &told).unwrap();
    }
    let kept = std::fs::read_to_string(&snapshot).unwrap();
    if kept.lines().next() == told.lines().next() {
        assert_eq!(told, kept);
    }
}
