//! Counts and measures over all runs of a filter, computed by SQLite in one snapshot.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use runtree_repository::status::RunStatus;
use runtree_repository::{Cost, Measure, RepositoryError, RunFilter, RunStatistics, Usage};

use super::filter::{self, Query};
use super::sql::Transaction;
use crate::row::{amount, parse};

/// Sums as floats do not overflow, and are exact up to 2^53, where a sum of usages stays.
const TOTALS: &str = "r.status AS word, count(*) AS number, \
     CAST(min(total(r.input_tokens), 9007199254740991) AS INTEGER) AS input_tokens, \
     CAST(min(total(r.output_tokens), 9007199254740991) AS INTEGER) AS output_tokens, \
     CAST(min(total(r.cost), 9007199254740991) AS INTEGER) AS cost";

#[derive(QueryableByName)]
struct TotalRow {
    #[diesel(sql_type = Text)]
    word: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = BigInt)]
    input_tokens: i64,
    #[diesel(sql_type = BigInt)]
    output_tokens: i64,
    #[diesel(sql_type = BigInt)]
    cost: i64,
}

#[derive(QueryableByName)]
struct WorkflowRow {
    #[diesel(sql_type = Text)]
    word: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// The sum in two halves of 32 bits, because that of many long times does not fit 64.
#[derive(QueryableByName)]
struct MeasureRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = BigInt)]
    high: i64,
    #[diesel(sql_type = BigInt)]
    low: i64,
    #[diesel(sql_type = BigInt)]
    median: i64,
    #[diesel(sql_type = BigInt)]
    p90: i64,
    #[diesel(sql_type = BigInt)]
    p99: i64,
    #[diesel(sql_type = BigInt)]
    greatest: i64,
}

pub(super) fn statistics(
    transaction: &mut Transaction<'_>,
    filter: &RunFilter,
) -> Result<RunStatistics, RepositoryError> {
    let mut statistics = RunStatistics::default();
    let mut usage = Usage::default();
    for row in transaction.rows::<TotalRow>(totals(filter).statement(transaction))? {
        let status = parse("status", RunStatus::from_stored(&row.word))?;
        let runs = amount("number of runs", row.number)?;
        statistics.runs += runs;
        statistics.by_status.insert(status, runs);
        usage = usage.plus(&Usage {
            input_tokens: amount("number of input tokens", row.input_tokens)?,
            output_tokens: amount("number of output tokens", row.output_tokens)?,
            cost: Cost::from_micros(amount("cost", row.cost)?),
        });
    }
    statistics.input_tokens = usage.input_tokens;
    statistics.output_tokens = usage.output_tokens;
    statistics.cost = usage.cost;
    for row in transaction.rows::<WorkflowRow>(workflows(filter).statement(transaction))? {
        let workflow = parse("workflow name", row.word.parse())?;
        let runs = amount("number of runs", row.number)?;
        statistics.by_workflow.insert(workflow, runs);
    }
    statistics.duration = measure(transaction, durations(filter))?;
    statistics.waiting = measure(transaction, waiting_times(filter))?;
    Ok(statistics)
}

pub(super) fn totals(filter: &RunFilter) -> Query {
    filter::over_all(filter, TOTALS, " GROUP BY r.status")
}

pub(super) fn workflows(filter: &RunFilter) -> Query {
    let most = format!(
        " GROUP BY r.workflow ORDER BY number DESC, word LIMIT {}",
        RunStatistics::MAX_WORKFLOWS
    );
    filter::over_all(filter, "r.workflow AS word, count(*) AS number", &most)
}

/// From the first start to the end; a clock that was set back in between makes no negative time.
pub(super) fn durations(filter: &RunFilter) -> Query {
    measured(
        filter,
        "max(r.ended_at - r.started_at, 0)",
        " AND r.ended_at IS NOT NULL AND r.started_at IS NOT NULL",
    )
}

/// From the instant that the run could start at to its first start; a run that waited again counts with nothing.
pub(super) fn waiting_times(filter: &RunFilter) -> Query {
    measured(
        filter,
        "r.started_at - max(r.available_at, r.created_at)",
        " AND r.started_at >= max(r.available_at, r.created_at)",
    )
}

/// The nearest-rank percentiles, each a value that is there.
fn measured(filter: &RunFilter, value: &str, condition: &str) -> Query {
    let mut query = filter::over_all(filter, &format!("{value} AS value"), condition);
    query.sql = format!(
        "WITH measured AS ({}), \
             placed AS (SELECT value, row_number() OVER (ORDER BY value) AS place, count(*) OVER () AS number FROM measured) \
         SELECT count(*) AS number, coalesce(sum(value >> 32), 0) AS high, coalesce(sum(value & 4294967295), 0) AS low, \
             coalesce(max(value) FILTER (WHERE place = (number * 50 + 99) / 100), 0) AS median, \
             coalesce(max(value) FILTER (WHERE place = (number * 90 + 99) / 100), 0) AS p90, \
             coalesce(max(value) FILTER (WHERE place = (number * 99 + 99) / 100), 0) AS p99, \
             coalesce(max(value), 0) AS greatest FROM placed",
        query.sql
    );
    query
}

fn measure(transaction: &mut Transaction<'_>, query: Query) -> Result<Measure, RepositoryError> {
    let row = transaction.row::<MeasureRow>(query.statement(transaction))?;
    let Some(row) = row else {
        return Ok(Measure::default());
    };
    let sum = (i128::from(row.high) << 32) + i128::from(row.low);
    let mean = sum.checked_div(i128::from(row.number)).unwrap_or_default();
    let parts = [row.number, row.median, row.p90, row.p99, row.greatest];
    let mut parts = parts.into_iter().map(|part| amount("measure", part));
    let mut next = || parts.next().unwrap_or(Ok(0));
    let number = next()?;
    let mean = parse("mean", u64::try_from(mean))?;
    Ok(Measure::from_micros([
        number,
        mean,
        next()?,
        next()?,
        next()?,
        next()?,
    ]))
}
