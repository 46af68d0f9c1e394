//! Random histories on the memory backend and on a file at once: every answer and every record must be the same.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use runtree_diesel::SqliteRepository;
use runtree_repository::id::{IdEnding, RunId};
use runtree_repository::time::{ManualClock, TimeRange, Timestamp};
use runtree_repository::{
    Actor, CancelMode, CancelRequest, Claim, ClaimOf, CleanupClaim, CleanupOutcome, CleanupRef,
    CreateRun, ErrorText, EventNumber, HostName, LeaseRef, LeaseTime, Limit, MemoryRepository,
    Namespace, NewRun, Outcome, Owner, PageRequest, Priority, ProcessMark, Reason, Rescue,
    RunFilter, RunOrder, RunRepository, SalvageRef, WorktreeQuery, WorktreeSite,
};

use super::{owner, request, request_with_worktree, site};

/// One step of a history. Numbers choose among what the history has made so far.
#[derive(Clone, Debug)]
enum Step {
    Create {
        worktree: bool,
        key: Option<u8>,
        unique: Option<u8>,
        attempts: u32,
        priority: i16,
        again: bool,
    },
    Claim {
        of: Option<u8>,
        limit: u64,
        at: Option<bool>,
    },
    Renew {
        lease: u8,
    },
    Own {
        lease: u8,
        what: Owned,
    },
    Cancel {
        run: u8,
        wish: u8,
    },
    ForceKill {
        run: u8,
        wish: u8,
    },
    Rescue {
        lease: u8,
        limit: u64,
    },
    ClaimCleanups {
        there: bool,
    },
    FinishCleanup {
        cleanup: u8,
        how: u8,
    },
    Later {
        seconds: u64,
    },
    Earlier {
        seconds: u64,
    },
}

/// What an owner does with a lease that it has, or had.
#[derive(Clone, Debug)]
enum Owned {
    Child,
    Ready,
    Complete,
    Fail { retry: bool },
    Killed,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let few = || 0..6_u8;
    prop_oneof![
        4 => (any::<bool>(), prop::option::of(0..3_u8), prop::option::of(0..2_u8), 1..4_u32, -1..2_i16, prop::bool::weighted(0.2)).prop_map(
            |(worktree, key, unique, attempts, priority, again)| Step::Create { worktree, key, unique, attempts, priority, again }
        ),
        6 => (prop::option::of(few()), 1..4_u64, prop::option::weighted(0.8, prop::bool::weighted(0.3)))
            .prop_map(|(of, limit, at)| Step::Claim { of, limit, at }),
        2 => few().prop_map(|lease| Step::Renew { lease }),
        11 => (few(), owned()).prop_map(|(lease, what)| Step::Own { lease, what }),
        6 => (few(), 0..4_u8).prop_map(|(run, wish)| Step::Cancel { run, wish }),
        1 => (few(), 0..4_u8).prop_map(|(run, wish)| Step::ForceKill { run, wish }),
        2 => (few(), 1..3_u64).prop_map(|(lease, limit)| Step::Rescue { lease, limit }),
        2 => any::<bool>().prop_map(|there| Step::ClaimCleanups { there }),
        2 => (few(), 0..3_u8).prop_map(|(cleanup, how)| Step::FinishCleanup { cleanup, how }),
        3 => (1..50_u64).prop_map(|seconds| Step::Later { seconds }),
        1 => (1..5_u64).prop_map(|seconds| Step::Earlier { seconds }),
    ]
}

fn owned() -> impl Strategy<Value = Owned> {
    prop_oneof![
        1 => Just(Owned::Child),
        2 => Just(Owned::Ready),
        2 => Just(Owned::Complete),
        3 => any::<bool>().prop_map(|retry| Owned::Fail { retry }),
        1 => Just(Owned::Killed),
        2 => Just(Owned::Release),
    ]
}

/// What a history has made so far, for later steps to choose from.
#[derive(Default)]
struct Made {
    requests: Vec<CreateRun>,
    leases: Vec<LeaseRef>,
    cleanups: Vec<CleanupRef>,
}

fn chosen<T: Clone>(from: &[T], number: u8) -> Option<T> {
    // The youngest first: what was made long ago has mostly ended.
    from.iter()
        .rev()
        .nth(usize::from(number) % from.len().max(1))
        .cloned()
}

/// Who and where; the same for both stores.
struct World {
    owner: Owner,
    clock: ManualClock,
}

