//! Random histories on the memory backend and on a file at once: every answer and every record must be the same.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use runtree_diesel::SqliteRepository;
use runtree_repository::id::{CommitId, IdEnding, RunId};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{Clock as _, ManualClock, TimeRange, Timestamp};
use runtree_repository::{
    Actor, Annotation, CancelMode, CancelRequest, Change, Claim, ClaimOf, CleanupClaim,
    CleanupOutcome, CleanupRef, Cost, CreateRun, DiffStatistics, Ending, ErrorText, EventNumber,
    FileChange, HostName, LeaseRef, LeaseTime, Limit, MemoryRepository, Namespace, NewRun, Outcome,
    Overdue, Owner, PageRequest, Priority, ProcessMark, QueueName, Reason, Rescue, Retention,
    RetryRun, RunFilter, RunOrder, RunRepository, SalvageRef, SortKey, Tag, Usage, UserId,
    WaitingRuns, WorktreeQuery, WorktreeSite,
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
        more: u8,
    },
    Retry {
        run: u8,
        worktree: bool,
    },
    Annotate {
        run: u8,
        how: u8,
    },
    TimeOut {
        limit: u64,
        grace: u64,
    },
    Delete {
        seconds: u64,
        limit: u64,
    },
    EndMany {
        lease: u8,
    },
    Claim {
        of: Option<u8>,
        queue: Option<bool>,
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
        4 => (any::<bool>(), prop::option::of(0..3_u8), prop::option::of(0..2_u8), 1..4_u32, -1..2_i16, prop::bool::weighted(0.2), 0..64_u8).prop_map(
            |(worktree, key, unique, attempts, priority, again, more)| {
                Step::Create { worktree, key, unique, attempts, priority, again, more }
            }
        ),
        6 => (prop::option::of(few()), prop::option::weighted(0.2, any::<bool>()), 1..4_u64,
              prop::option::weighted(0.8, prop::bool::weighted(0.3)))
            .prop_map(|(of, queue, limit, at)| Step::Claim { of, queue, limit, at }),
        2 => (few(), any::<bool>()).prop_map(|(run, worktree)| Step::Retry { run, worktree }),
        3 => (few(), 0..6_u8).prop_map(|(run, how)| Step::Annotate { run, how }),
        3 => (1..3_u64, 0..20_u64).prop_map(|(limit, grace)| Step::TimeOut { limit, grace }),
        1 => (0..60_u64, 1..3_u64).prop_map(|(seconds, limit)| Step::Delete { seconds, limit }),
        2 => few().prop_map(|lease| Step::EndMany { lease }),
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
    /// Every id that a request or a retry drew.
    ids: Vec<RunId>,
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
        if let Step::Retry { worktree, .. } = step {
            let run = NewRun::new("unused");
            let request = if *worktree {
                request_with_worktree(run)
            } else {
                request(run)
            };
            made.ids.push(request.id);
            return Some(request);
        }
        let Step::Create {
            worktree,
            key,
            unique,
            attempts,
            priority,
            again,
            more,
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
        run = self.with_more(run, *more);
        if let Some(unique) = unique {
            run = run.unique_key(format!("unique {unique}"));
        }
        let request = if *worktree {
            request_with_worktree(run)
        } else {
            request(run)
        };
        made.requests.push(request.clone());
        made.ids.push(request.id);
        Some(request)
    }

    /// What a request may have besides; each bit is one thing.
    fn with_more(&self, mut run: NewRun, more: u8) -> NewRun {
        let has = |bit: u8| more & (1 << bit) != 0;
        if has(0) {
            run = run.queue("slow").agent("coder").model("large");
        }
        if has(1) {
            let limit = if has(0) { 2 } else { 1 };
            run = run.concurrency("shared", NonZeroU32::new(limit).unwrap());
        }
        if has(2) {
            let deadline = self.clock.now().saturating_add(Duration::from_secs(20));
            run = run.deadline(deadline);
        }
        if has(3) {
            run = run.tag("a").tag("b").user("ann");
        }
        if has(4) {
            let later = self.clock.now().saturating_add(Duration::from_secs(10));
            run = run.available_at(later);
        }
        run
    }

    /// Does a step on one store and answers what it said, with the leases and clean-ups that it gave out.
    async fn take(
        &self,
        runs: &dyn RunRepository,
        step: &Step,
        made: &Made,
        request: Option<&CreateRun>,
    ) -> (String, Vec<LeaseRef>, Vec<CleanupRef>) {
        let run = |number: u8| chosen(&made.ids, number);
        let lease = |number: &u8| chosen(&made.leases, *number);
        let lease_time = LeaseTime::new(Duration::from_secs(10)).unwrap();
        let said = match step {
            Step::Claim {
                of,
                queue,
                limit,
                at,
            } => {
                let waiting = queue.map_or(WaitingRuns::ANY, waiting);
                let claim = Claim {
                    owner: self.owner.clone(),
                    lease_time,
                    limit: Limit::new(*limit).unwrap(),
                    of: of
                        .and_then(run)
                        .map_or(ClaimOf::Waiting(waiting), ClaimOf::Run),
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
            Step::Retry { run: number, .. } => match run(*number) {
                Some(of) => {
                    let new = request.unwrap();
                    let retry = RetryRun {
                        of,
                        id: new.id,
                        worktree: new.worktree.clone(),
                        available_at: None,
                        deadline: None,
                    };
                    // A repetition, as after a lost answer.
                    let once = runs.retry(&retry).await;
                    format!("{once:?} {:?}", runs.retry(&retry).await)
                }
                None => String::new(),
            },
            Step::Annotate { run: number, how } => match run(*number) {
                Some(id) => format!("{:?}", runs.annotate(id, &annotation(*how)).await),
                None => String::new(),
            },
            Step::TimeOut { limit, grace } => {
                let overdue = Overdue {
                    limit: Limit::new(*limit).unwrap(),
                    grace: Duration::from_secs(*grace),
                };
                format!("{:?}", runs.time_out(&overdue).await)
            }
            Step::Delete { seconds, limit } => {
                let age = Duration::from_secs(*seconds);
                let retention = Retention {
                    ended_before: self.clock.now().saturating_sub(age),
                    limit: Limit::new(*limit).unwrap(),
                };
                format!("{:?}", runs.delete_ended(&retention).await)
            }
            Step::EndMany { lease: number } => {
                let done = Outcome::Completed { result: None };
                let broken = Outcome::Failed {
                    error: ErrorText::lossy("it broke"),
                    retry_after: None,
                };
                let leases = [*number, number.saturating_add(1), *number];
                let leases = leases.iter().filter_map(lease);
                let outcomes = [done.clone(), broken, done];
                let endings = leases.zip(outcomes);
                let endings: Vec<_> = endings
                    .map(|(lease, outcome)| Ending { lease, outcome })
                    .collect();
                format!("{:?}", runs.end_many(&endings).await)
            }
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

fn waiting(slow: bool) -> WaitingRuns {
    let queue = |name: &str| QueueName::new(name).unwrap();
    if slow {
        WaitingRuns::ANY.queues([queue("slow")])
    } else {
        let workflow = "builder".parse().unwrap();
        WaitingRuns::ANY
            .queues([queue("slow"), queue("default")])
            .workflows([workflow])
    }
}

fn annotation(how: u8) -> Annotation {
    let tag = |text: &str| Tag::new(text).unwrap();
    let usage = Usage {
        input_tokens: 100,
        output_tokens: Usage::MAX,
        cost: Cost::from_micros(5),
    };
    match how {
        0 => Annotation::new().add_usage(usage),
        1 => Annotation::new().add_tag(tag("c")).remove_tag(tag("a")),
        2 => Annotation::new()
            .metadata("key", "new")
            .metadata("more", vec![1, 2])
            .set_usage(Usage::default()),
        3 => Annotation::new().remove_metadata("key"),
        4 => {
            let commit: CommitId = "0123456789012345678901234567890123456789".parse().unwrap();
            let mut facts = Annotation::new().commits(commit, commit);
            facts.file_changes = Change::Set(vec![FileChange {
                path: "src/lib.rs".parse().unwrap(),
                added: Some(3),
                removed: None,
            }]);
            facts.diff(DiffStatistics::default())
        }
        _ => {
            let mut nothing = Annotation::new();
            nothing.agent = Change::Clear;
            nothing.diff = Change::Clear;
            nothing.first_commit = Change::Clear;
            nothing.last_commit = Change::Clear;
            nothing.file_changes = Change::Clear;
            nothing
        }
    }
}

/// One of many filters.
fn filter(number: usize, owner: &Owner) -> RunFilter {
    let new = RunFilter::new;
    let tag = |text: &str| Tag::new(text).unwrap();
    match number % 13 {
        0 => new(),
        1 => new().statuses([RunStatus::Running]),
        2 => new().statuses([RunStatus::Pending, RunStatus::Failed]),
        3 => new().end_reasons([EndReason::TimedOut, EndReason::Killed]),
        4 => new().queues([QueueName::new("slow").unwrap()]),
        5 => new().tag(tag("a")).tag(tag("b")),
        6 => new().metadata("key", 1),
        7 => new().metadata_key("more").tag(tag("b")),
        8 => new().owner(owner.id),
        9 => new().owner_host(owner.host.clone()),
        10 => new().user(UserId::new("ann").unwrap()),
        11 => new().started(TimeRange::all()),
        _ => new().ended(TimeRange::all()),
    }
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
async fn everything(
    runs: &dyn RunRepository,
    ids: &[RunId],
    number: usize,
    owner: &Owner,
) -> String {
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
        all += &format!("{:?}\n", runs.explain(*id).await);
    }
    // Each time another order and another filter.
    let by = SortKey::ALL[number % SortKey::ALL.len()];
    let filter = filter(number, owner);
    all += &format!("{:?}\n", runs.count(&filter).await);
    all += &format!("{:?}\n", runs.statistics(&filter).await);
    for order in [RunOrder::ascending(by), RunOrder::descending(by)] {
        let mut page = PageRequest {
            limit: Limit::new(2).unwrap(),
            order,
            after: None,
        };
        loop {
            let read = runs.list(&filter, &page).await.unwrap();
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
        let (expected, found) = (
            everything(&memory, &made.ids, number, &world.owner).await,
            everything(file, &made.ids, number, &world.owner).await,
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
