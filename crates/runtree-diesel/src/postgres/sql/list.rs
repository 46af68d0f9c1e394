//! The statements over all runs of a filter, put together from few pieces.
//!
//! A page walks the index of its order, from where the last page ended: no other range is written so that an index could serve it,
//! except conditions that few runs meet and an index knows (a session, a user, a branch, tags) or the table of leases does, which is short
//! (an owner). Those are in the text only where they are asked for, so that the planner may begin with them and sort what little they leave. All other conditions are in every text, as what
//! each run that is met is asked. So there is a bounded number of texts: nine orders of two directions, first page or not, and
//! a bit for each of seven conditions; those with more than one such condition are not kept prepared.

use runtree_repository::{Direction, RunFilter, RunOrder, SortKey};

use crate::row::run_columns;

const SUMMARY: &str = summary!();
const RUNS: &str = " FROM runtree_runs r";
/// The runs with their sort keys.
const RUNS_AND_KEYS: &str = " FROM runtree_runs r JOIN runtree_run_sort_keys k
    ON k.namespace = r.namespace AND k.run_id = r.id";
const LEASE: &str = lease!();
/// The leases where they are what runs are found by.
const HELD: &str = " JOIN runtree_run_leases l ON l.namespace = r.namespace AND l.run_id = r.id";
const FACTS: &str = facts!();
const PAYLOAD: &str = payload!();

/// What a sum may come to: the limit of one usage.
macro_rules! sum {
    ($column:literal) => {
        concat!(
            "least(coalesce(sum(s.",
            $column,
            "), 0), 9007199254740991)::bigint AS ",
            $column
        )
    };
}

/// A measure of the times in the array `$times`, in microseconds; places are counted in whole numbers, as the contract does.
macro_rules! measure {
    ($times:literal, $name:literal) => {
        concat!(
            "coalesce(cardinality(a.",
            $times,
            "), 0)::bigint AS ",
            $name,
            "_count, ",
            "coalesce(a.",
            $times,
            "_mean, 0)::bigint AS ",
            $name,
            "_mean, ",
            "coalesce(a.",
            $times,
            "[(cardinality(a.",
            $times,
            ") * 50 + 99) / 100], 0) AS ",
            $name,
            "_median, ",
            "coalesce(a.",
            $times,
            "[(cardinality(a.",
            $times,
            ") * 90 + 99) / 100], 0) AS ",
            $name,
            "_p90, ",
            "coalesce(a.",
            $times,
            "[(cardinality(a.",
            $times,
            ") * 99 + 99) / 100], 0) AS ",
            $name,
            "_p99, ",
            "coalesce(a.",
            $times,
            "[cardinality(a.",
            $times,
            ")], 0) AS ",
            $name,
            "_max"
        )
    };
}

/// The runs of statistics: `$20` the most workflows that are counted one by one.
const MEASURED: &str = concat!(
    "SELECT r.status, r.workflow, r.input_tokens, r.output_tokens, r.cost,
        greatest(",
    micros!("r.ended_at - r.started_at"),
    ", CASE WHEN r.ended_at - r.started_at IS NULL THEN NULL ELSE 0 END) AS duration,
        CASE WHEN r.started_at >= greatest(r.available_at, r.created_at)
            THEN ",
    micros!("r.started_at - greatest(r.available_at, r.created_at)"),
    " END AS waiting"
);

const MEASURES: &str = concat!(
    "a AS MATERIALIZED (
        SELECT count(*) AS runs,
            (array_agg(s.duration ORDER BY s.duration) FILTER (WHERE s.duration IS NOT NULL)) AS durations,
            div(sum(s.duration), nullif(count(s.duration), 0)) AS durations_mean,
            (array_agg(s.waiting ORDER BY s.waiting) FILTER (WHERE s.waiting IS NOT NULL)) AS waits,
            div(sum(s.waiting), nullif(count(s.waiting), 0)) AS waits_mean, ",
            sum!("input_tokens"), ", ", sum!("output_tokens"), ", ", sum!("cost"), "
        FROM shown s)
    SELECT a.runs, a.input_tokens, a.output_tokens, a.cost, ", measure!("durations", "duration"), ", ", measure!("waits", "waiting"), ",
        (SELECT coalesce(json_object_agg(g.status, g.runs), '{}')::text
            FROM (SELECT s.status, count(*) AS runs FROM shown s GROUP BY s.status) g) AS by_status,
        (SELECT coalesce(json_object_agg(g.workflow, g.runs), '{}')::text FROM (
            SELECT s.workflow, count(*) AS runs FROM shown s GROUP BY s.workflow
            ORDER BY count(*) DESC, s.workflow COLLATE \"C\" LIMIT $20) g) AS by_workflow
    FROM a"
);

/// What a statement over a filter asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Measured {
    /// A page in an order, which begins after a place or at the first run.
    Page {
        /// The value that the list is ordered by.
        value: &'static str,
        by: SortKey,
        direction: Direction,
        is_first: bool,
    },
    /// How many runs there are.
    Count,
    /// Statistics.
    Statistics,
}

impl Measured {
    /// A page in this order, if it is one that there is an index for.
    pub(in crate::postgres) fn page(order: RunOrder, is_first: bool) -> Option<Self> {
        Some(Self::Page {
            value: value(order.by)?,
            by: order.by,
            direction: order.direction,
            is_first,
        })
    }
}

/// Which text a filter needs: what is asked, and which of the conditions that few runs meet are present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Shape {
    asked: Measured,
    session: bool,
    user: bool,
    branch: bool,
    owner: bool,
    owner_host: bool,
    tags: bool,
    metadata: bool,
}

