//! What holds over every kind of connection; each case becomes a test of each kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use runtree_repository::{
    CancelMode, ChangeMark, ConflictOver, ErrorKind, Renewal, RunFilter, Token,
};

use super::*;

/// Makes tests of the cases, for one kind of connection.
macro_rules! tests {
    ($host:ty: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                crate::host::cases::$case::<$host>().await;
            }
        )*
    };
    ($host:ty) => {
        crate::host::cases::tests! { $host:
            acceptance_commits_and_rolls_back_with_the_callers_transaction
            a_transaction_that_panics_takes_the_run_with_it
            what_is_made_is_what_the_repository_would_have_made
            hosts_with_one_key_at_once_make_one_run
            a_key_is_free_again_when_the_host_that_took_it_rolls_back
            a_unique_key_is_held_by_one_run_at_a_time
            a_cancel_is_there_exactly_if_the_host_commits
            a_run_that_waits_is_cancelled_with_the_callers_transaction
            an_ending_is_one_with_the_hosts_own_rows
            a_stale_completion_is_rejected_and_recorded_if_the_host_commits
            a_failure_plans_a_retry_with_the_callers_transaction
            outside_of_a_transaction_nothing_is_done
            a_database_without_our_tables_is_refused_and_left_usable
            a_schema_that_does_not_fit_is_refused_by_name
            after_an_error_the_hosts_transaction_goes_on
            whoever_waits_hears_of_the_commit_and_of_nothing_before
            several_calls_and_nested_transactions_are_one
            namespaces_do_not_see_each_other
        }
    };
}
pub(super) use tests;

/// A database whose schema is there, a repository on it, and an application's connection to it.
struct Place<H: Host> {
    database: H::Database,
    runs: DynRunRepository,
    host: H,
}

impl<H: Host> Place<H> {
    async fn new() -> Self {
        let database = H::database();
        let runs = H::repository(&database, &namespace()).await;
        let host = H::connect(&database).await;
        Self {
            database,
            runs,
            host,
        }
    }

    /// Asserts that the order and the run are both there, or neither, with all that belongs to a run.
    async fn assert_accepted(&self, request: &CreateRun, is_accepted: bool) {
        let id = request.id;
        let run = self.runs.get(id).await.unwrap();
        assert_eq!(run.is_some(), is_accepted);
        let is_ordered = H::orders(&self.database).await.contains(&id);
        assert_eq!(is_ordered, is_accepted);
        assert_eq!(!kinds(&self.runs, id).await.is_empty(), is_accepted);
        if let Some(key) = &request.run.check().unwrap().idempotency_key {
            let held = self.runs.get_by_key(key).await.unwrap();
            assert_eq!(held.map(|run| run.id), is_accepted.then_some(id));
        }
    }
}

pub(super) async fn acceptance_commits_and_rolls_back_with_the_callers_transaction<H: Host>() {
    let mut place = Place::<H>::new().await;
    let request = full_request();
    place.host.accept(&request, Then::Fails).await.unwrap_err();
    place.assert_accepted(&request, false).await;
    assert_eq!(place.runs.count(&RunFilter::new()).await.unwrap(), 0);

    place.host.accept(&request, Then::Commits).await.unwrap();
    place.assert_accepted(&request, true).await;
    let claimed = claimed(&place.runs, request.id).await.unwrap();
    let ended = place.runs.end(claimed.lease, &completed()).await;
    applied(ended);

    // The keys of the run that was taken back are free, for the same content and for another.
    let again = full_request();
    assert!(matches!(
        place.runs.create(&again).await.unwrap(),
        Created::Existing(run) if run.id == request.id
    ));
}

pub(super) async fn a_transaction_that_panics_takes_the_run_with_it<H: Host>() {
    let Place {
        database,
        runs,
        mut host,
    } = Place::<H>::new().await;
    let request = full_request();
    let host = tokio::spawn({
        let request = request.clone();
        async move { host.accept(&request, Then::Panics).await }
    });
    assert!(host.await.unwrap_err().is_panic());
    let host = H::connect(&database).await;
    let place = Place {
        database,
        runs,
        host,
    };
    // The other connection may end a little later than the panic; until then its key is not free, and a create waits.
    let run = new(place.runs.create(&request).await);
    assert_eq!(run.id, request.id);
    assert!(H::orders(&place.database).await.is_empty());
}

