//! Adding: what git sees afterwards, and that mistakes change nothing.

use std::fs;

use runtree_testkit::git::{self, GitFixture, ObjectFormat};
use runtree_worktree::{
    AddWorktree, Checkout, ErrorKind, Interrupt, Reason, RemoveWorktree, Whose, Worktrees,
};

use crate::support::{
    House, assert_removed, branch, builder, commit, directory, entries, owner, tree_of,
};

#[test]
fn an_added_worktree_is_what_git_would_have_made() {
    let house = House::new();
    let ours = house.add("ours");
    house.check_agreement();
    let theirs = house.fixture.place().join("theirs");
    house.git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "theirs",
        theirs.to_str().unwrap(),
    ]);

    assert_eq!(tree_of(ours.path()), tree_of(&theirs));
    assert_eq!(
        git::git(ours.path(), ["status", "--porcelain=v2", "--ignored"]),
        ""
    );
    assert_eq!(
        git::git(ours.path(), ["ls-files", "--stage"]),
        git::git(&theirs, ["ls-files", "--stage"])
    );
    assert_eq!(
        git::git(ours.path(), ["rev-parse", "--symbolic-full-name", "HEAD"]),
        "refs/heads/runtree/ours"
    );
    house.check_agreement();
}

#[test]
fn status_is_clean_without_a_refresh_of_the_index() {
    let house = House::new();
    let worktree = house.add("fresh");
    // Plumbing compares what the index noted with the disk, and never refreshes.
    assert_eq!(git::git(worktree.path(), ["diff-files"]), "");
    assert_eq!(
        git::git(worktree.path(), ["diff-index", "--cached", "HEAD"]),
        ""
    );
}

#[test]
fn the_default_root_is_a_sibling_named_after_the_main_worktree() {
    let house = House::new();
    let expected = house.fixture.path().with_file_name("main.worktrees");
    assert_eq!(
        house.worktrees.root(),
        expected.canonicalize().unwrap_or(expected)
    );
    assert_eq!(house.worktrees.main_path(), house.fixture.path());
}

#[test]
fn it_is_locked_until_it_is_unlocked_and_the_reason_names_the_ownership() {
    let house = House::new();
    let request = house
        .request("held")
        .reason(Reason::new("builder").unwrap());
    house.worktrees.add(&request).unwrap();
    let listed = house.worktrees.list().unwrap();
    assert_eq!(
        listed[1].locked(),
        Some("runtree: held/1 held by test: builder")
    );
    assert_eq!(
        listed[1].whose(),
        &Whose::Ours {
            ownership: owner("held"),
            ready: true
        }
    );
    let refused = git::try_git(
        house.fixture.path(),
        ["worktree", "remove", listed[1].path().to_str().unwrap()],
    );
    assert!(!refused.status.success());

    assert!(
        house
            .worktrees
            .unlock(&directory("held"), &owner("held"))
            .unwrap()
    );
    assert!(
        !house
            .worktrees
            .unlock(&directory("held"), &owner("held"))
            .unwrap()
    );
    let error = house
        .worktrees
        .unlock(&directory("held"), &owner("other"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOurs);
    house.check_agreement();
    house.git(&["worktree", "remove", listed[1].path().to_str().unwrap()]);
    house.check_agreement();
}

#[test]
fn existing_branches_and_detached_heads_are_checked_out() {
    let house = House::new();
    let head = house.worktrees.resolve("HEAD").unwrap();
    house.git(&["branch", "topic"]);
    let add = |name: &str, checkout| AddWorktree::new(directory(name), checkout, head, owner(name));
    let topic = house
        .worktrees
        .add(&add("topic", Checkout::Existing(branch("topic"))))
        .unwrap();
    let detached = house
        .worktrees
        .add(&add("detached", Checkout::Detached))
        .unwrap();
    assert_eq!(
        git::git(topic.path(), ["symbolic-ref", "HEAD"]),
        "refs/heads/topic"
    );
    assert_eq!(
        git::git(detached.path(), ["rev-parse", "HEAD"]),
        head.as_str()
    );
    assert_eq!(detached.branch(), None);
    house.check_agreement();

    for name in ["topic", "detached"] {
        assert_removed(&house.remove(name));
    }
    assert_eq!(house.git(&["branch", "--list", "topic"]).trim(), "topic");
    house.check_agreement();
}

#[test]
fn sha256_repositories_are_served() {
    let house = House::of(GitFixture::with_format(ObjectFormat::Sha256));
    let worktree = house.add("wide");
    assert_eq!(worktree.base().as_str().len(), 64);
    fs::write(worktree.path().join("new"), "x").unwrap();
    house.check_agreement();
    let removal = house.remove("wide");
    assert_removed(&removal);
    assert!(removal.salvage.is_some());
    house.check_agreement();
}

#[test]
fn filters_and_line_endings_are_as_git_writes_them() {
    let house = House::new();
    house
        .fixture
        .write(".gitattributes", "*.crlf eol=crlf\n*.up filter=upper\n");
    house.fixture.write("a.crlf", "one\ntwo\n");
    house.git(&["config", "filter.upper.smudge", "tr a-z A-Z"]);
    house.git(&["config", "filter.upper.clean", "tr A-Z a-z"]);
    house.fixture.write("b.up", "quiet\n");
    house.fixture.commit_all("attributes");
    let house = House::of(house.fixture);
    let ours = house.add("filtered");
    let theirs = house.fixture.place().join("theirs");
    house.git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "theirs",
        theirs.to_str().unwrap(),
    ]);
    assert_eq!(fs::read(ours.path().join("b.up")).unwrap(), b"QUIET\n");
    assert_eq!(tree_of(ours.path()), tree_of(&theirs));
    assert_eq!(git::git(ours.path(), ["diff-files"]), "");
    let removal = house.remove("filtered");
    assert_removed(&removal);
    assert_eq!(removal.salvage, None, "{removal:?}");
}

