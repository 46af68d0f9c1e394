//! Removing and restoring: nothing is lost that plain git loses, and doubt keeps.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
};

use runtree_testkit::git;
use runtree_worktree::{
    AddWorktree, BranchFate, BranchPolicy, Checkout, Dirt, Disposable, ErrorKind, InProgress,
    InProgressPolicy, KeepReason, Outcome, Probe, Removal, RemoveWorktree, RestoreBranch,
    RestoreWorktree, Worktree,
};

use crate::support::{
    House, assert_removed, branch, commit, directory, entries, git_view, owner, removal, tree_of,
};

/// Removes a worktree, checks that plain git's removal would have succeeded where `git_loses`, restores it and compares.
#[track_caller]
fn survives_removal(house: &House, worktree: &Worktree, request: &RemoveWorktree) -> Removal {
    let name = worktree.name().as_str();
    let (files, view) = (tree_of(worktree.path()), git_view(worktree.path()));
    let plan = house.worktrees.plan_remove(request).unwrap();
    assert_eq!(plan.outcome, Outcome::WouldRemove, "{plan:?}");
    assert_eq!(files, tree_of(worktree.path()), "a plan changes nothing");

    let removal = house.worktrees.remove(request).unwrap();
    assert_removed(&removal);
    assert_eq!(plan.saved, removal.saved);
    assert_eq!(plan.branch, removal.branch);
    assert!(!worktree.path().exists());
    house.check_agreement();

    let salvage = removal.salvage.clone().expect("something was saved");
    let listed = house.worktrees.salvages().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].reference, salvage);
    assert_eq!(listed[0].files, removal.saved);
    assert_eq!(listed[0].ownership, *worktree.ownership());

    let again = RestoreWorktree::new(directory(name), owner(name));
    let restored = house.worktrees.restore(&salvage, &again).unwrap();
    assert_eq!(tree_of(restored.path()), files);
    assert_eq!(git_view(restored.path()), view);
    house.check_agreement();

    house
        .worktrees
        .drop_salvage(&salvage, &listed[0].commit)
        .unwrap();
    assert!(house.worktrees.salvages().unwrap().is_empty());
    removal
}

/// Shows that plain git destroys what the test is about: its removal succeeds.
#[track_caller]
fn git_destroys(house: &House, prepare: impl Fn(&Path)) {
    let path = house.fixture.place().join("plain");
    let path = path.to_str().unwrap();
    house.git(&["worktree", "add", "-q", "-b", "plain", path]);
    prepare(Path::new(path));
    house.git(&["worktree", "remove", path]);
    assert!(!Path::new(path).exists());
    house.git(&["branch", "-D", "-q", "plain"]);
}

fn has(removal: &Removal, path: &str, dirt: Dirt) -> bool {
    removal
        .saved
        .iter()
        .any(|file| file.path.as_bytes() == path.as_bytes() && file.dirt == dirt)
}

#[test]
fn a_clean_worktree_goes_without_a_salvage_and_takes_its_branch() {
    let house = House::new();
    house.add("clean");
    let removal = house.remove("clean");
    assert_removed(&removal);
    assert_eq!(removal.salvage, None);
    assert_eq!(removal.branch, BranchFate::Deleted(branch("runtree/clean")));
    assert_eq!(house.git(&["branch", "--list", "runtree/*"]), "");
    assert!(entries(house.worktrees.root()).is_empty());
    house.check_agreement();
    assert_eq!(house.remove("clean").outcome, Outcome::AlreadyGone);
}

