//! What many callers do at once: no run is owned twice, no event is lost, no worktree is overlooked.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn eight_claimers_never_get_the_same_run_whatever_the_database_has_as_defaults() {
    let database = Database::fresh();
    let name = database.name().to_owned();
    database.execute(&format!(
        "alter database {name} set default_transaction_isolation = 'serializable'"
    ));
    database.execute(&format!(
        "alter database {name} set synchronous_commit = 'off'"
    ));
    let runs = database.open().await;
    let mut wanted = BTreeSet::new();
    for _ in 0..200 {
        wanted.insert(created(&runs, &worktree_request()).await);
    }
    let claimers = (0..8).map(|_| {
        let url = database.url.clone();
        tokio::spawn(async move {
            let runs = PostgresRepository::connect(&url).await.unwrap();
            let mut mine = Vec::new();
            loop {
                let got = runs.claim(&claim_of(ClaimOf::ANY, 7)).await.unwrap();
                if got.is_empty() {
                    return mine;
                }
                for claimed in got {
                    assert_eq!(claimed.run.attempts, 1);
                    assert_eq!(
                        claimed.worktree.as_ref().unwrap().held_by,
                        claimed.lease.token
                    );
                    let ended = runs.end(claimed.lease, &completed()).await.unwrap();
                    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
                    mine.push(claimed.run.id);
                }
            }
        })
    });
    let mut got = Vec::new();
    for claimer in claimers.collect::<Vec<_>>() {
        got.extend(claimer.await.unwrap());
    }
    // A claimer skips what another has locked, so some may be left when all others have gone.
    got.extend(
        runs.claim(&claim_of(ClaimOf::ANY, 1_000))
            .await
            .unwrap()
            .into_iter()
            .map(|claimed| claimed.run.id),
    );
    assert_eq!(got.len(), wanted.len());
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), wanted);
    for id in wanted {
        assert_events_have_no_gap(&runs, id).await;
    }
}

