//! Creates a run in a file of its own, claims it and completes it.

use std::error::Error;
use std::sync::Arc;

use custom_repository::RedbRepository;
use runtree_repository::id::IdGenerator;
use runtree_repository::time::SystemClock;
use runtree_repository::{
    Claim, ClaimOf, CreateRun, CreateRuns, HostName, LeaseTime, Limit, NewRun, Outcome, OwnRuns,
    Owner, ProcessMark, Write,
};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "a demonstration shows what it did")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let runs = RedbRepository::open(&directory.path().join("runs.redb"), Arc::new(SystemClock))?;
    let ids = IdGenerator::system();
    let request = CreateRun {
        id: ids.run_id()?,
        run: NewRun::new("builder").input("fix the flaky test"),
        worktree: None,
    };
    let run = runs.create(&request).await?.into_run()?;
    println!("{} is {}", run.id, run.status);

    let claim = Claim {
        owner: Owner {
            id: ids.owner_id()?,
            host: HostName::new("localhost")?,
            process: ProcessMark::new(std::process::id().to_string())?,
        },
        lease_time: LeaseTime::default(),
        limit: Limit::ONE,
        of: ClaimOf::ANY,
        site: None,
    };
    for claimed in runs.claim(&claim).await? {
        println!("{} is {}", claimed.run.id, claimed.run.status);
        let outcome = Outcome::Completed { result: None };
        match runs.end(claimed.lease, &outcome).await? {
            Write::Applied(run) | Write::Already(run) => println!("{} is {}", run.id, run.status),
            lost @ (Write::Stale { .. } | Write::NotFound) => {
                return Err(format!("{lost:?}").into());
            }
        }
    }
    Ok(())
}