#[test]
fn staged_unstaged_and_untracked_state_comes_back_as_it_was() {
    let house = House::new();
    let worktree = house.add("busy");
    let at = |path: &str| worktree.path().join(path);
    git::write(worktree.path(), "README.md", "staged\n");
    git::write(worktree.path(), "staged-new", "staged\n");
    git::git(worktree.path(), ["add", "README.md", "staged-new"]);
    git::git(worktree.path(), ["rm", "-q", "--cached", "src/main.rs"]);
    git::write(worktree.path(), "README.md", "and modified\n");
    git::write(worktree.path(), "dir with space/ünïcode", "untracked\n");
    git::write(worktree.path(), "announced", "later\n");
    git::git(worktree.path(), ["add", "-N", "announced"]);
    fs::remove_file(at("src/deep/er/leaf.txt")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("src/main.rs", at("link")).unwrap();
    symlink("/nowhere", at("dangling")).unwrap();
    fs::write(at("secret"), "key").unwrap();
    fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir_all(at("empty/er")).unwrap();
    fs::write(at("binary"), [0, 159, 146, 150]).unwrap();

    let removal = survives_removal(&house, &worktree, &removal("busy"));
    for (path, dirt) in [
        ("README.md", Dirt::Staged),
        ("README.md", Dirt::Modified),
        ("staged-new", Dirt::Staged),
        ("src/main.rs", Dirt::Staged),
        ("src/main.rs", Dirt::Untracked),
        ("announced", Dirt::IntentToAdd),
        ("src/deep/er/leaf.txt", Dirt::Deleted),
        ("link", Dirt::Modified),
        ("run.sh", Dirt::Modified),
        ("secret", Dirt::Untracked),
    ] {
        assert!(
            has(&removal, path, dirt),
            "{path} {dirt:?} in {:?}",
            removal.saved
        );
    }
}

#[test]
fn untracked_files_hidden_by_configuration_are_not_lost() {
    let house = House::new();
    house.git(&["config", "status.showUntrackedFiles", "no"]);
    let house = House::of(house.fixture);
    let prepare = |path: &Path| git::write(path, "precious", "x");
    git_destroys(&house, prepare);
    let worktree = house.add("hidden");
    prepare(worktree.path());
    let (files, removal) = (tree_of(worktree.path()), house.remove("hidden"));
    assert!(has(&removal, "precious", Dirt::Untracked), "{removal:?}");
    let again = RestoreWorktree::new(directory("hidden"), owner("hidden"));
    let restored = house
        .worktrees
        .restore(&removal.salvage.unwrap(), &again)
        .unwrap();
    assert_eq!(tree_of(restored.path()), files);
}

#[test]
fn ignored_files_are_not_lost() {
    let house = House::new();
    let prepare = |path: &Path| git::write(path, ".env", "TOKEN=1");
    git_destroys(&house, prepare);
    let worktree = house.add("ignored");
    prepare(worktree.path());
    let removal = survives_removal(&house, &worktree, &removal("ignored"));
    assert!(has(&removal, ".env", Dirt::Ignored));
}

#[test]
fn disposable_files_go_only_where_git_ignores_them() {
    let house = House::new();
    let worktree = house.add("built");
    git::write(worktree.path(), "target/debug/big", "object");
    git::write(worktree.path(), "src/target/mine", "not ignored");
    git::write(worktree.path(), "a.log", "log");
    let request = removal("built").disposable(Disposable::new(["target", "a.log"]).unwrap());
    let removal = house.worktrees.remove(&request).unwrap();
    assert_removed(&removal);
    let disposed: Vec<_> = removal.disposed.iter().map(ToString::to_string).collect();
    assert_eq!(disposed, ["a.log", "target"]);
    assert!(has(&removal, "src/target/mine", Dirt::Untracked));
    assert_eq!(removal.saved.len(), 1);
}

#[test]
fn files_marked_skip_worktree_or_assume_unchanged_are_not_lost() {
    for (flag, dirt) in [
        ("--skip-worktree", Dirt::SkipWorktree),
        ("--assume-unchanged", Dirt::AssumeUnchanged),
    ] {
        let house = House::new();
        let prepare = |path: &Path| {
            git::git(path, ["update-index", flag, "README.md"]);
            git::write(path, "README.md", "local\n");
        };
        git_destroys(&house, prepare);
        let worktree = house.add("marked");
        prepare(worktree.path());
        let removal = survives_removal(&house, &worktree, &removal("marked"));
        assert!(has(&removal, "README.md", dirt), "{removal:?}");
    }
}

#[test]
fn commits_on_a_detached_head_are_not_lost() {
    let house = House::new();
    let prepare = |path: &Path| {
        git::git(path, ["checkout", "-q", "--detach"]);
        git::write(path, "work", "x");
        git::git(path, ["add", "."]);
        git::git(path, ["commit", "-q", "-m", "detached work"]);
    };
    git_destroys(&house, prepare);
    let worktree = house.add("detached");
    prepare(worktree.path());
    let head = git::git(worktree.path(), ["rev-parse", "HEAD"]);
    let removal = survives_removal(&house, &worktree, &removal("detached"));
    assert_eq!(removal.saved_commits, [commit(&head)]);
}

#[test]
fn commits_that_only_the_reflog_holds_are_not_lost() {
    let house = House::new();
    let prepare = |path: &Path| {
        git::git(path, ["checkout", "-q", "--detach"]);
        git::git(path, ["commit", "-q", "--allow-empty", "-m", "dropped"]);
        git::git(path, ["checkout", "-q", "-"]);
    };
    git_destroys(&house, prepare);
    let worktree = house.add("reflog");
    prepare(worktree.path());
    let dropped = git::git(worktree.path(), ["rev-parse", "HEAD@{1}"]);
    let removal = house.remove("reflog");
    assert_removed(&removal);
    assert_eq!(removal.saved_commits, [commit(&dropped)]);
    house.git(&["reflog", "expire", "--expire=now", "--all"]);
    house.git(&["gc", "-q", "--prune=now"]);
    assert_eq!(house.git(&["cat-file", "-t", &dropped]), "commit");
    let again = RestoreWorktree::new(directory("reflog"), owner("reflog"));
    let restored = house
        .worktrees
        .restore(&removal.salvage.unwrap(), &again)
        .unwrap();
    let log = git::git(restored.path(), ["log", "-g", "--format=%H", "HEAD"]);
    assert!(log.contains(&dropped), "{log}");
}

/// Leaves a merge with a conflict in a worktree.
fn begin_merge(house: &House, path: &Path) {
    house.git(&["branch", "-f", "other", "main"]);
    git::write(path, "README.md", "ours\n");
    git::git(path, ["commit", "-q", "-a", "-m", "ours"]);
    let other = house.fixture.place().join("other");
    house.git(&["worktree", "add", "-q", other.to_str().unwrap(), "other"]);
    git::write(&other, "README.md", "theirs\n");
    git::git(&other, ["commit", "-q", "-a", "-m", "theirs"]);
    house.git(&["worktree", "remove", other.to_str().unwrap()]);
    assert!(!git::try_git(path, ["merge", "other"]).status.success());
}

#[test]
fn a_merge_in_progress_keeps_or_is_saved_whole_on_request() {
    let house = House::new();
    let worktree = house.add("merging");
    begin_merge(&house, worktree.path());
    let kept = house.remove("merging");
    assert_eq!(
        kept.outcome,
        Outcome::Kept(KeepReason::InProgress(InProgress::Merge))
    );
    assert!(worktree.path().exists());

    let request = removal("merging").in_progress(InProgressPolicy::Salvage);
    let removal = survives_removal(&house, &worktree, &request);
    assert!(has(&removal, "README.md", Dirt::Conflicted));
    assert!(matches!(removal.branch, BranchFate::KeptUnmerged(_)));
}

#[test]
fn a_concluded_looking_merge_is_not_lost() {
    let house = House::new();
    let prepare = |path: &Path| {
        house.git(&["branch", "-f", "side", "main"]);
        let side = house.fixture.place().join("side");
        house.git(&["worktree", "add", "-q", side.to_str().unwrap(), "side"]);
        git::git(&side, ["commit", "-q", "--allow-empty", "-m", "side"]);
        house.git(&["worktree", "remove", side.to_str().unwrap()]);
        git::git(path, ["merge", "-q", "--no-ff", "--no-commit", "side"]);
    };
    git_destroys(&house, prepare);
    let worktree = house.add("merging");
    prepare(worktree.path());
    let request = removal("merging").in_progress(InProgressPolicy::Salvage);
    survives_removal(&house, &worktree, &request);
}

#[test]
fn nested_repositories_keep_ignored_or_not() {
    let house = House::new();
    let prepare = |path: &Path| {
        let nested = path.join("target/nested");
        fs::create_dir_all(&nested).unwrap();
        git::git(path, ["init", "-q", "target/nested"]);
        git::write(&nested, "uncommitted", "x");
    };
    git_destroys(&house, prepare);
    let worktree = house.add("nesting");
    prepare(worktree.path());
    let request = removal("nesting").disposable(Disposable::new(["target"]).unwrap());
    let kept = house.worktrees.remove(&request).unwrap();
    let Outcome::Kept(KeepReason::NestedRepository(path)) = &kept.outcome else {
        panic!("{kept:?}");
    };
    assert_eq!(path.as_bytes(), b"target/nested");
    fs::remove_dir_all(worktree.path().join("target/nested")).unwrap();
    git::git(worktree.path(), ["init", "-q", "--bare", "target/bare.git"]);
    let kept = house.remove("nesting");
    assert!(
        matches!(kept.outcome, Outcome::Kept(KeepReason::NestedRepository(_))),
        "{kept:?}"
    );
    assert!(worktree.path().exists());
}

#[test]
fn doubt_keeps_and_says_why() {
    let house = House::new();
    let path = |name: &str| house.worktrees.root().join(name);
    let admin = |name: &str| house.fixture.path().join(".git/worktrees").join(name);
    let foreign = path("foreign");
    house.git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "foreign",
        foreign.to_str().unwrap(),
    ]);
    for name in [
        "locked", "other", "moved", "swapped", "unlinked", "socket", "staged", "used",
    ] {
        house.add(name);
    }
    house
        .worktrees
        .add(&house.request("kept").persistent())
        .unwrap();
    fs::write(admin("locked").join("locked"), "a person's reason\n").unwrap();
    fs::rename(path("swapped"), path("aside")).unwrap();
    fs::create_dir(path("swapped")).unwrap();
    fs::copy(path("aside").join(".git"), path("swapped").join(".git")).unwrap();
    fs::write(path("unlinked").join(".git"), "gitdir: /nowhere\n").unwrap();
    let _socket = UnixListener::bind(path("socket").join("socket")).unwrap();
    fs::write(admin("staged").join("index.lock"), "").unwrap();
    let mut user = Command::new("sleep")
        .arg("600")
        .current_dir(path("used"))
        .spawn()
        .unwrap();

    type Check = fn(&KeepReason) -> bool;
    let cases: [(&str, Check); 9] = [
        ("foreign", |why| *why == KeepReason::Foreign),
        ("locked", |why| {
            *why == KeepReason::Locked("a person's reason".to_owned())
        }),
        ("other", |why| matches!(why, KeepReason::OwnedByOther(_))),
        ("swapped", |why| *why == KeepReason::IdentityChanged),
        ("unlinked", |why| *why == KeepReason::LinkMismatch),
        ("socket", |why| matches!(why, KeepReason::CannotSave(_))),
        ("staged", |why| {
            *why == KeepReason::LockFile("index.lock".to_owned())
        }),
        ("kept", |why| *why == KeepReason::Persistent),
        ("used", |why| matches!(why, KeepReason::InUse { .. })),
    ];
    for (name, expected) in cases {
        let token = if name == "other" { "somebody" } else { name };
        let request = RemoveWorktree::new(directory(name), owner(token));
        let before = tree_of(&path(name)).len();
        let plan = house.worktrees.plan_remove(&request).unwrap();
        let removal = house.worktrees.remove(&request).unwrap();
        assert_eq!(plan, removal, "the plan is the run");
        let Outcome::Kept(reason) = &removal.outcome else {
            panic!("{name}: {removal:?}");
        };
        assert!(expected(reason), "{name}: {reason:?}");
        assert_eq!(tree_of(&path(name)).len(), before, "{name}");
        assert!(admin(name).exists(), "{name}");
    }
    user.kill().unwrap();
    user.wait().unwrap();

    house.git(&["worktree", "unlock", path("moved").to_str().unwrap()]);
    house.git(&[
        "worktree",
        "move",
        path("moved").to_str().unwrap(),
        path("there").to_str().unwrap(),
    ]);
    assert_removed(&house.remove("moved"));
    assert!(!path("there").exists());
}

