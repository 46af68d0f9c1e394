//! Tests that every statement finds its rows by an index, however many runs there are, and that lists and claims sort nothing.
//!
//! A history in which every call is made records each statement with the place in the source that makes it; a place that was not
//! seen fails the test. The plans are kept in `tests/snapshots/sqlite-plans.txt`; `RUNTREE_UPDATE_SNAPSHOTS=1` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::panic::Location;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_repository::id::{
    BranchName, DirectoryName, IdEnding, IdGenerator, RunId, SessionId, Slug,
};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{ManualClock, TimeRange, Timestamp};
use runtree_repository::*;

use super::SqliteRepository;
use super::{filter, json, open, own, statistics};

type Place = (String, u32);

/// Where each statement was made, and its texts.
static SEEN: Mutex<BTreeMap<Place, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// Notes a statement with a fixed text, and who made it.
pub(super) fn saw(sql: &str, place: &Location<'_>) {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let file = Path::new(place.file()).file_name().unwrap();
    let place = (file.to_str().unwrap().to_owned(), place.line());
    seen.entry(place).or_default().insert(sql.to_owned());
}

#[derive(QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

fn database() -> SqliteConnection {
    let mut connection = SqliteConnection::establish(":memory:").unwrap();
    json::register(&mut connection).unwrap();
    for migration in open::MIGRATIONS {
        connection.batch_execute(&migration.up()).unwrap();
    }
    connection
}

/// How SQLite means to execute a statement, step by step.
fn plan(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let steps: Vec<Step> = sql_query(format!("EXPLAIN QUERY PLAN {sql}"))
        .load(connection)
        .unwrap();
    steps.into_iter().map(|step| step.detail).collect()
}

/// What may be read from end to end: what the statement itself brings along, and the table of steps.
const SHORT: &[&str] = &[
    "SCAN json_each",
    "SCAN CONSTANT ROW",
    "SCAN pragma_",
    "SCAN sqlite_master",
    "SCAN runtree_schema_info",
    // The parts of a measure.
    "SCAN measured",
    "SCAN placed",
    "SCAN (subquery",
];

fn assert_searches(sql: &str, plan: &[String]) {
    let is_long = |step: &&String| {
        // A claim counts once how many runs hold each key, and looks each key up in what it counted.
        step.contains("AUTOMATIC") && !step.starts_with("SEARCH h ")
            || step.starts_with("SCAN") && !SHORT.iter().any(|short| step.starts_with(short))
    };
    assert_eq!(plan.iter().find(is_long), None, "{sql}: {plan:#?}");
}

/// See the head of `sql.rs`.
fn assert_keeps_its_plan(sql: &str) {
    let limits = sql.split("LIMIT ?").skip(1);
    for limit in limits {
        let number = limit.trim_start_matches(|c: char| c.is_ascii_digit());
        assert!(number.starts_with(" + 0"), "{sql}");
    }
}

fn assert_sorts_nothing(sql: &str, plan: &[String]) {
    let sorts = plan.iter().find(|step| step.contains("TEMP B-TREE"));
    assert_eq!(sorts, None, "{sql}: {plan:#?}");
}

/// The places in the source of this module that make a statement with a fixed text.
fn places() -> BTreeSet<Place> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sqlite");
    let mut places = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let makes = |line: &str| {
            // `here` itself hands its caller's place on.
            let new = "Statement::new(";
            line.contains(".here(") || line.contains(new) && file != "sql.rs"
        };
        let lines = code.lines().zip(1..);
        let lines = lines.filter(|(line, _)| makes(line) && !line.trim_start().starts_with("//"));
        if file != "plans.rs" {
            places.extend(lines.map(|(_, number)| (file.clone(), number)));
        }
    }
    places
}

