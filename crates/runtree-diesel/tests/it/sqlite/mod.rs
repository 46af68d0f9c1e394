//! The promises on a SQLite file: the public suite, and what only a file has.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

pub(crate) mod conformance;
mod damaged;
mod opening;
mod processes;
mod sharing;
mod stored;
mod twin;
mod upgrade;
mod watching;

use std::num::NonZeroU32;
use std::path::Path;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use runtree_diesel::SqliteRepository;
use runtree_repository::id::{BranchName, CommitId, DirectoryName, IdGenerator, RunId, Slug};
use runtree_repository::{
    Claim, ClaimOf, CreateRun, CreateRuns as _, Created, HostName, HostPath, LeaseTime, Limit,
    NewRun, Owner, Persistence, ProcessMark, RepositoryError, Run, WantedWorktree, WorktreeSite,
};

/// A request with an id of its own.
fn request(run: NewRun) -> CreateRun {
    CreateRun {
        id: IdGenerator::system().run_id().unwrap(),
        run,
        worktree: None,
    }
}

/// A request for a run that needs a worktree.
fn request_with_worktree(run: NewRun) -> CreateRun {
    let mut request = request(run);
    let slug: Slug = "fix".parse().unwrap();
    request.worktree = Some(WantedWorktree {
        name: DirectoryName::for_run(&slug, request.id),
        branch: BranchName::for_run(&slug, request.id),
        base: "0123456789012345678901234567890123456789"
            .parse::<CommitId>()
            .unwrap(),
        persistence: Persistence::Temporary,
    });
    request
}

async fn create(runs: &SqliteRepository, run: NewRun) -> Run {
    new_run(runs.create(&request(run)).await)
}

fn new_run(created: Result<Created, RepositoryError>) -> Run {
    match created.unwrap() {
        Created::New(run) => run,
        other @ (Created::Existing(_) | Created::Conflict { .. }) => {
            panic!("the run should be new: {other:?}")
        }
    }
}

fn owner() -> Owner {
    Owner {
        id: IdGenerator::system().owner_id().unwrap(),
        host: HostName::new("here").unwrap(),
        process: ProcessMark::new("1").unwrap(),
    }
}

fn claim(of: ClaimOf) -> Claim {
    Claim {
        owner: owner(),
        lease_time: LeaseTime::default(),
        limit: Limit::MAX,
        of,
        site: Some(site()),
    }
}

fn site() -> WorktreeSite {
    WorktreeSite {
        host: HostName::new("here").unwrap(),
        git_repository: HostPath::new("/srv/checkout/.git").unwrap(),
        root: HostPath::new("/srv/worktrees").unwrap(),
    }
}

fn attempts(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// Changes the file past the repository, as another program would.
fn execute(path: &Path, sql: &str) {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute(sql).unwrap();
}

/// Writes an id as a literal of SQL.
fn literal(id: RunId) -> String {
    format!("x'{}'", id.as_uuid().simple())
}
