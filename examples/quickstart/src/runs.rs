//! Five runs at once, each a child process in a worktree of its own.

use runtree::process::{Child, Output};
use runtree::{ActiveRun, Coordinator, Kill, NewRun, SessionId, Supervised};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::task::JoinSet;

use crate::Failure;
use crate::agent::{HANGING, Task};
use crate::show::{Line, Progress};

/// The workflow that fails and leaves uncommitted changes.
pub(crate) const FLAKY: &str = "fix-flaky-test";
/// The workflow whose worktree is kept.
pub(crate) const NOTES: &str = "notes";
/// The workflow that is killed while it runs.
pub(crate) const REFACTORING: &str = "refactoring";

const PLAN: [(&str, Task); 5] = [
    ("builder", Task::Build),
    ("review", Task::Review),
    (NOTES, Task::Document),
    (FLAKY, Task::Fail),
    (REFACTORING, Task::Hang),
];

/// Starts all five at once and waits for their ends.
pub(crate) async fn five_at_once(
    coordinator: &Coordinator,
    session: SessionId,
) -> Result<(), Failure> {
    crate::show::heading("Five runs at once");
    let progress = Progress::new();
    let mut running = JoinSet::new();
    for (workflow, task) in PLAN {
        let request = NewRun::new(workflow)
            .input(format!("{task:?}"))
            .session(session);
        running.spawn(one(
            coordinator.clone(),
            request,
            task,
            progress.line(workflow),
        ));
    }
    // What goes wrong in one does not keep the others from coming to their ends.
    let mut failed = Ok(());
    while let Some(done) = running.join_next().await {
        failed = failed.and(done.map_err(Failure::from).flatten());
    }
    failed
}

async fn one(
    coordinator: Coordinator,
    request: NewRun,
    task: Task,
    line: Line,
) -> Result<(), Failure> {
    line.show("starting");
    let request = match task {
        Task::Document => request.persistent(),
        Task::Build | Task::Review | Task::Fail | Task::Hang => request,
    };
    let run = coordinator.start(request).await?;
    line.show(&format!("in {}", run.worktree().name()));
    let mut child = run.spawn(command(&run, task)?).await?;
    let watching = tokio::spawn(watch(coordinator, run.id(), &mut child, line.clone())?);
    let supervised = run.supervise(&mut child).await?;
    let complaint = watching.await??;
    let ended = match supervised {
        Supervised::Exited(exit) if exit.is_success() => run.complete(json!({ "exit": 0 })).await?,
        Supervised::Exited(exit) => run.fail(&format!("{exit}: {complaint}")).await?,
        Supervised::Stopped => run.killed().await?,
        Supervised::Lost | _ => return Err("the run was lost while it was supervised".into()),
    };
    line.end(&format!(
        "{} ({})",
        ended.run.status,
        show_reason(&ended.run)
    ));
    Ok(())
}

fn show_reason(run: &runtree::repository::Run) -> String {
    run.end_reason
        .map_or_else(|| "-".to_owned(), |reason| reason.to_string())
}

fn command(run: &ActiveRun, task: Task) -> Result<runtree::process::Command, Failure> {
    let program = std::env::current_exe()?;
    let task = format!("{task:?}").to_lowercase();
    let worktree = run.worktree();
    #[expect(
        clippy::disallowed_methods,
        reason = "a program decides what its children inherit"
    )]
    let mine = std::env::vars_os();
    Ok(run
        .command(program)
        .args(["agent", "--task", task.as_str()])
        .args(["--name", worktree.name().as_str()])
        .args(["--ownership", worktree.ownership().as_str()])
        .arg("--worktree")
        .arg(worktree.path())
        .env_allowed(["HOME", "PATH"], mine)
        .stdout(Output::Pipe)
        .stderr(Output::Pipe))
}

/// Shows the child's steps as they come, kills the run when it has come to the endless one, and answers the child's complaint.
fn watch(
    coordinator: Coordinator,
    run: runtree::RunId,
    child: &mut Child,
    line: Line,
) -> Result<impl Future<Output = Result<String, Failure>> + use<>, Failure> {
    let out = child.take_stdout().ok_or("the child has no output")?;
    let mut err = child.take_stderr().ok_or("the child has no error output")?;
    Ok(async move {
        let mut steps = BufReader::new(out).lines();
        while let Some(step) = steps.next_line().await? {
            line.show(&step);
            if step == HANGING {
                let kill = Kill::graceful("it would never end").by("quickstart");
                coordinator.kill(run, kill).await?;
                line.show("asked to stop");
            }
        }
        let mut complaint = String::new();
        err.read_to_string(&mut complaint).await?;
        Ok(complaint.trim().to_owned())
    })
}
