//! A full disk: writes say so, reads go on, nothing that was acknowledged is lost, and when there is space again the same handle writes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use runtree_diesel::SqliteRepository;
use runtree_repository::id::{IdGenerator, RunId};
use runtree_repository::{
    ClaimOf, CreateRun, Created, DynRunRepository, ErrorKind, NewRun, PageRequest, RunFilter,
};
use runtree_testkit::full_disk::{limit_files, on_a_small_file_system, that_survives_full_disks};
use runtree_testkit::history::{Failure, monotonic_nanos};

use super::Workers;
use crate::histories::{JOB, Scene, runtime, variable, wait_for, working_time};

/// Starts this binary again as the body of a test here, and waits for its end.
fn run_child(mut command: Command, body: &str, directory: &Path) {
    let output = command
        .args(["--exact", body, "--ignored", "--nocapture"])
        .env(JOB, directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let is_done = output.status.success() && said.contains(DONE);
    assert!(is_done, "{}: {said}\n{complained}", output.status);
}

/// What a child says when it came to its end, to be told from one that did nothing.
const DONE: &str = "the disk was full";

fn this_binary() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A run with an input that needs a page or two.
fn request() -> CreateRun {
    CreateRun {
        id: IdGenerator::system().run_id().unwrap(),
        run: NewRun::new("builder").input("x".repeat(6_000)),
        worktree: None,
    }
}

async fn create(runs: &SqliteRepository) -> RunId {
    let runs: &dyn runtree_repository::RunRepository = runs;
    match runs.create(&request()).await.unwrap() {
        Created::New(run) => run.id,
        other @ (Created::Existing(_) | Created::Conflict { .. }) => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "the body of a child process; does nothing when it is run by itself"]
fn file_that_may_not_grow() {
    if let Some(directory) = variable(JOB) {
        runtime().block_on(write_until_full(Path::new(&directory)));
        println!("{DONE}");
    }
}

async fn write_until_full(directory: &Path) {
    let path = directory.join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    let everything: DynRunRepository = Arc::new(runs.clone());
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        acknowledged.push(create(&runs).await);
        let log = fs::metadata(directory.join("runs.db-wal")).unwrap().len();
        let file = fs::metadata(&path).unwrap().len();
        limit_files(Some(log.max(file) + 30_000));
        // Others may still be written into space that is there already, so it takes a few.
        let (refused, error) = loop {
            let request = request();
            match everything.create(&request).await {
                Ok(created) => acknowledged.push(created.into_run().unwrap().id),
                Err(error) => break (request, error),
            }
            assert!(acknowledged.len() < 10_000, "the disk is never full");
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let text = error.to_string();
        let is_clear = text.contains("disk I/O error") || text.contains("disk is full");
        assert!(is_clear, "{text}");

        // It can be read while it is full, and says the same again and again.
        for id in &acknowledged {
            assert!(everything.get(*id).await.unwrap().is_some(), "{id} is lost");
        }
        let count = everything.count(&RunFilter::new()).await.unwrap();
        assert_eq!(count, u64::try_from(acknowledged.len()).unwrap());
        let page = PageRequest::default();
        assert!(
            !everything
                .list(&RunFilter::new(), &page)
                .await
                .unwrap()
                .runs
                .is_empty()
        );
        let again = everything.create(&refused).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Unavailable, "{again:?}");

        // There is space again: the refused call is repeated as it was, on the same handle.
        limit_files(None);
        let made = everything.create(&refused).await.unwrap();
        assert!(matches!(made, Created::New(_)), "round {round}: {made:?}");
        acknowledged.push(refused.id);
        let claim = crate::histories::claim(ClaimOf::Run(refused.id));
        assert_eq!(everything.claim(&claim).await.unwrap().len(), 1);
    }
    drop(everything);
    runs.close().await;
    let runs = SqliteRepository::open(&path).await.unwrap();
    let runs: DynRunRepository = Arc::new(runs);
    let count = runs.count(&RunFilter::new()).await.unwrap();
    assert_eq!(count, u64::try_from(acknowledged.len()).unwrap());
    for id in acknowledged {
        assert!(runs.get(id).await.unwrap().is_some(), "{id} is lost");
    }
}

#[test]
fn a_file_that_may_not_grow_loses_nothing_and_is_written_again_later() {
    let directory = tempfile::tempdir().unwrap();
    let command = that_survives_full_disks(this_binary());
    let body = "attack::disks::file_that_may_not_grow";
    run_child(command, body, directory.path());
}

#[test]
#[ignore = "the body of a child process; does nothing when it is run by itself"]
fn small_disk() {
    if let Some(directory) = variable(JOB) {
        work_on_a_small_disk(Path::new(&directory));
        println!("{DONE}");
    }
}

/// Fills a disk and frees it again while processes work on it.
fn work_on_a_small_disk(directory: &Path) {
    let mut scene = Scene::on_sqlite_in(directory);
    let mut workers = Workers::start(&mut scene, 3);
    let until = monotonic_nanos() + u64::try_from(working_time().as_nanos()).unwrap();
    let filler = directory.join("filler");
    let mut times = 0;
    while monotonic_nanos() < until || times < 3 {
        workers.wait_for_more(2_000);
        let mut file = File::create(&filler).unwrap();
        // The last bytes too: a page of the store must not fit any more.
        while file.write_all(&[7; 4_096]).is_ok() {}
        workers.wait_for_more(2_000);
        drop(file);
        fs::remove_file(&filler).unwrap();
        times += 1;
    }
    // With space again, everybody works without having been started again.
    let freed_at = monotonic_nanos();
    super::wait_until("everybody writes again", || {
        super::servers::answered_after(&scene.operations(), freed_at).len() == 3
    });
    scene.stop();
    wait_for(workers.all);
    let figures = runtime().block_on(scene.conclude(&[Failure::Unavailable]));
    figures.show(&format!("full {times} times"));
    assert!(figures.failed > 0, "the disk was never full: {figures:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn processes_on_a_disk_that_is_full_now_and_then_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let command = on_a_small_file_system(directory.path(), 12_288, this_binary());
    run_child(command, "attack::disks::small_disk", directory.path());
}
