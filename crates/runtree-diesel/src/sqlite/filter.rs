//! Puts the statements over the runs of a filter together: which index they walk, and what they ask of each run.
//!
//! A page walks the index of its order from the place where the last page ended, and sorts nothing. Newest first, a filter that few
//! runs pass has an index of its own in that order; in other orders it is asked of each run on the way. Counts and measures need no
//! order, and walk the index that leaves the fewest runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{TimeRange, Timestamp};
use runtree_repository::{
    Direction, PageRequest, Position, RunFilter, RunOrder, SortKey, SortValue,
};

use super::sql::{Transaction, plain, run_joins, tags};
use super::statement::{Statement, Value};
use crate::row::{run_columns, status};

/// How many tags are asked for one by one. SQLite takes longer to plan a condition for each than to look for them all.
const MAX_SINGLE_TAGS: usize = 8;

/// What stands for "no value" in an order: before every value.
const NOTHING: i64 = i64::MIN;

/// A statement that is put together at run time, without its first value, the namespace.
pub(super) struct Query {
    pub(super) sql: String,
    values: Vec<Value<'static>>,
    /// Whether it is one of the few that are asked again and again, and worth keeping.
    is_common: bool,
}

impl Query {
    pub(super) fn statement<'v>(self, transaction: &Transaction<'v>) -> Statement<'v> {
        let statement = if self.is_common {
            transaction.here_common(self.sql)
        } else {
            transaction.here_dynamic(self.sql)
        };
        statement.bind_all(self.values)
    }
}

/// The query of a page.
pub(super) fn page(filter: &RunFilter, page: &PageRequest, after: Option<&Position>) -> Query {
    let RunOrder { by, direction } = page.order;
    let index = index_in_order(filter, by);
    let mut shown = Shown::new(filter, false, Walked::to(page.order, after));
    let (value, id) = (column(by), "r.id");
    let (beyond, direction) = match direction {
        Direction::Ascending => (">", "ASC"),
        Direction::Descending => ("<", "DESC"),
    };
    if let Some(after) = after {
        let place = shown.value(match &after.value {
            SortValue::Number(number) => number.unwrap_or(NOTHING).into(),
            SortValue::Text(text) => text.clone().into(),
        });
        let run = shown.value(Value::bytes(after.id.as_bytes().to_vec()));
        shown.add(format_args!(
            " AND ({value}, {id}) {beyond} ({place}, {run})"
        ));
    }
    // One more than the page may have tells whether another page follows.
    let limit = shown.value(Value::count(page.limit.get() + 1));
    shown.add(format_args!(
        " ORDER BY {value} {direction}, {id} {direction} LIMIT {limit} + 0"
    ));
    shown.into_query(LIST, index, LIST_JOINS)
}

const LIST: &str = concat!(
    "SELECT ",
    run_columns!(plain, plain, plain, tags),
    " FROM runtree_runs r"
);
const LIST_JOINS: &str = run_joins!();

/// A query over all runs of a filter, in no order: `columns` from the run `r`, and what follows the conditions.
pub(super) fn over_all(filter: &RunFilter, columns: &str, rest: &str) -> Query {
    let (index, by_tags) = index_for_all(filter);
    let mut shown = Shown::new(filter, by_tags, None);
    shown.add(format_args!("{rest}"));
    let start = format!("SELECT {columns} FROM runtree_runs r");
    let joins = if filter.owner.is_some() || filter.owner_host.is_some() {
        "JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id"
    } else {
        ""
    };
    shown.into_query(&start, index, joins)
}

/// The column that an order is by.
const fn column(by: SortKey) -> &'static str {
    match by {
        SortKey::Started => "r.order_started",
        SortKey::Ended => "r.order_ended",
        SortKey::Duration => "r.order_duration",
        SortKey::Workflow => "r.workflow",
        SortKey::Status => "r.status",
        SortKey::Branch => "r.order_branch",
        SortKey::Cost => "r.cost",
        SortKey::Tokens => "r.order_tokens",
        SortKey::Created | _ => "r.created_at",
    }
}

fn index_in_order(filter: &RunFilter, by: SortKey) -> &'static str {
    match by {
        SortKey::Started => "runtree_runs_by_started",
        SortKey::Ended => "runtree_runs_by_ended",
        SortKey::Duration => "runtree_runs_by_duration",
        SortKey::Workflow => "runtree_runs_by_workflow",
        SortKey::Status => "runtree_runs_by_status",
        SortKey::Branch => "runtree_runs_by_branch",
        SortKey::Cost => "runtree_runs_by_cost",
        SortKey::Tokens => "runtree_runs_by_tokens",
        SortKey::Created | _ => selective_index(filter).unwrap_or("runtree_runs_created"),
    }
}

/// The index of a condition that few runs fulfil; each is in the order of creation.
fn selective_index(filter: &RunFilter) -> Option<&'static str> {
    if filter.session.is_some() {
        Some("runtree_runs_session")
    } else if filter.branch.is_some() {
        Some("runtree_runs_branch")
    } else if asks_for_running(filter) {
        Some("runtree_runs_running")
    } else if filter.user.is_some() {
        Some("runtree_runs_user")
    } else {
        None
    }
}

