//! The public suite and the naive model, put to a backend of one's own.

use std::sync::Arc;

use async_trait::async_trait;
use custom_repository::RedbRepository;
use runtree_conformance::model::{Plan, check};
use runtree_conformance::{Backend, BackendError, ClockSource, Declaration};
use runtree_repository::id::RunId;
use runtree_repository::status::{RunStatus, Word};
use runtree_repository::time::ManualClock;
use runtree_repository::{Capabilities, Durability, DynRunRepository, Namespace, Sharing};
use tempfile::TempDir;

struct Redb;

#[async_trait]
impl Backend for Redb {
    type Store = (RedbRepository, TempDir);

    fn declaration(&self) -> Declaration {
        let capabilities = Capabilities::new(Durability::Full, Sharing::Process);
        Declaration::new(capabilities, ClockSource::Passed).writes_foreign_words()
    }

    async fn make(&self, clock: ManualClock) -> Result<Self::Store, BackendError> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("runs.redb");
        Ok((RedbRepository::open(&file, Arc::new(clock))?, directory))
    }

    async fn open(
        &self,
        (store, _): &Self::Store,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        Ok(Arc::new(store.with_namespace(namespace.clone())))
    }

    async fn write_status(
        &self,
        (store, _): &Self::Store,
        namespace: &Namespace,
        run: RunId,
        status: &Word,
    ) -> Result<(), BackendError> {
        let handle = store.with_namespace(namespace.clone());
        Ok(handle.overwrite_status(run, RunStatus::from_stored(status.as_str())?)?)
    }
}

mod conformance {
    runtree_conformance::tests!(crate::Redb);
}

#[test]
fn it_answers_as_the_model_does() {
    let plan = Plan::new().one_in(4.try_into().expect("because four is not zero"));
    check(Redb, &plan).unwrap_or_else(|other| panic!("{other}"));
}

#[test]
fn the_program_runs_a_run_to_its_end() {
    let program = env!("CARGO_BIN_EXE_custom-repository");
    let output = std::process::Command::new(program).output();
    let output = output.expect("because the program was built for this test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ends: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(ends, ["pending", "running", "completed"]);
}
