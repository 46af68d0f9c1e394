//! Stopped at every step, by an error and by the death of the process: afterwards all of it is there, or none of it, and no byte is lost.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    sync::{Arc, Mutex},
};

use runtree_testkit::git::{self, GitFixture};
use runtree_worktree::{
    AddWorktree, Checkout, ErrorKind, InProgressPolicy, KeepReason, Liveness, LockHolder, Onward,
    Operation, Outcome, Recovered, Recovery, RestoreWorktree, Step, StepObserver, Worktree,
    WorktreeError, Worktrees,
};

use crate::{
    child,
    support::{
        House, assert_removed, branch, builder, directory, entries, git_view, owner, removal,
        tree_of,
    },
};

const SIGABRT: i32 = 6;

/// What to do at a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Abort,
    Fail,
}

#[derive(Debug)]
pub(crate) struct EndAt {
    pub(crate) operation: Operation,
    pub(crate) step: Step,
    pub(crate) end: End,
}

impl StepObserver for EndAt {
    fn reached(&self, operation: Operation, step: Step) -> Onward {
        if (operation, step) != (self.operation, self.step) {
            return Onward::Continue;
        }
        match self.end {
            End::Abort => std::process::abort(),
            End::Fail => Onward::Fail,
        }
    }
}

pub(crate) fn open_with(path: &Path, observer: impl StepObserver + 'static) -> Worktrees {
    builder(path).observer(Arc::new(observer)).open().unwrap()
}

pub(crate) fn dead(_: &LockHolder) -> Liveness {
    Liveness::Dead
}

/// Does the operation to the worktree `victim` of a prepared repository.
fn operate(
    worktrees: &Worktrees,
    request: &AddWorktree,
    operation: Operation,
) -> Result<(), WorktreeError> {
    match operation {
        Operation::Add => worktrees.add(request).map(drop),
        Operation::Remove => {
            let request = removal("victim").in_progress(InProgressPolicy::Salvage);
            let removal = worktrees.remove(&request)?;
            assert_removed(&removal);
            Ok(())
        }
        Operation::Restore => {
            let salvage = &worktrees.salvages().unwrap()[0].reference;
            let request = RestoreWorktree::new(directory("victim"), owner("victim"));
            worktrees.restore(salvage, &request).map(drop)
        }
        other => panic!("no test knows {other:?}"),
    }
}

/// Dirt of many kinds: files, staged state, a detached commit.
fn soil(worktree: &Worktree) {
    let path = worktree.path();
    git::git(path, ["checkout", "-q", "--detach"]);
    git::git(path, ["commit", "-q", "--allow-empty", "-m", "only here"]);
    git::write(path, "README.md", "modified\n");
    git::write(path, "untracked", "precious\n");
    git::write(path, ".env", "TOKEN=1\n");
    git::write(path, "staged", "x");
    git::git(path, ["add", "staged"]);
}

/// A repository ready for the operation, and what its worktree holds or held.
struct Scene {
    house: House,
    files: Vec<(std::path::PathBuf, String, Vec<u8>)>,
    view: Vec<String>,
}

fn prepare(operation: Operation) -> Scene {
    let house = House::new();
    let (mut files, mut view) = (Vec::new(), Vec::new());
    if operation != Operation::Add {
        let worktree = house.add("victim");
        soil(&worktree);
        (files, view) = (tree_of(worktree.path()), git_view(worktree.path()));
    }
    if operation == Operation::Restore {
        assert_removed(&house.remove("victim"));
    }
    Scene { house, files, view }
}

/// Checks that the worktree is whole or gone without a trace, and that what it held is there in both cases.
#[track_caller]
fn check_whole_or_gone(scene: &Scene, operation: Operation, step: Step) -> bool {
    let house = &scene.house;
    house.check_agreement();
    let path = house.worktrees.root().join("victim");
    let registered = house.worktrees.list().unwrap().len() == 2;
    assert_eq!(path.exists(), registered, "{operation:?} {step:?}");
    if registered {
        if operation != Operation::Add {
            assert_eq!(tree_of(&path), scene.files, "{operation:?} {step:?}");
            assert_eq!(git_view(&path), scene.view, "{operation:?} {step:?}");
        }
        return true;
    }
    assert!(entries(house.worktrees.root()).is_empty());
    assert_eq!(
        house.git(&["branch", "--list", "runtree/*"]),
        "",
        "{operation:?} {step:?}"
    );
    if operation != Operation::Add {
        let salvages = house.worktrees.salvages().unwrap();
        assert_eq!(salvages.len(), 1);
        let request = RestoreWorktree::new(directory("victim"), owner("victim"));
        let restored = house
            .worktrees
            .restore(&salvages[0].reference, &request)
            .unwrap();
        assert_eq!(
            tree_of(restored.path()),
            scene.files,
            "{operation:?} {step:?}"
        );
        assert_eq!(git_view(restored.path()), scene.view);
        house.check_agreement();
    }
    false
}

