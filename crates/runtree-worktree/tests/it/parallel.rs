//! Many processes at once on one repository, with plain git beside them: every add succeeds, and no git command fails.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Stdio},
    thread,
};

use runtree_testkit::git;
use runtree_worktree::{AddWorktree, Checkout, ErrorKind};

use crate::{
    child,
    support::{House, assert_removed, branch, builder, directory, entries, owner, removal},
};

/// How many processes add at once; a variable asks for the long form.
#[expect(
    clippy::disallowed_methods,
    reason = "a test program's size is set from outside"
)]
fn processes() -> usize {
    std::env::var("RUNTREE_TEST_PROCESSES").map_or(8, |text| text.parse().unwrap())
}

const PER_PROCESS: usize = 3;

#[test]
fn parallel_adds_and_removals_beside_plain_git_all_succeed() {
    let house = House::new();
    for doing in ["add", "remove"] {
        let children: Vec<_> = (0..processes())
            .map(|number| {
                let told = format!("{doing} {number} {}", house.fixture.path().display());
                child::command("parallel::working_child", &told)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        git_beside(&house, children, doing);
        let expected = if doing == "add" {
            processes() * PER_PROCESS
        } else {
            0
        };
        assert_eq!(house.worktrees.list().unwrap().len(), expected + 1);
        assert_eq!(entries(house.worktrees.root()).len(), expected);
        let branches = house.git(&["for-each-ref", "--format=%(refname)", "refs/heads/runtree"]);
        assert_eq!(branches.lines().count(), expected, "{branches}");
        house.check_agreement();
    }
}

/// Runs plain git in a loop until the children have ended, and checks that nobody failed.
fn git_beside(house: &House, mut children: Vec<Child>, doing: &str) {
    while children
        .iter_mut()
        .any(|child| child.try_wait().unwrap().is_none())
    {
        list_beside(house, doing);
        house.git(&["worktree", "prune", "--expire=now"]);
    }
    for child in children {
        child::assert_ran(&child.wait_with_output().unwrap());
    }
}

/// Lists with plain git, which must succeed; while worktrees go, at the latest at the third try.
///
/// git reads a registration file by file and gives up when it went in between, beside `git worktree remove` and `unlock` as well: 4 of
/// 1,987 listings failed beside nothing but git itself. So no remover can spare it that. What is forgiven is a complaint about a file of
/// one registration, only while worktrees are removed, and never that the listing stays broken.
fn list_beside(house: &House, doing: &str) {
    let tries = if doing == "remove" { 3 } else { 1 };
    let mut complaints = Vec::new();
    for _ in 0..tries {
        let listed = git::try_git(house.fixture.path(), ["worktree", "list", "--porcelain"]);
        if listed.status.success() {
            return;
        }
        let complaint = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(complaint.contains(".git/worktrees/w"), "{complaint}");
        complaints.push(complaint);
    }
    panic!("{doing}: {complaints:?}");
}

/// One of the processes; see the test above.
#[test]
#[ignore = "started by parallel_adds_and_removals_beside_plain_git_all_succeed"]
fn working_child() {
    let told = child::told();
    let mut words = told.splitn(3, ' ');
    let (doing, number) = (words.next().unwrap(), words.next().unwrap());
    let worktrees = builder(Path::new(words.next().unwrap())).open().unwrap();
    for turn in 0..PER_PROCESS {
        let name = format!("w{number}-{turn}");
        if doing == "remove" {
            assert_removed(&worktrees.remove(&removal(&name)).unwrap());
            continue;
        }
        let request = AddWorktree::new(
            directory(&name),
            Checkout::NewBranch(branch(&format!("runtree/{name}"))),
            worktrees.resolve("HEAD").unwrap(),
            owner(&name),
        );
        let worktree = worktrees.add(&request).unwrap();
        assert_eq!(git::git(worktree.path(), ["status", "--porcelain"]), "");
    }
}

#[test]
fn of_many_that_want_one_name_or_one_branch_one_gets_it() {
    let house = House::new();
    house.git(&["branch", "shared"]);
    let head = house.worktrees.resolve("HEAD").unwrap();
    let race = |request: &(dyn Fn(usize) -> AddWorktree + Sync)| -> Vec<Result<(), ErrorKind>> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let house = &house;
                    scope.spawn(move || {
                        let added = house.worktrees.add(&request(number));
                        added.map(drop).map_err(|error| error.kind())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    };
    let same_name = race(&|number| {
        AddWorktree::new(
            directory("same"),
            Checkout::NewBranch(branch(&format!("b{number}"))),
            head,
            owner("same"),
        )
    });
    let same_branch = race(&|number| {
        AddWorktree::new(
            directory(&format!("w{number}")),
            Checkout::Existing(branch("shared")),
            head,
            owner("w"),
        )
    });
    for (outcomes, refusals) in [
        (
            same_name,
            [ErrorKind::Unfinished, ErrorKind::NameTaken].as_slice(),
        ),
        (same_branch, [ErrorKind::BranchCheckedOut].as_slice()),
    ] {
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
        let lost: BTreeSet<_> = outcomes
            .into_iter()
            .filter_map(Result::err)
            .map(|kind| format!("{kind:?}"))
            .collect();
        for kind in lost {
            assert!(
                refusals
                    .iter()
                    .any(|refusal| format!("{refusal:?}") == kind),
                "{kind}"
            );
        }
    }
    assert_eq!(house.worktrees.list().unwrap().len(), 3);
    assert_eq!(entries(house.worktrees.root()).len(), 2);
    house.check_agreement();
}
