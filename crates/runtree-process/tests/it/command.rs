//! Commands: what reaches the program, and what is refused before it starts.

use std::ffi::OsString;

use runtree_process::{Command, ErrorKind, Exit, Input, Output, Stop, Stopped};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{lines, sh};

async fn output_of(command: Command) -> String {
    let mut child = command
        .stdout(Output::Pipe)
        .spawn()
        .await
        .expect("it starts");
    let mut output = String::new();
    let mut stdout = child.take_stdout().expect("a pipe was asked for");
    stdout
        .read_to_string(&mut output)
        .await
        .expect("it can be read");
    assert_eq!(child.wait().await.expect("it ends"), Exit::Code(0));
    output
}

#[tokio::test]
async fn only_allowed_variables_reach_the_program() {
    let surroundings = [
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/nowhere"),
        ("TOKEN", "secret"),
        ("PATHS", "no"),
    ]
    .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let command = Command::new("env", "/")
        .env_allowed(["PATH", "HOME", "MISSING"], surroundings)
        .env("GIVEN", "a b=c")
        .mark("run-1".parse().expect("a mark"));
    let output = output_of(command).await;
    let mut variables: Vec<_> = output.lines().collect();
    variables.sort_unstable();
    assert_eq!(
        variables,
        [
            "GIVEN=a b=c",
            "HOME=/nowhere",
            "PATH=/usr/bin:/bin",
            "RUNTREE_MARK=run-1"
        ]
    );
}

#[tokio::test]
async fn nothing_said_means_an_empty_environment() {
    assert_eq!(output_of(Command::new("/usr/bin/env", "/")).await, "");
}

#[tokio::test]
async fn a_debug_print_shows_no_secret() {
    let command = Command::new("env", "/").env("TOKEN", "secret");
    let shown = format!("{command:?}");
    assert!(
        shown.contains("TOKEN") && !shown.contains("secret"),
        "{shown}"
    );
}

#[tokio::test]
async fn it_runs_in_the_given_directory_with_the_given_arguments() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let directory = directory.path().canonicalize().expect("it is there");
    let command = Command::new("/bin/sh", &directory).args([
        "-c",
        "pwd -P; printf '%s\\n' \"$@\"",
        "sh",
        "a b",
        "",
        "*",
    ]);
    assert_eq!(
        output_of(command).await,
        format!("{}\na b\n\n*\n", directory.display())
    );
}

#[tokio::test]
async fn input_is_empty_unless_a_pipe_is_asked_for() {
    assert_eq!(output_of(sh("cat")).await, "");
    let mut child = sh("cat")
        .stdin(Input::Pipe)
        .spawn()
        .await
        .expect("it starts");
    let mut stdin = child.take_stdin().expect("a pipe was asked for");
    stdin.write_all(b"hello\n").await.expect("cat reads");
    drop(stdin);
    let line = lines(&mut child).next_line().await.expect("cat writes");
    assert_eq!(line.as_deref(), Some("hello"));
    assert_eq!(child.wait().await.expect("it ends"), Exit::Code(0));
}

#[tokio::test]
async fn both_outputs_go_to_the_end_of_one_log_that_only_we_read() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().expect("a directory can be made");
    let log = directory.path().join("log");
    for _ in 0..2 {
        let command = sh("echo out; echo err >&2")
            .stdout(Output::AppendTo(log.clone()))
            .stderr(Output::AppendTo(log.clone()));
        let mut child = command.spawn().await.expect("it starts");
        assert_eq!(child.wait().await.expect("it ends"), Exit::Code(0));
    }
    assert_eq!(
        std::fs::read_to_string(&log).expect("it was made"),
        "out\nerr\nout\nerr\n"
    );
    let mode = std::fs::metadata(&log)
        .expect("it was made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_starts() {
    let here = || Command::new("true", "/").env("PATH", "/usr/bin:/bin");
    for command in [
        Command::new("", "/"),
        Command::new("./true", "/"),
        Command::new("bin/true", "/"),
        Command::new("true/", "/"),
        Command::new("..", "/"),
        Command::new("true", "here"),
        Command::new("true", ""),
        here().env("", "x"),
        here().env("A=B", "x"),
        here().env("A\0", "x"),
        here().env("A", "x\0"),
        here().arg("x\0"),
    ] {
        let error = command.spawn().await.expect_err("refused");
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidCommand,
            "{command:?}: {error}"
        );
    }
    assert_eq!(
        here()
            .spawn()
            .await
            .expect("starts")
            .wait()
            .await
            .expect("ends"),
        Exit::Code(0)
    );
}

#[tokio::test]
async fn what_is_missing_is_named_in_the_error() {
    let missing = std::path::Path::new("/no/such/place");
    for (command, named) in [
        (
            Command::new("no-such-program", "/").env("PATH", "/usr/bin:/bin"),
            "no-such-program",
        ),
        (Command::new("/bin/true", missing), "/no/such/place"),
        (
            Command::new("/bin/true", "/").stdout(Output::AppendTo(missing.join("log"))),
            "/no/such/place/log",
        ),
    ] {
        let error = command.spawn().await.expect_err("not started");
        assert_eq!(error.kind(), ErrorKind::NotStarted);
        assert!(error.to_string().contains(named), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn a_bare_name_is_searched_in_the_given_path_only() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    std::os::unix::fs::symlink("/bin/true", directory.path().join("ours"))
        .expect("a link can be made");
    let ours = Command::new("ours", "/").env("PATH", directory.path());
    assert_eq!(
        ours.spawn()
            .await
            .expect("found")
            .wait()
            .await
            .expect("ends"),
        Exit::Code(0)
    );
    let elsewhere = Command::new("ours", "/").env("PATH", "/usr/bin:/bin");
    assert_eq!(
        elsewhere.spawn().await.expect_err("not there").kind(),
        ErrorKind::NotStarted
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_start_and_stop_at_once_on_a_threaded_runtime() {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        all.spawn(async {
            let mut child = crate::started(sh("echo ready; exec sleep 300")).await;
            child.stop(Stop::default()).await.expect("it stops")
        });
    }
    while let Some(stopped) = all.join_next().await {
        assert_eq!(stopped.expect("no panic"), Stopped::ExitedInGrace);
    }
}
