//! What happens beside a removal, or hides from it, is not lost.

use std::{
    fmt, fs,
    io::Write,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use runtree_testkit::git::{self, GitFixture};
use runtree_worktree::{
    AddWorktree, BranchFate, Checkout, Dirt, KeepReason, Onward, Operation, Outcome, Step,
    StepObserver, Worktrees,
};

use crate::support::{House, assert_removed, branch, builder, commit, directory, owner, removal};

/// Does something at each step.
struct Meanwhile<F>(F);

impl<F> fmt::Debug for Meanwhile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl<F: Fn(Step) -> Onward + Send + Sync> StepObserver for Meanwhile<F> {
    fn reached(&self, _: Operation, step: Step) -> Onward {
        (self.0)(step)
    }
}

/// A handle whose operations do something once they reached `at`.
fn meanwhile(path: &Path, at: Step, what: impl Fn() + Send + Sync + 'static) -> Worktrees {
    let observer = Meanwhile(move |step| {
        if step == at {
            what();
        }
        Onward::Continue
    });
    builder(path).observer(Arc::new(observer)).open().unwrap()
}

fn commit_file(path: &Path, name: &str) -> String {
    git::write(path, name, "work\n");
    git::git(path, ["add", name]);
    git::git(path, ["commit", "-q", "-m", name]);
    git::git(path, ["rev-parse", "HEAD"])
}

/// Removes `v` while `what` happens at `at`, and checks that the removal was called off and left no salvage.
#[track_caller]
fn calls_off(house: &House, at: Step, what: impl Fn(&Path) + Send + Sync + 'static) -> KeepReason {
    let path = house.worktrees.root().join("v");
    let worktrees = meanwhile(house.fixture.path(), at, move || what(&path));
    let kept = worktrees.remove(&removal("v")).unwrap();
    let Outcome::Kept(reason) = kept.outcome else {
        panic!("{kept:?}");
    };
    assert_eq!(kept.salvage, None);
    assert!(house.worktrees.salvages().unwrap().is_empty());
    assert!(house.worktrees.root().join("v/README.md").exists());
    reason
}

#[test]
fn what_is_staged_while_it_goes_calls_the_removal_off() {
    for at in [Step::Salvaged, Step::Journalled] {
        let house = House::new();
        let worktree = house.add("v");
        let reason = calls_off(&house, at, |path| {
            git::write(path, "late", "late\n");
            git::git(path, ["add", "late"]);
            git::git(path, ["rm", "-q", "-f", "--cached", "late"]);
            git::write(path, "late", "late\n");
            git::git(path, ["add", "late"]);
        });
        assert!(matches!(reason, KeepReason::Changed(_)), "{reason:?}");
        assert_eq!(
            git::git(worktree.path(), ["status", "--porcelain"]),
            "A  late"
        );
    }
}

#[test]
fn what_is_committed_while_it_goes_calls_the_removal_off() {
    let house = House::new();
    let worktree = house.add("v");
    git::git(worktree.path(), ["checkout", "-q", "--detach"]);
    git::write(worktree.path(), "dirty", "x");
    let reason = calls_off(&house, Step::Salvaged, |path| {
        commit_file(path, "late");
    });
    assert!(matches!(reason, KeepReason::Changed(_)), "{reason:?}");
    let log = git::git(worktree.path(), ["log", "-1", "--format=%s"]);
    assert_eq!(log, "late");
}

#[test]
fn what_appears_in_the_registration_of_a_missing_directory_calls_the_removal_off() {
    let house = House::new();
    let worktree = house.add("v");
    fs::remove_dir_all(worktree.path()).unwrap();
    let admin = house.fixture.path().join(".git/worktrees/v");
    let there = admin.clone();
    let worktrees = meanwhile(house.fixture.path(), Step::Journalled, move || {
        fs::write(there.join("MERGE_MSG"), "typed\n").unwrap();
    });
    let kept = worktrees.remove(&removal("v")).unwrap();
    assert!(
        matches!(kept.outcome, Outcome::Kept(KeepReason::Changed(_))),
        "{kept:?}"
    );
    assert!(admin.join("MERGE_MSG").exists());
}

#[test]
fn a_lock_somebody_takes_while_it_goes_calls_the_removal_off() {
    let house = House::new();
    house.add("v");
    let admin = house.fixture.path().join(".git/worktrees/v");
    let reason = calls_off(&house, Step::Trashed, move |_| {
        fs::write(admin.join("locked"), "mine\n").unwrap();
    });
    assert_eq!(reason, KeepReason::Locked("mine".to_owned()));
}

#[test]
fn removals_that_are_called_off_again_and_again_leave_no_salvages() {
    let house = House::new();
    let worktree = house.add("v");
    git::write(worktree.path(), "dirty", "x");
    let trash = house.worktrees.root().join(".runtree/trash/v/log");
    for text in ["one", "two"] {
        let trash = trash.clone();
        let reason = calls_off(&house, Step::Trashed, move |_| {
            fs::write(&trash, text).unwrap();
        });
        assert!(matches!(reason, KeepReason::Changed(_)), "{reason:?}");
    }
}

#[test]
fn of_several_branches_at_one_commit_the_last_one_stays() {
    let house = House::new();
    house.git(&["checkout", "-q", "-b", "temporary"]);
    let work = commit_file(house.fixture.path(), "work");
    house.git(&["checkout", "-q", "main"]);
    let names = ["a", "b", "c", "d"];
    for name in names {
        let checkout = Checkout::NewBranch(branch(&format!("runtree/{name}")));
        let request = AddWorktree::new(directory(name), checkout, commit(&work), owner(name));
        house.worktrees.add(&request).unwrap();
    }
    house.git(&["branch", "-q", "-D", "temporary"]);
    let together = Arc::new(Barrier::new(names.len()));
    thread::scope(|scope| {
        for name in names {
            let together = Arc::clone(&together);
            let path = house.fixture.path();
            scope.spawn(move || {
                let wait = move || {
                    together.wait();
                };
                let worktrees = meanwhile(path, Step::Unregistered, wait);
                assert_removed(&worktrees.remove(&removal(name)).unwrap());
            });
        }
    });
    let left = house.git(&["branch", "--format=%(refname)", "--contains", &work]);
    assert_eq!(left.lines().count(), 1, "{left}");
}

#[test]
fn two_runs_at_one_commit_of_their_own_keep_both_branches() {
    let house = House::new();
    let one = house.add("one");
    let other = house.add("other");
    let work = commit_file(one.path(), "work");
    git::git(other.path(), ["merge", "-q", "--ff-only", &work]);
    for name in ["one", "other"] {
        let removed = house.remove(name);
        let kept = BranchFate::KeptUnmerged(branch(&format!("runtree/{name}")));
        assert_eq!(removed.branch, kept);
    }
}

#[test]
fn a_branch_that_only_passing_references_hold_stays() {
    for reference in ["refs/stash", "refs/prefetch/remotes/origin/x"] {
        let house = House::new();
        let worktree = house.add("v");
        let work = commit_file(worktree.path(), "work");
        house.git(&["update-ref", "--create-reflog", reference, &work]);
        let removed = house.remove("v");
        assert_eq!(
            removed.branch,
            BranchFate::KeptUnmerged(branch("runtree/v"))
        );
    }
}

#[test]
fn a_branch_that_was_made_anew_is_not_ours() {
    let house = House::new();
    let worktree = house.add("v");
    git::git(worktree.path(), ["branch", "-m", "feature"]);
    house.git(&["branch", "runtree/v", "main"]);
    let removed = house.remove("v");
    assert_eq!(removed.branch, BranchFate::KeptForeign(branch("runtree/v")));
    let left = house.git(&["branch", "--format=%(refname:short)"]);
    assert!(left.lines().any(|name| name == "runtree/v"), "{left}");
}

#[test]
fn commits_that_only_the_log_of_its_own_branch_holds_are_not_lost() {
    let house = House::new();
    let worktree = house.add("v");
    git::git(worktree.path(), ["checkout", "-q", "-b", "other"]);
    let side = house.fixture.place().join("side");
    let side_text = side.to_str().unwrap();
    house.git(&["worktree", "add", "-q", side_text, "runtree/v"]);
    let work = commit_file(&side, "work");
    git::git(&side, ["reset", "-q", "--hard", "HEAD~1"]);
    house.git(&["worktree", "remove", side_text]);
    let removed = house.remove("v");
    assert_eq!(removed.branch, BranchFate::Deleted(branch("runtree/v")));
    assert_eq!(removed.saved_commits, [commit(&work)]);
}

#[test]
fn the_repository_of_a_submodule_keeps() {
    let house = House::new();
    house.add("v");
    let modules = house.fixture.path().join(".git/worktrees/v/modules/sub");
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    let kept = house.remove("v");
    assert!(
        matches!(kept.outcome, Outcome::Kept(KeepReason::NestedRepository(_))),
        "{kept:?}"
    );
    assert!(modules.join("HEAD").exists());
}

#[test]
fn settings_and_messages_of_the_worktree_alone_are_saved() {
    for file in ["config.worktree", "COMMIT_EDITMSG"] {
        let house = House::new();
        house.add("v");
        let text = "[user]\n\tnote = precious\n";
        fs::write(
            house.fixture.path().join(".git/worktrees/v").join(file),
            text,
        )
        .unwrap();
        let removed = house.remove("v");
        assert_removed(&removed);
        let saved = format!("{}:admin/{file}", removed.salvage.unwrap());
        assert_eq!(house.git(&["show", &saved]), text.trim_end());
    }
}

#[test]
fn a_file_that_grows_while_it_is_saved_keeps_and_harms_no_object() {
    let house = House::new();
    let worktree = house.add("v");
    let file = worktree.path().join("growing.log");
    fs::write(&file, vec![b'x'; 8_000_000]).unwrap();
    let objects = house.fixture.path().join(".git/objects");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = thread::spawn(move || {
        let mut file = fs::File::options().append(true).open(&file).unwrap();
        let storing = || {
            fs::read_dir(&objects)
                .unwrap()
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"))
        };
        while !stopped.load(Ordering::SeqCst) {
            if storing() {
                file.write_all(b"another line\n").unwrap();
            }
            thread::yield_now();
        }
    });
    let kept = house.remove("v");
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert!(matches!(kept.outcome, Outcome::Kept(_)), "{kept:?}");
    house.check_agreement();
}

#[test]
fn a_salvage_that_lost_its_objects_hides_no_other() {
    let house = House::new();
    for name in ["a", "b"] {
        let worktree = house.add(name);
        git::write(worktree.path(), "dirty", name);
        house.remove(name);
    }
    let first = &house.worktrees.salvages().unwrap()[0];
    let broken = first.commit.to_string();
    let object = house.fixture.path().join(".git/objects");
    fs::remove_file(object.join(&broken[..2]).join(&broken[2..])).unwrap();
    let left = builder(house.fixture.path()).open().unwrap();
    assert!(left.salvage(&first.reference).is_err());
    let names: Vec<_> = left
        .salvages()
        .unwrap()
        .into_iter()
        .map(|salvage| salvage.name)
        .collect();
    assert_eq!(names, [directory("b")]);
}

#[test]
fn a_removal_that_completes_an_earlier_one_tells_what_became_of_it() {
    let house = House::new();
    let worktree = house.add("v");
    git::write(worktree.path(), "dirty", "x");
    let observer = Meanwhile(|step| {
        if step == Step::Rescanned {
            Onward::Fail
        } else {
            Onward::Continue
        }
    });
    let failing = builder(house.fixture.path())
        .observer(Arc::new(observer))
        .open()
        .unwrap();
    failing.remove(&removal("v")).unwrap_err();
    let removed = house.remove("v");
    assert_removed(&removed);
    assert_eq!(removed.branch, BranchFate::Deleted(branch("runtree/v")));
    let salvages = house.worktrees.salvages().unwrap();
    assert_eq!(removed.salvage.as_ref(), Some(&salvages[0].reference));
    house.check_agreement();
}

#[test]
fn bytes_that_a_filter_hides_are_not_lost() {
    let house = House::new();
    house.git(&["config", "filter.strip.clean", "sed /secret/d"]);
    house.git(&["config", "filter.strip.smudge", "cat"]);
    let house = House::of(house.fixture);
    let worktree = house.add("v");
    git::write(
        worktree.path(),
        ".gitattributes",
        "README.md filter=strip\n",
    );
    git::write(worktree.path(), "README.md", "hello\nsecret\n");
    settle(worktree.path(), "README.md");
    hides_nothing(&house, "README.md");
}

#[test]
fn bytes_of_the_same_length_that_a_filter_hides_are_not_lost() {
    let fixture = GitFixture::new();
    fixture.write(".gitattributes", "*.cfg filter=mask\n");
    fixture.write("a.cfg", "password=XXXXXXX\n");
    fixture.commit_all("attributes");
    fixture.git([
        "config",
        "filter.mask.clean",
        "sed s/password=......./password=XXXXXXX/",
    ]);
    fixture.git(["config", "filter.mask.smudge", "cat"]);
    let house = House::of(fixture);
    let worktree = house.add("v");
    git::write(worktree.path(), "a.cfg", "password=hunter2\n");
    settle(worktree.path(), "a.cfg");
    hides_nothing(&house, "a.cfg");
}

/// Stages a file in an index that is newer than the file, so that git takes the file's times for proof.
fn settle(path: &Path, file: &str) {
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    let open = fs::File::options().append(true).open(path.join(file));
    open.unwrap().set_modified(long_ago).unwrap();
    git::git(path, ["add", file]);
}

#[track_caller]
fn hides_nothing(house: &House, file: &str) {
    let removed = house.remove("v");
    assert_removed(&removed);
    let found = removed
        .saved
        .iter()
        .any(|saved| saved.path.as_bytes() == file.as_bytes() && saved.dirt == Dirt::Modified);
    assert!(found, "{removed:?}");
}
