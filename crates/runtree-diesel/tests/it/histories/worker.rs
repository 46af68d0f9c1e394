//! One process of a history: callers that do what the dice say, and record every call with its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use runtree_repository::id::{BranchName, DirectoryName, IdGenerator, RunId, Slug};
use runtree_repository::time::{Clock, SystemClock, Timestamp};
use runtree_repository::{
    Annotation, CancelMode, CancelRequest, Claim, ClaimOf, Claimed, CreateRun, Created,
    DynRunRepository, ErrorKind, ErrorText, HostName, HostPath, LeaseRef, LeaseTime, Limit, NewRun,
    Outcome, Overdue, Owner, Persistence, ProcessMark, Renewal, RepositoryError, Rescue, RetryRun,
    Token, WantedWorktree, WorktreeSite, Write,
};
use runtree_testkit::dice::Dice;
use runtree_testkit::history::{Answer, Call, EndedBy, Failure, Held, Recorder, monotonic_nanos};

use super::Job;
use super::ending::new_run_id;

/// How often which call is made, of a hundred.
#[derive(Clone, Debug)]
pub(crate) struct Mix(&'static [(u64, What)]);

#[derive(Clone, Copy, Debug)]
enum What {
    Create,
    Claim,
    Renew,
    End,
    Release,
    Cancel,
    ForceKill,
    Rescue,
    TimeOut,
    Retry,
    Annotate,
}

impl Mix {
    pub(crate) const EVERYTHING: Self = Self(&[
        (20, What::Create),
        (26, What::Claim),
        (10, What::Renew),
        (22, What::End),
        (4, What::Release),
        (4, What::Cancel),
        (1, What::ForceKill),
        (4, What::Rescue),
        (1, What::TimeOut),
        (2, What::Retry),
        (6, What::Annotate),
    ]);

    fn draw(&self, dice: &mut Dice) -> What {
        let all = self.0.iter().map(|(weight, _)| weight).sum();
        let mut left = dice.below(all);
        for (weight, what) in self.0 {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *what,
            }
        }
        What::Claim
    }
}

/// A clock that steps back and forth beside the machine's.
#[derive(Debug, Default)]
pub(crate) struct SteppingClock {
    off_by: AtomicI64,
}

impl SteppingClock {
    pub(crate) fn step(&self, dice: &mut Dice, hours: u64) {
        let most = i64::try_from(hours * 3_600_000_000).unwrap();
        let span = u64::try_from(2 * most).unwrap();
        let off_by = i64::try_from(dice.below(span)).unwrap() - most;
        self.off_by.store(off_by, Ordering::SeqCst);
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        let off_by = self.off_by.load(Ordering::SeqCst);
        let by = Duration::from_micros(off_by.unsigned_abs());
        if off_by < 0 {
            SystemClock.now().saturating_sub(by)
        } else {
            SystemClock.now().saturating_add(by)
        }
    }
}