#[test]
fn every_statement_searches_and_the_plans_are_the_reviewed_ones() {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(history());
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let unseen: Vec<Place> = places()
        .into_iter()
        .filter(|place| !seen.contains_key(place))
        .collect();
    assert!(unseen.is_empty(), "{unseen:?}");
    let mut connection = database();
    let mut snapshot = String::new();
    let texts: BTreeSet<&String> = seen.values().flatten().collect();
    let claims = claims();
    for sql in texts {
        let plan = plan(&mut connection, sql);
        assert_searches(sql, &plan);
        assert_keeps_its_plan(sql);
        if claims.contains(&sql.as_str()) {
            assert_sorts_nothing(sql, &plan);
        }
        add(&mut snapshot, sql, &plan);
    }
    for (name, sql) in pages() {
        let plan = plan(&mut connection, &sql);
        assert_searches(&sql, &plan);
        assert_keeps_its_plan(&sql);
        assert_sorts_nothing(&sql, &plan);
        // What a filter changes is seen in one order.
        if name.contains(" of all ") || name.ends_with(" by created desc") {
            add(&mut snapshot, &name, &plan);
        }
    }
    for (name, sql) in over_all() {
        let plan = plan(&mut connection, &sql);
        assert_searches(&sql, &plan);
        add(&mut snapshot, &name, &plan);
    }
    compare(&snapshot);
}

fn add(snapshot: &mut String, what: &str, plan: &[String]) {
    writeln!(
        snapshot,
        "{}",
        what.split_whitespace().collect::<Vec<_>>().join(" ")
    )
    .unwrap();
    for step in plan {
        writeln!(snapshot, "    {step}").unwrap();
    }
    snapshot.push('\n');
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test may be told by its environment to rewrite its files"
)]
fn compare(made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/sqlite-plans.txt");
    if std::env::var_os("RUNTREE_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        made == kept,
        "the plans are not those of {}",
        path.display()
    );
}

/// The statements of claims, which read waiting runs in their order.
fn claims() -> [&'static str; 7] {
    [
        own::ANY,
        own::OF_RUN,
        own::OF_WORKFLOWS,
        own::OF_QUEUE,
        own::OF_QUEUE_AND_WORKFLOWS,
        own::OF_QUEUES,
        own::OF_QUEUES_AND_WORKFLOWS,
    ]
}

/// Every condition alone, by name.
fn filters() -> Vec<(&'static str, RunFilter)> {
    let new = RunFilter::new;
    let day = TimeRange::between(
        "2025-06-22T00:00:00Z".parse().unwrap(),
        "2025-06-23T00:00:00Z".parse().unwrap(),
    )
    .unwrap();
    let ids = IdGenerator::system();
    vec![
        ("all", new()),
        (
            "statuses",
            new().statuses([RunStatus::Failed, RunStatus::Killed]),
        ),
        ("running", new().statuses([RunStatus::Running])),
        ("end reasons", new().end_reasons([EndReason::Lost])),
        ("workflows", new().workflows(["a".parse().unwrap()])),
        ("queues", new().queues([QueueName::default()])),
        ("session", new().session(session())),
        ("user", new().user(UserId::new("ann").unwrap())),
        ("branch", new().branch("fix/a".parse().unwrap())),
        ("owner", new().owner(ids.owner_id().unwrap())),
        ("owner's host", new().owner_host(host())),
        ("tags", new().tag(tag("a")).tag(tag("b"))),
        (
            "many tags",
            (0..9).fold(new(), |all, n| all.tag(tag(&format!("t{n}")))),
        ),
        ("metadata", new().metadata_key("a").metadata("b", 1)),
        ("created", new().created(day)),
        ("started", new().started(day)),
        ("ended", new().ended(day)),
    ]
}

/// First and later pages in every order under every condition.
fn pages() -> Vec<(String, String)> {
    let id: RunId = "run_01h455vb4pex5vsknk084sn02q".parse().unwrap();
    let mut pages = Vec::new();
    for (name, shown) in filters() {
        for by in SortKey::ALL {
            for order in [RunOrder::ascending(*by), RunOrder::descending(*by)] {
                let value = if by.is_text() {
                    SortValue::Text(String::new())
                } else {
                    SortValue::Number(None)
                };
                let request = PageRequest {
                    order,
                    ..PageRequest::default()
                };
                let first = filter::page(&shown, &request, None).sql;
                let later = filter::page(&shown, &request, Some(&Position { value, id })).sql;
                pages.push((format!("first page of {name} by {order}"), first));
                pages.push((format!("later page of {name} by {order}"), later));
            }
        }
    }
    pages
}

