//! Claims runs: one statement for those without a concurrency key, and a turn for those with one.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::deserialize::{self, QueryableByName};
use diesel::pg::Pg;
use diesel::row::NamedRow;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use runtree_repository::id::{DirectoryName, RunId};
use runtree_repository::{
    Claim, ClaimOf, Claimed, ErrorKind, HostPath, LeaseRef, QueueName, RepositoryError, Token,
    WaitingRuns, WorkflowName, WorktreeKey, WorktreeRecord, WorktreeSite, WorktreeState,
};

use super::statement::Statement;
use super::store::{Patience, Transaction};
use super::{PostgresRepository, micros, sql};
use crate::in_order::{Columns, InOrder as _, row_in_order};
use crate::instant::{Micros, Moment};
use crate::row::{WholeRunRow, amount, count, instant, run_id};

/// How long a claim that has something waits for a connection and for the answer whether the turn is free.
const AT_ONCE: Duration = Duration::from_millis(100);

row_in_order! {
    /// A claimed run, and its worktree where it wants one.
    struct ClaimedRow {
        #[diesel(embed)]
        run: WholeRunRow,
        #[diesel(sql_type = Nullable<BigInt>)]
        planned_by: Option<i64>,
        #[diesel(sql_type = Nullable<Text>)]
        root: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        path: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        state: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        salvage: Option<String>,
        #[diesel(sql_type = Nullable<Text>)]
        reason: Option<String>,
        #[diesel(sql_type = Nullable<Moment>)]
        worktree_created_at: Option<Micros>,
        #[diesel(sql_type = Nullable<Moment>)]
        worktree_updated_at: Option<Micros>,
    }
}

/// A row of a claim: a run, or none, and whether a run with a concurrency key could come next.
struct ClaimRow {
    claimed: Option<ClaimedRow>,
    keyed: bool,
}

impl QueryableByName<Pg> for ClaimRow {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        let columns = &mut Columns::of(row);
        let keyed = columns.next::<Pg, Bool, _>("keyed")?;
        // The id of the run is the next column.
        let is_run = !columns.is_next_null::<Pg>();
        let claimed = is_run.then(|| ClaimedRow::in_order(columns)).transpose()?;
        Ok(Self { claimed, keyed })
    }
}

/// A run that may be claimed while its key has room.
#[derive(diesel::QueryableByName)]
struct CandidateRow {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = Nullable<Text>)]
    concurrency_key: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    concurrency_limit: Option<i64>,
    #[diesel(sql_type = BigInt)]
    in_use: i64,
}

/// The statements of a claim, by which runs are meant.
struct Texts {
    claim: &'static str,
    candidates: &'static str,
}

/// A claim, with what its statements need made ready.
struct Wanted<'c> {
    claim: &'c Claim,
    owner: String,
    prefix: Option<String>,
    run: Option<&'c RunId>,
    queues: Option<Vec<&'c str>>,
    workflows: Option<Vec<&'c str>>,
}

impl<'c> Wanted<'c> {
    fn new(claim: &'c Claim) -> Result<Self, RepositoryError> {
        let (run, waiting) = match &claim.of {
            ClaimOf::Waiting(waiting) => (None, waiting),
            ClaimOf::Run(id) => (Some(id), &WaitingRuns::ANY),
            other => return Err(super::unsupported("claim", other)),
        };
        let queues = waiting.queues.as_ref();
        let workflows = waiting.workflows.as_ref();
        Ok(Self {
            claim,
            owner: claim.owner.id.to_string(),
            prefix: claim.site.as_ref().map(path_prefix).transpose()?,
            run,
            queues: queues.map(|names| names.iter().map(QueueName::as_str).collect()),
            workflows: workflows.map(|names| names.iter().map(WorkflowName::as_str).collect()),
        })
    }

    /// One queue has an index of its own; for several, the runs of all queues are looked at in their order.
    fn texts(&self) -> Texts {
        let (claim, candidates) = match (self.run, self.queues.as_deref()) {
            (Some(_), _) => (sql::CLAIM_RUN, sql::CANDIDATES_RUN),
            (None, None) => (sql::CLAIM_ANY, sql::CANDIDATES_ANY),
            (None, Some([_])) => (sql::CLAIM_QUEUE, sql::CANDIDATES_QUEUE),
            (None, Some(_)) => (sql::CLAIM_QUEUES, sql::CANDIDATES_QUEUES),
        };
        Texts { claim, candidates }
    }

