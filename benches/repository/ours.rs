//! runtree's side: the operations of a run repository, by one caller or by many at once.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtree_benches::{INPUT, Lap};
use runtree_diesel::{PostgresRepository, SqliteRepository};
use runtree_repository::id::{IdGenerator, OwnerId};
use runtree_repository::{
    Claim, ClaimOf, Claimed, CreateRun, Created, Durability, Ending, HostName, LeaseRef, LeaseTime,
    Limit, NewRun, Outcome, Owner, ProcessMark, RunRepository, Write,
};
use tokio::runtime::Runtime;

/// What every run is about.
pub(crate) const WORKFLOW: &str = "bench";
/// The machine that every owner is on.
pub(crate) const HOST: &str = "bench-host";
/// The process that every owner is.
pub(crate) const PROCESS: &str = "4242";

/// A run repository, with all that callers of it need.
pub(crate) struct Ours {
    runtime: Runtime,
    caller: Caller,
}

impl Ours {
    /// Opens a file; it is made when it is missing.
    pub(crate) fn sqlite(path: &Path, durability: Durability) -> Self {
        Self::new(async {
            let builder = SqliteRepository::builder(path).durability(durability);
            Arc::new(builder.open().await.expect("the file can be opened"))
        })
    }

    /// Connects to a server, with so many connections at most.
    pub(crate) fn postgres(url: &str, connections: u32) -> Self {
        let connections = NonZeroU32::new(connections).expect("because it is not zero");
        Self::new(async {
            let builder = PostgresRepository::builder(url).max_connections(connections);
            Arc::new(builder.connect().await.expect("the server answers"))
        })
    }