impl Shape {
    pub(in crate::postgres) fn new(asked: Measured, filter: &RunFilter) -> Self {
        Self {
            asked,
            session: filter.session.is_some(),
            user: filter.user.is_some(),
            branch: filter.branch.is_some(),
            owner: filter.owner.is_some(),
            owner_host: filter.owner_host.is_some(),
            tags: filter.tags.is_some(),
            metadata: filter.metadata.is_some(),
        }
    }

    /// Tells whether a connection keeps the statement prepared.
    pub(in crate::postgres) fn is_kept(&self) -> bool {
        let present = [
            self.session,
            self.user,
            self.branch,
            self.owner,
            self.owner_host,
            self.tags,
            self.metadata,
        ];
        present.into_iter().filter(|is_present| *is_present).count() <= 1
    }

    /// `$1` namespace, `$2` statuses, `$3` end reasons, `$4` workflows, `$5` queues, `$6` to `$11` the bounds of creation, start and
    /// end, `$12` session, `$13` user, `$14` branch, `$15` owner, `$16` its host, `$17` tags, `$18` names of metadata members and `$19`
    /// their values. A page besides: `$20` limit, `$21` the value and `$22` the id that it begins after.
    pub(in crate::postgres) fn text(&self) -> String {
        let needs_lease = self.owner || self.owner_host;
        let held = if needs_lease { HELD } else { "" };
        let payload = if self.metadata { PAYLOAD } else { "" };
        let runs = self.runs();
        match self.asked {
            Measured::Count => {
                let filter = self.conditions(SortKey::Created);
                format!("SELECT count(*) AS runs{runs}{held}{payload} {filter}")
            }
            Measured::Statistics => {
                let filter = self.conditions(SortKey::Created);
                format!(
                    "WITH shown AS MATERIALIZED ({MEASURED}{runs}{held}{payload} {filter}), {MEASURES}"
                )
            }
            Measured::Page {
                value,
                by,
                direction,
                is_first,
            } => {
                let filter = self.conditions(by);
                let (beyond, direction) = match direction {
                    Direction::Ascending => (">", "ASC"),
                    Direction::Descending => ("<", "DESC"),
                };
                let is_few = by == SortKey::Created && self.has_few_by_creation();
                let value = if is_few { CREATED_APART } else { value };
                let id = if is_few || is_apart(by) {
                    "k.run_id"
                } else {
                    "r.id"
                };
                let lease = if needs_lease { HELD } else { LEASE };
                let after = if is_first {
                    String::new()
                } else {
                    format!("AND ({value}, {id}) {beyond} ($21, $22)")
                };
                format!(
                    "{SUMMARY}{runs}{lease}{FACTS}{payload} {filter} {after} ORDER BY {value} {direction}, {id} {direction} LIMIT $20"
                )
            }
        }
    }

