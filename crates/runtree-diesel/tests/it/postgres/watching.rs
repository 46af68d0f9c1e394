//! Who waits for a change is told of it: at once in this process, soon by others, and not at all where notifications are lost.

use std::sync::atomic::{AtomicBool, Ordering};

use runtree_diesel::Notifications;
use runtree_repository::{ChangeMark, WatchRuns};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// Listens until it is known whether anything is heard.
async fn settled(runs: &PostgresRepository) -> Notifications {
    let deadline = Instant::now() + LONG;
    loop {
        mark(runs).await;
        let state = runs.notifications();
        if [Notifications::Heard, Notifications::Unheard].contains(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "{state:?}");
        tokio::task::yield_now().await;
    }
}

async fn mark(runs: &PostgresRepository) -> ChangeMark {
    runs.changed(ChangeMark::START, LONG).await.unwrap()
}

/// A change of another process is told; what was on the way before must not be taken for it.
async fn assert_hears(runs: &PostgresRepository, other: &PostgresRepository) {
    let mut seen = mark(runs).await;
    loop {
        let next = runs
            .changed(seen, Duration::from_millis(300))
            .await
            .unwrap();
        if next == seen {
            break;
        }
        seen = next;
    }
    let began = Instant::now();
    let request = request(NewRun::new("builder"));
    let (told, id) = tokio::join!(runs.changed(seen, LONG), created(other, &request));
    assert!(told.unwrap().get() > seen.get());
    assert!(began.elapsed() < LONG, "told, not waited for");
    assert!(runs.get(id).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_the_same_process_is_told_at_once_and_an_empty_claim_is_no_news() {
    let database = Database::fresh();
    let runs = database.open().await;
    assert_eq!(runs.notifications(), Notifications::NotAsked);
    settled(&runs).await;
    let seen = mark(&runs).await;
    assert!(
        runs.claim(&claim_of(ClaimOf::ANY, 1))
            .await
            .unwrap()
            .is_empty()
    );
    let still = runs
        .changed(seen, Duration::from_millis(100))
        .await
        .unwrap();
    assert_eq!(still, seen);
    let writer = runs.with_namespace(Namespace::new("other").unwrap());
    let request = request(NewRun::new("builder"));
    let (told, _) = tokio::join!(runs.changed(seen, LONG), created(&writer, &request));
    assert!(told.unwrap().get() > seen.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_another_process_is_told_also_after_the_connection_was_lost() {
    let database = Database::fresh();
    let (runs, other) = (database.open().await, database.open().await);
    assert_eq!(settled(&runs).await, Notifications::Heard);
    assert_hears(&runs, &other).await;
    let listener =
        "from pg_stat_activity where query like 'LISTEN%' and datname = current_database()";
    let lost = database.execute(&format!("select pid {listener}"));
    database.execute(&format!("select pg_terminate_backend({lost})"));
    database
        .wait_until(&format!("select count(*) = 1 {listener} and pid <> {lost}"))
        .await;
    assert_eq!(settled(&runs).await, Notifications::Heard);
    assert_hears(&runs, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_takes_every_task_and_connection_with_it() {
    let database = Database::fresh();
    let runs = database.open().await;
    created(&runs, &request(NewRun::new("builder"))).await;
    assert_eq!(settled(&runs).await, Notifications::Heard);
    let clone = runs.clone();
    drop(runs);
    created(&clone, &request(NewRun::new("builder"))).await;
    drop(clone);
    database
        .wait_until(
            "select count(*) = 0 from pg_stat_activity where application_name = 'runtree' and datname = current_database()",
        )
        .await;
}

/// Stands between a repository and the server and swallows notifications, as a pooler in transaction mode does.
async fn deaf_server(database: &Database, is_deaf: &Arc<AtomicBool>) -> String {
    let (_, rest) = database.url.split_once('@').unwrap();
    let (directory, name) = rest.split_once('/').unwrap();
    let socket = format!("{}/.s.PGSQL.5432", directory.replace("%2F", "/"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (user, _) = database.url.split_once('@').unwrap();
    let url = format!("{user}@127.0.0.1:{port}/{name}");
    let is_deaf = Arc::clone(is_deaf);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_deaf = Arc::clone(&is_deaf);
            let server = UnixStream::connect(&socket).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move {
                tokio::io::copy(&mut from_client, &mut to_server).await.ok();
            });
            tokio::spawn(async move {
                let mut head = [0; 5];
                while from_server.read_exact(&mut head).await.is_ok() {
                    let [kind, length @ ..] = head;
                    let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
                    let mut body = vec![0; length - 4];
                    from_server.read_exact(&mut body).await.unwrap();
                    if !(kind == b'A' && is_deaf.load(Ordering::Relaxed))
                        && (to_client.write_all(&head).await.is_err()
                            || to_client.write_all(&body).await.is_err())
                    {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn where_notifications_are_lost_it_says_so_and_waits_its_time() {
    let database = Database::fresh();
    let is_deaf = Arc::new(AtomicBool::new(true));
    let runs = PostgresRepository::connect(&deaf_server(&database, &is_deaf).await)
        .await
        .unwrap();
    assert_eq!(settled(&runs).await, Notifications::Unheard);
    let other = database.open().await;
    let seen = mark(&runs).await;
    let id = created(&other, &request(NewRun::new("builder"))).await;
    let still = runs
        .changed(seen, Duration::from_millis(200))
        .await
        .unwrap();
    assert_eq!(still, seen);
    assert!(runs.get(id).await.unwrap().is_some(), "found by looking");
    // Once something comes through, it is heard again.
    is_deaf.store(false, Ordering::Relaxed);
    assert_hears(&runs, &other).await;
    assert_eq!(runs.notifications(), Notifications::Heard);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_acknowledged_also_where_nobody_may_be_told() {
    let database = Database::fresh();
    database.open().await;
    let role = format!("mute_{}", database.name());
    database.execute(&format!(
        "create role {role} login; grant all on all tables in schema public to {role};
        revoke execute on function pg_notify(text, text) from public"
    ));
    let runs = PostgresRepository::builder(database.url_of(&role))
        .max_connections(NonZeroU32::MIN)
        .connect()
        .await
        .unwrap();
    let seen = runs
        .changed(ChangeMark::START, Duration::ZERO)
        .await
        .unwrap();
    for _ in 0..3 {
        let id = created(&runs, &request(NewRun::new("builder"))).await;
        let ended = runs.end(claimed(&runs, id).await.lease, &completed()).await;
        assert!(matches!(ended.unwrap(), Write::Applied(_)));
    }
    let told = runs.changed(seen, LONG).await.unwrap();
    assert!(told.get() > seen.get(), "this process is told");
    drop(runs);
    database.execute(&format!(
        "grant execute on function pg_notify(text, text) to public; drop owned by {role}; drop role {role}"
    ));
}

/// Nobody knows whether it was written, so whoever waits for changes looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_told_as_if_it_had_happened() {
    let database = Database::fresh();
    let runs = database.open().await;
    let lease = running(&runs).await.lease;
    let seen = runs
        .changed(ChangeMark::START, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(settled(&runs).await, Notifications::Heard);
    let mut other = database.session().await;
    other
        .batch_execute("begin; select * from runtree_runs for update")
        .await
        .unwrap();
    let mut end = tokio::spawn({
        let runs = runs.clone();
        async move { runs.end(lease, &completed()).await }
    });
    database.wait_for_a_waiter().await;
    let mut seen = seen;
    while let next = runs
        .changed(seen, Duration::from_millis(200))
        .await
        .unwrap()
        && next != seen
    {
        seen = next;
    }
    database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
    );
    let error = (&mut end).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let told = runs.changed(seen, Duration::ZERO).await.unwrap();
    assert!(told.get() > seen.get());
}