#[test]
fn a_directory_that_is_gone_does_not_hold_its_registration_nor_lose_its_commits() {
    let house = House::new();
    let worktree = house.add("gone");
    git::git(worktree.path(), ["checkout", "-q", "--detach"]);
    git::git(
        worktree.path(),
        ["commit", "-q", "--allow-empty", "-m", "only here"],
    );
    let head = git::git(worktree.path(), ["rev-parse", "HEAD"]);
    fs::remove_dir_all(worktree.path()).unwrap();
    let removal = house.remove("gone");
    assert_removed(&removal);
    assert_eq!(removal.saved_commits, [commit(&head)]);
    house.check_agreement();

    house.add("afar");
    fs::remove_dir_all(house.worktrees.root()).unwrap();
    let kept = house.remove("afar");
    assert_eq!(kept.outcome, Outcome::Kept(KeepReason::DirectoryMissing));
}

#[test]
fn a_branch_stays_while_nothing_else_holds_its_commits() {
    let house = House::new();
    let worktree = house.add("work");
    git::git(
        worktree.path(),
        ["commit", "-q", "--allow-empty", "-m", "work"],
    );
    let kept = house.remove("work");
    assert_removed(&kept);
    assert_eq!(
        kept.branch,
        BranchFate::KeptUnmerged(branch("runtree/work"))
    );
    assert_eq!(kept.salvage, None);
    let head = house.worktrees.resolve("runtree/work").unwrap();
    let request = AddWorktree::new(
        directory("more"),
        Checkout::Existing(branch("runtree/work")),
        head,
        owner("more"),
    );
    house.worktrees.add(&request).unwrap();
    let kept = house.remove("more");
    assert_eq!(kept.branch, BranchFate::KeptForeign(branch("runtree/work")));

    house.add("policy");
    let request = removal("policy").branch(BranchPolicy::Keep);
    let kept = house.worktrees.remove(&request).unwrap();
    assert_eq!(
        kept.branch,
        BranchFate::KeptByPolicy(branch("runtree/policy"))
    );

    let worktree = house.add("merged");
    git::git(
        worktree.path(),
        ["commit", "-q", "--allow-empty", "-m", "merged"],
    );
    house.git(&["merge", "-q", "--ff-only", "runtree/merged"]);
    let removal = house.remove("merged");
    assert_eq!(
        removal.branch,
        BranchFate::Deleted(branch("runtree/merged"))
    );
    house.check_agreement();
}