/// The index for a query without an order, and whether the runs come from the index of the tags.
fn index_for_all(filter: &RunFilter) -> (&'static str, bool) {
    const BY_ID: &str = "sqlite_autoindex_runtree_runs_1";
    if let Some(index) = selective_index(filter) {
        return (index, false);
    }
    if filter.tags.is_some() {
        return (BY_ID, true);
    }
    let index = if filter.ended.is_some() {
        "runtree_runs_by_ended"
    } else if filter.created.is_some() {
        "runtree_runs_created"
    } else if filter.started.is_some() {
        "runtree_runs_by_started"
    } else if filter.workflows.is_some() {
        "runtree_runs_by_workflow"
    } else {
        "runtree_runs_by_status"
    };
    (index, false)
}

/// Tells whether only running runs are meant.
fn asks_for_running(filter: &RunFilter) -> bool {
    let running = BTreeSet::from([RunStatus::Running]);
    filter.owner.is_some()
        || filter.owner_host.is_some()
        || filter.statuses.as_ref() == Some(&running)
}

/// Tells whether the text of the statement is one of some hundreds: only conditions that dashboards ask for again and again.
fn is_common(filter: &RunFilter) -> bool {
    let RunFilter {
        end_reasons,
        queues,
        session,
        user,
        branch,
        owner,
        owner_host,
        tags,
        metadata,
        started,
        ended,
        ..
    } = filter;
    end_reasons.is_none()
        && queues.is_none()
        && session.is_none()
        && user.is_none()
        && branch.is_none()
        && owner.is_none()
        && owner_host.is_none()
        && tags.is_none()
        && metadata.is_none()
        && started.is_none()
        && ended.is_none()
}

/// How far the pages before this one have come, in an order by a number.
///
/// Of the bounds of one column SQLite takes one to enter the index with: that of a range rather than the place where the last page
/// ended. So the range itself begins at that place, or each page would walk past all the pages before it.
#[derive(Clone, Copy)]
struct Walked {
    order: RunOrder,
    value: i64,
}

impl Walked {
    fn to(order: RunOrder, after: Option<&Position>) -> Option<Self> {
        match after?.value {
            SortValue::Number(number) => number.map(|value| Self { order, value }),
            SortValue::Text(_) => None,
        }
    }
}

/// The conditions of a filter, of the run `r` and its lease `l`.
struct Shown {
    conditions: String,
    values: Vec<Value<'static>>,
    is_common: bool,
}

impl Shown {
    /// `by_tags` lets the tags say which runs to look at, instead of asking each run for them.
    fn new(filter: &RunFilter, by_tags: bool, walked: Option<Walked>) -> Self {
        let mut shown = Self {
            conditions: String::new(),
            values: Vec::new(),
            is_common: is_common(filter),
        };
        shown.words(filter);
        shown.owners(filter);
        let mut tags: Vec<&str> = filter.tags.iter().flatten().map(AsRef::as_ref).collect();
        if tags.len() > MAX_SINGLE_TAGS {
            // One tag says which runs to look at, or none; all of them are asked for in one condition.
            let number = shown.value(Value::count(tags.len()));
            let all = shown.value(serde_json::json!(tags).to_string().into());
            tags.truncate(usize::from(by_tags));
            shown.add(format_args!(
                " AND (SELECT count(*) FROM runtree_run_tags t WHERE t.namespace = ?1 AND t.run_id = r.id \
                 AND t.tag IN (SELECT value FROM json_each({all}))) = {number}"
            ));
        }
        for tag in tags {
            let tag = shown.value(tag.to_owned().into());
            if by_tags {
                shown.add(format_args!(
                    " AND r.id IN (SELECT run_id FROM runtree_run_tags WHERE namespace = ?1 AND tag = {tag})"
                ));
            } else {
                shown.add(format_args!(
                    " AND EXISTS (SELECT 1 FROM runtree_run_tags t WHERE t.namespace = ?1 AND t.tag = {tag} AND t.run_id = r.id)"
                ));
            }
        }
        let walked = |by| walked.filter(|walked| walked.order.by == by);
        shown.within("r.created_at", filter.created, walked(SortKey::Created));
        shown.within("r.order_started", filter.started, walked(SortKey::Started));
        shown.within("r.order_ended", filter.ended, walked(SortKey::Ended));
        for (name, wanted) in filter.metadata.iter().flatten() {
            let name = shown.value(name.clone().into());
            let wanted = shown.value(wanted.as_ref().map(ToString::to_string).into());
            shown.add(format_args!(
                " AND (SELECT runtree_has_member(p.metadata, {name}, {wanted}) FROM runtree_run_payloads p \
                 WHERE p.namespace = ?1 AND p.run_id = r.id)"
            ));
        }
        shown
    }