pub(super) async fn what_is_made_is_what_the_repository_would_have_made<H: Host>() {
    let mut place = Place::<H>::new().await;
    let elsewhere = Namespace::new("elsewhere").unwrap();
    let twin = H::repository(&place.database, &elsewhere).await;
    let request = full_request();
    place.host.begin().await;
    let made = new(place.host.create(&request).await);
    place.host.commit().await.unwrap();
    let read = place.runs.get(request.id).await.unwrap().unwrap();
    assert_eq!(made, read);
    let mut other = new(twin.create(&request).await);
    for (ours, theirs) in [
        (made.created_at, &mut other.summary.created_at),
        (made.updated_at, &mut other.summary.updated_at),
        (made.available_at, &mut other.summary.available_at),
    ] {
        assert!(ours <= *theirs);
        *theirs = ours;
    }
    assert_eq!(made, other);
    assert_eq!(
        kinds(&place.runs, request.id).await,
        kinds(&twin, request.id).await
    );

    place.host.begin().await;
    assert!(
        matches!(place.host.create(&request).await.unwrap(), Created::Existing(run) if run == made)
    );
    let mut changed = full_request();
    changed.run = changed.run.input("something else");
    assert!(matches!(
        place.host.create(&changed).await.unwrap(),
        Created::Conflict { over: ConflictOver::IdempotencyKey, existing } if existing == made
    ));
    place.host.commit().await.unwrap();
}

pub(super) async fn hosts_with_one_key_at_once_make_one_run<H: Host>() {
    const HOSTS: usize = 6;
    let place = Place::<H>::new().await;
    let mut hosts = Vec::new();
    for _ in 0..HOSTS {
        let mut host = H::connect(&place.database).await;
        hosts.push(tokio::spawn(async move {
            let request = request(NewRun::new("builder").idempotency_key("order-17"));
            host.begin().await;
            let created = host.create(&request).await.unwrap();
            let run = match &created {
                Created::New(run) | Created::Existing(run) => run.id,
                Created::Conflict { .. } => panic!("{created:?}"),
            };
            host.commit().await.unwrap();
            (matches!(created, Created::New(_)), run)
        }));
    }
    let mut new = 0;
    let mut runs = BTreeSet::new();
    for host in hosts {
        let (is_new, run) = host.await.unwrap();
        new += usize::from(is_new);
        runs.insert(run);
    }
    assert_eq!((new, runs.len()), (1, 1));
    assert_eq!(place.runs.count(&RunFilter::new()).await.unwrap(), 1);
}

pub(super) async fn a_key_is_free_again_when_the_host_that_took_it_rolls_back<H: Host>() {
    let mut place = Place::<H>::new().await;
    let keyed = || request(NewRun::new("builder").idempotency_key("order-17"));
    place.host.begin().await;
    new(place.host.create(&keyed()).await);
    let is_answered = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let mut other = H::connect(&place.database).await;
        let (request, is_answered) = (keyed(), Arc::clone(&is_answered));
        async move {
            other.begin().await;
            let created = other.create(&request).await;
            is_answered.store(true, Ordering::SeqCst);
            other.commit().await.unwrap();
            created
        }
    });
    // Whether it waits yet or not, it has no answer while the key may still be taken back.
    tokio::task::yield_now().await;
    assert!(!is_answered.load(Ordering::SeqCst));
    place.host.roll_back().await.unwrap();
    let run = new(other.await.unwrap());
    let runs = place
        .runs
        .get_by_key(run.idempotency_key.as_ref().unwrap())
        .await;
    assert_eq!(runs.unwrap().map(|run| run.id), Some(run.id));
}

pub(super) async fn a_unique_key_is_held_by_one_run_at_a_time<H: Host>() {
    let mut place = Place::<H>::new().await;
    let unique = || request(NewRun::new("builder").unique_key("invoice"));
    let (one, two) = (unique(), unique());
    place.host.begin().await;
    new(place.host.create(&one).await);
    place.host.commit().await.unwrap();
    place.host.begin().await;
    assert!(matches!(
        place.host.create(&two).await.unwrap(),
        Created::Conflict { over: ConflictOver::UniqueKey, existing } if existing.id == one.id
    ));
    // What ends in this transaction gives its key back in this transaction.
    let cancel = CancelRequest::new(CancelMode::Graceful);
    assert!(applied(place.host.cancel(one.id, &cancel).await).has_ended());
    new(place.host.create(&two).await);
    place.host.roll_back().await.unwrap();
    let held = place.runs.create(&unique()).await.unwrap();
    assert!(matches!(held, Created::Conflict { existing, .. } if existing.id == one.id));
}