#[test]
fn submodules_get_an_empty_directory_as_from_git() {
    let inner = GitFixture::new();
    let house = House::new();
    house.git(&[
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        inner.path().to_str().unwrap(),
        "sub",
    ]);
    house.fixture.commit_all("submodule");
    let worktree = house.add("with-sub");
    assert!(worktree.path().join("sub").is_dir());
    assert_eq!(git::git(worktree.path(), ["status", "--porcelain=v2"]), "");
    let removal = house.remove("with-sub");
    assert_removed(&removal);
    assert_eq!(removal.salvage, None, "{removal:?}");
}

#[test]
fn every_place_in_a_repository_opens_it() {
    let house = House::new();
    let linked = house.add("linked");
    for path in [
        house.fixture.path().to_owned(),
        house.fixture.path().join("src"),
        house.fixture.path().join(".git"),
        linked.path().to_owned(),
        house.fixture.path().join(".git/worktrees/linked"),
    ] {
        let opened = builder(&path).open().unwrap();
        assert_eq!(opened.main_path(), house.worktrees.main_path(), "{path:?}");
        assert_eq!(opened.root(), house.worktrees.root());
    }
}

#[test]
fn revisions_resolve_to_commits() {
    let house = House::new();
    let head = house.git(&["rev-parse", "HEAD"]);
    house.git(&["tag", "-a", "v1", "-m", "one"]);
    house.git(&["branch", "other"]);
    for revision in ["HEAD", "main", "refs/heads/other", "v1", &head, &head[..10]] {
        assert_eq!(
            house.worktrees.resolve(revision).unwrap().as_str(),
            head,
            "{revision}"
        );
    }
    for revision in ["nothing", "HEAD:README.md", "HEAD~7", ""] {
        let error = house.worktrees.resolve(revision).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::RevisionNotFound,
            "{revision}: {error}"
        );
        assert!(
            error.to_string().contains(&format!("{revision:?}")),
            "{error}"
        );
    }
}

/// Everything a refused request could have touched.
fn state(house: &House) -> (String, String, Vec<String>, Vec<String>) {
    (
        house.git(&["for-each-ref"]),
        house.git(&["worktree", "list", "--porcelain"]),
        entries(house.fixture.place()),
        entries(house.worktrees.root()),
    )
}

