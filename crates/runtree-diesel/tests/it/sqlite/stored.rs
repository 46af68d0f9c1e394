//! What is in the file: words of newer versions, and instants as people read them.

use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::{Nullable, Text};
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_diesel::SqliteRepository;
use runtree_repository::time::{ManualClock, TimeRange, Timestamp};
use runtree_repository::{
    CancelMode, CancelRequest, ClaimOf, CleanUpWorktrees as _, CleanupClaim, CleanupOutcome,
    CreateRuns as _, LeaseRef, LeaseTime, Limit, MAX_FILTER_VALUES, MAX_TAGS, NewRun, Outcome,
    OwnRuns as _, PageRequest, ReadRuns as _, Rescue, RescueRuns as _, RunFilter, RunOrder,
    SortKey, StopRuns as _, Tag, Usage, WorktreeQuery, Write,
};

use super::{
    attempts, claim, create, execute, literal, new_run, owner, request_with_worktree, site,
};

#[tokio::test]
async fn a_status_of_a_newer_version_is_read_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let clock = ManualClock::new("2025-06-22T10:00:00Z".parse().unwrap());
    let runs = SqliteRepository::builder(&path)
        .clock(Arc::new(clock.clone()))
        .open()
        .await
        .unwrap();
    let waiting = create(&runs, NewRun::new("builder")).await.id;
    let running = create(&runs, NewRun::new("builder").max_attempts(attempts(9)))
        .await
        .id;
    let lease = runs.claim(&claim(ClaimOf::Run(running))).await.unwrap()[0].lease;
    for id in [waiting, running] {
        execute(
            &path,
            &format!(
                "UPDATE runtree_runs SET status = 'paused_by_2_0' WHERE id = {}",
                literal(id)
            ),
        );
    }
    let before = [
        runs.get(waiting).await.unwrap().unwrap(),
        runs.get(running).await.unwrap().unwrap(),
    ];
    assert!(
        before
            .iter()
            .all(|run| run.status.as_str() == "paused_by_2_0")
    );
    assert_eq!(
        runs.list(&RunFilter::new(), &PageRequest::default())
            .await
            .unwrap()
            .runs
            .len(),
        2
    );

    clock.advance(Duration::from_secs(3_600));
    assert!(runs.claim(&claim(ClaimOf::ANY)).await.unwrap().is_empty());
    assert!(
        runs.claim(&claim(ClaimOf::Run(waiting)))
            .await
            .unwrap()
            .is_empty()
    );
    let rescue = Rescue {
        proven_dead: vec![
            lease,
            LeaseRef {
                run: waiting,
                ..lease
            },
        ],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    assert!(runs.rescue(&rescue).await.unwrap().is_empty());
    assert!(runs.leases(None).await.unwrap().is_empty());
    let forced = CancelRequest::new(CancelMode::Forced);
    for id in [waiting, running] {
        assert!(matches!(
            runs.cancel(id, &forced).await.unwrap(),
            Write::Stale { .. }
        ));
        assert!(matches!(
            runs.force_kill(id, &forced).await.unwrap(),
            Write::Stale { .. }
        ));
    }
    let after = [
        runs.get(waiting).await.unwrap().unwrap(),
        runs.get(running).await.unwrap().unwrap(),
    ];
    assert_eq!(before, after);
    // The old owner's write is rejected, and only told.
    assert!(matches!(
        runs.end(lease, &Outcome::Killed).await.unwrap(),
        Write::Stale { .. }
    ));
    assert_eq!(
        runs.get(running).await.unwrap().unwrap().status.as_str(),
        "paused_by_2_0"
    );
}

#[tokio::test]
async fn a_worktree_state_of_a_newer_version_is_never_cleaned_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    let run = new_run(
        runs.create(&request_with_worktree(NewRun::new("builder")))
            .await,
    );
    let lease = runs.claim(&claim(ClaimOf::Run(run.id))).await.unwrap()[0].lease;
    assert!(matches!(
        runs.end(lease, &Outcome::Completed { result: None })
            .await
            .unwrap(),
        Write::Applied(_)
    ));
    let wish = CleanupClaim {
        owner: owner(),
        lease_time: LeaseTime::default(),
        limit: Limit::MAX,
        host: site().host,
        git_repository: site().git_repository,
        run: None,
    };
    let task = runs.claim_cleanups(&wish).await.unwrap().remove(0);
    execute(
        &path,
        "UPDATE runtree_run_worktrees SET state = 'archived'; UPDATE runtree_run_cleanup SET expires_at = 0",
    );
    assert!(runs.claim_cleanups(&wish).await.unwrap().is_empty());
    let removed = CleanupOutcome::Removed { salvage: None };
    assert!(matches!(
        runs.finish_cleanup(task.cleanup, &removed).await.unwrap(),
        Write::Stale { .. }
    ));
    let left = runs.worktrees(&WorktreeQuery::Run(run.id)).await.unwrap();
    assert_eq!(left[0].state.as_str(), "archived");
}

