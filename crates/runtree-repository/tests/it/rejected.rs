//! Tests of the suite itself: every repository that is broken on purpose is rejected, by the case that is named for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use runtree_conformance::{Backend, BackendError, Case, ClockSource, Declaration, Need, Verdict};
use runtree_repository::time::{ManualClock, SystemClock};
use runtree_repository::{
    Capabilities, Durability, DynRunRepository, MemoryRepository, Namespace, Sharing,
};

use crate::broken::{Broken, Notes};
use crate::sins::Sin;

/// A backend with one sin, or with none.
pub(crate) struct Sinner(pub(crate) Option<Sin>);

pub(crate) struct Store {
    clock: ManualClock,
    inner: MemoryRepository,
    notes: Arc<Notes>,
}

#[async_trait]
impl Backend for Sinner {
    type Store = Store;

    fn declaration(&self) -> Declaration {
        let capabilities = Capabilities::new(Durability::Process, Sharing::Process);
        Declaration::new(capabilities, ClockSource::Passed)
    }

    async fn make(&self, clock: ManualClock) -> Result<Store, BackendError> {
        Ok(Store {
            inner: MemoryRepository::new(Arc::new(clock.clone())),
            clock,
            notes: Arc::default(),
        })
    }

    async fn open(
        &self,
        store: &Store,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        Ok(Arc::new(Broken {
            sin: self.0,
            clock: store.clock.clone(),
            inner: store.inner.with_namespace(namespace.clone()),
            home: store.inner.clone(),
            notes: Arc::clone(&store.notes),
        }))
    }
}

// On one thread, where a broken repository yields between its two steps: the race is lost every time, not now and then.
#[tokio::test(flavor = "current_thread")]
async fn every_sin_is_noticed_by_the_case_that_is_named_for_it() {
    for sin in Sin::ALL {
        let (case, says) = sin.noticed_by();
        let verdict = runtree_conformance::check_case(case, Sinner(Some(*sin))).await;
        match verdict {
            Some(Verdict::Failed(failure)) => {
                let failure = failure.to_string();
                assert!(
                    failure.contains(says),
                    "{sin:?} is rejected for another reason: {failure}"
                );
            }
            other => panic!("{sin:?} gets past {case}: {other:?}"),
        }
    }
}

// The wrapper itself must be innocent, or the test above would prove nothing.
#[tokio::test(flavor = "current_thread")]
async fn the_same_repository_without_a_sin_conforms() {
    runtree_conformance::check(Sinner(None))
        .await
        .assert_conforms();
}

#[tokio::test(flavor = "current_thread")]
async fn a_report_of_a_broken_repository_names_every_case_and_fails() {
    let report = runtree_conformance::check(Sinner(Some(Sin::AcceptsStaleEndings))).await;
    let named: BTreeSet<&str> = report.verdicts().map(|(name, _)| name).collect();
    let table: BTreeSet<&str> = runtree_conformance::cases()
        .iter()
        .map(Case::name)
        .collect();
    assert_eq!(named, table);
    assert_eq!(
        named.len(),
        runtree_conformance::cases().len(),
        "no two cases have one name"
    );
    assert!(
        report
            .failed()
            .contains(&Sin::AcceptsStaleEndings.noticed_by().0)
    );
    let text = report.to_string();
    assert!(
        text.contains("FAILED end::an_old_owner_cannot_end_the_run_of_the_new_one"),
        "{text}"
    );
    assert!(
        text.contains(
            "skipped store::what_was_acknowledged_outlives_the_handles: what is acknowledged"
        ),
        "{text}"
    );
    let refused = std::panic::catch_unwind(|| report.assert_conforms());
    assert!(
        refused.is_err(),
        "a report with a failed case must not pass"
    );
}

/// The memory backend under the machine's clock, as if it were a server's.
struct OnItsOwnClock;

#[async_trait]
impl Backend for OnItsOwnClock {
    type Store = MemoryRepository;

    fn declaration(&self) -> Declaration {
        let capabilities = Capabilities::new(Durability::Process, Sharing::Process);
        Declaration::new(capabilities, ClockSource::Server)
    }

    async fn make(&self, _: ManualClock) -> Result<MemoryRepository, BackendError> {
        Ok(MemoryRepository::new(Arc::new(SystemClock)))
    }

    async fn open(
        &self,
        store: &MemoryRepository,
        namespace: &Namespace,
    ) -> Result<DynRunRepository, BackendError> {
        Ok(Arc::new(store.with_namespace(namespace.clone())))
    }
}

#[tokio::test]
async fn a_clock_that_cannot_be_moved_is_waited_for() {
    let report = runtree_conformance::check(OnItsOwnClock).await;
    report.assert_conforms();
    let needs_clock = |case: &&Case| case.need() == Need::MovableClock;
    let needed = runtree_conformance::cases().iter().filter(needs_clock);
    for case in needed {
        assert!(
            report.skipped().contains(&case.name()),
            "{} must be skipped",
            case.name()
        );
    }
}

#[tokio::test]
async fn a_case_that_is_not_in_the_table_is_not_passed() {
    let verdict = runtree_conformance::check_case("end::no_such_case", Sinner(None)).await;
    assert!(verdict.is_none());
}
