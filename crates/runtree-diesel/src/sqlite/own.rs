//! What owners do while they own a run: claim it, prolong the lease, and tell how far it is.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use runtree_repository::id::RunId;
use runtree_repository::status::Event;
use runtree_repository::{
    Claim, ClaimOf, Claimed, Ending, ErrorKind, EventKind, LeaseRef, LeaseTime, Outcome, OwnRuns,
    ProcessMark, Renewal, RepositoryError, Run, RunSummary, Token, WorktreeKey, WorktreeRecord,
    WorktreeSite, Write,
};
use serde_json::json;

use super::SqliteRepository;
use super::operation::{EndRequest, Request};
use super::rows::CandidateRow;
use super::sql::{Transaction, among, plain, run_joins, tags};
use super::statement::{Statement, Value};
use super::{end, worktree};
use crate::row::{
    WorktreeRow, payload_columns, persistence_word, run_columns, status, worktree_columns,
};

#[async_trait]
impl OwnRuns for SqliteRepository {
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, RepositoryError> {
        claim.check()?;
        let claim = claim.clone();
        self.write("claim runs", move |transaction| {
            claim_runs(transaction, &claim)
        })
        .await
    }

    async fn renew(
        &self,
        leases: &[LeaseRef],
        lease_time: LeaseTime,
    ) -> Result<Vec<Renewal>, RepositoryError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let leases = leases.to_vec();
        self.write("renew leases", move |transaction| {
            leases
                .iter()
                .map(|lease| renew(transaction, *lease, lease_time))
                .collect()
        })
        .await
    }

    async fn record_child(
        &self,
        lease: LeaseRef,
        child: &ProcessMark,
    ) -> Result<Write<()>, RepositoryError> {
        let child = child.clone();
        self.write("record a process", move |transaction| {
            record_child(transaction, lease, &child)
        })
        .await
    }

    async fn worktree_ready(
        &self,
        lease: LeaseRef,
    ) -> Result<Write<WorktreeRecord>, RepositoryError> {
        self.write("record a worktree", move |transaction| {
            worktree_ready(transaction, lease)
        })
        .await
    }

    async fn end(&self, lease: LeaseRef, outcome: &Outcome) -> Result<Write<Run>, RepositoryError> {
        outcome.check()?;
        let ending = Ending {
            lease,
            outcome: outcome.clone(),
        };
        self.request(end::DOING, |namespace, reply| {
            Request::End(EndRequest {
                namespace,
                ending,
                reply,
            })
        })
        .await
    }

    async fn end_many(
        &self,
        endings: &[Ending],
    ) -> Result<Vec<Write<RunSummary>>, RepositoryError> {
        Ending::check_batch(endings)?;
        if endings.is_empty() {
            return Ok(Vec::new());
        }
        let endings = endings.to_vec();
        self.write("end runs", move |transaction| {
            end::end_many(transaction, &endings)
        })
        .await
    }

    async fn release(&self, lease: LeaseRef) -> Result<Write<Run>, RepositoryError> {
        self.write("release a run", move |transaction| {
            end::release(transaction, lease)
        })
        .await
    }
}

/// What may be claimed: ?2 is now, ?3 tells whether there is a site for worktrees.
macro_rules! claim_guard {
    () => {
        concat!(
            "r.status = ",
            status!(Pending),
            " AND r.ended_at IS NULL AND r.cancel_requested_at IS NULL AND r.available_at <= ?2 \
         AND (r.worktree_name IS NULL OR ?3)"
        )
    };
}

/// How many runs hold a live lease under each concurrency key: counted once for a claim, and only when it comes to a run that has
/// a key.
macro_rules! held {
    () => {
        concat!(
            "WITH held AS MATERIALIZED (SELECT u.concurrency_key AS key, count(*) AS number \
             FROM runtree_runs u INDEXED BY runtree_runs_concurrency \
             JOIN runtree_run_leases l ON l.namespace = u.namespace AND l.run_id = u.id \
             WHERE u.namespace = ?1 AND u.concurrency_key IS NOT NULL AND u.status = ",
            status!(Running),
            " AND l.expires_at > ?2 GROUP BY u.concurrency_key) "
        )
    };
}

/// How many runs with the concurrency key of `r` hold a live lease, as counted for all keys.
macro_rules! used {
    () => {
        "coalesce((SELECT h.number FROM held h WHERE h.key = r.concurrency_key), 0)"
    };
}

