//! The one entry point: runs the table of cases against a backend and reports on every one of them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use runtree_repository::Durability;

use crate::backend::{Backend, ClockSource, Declaration, ForeignWords};
use crate::context::Cx;
use crate::failure::{Checked, Failure};
use crate::table::CASES;

/// How long a case may take; a store that hangs must not hang the suite.
const TIME_LIMIT: Duration = Duration::from_secs(120);

pub(crate) type CaseFuture = Pin<Box<dyn Future<Output = Checked> + Send>>;

/// One promise, and how it is put to the test.
#[derive(Clone, Copy)]
pub struct Case {
    pub(crate) name: &'static str,
    pub(crate) need: Need,
    pub(crate) run: fn(Cx) -> CaseFuture,
}

/// What a case needs beyond what every backend must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Need {
    /// Nothing: every backend runs it.
    Nothing,
    /// A clock that the suite can move: to make instants equal, or to step it back.
    MovableClock,
    /// A store that outlives the handles on it.
    Outliving,
    /// A way to write words of newer versions.
    ForeignWords,
}

impl Case {
    /// Returns the name: the group, two colons, and the property that must hold.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns what the case needs.
    pub const fn need(&self) -> Need {
        self.need
    }

    /// Returns why the case cannot be put to a backend that declares this; none when it can.
    pub fn skip_reason(&self, declared: &Declaration) -> Option<&'static str> {
        match self.need {
            Need::Nothing => None,
            Need::MovableClock => match declared.clock {
                ClockSource::Passed => None,
                ClockSource::Server => Some("the clock is the server's and cannot be moved"),
            },
            Need::Outliving => (declared.capabilities.durability == Durability::Process)
                .then_some("what is acknowledged lasts only as long as the process"),
            Need::ForeignWords => match declared.foreign_words {
                ForeignWords::Written => None,
                ForeignWords::NotWritten => Some("no words of newer versions can be written"),
            },
        }
    }

    async fn verdict<B: Backend>(self, backend: &Arc<B>) -> Verdict {
        if let Some(reason) = self.skip_reason(&backend.declaration()) {
            return Verdict::Skipped { reason };
        }
        let backend = Arc::clone(backend);
        // A task of its own, so that a backend that panics fails this case and not the suite.
        let task = tokio::spawn(async move {
            let case = async {
                let cx = Cx::new(&backend).await?;
                (self.run)(cx).await
            };
            match tokio::time::timeout(TIME_LIMIT, case).await {
                Ok(checked) => checked,
                Err(_) => Err(Failure::new(format!(
                    "the case took longer than {TIME_LIMIT:?}"
                ))),
            }
        });
        match task.await {
            Ok(Ok(())) => Verdict::Passed,
            Ok(Err(failure)) => Verdict::Failed(failure),
            Err(panic) => Verdict::Failed(Failure::new(format!("the case did not end: {panic}"))),
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("need", &self.need)
            .finish_non_exhaustive()
    }
}

/// How a case went.
#[derive(Clone, Debug)]
#[must_use = "a case may have failed"]
#[expect(clippy::exhaustive_enums, reason = "a caller must treat each verdict")]
pub enum Verdict {
    /// The promise held.
    Passed,
    /// The case needs what the backend does not declare.
    Skipped {
        /// What that is.
        reason: &'static str,
    },
    /// The promise was broken.
    Failed(Failure),
}

/// What the suite found out, case by case.
#[derive(Clone, Debug)]
#[must_use = "cases may have failed"]
pub struct Report {
    verdicts: Vec<(Case, Verdict)>,
}

impl Report {
    /// Returns every case of the table with its verdict, in the order of the table.
    pub fn verdicts(&self) -> impl Iterator<Item = (&'static str, &Verdict)> {
        self.verdicts
            .iter()
            .map(|(case, verdict)| (case.name, verdict))
    }

    /// Returns the cases whose promise held.
    pub fn passed(&self) -> Vec<&'static str> {
        self.names(|verdict| matches!(verdict, Verdict::Passed))
    }

    /// Returns the cases that were not put to this backend.
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|verdict| matches!(verdict, Verdict::Skipped { .. }))
    }

    /// Returns the cases whose promise was broken.
    pub fn failed(&self) -> Vec<&'static str> {
        self.names(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// Prints every skipped case with the reason, and makes sure that no case failed and that none of the table is missing.
    ///
    /// # Panics
    /// When a case failed, or when the cases that ran and those that were skipped are not the whole table.
    #[expect(
        clippy::print_stdout,
        reason = "a skipped case must be seen by whoever runs the test, not only by who asks"
    )]
    pub fn assert_conforms(&self) {
        println!("{self}");
        let (passed, skipped, failed) = (self.passed(), self.skipped(), self.failed());
        assert!(
            passed.len() + skipped.len() + failed.len() == CASES.len() && !passed.is_empty(),
            "the report must cover the table of {} cases:\n{self}",
            CASES.len()
        );
        assert!(failed.is_empty(), "the backend breaks promises:\n{self}");
    }

    fn names(&self, of: impl Fn(&Verdict) -> bool) -> Vec<&'static str> {
        self.verdicts()
            .filter(|(_, verdict)| of(verdict))
            .map(|(name, _)| name)
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in self.verdicts() {
            match verdict {
                Verdict::Passed => {}
                Verdict::Skipped { reason } => writeln!(f, "skipped {name}: {reason}")?,
                Verdict::Failed(failure) => writeln!(f, "FAILED {name}: {failure}")?,
            }
        }
        let (passed, skipped, failed) = (self.passed(), self.skipped(), self.failed());
        write!(
            f,
            "{} passed, {} skipped, {} failed of {} cases",
            passed.len(),
            skipped.len(),
            failed.len(),
            CASES.len()
        )
    }
}

/// Returns the table: every promise that the suite puts to the test.
pub const fn cases() -> &'static [Case] {
    CASES
}

/// Puts the whole table to a backend.
///
/// Runs on either of tokio's runtimes, with time enabled. One case runs at a time, each on a store of its own.
pub async fn check(backend: impl Backend) -> Report {
    let backend = Arc::new(backend);
    let mut verdicts = Vec::new();
    for case in CASES {
        verdicts.push((*case, case.verdict(&backend).await));
    }
    Report { verdicts }
}

/// Puts the one case of this name to a backend; none when the table has no such case.
pub async fn check_case(name: &str, backend: impl Backend) -> Option<Verdict> {
    let case = CASES.iter().find(|case| case.name == name)?;
    Some(case.verdict(&Arc::new(backend)).await)
}

/// The body of a test that [`tests!`](crate::tests) makes: one case, on a runtime of its own.
///
/// # Panics
/// When the case failed.
#[doc(hidden)]
#[expect(
    clippy::print_stdout,
    reason = "a skipped case must be seen by whoever runs the test"
)]
pub fn __assert_case(name: &str, backend: impl Backend) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("because a test may start two threads");
    let verdict = runtime.block_on(check_case(name, backend));
    match verdict.expect("because the names come from the table") {
        Verdict::Passed => {}
        Verdict::Skipped { reason } => println!("skipped {name}: {reason}"),
        Verdict::Failed(failure) => panic!("{name}: {failure}"),
    }
}