/// Counts and measures under every condition.
fn over_all() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (name, shown) in filters() {
        let count = filter::over_all(&shown, "count(*) AS number", "").sql;
        queries.push((format!("count of {name}"), count));
        for (what, query) in [
            ("totals", statistics::totals(&shown)),
            ("workflows", statistics::workflows(&shown)),
            ("durations", statistics::durations(&shown)),
            ("waiting times", statistics::waiting_times(&shown)),
        ] {
            queries.push((format!("{what} of {name}"), query.sql));
        }
    }
    queries
}

fn host() -> HostName {
    HostName::new("here").unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn site() -> WorktreeSite {
    WorktreeSite {
        host: host(),
        git_repository: HostPath::new("/srv/checkout/.git").unwrap(),
        root: HostPath::new("/srv/worktrees").unwrap(),
    }
}

fn owner() -> Owner {
    Owner {
        id: IdGenerator::system().owner_id().unwrap(),
        host: host(),
        process: ProcessMark::new("1").unwrap(),
    }
}

/// Calls everything, in every way that makes another statement.
async fn history() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let runs = SqliteRepository::builder(directory.path().join("runs.db"))
        .clock(Arc::new(clock.clone()))
        .open()
        .await
        .unwrap();
    let story = Story { runs, clock };
    story.creates().await;
    story.claims().await;
    story.stops().await;
    story.worktrees().await;
    story.reads().await;
    let retention = Retention {
        ended_before: Timestamp::MAX,
        limit: Limit::MAX,
    };
    assert!(
        !story
            .runs
            .delete_ended(&retention)
            .await
            .unwrap()
            .is_empty()
    );
}

struct Story {
    runs: SqliteRepository,
    clock: ManualClock,
}

impl Story {
    fn request(&self, run: NewRun) -> CreateRun {
        CreateRun {
            id: IdGenerator::system().run_id().unwrap(),
            run,
            worktree: None,
        }
    }

    async fn make(&self, run: NewRun) -> RunId {
        let created = self.runs.create(&self.request(run)).await.unwrap();
        created.into_run().unwrap().id
    }

    async fn claim(&self, of: ClaimOf) -> Vec<LeaseRef> {
        let claim = Claim {
            owner: owner(),
            lease_time: LeaseTime::default(),
            limit: Limit::MAX,
            of,
            site: Some(site()),
        };
        let claimed = self.runs.claim(&claim).await.unwrap();
        claimed.into_iter().map(|claimed| claimed.lease).collect()
    }

    async fn own(&self, run: NewRun) -> LeaseRef {
        let id = self.make(run).await;
        self.claim(ClaimOf::Run(id)).await[0]
    }

    async fn end(&self, lease: LeaseRef, outcome: Outcome) {
        let _ = self.runs.end(lease, &outcome).await.unwrap();
    }

    async fn creates(&self) {
        let whole = NewRun::new("builder")
            .idempotency_key("key")
            .unique_key("one")
            .tag("a")
            .agent("coder");
        let request = self.request(whole.clone());
        for other in [
            request.clone(),
            request.clone(),
            self.request(whole.idempotency_key("other")),
            CreateRun {
                id: request.id,
                ..self.request(NewRun::new("x"))
            },
        ] {
            let _ = self.runs.create_many(&[other]).await.unwrap();
        }
        let lease = self.claim(ClaimOf::Run(request.id)).await[0];
        self.end(lease, Outcome::Completed { result: None }).await;
        for _ in 0..2 {
            let retry = RetryRun {
                of: request.id,
                id: IdGenerator::system().run_id().unwrap(),
                worktree: None,
                available_at: None,
                deadline: None,
            };
            let _ = self.runs.retry(&retry).await.unwrap();
        }
        let some = Annotation::new()
            .add_tag(tag("b"))
            .remove_tag(tag("a"))
            .metadata("m", 1)
            .add_usage(Usage {
                input_tokens: 1,
                ..Usage::default()
            })
            .diff(DiffStatistics::default());
        let mut none = Annotation::new();
        none.agent = Change::Clear;
        none.diff = Change::Clear;
        for annotation in [some, none] {
            let _ = self.runs.annotate(request.id, &annotation).await.unwrap();
        }
    }

