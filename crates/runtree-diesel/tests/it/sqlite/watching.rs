//! Who waits for a change is told, whoever made it, and leaves nothing behind.

use std::time::Duration;

use runtree_diesel::SqliteRepository;
use runtree_repository::{
    ChangeMark, ClaimOf, LeaseTime, NewRun, OwnRuns as _, ReadRuns as _, WatchRuns as _,
};

use super::{claim, create};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_write_of_the_same_handle_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let runs = SqliteRepository::open(directory.path().join("runs.db"))
        .await
        .unwrap();
    let start = runs.changed(ChangeMark::START, LONG).await.unwrap();
    assert_ne!(start, ChangeMark::START);
    create(&runs, NewRun::new("builder")).await;
    let one = runs.changed(start, Duration::ZERO).await.unwrap();
    assert!(one.get() > start.get());
    // One that waits already.
    let other = runs.clone();
    let waiting = tokio::spawn(async move { other.changed(one, LONG).await });
    create(&runs, NewRun::new("builder")).await;
    assert!(waiting.await.unwrap().unwrap().get() > one.get());
}

#[tokio::test]
async fn reads_refusals_and_heartbeats_are_not_told_by_who_made_them() {
    let directory = tempfile::tempdir().unwrap();
    let runs = SqliteRepository::open(directory.path().join("runs.db"))
        .await
        .unwrap();
    let run = create(&runs, NewRun::new("builder")).await;
    let lease = runs.claim(&claim(ClaimOf::Run(run.id))).await.unwrap()[0].lease;
    let seen = runs.changed(ChangeMark::START, LONG).await.unwrap();
    runs.get(run.id).await.unwrap();
    runs.renew(&[lease], LeaseTime::default()).await.unwrap();
    assert!(runs.claim(&claim(ClaimOf::ANY)).await.unwrap().is_empty());
    assert_eq!(runs.changed(seen, Duration::ZERO).await.unwrap(), seen);
}

#[tokio::test]
async fn a_write_of_another_connection_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    let elsewhere = SqliteRepository::open(&path).await.unwrap();
    let mut seen = runs.changed(ChangeMark::START, LONG).await.unwrap();
    // Also one that came between two waits.
    for _ in 0..3 {
        create(&elsewhere, NewRun::new("builder")).await;
        let told = runs.changed(seen, LONG).await.unwrap();
        assert!(told.get() > seen.get());
        seen = told;
    }
    let many = (0..8).map(|_| {
        let runs = runs.clone();
        tokio::spawn(async move { runs.changed(seen, LONG).await })
    });
    let many: Vec<_> = many.collect();
    create(&elsewhere, NewRun::new("builder")).await;
    for one in many {
        assert!(one.await.unwrap().unwrap().get() > seen.get());
    }
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    let seen = runs.changed(ChangeMark::START, LONG).await.unwrap();
    let told = runs.changed(seen, Duration::from_millis(20)).await.unwrap();
    assert_eq!(told, seen);
    for _ in 0..20 {
        let one = runs.clone();
        let waiting = tokio::spawn(async move { one.changed(seen, LONG).await });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    // A thread that went on would keep its connection, and the log beside the file with it.
    tokio::time::timeout(LONG, runs.close()).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["runs.db"]);
}