/// The snapshot of a claim is older than an attempt that began and failed meanwhile; without the token in its guard it would not see
/// the worktree of that attempt and plan a second one at the same path.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_an_attempt_overtook_plans_no_second_worktree() {
    let database = Database::fresh();
    let runs = database.open().await;
    let mut request = worktree_request();
    request.run = NewRun::new("builder").max_attempts(NonZeroU32::new(9).unwrap());
    let id = created(&runs, &request).await;
    // A role that looks at runs only once the lock 42 is free: between the snapshot of a statement and its first row.
    let role = format!("slow_{}", database.name());
    database.execute(&format!(
        "create role {role} login;
        grant all on all tables in schema public to {role};
        create function hold() returns boolean language plpgsql as
            'begin perform pg_advisory_xact_lock_shared(42); return true; end';
        alter table runtree_runs enable row level security;
        create policy slow on runtree_runs to {role} using (hold()) with check (true)"
    ));
    let mut gate = database.session().await;
    gate.batch_execute("select pg_advisory_lock(42)")
        .await
        .unwrap();
    let slow = PostgresRepository::connect(&database.url_of(&role))
        .await
        .unwrap();
    let overtaken = tokio::spawn(async move { slow.claim(&claim_of(ClaimOf::Run(id), 1)).await });
    database.wait_for_a_waiter().await;
    let lease = claimed(&runs, id).await.lease;
    let again = Outcome::Failed {
        error: ErrorText::lossy("again"),
        retry_after: Some(Duration::ZERO),
    };
    assert_eq!(
        runs.end(lease, &again)
            .await
            .unwrap()
            .accepted()
            .unwrap()
            .status,
        RunStatus::Pending
    );
    // As after a step of the server's clock: else the run is not due at the instant that the claim asks about.
    database.execute("update runtree_runs set available_at = created_at");
    gate.batch_execute("select pg_advisory_unlock(42)")
        .await
        .unwrap();
    assert!(overtaken.await.unwrap().unwrap().is_empty());
    let second = claimed(&runs, id).await;
    assert_eq!((second.lease.token.get(), second.run.attempts), (2, 2));
    assert_eq!(second.worktree.unwrap().key.planned_by, lease.token);
    assert_eq!(
        runs.worktrees(&WorktreeQuery::Run(id)).await.unwrap().len(),
        1
    );
    database.execute(&format!("drop owned by {role}; drop role {role}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_run_at_once_leave_a_history_without_gaps() {
    let database = Database::fresh();
    let runs = database.open().await;
    let claimed = running(&runs).await;
    let (lease, id) = (claimed.lease, claimed.run.id);
    let stale = runtree_repository::LeaseRef {
        token: runtree_repository::Token::new(77),
        ..lease
    };
    let tasks: Vec<_> = (0..24)
        .map(|at| {
            let runs = runs.clone();
            tokio::spawn(async move {
                match at % 6 {
                    0 => drop(
                        runs.cancel(id, &CancelRequest::new(CancelMode::Graceful))
                            .await
                            .unwrap(),
                    ),
                    1 => drop(
                        runs.cancel(id, &CancelRequest::new(CancelMode::Forced))
                            .await
                            .unwrap(),
                    ),
                    2 => drop(
                        runs.renew(&[stale, lease], LeaseTime::default())
                            .await
                            .unwrap(),
                    ),
                    3 => drop(runs.release(stale).await.unwrap()),
                    4 => drop(runs.worktree_ready(lease).await.unwrap()),
                    _ => drop(runs.end(stale, &Outcome::Killed).await.unwrap()),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(matches!(
        runs.end(lease, &Outcome::Killed).await.unwrap(),
        Write::Applied(_)
    ));
    let kinds = assert_events_have_no_gap(&runs, id).await;
    let cancels = kinds
        .iter()
        .filter(|kind| **kind == EventKind::CancelRequested)
        .count();
    assert!((1..=2).contains(&cancels), "{kinds:?}");
    assert!(kinds.contains(&EventKind::Rejected));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_reports_of_a_ready_worktree_at_once_make_one_event() {
    let database = Database::fresh();
    let runs = database.open().await;
    for _ in 0..10 {
        let id = created(&runs, &worktree_request()).await;
        let claimed = claimed(&runs, id).await;
        let lease = claimed.lease;
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let runs = runs.clone();
                tokio::spawn(async move { runs.worktree_ready(lease).await.unwrap() })
            })
            .collect();
        let mut applied = 0;
        for task in tasks {
            match task.await.unwrap() {
                Write::Applied(_) => applied += 1,
                Write::Already(_) => {}
                lost @ (Write::Stale { .. } | Write::NotFound) => panic!("{lost:?}"),
            }
        }
        assert_eq!(applied, 1);
        let kinds = assert_events_have_no_gap(&runs, claimed.run.id).await;
        assert_eq!(
            kinds,
            [
                EventKind::Created,
                EventKind::Claimed,
                EventKind::WorktreeReady
            ]
        );
    }
}

/// The snapshot of the kill is older than the claim; without the token in its guard it would end the run and overlook the worktree.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_waited_for_a_claim_cleans_up_the_worktree_that_the_claim_planned() {
    let database = Database::fresh();
    let runs = database.open().await;
    let id = created(&runs, &worktree_request()).await;
    let uuid = id.as_uuid();
    let mut other = database.session().await;
    // What a claim writes, in a transaction that stays open for a while.
    other
        .batch_execute(&format!(
            "begin;
            update runtree_runs set status = 'running', token = 1, attempts = 1, last_event = 2, started_at = clock_timestamp(),
                updated_at = clock_timestamp() where id = '{uuid}';
            insert into runtree_run_leases (namespace, run_id, token, owner_id, owner_host, owner_process, heartbeat_at, expires_at)
                values ('default', '{uuid}', 1, '{uuid}', 'h', 'p', clock_timestamp(), clock_timestamp() + interval '1 hour');
            insert into runtree_run_events (namespace, run_id, number, at, kind, token)
                values ('default', '{uuid}', 2, clock_timestamp(), 'claimed', 1);
            insert into runtree_run_worktrees (namespace, run_id, planned_by, host, git_repository, root, path, name, branch, base,
                    persistence, state, held_by, created_at, updated_at)
                select namespace, id, 1, 'alpha.example', '/srv/checkout/.git', '/srv/worktrees', '/srv/worktrees/x', worktree_name,
                    worktree_branch, worktree_base, worktree_persistence, 'adding', 1, clock_timestamp(), clock_timestamp()
                from runtree_runs where id = '{uuid}'"
        ))
        .await
        .unwrap();
    let kill = tokio::spawn({
        let runs = runs.clone();
        async move {
            runs.force_kill(id, &CancelRequest::new(CancelMode::Forced))
                .await
        }
    });
    database.wait_for_a_waiter().await;
    other.batch_execute("commit").await.unwrap();
    let killed = kill.await.unwrap().unwrap().accepted().unwrap();
    assert_eq!((killed.status, killed.token.get()), (RunStatus::Killed, 2));
    let cleanups = runs.claim_cleanups(&cleanup_claim()).await.unwrap();
    assert_eq!(cleanups.len(), 1);
    let kinds = assert_events_have_no_gap(&runs, id).await;
    assert_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Claimed,
            EventKind::Killed,
            EventKind::CleanupWanted
        ]
    );
}

/// A rescue that saw an expired lease must not take the run once the lease is alive again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_and_a_renewal_never_both_win() {
    let database = Database::fresh();
    let runs = database.open().await;
    let lease = running(&runs).await.lease;
    let uuid = lease.run.as_uuid();
    database.execute(&format!(
        "update runtree_run_leases set expires_at = clock_timestamp() where run_id = '{uuid}'"
    ));
    let mut renewal = database.session().await;
    renewal
        .batch_execute(&format!(
            "begin; update runtree_run_leases set expires_at = clock_timestamp() + interval '1 hour' where run_id = '{uuid}'"
        ))
        .await
        .unwrap();
    let rescue = Rescue {
        proven_dead: vec![],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    assert!(
        runs.rescue(&rescue).await.unwrap().is_empty(),
        "what is locked is passed over"
    );
    renewal.batch_execute("commit").await.unwrap();
    assert!(
        runs.rescue(&rescue).await.unwrap().is_empty(),
        "the lease is alive"
    );
    assert!(matches!(
        runs.end(lease, &completed()).await.unwrap(),
        Write::Applied(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_run_without_a_lease_is_rescued() {
    let database = Database::fresh();
    let runs = database.open().await;
    let lease = running(&runs).await.lease;
    database.execute("delete from runtree_run_leases");
    let rescued = runs
        .rescue(&Rescue {
            proven_dead: vec![],
            limit: Limit::ONE,
            spare: Vec::new(),
        })
        .await
        .unwrap();
    assert_eq!(rescued.len(), 1);
    assert_eq!(rescued[0].lease, lease);
    assert_eq!(rescued[0].run.status, RunStatus::Failed);
}

/// How many runs of each key are at work, as their owners see it: from the answer of the claim to the question that ends them.
#[derive(Default)]
struct AtWork {
    now: [std::sync::atomic::AtomicUsize; 3],
    most: [std::sync::atomic::AtomicUsize; 3],
}

const LIMITS: [usize; 3] = [1, 2, 3];

impl AtWork {
    fn key(claimed: &Claimed) -> Option<usize> {
        let used = claimed.run.concurrency.as_ref()?;
        used.key.as_str().strip_prefix("key-")?.parse().ok()
    }

    fn begin(&self, key: usize) {
        let order = std::sync::atomic::Ordering::SeqCst;
        let now = self.now[key].fetch_add(1, order) + 1;
        self.most[key].fetch_max(now, order);
        assert!(now <= LIMITS[key], "{now} runs of key {key} at once");
    }

    fn end(&self, key: usize) {
        let before = self.now[key].fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        assert!(before > 0);
    }
}

/// Claims and ends the runs of one queue until all is done: claimers of several queues never choose the same run, so that nothing but
/// their turns keeps two of them from taking the last place of a key. What was claimed is at work until the next claim has been answered; a batch is ended at once.
async fn claim_within_limits(
    url: String,
    at_work: Arc<AtWork>,
    left: Arc<std::sync::atomic::AtomicUsize>,
    queue: u64,
) {
    let waiting = runtree_repository::WaitingRuns::ANY.queues([queue_name(queue)]);
    let claim = claim_of(ClaimOf::Waiting(waiting), 1 + queue % 4);
    let order = std::sync::atomic::Ordering::SeqCst;
    let runs = PostgresRepository::connect(&url).await.unwrap();
    let mut held: Vec<Claimed> = Vec::new();
    while left.load(order) > 0 {
        let got = runs.claim(&claim).await.unwrap();
        let keys = |claimed: &[Claimed]| claimed.iter().filter_map(AtWork::key).collect::<Vec<_>>();
        keys(&got).into_iter().for_each(|key| at_work.begin(key));
        keys(&held).into_iter().for_each(|key| at_work.end(key));
        let endings: Vec<_> = held
            .iter()
            .map(|claimed| runtree_repository::Ending {
                lease: claimed.lease,
                outcome: completed(),
            })
            .collect();
        for answer in runs.end_many(&endings).await.unwrap() {
            assert!(matches!(answer, Write::Applied(_)), "{answer:?}");
        }
        left.fetch_sub(endings.len(), order);
        held = got;
    }
    assert!(held.is_empty(), "what is held is left");
}

fn queue_name(queue: u64) -> runtree_repository::QueueName {
    format!("queue-{queue}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_claimers_never_pass_the_limit_of_a_key_and_leave_nobody_behind() {
    let database = Database::fresh();
    let runs = database.open().await;
    let mut requests = Vec::new();
    for at in 0..240_usize {
        let queue = u64::try_from(at / 4 % 8).unwrap();
        let run = NewRun::new("builder").queue(queue_name(queue).as_str());
        requests.push(request(match LIMITS.get(at % 4) {
            Some(limit) => {
                let limit = NonZeroU32::new(u32::try_from(*limit).unwrap()).unwrap();
                run.concurrency(format!("key-{}", at % 4), limit)
            }
            None => run,
        }));
    }
    let made = runs.create_many(&requests).await.unwrap();
    assert!(made.iter().all(|made| matches!(made, Created::New(_))));
    let at_work = Arc::new(AtWork::default());
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(requests.len()));
    let claimers: Vec<_> = (0..8)
        .map(|at| {
            let (at_work, left) = (Arc::clone(&at_work), Arc::clone(&left));
            tokio::spawn(claim_within_limits(database.url.clone(), at_work, left, at))
        })
        .collect();
    for claimer in claimers {
        claimer.await.unwrap();
    }
    for request in &requests {
        let run = runs.get(request.id).await.unwrap().unwrap();
        assert_eq!((run.status, run.attempts), (RunStatus::Completed, 1));
        assert_events_have_no_gap(&runs, request.id).await;
    }
}

/// The snapshot of who uses a key is taken after the turn: a claimer that waited for its turn sees what the one before it took.
#[tokio::test(flavor = "multi_thread")]
async fn a_claimer_that_waits_for_its_turn_sees_what_was_taken_meanwhile() {
    let database = Database::fresh();
    let runs = database.open().await;
    let one =
        |at: usize| request(NewRun::new(format!("w{at}")).concurrency("key", NonZeroU32::MIN));
    let ids = [created(&runs, &one(0)).await, created(&runs, &one(1)).await];
    let mut turn = database.session().await;
    turn.batch_execute(
        "begin; select pg_advisory_xact_lock(1920230251, hashtext('runtree_runs'::regclass::oid::text || '/default'))",
    )
    .await
    .unwrap();
    let claims = ids.map(|id| {
        let runs = runs.clone();
        tokio::spawn(async move { runs.claim(&claim_of(ClaimOf::Run(id), 1)).await })
    });
    // Both have seen room for their run, and wait.
    database
        .wait_until("select count(*) = 2 from pg_locks where locktype = 'advisory' and not granted and classid = 1920230251")
        .await;
    turn.batch_execute("commit").await.unwrap();
    let mut got = 0;
    for claim in claims {
        got += claim.await.unwrap().unwrap().len();
    }
    assert_eq!(got, 1);
}

/// The leases of what is claimed run while a claim waits, and nobody owns it when the call is dropped then.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_has_something_waits_for_no_turn() {
    let database = Database::fresh();
    let builder = PostgresRepository::builder(&database.url);
    // Longer than this test may last, so that a claim that waits does not give the turn up.
    let builder = builder.busy_timeout(Duration::from_secs(3_600));
    let runs = builder.connect().await.unwrap();
    let plain = created(&runs, &request(NewRun::new("plain"))).await;
    let keyed = NewRun::new("keyed").concurrency("key", NonZeroU32::MIN);
    let keyed = created(&runs, &request(keyed)).await;
    let mut turn = database.session().await;
    turn.batch_execute(
        "begin; select pg_advisory_xact_lock(1920230251, hashtext('runtree_runs'::regclass::oid::text || '/default'))",
    )
    .await
    .unwrap();
    let ids = |got: Vec<Claimed>| got.iter().map(|one| one.run.id).collect::<Vec<_>>();
    let claim = claim_of(ClaimOf::ANY, 2);
    let got = tokio::time::timeout(Duration::from_secs(30), runs.claim(&claim)).await;
    let got = got.expect("the claim waits for the turn of somebody else");
    assert_eq!(ids(got.unwrap()), [plain]);
    turn.batch_execute("commit").await.unwrap();
    assert_eq!(ids(runs.claim(&claim).await.unwrap()), [keyed]);
    // Where the turn is free, one claim takes both, in their order.
    let free = [
        request(NewRun::new("plain")),
        request(NewRun::new("keyed").concurrency("other", NonZeroU32::MIN)),
    ];
    let free = [
        created(&runs, &free[0]).await,
        created(&runs, &free[1]).await,
    ];
    assert_eq!(ids(runs.claim(&claim).await.unwrap()), free);
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_at_once_all_count() {
    let database = Database::fresh();
    let runs = database.open().await;
    let id = created(&runs, &request(NewRun::new("builder"))).await;
    let tasks: Vec<_> = (0..24_u64)
        .map(|at| {
            let runs = runs.clone();
            tokio::spawn(async move {
                let usage = runtree_repository::Usage {
                    input_tokens: 1 << at,
                    ..runtree_repository::Usage::default()
                };
                let annotation = runtree_repository::Annotation::new()
                    .add_usage(usage)
                    .add_tag(format!("tag-{at}").parse().unwrap())
                    .metadata(format!("m{at}"), at);
                runtree_repository::AnnotateRuns::annotate(&runs, id, &annotation)
                    .await
                    .unwrap()
            })
        })
        .collect();
    for task in tasks {
        assert!(matches!(task.await.unwrap(), Write::Applied(_)));
    }
    let run = runs.get(id).await.unwrap().unwrap();
    assert_eq!(run.usage.input_tokens, (1 << 24) - 1);
    assert_eq!((run.tags.len(), run.metadata.len()), (24, 24));
    let kinds = assert_events_have_no_gap(&runs, id).await;
    assert_eq!(kinds.len(), 25);
}