/// Does a job to its end.
pub(crate) async fn work(job: Job, mix: &Mix) {
    let clock = Arc::new(SteppingClock::default());
    let mut dice = Dice::new(job.seed);
    let runs = job.store.open_by(clock.clone()).await;
    let recorder = Arc::new(Recorder::create(&job.history));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..job.tasks {
        let caller = Caller {
            runs: runs.clone(),
            recorder: Arc::clone(&recorder),
            clock: clock.clone(),
            dice: Dice::new(dice.roll()),
            held: Vec::new(),
            lost: Vec::new(),
            known: Vec::new(),
        };
        tasks.spawn(caller.work(mix.clone(), job.clone()));
    }
    if job.stepping_hours > 0 {
        let (clock, job) = (clock.clone(), job.clone());
        let mut dice = Dice::new(dice.roll());
        tasks.spawn(async move {
            while !job.is_over() {
                clock.step(&mut dice, job.stepping_hours);
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// One of those who call at once.
struct Caller {
    runs: DynRunRepository,
    recorder: Arc<Recorder>,
    clock: Arc<SteppingClock>,
    dice: Dice,
    /// What it owns, for all it knows.
    held: Vec<LeaseRef>,
    /// What it owned once.
    lost: Vec<LeaseRef>,
    /// Runs that it has heard of.
    known: Vec<RunId>,
}

const MANY: usize = 40;

/// A machine that is busy with other things makes a history slow, but not empty.
const LEAST_CALLS: usize = 20;

impl Caller {
    async fn work(mut self, mix: Mix, job: Job) {
        let mut calls = 0;
        while calls < LEAST_CALLS || !job.is_over() {
            calls += 1;
            let what = mix.draw(&mut self.dice);
            match what {
                What::Create => self.create().await,
                What::Claim => self.claim().await,
                What::Renew => self.renew().await,
                What::End => self.end().await,
                What::Release => self.release().await,
                What::Cancel => self.cancel().await,
                What::ForceKill => self.force_kill().await,
                What::Rescue => self.rescue().await,
                What::TimeOut => self.time_out().await,
                What::Retry => self.retry().await,
                What::Annotate => self.annotate().await,
            }
            self.lost.drain(..self.lost.len().saturating_sub(MANY));
            self.known.drain(..self.known.len().saturating_sub(MANY));
        }
    }

    /// Records an answer, and waits a little when there was none.
    async fn told(&mut self, called: runtree_testkit::history::Recorded, answer: Answer) {
        let has_failed = matches!(answer, Answer::Failed { .. });
        self.recorder.answer(called, answer);
        if has_failed {
            tokio::time::sleep(Duration::from_millis(self.dice.between(5, 50))).await;
        }
    }

    fn any_run(&mut self) -> Option<RunId> {
        self.dice.one_of(&self.known).copied()
    }

    /// Mostly something that it owns, sometimes something that it owned once.
    fn any_lease(&mut self) -> Option<LeaseRef> {
        let from = if self.dice.once_in(8) {
            &self.lost
        } else {
            &self.held
        };
        self.dice.one_of(from).copied()
    }

    /// It works for a while, sometimes for longer than its lease.
    async fn dawdle(&mut self) {
        if self.dice.once_in(8) {
            tokio::time::sleep(Duration::from_millis(self.dice.between(1, 250))).await;
        }
    }

    fn let_go(&mut self, lease: LeaseRef) {
        self.held.retain(|held| *held != lease);
        self.lost.push(lease);
    }

    async fn create(&mut self) {
        let (id, dice) = (new_run_id(), &mut self.dice);
        let mut run = NewRun::new("builder").max_attempts(count(dice.between(1, 3)));
        // Everybody asks for the same keys at about the same time.
        let key = dice.once_in(3).then(|| {
            let now = monotonic_nanos() / 20_000_000;
            format!("key {}", now + dice.below(4))
        });
        if let Some(key) = &key {
            run = run.max_attempts(count(2)).idempotency_key(key.as_str());
        }
        // Under a key each request is the same, or it would be a conflict.
        let is_free = key.is_none();
        let limit = (is_free && dice.once_in(4)).then(|| (format!("limit {}", dice.below(2)), 2));
        if let Some((key, limit)) = &limit {
            run = run.concurrency(key.as_str(), count(u64::try_from(*limit).unwrap()));
        }
        let has_deadline = is_free && dice.once_in(10);
        if has_deadline {
            let in_time = Duration::from_millis(dice.between(20, 400));
            run = run.deadline(self.clock.now().saturating_add(in_time));
        }
        let wants_worktree = is_free && dice.once_in(3);
        let worktree = wants_worktree.then(|| wanted(id, dice.once_in(4)));
        let call = Call::Create {
            run: id,
            key,
            limit,
            has_deadline,
        };
        let called = self.recorder.call(call);
        let created = self.runs.create(&CreateRun { id, run, worktree }).await;
        if let Ok(Created::New(run) | Created::Existing(run)) = &created {
            self.known.push(run.id);
        }
        self.told(called, created_answer(created)).await;
    }

    async fn retry(&mut self) {
        let Some(of) = self.any_run() else {
            return;
        };
        let id = new_run_id();
        let request = RetryRun {
            of,
            id,
            worktree: self.dice.once_in(3).then(|| wanted(id, false)),
            available_at: None,
            deadline: None,
        };
        let called = self.recorder.call(Call::Retry { of, run: id });
        let answer = match self.runs.retry(&request).await {
            Ok(Write::Applied(created)) => created_answer(Ok(created)),
            Ok(Write::Already(created)) => match created {
                Created::New(run) | Created::Existing(run) => Answer::Existing { run: run.id },
                Created::Conflict { existing, .. } => Answer::Conflict { run: existing.id },
            },
            Ok(Write::Stale { .. }) => Answer::Stale,
            Ok(Write::NotFound) => Answer::NotFound,
            Err(error) => failed(&error),
        };
        self.told(called, answer).await;
    }

    async fn claim(&mut self) {
        let lease = Duration::from_millis(self.dice.between(100, 300));
        let of = match self.any_run().filter(|_| self.dice.once_in(6)) {
            Some(run) => ClaimOf::Run(run),
            None => ClaimOf::ANY,
        };
        let claim = Claim {
            owner: owner(),
            lease_time: LeaseTime::new(lease).unwrap(),
            limit: Limit::new(self.dice.between(1, 3)).unwrap(),
            of,
            site: Some(site()),
        };
        let owner = claim.owner.id.to_string();
        let called = self.recorder.call(Call::Claim { owner, lease });
        let claimed = self.runs.claim(&claim).await;
        for claimed in claimed.iter().flatten() {
            self.held.push(claimed.lease);
            self.known.push(claimed.lease.run);
        }
        self.told(called, claim_answer(&claimed)).await;
        self.dawdle().await;
    }

    async fn renew(&mut self) {
        let Some(lease) = self.any_lease() else {
            return;
        };
        let time = Duration::from_millis(self.dice.between(100, 300));
        let call = Call::Renew {
            held: held(lease),
            lease: time,
        };
        let called = self.recorder.call(call);
        let time = LeaseTime::new(time).unwrap();
        let answer = match self.runs.renew(&[lease], time).await {
            Ok(renewals) => match renewals.first().unwrap() {
                Renewal::Renewed { .. } => Answer::Renewed,
                Renewal::Lost => {
                    self.let_go(lease);
                    Answer::Lost
                }
            },
            Err(error) => failed(&error),
        };
        self.told(called, answer).await;
    }

    async fn end(&mut self) {
        let Some(lease) = self.any_lease() else {
            return;
        };
        self.dawdle().await;
        let error = ErrorText::lossy("it did not work");
        let (outcome, told) = match self.dice.below(10) {
            0..6 => {
                let result = Some(serde_json::json!({ "by": lease.token }));
                (Outcome::Completed { result }, EndedBy::Completed)
            }
            6 => {
                let retry_after = None;
                (Outcome::Failed { error, retry_after }, EndedBy::Failed)
            }
            7..9 => {
                let retry_after = Some(Duration::from_millis(self.dice.below(60)));
                (
                    Outcome::Failed { error, retry_after },
                    EndedBy::FailedForNow,
                )
            }
            _ => (Outcome::Killed, EndedBy::Killed),
        };
        let call = Call::End {
            held: held(lease),
            outcome: told,
        };
        let called = self.recorder.call(call);
        let ended = self.runs.end(lease, &outcome).await;
        if ended.is_ok() {
            self.let_go(lease);
        }
        self.told(called, answer_of(ended)).await;
    }

    async fn release(&mut self) {
        let Some(lease) = self.any_lease() else {
            return;
        };
        let held = held(lease);
        let called = self.recorder.call(Call::Release { held });
        let released = self.runs.release(lease).await;
        if released.is_ok() {
            self.let_go(lease);
        }
        self.told(called, answer_of(released)).await;
    }

    async fn cancel(&mut self) {
        let Some(run) = self.any_run() else {
            return;
        };
        let mode = if self.dice.once_in(3) {
            CancelMode::Forced
        } else {
            CancelMode::Graceful
        };
        let called = self.recorder.call(Call::Cancel { run });
        let cancelled = self.runs.cancel(run, &CancelRequest::new(mode)).await;
        self.told(called, answer_of(cancelled)).await;
    }

    async fn force_kill(&mut self) {
        let Some(run) = self.any_run() else {
            return;
        };
        let called = self.recorder.call(Call::ForceKill { run });
        let request = CancelRequest::new(CancelMode::Forced);
        let killed = self.runs.force_kill(run, &request).await;
        self.told(called, answer_of(killed)).await;
    }

    async fn rescue(&mut self) {
        // It may say of itself that it is dead.
        let dead = self.dice.one_of(&self.held).copied();
        let dead = dead.filter(|_| self.dice.once_in(4));
        let rescue = Rescue {
            proven_dead: dead.into_iter().collect(),
            limit: Limit::new(self.dice.between(1, 20)).unwrap(),
            ..Rescue::default()
        };
        let proven_dead = rescue.proven_dead.iter().copied().map(held).collect();
        let called = self.recorder.call(Call::Rescue { proven_dead });
        let rescued = self.runs.rescue(&rescue).await;
        for lease in rescue.proven_dead {
            self.let_go(lease);
        }
        let answer = match rescued {
            Ok(rescued) => Answer::Rescued {
                held: rescued.iter().map(|rescued| held(rescued.lease)).collect(),
            },
            Err(error) => failed(&error),
        };
        self.told(called, answer).await;
    }

    async fn time_out(&mut self) {
        let overdue = Overdue {
            limit: Limit::MAX,
            grace: Duration::from_millis(50),
        };
        let called = self.recorder.call(Call::TimeOut);
        let answer = match self.runs.time_out(&overdue).await {
            Ok(runs) => Answer::TimedOut {
                runs: runs.iter().map(|run| run.id).collect(),
            },
            Err(error) => failed(&error),
        };
        self.told(called, answer).await;
    }

    async fn annotate(&mut self) {
        let Some(run) = self.any_run() else {
            return;
        };
        let key = format!("note {:016x}", self.dice.roll());
        let annotation = Annotation::new().metadata(key.as_str(), true);
        let called = self.recorder.call(Call::Annotate { run, key });
        let annotated = self.runs.annotate(run, &annotation).await;
        self.told(called, answer_of(annotated)).await;
    }
}

fn count(number: u64) -> std::num::NonZeroU32 {
    u32::try_from(number).unwrap().try_into().unwrap()
}

fn wanted(id: RunId, is_kept: bool) -> WantedWorktree {
    let slug = Slug::from_text("history");
    WantedWorktree {
        name: DirectoryName::for_run(&slug, id),
        branch: BranchName::for_run(&slug, id),
        base: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
        persistence: if is_kept {
            Persistence::Persistent
        } else {
            Persistence::Temporary
        },
    }
}

pub(crate) fn owner() -> Owner {
    Owner {
        id: IdGenerator::system().owner_id().unwrap(),
        host: HostName::new("alpha.example").unwrap(),
        process: ProcessMark::new("boot-1/17/100").unwrap(),
    }
}

/// A claim with a lease of a minute.
pub(crate) fn claim(of: ClaimOf) -> Claim {
    Claim {
        owner: owner(),
        lease_time: LeaseTime::default(),
        limit: Limit::MAX,
        of,
        site: Some(site()),
    }
}

/// A request with an id of its own.
pub(crate) fn request(run: NewRun) -> CreateRun {
    CreateRun {
        id: new_run_id(),
        run,
        worktree: None,
    }
}

pub(crate) fn site() -> WorktreeSite {
    WorktreeSite {
        host: HostName::new("alpha.example").unwrap(),
        git_repository: HostPath::new("/srv/checkout/.git").unwrap(),
        root: HostPath::new("/srv/worktrees").unwrap(),
    }
}

pub(crate) fn held(lease: LeaseRef) -> Held {
    let LeaseRef { run, token } = lease;
    Held {
        run,
        token: Token::get(token),
    }
}

pub(crate) fn claim_answer(claimed: &Result<Vec<Claimed>, RepositoryError>) -> Answer {
    match claimed {
        Ok(claimed) => Answer::Claimed {
            held: claimed.iter().map(|claimed| held(claimed.lease)).collect(),
        },
        Err(error) => failed(error),
    }
}

pub(crate) fn created_answer(created: Result<Created, RepositoryError>) -> Answer {
    match created {
        Ok(Created::New(run)) => Answer::New { run: run.id },
        Ok(Created::Existing(run)) => Answer::Existing { run: run.id },
        Ok(Created::Conflict { existing, .. }) => Answer::Conflict { run: existing.id },
        Err(error) => failed(&error),
    }
}

pub(crate) fn answer_of<T>(write: Result<Write<T>, RepositoryError>) -> Answer {
    match write {
        Ok(Write::Applied(_)) => Answer::Applied,
        Ok(Write::Already(_)) => Answer::Already,
        Ok(Write::Stale { .. }) => Answer::Stale,
        Ok(Write::NotFound) => Answer::NotFound,
        Err(error) => failed(&error),
    }
}

pub(crate) fn failed(error: &RepositoryError) -> Answer {
    let failure = match error.kind() {
        ErrorKind::Busy => Failure::Busy,
        ErrorKind::Unavailable => Failure::Unavailable,
        ErrorKind::InvalidInput
        | ErrorKind::Conflict
        | ErrorKind::ReadOnly
        | ErrorKind::SchemaTooNew
        | ErrorKind::Configuration
        | ErrorKind::Unsupported
        | ErrorKind::Corrupt
        | ErrorKind::Internal
        | _ => Failure::Other,
    };
    Answer::Failed {
        failure,
        text: format!("{error:?}"),
    }
}
