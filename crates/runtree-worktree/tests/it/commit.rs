//! Committing without a git program does what `git add --all` and `git commit` do.

use std::fs;

use runtree_testkit::git;
use runtree_worktree::{Author, CommitRequest, ErrorKind};

use crate::support::{House, directory, owner};

fn request(message: &str) -> CommitRequest {
    let author = Author::new("Some One", "one@example.org").unwrap();
    CommitRequest::new(message, author).unwrap()
}

#[test]
fn everything_not_ignored_is_committed_as_git_would() {
    let house = House::new();
    house
        .fixture
        .write(".gitattributes", "*.crlf text eol=crlf\n");
    house.fixture.commit_all("attributes");
    let ours = house.add("ours");
    let theirs = house.add("theirs");
    for path in [ours.path(), theirs.path()] {
        git::write(path, "README.md", "changed\n");
        git::write(path, "new/file", "new\n");
        git::write(path, "dos.crlf", "a\r\nb\r\n");
        git::write(path, "ignored.log", "no\n");
        fs::remove_file(path.join("src/deep/er/leaf.txt")).unwrap();
        fs::remove_file(path.join("link")).unwrap();
        std::os::unix::fs::symlink("run.sh", path.join("link")).unwrap();
        fs::remove_file(path.join("run.sh")).unwrap();
        git::write(path, "run.sh/now-a-directory", "x");
        git::write(path, "staged", "x");
        git::git(path, ["add", "staged"]);
    }
    git::git(theirs.path(), ["add", "--all"]);
    git::git(theirs.path(), ["commit", "-q", "-m", "work"]);

    let made = house
        .worktrees
        .commit(&directory("ours"), &owner("ours"), &request("work\n\nbody"))
        .unwrap()
        .unwrap();
    let tree = |path| git::git(path, ["rev-parse", "HEAD^{tree}"]);
    assert_eq!(tree(ours.path()), tree(theirs.path()));
    assert_eq!(
        git::git(ours.path(), ["rev-parse", "runtree/ours"]),
        made.as_str()
    );
    assert_eq!(git::git(ours.path(), ["status", "--porcelain=v2"]), "");
    assert_eq!(
        git::git(ours.path(), ["log", "-1", "--format=%an <%ae>|%s|%b"]).trim_end(),
        "Some One <one@example.org>|work|body"
    );
    assert_eq!(
        git::git(ours.path(), ["log", "-g", "-1", "--format=%gs", "HEAD"]),
        "commit: work"
    );
    house.check_agreement();

    let nothing = house
        .worktrees
        .commit(&directory("ours"), &owner("ours"), &request("again"))
        .unwrap();
    assert_eq!(nothing, None);
}

#[test]
fn what_cannot_be_committed_is_refused_and_left() {
    let house = House::new();
    let worktree = house.add("stuck");
    let commit = |token: &str| {
        house
            .worktrees
            .commit(&directory("stuck"), &owner(token), &request("x"))
            .unwrap_err()
            .kind()
    };
    assert_eq!(commit("somebody"), ErrorKind::NotOurs);
    git::git(worktree.path(), ["init", "-q", "inner"]);
    assert_eq!(commit("stuck"), ErrorKind::NestedRepository);
    let admin = git::git(worktree.path(), ["rev-parse", "--absolute-git-dir"]);
    let head = house.git(&["rev-parse", "HEAD"]);
    fs::write(std::path::Path::new(&admin).join("MERGE_HEAD"), head).unwrap();
    assert_eq!(commit("stuck"), ErrorKind::Conflicted);
    assert!(CommitRequest::new(" \n", Author::new("a", "b").unwrap()).is_err());
    assert!(Author::new("a<", "b").is_err());
}
