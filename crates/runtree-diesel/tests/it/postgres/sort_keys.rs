//! The sort keys beside the runs say what the runs say, whatever is done with them.

use runtree_repository::id::IdGenerator;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    AnnotateRuns, Annotation, Cost, Ending, LeaseRef, RetainRuns, Retention, RetryRun, RunOrder,
    SortKey, Usage, UserId,
};

use super::*;

/// Each run and each row of sort keys that has no other side, or another one.
pub(super) const DIFFERENT: &str = "
    select count(*) from runtree_runs r full join runtree_run_sort_keys k on k.namespace = r.namespace and k.run_id = r.id
    where (r.workflow, coalesce(r.worktree_branch, ''), r.session_id, r.user_id, r.cost, r.input_tokens + r.output_tokens, r.created_at)
        is distinct from (k.workflow, k.branch, k.session_id, k.user_id, k.cost, k.tokens, k.created_at)";

fn used(input_tokens: u64, cost: u64) -> Annotation {
    Annotation::new().add_usage(Usage {
        input_tokens,
        output_tokens: 7,
        cost: Cost::from_micros(cost),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sort_keys_are_what_the_runs_are_whatever_is_done_with_them() {
    let database = Database::fresh();
    let runs = database.open().await;
    let agree = || assert_eq!(database.execute(DIFFERENT), "0");

    let first = created(&runs, &worktree_request()).await;
    let session = uuid::Uuid::from_bytes([7; 16]).to_string().parse().unwrap();
    let person = NewRun::new("reviewer")
        .user(UserId::new("somebody").unwrap())
        .session(session)
        .idempotency_key("once");
    let requests = [request(person.clone()), request(person)];
    let made = runs.create_many(&requests).await.unwrap();
    assert!(matches!(made[..], [Created::New(_), Created::Existing(_)]));
    assert_eq!(
        database.execute("select count(*) from runtree_run_sort_keys"),
        "2"
    );
    agree();

    let second = requests[0].id;
    for annotation in [
        used(5, 10),
        used(3, 0),
        Annotation::new().add_tag("new".parse().unwrap()),
    ] {
        let annotated = runs.annotate(second, &annotation).await.unwrap();
        assert!(annotated.accepted().is_some());
        agree();
    }
    let keys = "select cost, tokens from runtree_run_sort_keys where tokens > 0";
    assert_eq!(database.execute(keys), "10|22");

    let lease = claimed(&runs, second).await.lease;
    runs.end(lease, &completed())
        .await
        .unwrap()
        .accepted()
        .unwrap();
    let retry = RetryRun {
        of: second,
        id: IdGenerator::system().run_id().unwrap(),
        worktree: None,
        available_at: None,
        deadline: None,
    };
    let retried = runs.retry(&retry).await.unwrap();
    assert!(matches!(retried.accepted(), Some(Created::New(_))));
    let keys = "select count(*) from runtree_run_sort_keys where user_id = 'somebody'";
    assert_eq!(database.execute(keys), "2");
    agree();

    for (by, last) in [
        (SortKey::Cost, second),
        (SortKey::Tokens, second),
        (SortKey::Branch, first),
    ] {
        let page = PageRequest {
            order: RunOrder::ascending(by),
            ..PageRequest::default()
        };
        let page = runs.list(&RunFilter::new(), &page).await.unwrap();
        assert_eq!(page.runs.len(), 3);
        assert_eq!(page.runs.last().map(|run| run.id), Some(last), "{by:?}");
    }

    let retention = Retention {
        ended_before: Timestamp::MAX,
        limit: Limit::MAX,
    };
    assert_eq!(runs.delete_ended(&retention).await.unwrap(), [second]);
    agree();
}

/// As a planner sees the table after a quiet hour: it was empty when it was analysed, and is not now.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_reads_the_leases_of_others_when_their_table_was_taken_for_empty() {
    let database = Database::fresh();
    let runs = database.open_single().await;
    database.execute("alter table runtree_run_leases set (autovacuum_enabled = off)");
    let requests: Vec<_> = (0..1_000)
        .map(|_| request(NewRun::new("builder")))
        .collect();
    runs.create_many(&requests).await.unwrap();
    let claimed = runs.claim(&claim_of(ClaimOf::ANY, 1_000)).await.unwrap();
    database.execute(
        "create table held as table runtree_run_leases; delete from runtree_run_leases; analyze runtree_run_leases;
        insert into runtree_run_leases table held",
    );
    let looked_at = "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'runtree_run_leases_pkey'";
    let before = read_statistics(&database, runs, looked_at).await;
    let runs = database.open_single().await;
    let leases: Vec<LeaseRef> = claimed.iter().map(|one| one.lease).collect();
    let renewed = runs
        .renew(&leases[..100], LeaseTime::default())
        .await
        .unwrap();
    assert_eq!(renewed.len(), 100);
    let page = runs
        .list(&RunFilter::new(), &PageRequest::default())
        .await
        .unwrap();
    assert!(page.runs.iter().all(|run| run.owner.is_some()));
    for lease in &leases[..50] {
        runs.end(*lease, &completed())
            .await
            .unwrap()
            .accepted()
            .unwrap();
    }
    let rest = leases[50..150].iter().map(|lease| Ending {
        lease: *lease,
        outcome: completed(),
    });
    let ended = runs.end_many(&rest.collect::<Vec<_>>()).await.unwrap();
    assert!(ended.into_iter().all(|ended| ended.accepted().is_some()));
    let after = read_statistics(&database, runs, looked_at).await;
    // A few of each lease that is named, with the versions of it that are gone; not a thousand for each.
    assert!(after - before <= 10 * 300, "{before} and then {after}");
}

/// The server's counter, when all sessions have told theirs, which they do at their end.
async fn read_statistics(database: &Database, runs: PostgresRepository, counter: &str) -> u64 {
    drop(runs);
    let gone = "select count(*) = 0 from pg_stat_activity
        where application_name = 'runtree' and datname = current_database()";
    database.wait_until(gone).await;
    database.execute(counter).parse().unwrap()
}