impl World {
    /// Makes what a step needs, and moves the clock; once, before both stores take it.
    fn prepare(&self, step: &Step, made: &mut Made) -> Option<CreateRun> {
        if let Step::Later { seconds } = step {
            self.clock.advance(Duration::from_secs(*seconds));
        }
        if let Step::Earlier { seconds } = step {
            self.clock.step_back(Duration::from_secs(*seconds));
        }
        let Step::Create {
            worktree,
            key,
            unique,
            attempts,
            priority,
            again,
        } = step
        else {
            return None;
        };
        if let Some(request) = made.requests.last().filter(|_| *again) {
            return Some(request.clone());
        }
        let mut run = NewRun::new("builder")
            .input("the task")
            .priority(Priority::new(*priority))
            .max_attempts(NonZeroU32::new(*attempts).unwrap())
            .metadata("key", *priority);
        if let Some(key) = key {
            run = run.idempotency_key(format!("key {key}"));
        }
        if let Some(unique) = unique {
            run = run.unique_key(format!("unique {unique}"));
        }
        let request = if *worktree {
            request_with_worktree(run)
        } else {
            request(run)
        };
        made.requests.push(request.clone());
        Some(request)
    }

    /// Does a step on one store and answers what it said, with the leases and clean-ups that it gave out.
    async fn take(
        &self,
        runs: &dyn RunRepository,
        step: &Step,
        made: &Made,
        request: Option<&CreateRun>,
    ) -> (String, Vec<LeaseRef>, Vec<CleanupRef>) {
        let run = |number: u8| chosen(&made.requests, number).map(|request| request.id);
        let lease = |number: &u8| chosen(&made.leases, *number);
        let lease_time = LeaseTime::new(Duration::from_secs(10)).unwrap();
        let said = match step {
            Step::Claim { of, limit, at } => {
                let claim = Claim {
                    owner: self.owner.clone(),
                    lease_time,
                    limit: Limit::new(*limit).unwrap(),
                    of: of.and_then(run).map_or(ClaimOf::Any, ClaimOf::Run),
                    site: at.map(place),
                };
                let claimed = runs.claim(&claim).await.unwrap();
                return (
                    format!("{claimed:?}"),
                    claimed.iter().map(|claimed| claimed.lease).collect(),
                    Vec::new(),
                );
            }
            Step::ClaimCleanups { there } => {
                let claim = CleanupClaim {
                    owner: self.owner.clone(),
                    lease_time,
                    limit: Limit::new(2).unwrap(),
                    host: place(*there).host,
                    git_repository: site().git_repository,
                    run: None,
                };
                let tasks = runs.claim_cleanups(&claim).await.unwrap();
                return (
                    format!("{tasks:?}"),
                    Vec::new(),
                    tasks.iter().map(|task| task.cleanup).collect(),
                );
            }
            Step::Create { .. } => format!("{:?}", runs.create(request.unwrap()).await),
            Step::Renew { lease: number } => format!(
                "{:?}",
                runs.renew(&lease(number).into_iter().collect::<Vec<_>>(), lease_time)
                    .await
            ),
            Step::Rescue {
                lease: number,
                limit,
            } => {
                let rescue = Rescue {
                    proven_dead: lease(number).into_iter().collect(),
                    limit: Limit::new(*limit).unwrap(),
                    spare: Vec::new(),
                };
                format!("{:?}", runs.rescue(&rescue).await)
            }
            Step::Cancel {
                run: number,
                wish: how,
            } => match run(*number) {
                Some(id) => format!("{:?}", runs.cancel(id, &wish(*how)).await),
                None => String::new(),
            },
            Step::ForceKill {
                run: number,
                wish: how,
            } => match run(*number) {
                Some(id) => format!("{:?}", runs.force_kill(id, &wish(*how)).await),
                None => String::new(),
            },
            Step::FinishCleanup { cleanup, how } => match chosen(&made.cleanups, *cleanup) {
                Some(cleanup) => format!(
                    "{:?}",
                    runs.finish_cleanup(cleanup, &outcome_of_cleanup(*how))
                        .await
                ),
                None => String::new(),
            },
            Step::Later { .. } | Step::Earlier { .. } => String::new(),
            Step::Own {
                lease: number,
                what,
            } => match lease(number) {
                Some(lease) => own(runs, what, lease).await,
                None => String::new(),
            },
        };
        (said, Vec::new(), Vec::new())
    }
}

async fn own(runs: &dyn RunRepository, what: &Owned, lease: LeaseRef) -> String {
    let outcome = match what {
        Owned::Child => {
            let child = ProcessMark::new("2").unwrap();
            return format!("{:?}", runs.record_child(lease, &child).await);
        }
        Owned::Ready => return format!("{:?}", runs.worktree_ready(lease).await),
        Owned::Release => return format!("{:?}", runs.release(lease).await),
        Owned::Fail { retry } => Outcome::Failed {
            error: ErrorText::lossy("it broke"),
            retry_after: retry.then_some(Duration::from_secs(5)),
        },
        Owned::Killed => Outcome::Killed,
        Owned::Complete => Outcome::Completed {
            result: Some("the result".into()),
        },
    };
    format!("{:?}", runs.end(lease, &outcome).await)
}