/// As [`used`], counted for this one run.
macro_rules! used_by_one {
    () => {
        concat!(
            "(SELECT count(*) FROM runtree_runs u INDEXED BY runtree_runs_concurrency \
             JOIN runtree_run_leases l ON l.namespace = u.namespace AND l.run_id = u.id \
             WHERE u.namespace = ?1 AND u.concurrency_key = r.concurrency_key AND u.status = ",
            status!(Running),
            " AND l.expires_at > ?2)"
        )
    };
}

/// Waiting runs in the order of claims, whole, without those whose concurrency key is used up.
macro_rules! candidates {
    ($index:literal, $which:literal) => {
        concat!(held!(), candidates!(used!(), $index, $which))
    };
    ($used:expr, $index:literal, $which:literal) => {
        concat!(
            "SELECT ",
            run_columns!(plain, plain, plain, tags),
            ", ",
            payload_columns!(),
            ", CASE WHEN r.concurrency_key IS NULL THEN 0 ELSE ",
            $used,
            " END AS used FROM runtree_runs r",
            $index,
            " LEFT JOIN runtree_run_payloads p ON p.namespace = r.namespace AND p.run_id = r.id ",
            run_joins!(),
            " WHERE r.namespace = ?1 AND ",
            claim_guard!(),
            $which,
            " AND (r.concurrency_key IS NULL OR r.concurrency_limit > ",
            $used,
            ") ORDER BY r.priority DESC, r.created_at, r.id LIMIT ?4 + 0"
        )
    };
}

pub(super) const ANY: &str = candidates!(" INDEXED BY runtree_runs_claim", "");
pub(super) const OF_RUN: &str = candidates!(used_by_one!(), "", " AND r.id = ?5");
pub(super) const OF_WORKFLOWS: &str = candidates!(
    " INDEXED BY runtree_runs_claim",
    " AND r.workflow IN (SELECT value FROM json_each(?5))"
);
pub(super) const OF_QUEUE: &str =
    candidates!(" INDEXED BY runtree_runs_queue", " AND r.queue = ?5");
pub(super) const OF_QUEUE_AND_WORKFLOWS: &str = candidates!(
    " INDEXED BY runtree_runs_queue",
    " AND r.queue = ?5 AND r.workflow IN (SELECT value FROM json_each(?6))"
);
// Several queues are not in one order in the index of queues; all that wait are.
pub(super) const OF_QUEUES: &str = candidates!(
    " INDEXED BY runtree_runs_claim",
    " AND r.queue IN (SELECT value FROM json_each(?5))"
);
pub(super) const OF_QUEUES_AND_WORKFLOWS: &str = candidates!(
    " INDEXED BY runtree_runs_claim",
    " AND r.queue IN (SELECT value FROM json_each(?5)) AND r.workflow IN (SELECT value FROM json_each(?6))"
);

/// The guard of a claim stands twice, in the choice and in the change.
macro_rules! take {
    ($update:literal, $which:expr) => {
        concat!(
            $update,
            " runtree_runs AS r SET status = ",
            status!(Running),
            ", token = token + 1, attempts = attempts + 1, started_at = coalesce(started_at, ?2), updated_at = max(?2, updated_at) \
             WHERE namespace = ?1 AND id ",
            $which,
            " AND ",
            claim_guard!()
        )
    };
}

/// How many candidates a claim reads at once when it had to pass over some.
const FEW: usize = 16;

/// Takes waiting runs in their order, each only while its concurrency key has room.
///
/// Nobody else writes meanwhile, so what was counted stays true; what this claim takes itself is counted here.
pub(super) fn claim_runs(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
) -> Result<Vec<Claimed>, RepositoryError> {
    let limit = claim.limit.get();
    let mut claimed = Vec::new();
    let mut at_once = limit;
    loop {
        let wanted = at_once.min(limit - claimed.len());
        let candidates = candidates(transaction, claim, wanted)?;
        let found = candidates.len();
        let chosen = with_room(candidates)?;
        let chosen_now = chosen.len();
        claimed.extend(take(transaction, claim, chosen)?);
        // Those that were passed over are not among the next candidates: their keys are used up by now.
        if found < wanted || claimed.len() == limit || chosen_now == 0 {
            return Ok(claimed);
        }
        if chosen_now < found {
            // Many that wait for few keys are read to be passed over.
            at_once = FEW.max(2 * chosen_now);
        }
    }
}

/// Takes candidates in their order, each only while its key has room for it.
fn with_room(candidates: Vec<CandidateRow>) -> Result<Vec<Run>, RepositoryError> {
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    let mut chosen = Vec::with_capacity(candidates.len());
    for CandidateRow { run, used } in candidates {
        if let Some((key, limit)) = run.concurrency() {
            let taken = taken.entry(key.to_owned()).or_default();
            if used + *taken >= limit {
                continue;
            }
            *taken += 1;
        }
        chosen.push(run.decode()?);
    }
    Ok(chosen)
}