#[derive(QueryableByName)]
struct Readable {
    #[diesel(sql_type = Text)]
    created_at: String,
    #[diesel(sql_type = Nullable<Text>)]
    ended_at: Option<String>,
}

#[tokio::test]
async fn the_view_shows_instants_as_the_library_writes_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let runs = SqliteRepository::builder(&path)
        .clock(Arc::new(clock.clone()))
        .open()
        .await
        .unwrap();
    let instants = [
        Timestamp::MIN,
        "1969-12-31T23:59:59.999999Z".parse().unwrap(),
        Timestamp::UNIX_EPOCH,
        "2025-06-22T10:00:00.000001Z".parse().unwrap(),
        Timestamp::MAX,
    ];
    for instant in instants {
        clock.set(instant);
        create(&runs, NewRun::new("builder")).await;
    }
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let rows: Vec<Readable> =
        sql_query("SELECT created_at, ended_at FROM runtree_runs_readable ORDER BY created_at")
            .load(&mut connection)
            .unwrap();
    let shown: Vec<_> = rows.iter().map(|row| row.created_at.as_str()).collect();
    assert_eq!(shown, instants.map(|instant| instant.to_string()));
    assert!(rows.iter().all(|row| row.ended_at.is_none()));
}

#[tokio::test]
async fn the_tables_refuse_what_would_break_comparisons() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    create(&runs, NewRun::new("builder")).await;
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    for change in [
        "created_at = '2025-06-22T10:00:00Z'",
        "available_at = 253402300800000000",
        "id = x'00'",
        "id = 'run_1'",
        "token = -1",
    ] {
        assert!(
            sql_query(format!("UPDATE runtree_runs SET {change}"))
                .execute(&mut connection)
                .is_err(),
            "{change}"
        );
    }
}

#[tokio::test]
async fn a_filter_with_as_many_values_as_are_allowed_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let runs = SqliteRepository::open(directory.path().join("runs.db"))
        .await
        .unwrap();
    let mut run = NewRun::new("builder");
    let mut filter = RunFilter::new()
        .workflows((0..99).map(|number| format!("w{number}").parse().unwrap()))
        .created(TimeRange::all());
    filter
        .workflows
        .as_mut()
        .unwrap()
        .insert("builder".parse().unwrap());
    for number in 0..MAX_FILTER_VALUES {
        run = run.metadata(format!("m{number}"), number);
        filter = filter.metadata(format!("m{number}"), number);
        if number < MAX_TAGS {
            run = run.tag(format!("t{number}"));
            filter = filter.tag(Tag::new(format!("t{number}")).unwrap());
        }
    }
    let id = create(&runs, run).await.id;
    for by in [SortKey::Created, SortKey::Cost] {
        let page = PageRequest {
            order: RunOrder::descending(by),
            ..PageRequest::default()
        };
        let page = runs.list(&filter, &page).await.unwrap();
        assert_eq!(page.runs.iter().map(|run| run.id).collect::<Vec<_>>(), [id]);
    }
    assert_eq!(runs.count(&filter).await.unwrap(), 1);
    assert_eq!(runs.statistics(&filter).await.unwrap().runs, 1);
    for number in MAX_TAGS..MAX_FILTER_VALUES {
        filter = filter.tag(Tag::new(format!("t{number}")).unwrap());
    }
    assert_eq!(runs.count(&filter).await.unwrap(), 0);
    let page = runs.list(&filter, &PageRequest::default()).await.unwrap();
    assert!(page.runs.is_empty());
}

#[tokio::test]
async fn measures_of_the_longest_times_do_not_overflow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let clock = ManualClock::new(Timestamp::MIN);
    let builder = SqliteRepository::builder(&path).clock(Arc::new(clock.clone()));
    let runs = builder.open().await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..100 {
        let run = create(&runs, NewRun::new("builder")).await;
        let claimed = runs.claim(&claim(ClaimOf::Run(run.id))).await.unwrap();
        leases.push(claimed[0].lease);
    }
    clock.set(Timestamp::MAX);
    for lease in leases {
        let ended = runs.end(lease, &Outcome::Killed).await.unwrap();
        assert!(matches!(ended, Write::Applied(_)));
    }
    let most = "UPDATE runtree_runs SET cost = 9007199254740991, input_tokens = 9007199254740990";
    execute(&path, most);
    let statistics = runs.statistics(&RunFilter::new()).await.unwrap();
    let whole = Timestamp::MAX.saturating_duration_since(Timestamp::MIN);
    let measure = statistics.duration;
    assert_eq!(measure.count, 100);
    for value in [measure.mean, measure.median, measure.p99, measure.max] {
        assert_eq!(value, whole);
    }
    let usage = statistics.usage();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Usage::MAX, 0));
    assert_eq!(usage.cost.micros(), Usage::MAX);
}
