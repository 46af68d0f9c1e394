//! One transaction on one namespace: reading and writing whole records, and the calls that look at many of them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use redb::{ReadableTable, Table, TableDefinition};
use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::time::Timestamp;
use runtree_repository::{
    CheckedRun, Claim, ClaimOf, Claimed, CleanupClaim, CleanupRef, CleanupTask, ConflictOver,
    CreateRun, Created, EventKind, Explanation, LeaseRef, Overdue, Rescue, Rescued, Retention,
    RetryRun, Run, RunSummary, Surroundings, Token, UniqueKey, WorktreeKey, WorktreeRecord,
    WorktreeState, Write,
};
use serde_json::json;

use crate::error::{Answer, corrupt, failed};
use crate::record::Record;

/// A run of a namespace.
type Key = (&'static str, [u8; 16]);

/// Every run: its namespace and id, and the record as JSON.
pub(crate) const RUNS: TableDefinition<Key, &[u8]> = TableDefinition::new("runs");

/// What can be read of a namespace, in a transaction that writes or in one that only reads.
pub(crate) struct Records<'n, T> {
    pub(crate) table: T,
    pub(crate) namespace: &'n str,
    pub(crate) now: Timestamp,
}

pub(crate) type Writing<'n, 't> = Records<'n, Table<'t, Key, &'static [u8]>>;

impl<T: ReadableTable<Key, &'static [u8]>> Records<'_, T> {
    pub(crate) fn get(&self, id: RunId) -> Answer<Option<Record>> {
        let found = self.table.get((self.namespace, *id.as_bytes()));
        let found = found.map_err(failed)?;
        let record = found.map(|bytes| Record::from_bytes(bytes.value()));
        record.transpose().map_err(corrupt)
    }

    /// Every record, by id.
    pub(crate) fn all(&self) -> Answer<Vec<Record>> {
        let range = (self.namespace, [u8::MIN; 16])..=(self.namespace, [u8::MAX; 16]);
        let mut records = Vec::new();
        for found in self.table.range(range).map_err(failed)? {
            let (_, bytes) = found.map_err(failed)?;
            records.push(Record::from_bytes(bytes.value()).map_err(corrupt)?);
        }
        Ok(records)
    }

    pub(crate) fn explain(&self, id: RunId) -> Answer<Option<Explanation>> {
        let Some(record) = self.get(id)? else {
            return Ok(None);
        };
        let all = self.all()?;
        let goes_first = |other: &&Record| {
            is_waiting(&other.run, self.now)
                && other.run.queue == record.run.queue
                && waiting_place(&other.run) < waiting_place(&record.run)
        };
        let holders = all.iter().filter(|other| {
            let (one, other_key) = (&record.run.concurrency, &other.run.concurrency);
            let is_same = one.as_ref().zip(other_key.as_ref());
            other.run.id != id
                && is_same.is_some_and(|(one, other)| one.key == other.key)
                && is_alive(other, self.now)
        });
        let seen = Surroundings {
            lease: record.lease_view(),
            holders: holders.map(|other| other.run.id).collect(),
            ahead: number(all.iter().filter(goes_first).count()),
        };
        Ok(Some(Explanation::new(record.run.summary, self.now, &seen)))
    }
}

impl Writing<'_, '_> {
    pub(crate) fn put(&mut self, record: &Record) -> Answer<()> {
        let bytes = record.to_bytes().map_err(corrupt)?;
        let key = (self.namespace, *record.run.id.as_bytes());
        self.table.insert(key, bytes.as_slice()).map_err(failed)?;
        Ok(())
    }

    /// Changes a record, if there is one.
    pub(crate) fn change<A>(
        &mut self,
        id: RunId,
        change: impl FnOnce(&mut Record, Timestamp) -> Answer<Write<A>>,
    ) -> Answer<Write<A>> {
        let Some(mut record) = self.get(id)? else {
            return Ok(Write::NotFound);
        };
        let answer = change(&mut record, self.now)?;
        self.put(&record)?;
        Ok(answer)
    }

    /// Does an owner's write, if it is the owner's; what was tried otherwise is written down.
    pub(crate) fn owned<A>(
        &mut self,
        lease: LeaseRef,
        what: &str,
        write: impl FnOnce(&mut Record, Timestamp) -> Option<Write<A>>,
    ) -> Answer<Write<A>> {
        self.change(lease.run, |record, now| {
            if record.is_held_by(lease)
                && let Some(answer) = write(record, now)
            {
                return Ok(answer);
            }
            record.reject(lease.token, what, now);
            Ok(record.stale())
        })
    }