/// One of two machines with the same git repository.
fn place(there: bool) -> WorktreeSite {
    let mut place = site();
    if there {
        place.host = HostName::new("there").unwrap();
    }
    place
}

fn wish(how: u8) -> CancelRequest {
    let mut wish = CancelRequest::new(if how < 2 {
        CancelMode::Graceful
    } else {
        CancelMode::Forced
    });
    if how.is_multiple_of(2) {
        wish.reason = Some(Reason::new(format!("reason {how}")).unwrap());
    } else {
        wish.by = Some(Actor::new(format!("actor {how}")).unwrap());
        wish.grace = Some(Duration::from_secs(7));
    }
    wish
}

fn outcome_of_cleanup(how: u8) -> CleanupOutcome {
    match how {
        0 => CleanupOutcome::Removed {
            salvage: Some(SalvageRef::new("refs/runtree/salvage/1").unwrap()),
        },
        1 => CleanupOutcome::Kept {
            reason: Reason::new("it is locked").unwrap(),
        },
        _ => CleanupOutcome::Postponed {
            error: ErrorText::lossy("no space"),
            retry_after: Duration::from_secs(3),
        },
    }
}

/// Everything that can be read, as text.
async fn everything(runs: &dyn RunRepository, ids: &[RunId]) -> String {
    let mut all = String::new();
    for id in ids {
        let ending: IdEnding = id.short();
        all += &format!("{:?}\n", runs.get(*id).await);
        all += &format!("{:?}\n", runs.find(&ending).await);
        all += &format!(
            "{:?}\n",
            runs.events(*id, EventNumber::START, Limit::MAX).await
        );
        all += &format!("{:?}\n", runs.worktrees(&WorktreeQuery::Run(*id)).await);
    }
    for order in [RunOrder::NewestFirst, RunOrder::OldestFirst] {
        let mut page = PageRequest {
            limit: Limit::new(2).unwrap(),
            order,
            after: None,
        };
        loop {
            let read = runs.list(&RunFilter::new(), &page).await.unwrap();
            all += &format!("{read:?}\n");
            page.after = read.next;
            if page.after.is_none() {
                break;
            }
        }
    }
    let ended = RunFilter::new().ended(TimeRange::all());
    all += &format!("{:?}\n", runs.list(&ended, &PageRequest::default()).await);
    all += &format!("{:?}\n", runs.leases(None).await);
    for there in [false, true] {
        let WorktreeSite {
            host,
            git_repository,
            ..
        } = place(there);
        all += &format!(
            "{:?}\n",
            runs.worktrees(&WorktreeQuery::Site {
                host,
                git_repository
            })
            .await
        );
    }
    all
}

async fn compare(
    file: &SqliteRepository,
    world: &World,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let memory = MemoryRepository::new(Arc::new(world.clock.clone()));
    let mut made = Made::default();
    for (number, step) in steps.iter().enumerate() {
        let request = world.prepare(step, &mut made);
        let (expected, leases, cleanups) = world.take(&memory, step, &made, request.as_ref()).await;
        let (said, _, _) = world.take(file, step, &made, request.as_ref()).await;
        prop_assert_eq!(said, expected, "the answer to step {}, {:?}", number, step);
        made.leases.extend(leases);
        made.cleanups.extend(cleanups);
        let ids: Vec<RunId> = made.requests.iter().map(|request| request.id).collect();
        let (expected, found) = (
            everything(&memory, &ids).await,
            everything(file, &ids).await,
        );
        let difference = expected
            .lines()
            .zip(found.lines())
            .find(|(expected, found)| expected != found);
        prop_assert_eq!(
            difference,
            None,
            "the records after step {}, {:?}",
            number,
            step
        );
    }
    Ok(())
}

#[test]
fn a_file_and_the_memory_backend_tell_the_same_history() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let builder =
        SqliteRepository::builder(directory.path().join("runs.db")).clock(Arc::new(clock.clone()));
    // What is compared does not depend on when the disk is flushed.
    let store = runtime
        .block_on(
            builder
                .durability(runtree_repository::Durability::Normal)
                .open(),
        )
        .unwrap();
    let namespaces = std::cell::Cell::new(0_u32);
    let mut runner = TestRunner::new(Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    });
    let histories = prop::collection::vec(step(), 1..80);
    let outcome = runner.run(&histories, |steps| {
        namespaces.set(namespaces.get() + 1);
        clock.set("2025-06-22T10:00:00Z".parse().unwrap());
        let file =
            store.with_namespace(Namespace::new(format!("case {}", namespaces.get())).unwrap());
        runtime.block_on(compare(
            &file,
            &World {
                owner: owner(),
                clock: clock.clone(),
            },
            &steps,
        ))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