fn candidates(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    limit: usize,
) -> Result<Vec<CandidateRow>, RepositoryError> {
    fn words<'v, T: AsRef<str>>(words: &BTreeSet<T>) -> Value<'v> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        json!(words).to_string().into()
    }
    let (sql, which): (_, Vec<Value<'_>>) = match &claim.of {
        ClaimOf::Run(id) => (OF_RUN, vec![id.as_bytes().into()]),
        ClaimOf::Waiting(waiting) => match (&waiting.queues, &waiting.workflows) {
            (None, None) => (ANY, Vec::new()),
            (None, Some(workflows)) => (OF_WORKFLOWS, vec![words(workflows)]),
            (Some(queues), None) => match only(queues) {
                Some(queue) => (OF_QUEUE, vec![queue.as_str().into()]),
                None => (OF_QUEUES, vec![words(queues)]),
            },
            (Some(queues), Some(workflows)) => match only(queues) {
                Some(queue) => (
                    OF_QUEUE_AND_WORKFLOWS,
                    vec![queue.as_str().into(), words(workflows)],
                ),
                None => (
                    OF_QUEUES_AND_WORKFLOWS,
                    vec![words(queues), words(workflows)],
                ),
            },
        },
        _ => {
            let message = format!("this store cannot claim {:?}", claim.of);
            return Err(RepositoryError::new(ErrorKind::Internal, message));
        }
    };
    let statement = transaction
        .here(sql)
        .bind(transaction.now().as_unix_micros())
        .bind(i64::from(claim.site.is_some()))
        .bind(Value::count(limit))
        .bind_all(which);
    transaction.rows(statement)
}

/// The only one of a set.
fn only<T: Ord>(set: &BTreeSet<T>) -> Option<&T> {
    set.first().filter(|_| set.len() == 1)
}

/// Claims runs that were chosen in this transaction.
fn take(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    mut chosen: Vec<Run>,
) -> Result<Vec<Claimed>, RepositoryError> {
    let now = transaction.now();
    let taken: Vec<_> = chosen
        .iter_mut()
        .map(|run| claim.take(&mut run.summary, now))
        .collect();
    match chosen.as_slice() {
        [] => return Ok(Vec::new()),
        [one] => take_one(transaction, claim, one)?,
        several => take_all(transaction, claim, several)?,
    }
    let mut claimed = Vec::with_capacity(chosen.len());
    for (run, (lease, expires_at)) in chosen.into_iter().zip(taken) {
        let worktree = match &claim.site {
            Some(site) => give_worktree(transaction, &run, lease.token, site)?,
            None => None,
        };
        claimed.push(Claimed::new(lease, expires_at, run, worktree));
    }
    Ok(claimed)
}

/// Writes one claimed run, its lease and its event.
fn take_one(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    run: &Run,
) -> Result<(), RepositoryError> {
    const TAKE: &str = take!("UPDATE", "= ?4");
    const LEASE: &str = "INSERT OR REPLACE INTO runtree_run_leases \
         (namespace, run_id, owner_id, owner_host, owner_process, heartbeat_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let update = transaction
        .here(TAKE)
        .bind(transaction.now().as_unix_micros())
        .bind(i64::from(claim.site.is_some()))
        .bind(run.id.as_bytes());
    if !transaction.applies(update)? {
        return Err(not_as_indexed(1, 0));
    }
    let lease = transaction.here(LEASE).bind(run.id.as_bytes());
    transaction.execute(bind_lease(transaction, lease, claim))?;
    let detail =
        json!({ "attempt": run.attempts, "owner": claim.owner.id, "host": claim.owner.host });
    let kind = EventKind::Claimed;
    transaction.record_at(run.id, run.updated_at, kind, run.token, Some(&detail))
}