    fn new<R: RunRepository + 'static>(open: impl Future<Output = Arc<R>>) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let ids = IdGenerator::system();
        let caller = Caller {
            repository: runtime.block_on(open),
            owner: ids.owner_id().expect("the system has random bits"),
            ids: Arc::new(ids),
        };
        Self { runtime, caller }
    }

    pub(crate) fn owner(&self) -> OwnerId {
        self.caller.owner
    }

    pub(crate) fn repository(&self) -> &dyn RunRepository {
        self.caller.repository.as_ref()
    }

    /// Waits for what the repository does.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Creates so many runs, one a call.
    pub(crate) fn create(&self, count: u64, callers: u64) -> Lap {
        let (lap, _) = self.by(callers, count, |ours, count| async move {
            for _ in 0..count {
                let created = ours.repository.create(&request(&ours.ids)).await;
                assert!(matches!(created, Ok(Created::New(_))), "{created:?}");
            }
            Vec::<()>::new()
        });
        lap
    }

    /// Creates so many runs as fast as it can; nobody looks at the time.
    pub(crate) fn prepare(&self, mut count: u64) {
        let most = u64::try_from(Limit::MAX.get()).expect("because a limit is small");
        while count > 0 {
            let some = count.min(most);
            let requests: Vec<CreateRun> = (0..some).map(|_| request(&self.caller.ids)).collect();
            let created = self.wait(self.repository().create_many(&requests));
            assert_eq!(created.expect("the store works").len(), requests.len());
            count -= some;
        }
    }

    /// Claims so many runs, one a call, and answers them, the oldest first, which is the order that the reference ends them in.
    pub(crate) fn claim(&self, count: u64, callers: u64) -> (Lap, Vec<LeaseRef>) {
        let (lap, mut leases) = self.by(callers, count, |ours, count| async move {
            let claim = ours.claim_of(Limit::ONE);
            let mut leases = Vec::new();
            for _ in 0..count {
                let claimed = ours.repository.claim(&claim).await;
                leases.extend(claimed.expect("the store works").pop().map(|one| one.lease));
            }
            leases
        });
        leases.sort_by_key(|lease| lease.run);
        (lap, leases)
    }

    /// Completes runs, one a call.
    pub(crate) fn complete(&self, leases: &[LeaseRef], callers: u64) -> Lap {
        let shares: Vec<Vec<LeaseRef>> = shares(leases, callers);
        let operations = u64::try_from(leases.len()).expect("because they fit in memory");
        let (lap, ()) = Lap::of(operations, || {
            self.all(shares, |ours, leases| async move {
                for lease in leases {
                    let ended = ours.repository.end(lease, &done()).await;
                    assert!(matches!(ended, Ok(Write::Applied(_))), "{ended:?}");
                }
            });
        });
        lap
    }

    /// Claims and completes so many runs, one a call each.
    pub(crate) fn work(&self, count: u64, callers: u64) -> Lap {
        let (lap, _) = self.by(callers, count, |ours, count| async move {
            let claim = ours.claim_of(Limit::ONE);
            for _ in 0..count {
                let claimed = ours.repository.claim(&claim).await;
                for one in claimed.expect("the store works") {
                    let ended = ours.repository.end(one.lease, &done()).await;
                    assert!(matches!(ended, Ok(Write::Applied(_))), "{ended:?}");
                }
            }
            Vec::<()>::new()
        });
        lap
    }

    /// Claims and completes all that waits, in batches, and answers how long it took and how many there were.
    pub(crate) fn drain(&self, batch: usize, workers: usize) -> Lap {
        let limit = Limit::new(u64::try_from(batch).unwrap_or(u64::MAX));
        let claim = self
            .caller
            .claim_of(limit.expect("because the batch is allowed"));
        let start = Instant::now();
        let works: Vec<_> = (0..workers)
            .map(|_| {
                let (repository, claim) = (Arc::clone(&self.caller.repository), claim.clone());
                self.runtime.spawn(async move {
                    let mut ended = 0_u64;
                    loop {
                        let claimed = repository.claim(&claim).await.expect("the store works");
                        if claimed.is_empty() {
                            return ended;
                        }
                        let endings: Vec<Ending> = claimed.iter().map(ending).collect();
                        let answers = repository
                            .end_many(&endings)
                            .await
                            .expect("the store works");
                        assert!(
                            answers
                                .iter()
                                .all(|answer| matches!(answer, Write::Applied(_)))
                        );
                        ended += u64::try_from(answers.len()).expect("because it is a batch");
                    }
                })
            })
            .collect();
        let works = works.into_iter();
        let operations = works
            .map(|work| self.wait(work).expect("no worker panics"))
            .sum();
        Lap {
            operations,
            spent: start.elapsed(),
        }
    }

    /// Claims a run and gives it back, and answers how long the claims took.
    pub(crate) fn claim_and_release(&self, repeats: u64) -> Duration {
        let claim = self.caller.claim_of(Limit::ONE);
        let mut spent = Duration::ZERO;
        for _ in 0..repeats {
            let start = Instant::now();
            let claimed = self.wait(self.repository().claim(&claim));
            spent += start.elapsed();
            let lease = claimed
                .expect("the store works")
                .pop()
                .expect("runs wait")
                .lease;
            let released = self.wait(self.repository().release(lease));
            assert!(matches!(released, Ok(Write::Applied(_))), "{released:?}");
        }
        spent
    }

    /// Lets callers do shares of the work at once, and takes the time until the last is done.
    fn by<T: Send + 'static, F: Future<Output = Vec<T>> + Send + 'static>(
        &self,
        callers: u64,
        count: u64,
        work: impl Fn(Caller, u64) -> F,
    ) -> (Lap, Vec<T>) {
        let start = Instant::now();
        let works: Vec<_> = (0..callers)
            .map(|caller| {
                let share = count / callers + u64::from(caller < count % callers);
                self.runtime.spawn(work(self.caller.clone(), share))
            })
            .collect();
        let works = works.into_iter();
        let answers = works
            .flat_map(|work| self.wait(work).expect("no caller panics"))
            .collect();
        let lap = Lap {
            operations: count,
            spent: start.elapsed(),
        };
        (lap, answers)
    }

    fn all<T, F: Future<Output = ()> + Send + 'static>(
        &self,
        shares: Vec<T>,
        work: impl Fn(Caller, T) -> F,
    ) {
        let shares = shares.into_iter();
        let works: Vec<_> = shares
            .map(|share| self.runtime.spawn(work(self.caller.clone(), share)))
            .collect();
        for work in works {
            self.wait(work).expect("no caller panics");
        }
    }
}

/// One of many callers.
#[derive(Clone)]
struct Caller {
    repository: Arc<dyn RunRepository>,
    ids: Arc<IdGenerator>,
    owner: OwnerId,
}

impl Caller {
    fn claim_of(&self, limit: Limit) -> Claim {
        Claim {
            owner: Owner {
                id: self.owner,
                host: HostName::new(HOST).expect("because it is a name"),
                process: ProcessMark::new(PROCESS).expect("because it is a mark"),
            },
            lease_time: LeaseTime::default(),
            limit,
            of: ClaimOf::ANY,
            site: None,
        }
    }
}

fn request(ids: &IdGenerator) -> CreateRun {
    CreateRun {
        id: ids.run_id().expect("the system has random bits"),
        run: NewRun::new(WORKFLOW).input(INPUT),
        worktree: None,
    }
}

fn done() -> Outcome {
    Outcome::Completed { result: None }
}

fn ending(claimed: &Claimed) -> Ending {
    Ending {
        lease: claimed.lease,
        outcome: done(),
    }
}

/// Deals values out among callers.
fn shares<T: Copy>(values: &[T], callers: u64) -> Vec<Vec<T>> {
    let callers = usize::try_from(callers).expect("because they are few");
    (0..callers)
        .map(|caller| {
            values
                .iter()
                .skip(caller)
                .step_by(callers)
                .copied()
                .collect()
        })
        .collect()
}