    pub(crate) fn create(&mut self, request: &CreateRun, wanted: CheckedRun) -> Answer<Created> {
        let fingerprint = *wanted.fingerprint.as_bytes();
        // The only writer holds the store: what is looked for here cannot appear before the insert.
        let by_key = match &wanted.idempotency_key {
            Some(key) => {
                let mut all = self.all()?.into_iter();
                all.find(|record| record.run.idempotency_key.as_ref() == Some(key))
            }
            None => None,
        };
        let found = match by_key {
            Some(record) => Some((ConflictOver::IdempotencyKey, record)),
            None => self
                .get(request.id)?
                .map(|record| (ConflictOver::Id, record)),
        };
        if let Some((over, record)) = found {
            let existing = record.run;
            return Ok(if record.fingerprint == fingerprint {
                Created::Existing(existing)
            } else {
                Created::Conflict { over, existing }
            });
        }
        if let Some(existing) = self.holder(wanted.unique_key.as_ref())? {
            let over = ConflictOver::UniqueKey;
            return Ok(Created::Conflict { over, existing });
        }
        let run = wanted.into_run(request, self.now);
        self.put(&Record::new(run.clone(), fingerprint, self.now))?;
        // As it was written: making the record may have set more.
        let written = self.get(run.id)?.map(|record| record.run);
        Ok(Created::New(written.unwrap_or(run)))
    }

    fn holder(&self, key: Option<&UniqueKey>) -> Answer<Option<Run>> {
        let Some(key) = key else { return Ok(None) };
        let mut runs = self.all()?.into_iter().map(|record| record.run);
        Ok(runs.find(|run| run.unique_key.as_ref() == Some(key) && !run.has_ended()))
    }

    pub(crate) fn retry(&mut self, request: &RetryRun) -> Answer<Write<Created>> {
        let Some(mut ended) = self.get(request.of)? else {
            return Ok(Write::NotFound);
        };
        if !ended.run.has_ended() || !ended.run.status.is_known() {
            return Ok(ended.stale());
        }
        if let Some(Record { run: existing, .. }) = self.get(request.id)? {
            return Ok(if existing.retry_of == Some(request.of) {
                Write::Already(Created::Existing(existing))
            } else {
                let over = ConflictOver::Id;
                Write::Applied(Created::Conflict { over, existing })
            });
        }
        if let Some(existing) = self.holder(ended.run.unique_key.as_ref())? {
            let over = ConflictOver::UniqueKey;
            return Ok(Write::Applied(Created::Conflict { over, existing }));
        }
        let run = request.run(&ended.run, self.now);
        let detail = json!({ "run": request.id });
        ended.tell(EventKind::Retried, self.now, Some(detail));
        self.put(&Record::new(run.clone(), ended.fingerprint, self.now))?;
        self.put(&ended)?;
        Ok(Write::Applied(Created::New(run)))
    }

    pub(crate) fn claim(&mut self, claim: &Claim) -> Answer<Vec<Claimed>> {
        let now = self.now;
        let all = self.all()?;
        let mut used = BTreeMap::new();
        for record in all.iter().filter(|record| is_alive(record, now)) {
            if let Some(concurrency) = &record.run.concurrency {
                *used.entry(concurrency.key.clone()).or_insert(0_u32) += 1;
            }
        }
        let is_meant = |run: &Run| match &claim.of {
            ClaimOf::Run(id) => run.id == *id,
            ClaimOf::Waiting(waiting) => {
                let (queues, workflows) = (&waiting.queues, &waiting.workflows);
                queues
                    .as_ref()
                    .is_none_or(|names| names.contains(&run.queue))
                    && workflows
                        .as_ref()
                        .is_none_or(|names| names.contains(&run.workflow))
            }
            _ => false,
        };
        let has_place = |run: &Run| run.worktree.is_none() || claim.site.is_some();
        let waiting = all.into_iter().filter(|record| {
            is_waiting(&record.run, now) && is_meant(&record.run) && has_place(&record.run)
        });
        let mut waiting: Vec<Record> = waiting.collect();
        waiting.sort_by_key(|record| waiting_place(&record.run));
        let mut claimed = Vec::new();
        for mut record in waiting {
            if claimed.len() == claim.limit.get() {
                break;
            }
            if let Some(concurrency) = &record.run.concurrency {
                let used = used.entry(concurrency.key.clone()).or_insert(0);
                if *used >= concurrency.limit.get() {
                    continue;
                }
                *used += 1;
            }
            let path = record.path_on(claim.site.as_ref())?;
            claimed.push(record.claim(claim, path, now));
            self.put(&record)?;
        }
        Ok(claimed)
    }

