//! Waiting for a run, following its history and watching the runs of a filter, over the backend in memory.

use std::sync::Arc;
use std::time::Duration;

use runtree_repository::id::{IdGenerator, RunId};
use runtree_repository::status::RunStatus;
use runtree_repository::time::{ManualClock, SystemClock};
use runtree_repository::{
    AnnotateRuns as _, Annotation, CancelMode, CancelRequest, CreateRun, CreateRuns as _,
    EventKind, EventNumber, MemoryRepository, NewRun, RunFilter, RunNews, RunRepositoryExt as _,
    StopRuns as _, Watcher, Write,
};

/// Longer than any test takes: a wait that is not told of the change would show.
const LONG: Duration = Duration::MAX;

fn store() -> MemoryRepository {
    MemoryRepository::new(Arc::new(SystemClock))
}

fn new_id() -> RunId {
    let made = IdGenerator::system().run_id();
    made.expect("the system has entropy")
}

async fn create(runs: &MemoryRepository) -> RunId {
    let request = CreateRun {
        id: new_id(),
        run: NewRun::new("builder"),
        worktree: None,
    };
    let created = runs.create(&request).await.expect("the request is valid");
    created.into_run().expect("the id is new").id
}

async fn end(runs: &MemoryRepository, id: RunId) {
    let request = CancelRequest::new(CancelMode::Graceful);
    let ended = runs.cancel(id, &request).await.expect("memory answers");
    assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
}

#[tokio::test]
async fn whoever_waits_for_an_end_is_told_of_it() {
    let runs = store();
    let id = create(&runs).await;
    let waiting = tokio::spawn({
        let runs = runs.clone();
        async move { runs.wait_for_end(id, LONG).await }
    });
    tokio::task::yield_now().await;
    end(&runs, id).await;
    let run = waiting
        .await
        .expect("it does not panic")
        .expect("memory answers");
    assert!(run.expect("the run exists").has_ended());
}

#[tokio::test]
async fn a_wait_ends_with_its_patience_and_at_once_where_there_is_nothing_to_wait_for() {
    let runs = store();
    let id = create(&runs).await;
    let run = runs.wait_for_end(id, Duration::from_millis(1)).await;
    assert!(!run.unwrap().expect("the run exists").has_ended());
    assert_eq!(runs.wait_for_end(new_id(), LONG).await.unwrap(), None);
    end(&runs, id).await;
    let run = runs.wait_for_end(id, LONG).await.unwrap();
    assert!(run.expect("the run exists").has_ended());
}

