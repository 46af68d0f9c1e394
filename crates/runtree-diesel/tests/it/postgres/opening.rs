//! Opening a repository: schemas, rights, passwords, and servers that are not there.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_that_start_at_once_make_one_schema() {
    for schema in [None, Some("app_runs")] {
        let database = Database::fresh();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let builder = PostgresRepository::builder(&database.url);
                let builder = if let Some(name) = schema {
                    builder.schema(name)
                } else {
                    builder
                };
                tokio::spawn(builder.connect())
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let table = format!("{}.runtree_schema_info", schema.unwrap_or("public"));
        assert_eq!(
            database.execute(&format!(
                "select version, name, min_reader, min_writer from {table}"
            )),
            "1|runs|1|1\n2|complete|2|2\n3|sort_keys|2|3"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_untouched() {
    let database = Database::fresh();
    let table = "create table runtree_schema_info (version bigint primary key, name text, min_reader bigint, min_writer bigint)";
    database.execute(table);
    database.execute("insert into runtree_schema_info values (99, 'far', 98, 98)");
    let error = refused(&database.url).await;
    assert_eq!(error.kind(), ErrorKind::SchemaTooNew);
    assert!(error.to_string().contains(database.name()), "{error}");
    assert!(error.to_string().contains("99"), "{error}");
    assert_eq!(
        database.execute(
            "select string_agg(tablename, ',') from pg_tables where schemaname = 'public'"
        ),
        "runtree_schema_info"
    );
    assert_eq!(
        database.execute("select * from runtree_schema_info"),
        "99|far|98|98"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_only_newer_versions_may_write_is_read() {
    let database = Database::fresh();
    let id = created(&database.open().await, &request(NewRun::new("builder"))).await;
    database.execute("insert into runtree_schema_info values (4, 'later', 3, 4)");
    let runs = database.open().await;
    assert_eq!(runs.get(id).await.unwrap().unwrap().id, id);
    let error = runs
        .create(&request(NewRun::new("builder")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(error.to_string().contains("schema version 4"), "{error}");
    assert_eq!(database.execute("select count(*) from runtree_runs"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_can_live_in_a_schema_of_their_own() {
    let database = Database::fresh();
    let open = || {
        PostgresRepository::builder(&database.url)
            .schema("app_runs")
            .connect()
    };
    let id = created(&open().await.unwrap(), &request(NewRun::new("builder"))).await;
    assert!(open().await.unwrap().get(id).await.unwrap().is_some());
    assert_eq!(
        database.execute("select count(*) from app_runs.runtree_runs"),
        "1"
    );
    assert_eq!(
        database.execute("select count(*) from pg_tables where schemaname = 'public'"),
        "0"
    );
    let odd = PostgresRepository::builder(&database.url)
        .schema("a\"; drop table x; --")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(odd.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_so() {
    let database = Database::fresh();
    let role = format!("guest_{}", database.name());
    database.execute(&format!("create role {role} login"));
    let error = refused(&database.url_of(&role)).await;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(
        error.to_string().contains("permission denied")
            && error.to_string().contains(database.name()),
        "{error}"
    );
    // Once somebody has made the tables, the right to read is enough to read.
    let id = created(&database.open().await, &request(NewRun::new("builder"))).await;
    database.execute(&format!(
        "grant select on all tables in schema public to {role}"
    ));
    let runs = PostgresRepository::connect(&database.url_of(&role))
        .await
        .unwrap();
    assert!(runs.get(id).await.unwrap().is_some());
    assert_eq!(
        runs.create(&request(NewRun::new("builder")))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::ReadOnly
    );
    database.execute(&format!("drop owned by {role}; drop role {role}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_shown() {
    let server = TestPostgres::start();
    let url = server.fresh_database();
    server.execute("postgres", "create role guarded login password 'right'");
    server.execute(
        "postgres",
        "copy (select 1) to program 'sed -i \"1i local all guarded scram-sha-256\" pg_hba.conf'",
    );
    server.stop();
    server.start_again();
    let (_, rest) = url.split_once('@').unwrap();
    let error = refused(&format!("postgres://guarded:hunter2@{rest}")).await;
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("password"), "{error}");
    let missing = refused(&format!("postgres://guarded@{rest}")).await;
    assert_eq!(missing.kind(), ErrorKind::Configuration, "{missing}");
    let stranger = refused(&format!("postgres://nobody_here:hunter2@{rest}")).await;
    assert_eq!(stranger.kind(), ErrorKind::Configuration, "{stranger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_database_is_named() {
    let url = TestPostgres::get().url("not_there");
    let error = refused(&url).await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("not_there"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_waited_for_a_bounded_time() {
    let closed = refused("postgres://u:hunter2@%2Fno%2Fsuch%2Fdirectory/db").await;
    assert_eq!(closed.kind(), ErrorKind::Unavailable, "{closed}");
    // Takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/db");
    let connect = PostgresRepository::builder(&url)
        .connect_timeout(Duration::from_millis(200))
        .connect();
    let error = tokio::time::timeout(Duration::from_secs(30), connect)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{error}"
    );
    drop(silent);
    let refused_there = refused(&format!("postgres://u:hunter2@127.0.0.1:{port}/db")).await;
    assert_eq!(
        refused_there.kind(),
        ErrorKind::Unavailable,
        "{refused_there}"
    );
}

/// Where the role's first schema is another than that of the tables, later steps must not land in it.
#[tokio::test(flavor = "multi_thread")]
async fn later_steps_land_beside_the_first_whatever_schema_comes_first() {
    let database = Database::fresh();
    let first = PostgresRepository::migrations().first().unwrap();
    database.execute("create schema \"Odd \"\"name\"");
    database.execute(&format!(
        "set search_path = \"Odd \"\"name\"; {}",
        first.up()
    ));
    database.execute("create schema app");
    let name = database.name().to_owned();
    database.execute(&format!(
        "alter database {name} set search_path = app, \"Odd \"\"name\", public"
    ));
    let runs = database.open().await;
    created(&runs, &request(NewRun::new("builder").tag("t"))).await;
    let schemas = "select string_agg(distinct schemaname, ',') from pg_tables where tablename like 'runtree%'";
    assert_eq!(database.execute(schemas), "Odd \"name");
    let made = database.open().await;
    assert_eq!(made.count(&RunFilter::new()).await.unwrap(), 1);
}

/// A newer version that migrates while this one is connected is noticed with the next connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_becomes_too_new_is_noticed_by_the_next_connection() {
    let database = Database::fresh();
    let runs = database.open_single().await;
    let id = created(&runs, &request(NewRun::new("builder"))).await;
    let end_sessions = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                        where application_name = 'runtree' and datname = current_database()";
    database.execute("insert into runtree_schema_info values (4, 'later', 3, 4)");
    database.execute(end_sessions);
    assert_eq!(runs.get(id).await.unwrap().unwrap().id, id);
    let error = runs
        .create(&request(NewRun::new("builder")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(error.to_string().contains("schema version 4"), "{error}");

    let writer = Database::fresh();
    let runs = writer.open_single().await;
    writer.execute("insert into runtree_schema_info values (4, 'later', 3, 4)");
    writer.execute(end_sessions);
    let mut error = runs
        .create(&request(NewRun::new("builder")))
        .await
        .unwrap_err();
    if error.kind() == ErrorKind::Unavailable {
        // It was not known yet that the old connection is gone, and a write is not done again by itself.
        let again = runs.create(&request(NewRun::new("builder"))).await;
        error = again.unwrap_err();
    }
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert_eq!(writer.execute("select count(*) from runtree_runs"), "0");
    writer.execute("insert into runtree_schema_info values (5, 'far', 5, 5)");
    writer.execute(end_sessions);
    let error = runs.count(&RunFilter::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaTooNew, "{error}");

    let older = Database::fresh();
    let runs = older.open_single().await;
    older.execute(&PostgresRepository::migrations().last().unwrap().down());
    older.execute(end_sessions);
    let error = runs.count(&RunFilter::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("3 (sort_keys)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_read_and_named() {
    let database = Database::fresh();
    let name = database.name().to_owned();
    let read_only = format!("alter database {name} set default_transaction_read_only = on");
    database.execute(&read_only);
    let error = refused(&database.url).await;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(
        database.execute("select count(*) from pg_tables where schemaname = 'public'"),
        "0"
    );
    let reset = format!("alter database {name} reset default_transaction_read_only");
    TestPostgres::get().execute("postgres", &reset);
    let id = created(&database.open().await, &request(NewRun::new("builder"))).await;
    database.execute(&read_only);
    let runs = database.open().await;
    assert!(runs.get(id).await.unwrap().is_some());
    let error = runs.claim(&claim_of(ClaimOf::ANY, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let error = runs
        .create_many(&[request(NewRun::new("a")), request(NewRun::new("b"))])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert_eq!(runs.count(&RunFilter::new()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_while_the_schema_moves_on_are_refused_all() {
    let database = Database::fresh();
    let runs = database.open_single().await;
    let id = created(&runs, &request(NewRun::new("builder"))).await;
    let mut other = database.session().await;
    other
        .batch_execute("begin; lock table runtree_runs in access exclusive mode")
        .await
        .unwrap();
    let read = tokio::spawn({
        let runs = runs.clone();
        async move { runs.get(id).await }
    });
    database.wait_for_a_waiter().await;
    // Both wait for the only connection before it breaks.
    let requests = [
        request(NewRun::new("first")),
        request(NewRun::new("second")),
    ];
    let (first, second, ()) = tokio::join!(
        runs.create(&requests[0]),
        runs.create(&requests[1]),
        async {
            database.execute("insert into runtree_schema_info values (4, 'later', 3, 4)");
            database.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                 where application_name = 'runtree' and datname = current_database()",
            );
            other.batch_execute("rollback").await.unwrap();
        }
    );
    for refused in [first, second] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    assert_eq!(read.await.unwrap().unwrap().unwrap().id, id);
    assert_eq!(database.execute("select count(*) from runtree_runs"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_an_administrator_made_is_used_by_a_role_that_may_make_none() {
    let database = Database::fresh();
    let role = format!("guest_{}", database.name());
    database.execute(&format!(
        "create role {role} login; create schema app_runs authorization {role}"
    ));
    for _ in 0..2 {
        let builder = PostgresRepository::builder(database.url_of(&role)).schema("app_runs");
        let runs = builder.connect().await.unwrap();
        created(&runs, &request(NewRun::new("builder"))).await;
    }
    assert_eq!(
        database.execute("select count(*) from app_runs.runtree_runs"),
        "2"
    );
    database.execute(&format!("drop owned by {role}; drop role {role}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_use_the_schema_is_refused_and_makes_nothing() {
    let database = Database::fresh();
    database.open().await;
    let role = format!("shut_{}", database.name());
    database.execute(&format!(
        "create role {role} login; revoke all on schema public from public"
    ));
    let error = refused(&database.url_of(&role)).await;
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("schema"), "{error}");
    let named = PostgresRepository::builder(database.url_of(&role)).schema("app_runs");
    let error = named.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert_eq!(
        database.execute("select count(*) from pg_namespace where nspname = 'app_runs'"),
        "0"
    );
    database.execute(&format!("drop owned by {role}; drop role {role}"));
}

/// Packets to an address for documentation go nowhere, or are sent back as unreachable.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_swallows_packets_is_waited_for_a_bounded_time() {
    let connect = PostgresRepository::builder("postgres://u:hunter2@192.0.2.1/db")
        .connect_timeout(Duration::from_millis(300))
        .connect();
    let error = tokio::time::timeout(Duration::from_secs(30), connect)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
}

/// A step that cannot get its tables gives up, and those who waited behind it go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_an_administrator_calls_off_leaves_the_schema_as_it_was() {
    let database = Database::fresh();
    let first = PostgresRepository::migrations().first().unwrap();
    database.execute(&first.up());
    let mut reader = database.session().await;
    reader
        .batch_execute("begin; select count(*) from runtree_runs")
        .await
        .unwrap();
    let opening = tokio::spawn(PostgresRepository::builder(&database.url).connect());
    database.wait_for_a_waiter().await;
    database.execute(
        "select pg_cancel_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
    );
    let error = opening.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    reader.batch_execute("commit").await.unwrap();
    let versions = "select string_agg(version::text, ',') from runtree_schema_info";
    assert_eq!(database.execute(versions), "1");
    database.open().await;
    assert_eq!(database.execute(versions), "1,2,3");
}