pub(super) async fn a_cancel_is_there_exactly_if_the_host_commits<H: Host>() {
    let mut place = Place::<H>::new().await;
    let lease = running(&place.runs, NewRun::new("builder")).await.lease;
    let before = kinds(&place.runs, lease.run).await;
    let cancel = CancelRequest::new(CancelMode::Forced);
    for commits in [false, true] {
        place.host.begin().await;
        let run = applied(place.host.cancel(lease.run, &cancel).await);
        assert_eq!(run.cancel.as_ref().unwrap().mode, CancelMode::Forced);
        assert!(matches!(
            place.host.cancel(lease.run, &cancel).await.unwrap(),
            Write::Already(_)
        ));
        if commits {
            place.host.commit().await.unwrap();
        } else {
            place.host.roll_back().await.unwrap();
        }
        let run = place.runs.get(lease.run).await.unwrap().unwrap();
        assert_eq!(run.cancel.is_some(), commits);
        let renewed = place.runs.renew(&[lease], LeaseTime::default()).await;
        assert!(
            matches!(&*renewed.unwrap(), [Renewal::Renewed { cancel, .. }] if cancel.is_some() == commits)
        );
        let mut expected = before.clone();
        expected.extend(commits.then_some(EventKind::CancelRequested));
        assert_eq!(kinds(&place.runs, lease.run).await, expected);
    }
}

pub(super) async fn a_run_that_waits_is_cancelled_with_the_callers_transaction<H: Host>() {
    let mut place = Place::<H>::new().await;
    let request = request(NewRun::new("builder"));
    new(place.runs.create(&request).await);
    let cancel = CancelRequest::new(CancelMode::Graceful);
    place.host.begin().await;
    applied(place.host.cancel(request.id, &cancel).await);
    place.host.roll_back().await.unwrap();
    assert!(
        !place
            .runs
            .get(request.id)
            .await
            .unwrap()
            .unwrap()
            .has_ended()
    );
    place.host.begin().await;
    applied(place.host.cancel(request.id, &cancel).await);
    place.host.commit().await.unwrap();
    assert!(claimed(&place.runs, request.id).await.is_none());
    assert_eq!(
        kinds(&place.runs, request.id).await,
        [EventKind::Created, EventKind::Killed]
    );
    place.host.begin().await;
    assert!(matches!(
        place.host.cancel(request.id, &cancel).await.unwrap(),
        Write::Already(_)
    ));
    let unknown = IdGenerator::system().run_id().unwrap();
    assert!(matches!(
        place.host.cancel(unknown, &cancel).await.unwrap(),
        Write::NotFound
    ));
    place.host.commit().await.unwrap();
}

pub(super) async fn an_ending_is_one_with_the_hosts_own_rows<H: Host>() {
    let mut place = Place::<H>::new().await;
    let request = full_request();
    new(place.runs.create(&request).await);
    let lease = claimed(&place.runs, request.id).await.unwrap().lease;
    let before = kinds(&place.runs, request.id).await;
    for commits in [false, true] {
        place.host.begin().await;
        place.host.order(request.id).await.unwrap();
        let ended = applied(place.host.end(lease, &completed()).await);
        assert!(ended.has_ended());
        assert!(matches!(
            place.host.end(lease, &completed()).await.unwrap(),
            Write::Already(run) if run == ended
        ));
        if commits {
            place.host.commit().await.unwrap();
        } else {
            place.host.roll_back().await.unwrap();
        }
        let run = place.runs.get(request.id).await.unwrap().unwrap();
        assert_eq!(run.has_ended(), commits);
        assert_eq!(run.result.is_some(), commits);
        assert_eq!(
            H::orders(&place.database).await.contains(&request.id),
            commits
        );
        let mut expected = before.clone();
        if commits {
            assert_eq!(run, ended);
            expected.extend([EventKind::Completed, EventKind::CleanupWanted]);
        }
        assert_eq!(kinds(&place.runs, request.id).await, expected);
    }
}

