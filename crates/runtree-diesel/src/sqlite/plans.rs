//! Tests that the statements which run most often find their rows by an index, however many runs there are.

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_repository::time::Timestamp;
use runtree_repository::{PageRequest, Position, RunFilter, RunOrder};

use super::{cleanup, create, open, own, read, rescue};

#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// How SQLite means to execute a statement, step by step.
fn plan(sql: &str) -> Vec<String> {
    let mut connection = SqliteConnection::establish(":memory:").unwrap();
    for migration in open::MIGRATIONS {
        connection.batch_execute(migration.sql).unwrap();
    }
    let steps: Vec<Step> = sql_query(format!("EXPLAIN QUERY PLAN {sql}"))
        .load(&mut connection)
        .unwrap();
    steps.into_iter().map(|step| step.detail).collect()
}

fn assert_uses(sql: &str, indexes: &[&str]) {
    let plan = plan(sql);
    for index in indexes {
        assert!(
            plan.iter().any(|step| step.contains(index)),
            "{index} is not used by {sql}: {plan:#?}"
        );
    }
    let scans = |step: &&String| step.starts_with("SCAN") && !step.contains("json_each");
    assert_eq!(plan.iter().find(scans), None, "{sql}: {plan:#?}");
    assert!(
        !plan.iter().any(|step| step.contains("AUTOMATIC")),
        "{sql}: {plan:#?}"
    );
}

fn assert_sorts_nothing(sql: &str) {
    let plan = plan(sql);
    assert!(
        !plan.iter().any(|step| step.contains("USE TEMP B-TREE")),
        "{sql}: {plan:#?}"
    );
}

#[test]
fn a_claim_reads_waiting_runs_in_their_order() {
    for sql in [own::CLAIM_ANY, own::CLAIM_WORKFLOWS] {
        assert_uses(
            sql,
            &["runtree_runs_claim (namespace=?)", "(namespace=? AND id=?)"],
        );
        assert_sorts_nothing(sql);
    }
    assert_uses(own::CLAIM_RUN, &["(namespace=? AND id=?)"]);
}

#[test]
fn a_create_finds_what_stands_in_its_way() {
    assert_uses(create::BY_KEY, &["runtree_runs_idempotency_key"]);
    assert_uses(create::BY_UNIQUE_KEY, &["runtree_runs_unique_key"]);
    assert_uses(create::BY_ID, &["(namespace=? AND id=?)"]);
}

#[test]
fn a_rescue_reads_running_runs_only() {
    assert_uses(rescue::EXPIRED, &["runtree_runs_running"]);
    assert_uses(rescue::LEASES, &["runtree_runs_running"]);
}

#[test]
fn an_ending_is_looked_up() {
    assert_uses(
        read::BY_ENDING,
        &["runtree_runs_ending (namespace=? AND <expr>=?)"],
    );
}

#[test]
fn a_page_starts_where_the_last_one_ended() {
    let after = Position {
        created_at: Timestamp::UNIX_EPOCH,
        id: "run_01h455vb4pex5vsknk084sn02q".parse().unwrap(),
    };
    for order in [RunOrder::NewestFirst, RunOrder::OldestFirst] {
        let page = PageRequest {
            order,
            ..PageRequest::default()
        };
        let (sql, _) = read::list_query(&RunFilter::new(), &page, Some(after));
        assert_uses(
            &sql,
            &["runtree_runs_created (namespace=? AND (created_at,id)"],
        );
        assert_sorts_nothing(&sql);
    }
}

#[test]
fn worktrees_and_clean_ups_of_a_site_are_looked_up() {
    assert_uses(
        cleanup::OF_SITE,
        &["runtree_run_worktrees_site (namespace=? AND host=? AND git_repository=?)"],
    );
    assert_sorts_nothing(cleanup::OF_SITE);
    assert_uses(cleanup::DUE, &[]);
}
