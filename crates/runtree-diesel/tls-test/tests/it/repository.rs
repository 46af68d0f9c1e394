//! A repository works over TLS, and every connection of it is as the URL says.

use std::time::Instant;

use runtree_diesel::Notifications;
use runtree_repository::id::IdGenerator;
use runtree_repository::status::RunStatus;
use runtree_repository::{
    ChangeMark, Claim, ClaimOf, CreateRun, CreateRuns as _, HostName, LeaseTime, Limit, NewRun,
    Outcome, OwnRuns as _, Owner, ProcessMark, ReadRuns as _, WatchRuns as _, Write,
};

use super::*;

/// The connection that hears notifications, and whether it is over TLS.
const LISTENING: &str = "select pid, ssl from pg_stat_ssl join pg_stat_activity using (pid) \
                         where datname = current_database() and query like 'LISTEN%'";

fn request() -> CreateRun {
    CreateRun {
        id: IdGenerator::system().run_id().unwrap(),
        run: NewRun::new("builder").input("over TLS"),
        worktree: None,
    }
}

/// Creates a run, claims it and ends it.
async fn drives_a_run(runs: &PostgresRepository) {
    let request = request();
    let run = runs.create(&request).await.unwrap().into_run().unwrap();
    let claim = Claim {
        owner: Owner {
            id: IdGenerator::system().owner_id().unwrap(),
            host: HostName::new("alpha.example").unwrap(),
            process: ProcessMark::new("boot-1/17/100").unwrap(),
        },
        lease_time: LeaseTime::new(Duration::from_secs(3_600)).unwrap(),
        limit: Limit::new(1).unwrap(),
        of: ClaimOf::Run(run.id),
        site: None,
    };
    let claimed = runs.claim(&claim).await.unwrap().pop().unwrap();
    let outcome = Outcome::Completed { result: None };
    let ended = runs.end(claimed.lease, &outcome).await.unwrap();
    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
    let run = runs.get(run.id).await.unwrap().unwrap();
    assert_eq!(run.status, RunStatus::Completed);
}

/// Waits until notifications are heard, on a connection other than `before`; answers it.
async fn listening(database: &Database, runs: &PostgresRepository, before: &str) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        runs.changed(ChangeMark::START, LONG).await.unwrap();
        let found = database.execute(LISTENING);
        if runs.notifications() == Notifications::Heard && !found.is_empty() && found != before {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{:?} {found}",
            runs.notifications()
        );
        tokio::task::yield_now().await;
    }
}

/// A change that another repository makes is told.
async fn hears(runs: &PostgresRepository, other: &PostgresRepository) {
    let mut seen = ChangeMark::START;
    loop {
        // What was on the way before must not be taken for it.
        let next = runs
            .changed(seen, Duration::from_millis(300))
            .await
            .unwrap();
        if next == seen {
            break;
        }
        seen = next;
    }
    let request = request();
    let (told, made) = tokio::join!(runs.changed(seen, LONG), other.create(&request));
    made.unwrap().into_run().unwrap();
    assert!(told.unwrap().get() > seen.get());
}

/// Uses several connections of the pool at once, and the one that hears.
async fn works(database: &Database, runs: &PostgresRepository, other: &PostgresRepository) {
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let runs = runs.clone();
            tokio::spawn(async move { drives_a_run(&runs).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    listening(database, runs, "").await;
    hears(runs, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_over_tls_where_the_url_requires_it() {
    let database = Server::with_tls().database();
    let runs = database.open("sslmode=require").await.unwrap();
    let other = database.open("sslmode=require").await.unwrap();
    works(&database, &runs, &other).await;
    assert!(database.execute(LISTENING).ends_with("|t"));
    let (all, over_tls) = database.connections();
    assert!(all >= 3, "two pools and one that listens: {all}");
    assert_eq!(over_tls, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_anew_over_tls() {
    let database = Server::with_tls().database();
    let runs = database.open("sslmode=require").await.unwrap();
    let other = database.open("sslmode=require").await.unwrap();
    let before = listening(&database, &runs, "").await;
    drives_a_run(&runs).await;
    database.execute(
        "select pg_terminate_backend(pid, 30000) from pg_stat_activity \
         where datname = current_database() and application_name = 'runtree'",
    );
    let after = listening(&database, &runs, &before).await;
    assert!(after.ends_with("|t"), "{after}");
    hears(&runs, &other).await;
    let (all, over_tls) = database.connections();
    assert!(all >= 2, "one that writes and one that listens: {all}");
    assert_eq!(over_tls, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_preferred_where_the_server_has_it() {
    for query in ["", "sslmode=prefer"] {
        let database = Server::with_tls().database();
        let runs = database.open(query).await.unwrap();
        works(&database, &runs, &runs.clone()).await;
        let (all, over_tls) = database.connections();
        assert!(all >= 2, "one that writes and one that listens: {all}");
        assert_eq!(over_tls, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_reached_in_plain_text_where_tls_is_only_preferred() {
    let database = Server::without_tls().database();
    let runs = database.open("sslmode=prefer").await.unwrap();
    works(&database, &runs, &runs.clone()).await;
    let (all, over_tls) = database.connections();
    assert!(all >= 2, "one that writes and one that listens: {all}");
    assert_eq!(over_tls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_not_used_where_the_url_disables_it() {
    let database = Server::with_tls().database();
    let runs = database.open("sslmode=disable").await.unwrap();
    works(&database, &runs, &runs.clone()).await;
    let (all, over_tls) = database.connections();
    assert!(all >= 2, "one that writes and one that listens: {all}");
    assert_eq!(over_tls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connector_a_preference_means_plain_text() {
    let database = Server::with_tls().database();
    let url = database.url("sslmode=prefer");
    let runs = PostgresRepository::connect(&url).await.unwrap();
    drives_a_run(&runs).await;
    let (all, over_tls) = database.connections();
    assert!(all >= 1);
    assert_eq!(over_tls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_has_no_tls_and_a_preference_does_without() {
    let database = Server::with_tls().database();
    let tls = || database.server.authority.tls();
    let runs = open(&database.on_socket, tls()).await.unwrap();
    works(&database, &runs, &runs.clone()).await;
    let (all, over_tls) = database.connections();
    assert!(all >= 2, "one that writes and one that listens: {all}");
    assert_eq!(over_tls, 0);
    let demanding = format!("{}?sslmode=require", database.on_socket);
    let error = open(&demanding, tls()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let text = error.to_string();
    assert!(text.contains("does not support TLS"), "{text}");
}