    fn words(&mut self, filter: &RunFilter) {
        fn texts<T: AsRef<str>>(values: &Option<BTreeSet<T>>) -> Option<Vec<&str>> {
            let values = values.as_ref()?;
            Some(values.iter().map(AsRef::as_ref).collect())
        }
        let statuses = filter.statuses.as_ref();
        let statuses = statuses.map(|all| all.iter().map(RunStatus::as_str).collect());
        let reasons = filter.end_reasons.as_ref();
        let reasons = reasons.map(|all| all.iter().map(EndReason::as_str).collect());
        self.one_of("r.status", statuses);
        self.one_of("r.end_reason", reasons);
        self.one_of("r.workflow", texts(&filter.workflows));
        self.one_of("r.queue", texts(&filter.queues));
        if let Some(session) = filter.session {
            let session = Value::bytes(session.as_uuid().as_bytes().to_vec());
            self.is("r.session_id", session);
        }
        if let Some(user) = &filter.user {
            self.is("r.user_id", user.as_str().to_owned().into());
        }
        if let Some(branch) = &filter.branch {
            self.is("r.worktree_branch", branch.as_str().to_owned().into());
        }
    }

    fn owners(&mut self, filter: &RunFilter) {
        if asks_for_running(filter) {
            // As a literal, because the index of the running runs is only taken when the text says so.
            self.add(format_args!(concat!(" AND r.status = ", status!(Running))));
        }
        if let Some(owner) = &filter.owner {
            self.is("l.owner_id", Value::bytes(owner.as_bytes().to_vec()));
        }
        if let Some(host) = &filter.owner_host {
            self.is("l.owner_host", host.as_str().to_owned().into());
        }
    }

    fn add(&mut self, condition: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.conditions.write_fmt(condition);
    }

    /// Adds a value and answers its placeholder; the namespace has the first.
    fn value(&mut self, value: Value<'static>) -> String {
        self.values.push(value);
        format!("?{}", self.values.len() + 1)
    }

    fn is(&mut self, column: &str, value: Value<'static>) {
        let value = self.value(value);
        self.add(format_args!(" AND {column} = {value}"));
    }

    /// The words are one value, so that their number does not change the text.
    fn one_of(&mut self, column: &str, words: Option<Vec<&str>>) {
        if let Some(words) = words {
            let words = self.value(serde_json::json!(words).to_string().into());
            self.add(format_args!(
                " AND {column} IN (SELECT value FROM json_each({words}))"
            ));
        }
    }

    fn within(&mut self, column: &str, range: Option<TimeRange>, walked: Option<Walked>) {
        let Some(range) = range else { return };
        // A range without bounds still asks for an instant.
        self.add(format_args!(" AND {column} > {NOTHING}"));
        let mut start = range.start().map(Timestamp::as_unix_micros);
        let mut end = range.end().map(Timestamp::as_unix_micros);
        if let Some(Walked { order, value }) = walked {
            match order.direction {
                Direction::Ascending => start = Some(start.map_or(value, |start| start.max(value))),
                Direction::Descending => {
                    let after = value.saturating_add(1);
                    end = Some(end.map_or(after, |end| end.min(after)));
                }
            }
        }
        if let Some(start) = start {
            let start = self.value(start.into());
            self.add(format_args!(" AND {column} >= {start}"));
        }
        if let Some(end) = end {
            let end = self.value(end.into());
            self.add(format_args!(" AND {column} < {end}"));
        }
    }

    fn into_query(self, start: &str, index: &str, joins: &str) -> Query {
        let sql = format!(
            "{start} INDEXED BY {index} {joins} WHERE r.namespace = ?1{}",
            self.conditions
        );
        Query {
            sql,
            values: self.values,
            is_common: self.is_common,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_page_of_a_range_begins_where_the_last_page_ended() {
        let at = |micros| Timestamp::from_unix_micros(micros).unwrap();
        let range = TimeRange::between(at(1_000), at(9_000)).unwrap();
        let filter = RunFilter::new().created(range);
        let after = Position {
            value: SortValue::Number(Some(5_000)),
            id: "run_01h455vb4pex5vsknk084sn02q".parse().unwrap(),
        };
        let bounds = |order, after| {
            let request = PageRequest {
                order,
                ..PageRequest::default()
            };
            let values = page(&filter, &request, after).values;
            let instants = values.iter().filter_map(|value| match value {
                Value::Int(number) => number.filter(|number| *number > 999),
                Value::Text(_) | Value::Bytes(_) => None,
            });
            // The first two are the bounds of the range; the place itself follows.
            instants.take(2).collect::<Vec<_>>()
        };
        let (up, down) = (
            RunOrder::ascending(SortKey::Created),
            RunOrder::descending(SortKey::Created),
        );
        assert_eq!(bounds(down, None), [1_000, 9_000]);
        assert_eq!(bounds(down, Some(&after)), [1_000, 5_001]);
        assert_eq!(bounds(up, Some(&after)), [5_000, 9_000]);
        // The range of another column than that of the order stays as it is.
        let started = RunOrder::descending(SortKey::Started);
        assert_eq!(bounds(started, Some(&after)), [1_000, 9_000]);
    }
}