    /// The runs, with their sort keys where these are asked for.
    fn runs(&self) -> &'static str {
        let walks_keys = match self.asked {
            Measured::Page { by, .. } => is_apart(by),
            Measured::Count | Measured::Statistics => false,
        };
        if walks_keys || self.session || self.user || self.branch {
            RUNS_AND_KEYS
        } else {
            RUNS
        }
    }

    /// Tells whether an index has few of the runs, in the order of their creation.
    fn has_few_by_creation(&self) -> bool {
        self.session || self.user
    }

    /// Tells whether a condition may be met by few runs that another table or index knows.
    fn begins_elsewhere(&self) -> bool {
        self.branch || self.owner || self.owner_host || self.tags
    }

    fn conditions(&self, walked: SortKey) -> String {
        let mut all = String::from("WHERE r.namespace = $1");
        let mut rest = String::from(
            "($2::text[] IS NULL OR r.status = ANY ($2))
                AND ($3::text[] IS NULL OR r.end_reason = ANY ($3))
                AND ($4::text[] IS NULL OR r.workflow = ANY ($4))
                AND ($5::text[] IS NULL OR r.queue = ANY ($5))",
        );
        let created = if self.has_few_by_creation() {
            CREATED_APART
        } else {
            CREATED
        };
        let ranges = [
            (SortKey::Created, created, "$6", "$7"),
            (SortKey::Started, STARTED, "$8", "$9"),
            (SortKey::Ended, ENDED, "$10", "$11"),
        ];
        for (key, value, from, before) in ranges {
            // The range of the order itself bounds the walk; of a count and of statistics, that of the creation does. Where a few runs
            // are found otherwise it must not look like the shorter way.
            let is_bound = walked == key && !self.begins_elsewhere();
            let conditions = if is_bound { &mut all } else { &mut rest };
            conditions.push_str(&format!(" AND {value} >= {from} AND {value} < {before}"));
        }
        if self.metadata {
            rest.push_str(" AND ");
            rest.push_str(METADATA);
        }
        // One expression that the planner cannot look into: it would take so many conditions together for met by next to no run, and
        // would rather sort those than walk.
        all.push_str(&format!(" AND CASE WHEN {rest} THEN true ELSE false END"));
        for (is_present, condition) in [
            (self.session, "k.session_id = $12"),
            (self.user, "k.user_id = $13"),
            (self.branch, "k.branch = $14"),
            (self.owner, "l.owner_id = $15"),
            (self.owner_host, "l.owner_host = $16"),
            (self.tags, TAGS),
        ] {
            if is_present {
                all.push_str(" AND ");
                all.push_str(condition);
            }
        }
        all
    }
}

/// All tags; the first of them is said so that the planner may begin with it.
const TAGS: &str = "r.id IN (SELECT t.run_id FROM runtree_run_tags t WHERE t.namespace = $1 AND t.tag = ($17::text[])[1])
    AND NOT EXISTS (SELECT FROM unnest($17::text[]) AS w (tag) WHERE NOT EXISTS (
        SELECT FROM runtree_run_tags t WHERE t.namespace = $1 AND t.tag = w.tag AND t.run_id = r.id))";

/// All members. Values are compared as they are written: equal ones have the same text but for the signs of zeros, while `jsonb` takes
/// 1 and 1.0 for equal.
const METADATA: &str = concat!(
    "NOT EXISTS (
    SELECT FROM unnest($18::text[], $19::text[]) AS m (key, value)
    WHERE (p.metadata -> m.key) IS NULL OR ",
    unsigned_zeros!("(p.metadata -> m.key)::text"),
    " <> ",
    unsigned_zeros!("m.value"),
    ")"
);

const CREATED: &str = "r.created_at";
/// The same, as the indexes over sessions and users have it.
const CREATED_APART: &str = "k.created_at";
const STARTED: &str = "coalesce(r.started_at, timestamptz '-infinity')";
const ENDED: &str = "coalesce(r.ended_at, timestamptz '-infinity')";

/// Tells whether the index over what a list is ordered by is one of the sort keys'.
pub(in crate::postgres) fn is_apart(by: SortKey) -> bool {
    let apart = [
        SortKey::Workflow,
        SortKey::Branch,
        SortKey::Cost,
        SortKey::Tokens,
    ];
    apart.contains(&by)
}

/// What a list is ordered by, as the index over it says it.
fn value(by: SortKey) -> Option<&'static str> {
    Some(match by {
        SortKey::Created => CREATED,
        SortKey::Started => STARTED,
        SortKey::Ended => ENDED,
        SortKey::Duration => {
            "coalesce((extract(epoch FROM r.ended_at - r.started_at) * 1000000)::bigint, -1)"
        }
        SortKey::Workflow => "k.workflow",
        SortKey::Status => "r.status COLLATE \"C\"",
        SortKey::Branch => "k.branch",
        SortKey::Cost => "k.cost",
        SortKey::Tokens => "k.tokens",
        _ => return None,
    })
}
