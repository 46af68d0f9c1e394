//! The quickstart as a stranger meets it: on its own repository, on a given one, and on everything that will not do.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Somebody without rights of their own, to whom permissions apply even where the tests run as root.
const NOBODY: u32 = 65_534;

fn quickstart(repo: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    if let Some(repo) = repo {
        command.arg("--repo").arg(repo);
    }
    command
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .expect("git is missing: install it, the tests compare with it");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A git repository with this many files and one commit, in a directory of its own.
fn repository(files: usize) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("a checkout");
    fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "--quiet", "--initial-branch=main"]);
    for number in 0..files {
        let file = repo
            .join(format!("dir{}", number % 50))
            .join(format!("file{number}.txt"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("file {number}\n")).unwrap();
    }
    fs::write(repo.join("README.md"), "# A checkout\n").unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "--quiet", "--message=first"]);
    (dir, repo)
}

/// Everything about a git repository that the quickstart must leave as it was.
fn look(repo: &Path) -> Vec<String> {
    vec![
        git(repo, &["for-each-ref"]),
        git(repo, &["worktree", "list", "--porcelain"]),
        git(repo, &["status", "--porcelain=v2", "--branch", "--ignored"]),
        git(repo, &["fsck", "--full", "--strict", "--no-dangling"]),
        fs::read_to_string(repo.join(".git/config")).unwrap(),
        git(repo, &["worktree", "prune", "--dry-run", "--verbose"]),
        git(repo, &["stash", "list"]),
        format!(
            "{:?}",
            fs::read_dir(repo.join(".git"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect::<std::collections::BTreeSet<_>>()
        ),
    ]
}

fn succeeds(output: &Output) -> String {
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", text(&output.stderr));
    out
}

#[test]
fn without_arguments_it_shows_the_main_job_on_a_repository_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let out = succeeds(
        &quickstart(None)
            .env("TMPDIR", place.path())
            .output()
            .unwrap(),
    );
    for part in [
        "5 runs",
        "half-done",
        "would remove",
        "completed",
        "failed",
        "killed",
        "succeeded",
        "all of it is true",
        "worktree remove",
    ] {
        assert!(out.contains(part), "{part:?} is missing in:\n{out}");
    }
}

#[test]
fn a_given_repository_is_as_before_once_the_printed_commands_have_run() {
    let (dir, repo) = repository(300);
    let before = look(&repo);
    let out = succeeds(&quickstart(Some(&repo)).output().unwrap());
    assert_ne!(
        look(&repo),
        before,
        "branches, salvage refs and a worktree are left on purpose"
    );

    let commands: Vec<&str> = out
        .lines()
        .skip_while(|line| !line.contains("These commands remove them"))
        .filter(|line| line.starts_with("  "))
        .collect();
    assert!(commands.len() >= 4, "{out}");
    for command in commands {
        let done = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(done.status.success(), "{command}: {}", text(&done.stderr));
    }
    assert_eq!(look(&repo), before);
    let beside: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(beside, ["a checkout"]);
}

#[test]
fn it_works_from_a_linked_worktree_and_beside_foreign_ones() {
    let (dir, repo) = repository(20);
    let linked = dir.path().join("linked");
    git(
        &repo,
        &["worktree", "add", "--quiet", linked.to_str().unwrap()],
    );
    fs::write(linked.join("mine.txt"), "not to be touched").unwrap();
    let out = succeeds(&quickstart(Some(&linked)).output().unwrap());
    assert!(out.contains("not made by runtree"), "{out}");
    assert_eq!(
        fs::read_to_string(linked.join("mine.txt")).unwrap(),
        "not to be touched"
    );
}

/// Runs the quickstart where it cannot work, and answers its one line.
fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    let complaint = text(&output.stderr);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(
        !complaint.contains("panicked") && !complaint.contains("backtrace"),
        "{complaint}"
    );
    complaint
}

fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn a_path_that_will_not_do_is_named_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("plain")).unwrap();
    let (_clone, repo) = repository(3);
    let served = path("served");
    git(
        &repo,
        &["clone", "--quiet", "--bare", ".", served.to_str().unwrap()],
    );
    for name in ["empty", "orphan"] {
        fs::create_dir(path(name)).unwrap();
        git(&path(name), &["init", "--quiet"]);
    }
    fs::write(path("orphan/file"), "no commit").unwrap();
    git(&path("orphan"), &["add", "."]);
    let before = tree(dir.path());
    for (name, reason) in [
        (
            "missing",
            "is in no git repository; name a directory inside one",
        ),
        (
            "plain",
            "is in no git repository; name a directory inside one",
        ),
        ("served", "is bare; name a clone"),
        ("empty", "has no commit yet; make a first commit"),
        ("orphan", "has no commit yet; make a first commit"),
    ] {
        let complaint = refusal(quickstart(Some(&path(name))));
        assert!(complaint.contains(reason), "{name}: {complaint}");
        assert!(
            complaint.contains(path(name).to_str().unwrap()),
            "{name}: {complaint}"
        );
    }
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn a_read_only_place_is_named_and_nothing_is_made() {
    for closed in ["beside", "inside"] {
        let (dir, repo) = repository(3);
        let place = match closed {
            // The directory in which the worktrees' root would be made.
            "beside" => dir.path().to_owned(),
            _ => repo.join(".git"),
        };
        let (_program, mut command) = as_nobody(dir.path());
        command.arg("--repo").arg(&repo);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o555)).unwrap();
        let before = tree(dir.path());
        let complaint = refusal(command);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        let expected = format!("cannot write to the directory {}", place.display());
        assert!(complaint.contains(&expected), "{closed}: {complaint}");
        assert!(
            complaint.contains("Permission denied"),
            "{closed}: {complaint}"
        );
        assert_eq!(tree(dir.path()), before, "{closed}");
    }
}

/// The quickstart as somebody whom permissions bind, and to whom everything in a directory belongs.
fn as_nobody(owned: &Path) -> (TempDir, Command) {
    let (dir, program) = program_for_all();
    let mut command = Command::new(program);
    command
        .env("HOME", "/nonexistent")
        .env("TMPDIR", dir.path());
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    if is_root {
        for path in tree(owned).iter().map(PathBuf::as_path).chain([owned]) {
            std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    (dir, command)
}

#[test]
fn whoever_reads_only_the_beginning_stops_nothing() {
    let place = tempfile::tempdir().unwrap();
    let script = format!(
        "set -o pipefail; {} | head -n 1",
        env!("CARGO_BIN_EXE_quickstart")
    );
    let done = Command::new("bash")
        .args(["-c", &script])
        .env("TMPDIR", place.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn it_runs_again_beside_what_the_last_one_left_and_whatever_is_tracked_or_ignored() {
    let (dir, repo) = repository(5);
    fs::write(repo.join(".gitignore"), "*.log\n*.txt\n").unwrap();
    for name in ["notes", "review", "half-done"] {
        fs::write(repo.join(name), "tracked").unwrap();
    }
    git(&repo, &["add", "--force", "."]);
    git(&repo, &["commit", "--quiet", "--message=second"]);
    let root = dir.path().join("a checkout.worktrees");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("mine"), "not to be touched").unwrap();
    for _ in 0..2 {
        succeeds(&quickstart(Some(&repo)).output().unwrap());
    }
    assert_eq!(
        fs::read_to_string(root.join("mine")).unwrap(),
        "not to be touched"
    );
}

#[test]
fn what_a_killed_start_leaves_is_recovered_by_the_next_one() {
    let (dir, repo) = repository(5);
    let mut killed = quickstart(Some(&repo))
        .env("TMPDIR", dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Until a child process is at work in its worktree.
    let lines = std::io::BufRead::lines(std::io::BufReader::new(killed.stdout.take().unwrap()));
    let is_at_work = |line: &String| line.contains("refactoring without end");
    assert!(lines.map(Result::unwrap).any(|line| is_at_work(&line)));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let out = succeeds(
        &quickstart(Some(&repo))
            .env("TMPDIR", dir.path())
            .output()
            .unwrap(),
    );
    assert!(out.contains("Recovered from an earlier start"), "{out}");
    assert!(out.contains("is failed"), "{out}");
    // Nothing of the killed start is left but refs that hold work, and its persistent worktree if it came to that.
    let listed = git(&repo, &["worktree", "list", "--porcelain"]);
    let linked = listed
        .lines()
        .filter(|line| line.starts_with("worktree "))
        .count()
        - 1;
    let persistent = listed
        .lines()
        .filter(|line| line.starts_with("branch refs/heads/runtree/notes-"))
        .count();
    assert_eq!(linked, persistent, "{listed}");
}

/// The program where nobody may execute it too.
fn program_for_all() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // Everybody may execute what is in it, and make files beside it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = dir.path().join("quickstart");
    fs::copy(env!("CARGO_BIN_EXE_quickstart"), &program).unwrap();
    (dir, program)
}