#[tokio::test]
async fn a_follower_hands_out_each_event_once_and_waits_for_those_to_come() {
    let runs = store();
    let id = create(&runs).await;
    let mut follower = runs.follow(id, EventNumber::START);
    let created = follower.next().await.unwrap().expect("it was created");
    assert_eq!(created.kind, EventKind::Created);

    // A call that is dropped while it waits loses nothing.
    let dropped = tokio::time::timeout(Duration::from_millis(1), follower.next()).await;
    assert!(dropped.is_err(), "{dropped:?}");
    let following = async {
        let mut kinds = Vec::new();
        while let Some(event) = follower.next().await.unwrap() {
            kinds.push(event.kind);
        }
        kinds
    };
    let ((), kinds) = tokio::join!(end(&runs, id), following);
    assert_eq!(kinds, [EventKind::Killed]);
    assert_eq!(follower.position(), EventNumber::new(2));

    // From a place on, and of a run that is not there.
    let mut again = runs.follow(id, EventNumber::new(1));
    assert_eq!(
        again.next().await.unwrap().map(|event| event.kind),
        Some(EventKind::Killed)
    );
    assert_eq!(again.next().await.unwrap(), None);
    assert_eq!(
        runs.follow(new_id(), EventNumber::START)
            .next()
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn all_runs_of_a_filter_are_read_across_pages() {
    let runs = store();
    let mut made = Vec::new();
    for _ in 0..1_001 {
        made.push(create(&runs).await);
    }
    made.reverse();
    let read = runs.list_all(&RunFilter::new()).await.unwrap();
    let ids: Vec<RunId> = read.iter().map(|run| run.id).collect();
    assert_eq!(ids.len(), made.len());
    assert!(made.iter().all(|id| ids.contains(id)));
}

#[tokio::test]
async fn a_watcher_tells_which_runs_come_change_and_go() {
    let runs = store();
    let first = create(&runs).await;
    let second = create(&runs).await;
    let waiting = RunFilter::new().statuses([RunStatus::Pending]);
    let mut watcher = runs.watch(waiting);
    for expected in [first, second] {
        let news = watcher.next().await.unwrap();
        assert!(
            matches!(&news, RunNews::Entered(run) if run.id == expected),
            "{news:?}"
        );
    }
    // A call that is dropped while it waits loses nothing.
    let dropped = tokio::time::timeout(Duration::from_millis(1), watcher.next()).await;
    assert!(dropped.is_err(), "{dropped:?}");

    let tag = Annotation::new().add_tag("urgent".parse().expect("it is a tag"));
    let (tagged, news) = tokio::join!(runs.annotate(second, &tag), watcher.next());
    assert!(matches!(tagged, Ok(Write::Applied(_))), "{tagged:?}");
    let news = news.unwrap();
    assert!(
        matches!(&news, RunNews::Changed(run) if run.id == second && run.tags.len() == 1),
        "{news:?}"
    );
    end(&runs, first).await;
    assert_eq!(watcher.next().await.unwrap(), RunNews::Left(first));
}

#[tokio::test]
async fn what_lists_do_not_show_is_told_while_the_clock_stands_behind_the_last_change() {
    let clock = ManualClock::new("2026-05-04T03:02:01Z".parse().expect("it is an instant"));
    let runs = MemoryRepository::new(Arc::new(clock.clone()));
    let (noted, other) = (create(&runs).await, create(&runs).await);
    clock.advance(Duration::from_secs(1));
    let waiting = RunFilter::new().statuses([RunStatus::Pending]);
    let mut watcher = runs.watch(waiting);
    for expected in [noted, other] {
        let news = told(&mut watcher).await;
        assert!(
            matches!(&news, RunNews::Entered(run) if run.id == expected),
            "{news:?}"
        );
    }
    clock.step_back(Duration::from_secs(3_600));
    for round in 0..3 {
        let note = Annotation::new().metadata("round", round);
        let (_, mut news) = tokio::join!(runs.annotate(noted, &note), told(&mut watcher));
        // Of this one it is not known, once.
        if round == 0 && matches!(&news, RunNews::Changed(run) if run.id == other) {
            news = told(&mut watcher).await;
        }
        assert!(
            matches!(&news, RunNews::Changed(run) if run.id == noted),
            "round {round}: {news:?}"
        );
        if round == 0 {
            let once = tokio::time::timeout(Duration::from_millis(200), watcher.next()).await;
            assert!(
                !matches!(&once, Ok(Ok(RunNews::Changed(run))) if run.id == noted),
                "it was told twice: {once:?}"
            );
        }
    }
    // And the last one that the clock stood behind, after the clock has caught up.
    let last = Annotation::new().metadata("round", "last");
    let written = runs.annotate(noted, &last).await;
    assert!(matches!(written, Ok(Write::Applied(_))), "{written:?}");
    clock.advance(Duration::from_secs(7_200));
    let news = told(&mut watcher).await;
    assert!(
        matches!(&news, RunNews::Changed(run) if run.id == noted),
        "{news:?}"
    );
    end(&runs, other).await;
    assert_eq!(told(&mut watcher).await, RunNews::Left(other));
}

/// The next news, within a time that a miss would not be noticed in.
async fn told(watcher: &mut Watcher<'_, MemoryRepository>) -> RunNews {
    let news = tokio::time::timeout(Duration::from_secs(20), watcher.next()).await;
    news.expect("what happened is told")
        .expect("memory answers")
}