pub(super) async fn a_stale_completion_is_rejected_and_recorded_if_the_host_commits<H: Host>() {
    let mut place = Place::<H>::new().await;
    let lease = running(&place.runs, NewRun::new("builder")).await.lease;
    let stale = LeaseRef {
        token: Token::new(lease.token.get() + 1),
        ..lease
    };
    let before = kinds(&place.runs, lease.run).await;
    for commits in [false, true] {
        place.host.begin().await;
        assert!(matches!(
            place.host.end(stale, &completed()).await.unwrap(),
            Write::Stale { current } if current.token == lease.token && !current.has_ended()
        ));
        if commits {
            place.host.commit().await.unwrap();
        } else {
            place.host.roll_back().await.unwrap();
        }
        let mut expected = before.clone();
        expected.extend(commits.then_some(EventKind::Rejected));
        assert_eq!(kinds(&place.runs, lease.run).await, expected);
    }
    let unknown = LeaseRef {
        run: IdGenerator::system().run_id().unwrap(),
        ..lease
    };
    place.host.begin().await;
    assert!(matches!(
        place.host.end(unknown, &completed()).await.unwrap(),
        Write::NotFound
    ));
    applied(place.host.end(lease, &completed()).await);
    place.host.commit().await.unwrap();
}

pub(super) async fn a_failure_plans_a_retry_with_the_callers_transaction<H: Host>() {
    let mut place = Place::<H>::new().await;
    let run = NewRun::new("builder").max_attempts(2.try_into().unwrap());
    let lease = running(&place.runs, run).await.lease;
    let failed = Outcome::Failed {
        error: runtree_repository::ErrorText::new("out of kettles").unwrap(),
        retry_after: Some(Duration::ZERO),
    };
    place.host.begin().await;
    let run = applied(place.host.end(lease, &failed).await);
    assert!(!run.has_ended());
    place.host.commit().await.unwrap();
    let again = claimed(&place.runs, lease.run).await.unwrap();
    assert_eq!(again.run.attempts, 2);
    place.host.begin().await;
    assert!(applied(place.host.end(again.lease, &failed).await).has_ended());
    place.host.commit().await.unwrap();
    assert_eq!(
        kinds(&place.runs, lease.run).await.last(),
        Some(&EventKind::Failed)
    );
}

