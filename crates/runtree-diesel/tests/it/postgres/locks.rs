//! What waits for whom: leases at their expiry, the turn of claims, the order of locks, and copies that must be of one moment.

use runtree_repository::{
    AnnotateRuns, CleanupOutcome, CleanupRef, LeaseRef, Overdue, Renewal, RetryRun,
};

use super::*;

fn keyed(workflow: &str) -> CreateRun {
    request(NewRun::new(workflow).concurrency("key", NonZeroU32::MIN))
}

/// Says when a lease expires, as an expression of SQL.
fn expire(database: &Database, lease: LeaseRef, at: &str) {
    let run = lease.run.as_uuid();
    database.execute(&format!(
        "update runtree_run_leases set expires_at = {at} where run_id = '{run}'"
    ));
}

async fn hold_lease(database: &Database, lease: LeaseRef) -> AsyncPgConnection {
    let mut session = database.session().await;
    let run = lease.run.as_uuid();
    session
        .batch_execute(&format!(
            "begin; select from runtree_run_leases where run_id = '{run}' for update"
        ))
        .await
        .unwrap();
    session
}

/// Tells whether nobody has locked the row.
fn is_free(database: &Database, table: &str, run: RunId) -> bool {
    let run = run.as_uuid();
    let rows = database.execute(&format!(
        "with free as materialized (select 1 from {table} where run_id = '{run}' for update skip locked) select count(*) from free"
    ));
    rows == "1"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_being_renewed_over_its_expiry_still_counts_against_its_key() {
    let database = Database::fresh();
    let runs = database.open().await;
    let first = created(&runs, &keyed("one")).await;
    let second = created(&runs, &keyed("two")).await;
    let lease = claimed(&runs, first).await.lease;
    expire(&database, lease, "clock_timestamp()");
    // A renewal that has written and not yet committed.
    let mut renewal = hold_lease(&database, lease).await;
    renewal
        .batch_execute(
            "update runtree_run_leases set expires_at = clock_timestamp() + interval '1 hour'",
        )
        .await
        .unwrap();
    let got = runs
        .claim(&claim_of(ClaimOf::Run(second), 1))
        .await
        .unwrap();
    assert!(got.is_empty(), "the place was taken twice");
    renewal.batch_execute("rollback").await.unwrap();
    let got = runs
        .claim(&claim_of(ClaimOf::Run(second), 1))
        .await
        .unwrap();
    assert_eq!(got.len(), 1, "an expired lease holds no place");
    let renewed = runs.renew(&[lease], LeaseTime::default()).await.unwrap();
    assert_eq!(renewed, [Renewal::Lost]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_waited_over_the_expiry_of_its_lease_is_lost() {
    let database = Database::fresh();
    let runs = database.open().await;
    let lease = running(&runs).await.lease;
    let mut other = hold_lease(&database, lease).await;
    let renewal = tokio::spawn({
        let runs = runs.clone();
        async move { runs.renew(&[lease], LeaseTime::default()).await }
    });
    database.wait_for_a_waiter().await;
    other
        .batch_execute("update runtree_run_leases set expires_at = clock_timestamp(); commit")
        .await
        .unwrap();
    assert_eq!(renewal.await.unwrap().unwrap(), [Renewal::Lost]);
    // And where nobody changed the row, so that the server does not look at it again.
    expire(&database, lease, "clock_timestamp() + interval '2 seconds'");
    let mut other = hold_lease(&database, lease).await;
    let renewal = tokio::spawn({
        let runs = runs.clone();
        async move { runs.renew(&[lease], LeaseTime::default()).await }
    });
    database.wait_for_a_waiter().await;
    database
        .wait_until("select expires_at < clock_timestamp() from runtree_run_leases")
        .await;
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(renewal.await.unwrap().unwrap(), [Renewal::Lost]);
}

/// Two running runs with worktrees, the smaller id first.
async fn two_running(runs: &PostgresRepository) -> [LeaseRef; 2] {
    let mut leases = Vec::new();
    for _ in 0..2 {
        let id = created(runs, &worktree_request()).await;
        leases.push(claimed(runs, id).await.lease);
    }
    leases.sort_by_key(|lease| lease.run);
    [leases[0], leases[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_locks_several_leases_takes_them_in_the_order_of_ids() {
    let database = Database::fresh();
    let runs = database.open().await;
    // So many runs and leases that the server begins with those that it has in hand, and goes to the tables in that order.
    let others: Vec<CreateRun> = (0..500).map(|_| request(NewRun::new("other"))).collect();
    runs.create_many(&others).await.unwrap();
    database.execute(
        "insert into runtree_run_leases (namespace, run_id, token, owner_id, owner_host, owner_process, heartbeat_at, expires_at)
            select 'default', gen_random_uuid(), 1, gen_random_uuid(), 'h', 'p', now(), '2999-01-01' from generate_series(1, 5000);
        analyze",
    );
    // A statement that waits for the first lease must not have the second.
    let leases = two_running(&runs).await;
    let [first, second] = leases;
    let mut other = hold_lease(&database, first).await;
    let backwards = [second, first];
    let renewal = tokio::spawn({
        let runs = runs.clone();
        async move { runs.renew(&backwards, LeaseTime::default()).await }
    });
    database.wait_for_a_waiter().await;
    assert!(
        is_free(&database, "runtree_run_leases", second.run),
        "renew"
    );
    other.batch_execute("commit").await.unwrap();
    for renewed in renewal.await.unwrap().unwrap() {
        assert!(matches!(renewed, Renewal::Renewed { .. }), "{renewed:?}");
    }
    // Their deadlines are the other way round.
    let last = second.run.as_uuid();
    database.execute(&format!(
        "update runtree_runs set cancel_requested_at = created_at, cancel_cause = 'deadline', cancel_mode = 'graceful',
            cancel_deadline = created_at,
            deadline_at = created_at - case id when '{last}' then interval '2 hours' else interval '1 hour' end
            where status = 'running'"
    ));
    let mut other = hold_lease(&database, first).await;
    let overdue = tokio::spawn({
        let runs = runs.clone();
        async move {
            runs.time_out(&Overdue {
                limit: Limit::MAX,
                grace: Duration::ZERO,
            })
            .await
        }
    });
    database.wait_for_a_waiter().await;
    assert!(
        is_free(&database, "runtree_run_leases", second.run),
        "time out"
    );
    other.batch_execute("commit").await.unwrap();
    assert_eq!(overdue.await.unwrap().unwrap().len(), 2);

    let leases = two_running(&runs).await;
    let [first, second] = leases;
    let mut other = hold_lease(&database, first).await;
    let endings = [second, first].map(|lease| runtree_repository::Ending {
        lease,
        outcome: completed(),
    });
    let ended = tokio::spawn({
        let runs = runs.clone();
        async move { runs.end_many(&endings).await }
    });
    database.wait_for_a_waiter().await;
    assert!(
        is_free(&database, "runtree_run_leases", second.run),
        "end many"
    );
    other.batch_execute("commit").await.unwrap();
    for ended in ended.await.unwrap().unwrap() {
        assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_ups_are_locked_after_their_run_and_in_the_order_of_ids() {
    let database = Database::fresh();
    let runs = database.open().await;
    for lease in two_running(&runs).await {
        let ended = runs.end(lease, &completed()).await.unwrap();
        assert!(matches!(ended, Write::Applied(_)));
    }
    let mut tasks: Vec<CleanupRef> = runs
        .claim_cleanups(&cleanup_claim())
        .await
        .unwrap()
        .into_iter()
        .map(|task| task.cleanup)
        .collect();
    tasks.sort_by_key(|task| task.worktree.run);
    let [first, second] = tasks.try_into().unwrap();
    let run = first.worktree.run.as_uuid();
    let mut other = database.session().await;
    other
        .batch_execute(&format!(
            "begin; select from runtree_run_cleanup where run_id = '{run}' for update"
        ))
        .await
        .unwrap();
    let freed = tokio::spawn({
        let runs = runs.clone();
        async move { runs.free_cleanups(&[second, first]).await }
    });
    database.wait_for_a_waiter().await;
    assert!(is_free(
        &database,
        "runtree_run_cleanup",
        second.worktree.run
    ));
    other.batch_execute("commit").await.unwrap();
    freed.await.unwrap().unwrap();

    other
        .batch_execute(&format!(
            "begin; select from runtree_runs where id = '{run}' for update"
        ))
        .await
        .unwrap();
    let finished = tokio::spawn({
        let runs = runs.clone();
        let outcome = CleanupOutcome::Postponed {
            error: ErrorText::lossy("busy"),
            retry_after: Duration::ZERO,
        };
        async move { runs.finish_cleanup(first, &outcome).await }
    });
    database.wait_for_a_waiter().await;
    assert!(
        is_free(&database, "runtree_run_cleanup", first.worktree.run),
        "who waits for the run must not have its clean-up"
    );
    other.batch_execute("commit").await.unwrap();
    assert!(matches!(
        finished.await.unwrap().unwrap(),
        Write::Applied(_)
    ));
}

/// Polls a claim until it has the turn of those that claim runs with keys, and then lets it lie.
#[tokio::test(flavor = "multi_thread")]
async fn a_claimer_that_is_paused_in_its_turn_holds_nobody_up_for_long() {
    let database = Database::fresh();
    let runs = database.open().await;
    let [one, two] = [
        created(&runs, &keyed("one")).await,
        created(
            &runs,
            &request(NewRun::new("two").concurrency("other", NonZeroU32::MIN)),
        )
        .await,
    ];
    let paused = PostgresRepository::builder(&database.url)
        .busy_timeout(Duration::from_secs(2))
        .connect()
        .await
        .unwrap();
    let claim = claim_of(ClaimOf::Run(one), 1);
    let mut claiming = pin!(paused.claim(&claim));
    let has_turn = "select count(*) > 0 from pg_locks where locktype = 'advisory' and granted and classid = 1920230251 \
                    and database = (select oid from pg_database where datname = current_database())";
    while database.execute(has_turn) != "t" {
        let was_done =
            std::future::poll_fn(|cx| Poll::Ready(claiming.as_mut().poll(cx).is_ready())).await;
        assert!(!was_done, "the claim was over before its turn was seen");
    }
    let other = claimed(&runs, two).await;
    assert_eq!(other.run.id, two);
    // Once it goes on, it starts its turn again.
    let got = claiming.await.unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].run.attempts, 1);
}

/// The copy is of the run as it is, also where somebody changed it between the snapshot of the retry and its lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_takes_over_what_was_annotated_while_it_waited() {
    let database = Database::fresh();
    let runs = database.open().await;
    let lease = running(&runs).await.lease;
    let failed = Outcome::Failed {
        error: ErrorText::lossy("x"),
        retry_after: None,
    };
    let ended = runs.end(lease, &failed).await.unwrap();
    assert!(matches!(ended, Write::Applied(_)));
    let annotation = runtree_repository::Annotation::new()
        .metadata("a", 1)
        .add_tag("old".parse().unwrap());
    let annotated = runs.annotate(lease.run, &annotation).await.unwrap();
    assert!(matches!(annotated, Write::Applied(_)));
    // What an annotation writes, in a transaction that stays open for a while.
    let run = lease.run.as_uuid();
    let mut other = database.session().await;
    other
        .batch_execute(&format!(
            "begin; update runtree_runs set last_event = last_event + 1 where id = '{run}';
            insert into runtree_run_events (namespace, run_id, number, at, kind, token)
                select namespace, id, last_event, updated_at, 'annotated', token from runtree_runs where id = '{run}';
            update runtree_run_payloads set metadata = '{{\"a\":2}}';
            update runtree_run_tags set tag = 'new'"
        ))
        .await
        .unwrap();
    let retry = tokio::spawn({
        let runs = runs.clone();
        let request = RetryRun {
            of: lease.run,
            id: IdGenerator::system().run_id().unwrap(),
            worktree: None,
            available_at: None,
            deadline: None,
        };
        async move { runs.retry(&request).await }
    });
    database.wait_for_a_waiter().await;
    other.batch_execute("commit").await.unwrap();
    let Write::Applied(Created::New(run)) = retry.await.unwrap().unwrap() else {
        panic!("the retry makes a run");
    };
    assert_eq!(
        serde_json::Value::Object(run.metadata.clone()),
        json!({"a": 2})
    );
    assert_eq!(
        run.tags.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["new"]
    );
    assert_events_have_no_gap(&runs, lease.run).await;
}

/// A key that becomes free between the insert and the look makes a second insert; both are one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn many_creates_are_one_transaction_also_when_a_key_becomes_free_in_between() {
    let database = Database::fresh();
    let runs = database.open().await;
    let unique = |workflow: &str| request(NewRun::new(workflow).unique_key("mine"));
    let holder = created(&runs, &unique("holder")).await;
    let requests = [request(NewRun::new("free")), unique("next")];
    // Holds the first insert up after it has found the key taken: at the event of the run that it made.
    let id = requests[0].id.as_uuid();
    database.execute(&format!(
        "create function hold() returns trigger language plpgsql as
            'begin perform pg_advisory_xact_lock_shared(42); return new; end';
        create trigger hold before insert on runtree_run_events for each row when (new.run_id = '{id}') execute function hold()"
    ));
    let mut gate = database.session().await;
    gate.batch_execute("select pg_advisory_lock(42)")
        .await
        .unwrap();
    let ids = [requests[0].id, requests[1].id];
    let making = tokio::spawn({
        let runs = runs.clone();
        async move { runs.create_many(&requests).await }
    });
    database.wait_for_a_waiter().await;
    let forced = CancelRequest::new(CancelMode::Forced);
    let freed = runs.cancel(holder, &forced).await.unwrap();
    assert!(matches!(freed, Write::Applied(_)));
    gate.batch_execute("select pg_advisory_unlock(42)")
        .await
        .unwrap();
    let made = making.await.unwrap().unwrap();
    assert!(
        made.iter().all(|made| matches!(made, Created::New(_))),
        "{made:?}"
    );
    let [one, two] = ids.map(|id| id.as_uuid().to_string());
    assert_eq!(
        database.execute(&format!("select count(*), count(distinct xmin::text) from runtree_runs where id in ('{one}', '{two}')")),
        "2|1"
    );
}
