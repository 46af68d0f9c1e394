//! The pieces that statements are made of: how columns are shown, and which rows stand beside a run.

macro_rules! id {
    ($column:expr) => {
        concat!("uuid_send(", $column, ")")
    };
}

/// A `timestamptz` goes over the wire as it is: to make numbers of ten instants costs the server more than to read them costs us.
macro_rules! instant {
    ($column:expr) => {
        $column
    };
}

/// A duration as a number to reckon with.
macro_rules! micros {
    ($interval:expr) => {
        concat!("(extract(epoch FROM ", $interval, ") * 1000000)::bigint")
    };
}

macro_rules! int {
    ($column:expr) => {
        concat!($column, "::bigint")
    };
}

/// The tags of the run `r`, as the snapshot shows them.
macro_rules! tags {
    () => {
        "(SELECT json_agg(t.tag)::text FROM runtree_run_tags t WHERE t.namespace = r.namespace AND t.run_id = r.id)"
    };
}

/// The tags of a run whose tags the statement itself writes.
macro_rules! new_tags {
    () => {
        "n.tags"
    };
}

/// No tags: who reads the row adds them.
macro_rules! no_tags {
    () => {
        "NULL::text"
    };
}

/// The instant some microseconds from now, as far as an instant of ours goes.
macro_rules! after {
    ($micros:expr) => {
        concat!(
            "least(statement_timestamp() + ",
            $micros,
            "::bigint * interval '1 microsecond', ",
            "timestamptz '9999-12-31 23:59:59.999999+00')"
        )
    };
}

macro_rules! payload {
    () => {
        " LEFT JOIN runtree_run_payloads p ON p.namespace = r.namespace AND p.run_id = r.id"
    };
}

/// The lease of each run, looked for by the run's id: `OFFSET 0` keeps the planner from making a join of it, which would read every lease
/// for each run where the table was empty when it was analysed last.
macro_rules! lease {
    () => {
        lease!(where "")
    };
    (where $more:expr) => {
        concat!(
            " LEFT JOIN LATERAL (
            SELECT l.owner_id, l.owner_host, l.owner_process, l.child_process, l.heartbeat_at, l.expires_at FROM runtree_run_leases l
            WHERE l.namespace = r.namespace AND l.run_id = r.id",
            $more,
            " OFFSET 0) l ON true"
        )
    };
}

macro_rules! facts {
    () => {
        " LEFT JOIN runtree_run_facts f ON f.namespace = r.namespace AND f.run_id = r.id"
    };
}

/// What stands beside a run in a summary.
macro_rules! beside {
    () => {
        concat!(lease!(), facts!())
    };
}

/// As [`beside`]; the lease as the snapshot shows it, while the run is running.
macro_rules! beside_while_running {
    () => {
        concat!(
            lease!(where concat!(" AND r.status = ", status!(Running))),
            facts!()
        )
    };
}

/// As [`beside`], for runs that do not run: these have no lease.
macro_rules! beside_without_lease {
    () => {
        concat!(" LEFT JOIN runtree_run_leases l ON false", facts!())
    };
}

macro_rules! summary {
    () => {
        concat!("SELECT ", run_columns!(id, instant, int, tags))
    };
}

macro_rules! whole_run {
    () => {
        concat!(summary!(), ", ", payload_columns!())
    };
}

/// The statuses that a waiting or running run of this version has; the only ones that a write touches before the end.
macro_rules! open {
    () => {
        concat!("(", status!(Pending), ", ", status!(Running), ")")
    };
}

macro_rules! endings {
    () => {
        concat!(
            "(",
            status!(Completed),
            ", ",
            status!(Failed),
            ", ",
            status!(Killed),
            ")"
        )
    };
}

/// JSON as text without the signs of its zeros, which tell no two values apart; what stands within strings stays.
macro_rules! unsigned_zeros {
    ($text:expr) => {
        concat!(
            "(CASE WHEN ",
            $text,
            " LIKE '%-0.0%' THEN regexp_replace(",
            $text,
            r#", E'("(?:[^"\\\\]|\\\\.)*")|-(0\\.0)(?![0-9eE])', E'\\1\\2', 'g') ELSE "#,
            $text,
            " END)"
        )
    };
}

/// The tags of a run as an annotation leaves them.
macro_rules! annotated_tags {
    () => {
        "array_to_json(n.tags)::text"
    };
}