#[test]
fn a_process_that_dies_at_any_step_leaves_all_or_nothing() {
    for operation in [Operation::Add, Operation::Remove, Operation::Restore] {
        for (number, &step) in operation.steps().iter().enumerate() {
            let scene = prepare(operation);
            let told = format!(
                "{operation:?} {number} {}",
                scene.house.fixture.path().display()
            );
            let output = child::command("crash::dying_child", &told)
                .output()
                .unwrap();
            assert_eq!(
                output.status.signal(),
                Some(SIGABRT),
                "{operation:?} {step:?}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            // git works on beside what is half done, and finds nothing to prune.
            assert_eq!(
                scene.house.git(&["worktree", "prune", "-n", "-v"]),
                "",
                "{operation:?} {step:?}"
            );

            let recovered = scene.house.worktrees.recover(&dead).unwrap();
            for thing in &recovered {
                assert!(
                    !matches!(thing.recovery, Recovery::Kept(_)),
                    "{operation:?} {step:?}: {recovered:?}"
                );
            }
            let whole = check_whole_or_gone(&scene, operation, step);
            let expected = if operation == Operation::Remove {
                matches!(step, Step::Salvaged | Step::Journalled)
            } else {
                step == Step::Ready
            };
            assert_eq!(whole, expected, "{operation:?} {step:?}: {recovered:?}");
            assert_eq!(
                scene.house.worktrees.recover(&dead).unwrap(),
                [],
                "{operation:?} {step:?}"
            );
        }
    }
}

/// The process that dies; see the test above.
#[test]
#[ignore = "started by a_process_that_dies_at_any_step_leaves_all_or_nothing"]
fn dying_child() {
    let told = child::told();
    let mut words = told.splitn(3, ' ');
    let operation = match words.next().unwrap() {
        "Add" => Operation::Add,
        "Remove" => Operation::Remove,
        "Restore" => Operation::Restore,
        other => panic!("unknown operation {other:?}"),
    };
    let number: usize = words.next().unwrap().parse().unwrap();
    let observer = EndAt {
        operation,
        step: operation.steps()[number],
        end: End::Abort,
    };
    let worktrees = open_with(Path::new(words.next().unwrap()), observer);
    let request = request(&worktrees);
    operate(&worktrees, &request, operation).unwrap();
    panic!("the step was not reached");
}

fn request(worktrees: &Worktrees) -> AddWorktree {
    AddWorktree::new(
        directory("victim"),
        Checkout::NewBranch(branch("runtree/victim")),
        worktrees.resolve("HEAD").unwrap(),
        owner("victim"),
    )
}

#[test]
fn an_error_at_any_step_leaves_all_or_nothing() {
    for operation in [Operation::Add, Operation::Remove, Operation::Restore] {
        for &step in operation.steps() {
            let scene = prepare(operation);
            let observer = EndAt {
                operation,
                step,
                end: End::Fail,
            };
            let worktrees = open_with(scene.house.fixture.path(), observer);
            let request = request(&worktrees);
            let error = operate(&worktrees, &request, operation).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Stopped,
                "{operation:?} {step:?}: {error}"
            );
            let past_return = operation == Operation::Remove
                && !matches!(step, Step::Salvaged | Step::Journalled | Step::Trashed);
            if past_return {
                let recovered = scene.house.worktrees.recover(&dead).unwrap();
                assert_eq!(
                    recovered
                        .iter()
                        .map(|one| &one.recovery)
                        .collect::<Vec<_>>(),
                    if step == Step::Finished {
                        vec![]
                    } else {
                        vec![&Recovery::RemovalFinished]
                    },
                    "{step:?}"
                );
            }
            let whole = check_whole_or_gone(&scene, operation, step);
            assert_eq!(
                whole,
                operation == Operation::Remove && !past_return,
                "{operation:?} {step:?}"
            );
        }
    }
}

pub(crate) fn crashed_at(operation: Operation, step: Step) -> House {
    let scene = prepare(operation);
    let number = operation
        .steps()
        .iter()
        .position(|&known| known == step)
        .unwrap();
    let told = format!(
        "{operation:?} {number} {}",
        scene.house.fixture.path().display()
    );
    let output = child::command("crash::dying_child", &told)
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(SIGABRT));
    scene.house
}

