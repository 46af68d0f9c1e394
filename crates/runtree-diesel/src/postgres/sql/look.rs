//! The statements that read one run, or what belongs to it.

use crate::row::{event_columns, payload_columns, run_columns, status};

pub(in crate::postgres) const NOW: &str =
    concat!("SELECT ", instant!("clock_timestamp()"), " AS now");

pub(in crate::postgres) const GET: &str = concat!(
    whole_run!(),
    " FROM runtree_runs r",
    payload!(),
    beside!(),
    " WHERE r.namespace = $1 AND r.id = $2"
);

/// `$2` ids.
pub(in crate::postgres) const GET_MANY: &str = concat!(
    summary!(),
    " FROM unnest($2::uuid[]) AS a (id) JOIN runtree_runs r ON r.namespace = $1 AND r.id = a.id",
    beside!()
);

pub(in crate::postgres) const GET_BY_KEY: &str = concat!(
    whole_run!(),
    " FROM runtree_runs r",
    payload!(),
    beside!(),
    " WHERE r.namespace = $1 AND r.idempotency_key = $2"
);

/// `$2` the last five digits, which the index has; `$3` the number of bits and `$4` the bits that the ending speaks of.
pub(in crate::postgres) const FIND: &str = concat!(
    summary!(),
    " FROM runtree_run_sort_keys k JOIN runtree_runs r ON r.namespace = k.namespace AND r.id = k.run_id",
    beside!(),
    " WHERE k.namespace = $1 AND right(k.run_id::text, 5) = $2
        AND right(('x' || replace(k.run_id::text, '-', ''))::bit(128)::text, $3::bigint::integer) = $4
    ORDER BY k.run_id LIMIT $5"
);

pub(in crate::postgres) const EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(id, instant, int),
    " FROM runtree_run_events e
    WHERE e.namespace = $1 AND e.run_id = $2 AND e.number > $3 ORDER BY e.number LIMIT $4"
);

/// How many due runs of the queue of `r` go before it, among those that an index holds: in it, they are two ranges.
macro_rules! ahead {
    ($keyed:literal) => {
        concat!(
            ahead!($keyed, "o.priority > r.priority"),
            " + ",
            ahead!(
                $keyed,
                "o.priority = r.priority AND (o.created_at, o.id) < (r.created_at, r.id)"
            )
        )
    };
    ($keyed:literal, $before:literal) => {
        concat!(
            "(SELECT count(*) FROM runtree_runs o
            WHERE o.namespace = r.namespace AND o.queue = r.queue AND (o.status = ",
            status!(Pending),
            " AND o.ended_at IS NULL AND o.cancel_requested_at IS NULL AND o.concurrency_key ",
            $keyed,
            ") IS TRUE AND o.available_at <= statement_timestamp() AND ",
            $before,
            ")"
        )
    };
}

/// All parts of a statement see one snapshot.
pub(in crate::postgres) const EXPLAIN: &str = concat!(
    summary!(),
    ", l.child_process, ",
    instant!("l.heartbeat_at"),
    " AS heartbeat_at, ",
    instant!("statement_timestamp()"),
    " AS now,
    (SELECT json_agg(o.id ORDER BY o.id)::text
        FROM runtree_runs o
        JOIN runtree_run_leases w ON w.namespace = o.namespace AND w.run_id = o.id AND w.token = o.token
        WHERE o.namespace = r.namespace AND o.concurrency_key = r.concurrency_key AND o.id <> r.id
            AND (o.status = ",
    status!(Running),
    " AND o.ended_at IS NULL AND o.concurrency_key IS NOT NULL) IS TRUE AND w.expires_at > statement_timestamp()) AS holders,
    CASE WHEN r.status = ",
    status!(Pending),
    " AND r.ended_at IS NULL THEN ",
    ahead!("IS NULL"),
    " + ",
    ahead!("IS NOT NULL"),
    " ELSE 0 END AS ahead
    FROM runtree_runs r",
    beside!(),
    " WHERE r.namespace = $1 AND r.id = $2"
);