    async fn claims(&self) {
        let queue = |name: &str| QueueName::new(name).unwrap();
        let workflows = ["nobody".parse().unwrap()];
        let waiting = WaitingRuns::default;
        for wish in [
            waiting().queues([queue("a")]),
            waiting().queues([queue("a"), queue("b")]),
            waiting().workflows(workflows.clone()),
            waiting().queues([queue("a")]).workflows(workflows.clone()),
            waiting()
                .queues([queue("a"), queue("b")])
                .workflows(workflows.clone()),
            WaitingRuns::ANY,
        ] {
            self.claim(ClaimOf::Waiting(wish)).await;
        }
        let lease = self.own(NewRun::new("builder")).await;
        self.runs
            .renew(&[lease], LeaseTime::default())
            .await
            .unwrap();
        let child = ProcessMark::new("2").unwrap();
        let _ = self.runs.record_child(lease, &child).await.unwrap();
        let ending = Ending {
            lease,
            outcome: Outcome::Completed {
                result: Some(true.into()),
            },
        };
        let _ = self.runs.end_many(&[ending]).await.unwrap();
        for _ in 0..2 {
            self.make(NewRun::new("builder")).await;
        }
        let several = self.claim(ClaimOf::ANY).await;
        let endings: Vec<Ending> = several
            .into_iter()
            .map(|lease| Ending {
                lease,
                outcome: Outcome::Completed { result: None },
            })
            .collect();
        assert!(endings.len() > 1);
        let _ = self.runs.end_many(&endings).await.unwrap();
        self.ends_together().await;
        let lease = self.own(NewRun::new("builder")).await;
        let _ = self.runs.release(lease).await.unwrap();
        let _ = self.runs.release(lease).await.unwrap();
        let lease = self.claim(ClaimOf::Run(lease.run)).await[0];
        self.end(lease, Outcome::Killed).await;
    }

    /// Ends runs by one call each, while the writing thread has something else to do.
    async fn ends_together(&self) {
        let requests: Vec<CreateRun> = (0..200)
            .map(|_| self.request(NewRun::new("builder")))
            .collect();
        let _ = self.runs.create_many(&requests[..4]).await.unwrap();
        let leases = self.claim(ClaimOf::ANY).await;
        let mut calls = tokio::task::JoinSet::new();
        let runs = self.runs.clone();
        calls.spawn(async move {
            let _ = runs.create_many(&requests[4..]).await.unwrap();
        });
        for lease in leases {
            let runs = self.runs.clone();
            calls.spawn(async move {
                let outcome = Outcome::Completed { result: None };
                let _ = runs.end(lease, &outcome).await.unwrap();
            });
        }
        calls.join_all().await;
    }

    async fn stops(&self) {
        let graceful = CancelRequest::new(CancelMode::Graceful);
        let forced = CancelRequest::new(CancelMode::Forced);
        let waiting = self.make(NewRun::new("builder")).await;
        let _ = self.runs.cancel(waiting, &graceful).await.unwrap();
        let lease = self.own(NewRun::new("builder")).await;
        for request in [&graceful, &forced] {
            let _ = self.runs.cancel(lease.run, request).await.unwrap();
        }
        let error = ErrorText::new("no").unwrap();
        let retry_after = Some(Duration::ZERO);
        let failed = Outcome::Failed { error, retry_after };
        self.end(lease, failed.clone()).await;
        let lease = self.own(NewRun::new("builder")).await;
        let _ = self.runs.force_kill(lease.run, &forced).await.unwrap();
        let twice = || NewRun::new("builder").max_attempts(2.try_into().unwrap());
        for run in [NewRun::new("builder"), twice()] {
            let lease = self.own(run.clone()).await;
            self.end(lease, failed.clone()).await;
            let lease = self.own(run).await;
            let rescue = Rescue {
                proven_dead: vec![lease],
                ..Rescue::default()
            };
            self.runs.rescue(&rescue).await.unwrap();
        }
        let soon = self.clock_now();
        let overdue = Overdue {
            limit: Limit::MAX,
            grace: Duration::ZERO,
        };
        self.make(NewRun::new("builder").deadline(soon)).await;
        self.own(NewRun::new("builder").deadline(soon)).await;
        for _ in 0..2 {
            assert!(!self.runs.time_out(&overdue).await.unwrap().is_empty());
        }
    }

