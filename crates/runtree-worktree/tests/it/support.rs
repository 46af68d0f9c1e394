//! What the tests share: a repository with a handle on it, requests in one line, and the checks that follow every operation.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use runtree_id::{BranchName, CommitId, DirectoryName};
use runtree_testkit::git::{self, GitFixture};
use runtree_worktree::{
    AddWorktree, Checkout, ConfigScope, Head, LockHolder, Outcome, Ownership, Removal,
    RemoveWorktree, Worktree, Worktrees, WorktreesBuilder,
};

pub(crate) struct House {
    pub(crate) fixture: GitFixture,
    pub(crate) worktrees: Worktrees,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::of(GitFixture::new())
    }

    pub(crate) fn of(fixture: GitFixture) -> Self {
        let worktrees = builder(fixture.path()).open().unwrap();
        Self { fixture, worktrees }
    }

    pub(crate) fn add(&self, name: &str) -> Worktree {
        self.worktrees.add(&self.request(name)).unwrap()
    }

    pub(crate) fn request(&self, name: &str) -> AddWorktree {
        AddWorktree::new(
            directory(name),
            Checkout::NewBranch(branch(&format!("runtree/{name}"))),
            self.worktrees.resolve("HEAD").unwrap(),
            owner(name),
        )
    }

    pub(crate) fn remove(&self, name: &str) -> Removal {
        self.worktrees.remove(&removal(name)).unwrap()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.fixture.git(arguments)
    }

    /// Checks that git and we see the same, that git finds nothing to mend, and that nothing of ours is half done.
    #[track_caller]
    pub(crate) fn check_agreement(&self) {
        check_agreement(&self.worktrees);
    }
}

pub(crate) fn builder(path: &Path) -> WorktreesBuilder {
    Worktrees::builder(path)
        .config_scope(ConfigScope::Repository)
        .holder(LockHolder::new("test").unwrap())
}

pub(crate) fn directory(name: &str) -> DirectoryName {
    name.parse().unwrap()
}

pub(crate) fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

pub(crate) fn commit(id: &str) -> CommitId {
    id.parse().unwrap()
}

pub(crate) fn owner(name: &str) -> Ownership {
    Ownership::new(format!("{name}/1")).unwrap()
}

pub(crate) fn removal(name: &str) -> RemoveWorktree {
    RemoveWorktree::new(directory(name), owner(name))
}

#[track_caller]
pub(crate) fn assert_removed(removal: &Removal) {
    assert_eq!(removal.outcome, Outcome::Removed, "{removal:?}");
}

/// Checks what must hold after every operation.
#[track_caller]
pub(crate) fn check_agreement(worktrees: &Worktrees) {
    let main = worktrees.main_path();
    assert_eq!(
        git::git(main, ["worktree", "list", "--porcelain", "-z"]),
        porcelain(worktrees)
    );
    assert_eq!(git::git(main, ["worktree", "prune", "-n", "-v"]), "");
    assert_eq!(git::git(main, ["worktree", "repair"]), "");
    let check = git::try_git(main, ["fsck", "--full", "--strict", "--no-dangling"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned()
        + &String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && !said.contains("error"), "{said}");
    let corner = main.join(".git/runtree");
    for place in ["staging", "retired"] {
        let left = entries(&corner.join(place));
        assert!(left.is_empty(), "left in {place}: {left:?}");
    }
    let hidden = worktrees.root().join(".runtree");
    let left = if hidden.exists() {
        tree_of(&hidden)
    } else {
        Vec::new()
    };
    assert!(!hidden.exists(), "left in the hidden directory: {left:?}");
}

/// Writes our list as git writes its own.
fn porcelain(worktrees: &Worktrees) -> String {
    let zero = worktrees
        .resolve("HEAD")
        .map_or(40, |head| head.as_str().len());
    let mut text = Vec::new();
    for worktree in worktrees.list().unwrap() {
        if worktree.corrupt().is_some() {
            continue;
        }
        let mut field = |name: &str, value: &[u8]| {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(value);
            text.push(0);
        };
        field("worktree ", worktree.path().as_os_str().as_bytes());
        if worktree.is_bare() {
            field("bare", b"");
        } else {
            match worktree.head() {
                Head::Branch { reference, commit } => {
                    let id = commit
                        .as_ref()
                        .map_or_else(|| "0".repeat(zero), ToString::to_string);
                    field("HEAD ", id.as_bytes());
                    field("branch ", reference.as_bytes());
                }
                Head::Detached(id) => {
                    field("HEAD ", id.as_str().as_bytes());
                    field("detached", b"");
                }
                other @ (Head::Unreadable | _) => panic!("unreadable HEAD: {other:?}"),
            }
        }
        match worktree.locked() {
            Some("") => field("locked", b""),
            Some(reason) => field("locked ", reason.as_bytes()),
            None => {}
        }
        if let Some(reason) = worktree.prunable() {
            field("prunable ", reason.as_bytes());
        }
        text.push(0);
    }
    String::from_utf8(text).unwrap()
}

pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Everything below a directory but `.git`: path, kind and mode, content.
pub(crate) fn tree_of(directory: &Path) -> Vec<(PathBuf, String, Vec<u8>)> {
    let mut found = Vec::new();
    collect(directory, directory, &mut found);
    found.sort();
    found
}

fn collect(top: &Path, place: &Path, found: &mut Vec<(PathBuf, String, Vec<u8>)>) {
    for entry in fs::read_dir(place).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let below = path.strip_prefix(top).unwrap().to_owned();
        if below == Path::new(".git") {
            continue;
        }
        let meta = entry.metadata().unwrap();
        if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            found.push((
                below,
                "link".to_owned(),
                target.as_os_str().as_bytes().to_vec(),
            ));
        } else if meta.is_dir() {
            found.push((below, "directory".to_owned(), Vec::new()));
            collect(top, &path, found);
        } else {
            let mode = format!("{:o}", meta.permissions().mode() & 0o7777);
            let content = if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.push((below, mode, content));
        }
    }
}

/// git's view of a worktree: status (with ignored files), index flags, HEAD and the operations in progress.
pub(crate) fn git_view(directory: &Path) -> Vec<String> {
    let view = |arguments: &[&str]| git::git(directory, arguments);
    let git_dir = PathBuf::from(view(&["rev-parse", "--absolute-git-dir"]));
    let there: Vec<_> = [
        "MERGE_HEAD",
        "MERGE_MSG",
        "CHERRY_PICK_HEAD",
        "rebase-merge",
    ]
    .into_iter()
    .filter(|name| git_dir.join(name).exists())
    .collect();
    vec![
        view(&[
            "status",
            "--porcelain=v2",
            "--ignored",
            "--untracked-files=all",
            "-z",
        ]),
        view(&["ls-files", "--stage", "-z"]),
        view(&["ls-files", "-v", "-z"]),
        view(&["rev-parse", "HEAD"]),
        view(&["rev-parse", "--symbolic-full-name", "HEAD"]),
        there.join(" "),
    ]
}
