//! What opening refuses, and that a refusal touches nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use diesel::sql_types::Text;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_diesel::SqliteRepository;
use runtree_repository::{
    CreateRuns as _, Durability, ErrorKind, NewRun, PageRequest, ReadRuns as _, RepositoryError,
    RunFilter, RunRepository as _,
};
use tempfile::TempDir;

use super::{create, execute, request};

async fn refusal(path: &Path) -> RepositoryError {
    match SqliteRepository::open(path).await {
        Ok(opened) => panic!("{opened:?} should not open"),
        Err(error) => error,
    }
}

/// A file that was opened, used and closed.
async fn used_file(directory: &TempDir) -> std::path::PathBuf {
    let path = directory.path().join("runs.db");
    let runs = SqliteRepository::open(&path).await.unwrap();
    create(&runs, NewRun::new("builder")).await;
    runs.close().await;
    path
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_closed_file_is_one_file() {
    let directory = tempfile::tempdir().unwrap();
    used_file(&directory).await;
    assert_eq!(names(directory.path()), ["runs.db"]);
}

#[tokio::test]
async fn a_schema_that_is_too_new_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = used_file(&directory).await;
    execute(
        &path,
        "INSERT INTO runtree_schema_info VALUES (99, 'future', 99, 99, 0); PRAGMA journal_mode = DELETE",
    );
    let before = fs::read(&path).unwrap();
    let error = refusal(&path).await;
    assert_eq!(error.kind(), ErrorKind::SchemaTooNew);
    let text = error.to_string();
    assert!(
        text.contains("runs.db")
            && text.contains("99")
            && text.contains("newer version of runtree"),
        "{text}"
    );
    assert!(before == fs::read(&path).unwrap(), "the file was touched");
    assert_eq!(names(directory.path()), ["runs.db"]);
}

#[tokio::test]
async fn a_schema_that_may_be_read_is_read_and_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = used_file(&directory).await;
    execute(
        &path,
        "INSERT INTO runtree_schema_info VALUES (99, 'future', 1, 99, 0)",
    );
    let runs = SqliteRepository::open(&path).await.unwrap();
    assert_eq!(
        runs.list(&RunFilter::new(), &PageRequest::default())
            .await
            .unwrap()
            .runs
            .len(),
        1
    );
    let error = runs
        .create(&request(NewRun::new("builder")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(error.to_string().contains("99"), "{error}");
}

#[tokio::test]
async fn a_schema_that_moves_on_under_an_open_handle_is_noticed_by_the_next_call() {
    let directory = tempfile::tempdir().unwrap();
    let path = used_file(&directory).await;
    let runs = SqliteRepository::open(&path).await.unwrap();
    create(&runs, NewRun::new("builder")).await;
    let (shown, page) = (RunFilter::new(), PageRequest::default());

    execute(
        &path,
        "INSERT INTO runtree_schema_info VALUES (98, 'future', 1, 1, 0)",
    );
    create(&runs, NewRun::new("builder")).await;
    execute(
        &path,
        "INSERT INTO runtree_schema_info VALUES (99, 'future', 1, 99, 0)",
    );
    let wanted = request(NewRun::new("builder"));
    let error = runs.create(&wanted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(error.to_string().contains("99"), "{error}");
    assert_eq!(runs.list(&shown, &page).await.unwrap().runs.len(), 3);

    execute(
        &path,
        "UPDATE runtree_schema_info SET min_reader = 99 WHERE version = 99",
    );
    let error = runs.list(&shown, &page).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaTooNew, "{error}");
    let error = runs.create(&wanted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaTooNew, "{error}");

    execute(&path, "DELETE FROM runtree_schema_info WHERE version > 1");
    let error = runs.get(wanted.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("2 (complete)"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_that_admits_this_version_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = used_file(&directory).await;
    execute(
        &path,
        "INSERT INTO runtree_schema_info VALUES (99, 'future', 1, 1, 0)",
    );
    let runs = SqliteRepository::open(&path).await.unwrap();
    create(&runs, NewRun::new("builder")).await;
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let text = "these are notes, not a database\n".repeat(200);
    fs::write(&path, &text).unwrap();
    let error = refusal(&path).await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_missing_directory_is_created_only_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not/there/runs.db");
    let error = refusal(&path).await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("not/there"), "{error}");
    assert!(!directory.path().join("not").exists());
    let runs = SqliteRepository::builder(&path)
        .create_directories()
        .open()
        .await
        .unwrap();
    create(&runs, NewRun::new("builder")).await;
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for path in [
        directory.path(),
        Path::new(":memory:"),
        Path::new("/"),
        Path::new(".."),
    ] {
        assert_eq!(
            refusal(path).await.kind(),
            ErrorKind::Configuration,
            "{path:?}"
        );
    }
}

#[tokio::test]
async fn a_durability_that_a_file_does_not_have_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let builder = |durability| {
        SqliteRepository::builder(directory.path().join("runs.db")).durability(durability)
    };
    assert_eq!(
        builder(Durability::Process)
            .open()
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidInput
    );
    let normal = builder(Durability::Normal).open().await.unwrap();
    assert_eq!(normal.capabilities().durability, Durability::Normal);
}

#[tokio::test]
async fn a_path_with_any_character_is_the_file_of_that_name() {
    let directory = tempfile::tempdir().unwrap();
    let name = "50% of?mode=ro#runs & more ü.db";
    let runs = SqliteRepository::open(directory.path().join(name))
        .await
        .unwrap();
    create(&runs, NewRun::new("builder")).await;
    runs.close().await;
    assert_eq!(names(directory.path()), [name]);
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[tokio::test]
async fn a_host_keeps_its_own_tables_in_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.db");
    let host = "CREATE TABLE runs (name TEXT); INSERT INTO runs VALUES ('mine');
         CREATE TABLE __diesel_schema_migrations (version TEXT PRIMARY KEY, run_on TEXT)";
    execute(&path, host);
    let runs = SqliteRepository::open(&path).await.unwrap();
    create(&runs, NewRun::new("builder")).await;
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    let mine: Vec<Name> = sql_query("SELECT name FROM runs")
        .load(&mut connection)
        .unwrap();
    assert_eq!(mine[0].name, "mine");
    let ours = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'runtree\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY name";
    let others: Vec<Name> = sql_query(ours).load(&mut connection).unwrap();
    assert_eq!(
        others
            .iter()
            .map(|row| row.name.as_str())
            .collect::<Vec<_>>(),
        ["__diesel_schema_migrations", "runs"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn openings_that_race_for_a_new_file_all_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let path = Arc::new(directory.path().join("runs.db"));
    let openings = (0..12).map(|_| {
        let path = Arc::clone(&path);
        tokio::spawn(async move { SqliteRepository::open(path.as_path()).await.map(drop) })
    });
    for opening in openings.collect::<Vec<_>>() {
        opening.await.unwrap().unwrap();
    }
}
