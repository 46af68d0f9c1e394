//! Explanations that no call of the interface brings about: what a newer version or a person may have left.

use std::sync::Arc;

use runtree_repository::id::IdGenerator;
use runtree_repository::status::RunStatus;
use runtree_repository::time::{ManualClock, Timestamp};
use runtree_repository::{
    Because, CreateRun, CreateRuns, Explanation, MemoryRepository, NewRun, RunSummary, Surroundings,
};

async fn waiting() -> RunSummary {
    let runs = MemoryRepository::new(Arc::new(ManualClock::new(Timestamp::MIN)));
    let request = CreateRun {
        id: IdGenerator::system()
            .run_id()
            .expect("the system has entropy"),
        run: NewRun::new("builder"),
        worktree: None,
    };
    let created = runs.create(&request).await.expect("the request is valid");
    let run = created.into_run().expect("the store was empty");
    run.summary
}

#[tokio::test]
async fn a_run_that_runs_without_a_lease_says_so() {
    let mut run = waiting().await;
    run.status = RunStatus::Running;
    let why = Explanation::new(run, Timestamp::MIN, &Surroundings::default());
    assert_eq!(why.because, [Because::LeaseMissing]);
    let text = why.to_string();
    assert!(
        text.contains("no lease") && text.contains("rescue"),
        "{text}"
    );
}

#[tokio::test]
async fn a_run_that_stands_at_an_end_and_has_not_ended_is_left_alone() {
    let mut run = waiting().await;
    run.status = RunStatus::Completed;
    let why = Explanation::new(run, Timestamp::MIN, &Surroundings::default());
    let status = RunStatus::Completed;
    assert_eq!(why.because, [Because::UnknownStatus { status }]);
    assert!(why.to_string().contains("completed"), "{why}");
}
