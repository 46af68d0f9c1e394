//! Calls that fail, wait or are dropped, and what comes back of what was stored.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_connection_is_replaced() {
    let database = Database::fresh();
    let runs = database.open_single().await;
    let claimed = running(&runs).await;
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where application_name = 'runtree' and datname = current_database()";
    // While it is idle.
    assert_eq!(database.execute(terminate), "1");
    assert!(runs.get(claimed.run.id).await.unwrap().is_some());
    // In the middle of a statement.
    let mut other = database.session().await;
    other
        .batch_execute("begin; select * from runtree_runs for update")
        .await
        .unwrap();
    let end = tokio::spawn({
        let runs = runs.clone();
        async move { runs.end(claimed.lease, &completed()).await }
    });
    database.wait_for_a_waiter().await;
    assert_eq!(database.execute(terminate), "1");
    let error = end.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    other.batch_execute("rollback").await.unwrap();
    assert!(matches!(
        runs.end(claimed.lease, &completed()).await.unwrap(),
        Write::Applied(_)
    ));
    assert!(matches!(
        runs.end(claimed.lease, &completed()).await.unwrap(),
        Write::Already(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_outlives_a_broken_connection_whose_successor_may_only_read() {
    let database = Database::fresh();
    let runs = database.open_single().await;
    let id = created(&runs, &request(NewRun::new("builder"))).await;
    let mut other = database.session().await;
    other
        .batch_execute("begin; lock table runtree_runs in access exclusive mode")
        .await
        .unwrap();
    let read = tokio::spawn({
        let runs = runs.clone();
        async move { runs.get(id).await }
    });
    database.wait_for_a_waiter().await;
    database.execute("insert into runtree_schema_info values (4, 'later', 3, 4)");
    database.execute(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity \
         where application_name = 'runtree' and datname = current_database()",
    );
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(read.await.unwrap().unwrap().unwrap().id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_hold_too_long_is_busy_and_not_written() {
    let database = Database::fresh();
    let runs = PostgresRepository::builder(&database.url)
        .busy_timeout(Duration::from_millis(100))
        .connect()
        .await
        .unwrap();
    let lease = running(&runs).await.lease;
    let mut other = database.session().await;
    other
        .batch_execute("begin; select * from runtree_runs for update")
        .await
        .unwrap();
    let error = runs.end(lease, &completed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(
        runs.get(lease.run).await.unwrap().unwrap().status,
        RunStatus::Running
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_is_given_up() {
    let database = Database::fresh();
    let runs = PostgresRepository::builder(&database.url)
        .max_connections(NonZeroU32::MIN)
        .answer_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    let lease = running(&runs).await.lease;
    let mut other = database.session().await;
    other
        .batch_execute("begin; select * from runtree_runs for update")
        .await
        .unwrap();
    let error = runs.end(lease, &completed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        runs.get(lease.run).await.unwrap().is_some(),
        "the next call gets a connection that nothing waits on"
    );
    other.batch_execute("rollback").await.unwrap();
    assert!(
        runs.end(lease, &completed())
            .await
            .unwrap()
            .accepted()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_dropped_at_any_await_leaves_nothing_half_done_and_a_connection_that_works() {
    let database = Database::fresh();
    let runs = database.open_single().await;
    let mut was_done = false;
    let mut times = NonZeroUsize::MIN;
    while !was_done {
        let request = worktree_request();
        was_done = polled_only(runs.create(&request), times).await;
        let again = runs.create(&request).await.unwrap().into_run().unwrap();
        assert_eq!(again.id, request.id);
        assert_events_have_no_gap(&runs, request.id).await;

        let claim = claim_of(ClaimOf::Run(request.id), 1);
        polled_only(runs.claim(&claim), times).await;
        // A statement that nobody waits for any more goes on; it is over when nothing of ours is active.
        database
            .wait_until("select count(*) = 0 from pg_stat_activity where application_name = 'runtree' and state <> 'idle'")
            .await;
        let lease = match runs.get(request.id).await.unwrap().unwrap() {
            run if run.status == RunStatus::Running => runtree_repository::LeaseRef {
                run: run.id,
                token: run.token,
            },
            _ => claimed(&runs, request.id).await.lease,
        };
        let outcome = completed();
        polled_only(runs.end(lease, &outcome), times).await;
        let ended = runs.end(lease, &outcome).await.unwrap().accepted().unwrap();
        assert_eq!(ended.status, RunStatus::Completed);
        let kinds = assert_events_have_no_gap(&runs, request.id).await;
        let endings = kinds
            .iter()
            .filter(|kind| **kind == EventKind::Completed)
            .count();
        assert_eq!(endings, 1, "{kinds:?}");
        assert_eq!(kinds.last(), Some(&EventKind::CleanupWanted));
        times = times.saturating_add(1);
    }
    let open = "select count(*) from pg_stat_activity where state like 'idle in transaction%' and datname = current_database()";
    assert_eq!(database.execute(open), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_dropped_while_it_waits_for_a_lock_blocks_nobody() {
    let database = Database::fresh();
    let patient = PostgresRepository::builder(&database.url).busy_timeout(Duration::from_secs(600));
    let runs = patient
        .max_connections(NonZeroU32::MIN)
        .connect()
        .await
        .unwrap();
    let lease = running(&runs).await.lease;
    let mut other = database.session().await;
    other
        .batch_execute("begin; select * from runtree_runs for update")
        .await
        .unwrap();
    let end = tokio::spawn({
        let runs = runs.clone();
        async move { runs.end(lease, &completed()).await }
    });
    database.wait_for_a_waiter().await;
    end.abort();
    assert!(end.await.unwrap_err().is_cancelled());
    // The only connection of the pool is not the one that waits.
    let read = tokio::time::timeout(Duration::from_secs(60), runs.get(lease.run))
        .await
        .unwrap();
    assert!(read.unwrap().is_some());
    other.batch_execute("rollback").await.unwrap();
    let ended = runs.end(lease, &completed()).await.unwrap();
    assert_eq!(ended.accepted().unwrap().status, RunStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_value_comes_back_as_it_was() {
    let database = Database::fresh();
    let runs = database.open().await;
    let value = json!({"float": 1e16, "zero": -0.0, "tiny": 5e-324, "max": u64::MAX, "min": i64::MIN, "text": "\u{1}\\u0000 é", "b": [{}]});
    let run = NewRun::new("builder")
        .metadata("kept", value.clone())
        .input("in");
    let id = created(&runs, &request(run)).await;
    let lease = claimed(&runs, id).await.lease;
    let outcome = Outcome::Completed {
        result: Some(value.clone()),
    };
    let answered = runs.end(lease, &outcome).await.unwrap().accepted().unwrap();
    let stored = runs.get(id).await.unwrap().unwrap();
    for run in [&answered, &stored] {
        assert_eq!(
            run.result.as_ref().map(ToString::to_string),
            Some(value.to_string())
        );
        assert_eq!(
            run.metadata.get("kept").map(ToString::to_string),
            Some(value.to_string())
        );
        assert_eq!(run.input.as_ref().map(AsRef::as_ref), Some("in"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_status_word_survives_every_call() {
    let database = Database::fresh();
    let runs = database.open().await;
    let waiting = created(&runs, &request(NewRun::new("builder"))).await;
    let claimed = running(&runs).await;
    database.execute("update runtree_runs set status = 'paused_by_operator'");
    database.execute("update runtree_run_leases set expires_at = clock_timestamp()");
    let forced = CancelRequest::new(CancelMode::Forced);
    assert!(
        runs.claim(&claim_of(ClaimOf::ANY, 10))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(runs.leases(None).await.unwrap().is_empty());
    let rescue = Rescue {
        proven_dead: vec![claimed.lease],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    assert!(runs.rescue(&rescue).await.unwrap().is_empty());
    for id in [waiting, claimed.run.id] {
        assert!(matches!(
            runs.cancel(id, &forced).await.unwrap(),
            Write::Stale { .. }
        ));
        assert!(matches!(
            runs.force_kill(id, &forced).await.unwrap(),
            Write::Stale { .. }
        ));
    }
    assert!(matches!(
        runs.end(claimed.lease, &Outcome::Killed).await.unwrap(),
        Write::Stale { .. }
    ));
    assert!(matches!(
        runs.release(claimed.lease).await.unwrap(),
        Write::Stale { .. }
    ));
    assert!(matches!(
        runs.worktree_ready(claimed.lease).await.unwrap(),
        Write::Stale { .. }
    ));
    let page = runs
        .list(&RunFilter::new(), &PageRequest::default())
        .await
        .unwrap();
    let words: Vec<_> = page
        .runs
        .iter()
        .map(|run| run.status.as_str().to_owned())
        .collect();
    assert_eq!(words, ["paused_by_operator", "paused_by_operator"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_longer_than_an_index_entry_can_be_stored_and_found() {
    let database = Database::fresh();
    let runs = database.open().await;
    let id = created(&runs, &worktree_request()).await;
    // Digits that do not repeat, so that no compression makes it short.
    let long: String = (0..2_000_u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let mut claim = claim_of(ClaimOf::Run(id), 1);
    let git_repository = HostPath::new(format!("/{}", &long[..4_000])).unwrap();
    claim.site = Some(WorktreeSite {
        git_repository: git_repository.clone(),
        ..site()
    });
    assert_eq!(runs.claim(&claim).await.unwrap().len(), 1);
    let query = WorktreeQuery::Site {
        host: site().host,
        git_repository,
    };
    assert_eq!(runs.worktrees(&query).await.unwrap().len(), 1);
}

/// As every backend compares: the sign of a zero is kept where a value is written, and tells no two values apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_negative_zero_is_kept_and_equals_the_other() {
    use runtree_repository::{AnnotateRuns, Annotation};

    let database = Database::fresh();
    let runs = database.open().await;
    let zeros = |zero: f64, small: f64| json!({"z": [zero, {"\"-0.0,": "\\\"-0.0,", "x": zero}], "small": small, "exp": -0.0e-5_f64});
    let id = created(
        &runs,
        &request(NewRun::new("builder").metadata("k", zeros(0.0, -0.05))),
    )
    .await;
    let signed = Annotation::new().metadata("k", zeros(-0.0, -0.05));
    let answer = runs.annotate(id, &signed).await.unwrap();
    assert!(matches!(answer, Write::Already(_)), "{answer:?}");
    let stored = database.execute("select metadata from runtree_run_payloads");
    assert!(stored.contains("[0.0,"), "{stored}");
    for (value, shown) in [
        (zeros(-0.0, -0.05), 1),
        (zeros(0.0, -0.05), 1),
        (zeros(0.0, 0.05), 0),
    ] {
        let filter = RunFilter::new().metadata("k", value);
        assert_eq!(runs.count(&filter).await.unwrap(), shown);
    }
    let other = Annotation::new().metadata("k", zeros(-0.0, 0.05));
    let answer = runs.annotate(id, &other).await.unwrap();
    assert!(matches!(answer, Write::Applied(_)), "{answer:?}");
    let text = json!({"z": "-0.0"});
    let annotated = runs
        .annotate(id, &Annotation::new().metadata("k", text))
        .await;
    assert!(matches!(annotated.unwrap(), Write::Applied(_)));
    let text = Annotation::new().metadata("k", json!({"z": "0.0"}));
    let answer = runs.annotate(id, &text).await.unwrap();
    assert!(
        matches!(answer, Write::Applied(_)),
        "a text is no number: {answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_that_others_wrote_out_of_range_is_told_as_corrupt() {
    let database = Database::fresh();
    let runs = database.open().await;
    let claimed = running(&runs).await;
    let id = claimed.run.id;
    let beside = created(&runs, &request(NewRun::new("builder"))).await;
    let get = || async { runs.get(id).await.map(drop) };
    let list = || async {
        let page = PageRequest::default();
        runs.list(&RunFilter::new(), &page).await.map(drop)
    };
    let told = |answer: Result<(), RepositoryError>, at: &str, value: &str| {
        let error = answer.expect_err(value);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at} {value}: {error}");
        let text = error.to_string();
        assert!(text.contains("instant"), "{at} {value}: {text}");
    };
    let late = ["infinity", "10000-01-01 00:00:00+00"];
    let early = ["-infinity", "0001-12-31 23:59:59.999999+00 BC"];
    // The schema itself lets no update be before the creation.
    for (at, values) in [
        ("updated_at", &late[..]),
        ("created_at", &early),
        ("available_at", &[late, early].concat()),
    ] {
        for value in values {
            let of = format!("where id = '{}'", id.as_uuid());
            let was = database.execute(&format!("select {at} from runtree_runs {of}"));
            let put = |value: &str| {
                database.execute(&format!("update runtree_runs set {at} = '{value}' {of}"))
            };
            put(value);
            told(get().await, at, value);
            told(list().await, at, value);
            assert!(runs.get(beside).await.unwrap().is_some(), "{at} {value}");
            put(&was);
            get().await.unwrap();
            list().await.unwrap();
        }
    }
    // The rows beside that of the run.
    database.execute("update runtree_run_leases set heartbeat_at = 'infinity'");
    told(
        runs.leases(None).await.map(drop),
        "heartbeat_at",
        "infinity",
    );
    told(runs.explain(id).await.map(drop), "heartbeat_at", "infinity");
    database.execute("update runtree_run_events set at = '-infinity'");
    let events = runs.events(id, EventNumber::START, Limit::MAX).await;
    told(events.map(drop), "at", "-infinity");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_read_keeps_nobody_from_claiming_the_others() {
    let database = Database::fresh();
    let runs = database.open().await;
    let damaged = created(&runs, &request(NewRun::new("builder"))).await;
    let sound = created(&runs, &request(NewRun::new("builder"))).await;
    database.execute(&format!(
        "update runtree_runs set deadline_at = 'infinity' where id = '{}'",
        damaged.as_uuid()
    ));
    let claimed = runs.claim(&claim_of(ClaimOf::ANY, 2)).await.unwrap();
    let claimed: Vec<RunId> = claimed.iter().map(|one| one.run.id).collect();
    assert_eq!(claimed, [sound]);
    // It is somebody's until the lease ends, and is then told.
    let error = runs.get(damaged).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    database.execute("update runtree_runs set status = 'pending' where deadline_at is not null");
    let error = runs.claim(&claim_of(ClaimOf::ANY, 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
