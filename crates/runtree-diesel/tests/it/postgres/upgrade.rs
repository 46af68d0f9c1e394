//! Databases of earlier versions, and schemas that people change with their own tools.

use runtree_repository::id::{IdEnding, Lookup};
use runtree_repository::{AnnotateRuns, RunOrder, SortKey, UserId};

use super::*;

/// What version 1 left: an ended, a running and a waiting run, and one that somebody wants to stop.
const OLD_RUNS: &str = "
    insert into runtree_runs (
        namespace, id, workflow, status, end_reason, priority, unique_key, fingerprint, attempts, max_attempts, token, last_event,
        cancel_requested_at, cancel_mode, available_at, created_at, updated_at, started_at, ended_at)
    select 'default', id::uuid, 'builder', status, reason, 0, 'key-' || right(id, 1), sha256(id::bytea), 1, 2, 1, 1, stop,
        case when stop is not null then 'graceful' end, at, at, at, start, ended
    from (select timestamptz '2026-01-01 00:00:00+00' as at) base cross join (values
        ('01890a5d-ac96-774b-bcce-b302099a8051', 'completed', 'succeeded', null::timestamptz,
            timestamptz '2026-01-01 00:00:01+00', timestamptz '2026-01-01 00:00:05+00'),
        ('01890a5d-ac96-774b-bcce-b302099a8052', 'running', null, null, timestamptz '2026-01-01 00:00:02+00', null),
        ('01890a5d-ac96-774b-bcce-b302099a8053', 'pending', null, null, null, null),
        ('01890a5d-ac96-774b-bcce-b302099a8054', 'running', null, timestamptz '2026-01-01 00:00:03+00',
            timestamptz '2026-01-01 00:00:02+00', null)
    ) as v (id, status, reason, stop, start, ended);
    insert into runtree_run_payloads (namespace, run_id, input, metadata)
    select namespace, id, 'in', '{\"a\": 1e16}' from runtree_runs;
    insert into runtree_run_leases (namespace, run_id, token, owner_id, owner_host, owner_process, heartbeat_at, expires_at)
    select namespace, id, token, '01890a5d-ac96-774b-bcce-b302099a8055', 'alpha', 'p', updated_at, '2999-01-01'
    from runtree_runs where status = 'running';
    insert into runtree_run_events (namespace, run_id, number, at, kind, token)
    select namespace, id, 1, created_at, 'created', 0 from runtree_runs";

fn old_database() -> Database {
    let database = Database::fresh();
    let first = PostgresRepository::migrations().first().unwrap();
    assert_eq!((first.version(), first.name()), (1, "runs"));
    database.execute(&first.up());
    database.execute(OLD_RUNS);
    database
}

