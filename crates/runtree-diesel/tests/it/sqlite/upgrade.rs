//! Files of schema version 1, as the version that made them wrote them: they open, and nothing that they hold is lost.
//!
//! The fixture has a run in every state, named by its workflow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_diesel::SqliteRepository;
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::ManualClock;
use runtree_repository::{
    AnnotateRuns as _, Annotation, ClaimOf, CreateRuns as _, Created, ErrorKind, EventNumber,
    IdempotencyKey, Limit, NewRun, Outcome, OwnRuns as _, PageRequest, QueueName, ReadRuns as _,
    Rescue, RescueRuns as _, RunFacts, RunFilter, RunOrder, RunSummary, SortKey, Usage, Write,
};
use tempfile::TempDir;

use super::processes::{spawn, this_binary};
use super::{attempts, claim, execute, request};

const VERSION_1: &str = include_str!("../../fixtures/sqlite-v1.sql");

fn old_file(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("runs.db");
    execute(&path, VERSION_1);
    path
}

/// Opens the file a quarter of an hour after its last write, within every lease.
async fn open(path: &Path) -> SqliteRepository {
    let clock = ManualClock::new("2025-06-22T10:15:00Z".parse().unwrap());
    let builder = SqliteRepository::builder(path).clock(Arc::new(clock));
    builder.open().await.unwrap()
}

async fn by_workflow(runs: &SqliteRepository) -> BTreeMap<String, RunSummary> {
    let page = PageRequest {
        limit: Limit::MAX,
        ..PageRequest::default()
    };
    let page = runs.list(&RunFilter::new(), &page).await.unwrap();
    let named = page.runs.into_iter();
    named.map(|run| (run.workflow.to_string(), run)).collect()
}

#[derive(Debug, PartialEq, QueryableByName)]
struct Line {
    #[diesel(sql_type = Nullable<Text>)]
    line: Option<String>,
}

fn lines(path: &Path, sql: &str) -> Vec<String> {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let lines: Vec<Line> = sql_query(sql).load(&mut connection).unwrap();
    lines.into_iter().filter_map(|line| line.line).collect()
}

/// Every definition, and every row of the tables of version 1.
fn everything(path: &Path) -> Vec<String> {
    let mut found = lines(
        path,
        "SELECT name || ': ' || sql AS line FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name",
    );
    for table in [
        "runs",
        "run_payloads",
        "run_leases",
        "run_events",
        "run_worktrees",
        "run_cleanup",
    ] {
        let columns = lines(
            path,
            &format!(
                "SELECT 'quote(' || name || ')' AS line FROM pragma_table_info('runtree_{table}') ORDER BY cid"
            ),
        );
        let row = columns.join(" || ', ' || ");
        let rows = format!("SELECT {row} AS line FROM runtree_{table} ORDER BY 1");
        found.push(table.to_owned());
        found.extend(lines(path, &rows));
    }
    found
}

#[tokio::test]
async fn every_run_of_version_1_is_read_with_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let runs = open(&old_file(&directory)).await;
    let found = by_workflow(&runs).await;
    let states: Vec<(&str, &str, Option<&str>)> = found
        .iter()
        .map(|(name, run)| {
            let reason = run.end_reason.as_ref().map(EndReason::as_str);
            (name.as_str(), run.status.as_str(), reason)
        })
        .collect();
    assert_eq!(
        states,
        [
            ("failed", "failed", Some("error")),
            ("has-a-newer-word", "paused_by_2_0", None),
            ("is-asked-to-stop", "running", None),
            ("is-completed", "completed", Some("succeeded")),
            ("is-completed-and-kept", "completed", Some("succeeded")),
            ("is-not-due", "pending", None),
            ("runs", "running", None),
            ("waits", "pending", None),
            ("waits-again", "pending", None),
            (
                "was-cancelled-before-start",
                "killed",
                Some("cancelled_before_start")
            ),
            ("was-killed", "killed", Some("killed")),
            ("was-lost", "failed", Some("lost")),
        ]
    );
    for summary in found.values() {
        let run = runs.get(summary.id).await.unwrap().unwrap();
        assert_eq!(run.summary, *summary);
        assert_eq!(run.queue, QueueName::default());
        assert_eq!(
            (&run.concurrency, run.retry_of, run.deadline),
            (&None, None, None)
        );
        assert_eq!(
            (&run.facts, run.usage),
            (&RunFacts::default(), Usage::default())
        );
        assert!(run.tags.is_empty() && run.file_changes.is_empty());
        let events = runs.events(run.id, EventNumber::START, Limit::MAX).await;
        assert!(!events.unwrap().is_empty());
        let explanation = runs.explain(run.id).await.unwrap().unwrap();
        assert!(!explanation.because.is_empty());
    }
    let cancel = found["is-asked-to-stop"].cancel.as_ref().unwrap();
    assert_eq!(cancel.cause, runtree_repository::CancelCause::Request);
    assert_eq!(cancel.reason.as_ref().unwrap().as_str(), "too slow");
    let waits = runs.get(found["waits"].id).await.unwrap().unwrap();
    assert_eq!(waits.input.as_ref().unwrap().as_str(), "fix the flaky test");
    assert_eq!(waits.metadata["deep"]["b"][0], 1);
    for by in SortKey::ALL {
        let page = PageRequest {
            order: RunOrder::descending(*by),
            ..PageRequest::default()
        };
        let page = runs.list(&RunFilter::new(), &page).await.unwrap();
        assert_eq!(page.runs.len(), found.len(), "{by:?}");
    }
}

