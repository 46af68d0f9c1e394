//! The public suite, on a SQLite file.

use std::sync::Arc;

use async_trait::async_trait;
use diesel::sql_types::{Binary, Text};
use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection, sql_query};
use runtree_conformance::{Backend, BackendError, ClockSource, Declaration};
use runtree_diesel::SqliteRepository;
use runtree_repository::id::RunId;
use runtree_repository::status::Word;
use runtree_repository::time::ManualClock;
use runtree_repository::{Capabilities, Durability, DynRunRepository, Namespace, Sharing};
use tempfile::TempDir;

pub(crate) struct Sqlite;

pub(crate) struct File {
    directory: TempDir,
    clock: ManualClock,
}

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("runs.db")
    }
}

#[async_trait]
impl Backend for Sqlite {
    type Store = File;

    fn declaration(&self) -> Declaration {
        Declaration::new(
            Capabilities::new(Durability::Full, Sharing::Machine),
            ClockSource::Passed,
        )
        .writes_foreign_words()
    }

    async fn make(&self, clock: ManualClock) -> Result<File, BackendError> {
        Ok(File {
            directory: tempfile::tempdir()?,
            clock,
        })
    }

    async fn open(
        &self,
        store: &File,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        let builder = SqliteRepository::builder(store.path())
            .namespace(namespace.clone())
            .clock(Arc::new(store.clock.clone()));
        Ok(Arc::new(builder.open().await?))
    }

    async fn write_status(
        &self,
        store: &File,
        namespace: &Namespace,
        run: RunId,
        status: &Word,
    ) -> Result<(), BackendError> {
        let path = store.path();
        let mut connection =
            SqliteConnection::establish(path.to_str().ok_or("the path of a test is text")?)?;
        let changed =
            sql_query("UPDATE runtree_runs SET status = ? WHERE namespace = ? AND id = ?")
                .bind::<Text, _>(status.as_str())
                .bind::<Text, _>(namespace.as_str())
                .bind::<Binary, _>(run.as_bytes().as_slice())
                .execute(&mut connection)?;
        if changed == 1 {
            Ok(())
        } else {
            Err(format!("{changed} runs have the id {run}").into())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_keeps_every_promise() {
    runtree_conformance::check(Sqlite).await.assert_conforms();
}

#[tokio::test(flavor = "current_thread")]
async fn a_sqlite_file_keeps_every_promise_on_one_thread() {
    runtree_conformance::check(Sqlite).await.assert_conforms();
}