    fn statement<'s>(
        &'s self,
        repository: &'s PostgresRepository,
        text: &'static str,
        limit: i64,
        chosen: &[RunId],
    ) -> Statement<'s> {
        let Claim {
            owner,
            lease_time,
            site,
            ..
        } = self.claim;
        let site = site.as_ref();
        let queues = self.queues.as_deref();
        repository
            .statement(text)
            .int(limit)
            .id(owner.id.as_bytes())
            .text(owner.host.as_str())
            .text(owner.process.as_str())
            .int(micros(lease_time.get()))
            .text(&self.owner)
            .text_or_null(site.map(|site| site.host.as_str()))
            .text_or_null(site.map(|site| site.git_repository.as_str()))
            .text_or_null(site.map(|site| site.root.as_str()))
            .text_or_null(self.prefix.as_deref())
            .texts_or_null(self.workflows.clone())
            .id_or_null(self.run.map(RunId::as_bytes))
            .text_or_null(queues.and_then(|queues| queues.first().copied()))
            .texts_or_null(self.queues.clone())
            .ids(chosen.iter().map(|id| *id.as_bytes()))
    }
}

const CLAIMING_IN_TURN: &str = "claim runs with concurrency keys";

impl PostgresRepository {
    pub(super) async fn claimed(&self, claim: &Claim) -> Result<Vec<Claimed>, RepositoryError> {
        claim.check()?;
        let wanted = Wanted::new(claim)?;
        let site = claim.site.as_ref();
        let limit = super::count(claim.limit);
        let statement = || wanted.statement(self, wanted.texts().claim, limit, &[]);
        let rows: Vec<ClaimRow> = self
            .write_if("claim runs", statement, |rows: &[ClaimRow]| {
                rows.iter().any(|row| row.claimed.is_some())
            })
            .await?;
        let keyed = rows.iter().any(|row| row.keyed);
        let mut claimed = decoded(rows, site)?;
        let left = limit - i64::try_from(claimed.len()).unwrap_or(limit);
        if keyed && left > 0 {
            if claimed.is_empty() {
                claimed = decoded(self.claimed_in_turn(&wanted, left).await?, site)?;
            } else {
                // The leases of what is claimed run already, and whoever drops the call now leaves it without an owner: a turn that is
                // not to be had at once, or fails, is left to the next claim.
                let more = self.claimed_if_free(&wanted, left).await;
                match more.and_then(|more| decoded(more, site)) {
                    Ok(more) => claimed.extend(more),
                    // Told when it was found.
                    Err(error) if error.kind() == ErrorKind::Corrupt => {}
                    Err(error) => {
                        tracing::debug!(%error, "runs with concurrency keys were left for the next claim");
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Claims runs with and without keys, while nobody else claims runs with keys.
    async fn claimed_in_turn(
        &self,
        wanted: &Wanted<'_>,
        limit: i64,
    ) -> Result<Vec<ClaimRow>, RepositoryError> {
        let (mut tries, mut was_cut_off) = (1, false);
        let (transaction, rows) = loop {
            match self.turn(wanted, limit).await {
                Err(error) if super::is_undone(&error) && tries < super::MAX_TRIES => tries += 1,
                // The server ends a turn that lasts too long. It was not committed, so it may begin again.
                Err(error) if error.kind() == ErrorKind::Unavailable && !was_cut_off => {
                    was_cut_off = true;
                }
                answer => break answer?,
            }
        };
        self.end_turn(transaction, rows).await
    }

    /// As [`claimed_in_turn`](Self::claimed_in_turn), and nothing where somebody else has the turn, or all connections.
    async fn claimed_if_free(
        &self,
        wanted: &Wanted<'_>,
        limit: i64,
    ) -> Result<Vec<ClaimRow>, RepositoryError> {
        let begun = tokio::time::timeout(AT_ONCE, async {
            let begun = self.store.begin_with(Patience::None, CLAIMING_IN_TURN);
            let mut transaction = begun.await?;
            let turn = self.statement(sql::TRY_TURN);
            let taken: Vec<super::Done> = transaction.rows(turn).await?;
            Ok::<_, RepositoryError>((transaction, taken))
        });
        let (mut transaction, taken) = match begun.await {
            Err(_) => return Ok(Vec::new()),
            Ok(Err(error)) if error.kind() == ErrorKind::Busy => return Ok(Vec::new()),
            Ok(begun) => begun?,
        };
        let rows = if taken.is_empty() {
            Vec::new()
        } else {
            self.chosen(&mut transaction, wanted, limit).await?
        };
        self.end_turn(transaction, rows).await
    }

    async fn end_turn(
        &self,
        transaction: Transaction<'_>,
        rows: Vec<ClaimRow>,
    ) -> Result<Vec<ClaimRow>, RepositoryError> {
        self.commit(transaction).await?;
        if rows.iter().any(|row| row.claimed.is_some()) {
            self.wrote();
        }
        Ok(rows)
    }

    /// Waits for a turn, which is over with the transaction.
    async fn turn(
        &self,
        wanted: &Wanted<'_>,
        limit: i64,
    ) -> Result<(Transaction<'_>, Vec<ClaimRow>), RepositoryError> {
        let mut transaction = self.store.begin(CLAIMING_IN_TURN).await?;
        let turn = self.statement(sql::TAKE_TURN);
        transaction.rows::<super::Done>(turn).await?;
        let rows = self.chosen(&mut transaction, wanted, limit).await?;
        Ok((transaction, rows))
    }

    /// Claims what fits, in the turn that the transaction has.
    async fn chosen(
        &self,
        transaction: &mut Transaction<'_>,
        wanted: &Wanted<'_>,
        limit: i64,
    ) -> Result<Vec<ClaimRow>, RepositoryError> {
        // This statement's snapshot is younger than the turn: it shows every claim of whoever had it before.
        let candidates = wanted.statement(self, wanted.texts().candidates, limit, &[]);
        let candidates: Vec<CandidateRow> = transaction.rows(candidates).await?;
        let chosen = within_limits(candidates, limit)?;
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let claim = wanted.statement(self, sql::CLAIM_CHOSEN, limit, &chosen);
        transaction.rows(claim).await
    }
}

/// Takes candidates in their order, up to the limit, each only while its key has room for it by its own limit.
fn within_limits(candidates: Vec<CandidateRow>, limit: i64) -> Result<Vec<RunId>, RepositoryError> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    let mut chosen = Vec::new();
    for candidate in candidates {
        if chosen.len() == most {
            break;
        }
        if let (Some(key), Some(limit)) = (candidate.concurrency_key, candidate.concurrency_limit) {
            let in_use = amount("number of live leases", candidate.in_use)?;
            let used = used.entry(key).or_insert(in_use);
            if *used >= amount("concurrency limit", limit)? {
                continue;
            }
            *used += 1;
        }
        chosen.push(run_id(&candidate.id)?);
    }
    Ok(chosen)
}

/// Reads what was claimed. A run that cannot be read, because others wrote to its row, keeps nobody from the rest: the claim stands.
fn decoded(
    rows: Vec<ClaimRow>,
    site: Option<&WorktreeSite>,
) -> Result<Vec<Claimed>, RepositoryError> {
    let mut claimed = Vec::with_capacity(rows.len());
    let mut unreadable = None;
    for row in rows.into_iter().filter_map(|row| row.claimed) {
        match row.decode(site) {
            Ok(one) => claimed.push(one),
            Err(error) => {
                tracing::warn!(%error, "a run that was claimed cannot be read; its lease will expire");
                unreadable.get_or_insert(error);
            }
        }
    }
    match unreadable {
        Some(error) if claimed.is_empty() => Err(error),
        Some(_) | None => Ok(claimed),
    }
}

impl ClaimedRow {
    fn decode(self, site: Option<&WorktreeSite>) -> Result<Claimed, RepositoryError> {
        let run = self.run.decode()?;
        let lease = LeaseRef {
            run: run.id,
            token: run.token,
        };
        let expires_at = run
            .lease_expires_at
            .ok_or_else(|| super::no_row("the lease of a claimed run"))?;
        let parts = (
            self.planned_by,
            self.root,
            self.path,
            self.state,
            self.worktree_created_at,
            self.worktree_updated_at,
        );
        let worktree = match (site, run.worktree.clone(), parts) {
            (
                Some(site),
                Some(wanted),
                (
                    Some(planned_by),
                    Some(root),
                    Some(path),
                    Some(state),
                    Some(created),
                    Some(updated),
                ),
            ) => Some(WorktreeRecord {
                key: WorktreeKey {
                    run: run.id,
                    planned_by: Token::new(count("planning token", planned_by)?),
                },
                site: WorktreeSite {
                    root: root.try_into()?,
                    ..site.clone()
                },
                path: path.try_into()?,
                wanted,
                state: WorktreeState::from_stored(&state)?,
                held_by: run.token,
                salvage: self.salvage.map(TryInto::try_into).transpose()?,
                reason: self.reason.map(TryInto::try_into).transpose()?,
                created_at: instant("creation instant", created)?,
                updated_at: instant("update instant", updated)?,
            }),
            (_, _, _) => None,
        };
        Ok(Claimed::new(lease, expires_at, run, worktree))
    }
}

/// What stands before the name in the path of every worktree of a site.
fn path_prefix(site: &WorktreeSite) -> Result<String, RepositoryError> {
    let root = site.root.as_str();
    let prefix = if root.ends_with('/') {
        root.to_owned()
    } else {
        format!("{root}/")
    };
    // The names are not known before the claim, which must not plan a path that cannot be read back.
    let most = HostPath::MAX_BYTES - DirectoryName::MAX_BYTES;
    if prefix.len() > most {
        return Err(RepositoryError::new(
            ErrorKind::InvalidInput,
            format!(
                "the root of worktrees has {} bytes, which leaves no room for a name; at most {most} are allowed",
                prefix.len()
            ),
        ));
    }
    Ok(prefix)
}