async fn statuses(runs: &PostgresRepository) -> Vec<RunStatus> {
    let page = PageRequest {
        order: RunOrder::OLDEST_FIRST,
        ..PageRequest::default()
    };
    let page = runs.list(&RunFilter::new(), &page).await.unwrap();
    page.runs.iter().map(|run| run.status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_version_1_is_upgraded_once_by_eight_that_start_at_once() {
    let database = old_database();
    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(PostgresRepository::builder(&database.url).connect()))
        .collect();
    let mut opened = Vec::new();
    for task in tasks {
        opened.push(task.await.unwrap().unwrap());
    }
    let steps =
        "select version, name, min_reader, min_writer from runtree_schema_info order by version";
    assert_eq!(
        database.execute(steps),
        "1|runs|1|1\n2|complete|2|2\n3|sort_keys|2|3"
    );
    let runs = &opened[0];
    use RunStatus::{Completed, Pending, Running};
    assert_eq!(statuses(runs).await, [Completed, Running, Pending, Running]);
    // The old runs are what they were, and all that is new works on them.
    let claimed = runs.claim(&claim_of(ClaimOf::ANY, 9)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let run = &claimed[0].run;
    assert_eq!(run.queue.as_str(), "default");
    assert_eq!(run.input.as_ref().map(AsRef::as_ref), Some("in"));
    let annotation = runtree_repository::Annotation::new()
        .add_tag("new".parse().unwrap())
        .metadata("b", 2);
    let annotated = runs.annotate(run.id, &annotation).await.unwrap();
    let annotated = annotated.accepted().unwrap();
    assert_eq!(
        serde_json::Value::Object(annotated.metadata.clone()),
        json!({"a": 1e16, "b": 2})
    );
    let ended = runs.end(claimed[0].lease, &completed()).await.unwrap();
    assert_eq!(ended.accepted().unwrap().status, Completed);
    assert_eq!(runs.count(&RunFilter::new()).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_up_and_down_and_up_again() {
    let database = old_database();
    let steps = PostgresRepository::migrations();
    let tables = "select string_agg(table_name || '.' || column_name || ' ' || data_type, ',' order by table_name, ordinal_position)
        from information_schema.columns where table_schema = 'public' and table_name like 'runtree%'";
    let indexes = "select string_agg(indexdef, ';' order by indexname) from pg_indexes where schemaname = 'public'";
    let look = || (database.execute(tables), database.execute(indexes));
    let mut before = look();
    for step in &steps[1..] {
        database.execute(&step.up());
        let after = look();
        assert_ne!(before, after);
        database.execute(&step.down());
        assert_eq!(look(), before);
        database.execute(&step.up());
        assert_eq!(look(), after);
        before = after;
    }
    // What was applied by hand is what a repository needs.
    let builder = PostgresRepository::builder(&database.url).without_migrating();
    assert_eq!(statuses(&builder.connect().await.unwrap()).await.len(), 4);
    for step in steps.iter().rev() {
        database.execute(&step.down());
    }
    assert_eq!(
        database.execute(
            "select string_agg(tablename, ',') from pg_tables where schemaname = 'public'"
        ),
        "runtree_schema_info"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lacks_steps_is_refused_and_left_alone_where_nothing_may_be_migrated() {
    let database = old_database();
    let builder = PostgresRepository::builder(&database.url).without_migrating();
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("2 (complete)"), "{error}");
    assert_eq!(
        database.execute("select count(*) from runtree_schema_info"),
        "1"
    );
}

/// Renewals wait while a step has the tables; the leases that lived when it began live on for as long.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_does_not_expire_because_a_step_took_long() {
    let database = old_database();
    // Instants are then written with the name of a zone that is read as another one's.
    let name = database.name();
    database.execute(&format!(
        "alter database {name} set datestyle = 'SQL, DMY'; alter database {name} set timezone = 'Asia/Kolkata'"
    ));
    let [dead, live] = [
        "01890a5d-ac96-774b-bcce-b302099a8052",
        "01890a5d-ac96-774b-bcce-b302099a8054",
    ];
    database.execute(&format!(
        "update runtree_run_leases set expires_at = clock_timestamp() + case run_id when '{live}' then interval '3 seconds' else interval '0' end;
        insert into runtree_run_cleanup (namespace, run_id, planned_by, wanted_at, available_at, expires_at)
            select namespace, run_id, 1, now(), now(), expires_at from runtree_run_leases"
    ));
    // Holds the step up, as a dump of the database does.
    let mut reader = database.session().await;
    reader
        .batch_execute("begin; select count(*) from runtree_runs")
        .await
        .unwrap();
    let opening = tokio::spawn(PostgresRepository::builder(&database.url).connect());
    database.wait_for_a_waiter().await;
    database
        .wait_until(&format!(
            "select expires_at < clock_timestamp() from runtree_run_leases where run_id = '{live}'"
        ))
        .await;
    reader.batch_execute("commit").await.unwrap();
    let runs = opening.await.unwrap().unwrap();
    let rescue = Rescue {
        proven_dead: vec![],
        limit: Limit::MAX,
        spare: Vec::new(),
    };
    let rescued = runs.rescue(&rescue).await.unwrap();
    let rescued: Vec<String> = rescued
        .iter()
        .map(|rescued| rescued.run.id.as_uuid().to_string())
        .collect();
    assert_eq!(rescued, [dead]);
    assert_eq!(
        database.execute("select string_agg(run_id::text, ',') from runtree_run_cleanup where expires_at > clock_timestamp()"),
        live
    );
}

/// An index that is built over rows of which older versions stand about is left unused while a transaction is open that began before.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_built_is_used_at_once_though_a_transaction_has_been_open_for_long() {
    let database = old_database();
    let mut reader = database.session().await;
    reader
        .batch_execute("begin; select pg_current_xact_id()")
        .await
        .unwrap();
    for table in ["runtree_runs", "runtree_run_leases", "runtree_run_payloads"] {
        database.execute(&format!("update {table} set namespace = namespace"));
    }
    let runs = database.open().await;
    let unused = "select string_agg(indexrelid::regclass::text, ',') from pg_index
        where indcheckxmin and indrelid::regclass::text like 'runtree_%'";
    assert_eq!(database.execute(unused), "");
    assert_eq!(statuses(&runs).await.len(), 4);
    reader.batch_execute("commit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_of_the_hosts_is_named_and_nothing_has_changed() {
    let database = old_database();
    database.execute("create table orders (namespace text, run uuid, foreign key (namespace, run) references runtree_runs (namespace, id))");
    let error = PostgresRepository::connect(&database.url)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(
        error.to_string().contains("other objects depend on it"),
        "{error}"
    );
    // The step before needed nothing of it.
    let versions = "select string_agg(version::text, ',') from runtree_schema_info";
    assert_eq!(database.execute(versions), "1,2");
    database.execute("alter table orders drop constraint orders_namespace_run_fkey");
    let runs = database.open().await;
    database.execute("alter table orders add foreign key (namespace, run) references runtree_runs (namespace, id)");
    assert_eq!(statuses(&runs).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_version_2_knew_of_a_run_orders_and_finds_it_in_version_3() {
    let database = old_database();
    database.execute(&PostgresRepository::migrations()[1].up());
    // Two hosts in one database, a run without anything, and one with all of it.
    database.execute(
        "update runtree_runs set user_id = 'somebody', session_id = '01890a5d-ac96-774b-bcce-b302099a8056', worktree_branch = 'topic',
            cost = 5, input_tokens = 2, output_tokens = 3
            where id = '01890a5d-ac96-774b-bcce-b302099a8053';
        insert into runtree_runs (namespace, id, workflow, status, priority, fingerprint, max_attempts, last_event, available_at, created_at,
            updated_at)
            select 'other', id, workflow, status, priority, fingerprint, max_attempts, last_event, available_at, created_at, updated_at
            from runtree_runs where id = '01890a5d-ac96-774b-bcce-b302099a8054'",
    );
    let runs = database.open().await;
    assert_eq!(database.execute(sort_keys::DIFFERENT), "0");
    assert_eq!(
        database.execute("select count(*) from runtree_run_sort_keys"),
        "5"
    );
    let whole = "01890a5d-ac96-774b-bcce-b302099a8053";
    let found = |filter: RunFilter| {
        let runs = &runs;
        async move {
            let page = runs.list(&filter, &PageRequest::default()).await.unwrap();
            let ids = page.runs.iter().map(|run| run.id.as_uuid().to_string());
            ids.collect::<Vec<_>>()
        }
    };
    let any = RunFilter::new();
    assert_eq!(
        found(any.clone().branch("topic".parse().unwrap())).await,
        [whole]
    );
    let user = UserId::new("somebody").unwrap();
    assert_eq!(found(any.clone().user(user)).await, [whole]);
    for by in [SortKey::Cost, SortKey::Tokens, SortKey::Branch] {
        let page = PageRequest {
            order: RunOrder::ascending(by),
            ..PageRequest::default()
        };
        let page = runs.list(&any, &page).await.unwrap();
        assert_eq!(page.runs.len(), 4);
        assert_eq!(page.runs[3].id.as_uuid().to_string(), whole, "{by:?}");
    }
    let id = runs.list(&any, &PageRequest::default()).await.unwrap().runs[0]
        .id
        .to_string();
    let ending = IdEnding::new(&id[id.len() - 8..]).unwrap();
    let found = runs.find(&ending).await.unwrap();
    assert!(matches!(found, Lookup::Found(run) if run.id.to_string() == id));
}
