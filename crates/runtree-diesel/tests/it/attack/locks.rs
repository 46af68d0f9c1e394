//! Somebody else holds the lock of those who write, for long.

use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use runtree_diesel::SqliteRepository;
use runtree_repository::{CreateRuns as _, Created, ErrorKind, NewRun, ReadRuns as _};

use crate::histories::request;

#[tokio::test]
async fn a_file_that_is_up_to_date_is_opened_and_read_while_somebody_else_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let first = SqliteRepository::open(&path).await.unwrap();
    let request = request(NewRun::new("builder"));
    let created = first.create(&request).await.unwrap();
    assert!(matches!(created, Created::New(_)), "{created:?}");
    first.close().await;

    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let patience = Duration::from_millis(200);
    let builder = SqliteRepository::builder(&path).patience(patience);
    let runs = builder.open().await.unwrap();
    assert!(runs.get(request.id).await.unwrap().is_some());
    let refused = runs.create(&request).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused:?}");
    other.batch_execute("COMMIT").unwrap();
    let again = runs.create(&request).await.unwrap();
    assert!(matches!(again, Created::Existing(_)), "{again:?}");
}
