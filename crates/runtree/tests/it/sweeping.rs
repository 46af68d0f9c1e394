//! What a sweep removes, and everything that it leaves alone.

use std::fs;
use std::time::Duration;

use runtree::{Keep, NewRun, Sweep, SweepReport, Verdict};
use runtree_testkit::git::git;
use serde_json::json;

use crate::world::World;

/// Where each worktree is, and what was decided, in short.
fn decisions(report: &SweepReport) -> Vec<(String, String)> {
    let decided = report.entries.iter().map(|entry| {
        let name = entry.path.file_name().unwrap().to_string_lossy();
        // The run id is random.
        let name = name.split("-run_").next().unwrap_or_default().to_owned();
        let verdict = match &entry.verdict {
            Verdict::Remove(_) => "remove".to_owned(),
            Verdict::Keep(Keep::Young { .. }) => "young".to_owned(),
            Verdict::Keep(keep) => format!("{keep:?}"),
            other => format!("{other:?}"),
        };
        (name, verdict)
    });
    let mut decided: Vec<_> = decided.skip(1).collect();
    decided.sort();
    decided
}

#[tokio::test]
async fn only_what_no_run_needs_goes_and_the_dry_run_says_the_same() {
    let world = World::new();
    let coordinator = world.coordinator().await;
    let foreign = world.git.place().join("foreign");
    git(
        world.git.path(),
        ["worktree", "add", "--quiet", foreign.to_str().unwrap()],
    );
    fs::write(foreign.join("theirs.txt"), "theirs").unwrap();
    let active = coordinator.start(NewRun::new("active")).await.unwrap();
    let persistent = coordinator
        .start(NewRun::new("persistent").persistent())
        .await
        .unwrap();
    persistent.complete(json!(null)).await.unwrap();
    let failed = coordinator.start(NewRun::new("failed")).await.unwrap();
    fs::write(failed.worktree().path().join("left.txt"), "left").unwrap();
    let failed = failed.fail("no").await.unwrap().run;
    let restored = coordinator.restore(failed.id).await.unwrap();
    fs::write(restored.path().join("more.txt"), "more").unwrap();

    let old = coordinator
        .sweep(Sweep::older_than(Duration::from_hours(48)))
        .await
        .unwrap();
    let expected = |failed: &str| {
        [
            ("active", "Active"),
            ("failed", failed),
            ("foreign", "Foreign"),
            ("persistent", "Persistent"),
        ]
        .map(|(name, verdict)| (name.to_owned(), verdict.to_owned()))
    };
    assert_eq!(decisions(&old), expected("young"));
    let planned = coordinator
        .sweep(Sweep::of_any_age().dry_run())
        .await
        .unwrap();
    assert!(restored.path().exists());
    let done = coordinator.sweep(Sweep::of_any_age()).await.unwrap();
    assert_eq!(decisions(&planned), expected("remove"));
    assert_eq!(decisions(&done), expected("remove"));
    assert!(!restored.path().exists());
    assert!(active.worktree().path().exists());
    assert_eq!(
        fs::read_to_string(foreign.join("theirs.txt")).unwrap(),
        "theirs"
    );

    // What was new in the restored worktree was saved again.
    let again = coordinator.restore(failed.id).await.unwrap();
    assert_eq!(
        fs::read_to_string(again.path().join("more.txt")).unwrap(),
        "more"
    );
    assert_eq!(
        fs::read_to_string(again.path().join("left.txt")).unwrap(),
        "left"
    );
}

#[tokio::test]
async fn a_worktree_without_a_record_is_kept() {
    let world = World::new();
    let first = world.coordinator().await;
    let run = first.start(NewRun::new("builder")).await.unwrap();
    // Another run repository over the same git repository: the records are lost.
    let amnesiac = World {
        git: world.git,
        runs: World::new().runs,
    };
    let second = amnesiac.coordinator().await;
    let report = second.sweep(Sweep::of_any_age()).await.unwrap();
    assert_eq!(
        decisions(&report),
        [("builder".to_owned(), "NoRecord".to_owned())]
    );
    assert!(run.worktree().path().exists());
}