#[test]
fn a_restore_onto_a_branch_that_moved_is_refused_and_another_branch_works() {
    let house = House::new();
    let worktree = house.add("old");
    git::git(
        worktree.path(),
        ["commit", "-q", "--allow-empty", "-m", "one"],
    );
    git::write(worktree.path(), "file", "x");
    let salvage = house.remove("old").salvage.unwrap();
    house.git(&["branch", "-f", "runtree/old", "main"]);
    let request = RestoreWorktree::new(directory("old"), owner("old"));
    let error = house.worktrees.restore(&salvage, &request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BranchMoved, "{error}");
    assert!(entries(house.worktrees.root()).is_empty());

    let request = request.branch(RestoreBranch::New(branch("rescued")));
    let restored = house.worktrees.restore(&salvage, &request).unwrap();
    assert_eq!(fs::read(restored.path().join("file")).unwrap(), b"x");
    assert_eq!(
        git::git(restored.path(), ["log", "-1", "--format=%s"]),
        "one"
    );
    house.check_agreement();
}

#[test]
fn a_salvage_is_dropped_only_as_the_commit_that_was_seen() {
    let house = House::new();
    for _ in 0..2 {
        let worktree = house.add("twice");
        git::write(
            worktree.path(),
            "file",
            &format!("{:?}", worktree.created()),
        );
        house.remove("twice");
    }
    let salvages = house.worktrees.salvages().unwrap();
    let names: Vec<_> = salvages
        .iter()
        .map(|salvage| salvage.reference.as_str())
        .collect();
    assert_eq!(
        names,
        ["refs/runtree/salvage/twice", "refs/runtree/salvage/twice.2"]
    );
    let error = house
        .worktrees
        .drop_salvage(&salvages[0].reference, &salvages[1].commit)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SalvageCorrupt);
    house
        .worktrees
        .drop_salvage(&salvages[0].reference, &salvages[0].commit)
        .unwrap();
    let error = house.worktrees.salvage(&salvages[0].reference).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SalvageNotFound);
}

