//! Real processes, real signals: what the crate promises, seen from outside.

#![cfg(target_os = "linux")]

mod child;
mod command;
mod identity;
mod recovery;

use std::future::Future;
use std::time::Duration;

use runtree_process::{Child, Command, Output};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shell script as a command, with the one variable it needs.
fn sh(script: &str) -> Command {
    Command::new("sh", "/")
        .args(["-c", script])
        .env("PATH", "/usr/bin:/bin")
        .stdout(Output::Pipe)
}

fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.take_stdout().expect("a pipe was asked for")).lines()
}

/// Starts a script and waits for its first line, which says that it has set itself up.
async fn started(command: Command) -> Child {
    let mut child = command.spawn().await.expect("sh starts");
    let mut lines = lines(&mut child);
    let line = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .expect("the script speaks")
        .expect("its output can be read");
    assert_eq!(line.as_deref(), Some("ready"));
    child
}

/// Waits for something that nobody announces.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not come true"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