/// Writes several claimed runs, with one statement for each step instead of one for each step of each run.
fn take_all(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    runs: &[Run],
) -> Result<(), RepositoryError> {
    const TAKE_ALL: &str = take!(
        "UPDATE OR FAIL",
        "IN (SELECT unhex(value) FROM json_each(?4))"
    );
    const LEASES: &str = "INSERT OR REPLACE INTO runtree_run_leases \
         (namespace, run_id, owner_id, owner_host, owner_process, heartbeat_at, expires_at) \
         SELECT ?1, unhex(value), ?3, ?4, ?5, ?6, ?7 FROM json_each(?2)";
    const EVENTS: &str = concat!(
        "INSERT INTO runtree_run_events (namespace, run_id, number, at, kind, token, detail) SELECT ?1, r.id, \
         (SELECT coalesce(max(e.number), 0) + 1 FROM runtree_run_events e WHERE e.namespace = ?1 AND e.run_id = r.id), \
         max(?3, r.updated_at), ?4, r.token, json_object('attempt', r.attempts, 'host', ?5, 'owner', ?6) \
         FROM runtree_runs r WHERE r.namespace = ?1 AND r.id ",
        among!()
    );
    let ids = || Value::ids(runs.iter().map(|run| &run.id));
    let now = transaction.now();
    let update = transaction
        .here(TAKE_ALL)
        .bind(now.as_unix_micros())
        .bind(i64::from(claim.site.is_some()))
        .bind(ids());
    // To ask which of them were changed would cost a quarter more.
    let changed = transaction.execute(update)?;
    if changed != runs.len() {
        return Err(not_as_indexed(runs.len(), changed));
    }
    let leases = transaction.here(LEASES).bind(ids());
    transaction.execute(bind_lease(transaction, leases, claim))?;
    let events = transaction
        .here(EVENTS)
        .bind(ids())
        .bind(now.as_unix_micros())
        .bind(EventKind::Claimed.as_str())
        .bind(claim.owner.host.as_str())
        .bind(claim.owner.id.to_string());
    transaction.execute(events)?;
    Ok(())
}

/// Five values: the owner's id, host and process, now, and when the lease expires.
fn bind_lease<'v>(
    transaction: &Transaction<'_>,
    statement: Statement<'v>,
    claim: &'v Claim,
) -> Statement<'v> {
    let now = transaction.now();
    statement
        .bind(claim.owner.id.as_bytes())
        .bind(claim.owner.host.as_str())
        .bind(claim.owner.process.as_str())
        .bind(now.as_unix_micros())
        .bind(now.saturating_add(claim.lease_time.get()).as_unix_micros())
}

/// The error of runs that were chosen in this transaction by the same guard, and yet could not be taken: an index does not say
/// what the table says.
fn not_as_indexed(chosen: usize, taken: usize) -> RepositoryError {
    let message =
        format!("{taken} of {chosen} runs that an index shows as waiting could be claimed");
    RepositoryError::new(ErrorKind::Corrupt, message)
}

/// Hands on the worktree that an earlier attempt left on this site, or plans one.
fn give_worktree(
    transaction: &mut Transaction<'_>,
    run: &Run,
    token: Token,
    site: &WorktreeSite,
) -> Result<Option<WorktreeRecord>, RepositoryError> {
    let Some(wanted) = &run.worktree else {
        return Ok(None);
    };
    let now = transaction.now();
    const HAND_ON: &str = "UPDATE runtree_run_worktrees \
         SET held_by = ?5, state = CASE state WHEN 'kept' THEN 'ready' ELSE state END, updated_at = max(?6, updated_at) \
         WHERE namespace = ?1 AND run_id = ?2 AND planned_by = (SELECT max(planned_by) FROM runtree_run_worktrees \
             WHERE namespace = ?1 AND run_id = ?2 AND host = ?3 AND git_repository = ?4 AND state IN ('adding', 'ready', 'kept'))";
    let hand_on = transaction
        .here(HAND_ON)
        .bind(run.id.as_bytes())
        .bind(site.host.as_str())
        .bind(site.git_repository.as_str())
        .bind(token.get())
        .bind(now.as_unix_micros());
    if transaction.applies(hand_on)? {
        return worktree::held_by(transaction, run.id, token);
    }
    const PLAN: &str = "INSERT INTO runtree_run_worktrees (namespace, run_id, planned_by, host, git_repository, root, path, name, \
         branch, base, persistence, state, held_by, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'adding', ?3, ?12, ?12)";
    let path = site.path_of(&wanted.name)?;
    let plan = transaction
        .here(PLAN)
        .bind(run.id.as_bytes())
        .bind(token.get())
        .bind(site.host.as_str())
        .bind(site.git_repository.as_str())
        .bind(site.root.as_str())
        .bind(path.as_str())
        .bind(wanted.name.as_str())
        .bind(wanted.branch.as_str())
        .bind(wanted.base.as_str())
        .bind(persistence_word(wanted.persistence))
        .bind(now.as_unix_micros());
    transaction.execute(plan)?;
    worktree::get(
        transaction,
        WorktreeKey {
            run: run.id,
            planned_by: token,
        },
    )
}

