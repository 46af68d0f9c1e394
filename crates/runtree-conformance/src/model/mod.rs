//! A naive model of a store of runs, and random sequences of calls on which a backend must answer as the model does.
//!
//! [`check`] draws sequences of calls and of moves of the clock, makes each on the backend and on the model, and compares every
//! answer, and now and then everything that can be seen. When they differ it looks for a shorter sequence on which they still do.
//!
//! ```
//! # use std::sync::Arc;
//! # use async_trait::async_trait;
//! # use runtree_conformance::{Backend, BackendError, ClockSource, Declaration};
//! # use runtree_repository::time::ManualClock;
//! # use runtree_repository::{
//! #     Capabilities, Durability, DynRunRepository, MemoryRepository, Namespace, Sharing,
//! # };
//! # struct Memory;
//! # #[async_trait]
//! # impl Backend for Memory {
//! #     type Store = MemoryRepository;
//! #     fn declaration(&self) -> Declaration {
//! #         let capabilities = Capabilities::new(Durability::Process, Sharing::Process);
//! #         Declaration::new(capabilities, ClockSource::Passed)
//! #     }
//! #     async fn make(&self, clock: ManualClock) -> Result<MemoryRepository, BackendError> {
//! #         Ok(MemoryRepository::new(Arc::new(clock)))
//! #     }
//! #     async fn open(
//! #         &self,
//! #         store: &MemoryRepository,
//! #         namespace: &Namespace,
//! #     ) -> Result<DynRunRepository, BackendError> {
//! #         Ok(Arc::new(store.with_namespace(namespace.clone())))
//! #     }
//! # }
//! use runtree_conformance::model::{Plan, check};
//!
//! let plan = Plan::new().cases(8);
//! let agreement = check(Memory, &plan)?;
//! assert_eq!(agreement.sequences(), 8);
//! # Ok::<_, runtree_conformance::model::Disagreement>(())
//! ```
//!
//! The model is written from the documentation of the traits and from the transition table, as plainly as can be: a list of runs
//! that every call walks through. Names, keys and limits come from small sets, so that requests collide, and steps name runs and
//! leases by their number among those that there are, so that any part of a sequence is a sequence.
//!
//! Where the clock is [the server's](crate::ClockSource::Server) instants are not compared, and nothing is drawn that depends on how
//! much time passes: leases do not expire, and what is not due at once is not due. Those are left to the cases of the suite.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the model knows what its sequences draw; other crates' enums are open besides"
)]

mod look;
mod names;
mod pair;
mod step;
mod timeless;
mod wish;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use runtree_repository::Namespace;
use runtree_repository::time::ManualClock;
use tokio::runtime::Runtime;

use self::pair::{Pair, Tally};
use self::step::Step;
use crate::backend::{Backend, ClockSource};
use crate::context;
use crate::failure::{Checked, Failure};

/// How many sequences are drawn, and how long they are.
#[derive(Clone, Debug)]
pub struct Plan {
    config: Config,
    steps: usize,
    is_repeatable: bool,
}

impl Plan {
    /// Draws as many sequences as the variable `PROPTEST_CASES` says, or 256, of at most sixty steps.
    pub fn new() -> Self {
        Self {
            config: Config::default(),
            steps: 60,
            is_repeatable: false,
        }
    }

    /// Draws so many sequences, whatever the variable says.
    #[must_use]
    pub fn cases(mut self, cases: u32) -> Self {
        self.config.cases = cases.max(1);
        self
    }

    /// Draws one sequence where it would have drawn so many, and at least one: for backends that are slow.
    #[must_use]
    pub fn one_in(mut self, many: NonZeroU32) -> Self {
        self.config.cases = (self.config.cases / many).max(1);
        self
    }