    pub(crate) fn rescue(&mut self, rescue: &Rescue) -> Answer<Vec<Rescued>> {
        let now = self.now;
        let mut running = self.all()?;
        running.retain(|record| record.run.status == RunStatus::Running);
        running.sort_by_key(|record| (record.run.lease_expires_at, record.run.id));
        let mut rescued = Vec::new();
        let mut left = rescue.limit.get();
        for mut record in running {
            let lease = record.lease_ref();
            let is_dead = rescue.proven_dead.contains(&lease);
            let is_expired = record.has_expired(now) && !rescue.spare.contains(&lease.run);
            if !is_dead {
                if !is_expired || left == 0 {
                    continue;
                }
                left -= 1;
            }
            record.rescue(now);
            self.put(&record)?;
            rescued.push(Rescued::new(lease, record.run.summary));
        }
        Ok(rescued)
    }

    pub(crate) fn time_out(&mut self, overdue: &Overdue) -> Answer<Vec<RunSummary>> {
        let now = self.now;
        let mut late = self.all()?;
        late.retain(|record| {
            let (run, cancel) = (&record.run, record.run.cancel.as_ref());
            [RunStatus::Pending, RunStatus::Running].contains(&run.status)
                && !run.has_ended()
                && cancel.is_none_or(|cancel| cancel.is_overdue(now))
                && run.deadline.is_some_and(|deadline| deadline <= now)
        });
        late.sort_by_key(|record| (record.run.deadline, record.run.id));
        late.truncate(overdue.limit.get());
        let mut changed = Vec::new();
        for mut record in late {
            record.time_out(overdue.grace, now);
            self.put(&record)?;
            changed.push(record.run.summary);
        }
        Ok(changed)
    }

    pub(crate) fn delete_ended(&mut self, retention: &Retention) -> Answer<Vec<RunId>> {
        let mut old = self.all()?;
        old.retain(|record| {
            let is_gone = |worktree: &WorktreeRecord| worktree.state == WorktreeState::Removed;
            record.run.status.is_known()
                && record
                    .run
                    .ended_at
                    .is_some_and(|at| at < retention.ended_before)
                && record.cleanups.is_empty()
                && record.worktrees.iter().all(is_gone)
        });
        old.sort_by_key(|record| (record.run.ended_at, record.run.id));
        old.truncate(retention.limit.get());
        let old: Vec<RunId> = old.iter().map(|record| record.run.id).collect();
        for id in &old {
            let key = (self.namespace, *id.as_bytes());
            self.table.remove(key).map_err(failed)?;
        }
        Ok(old)
    }

    pub(crate) fn claim_cleanups(&mut self, claim: &CleanupClaim) -> Answer<Vec<CleanupTask>> {
        let now = self.now;
        let mut due = Vec::new();
        for record in self.all()? {
            if claim.run.is_some_and(|run| run != record.run.id) {
                continue;
            }
            for cleanup in &record.cleanups {
                let is_here = record.worktrees.iter().any(|worktree| {
                    worktree.key.planned_by == cleanup.planned_by
                        && worktree.site.host == claim.host
                        && worktree.site.git_repository == claim.git_repository
                });
                let held = cleanup.held.as_ref();
                if is_here
                    && cleanup.available_at <= now
                    && held.is_none_or(|(_, until)| *until <= now)
                {
                    due.push((cleanup.wanted_at, record.run.id, cleanup.planned_by));
                }
            }
        }
        due.sort();
        due.truncate(claim.limit.get());
        let mut tasks = Vec::new();
        for (_, run, planned_by) in due {
            if let Some(mut record) = self.get(run)? {
                tasks.extend(take_cleanup(&mut record, planned_by, claim, now));
                self.put(&record)?;
            }
        }
        Ok(tasks)
    }
}

fn take_cleanup(
    record: &mut Record,
    planned_by: Token,
    claim: &CleanupClaim,
    now: Timestamp,
) -> Option<CleanupTask> {
    let key = WorktreeKey {
        run: record.run.id,
        planned_by,
    };
    let worktree = record.worktrees.iter().find(|it| it.key == key)?.clone();
    let mut cleanups = record.cleanups.iter_mut();
    let cleanup = cleanups.find(|cleanup| cleanup.planned_by == planned_by)?;
    let expires_at = now.saturating_add(claim.lease_time.get());
    let tries = cleanup.tries;
    cleanup.tries += 1;
    cleanup.token = cleanup.token.next();
    cleanup.held = Some((claim.owner.clone(), expires_at));
    let of = CleanupRef {
        worktree: key,
        token: cleanup.token,
    };
    Some(CleanupTask::new(of, worktree, tries, expires_at))
}

fn is_waiting(run: &Run, now: Timestamp) -> bool {
    run.status == RunStatus::Pending
        && !run.has_ended()
        && run.cancel.is_none()
        && run.available_at <= now
}

fn is_alive(record: &Record, now: Timestamp) -> bool {
    record.run.status == RunStatus::Running && !record.has_expired(now)
}

fn waiting_place(run: &Run) -> impl Ord + use<> {
    (Reverse(run.priority), run.created_at, run.id)
}

pub(crate) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
