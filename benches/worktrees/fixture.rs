//! A git repository with so many files, the same each time, and what both sides do in it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use runtree_testkit::{
    dice::Dice,
    git::{git, git_command},
};
use runtree_worktree::{
    AddWorktree, BranchPolicy, Checkout, ConfigScope, Outcome, Ownership, Removal, RemoveWorktree,
    Result, Worktree, Worktrees,
};
use tempfile::TempDir;

/// How many files "many" are; with the sizes below they are 48 MB.
pub(crate) const FILES: u64 = 4_850;

/// How many threads a git command writes files with; it takes more than one only from a hundred files on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Workers {
    /// As it does by default.
    One,
    /// As many as there are cores.
    EachCore,
}

/// A repository, and two directories beside it: one for git's worktrees and one for runtree's.
///
/// All of it goes with the value.
pub(crate) struct Fixture {
    place: TempDir,
    main: PathBuf,
    worktrees: Worktrees,
    owner: Ownership,
    is_settled: bool,
    made: AtomicU64,
}

impl Fixture {
    /// Makes a repository of `count` files below `directory`.
    pub(crate) fn new(directory: &Path, count: u64, is_settled: bool) -> Self {
        let place = TempDir::with_prefix_in("runtree-worktrees-", directory);
        let place = place.expect("a directory can be made");
        let main = place.path().join("main");
        // No template, so that there are no hooks to look at.
        let init = [
            "init",
            "--quiet",
            "--template=",
            "--initial-branch=main",
            "main",
        ];
        git(place.path(), init);
        write_files(&main, count).expect("files can be written");
        git(&main, ["add", "--all"]);
        git(&main, ["commit", "--quiet", "-m", "all"]);
        // Objects are in a pack, as after a clone.
        git(&main, ["repack", "-adq"]);
        let worktrees = Worktrees::builder(&main)
            .root(place.path().join("ours"))
            .config_scope(ConfigScope::Repository);
        Self {
            worktrees: worktrees.open().expect("the repository can be opened"),
            owner: Ownership::new("bench").expect("because it is a token"),
            place,
            main,
            is_settled,
            made: AtomicU64::new(0),
        }
    }

    /// A name that no worktree had yet.
    pub(crate) fn next_name(&self) -> String {
        format!("w{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until what was written before is on the disk, so that no side waits for what another one left.
    pub(crate) fn settle(&self) {
        if self.is_settled {
            rustix::fs::sync();
        }
    }

    pub(crate) fn our_branch(name: &str) -> String {
        format!("ours/{name}")
    }

    pub(crate) fn git_branch(name: &str) -> String {
        format!("git/{name}")
    }

    pub(crate) fn git_path(&self, name: &str) -> PathBuf {
        self.place.path().join("git").join(name)
    }

    /// Adds a worktree of HEAD with a new branch.
    pub(crate) fn add(&self, name: &str) -> Result<Worktree> {
        let branch = Self::our_branch(name);
        let branch = branch.parse().expect("because it is a branch's name");
        self.worktrees.add(&AddWorktree::new(
            name.parse().expect("because it is a directory's name"),
            Checkout::NewBranch(branch),
            self.worktrees.resolve("HEAD")?,
            self.owner.clone(),
        ))
    }

    /// The same by git; answers whether it did.
    pub(crate) fn git_add(&self, name: &str, workers: Workers) -> bool {
        let workers = match workers {
            Workers::One => "checkout.workers=1",
            Workers::EachCore => "checkout.workers=0",
        };
        let mut command = git_command(&self.main);
        command.args(["-c", workers, "worktree", "add", "--quiet", "-b"]);
        command.arg(Self::git_branch(name)).arg(self.git_path(name));
        succeeds(command.arg("HEAD"))
    }

    /// What a removal of the worktree would do: remove it.
    pub(crate) fn plan(&self, worktree: &Worktree) -> Removal {
        let request = RemoveWorktree::new(worktree.name().clone(), self.owner.clone());
        let plan = self
            .worktrees
            .plan_remove(&request)
            .expect("a removal can be planned");
        assert_eq!(plan.outcome, Outcome::WouldRemove);
        plan
    }

    /// Removes a worktree in which nothing changed.
    pub(crate) fn remove(&self, worktree: &Worktree, branch: BranchPolicy) {
        let request = RemoveWorktree::new(worktree.name().clone(), self.owner.clone());
        let removal = self.worktrees.remove(&request.branch(branch));
        let removal = removal.expect("a worktree can be removed");
        assert!(removal.is_gone(), "{:?}", removal.outcome);
        assert!(removal.salvage.is_none(), "nothing was there to save");
    }

    /// The same by git, which keeps the branch.
    pub(crate) fn git_remove(&self, name: &str) {
        let mut command = git_command(&self.main);
        command
            .args(["worktree", "remove"])
            .arg(self.git_path(name));
        assert!(succeeds(&mut command), "git removes no worktree");
    }

    pub(crate) fn git_drop_branch(&self, branch: &str) {
        git(&self.main, ["branch", "--quiet", "-D", branch]);
    }

    /// Cleans up after git.
    pub(crate) fn git_forget(&self, name: &str) {
        self.git_remove(name);
        self.git_drop_branch(&Self::git_branch(name));
    }

    /// Lets git look for changes, and checks that it finds none.
    pub(crate) fn git_status(&self, worktree: &Path) {
        let output = git(worktree, ["status", "--porcelain"]);
        assert!(output.is_empty(), "changed: {output}");
    }

    /// Checks that the repository is as it was made.
    pub(crate) fn check_left_nothing(&self) {
        let references = git(&self.main, ["for-each-ref", "--format=%(refname)"]);
        assert_eq!(references, "refs/heads/main", "branches were left");
        let listed = git(&self.main, ["worktree", "list", "--porcelain"]);
        let listed = listed.lines().filter(|line| line.starts_with("worktree "));
        assert_eq!(listed.count(), 1, "worktrees were left");
    }
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.status().expect("git starts").success()
}

/// Writes files of 64 bytes to 64 KiB, each doubling of the size as likely as the others: most of them text, some not, a few
/// executable, a few links.
fn write_files(main: &Path, count: u64) -> std::io::Result<()> {
    let mut dice = Dice::new(count);
    for number in 0..count {
        let directory = format!("part-{}/area-{}", number / 200, number % 200 / 15);
        let directory = main.join(directory);
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("file-{number}.txt"));
        if number % 100 == 7 {
            symlink(format!("file-{}.txt", number - 1), &path)?;
            continue;
        }
        let least = 1 << dice.between(6, 15);
        let size = dice.between(least, 2 * least - 1);
        let size = usize::try_from(size).expect("because it is small");
        let content = match number % 40 {
            3 => noise(&mut dice, size),
            _ => text(&mut dice, size),
        };
        fs::write(&path, content)?;
        if number % 50 == 5 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Lines of words, which can be compressed about as well as source code.
fn text(dice: &mut Dice, size: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "let", "worktree", "=", "self", "fn", "->", "Result", "(&self)", "{", "}", "match", "path",
        "return", "branch", "//", "the",
    ];
    let mut text = Vec::with_capacity(size + 32);
    while text.len() < size {
        if let Some(word) = dice.one_of(&WORDS) {
            text.extend_from_slice(word.as_bytes());
        }
        let between: &[u8] = match dice.below(24) {
            0..3 => b"\n    ",
            3 => b"_0123;\n",
            _ => b" ",
        };
        text.extend_from_slice(between);
    }
    text.truncate(size);
    text
}

/// Bytes that cannot be compressed.
fn noise(dice: &mut Dice, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&dice.roll().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