    /// Draws sequences of at most so many steps, and at most a thousand.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps.clamp(1, 1_000);
        self
    }

    /// Draws the same sequences every time, and writes down none that failed.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// Leaves a sequence that failed as it was drawn.
    #[must_use]
    pub fn without_shrinking(mut self) -> Self {
        self.config.max_shrink_iters = 0;
        self
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

/// The backend answered as the model did.
#[derive(Clone, Debug)]
pub struct Agreement {
    sequences: u64,
    answers: Tally,
}

impl Agreement {
    /// Returns how many sequences there were.
    pub fn sequences(&self) -> u64 {
        self.sequences
    }

    /// Returns how often each kind of answer was given, as `end: stale`; one that is missing was not put to the test.
    pub fn answers(&self) -> &BTreeMap<String, u64> {
        &self.answers
    }
}

/// The backend answered otherwise than the model, and on what.
#[derive(Debug)]
pub struct Disagreement {
    why: String,
    steps: Vec<Step>,
}

impl Disagreement {
    /// Returns how many steps it takes.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number}. {step:?}")?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for Disagreement {}

/// Makes random sequences of calls on a backend and on the model, and compares what they answer.
///
/// All sequences work on one store, each in a namespace of its own. Blocks, on a runtime of its own: call it from a test without one.
/// A sequence that failed is written, as the seed that draws it, to a file beside the source that calls this; it is tried first from
/// then on. Commit it.
///
/// # Errors
/// [`Disagreement`] with the shortest sequence that was found.
///
/// # Panics
/// When no runtime or no store can be made.
#[track_caller]
pub fn check<B: Backend>(backend: B, plan: &Plan) -> Result<Agreement, Disagreement> {
    let source = backend.declaration().clock;
    let mut config = plan.config.clone();
    config.source_file = Some(Location::caller().file());
    let mut runner = if plan.is_repeatable {
        config.failure_persistence = None;
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    } else {
        TestRunner::new(config)
    };
    let stage = RefCell::new(Stage::new(backend));
    let tried = runner.run(&step::sequences(source, plan.steps), |steps| {
        let compared = stage.borrow_mut().compare(source, &steps);
        compared.map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    let mut stage = stage.into_inner();
    match tried {
        Ok(()) => Ok(Agreement {
            sequences: stage.sequences,
            answers: stage.answers,
        }),
        Err(TestError::Fail(why, steps)) => {
            let found = Disagreement {
                why: why.message().to_owned(),
                steps,
            };
            Err(if plan.config.max_shrink_iters == 0 {
                found
            } else {
                stage.shortened(source, found)
            })
        }
        Err(TestError::Abort(why)) => Err(Disagreement {
            why: why.message().to_owned(),
            steps: Vec::new(),
        }),
    }
}

/// What lasts from one sequence to the next.
struct Stage<B: Backend> {
    // In this order they are dropped: a store may need the runtime that it was made on.
    store: B::Store,
    backend: B,
    runtime: Runtime,
    clock: ManualClock,
    sequences: u64,
    answers: Tally,
}

impl<B: Backend> Stage<B> {
    fn new(backend: B) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("because a test may start a thread");
        let clock = ManualClock::new(context::start().expect("because the instant is in range"));
        let store = runtime.block_on(backend.make(clock.clone()));
        let store = store.unwrap_or_else(|e| panic!("the backend made no store: {e}"));
        Self {
            store,
            backend,
            runtime,
            clock,
            sequences: 0,
            answers: Tally::new(),
        }
    }

    fn compare(&mut self, source: ClockSource, steps: &[Step]) -> Checked {
        self.sequences += 1;
        // No instant of one sequence is one of another's.
        self.clock.advance(Duration::from_secs(1));
        let namespace = Namespace::new(format!("model-{}", self.sequences))?;
        let compared = async {
            let mut handles = Vec::new();
            for _ in 0..2 {
                let opened = self.backend.open(&self.store, &namespace).await;
                let opened = opened
                    .map_err(|e| Failure::new(format!("the backend opened no handle: {e}")))?;
                handles.push(opened);
            }
            let handles = <[_; 2]>::try_from(handles);
            let handles = handles.map_err(|_| Failure::new("two handles were opened"))?;
            let mut pair = Pair::new(source, self.clock.clone(), handles)?;
            pair.run(steps).await?;
            Ok::<_, Failure>(pair.tally)
        };
        for (answer, times) in self.runtime.block_on(compared)? {
            *self.answers.entry(answer).or_default() += times;
        }
        Ok(())
    }

    /// Leaves out every step that it goes without. What was drawn is tried from its end only once, and a step that was made
    /// simpler since may have made others needless.
    fn shortened(&mut self, source: ClockSource, mut found: Disagreement) -> Disagreement {
        let mut at = found.steps.len();
        while at > 0 {
            at = at.min(found.steps.len()) - 1;
            let mut steps = found.steps.clone();
            steps.remove(at);
            let compared = catch_unwind(AssertUnwindSafe(|| self.compare(source, &steps)));
            let why = match compared {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => "the backend panicked".to_owned(),
            };
            at = steps.len();
            found = Disagreement { why, steps };
        }
        found
    }
}