fn renew(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    lease_time: LeaseTime,
) -> Result<Renewal, RepositoryError> {
    const RENEW: &str = concat!(
        "UPDATE runtree_run_leases SET heartbeat_at = ?4, expires_at = ?5 \
         WHERE namespace = ?1 AND run_id = ?2 AND expires_at > ?4 AND EXISTS (SELECT 1 FROM runtree_runs r \
             WHERE r.namespace = ?1 AND r.id = ?2 AND r.status = ",
        status!(Running),
        " AND r.token = ?3)"
    );
    let now = transaction.now();
    let expires_at = now.saturating_add(lease_time.get());
    let statement = transaction
        .here(RENEW)
        .bind(lease.run.as_bytes())
        .bind(lease.token.get())
        .bind(now.as_unix_micros())
        .bind(expires_at.as_unix_micros());
    // That an owner lives is no news.
    if transaction.execute_quietly(statement)? > 0 {
        let cancel = transaction.written_summary(lease.run)?.cancel;
        return Ok(Renewal::Renewed { expires_at, cancel });
    }
    if transaction.summary(lease.run)?.is_some() {
        transaction.reject(lease.run, lease.token, Event::Renew.as_str())?;
    }
    Ok(Renewal::Lost)
}

fn record_child(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    child: &ProcessMark,
) -> Result<Write<()>, RepositoryError> {
    const CHILD: &str = concat!(
        "UPDATE runtree_run_leases SET child_process = ?4 \
         WHERE namespace = ?1 AND run_id = ?2 AND EXISTS (SELECT 1 FROM runtree_runs r \
             WHERE r.namespace = ?1 AND r.id = ?2 AND r.status = ",
        status!(Running),
        " AND r.token = ?3)"
    );
    let statement = transaction
        .here(CHILD)
        .bind(lease.run.as_bytes())
        .bind(lease.token.get())
        .bind(child.as_str());
    if transaction.applies(statement)? {
        return Ok(Write::Applied(()));
    }
    stale(transaction, lease, "record_child")
}

fn worktree_ready(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
) -> Result<Write<WorktreeRecord>, RepositoryError> {
    const READY: &str = concat!(
        "UPDATE runtree_run_worktrees SET state = 'ready', updated_at = max(?4, updated_at) \
         WHERE namespace = ?1 AND run_id = ?2 AND held_by = ?3 AND state = 'adding' AND EXISTS (SELECT 1 FROM runtree_runs r \
             WHERE r.namespace = ?1 AND r.id = ?2 AND r.status = ",
        status!(Running),
        " AND r.token = ?3)"
    );
    const READY_ALREADY: &str = concat!(
        "SELECT ",
        worktree_columns!(plain, plain, plain),
        " FROM runtree_run_worktrees w",
        " JOIN runtree_runs r ON r.namespace = w.namespace AND r.id = w.run_id",
        " WHERE w.namespace = ?1 AND w.run_id = ?2 AND w.held_by = ?3 AND w.state = 'ready' AND r.status = ",
        status!(Running),
        " AND r.token = ?3"
    );
    let now = transaction.now().as_unix_micros();
    let (run, token) = (lease.run.as_bytes(), lease.token.get());
    if transaction.applies(transaction.here(READY).bind(run).bind(token).bind(now))? {
        transaction.record(lease.run, EventKind::WorktreeReady, lease.token, None)?;
        let record = worktree::held_by(transaction, lease.run, lease.token)?;
        return record
            .map(Write::Applied)
            .ok_or_else(|| worktree::lost(lease.run));
    }
    match transaction.row::<WorktreeRow>(transaction.here(READY_ALREADY).bind(run).bind(token))? {
        Some(row) => Ok(Write::Already(row.decode()?)),
        None => stale(transaction, lease, "worktree_ready"),
    }
}

/// Answers an owner's write whose guard did not hold, and records it in the history of the run.
pub(super) fn stale<T>(
    transaction: &mut Transaction<'_>,
    lease: LeaseRef,
    event: &str,
) -> Result<Write<T>, RepositoryError> {
    if transaction.summary(lease.run)?.is_none() {
        return Ok(Write::NotFound);
    }
    transaction.reject(lease.run, lease.token, event)?;
    current(transaction, lease.run)
}

/// Answers with the run as it is.
pub(super) fn current<T>(
    transaction: &mut Transaction<'_>,
    id: RunId,
) -> Result<Write<T>, RepositoryError> {
    Ok(Write::Stale {
        current: Box::new(transaction.written_summary(id)?),
    })
}