    fn clock_now(&self) -> Timestamp {
        use runtree_repository::time::Clock as _;
        self.clock.now()
    }

    async fn worktrees(&self) {
        for persistence in [Persistence::Temporary, Persistence::Persistent] {
            let mut request = self.request(NewRun::new("builder"));
            let slug: Slug = "fix".parse().unwrap();
            request.worktree = Some(WantedWorktree {
                name: DirectoryName::for_run(&slug, request.id),
                branch: BranchName::for_run(&slug, request.id),
                base: "0123456789012345678901234567890123456789".parse().unwrap(),
                persistence,
            });
            let _ = self.runs.create(&request).await.unwrap();
            let lease = self.claim(ClaimOf::Run(request.id)).await[0];
            for _ in 0..2 {
                let _ = self.runs.worktree_ready(lease).await.unwrap();
            }
            self.end(lease, Outcome::Completed { result: None }).await;
            let query = WorktreeQuery::Run(request.id);
            self.runs.worktrees(&query).await.unwrap();
        }
        let WorktreeSite {
            host,
            git_repository,
            ..
        } = site();
        let query = WorktreeQuery::Site {
            host: host.clone(),
            git_repository: git_repository.clone(),
        };
        self.runs.worktrees(&query).await.unwrap();
        let claim = CleanupClaim {
            owner: owner(),
            lease_time: LeaseTime::default(),
            limit: Limit::MAX,
            host: host.clone(),
            git_repository: git_repository.clone(),
            run: None,
        };
        let held = self.runs.claim_cleanups(&claim).await.unwrap()[0].cleanup;
        self.runs
            .cleanup_leases(&host, &git_repository)
            .await
            .unwrap();
        self.runs.free_cleanups(&[held]).await.unwrap();
        for outcome in [
            CleanupOutcome::Postponed {
                error: ErrorText::new("busy").unwrap(),
                retry_after: Duration::ZERO,
            },
            CleanupOutcome::Removed { salvage: None },
        ] {
            let held = self.runs.claim_cleanups(&claim).await.unwrap()[0].cleanup;
            let _ = self.runs.finish_cleanup(held, &outcome).await.unwrap();
        }
    }

    async fn reads(&self) {
        let key = "shared".to_owned();
        let run = NewRun::new("builder").concurrency(key, 1.try_into().unwrap());
        let id = self.make(run).await;
        self.runs.explain(id).await.unwrap();
        self.runs.get(id).await.unwrap();
        let key = IdempotencyKey::new("key").unwrap();
        self.runs.get_by_key(&key).await.unwrap();
        let ending = id.to_string();
        let ending = IdEnding::new(&ending[ending.len() - 8..]).unwrap();
        self.runs.find(&ending).await.unwrap();
        self.runs.leases(None).await.unwrap();
        self.runs
            .events(id, EventNumber::START, Limit::MAX)
            .await
            .unwrap();
        self.runs
            .changed(ChangeMark::new(u64::MAX), Duration::from_millis(1))
            .await
            .unwrap();
    }
}

fn session() -> SessionId {
    let number = 0x0123_4567_89ab_4def_8123_4567_89ab_cdef;
    SessionId::from_uuid(uuid::Uuid::from_u128(number)).unwrap()
}