#[test]
fn a_refused_request_changes_nothing() {
    let house = House::new();
    let head = house.worktrees.resolve("HEAD").unwrap();
    house.add("taken");
    house.git(&["branch", "free"]);
    house.git(&["branch", "behind"]);
    let newer = commit(&house.fixture.commit_all("newer"));
    let root = house.worktrees.root().to_owned();
    fs::create_dir(root.join("occupied")).unwrap();
    std::os::unix::fs::symlink("/nowhere", root.join("dangling")).unwrap();
    let add = |name: &str, checkout, base: &runtree_id::CommitId| {
        AddWorktree::new(directory(name), checkout, *base, owner(name))
    };
    let new = |name: &str| Checkout::NewBranch(branch(name));
    let old = |name: &str| Checkout::Existing(branch(name));
    let interrupted = Interrupt::new();
    interrupted.trigger();
    let unknown = commit(&"1".repeat(40));
    let cases = [
        (
            add("a", new("free"), &head),
            ErrorKind::BranchExists,
            "free",
        ),
        (
            add("a", old("gone"), &head),
            ErrorKind::BranchNotFound,
            "gone",
        ),
        (
            add("a", old("main"), &newer),
            ErrorKind::BranchCheckedOut,
            "main",
        ),
        (
            add("a", old("runtree/taken"), &head),
            ErrorKind::BranchCheckedOut,
            "taken",
        ),
        (
            add("a", old("behind"), &newer),
            ErrorKind::BranchMoved,
            "behind",
        ),
        (
            add("taken", new("fresh"), &head),
            ErrorKind::NameTaken,
            "taken",
        ),
        (
            add("occupied", new("fresh"), &head),
            ErrorKind::PathExists,
            "occupied",
        ),
        (
            add("dangling", new("fresh"), &head),
            ErrorKind::PathExists,
            "dangling",
        ),
        (
            add("a", new("fresh"), &unknown),
            ErrorKind::RevisionNotFound,
            "1111",
        ),
        (
            add("a", new("fresh"), &head).interrupt(interrupted),
            ErrorKind::Interrupted,
            "interrupted",
        ),
    ];
    let before = state(&house);
    for (request, kind, named) in cases {
        let error = house.worktrees.add(&request).unwrap_err();
        assert_eq!(error.kind(), kind, "{request:?}: {error}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(state(&house), before, "{request:?}");
    }
    fs::remove_dir(root.join("occupied")).unwrap();
    fs::remove_file(root.join("dangling")).unwrap();
    house.check_agreement();
}

#[test]
fn a_branch_under_a_rebase_elsewhere_is_not_checked_out_twice() {
    let house = House::new();
    let first = house.add("first");
    let base = house.worktrees.resolve("HEAD").unwrap();
    let git_dir = house.fixture.path().join(".git/worktrees/first");
    git::git(first.path(), ["checkout", "-q", "--detach"]);
    fs::create_dir(git_dir.join("rebase-merge")).unwrap();
    fs::write(
        git_dir.join("rebase-merge/head-name"),
        "refs/heads/runtree/first\n",
    )
    .unwrap();
    let request = AddWorktree::new(
        directory("second"),
        Checkout::Existing(branch("runtree/first")),
        base,
        owner("second"),
    );
    let error = house.worktrees.add(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BranchCheckedOut, "{error}");
}

#[test]
fn places_that_are_no_usable_repository_are_told_apart() {
    let plain = tempfile::tempdir().unwrap();
    let error = Worktrees::open(plain.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotARepository, "{error}");
    assert!(error.to_string().contains(plain.path().to_str().unwrap()));
    let error = Worktrees::open(plain.path().join("missing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotARepository, "{error}");

    let empty = House::of(GitFixture::empty());
    let error = empty.worktrees.resolve("HEAD").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCommit, "{error}");
    let request = AddWorktree::new(
        directory("a"),
        Checkout::NewBranch(branch("a")),
        commit(&"1".repeat(40)),
        owner("a"),
    );
    let error = empty.worktrees.add(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCommit, "{error}");

    let bare = House::of(GitFixture::bare());
    let error = bare.worktrees.add(&bare.request("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bare, "{error}");
    assert!(bare.worktrees.list().unwrap()[0].is_bare());

    let reftable = tempfile::tempdir().unwrap();
    git::git(reftable.path(), ["init", "-q", "--ref-format=reftable"]);
    let error = Worktrees::open(reftable.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
}

#[test]
fn a_root_that_endangers_what_lies_in_it_is_refused() {
    let house = House::new();
    let main = house.fixture.path();
    let open = |root: &std::path::Path| builder(main).root(root).open();
    for root in ["", "src", "wt", ".git/wt"] {
        let error = open(&main.join(root)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeRoot, "{root}: {error}");
    }
    // Ignored by the fixture's .gitignore, and nothing tracked inside.
    assert!(open(&main.join("target/wt")).is_ok());
    let error = builder(main)
        .forbid([house.fixture.place()])
        .open()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeRoot, "{error}");
}

#[test]
fn a_root_inside_an_ignored_directory_works() {
    let house = House::new();
    let worktrees = builder(house.fixture.path())
        .root(house.fixture.path().join("target/wt"))
        .open()
        .unwrap();
    worktrees.add(&house.request("inside")).unwrap();
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    let gone = worktrees
        .remove(&RemoveWorktree::new(directory("inside"), owner("inside")))
        .unwrap();
    assert_removed(&gone);
}

#[test]
fn broken_siblings_are_shown_and_stop_nothing() {
    let house = House::new();
    let registry = house.fixture.path().join(".git/worktrees");
    fs::create_dir_all(registry.join("empty")).unwrap();
    fs::create_dir_all(registry.join("zero")).unwrap();
    fs::write(registry.join("zero/gitdir"), "").unwrap();
    house.add("healthy");
    let listed = house.worktrees.list().unwrap();
    let corrupt: Vec<_> = listed
        .iter()
        .filter_map(|worktree| Some((worktree.id()?, worktree.corrupt()?)))
        .collect();
    assert_eq!(
        corrupt,
        [
            ("empty", "gitdir file does not exist"),
            ("zero", "invalid gitdir file")
        ]
    );
    assert_removed(&house.remove("healthy"));
}

#[test]
fn a_read_only_repository_is_told_and_left_as_it_was() {
    crate::child::run_as_nobody("add::read_only_child");
}

/// The body of the test above, in a process without privileges; see `child`.
#[test]
#[ignore = "started by a_read_only_repository_is_told_and_left_as_it_was"]
fn read_only_child() {
    let house = House::new();
    house.add("before");
    for place in [house.worktrees.root(), &house.fixture.path().join(".git")] {
        crate::child::set_mode_below(place, 0o555);
        let error = house.worktrees.add(&house.request("refused")).unwrap_err();
        crate::child::set_mode_below(place, 0o755);
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(!house.worktrees.root().join("refused").exists());
        assert_eq!(house.git(&["branch", "--list", "runtree/refused"]), "");
        house.check_agreement();
    }
}