#[test]
fn an_inspection_names_each_kind_and_changes_nothing() {
    let house = House::new();
    let worktree = house.add("seen");
    let inspection = house.worktrees.inspect(worktree.path()).unwrap();
    assert!(inspection.is_clean(), "{inspection:?}");
    git::write(worktree.path(), "README.md", "changed\n");
    git::write(worktree.path(), "x.log", "ignored\n");
    git::git(worktree.path(), ["init", "-q", "inner"]);
    begin_merge_files(&house, worktree.path());
    let inspection = house.worktrees.inspect(worktree.path()).unwrap();
    let Probe::Dirty(files) = &inspection.files else {
        panic!("{inspection:?}");
    };
    let kinds: Vec<_> = files.iter().map(|file| file.dirt).collect();
    assert_eq!(kinds, [Dirt::Modified, Dirt::Ignored]);
    assert_eq!(
        inspection.in_progress,
        Probe::Dirty(vec![InProgress::Merge])
    );
    assert!(!inspection.nested.is_clean());
    assert!(inspection.only_here.is_clean());
    let error = house
        .worktrees
        .inspect(PathBuf::from("/nowhere"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn begin_merge_files(house: &House, path: &Path) {
    let admin = git::git(path, ["rev-parse", "--absolute-git-dir"]);
    let head = house.git(&["rev-parse", "HEAD"]);
    fs::write(Path::new(&admin).join("MERGE_HEAD"), format!("{head}\n")).unwrap();
}
