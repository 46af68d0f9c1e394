//! The first half of a run's life: record, claim, branch and worktree, in that order.

use runtree_id::RunId;
use runtree_repository::{
    Claim, ClaimOf, Claimed, CreateRun, Created, ErrorText, LeaseRef, Limit, NewRun, Outcome, Run,
    WantedWorktree, WorktreeRecord, Write,
};
use runtree_worktree::{AddWorktree, Checkout, ErrorKind as Tree, Reason, Worktree};
use tokio::time::Instant;

use crate::active::ActiveRun;
use crate::coordinator::{Coordinator, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::names;

impl Coordinator {
    /// Starts a run that the caller executes: makes its record, branch and worktree, and owns it.
    ///
    /// The steps, each durable before the next begins: the record; the claim with the planned worktree; branch, directory,
    /// registration and checkout; the mark that the worktree is ready. A failure between them ends the run with its reason.
    ///
    /// A request with an idempotency key that was made before goes on with the run that it made, if that still waits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::Conflict`] and [`ErrorKind::GitRepository`] before anything is made;
    /// [`ErrorKind::AlreadyStarted`] when the same request has a run that is owned or has ended; [`ErrorKind::InTheWay`] or
    /// [`ErrorKind::Worktree`] when the worktree could not be made, which the run's record then says too.
    ///
    /// # Cancel safety
    /// When the future is dropped, the run is taken up when its lease expires.
    pub async fn start(&self, run: NewRun) -> Result<ActiveRun> {
        let request = self.inner.prepare(run).await?;
        let run = match self
            .inner
            .persist(|| self.inner.runs.create(&request))
            .await?
        {
            Created::New(run) => run,
            existing @ (Created::Existing(_) | Created::Conflict { .. }) => existing.into_run()?,
        };
        let asked_at = Instant::now();
        let claimed = self.inner.claim_one(run.id).await;
        let Some(claimed) = claimed.map_err(|error| error.of(run.id))? else {
            return Err(self.inner.already_started(run.id).await);
        };
        let valid_until = asked_at + self.inner.me.lease_time.get();
        self.begin(claimed, valid_until).await
    }

    /// Makes the worktree of a run that was just claimed; a failure ends the run with its reason.
    pub(crate) async fn begin(&self, claimed: Claimed, valid_until: Instant) -> Result<ActiveRun> {
        // From here on the lease is renewed, however long the checkout takes.
        let held = self.inner.owned.hold(claimed.lease, valid_until);
        match self.inner.ready_worktree(&claimed).await {
            Ok(worktree) => Ok(ActiveRun::new(self.clone(), held, claimed.run, worktree)),
            Err(error) => {
                self.inner.record_failure(claimed.lease, &error).await;
                Err(error.of(claimed.run.id))
            }
        }
    }
}

impl Inner {
    /// Resolves what the request wishes for, so that every attempt starts from the same commit.
    pub(crate) async fn prepare(&self, run: NewRun) -> Result<CreateRun> {
        let workflow = run.check()?.workflow;
        let drawn = self.ids.run_id();
        let id =
            drawn.map_err(|e| Error::new(ErrorKind::Internal, e.to_string()).with_source(e))?;
        let wish = run.worktree_wish().clone();
        let revision = wish.base.unwrap_or_else(|| "HEAD".to_owned());
        let base = self
            .git(move |worktrees| worktrees.resolve(&revision))
            .await?;
        let worktree = WantedWorktree {
            name: names::directory(&workflow, id),
            branch: wish.branch.unwrap_or_else(|| names::branch(&workflow, id)),
            base,
            persistence: wish.persistence,
        };
        Ok(CreateRun {
            id,
            run,
            worktree: Some(worktree),
        })
    }

    async fn claim_one(&self, run: RunId) -> Result<Option<Claimed>> {
        let claim = Claim {
            owner: self.me.owner.clone(),
            lease_time: self.me.lease_time,
            limit: Limit::ONE,
            of: ClaimOf::Run(run),
            site: Some(self.me.site.clone()),
        };
        // Not repeated on an error: a claim whose answer was lost must not be taken for somebody else's.
        let mut claimed = self.runs.claim(&claim).await?;
        Ok(claimed.pop())
    }

    async fn already_started(&self, id: RunId) -> Error {
        match self.runs.get(id).await {
            Ok(Some(run)) => Error::new(ErrorKind::AlreadyStarted, describe_start(&run)).of(id),
            Ok(None) => Error::new(ErrorKind::NotFound, format!("the run {id} is gone")).of(id),
            Err(error) => Error::from(error).of(id),
        }
    }

    /// Makes the planned worktree, or goes on with the one that an earlier attempt left.
    async fn ready_worktree(&self, claimed: &Claimed) -> Result<Worktree> {
        let Some(record) = claimed.worktree.clone() else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the run {} was claimed without a worktree", claimed.run.id),
            ));
        };
        let ownership = names::ownership(record.key)?;
        let request = add_request(&record, &claimed.run)?;
        let made = self.git(move |worktrees| {
            // Whatever the record says: what an earlier attempt has finished is gone on with, what it left half made is undone.
            match worktrees.get(&record.wanted.name, &ownership) {
                Err(error) if error.kind() == Tree::NotFound => worktrees.add(&request),
                Err(error) if error.kind() == Tree::Unfinished => {
                    worktrees.recover(&crate::recover::probe)?;
                    worktrees.add(&request)
                }
                found => found,
            }
        });
        let worktree = made.await?;
        self.mark_ready(claimed.lease).await?;
        Ok(worktree)
    }

    async fn mark_ready(&self, lease: LeaseRef) -> Result<()> {
        let answer = self.persist(|| self.runs.worktree_ready(lease)).await?;
        match answer.accepted() {
            Some(_) => Ok(()),
            None => Err(Error::new(
                ErrorKind::Lost,
                format!(
                    "the run {} was taken away while its worktree was made",
                    lease.run
                ),
            )),
        }
    }

    /// Ends a run that could not be prepared, so that its record says why.
    async fn record_failure(&self, lease: LeaseRef, error: &Error) {
        let outcome = Outcome::Failed {
            error: ErrorText::lossy(&with_sources(error)),
            retry_after: None,
        };
        match self.persist(|| self.runs.end(lease, &outcome)).await {
            Ok(Write::Applied(run) | Write::Already(run)) => {
                drop(self.clean_up_after(&run).await);
            }
            // Somebody else has it now: an owner that lost its run touches nothing, not even to tidy up.
            Ok(Write::Stale { .. } | Write::NotFound) => {}
            Err(unrecorded) => {
                tracing::warn!(run = %lease.run, %error, %unrecorded, "the failure was not recorded; the run is taken up when its lease expires");
            }
        }
    }
}

fn add_request(record: &WorktreeRecord, run: &Run) -> Result<AddWorktree> {
    let wanted = &record.wanted;
    let request = AddWorktree::new(
        wanted.name.clone(),
        Checkout::NewBranch(wanted.branch.clone()),
        wanted.base,
        names::ownership(record.key)?,
    );
    // The name of the workflow may be longer than the reason of a lock.
    let reason: String = run.workflow.as_str().chars().take(40).collect();
    let request = request.reason(Reason::new(format!("{reason} run {}", run.id))?);
    Ok(match wanted.persistence {
        runtree_repository::Persistence::Persistent => request.persistent(),
        runtree_repository::Persistence::Temporary => request,
    })
}

fn describe_start(run: &Run) -> String {
    match &run.owner {
        Some(owner) => format!(
            "the run {} of this request is owned on the host {}",
            run.id, owner.host
        ),
        None => format!("the run {} of this request is {}", run.id, run.status),
    }
}

/// Writes an error with everything that caused it.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        // An error that was taken over with its own words is not told twice.
        if !text.ends_with(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    text
}