#[test]
fn files_that_were_half_written_are_no_reason_to_keep() {
    let house = crashed_at(Operation::Add, Step::Registered);
    let path = house.worktrees.root().join("victim");
    fs::write(path.join("README.md"), "hel").unwrap();
    fs::write(path.join("run.sh"), "").unwrap();
    let recovered = house.worktrees.recover(&dead).unwrap();
    assert_eq!(recovered[0].recovery, Recovery::AddUndone, "{recovered:?}");
    assert!(!path.exists());
    house.check_agreement();
}

#[test]
fn files_that_somebody_put_into_a_half_made_worktree_are_not_lost() {
    let house = crashed_at(Operation::Add, Step::CheckedOut);
    let path = house.worktrees.root().join("victim");
    fs::write(path.join("mine"), "precious").unwrap();
    let recovered = house.worktrees.recover(&dead).unwrap();
    let [
        Recovered {
            recovery: Recovery::Kept(KeepReason::Changed(changed)),
            ..
        },
    ] = &recovered[..]
    else {
        panic!("{recovered:?}");
    };
    assert_eq!(changed.as_bytes(), b"mine");
    let removal = house.remove("victim");
    assert_removed(&removal);
    assert_eq!(removal.saved[0].path.as_bytes(), b"mine");
    house.check_agreement();
}

#[test]
fn what_changes_after_the_salvage_calls_the_removal_off() {
    #[derive(Debug)]
    struct WriteAt(Step, std::path::PathBuf);
    impl StepObserver for WriteAt {
        fn reached(&self, _: Operation, step: Step) -> Onward {
            if step == self.0 {
                fs::write(&self.1, "late").unwrap();
            }
            Onward::Continue
        }
    }
    for (step, place) in [
        (Step::Salvaged, "victim/late"),
        (Step::Trashed, ".runtree/trash/victim/late"),
        (Step::Trashed, ".runtree/trash/victim/README.md"),
    ] {
        let house = House::new();
        soil(&house.add("victim"));
        let late = house.worktrees.root().join(place);
        let worktrees = open_with(house.fixture.path(), WriteAt(step, late));
        let kept = worktrees.remove(&removal("victim")).unwrap();
        assert!(
            matches!(kept.outcome, Outcome::Kept(KeepReason::Changed(_))),
            "{kept:?}"
        );
        let name = Path::new(place).file_name().unwrap();
        let back = house.worktrees.root().join("victim").join(name);
        assert_eq!(fs::read(back).unwrap(), b"late");
        house.check_agreement();
        assert_removed(&house.remove("victim"));
    }
}

#[test]
fn a_holder_that_is_not_proven_dead_keeps_what_it_began() {
    for liveness in [Liveness::Alive, Liveness::Unknown] {
        let house = crashed_at(Operation::Add, Step::Registered);
        let asked = Mutex::new(Vec::new());
        let recovered = house
            .worktrees
            .recover(&|holder| {
                asked.lock().unwrap().push(holder.as_str().to_owned());
                liveness
            })
            .unwrap();
        assert_eq!(asked.into_inner().unwrap(), ["test"]);
        assert_eq!(recovered[0].recovery, Recovery::Kept(KeepReason::Busy));
        assert_eq!(recovered[0].ownership, Some(owner("victim")));
        assert!(house.worktrees.root().join("victim").exists());
    }
}

#[test]
fn a_recovery_leaves_alone_what_is_being_made() {
    #[derive(Debug)]
    struct RecoverAlways(std::path::PathBuf, Mutex<usize>);
    impl StepObserver for RecoverAlways {
        fn reached(&self, _: Operation, step: Step) -> Onward {
            if step != Step::Ready {
                let other = builder(&self.0).open().unwrap();
                let recovered = other.recover(&dead).unwrap();
                assert_eq!(recovered[0].recovery, Recovery::Kept(KeepReason::Busy));
                *self.1.lock().unwrap() += 1;
            }
            Onward::Continue
        }
    }
    let fixture = GitFixture::new();
    let observer = Arc::new(RecoverAlways(fixture.path().to_owned(), Mutex::new(0)));
    let worktrees = builder(fixture.path())
        .observer(Arc::<RecoverAlways>::clone(&observer))
        .open()
        .unwrap();
    worktrees.add(&request(&worktrees)).unwrap();
    assert_eq!(
        *observer.1.lock().unwrap(),
        Operation::Add.steps().len() - 1
    );
    crate::support::check_agreement(&worktrees);
}

#[test]
fn an_unfinished_name_is_refused_until_it_is_recovered() {
    let house = crashed_at(Operation::Add, Step::Branch);
    let error = house.worktrees.add(&house.request("victim")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unfinished, "{error}");
    let kept = house.remove("victim");
    assert_eq!(kept.outcome, Outcome::Kept(KeepReason::NotReady));
    house.worktrees.recover(&dead).unwrap();
    house.add("victim");
    house.check_agreement();
}