pub(super) async fn outside_of_a_transaction_nothing_is_done<H: Host>() {
    let mut place = Place::<H>::new().await;
    let lease = running(&place.runs, NewRun::new("builder")).await.lease;
    let request = request(NewRun::new("builder"));
    let cancel = CancelRequest::new(CancelMode::Forced);
    let errors = [
        place.host.create(&request).await.map(|_| ()).unwrap_err(),
        place
            .host
            .cancel(lease.run, &cancel)
            .await
            .map(|_| ())
            .unwrap_err(),
        place
            .host
            .end(lease, &completed())
            .await
            .map(|_| ())
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(
            error.to_string().contains("is in no transaction"),
            "{error}"
        );
    }
    assert!(place.runs.get(request.id).await.unwrap().is_none());
    let run = place.runs.get(lease.run).await.unwrap().unwrap();
    assert!(run.cancel.is_none() && !run.has_ended());
    // One that Diesel takes for open although it is over.
    place.host.begin().await;
    place.host.execute("ROLLBACK").await.unwrap();
    let error = place.host.create(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(place.runs.get(request.id).await.unwrap().is_none());
}

pub(super) async fn a_database_without_our_tables_is_refused_and_left_usable<H: Host>() {
    let database = H::database();
    let mut host = H::connect(&database).await;
    let request = request(NewRun::new("builder"));
    host.begin().await;
    let error = host.create(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(
        error
            .to_string()
            .contains("lacks the schema steps 1 (runs), 2 (complete)"),
        "{error}"
    );
    host.order(request.id).await.unwrap();
    host.commit().await.unwrap();
    assert_eq!(H::orders(&database).await, BTreeSet::from([request.id]));
}

pub(super) async fn a_schema_that_does_not_fit_is_refused_by_name<H: Host>() {
    let mut place = Place::<H>::new().await;
    let newer = |min_reader: u32, min_writer: u32| {
        format!(
            "INSERT INTO runtree_schema_info (version, name, min_reader, min_writer, applied_at) \
             SELECT 1000, 'later', {min_reader}, {min_writer}, applied_at FROM runtree_schema_info WHERE version = 1"
        )
    };
    let request = request(NewRun::new("builder"));
    for (change, kind) in [
        (newer(1, 1_000), ErrorKind::ReadOnly),
        (newer(1_000, 1_000), ErrorKind::SchemaTooNew),
        (
            "DELETE FROM runtree_schema_info WHERE version > 1".to_owned(),
            ErrorKind::Configuration,
        ),
    ] {
        place.host.begin().await;
        place.host.execute(&change).await.unwrap();
        let error = place.host.create(&request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        place.host.order(request.id).await.unwrap();
        place.host.roll_back().await.unwrap();
    }
    // One that is newer and lets this version write.
    place.host.begin().await;
    place.host.execute(&newer(2, 2)).await.unwrap();
    new(place.host.create(&request).await);
    place.host.roll_back().await.unwrap();
    place.assert_accepted(&request, false).await;
}

pub(super) async fn after_an_error_the_hosts_transaction_goes_on<H: Host>() {
    let mut place = Place::<H>::new().await;
    let good = request(NewRun::new("builder"));
    let invalid = request(NewRun::new(""));
    let lease = running(&place.runs, NewRun::new("builder")).await.lease;
    place.host.begin().await;
    place.host.order(good.id).await.unwrap();
    let error = place.host.create(&invalid).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    new(place.host.create(&good).await);
    // A statement that the database refuses after a part of the work was done.
    place.host.execute(H::NO_EVENTS).await.unwrap();
    let refused = request(NewRun::new("builder").idempotency_key("refused"));
    let errors = [
        place.host.create(&refused).await.map(|_| ()).unwrap_err(),
        place
            .host
            .end(lease, &completed())
            .await
            .map(|_| ())
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.to_string().contains("no events today"), "{error}");
    }
    place.host.order(refused.id).await.unwrap();
    place.host.commit().await.unwrap();
    place.assert_accepted(&good, true).await;
    assert!(place.runs.get(refused.id).await.unwrap().is_none());
    assert!(
        !place
            .runs
            .get(lease.run)
            .await
            .unwrap()
            .unwrap()
            .has_ended()
    );
    assert_eq!(
        H::orders(&place.database).await,
        BTreeSet::from([good.id, refused.id])
    );
}

pub(super) async fn whoever_waits_hears_of_the_commit_and_of_nothing_before<H: Host>() {
    const LONG: Duration = Duration::from_secs(30);
    let mut place = Place::<H>::new().await;
    // Until the repository listens, and has heard of all that was written to make this place.
    let mut mark = place.runs.changed(ChangeMark::START, LONG).await.unwrap();
    loop {
        let next = place
            .runs
            .changed(mark, Duration::from_secs(1))
            .await
            .unwrap();
        if next == mark {
            break;
        }
        mark = next;
    }
    place.host.begin().await;
    new(place.host.create(&request(NewRun::new("builder"))).await);
    let before = place.runs.changed(mark, Duration::from_millis(300)).await;
    assert_eq!(before.unwrap(), mark);
    place.host.commit().await.unwrap();
    let after = place.runs.changed(mark, LONG).await.unwrap();
    assert!(after != mark, "{after:?}");
}

pub(super) async fn several_calls_and_nested_transactions_are_one<H: Host>() {
    let mut place = Place::<H>::new().await;
    let (kept, undone) = (full_request(), request(NewRun::new("builder")));
    place.host.begin().await;
    place.host.order(kept.id).await.unwrap();
    new(place.host.create(&kept).await);
    place.host.begin_nested().await;
    place.host.order(undone.id).await.unwrap();
    new(place.host.create(&undone).await);
    place.host.roll_back().await.unwrap();
    let cancel = CancelRequest::new(CancelMode::Graceful);
    assert!(matches!(
        place.host.cancel(undone.id, &cancel).await.unwrap(),
        Write::NotFound
    ));
    place.host.commit().await.unwrap();
    place.assert_accepted(&kept, true).await;
    place.assert_accepted(&undone, false).await;
}

pub(super) async fn namespaces_do_not_see_each_other<H: Host>() {
    let mut place = Place::<H>::new().await;
    let elsewhere = Namespace::new("elsewhere").unwrap();
    let there = H::repository(&place.database, &elsewhere).await;
    let request = full_request();
    place.host.begin().await;
    new(place.host.create_in(&elsewhere, &request).await);
    let cancel = CancelRequest::new(CancelMode::Graceful);
    assert!(matches!(
        place.host.cancel(request.id, &cancel).await.unwrap(),
        Write::NotFound
    ));
    place.host.commit().await.unwrap();
    assert!(there.get(request.id).await.unwrap().is_some());
    assert!(place.runs.get(request.id).await.unwrap().is_none());
}
