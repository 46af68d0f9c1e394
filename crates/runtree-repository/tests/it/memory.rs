//! The public suite, put to the memory backend.

use std::sync::Arc;

use async_trait::async_trait;
use runtree_conformance::{Backend, BackendError, ClockSource, Declaration};
use runtree_repository::time::ManualClock;
use runtree_repository::{
    Capabilities, Durability, DynRunRepository, MemoryRepository, Namespace, Sharing,
};

pub(crate) struct Memory;

#[async_trait]
impl Backend for Memory {
    type Store = MemoryRepository;

    fn declaration(&self) -> Declaration {
        let capabilities = Capabilities::new(Durability::Process, Sharing::Process);
        Declaration::new(capabilities, ClockSource::Passed)
    }

    async fn make(&self, clock: ManualClock) -> Result<MemoryRepository, BackendError> {
        Ok(MemoryRepository::new(Arc::new(clock)))
    }

    async fn open(
        &self,
        store: &MemoryRepository,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        Ok(Arc::new(store.with_namespace(namespace.clone())))
    }
}

/// One test of each case.
mod conformance {
    runtree_conformance::tests!(crate::memory::Memory);
}

#[tokio::test]
async fn the_memory_backend_conforms() {
    let report = runtree_conformance::check(Memory).await;
    report.assert_conforms();
    // Nothing but these: memory does not outlive its process, and no other program writes to it.
    assert_eq!(
        report.skipped(),
        [
            "retry::a_word_of_a_newer_version_is_not_tried_again",
            "annotate::a_word_of_a_newer_version_is_not_annotated",
            "deadline::a_word_of_a_newer_version_is_left_alone",
            "statistics::a_word_of_a_newer_version_is_counted_under_itself",
            "explain::a_word_of_a_newer_version_is_named",
            "retention::a_word_of_a_newer_version_is_not_deleted",
            "store::what_was_acknowledged_outlives_the_handles",
            "store::an_unknown_status_is_read_and_listed_word_for_word",
            "store::a_waiting_run_of_an_unknown_status_is_left_alone",
            "store::a_running_run_of_an_unknown_status_is_left_alone",
        ]
    );
}