#[tokio::test]
async fn runs_of_version_1_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let runs = open(&old_file(&directory)).await;
    let found = by_workflow(&runs).await;
    // The same request finds its run, across the upgrade.
    let key = IdempotencyKey::new("order-17").unwrap();
    let by_key = runs.get_by_key(&key).await.unwrap().unwrap();
    assert_eq!(by_key.id, found["waits"].id);
    let same = NewRun::new("waits")
        .input("fix the flaky test")
        .idempotency_key("order-17")
        .unique_key("only")
        .user("ann")
        .priority(runtree_repository::Priority::HIGH)
        .metadata("team", "core")
        .metadata("deep", serde_json::json!({ "b": [1, null], "a": 0.5 }))
        .max_attempts(attempts(3));
    let again = runs.create(&request(same)).await.unwrap();
    assert!(matches!(again, Created::Existing(_)), "{again:?}");
    // Those that wait are claimed, annotated and ended.
    let claimed = runs.claim(&claim(ClaimOf::ANY)).await.unwrap();
    let names: Vec<&str> = claimed
        .iter()
        .map(|run| run.run.workflow.as_str())
        .collect();
    assert_eq!(names, ["waits", "waits-again"]);
    for claimed in claimed {
        let tagged = Annotation::new().add_tag("old".parse().unwrap());
        let annotated = runs.annotate(claimed.lease.run, &tagged).await.unwrap();
        assert!(matches!(annotated, Write::Applied(_)));
        let done = Outcome::Completed { result: None };
        let ended = runs.end(claimed.lease, &done).await.unwrap();
        assert!(matches!(ended, Write::Applied(_)));
    }
    // The lease that version 1 gave out is still the owner's.
    let lease = runs.leases(None).await.unwrap();
    let running = lease
        .iter()
        .find(|lease| lease.lease.run == found["runs"].id);
    let running = running.unwrap();
    assert_eq!(running.child.as_ref().unwrap().as_str(), "77");
    let renewed = runs
        .renew(&[running.lease], Default::default())
        .await
        .unwrap();
    assert!(matches!(
        renewed[0],
        runtree_repository::Renewal::Renewed { .. }
    ));
    // What was asked to stop is killed when its owner is gone.
    let asked = lease
        .iter()
        .find(|lease| lease.lease.run == found["is-asked-to-stop"].id);
    let rescue = Rescue {
        proven_dead: vec![asked.unwrap().lease],
        ..Rescue::default()
    };
    let rescued = runs.rescue(&rescue).await.unwrap();
    assert_eq!(rescued[0].run.status, RunStatus::Killed);
}

#[test]
fn processes_that_open_an_old_file_at_once_upgrade_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = old_file(&directory);
    let children: Vec<_> = (0..8)
        .map(|_| spawn(&this_binary(), "open", &path, None))
        .collect();
    for (mut child, said) in children {
        drop(child.stdin.take());
        assert_eq!(said.collect::<Vec<_>>(), ["opened"]);
        assert!(child.wait().unwrap().success());
    }
    let steps = lines(
        &path,
        "SELECT version || ' ' || name AS line FROM runtree_schema_info ORDER BY version",
    );
    assert_eq!(steps, ["1 runs", "2 complete"]);
}

#[tokio::test]
async fn a_step_back_keeps_what_version_1_has_a_place_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = old_file(&directory);
    let before = everything(&path);
    open(&path).await.close().await;
    let upgraded = everything(&path);
    assert_ne!(before, upgraded);
    let step = &SqliteRepository::migrations()[1];
    assert_eq!((step.version(), step.name()), (2, "complete"));
    let whole = |sql: String| format!("BEGIN IMMEDIATE; {sql} COMMIT");
    execute(&path, &whole(step.down()));
    assert_eq!(everything(&path), before);
    // Up again, by hand.
    execute(&path, &whole(step.up()));
    assert_eq!(everything(&path), upgraded);
    assert_eq!(by_workflow(&open(&path).await).await.len(), 12);
}

#[tokio::test]
async fn every_step_back_leaves_nothing_of_ours_but_the_empty_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    execute(&path, "CREATE TABLE mine (a)");
    for step in SqliteRepository::migrations() {
        execute(&path, &step.up());
    }
    for step in SqliteRepository::migrations().iter().rev() {
        execute(&path, &step.down());
    }
    let left = lines(
        &path,
        "SELECT name AS line FROM sqlite_master ORDER BY name",
    );
    assert_eq!(left, ["mine", "runtree_schema_info"]);
    let steps = lines(&path, "SELECT name AS line FROM runtree_schema_info");
    assert!(steps.is_empty(), "{steps:?}");
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[tokio::test]
async fn who_migrates_by_hand_is_told_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let by_hand = || SqliteRepository::builder(&path).without_migrating().open();
    assert_eq!(
        by_hand().await.unwrap_err().kind(),
        ErrorKind::Configuration
    );
    assert!(!path.exists(), "a file was made");
    execute(&path, VERSION_1);
    let before = everything(&path);
    let error = by_hand().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let text = error.to_string();
    assert!(
        text.contains("runs.db lacks the schema steps 2 (complete)"),
        "{text}"
    );
    assert_eq!(everything(&path), before);
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let step = &SqliteRepository::migrations()[1];
    connection
        .transaction(|connection| connection.batch_execute(&step.up()))
        .unwrap();
    let runs = by_hand().await.unwrap();
    assert_eq!(by_workflow(&runs).await.len(), 12);
    let count =
        "SELECT count(*) AS count FROM runtree_schema_info WHERE applied_at > 1700000000000000";
    let count: Count = sql_query(count).get_result(&mut connection).unwrap();
    assert_eq!(count.count, 2);
}
