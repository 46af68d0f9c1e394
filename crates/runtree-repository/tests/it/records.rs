//! Records as JSON: what is written is read back as it was, and what no record may hold is refused.

use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::prelude::*;
use runtree_repository::id::{
    BranchName, DirectoryName, IdGenerator, PredictableEntropy, RunId, SessionId, Slug,
};
use runtree_repository::status::{EndReason, RunStatus};
use runtree_repository::time::{ManualClock, Timestamp};
use runtree_repository::{
    Actor, CancelCause, CancelIntent, CancelMode, CleanupLease, CleanupRef, Concurrency, Cost,
    DiffStatistics, ErrorText, EventKind, EventNumber, FileChange, HostPath, Lease, LeaseRef,
    Owner, Persistence, Priority, Reason, Run, RunEvent, RunFacts, RunInput, RunSummary,
    SalvageRef, Tag, Token, Usage, WantedWorktree, WorktreeKey, WorktreeRecord, WorktreeSite,
    WorktreeState,
};
use runtree_testkit::dice::Dice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Makes records of whatever the dice say.
struct Maker {
    dice: Dice,
    ids: IdGenerator,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::new("2026-05-04T03:02:01Z".parse().expect("it is an instant"));
        Self {
            dice: Dice::new(seed),
            ids: IdGenerator::new(Arc::new(clock), Arc::new(PredictableEntropy::new(seed))),
        }
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.dice.once_in(2).then(|| make(self))
    }

    fn id(&mut self) -> RunId {
        self.ids.run_id().expect("the entropy is seeded")
    }

    fn at(&mut self) -> Timestamp {
        let span = Timestamp::MAX
            .as_unix_micros()
            .abs_diff(Timestamp::MIN.as_unix_micros());
        let micros = Timestamp::MIN
            .as_unix_micros()
            .saturating_add_unsigned(self.dice.below(span));
        Timestamp::from_unix_micros(micros).expect("it is between the first and the last")
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.dice.below(u64::from(u32::MAX) + 1)).expect("it is below")
    }

    fn positive(&mut self) -> NonZeroU32 {
        NonZeroU32::new(self.number()).unwrap_or(NonZeroU32::MIN)
    }

    /// A line of text with what JSON must escape, or a plain one.
    fn text<T: TryFrom<String>>(&mut self) -> T {
        const LINES: &[&str] = &[
            "plain",
            "Zoë's \"quoted\" \\ line",
            "雪 \u{2028} 🦀",
            "null",
            "0",
            " ",
        ];
        let line = self.dice.one_of(LINES).copied().unwrap_or("plain");
        let text = T::try_from(format!("{line}{}", self.dice.below(1_000)));
        text.unwrap_or_else(|_| panic!("{line} is a text of every type"))
    }

    fn block(&mut self) -> String {
        format!("{}\n\t{}", self.text::<String>(), self.text::<String>())
    }

    fn json(&mut self) -> Value {
        match self.dice.below(6) {
            0 => Value::Null,
            1 => json!(self.number()),
            2 => json!({ "a": [null, true, { "b": -1.5 }], self.text::<String>(): {} }),
            3 => json!(self.block()),
            4 => json!([]),
            _ => json!(false),
        }
    }

    /// A word that this version knows, or one that it does not.
    fn word<T: Copy>(&mut self, known: &[T], stored: impl FnOnce(&str) -> T) -> T {
        let word = format!("newer_word_{}", self.dice.below(100));
        let known = self.dice.one_of(known).copied();
        known
            .filter(|_| self.dice.once_in(2))
            .unwrap_or_else(|| stored(&word))
    }

    fn owner(&mut self) -> Owner {
        Owner {
            id: self.ids.owner_id().expect("the entropy is seeded"),
            host: self.text(),
            process: self.text(),
        }
    }

    fn wanted(&mut self) -> WantedWorktree {
        let (slug, id) = (Slug::from_text("a task"), self.id());
        WantedWorktree {
            name: DirectoryName::for_run(&slug, id),
            branch: BranchName::for_run(&slug, id),
            base: "0123456789abcdef0123456789abcdef01234567"
                .parse()
                .expect("it is a commit"),
            persistence: if self.dice.once_in(2) {
                Persistence::Persistent
            } else {
                Persistence::Temporary
            },
        }
    }

    fn cancel(&mut self) -> CancelIntent {
        let mode = if self.dice.once_in(2) {
            CancelMode::Forced
        } else {
            CancelMode::Graceful
        };
        let cause = if self.dice.once_in(2) {
            CancelCause::Deadline
        } else {
            CancelCause::Request
        };
        let mut cancel = CancelIntent::new(mode, cause, self.at());
        cancel.deadline = self.maybe(Self::at);
        cancel.reason = self.maybe(|make| Reason::lossy(&make.block()));
        cancel.by = self.maybe(Self::text::<Actor>);
        cancel
    }

    fn facts(&mut self) -> RunFacts {
        let mut facts = RunFacts::default();
        facts.agent = self.maybe(Self::text);
        facts.model = self.maybe(Self::text);
        facts.session_name = self.maybe(Self::text);
        facts.git_repository = self.maybe(Self::text);
        facts.first_commit = self.maybe(|make| make.wanted().base);
        facts.last_commit = self.maybe(|make| make.wanted().base);
        facts.diff = self.maybe(|make| DiffStatistics {
            files: make.number(),
            added: make.number(),
            removed: make.number(),
        });
        facts
    }

    fn summary(&mut self) -> RunSummary {
        let stored = |word: &str| RunStatus::from_stored(word).expect("it is a word");
        let status = self.word(RunStatus::KNOWN, stored);
        let reason = |word: &str| EndReason::from_stored(word).expect("it is a word");
        RunSummary {
            id: self.id(),
            workflow: self.text(),
            status,
            end_reason: self.maybe(|make| make.word(EndReason::KNOWN, reason)),
            queue: self.text(),
            priority: Priority::new(if self.dice.once_in(2) { i16::MIN } else { 200 }),
            idempotency_key: self.maybe(Self::text),
            unique_key: self.maybe(Self::text),
            concurrency: self.maybe(|make| Concurrency {
                key: make.text(),
                limit: make.positive(),
            }),
            session_id: self.maybe(|_| session()),
            user: self.maybe(Self::text),
            attempts: self.number(),
            max_attempts: self.positive(),
            token: Token::new(self.number()),
            owner: self.maybe(Self::owner),
            lease_expires_at: self.maybe(Self::at),
            cancel: self.maybe(Self::cancel),
            worktree: self.maybe(Self::wanted),
            retry_of: self.maybe(Self::id),
            tags: (0..self.dice.below(4))
                .map(|_| self.text::<Tag>())
                .collect(),
            facts: self.facts(),
            usage: Usage {
                input_tokens: self.dice.below(Usage::MAX),
                output_tokens: Usage::MAX,
                cost: Cost::from_micros(self.dice.below(Usage::MAX)),
            },
            available_at: self.at(),
            deadline: self.maybe(Self::at),
            created_at: self.at(),
            updated_at: self.at(),
            started_at: self.maybe(Self::at),
            ended_at: self.maybe(Self::at),
        }
    }

    fn run(&mut self) -> Run {
        let metadata = json!({ "key": self.json(), "another": self.json() });
        let Value::Object(metadata) = metadata else {
            unreachable!("because it was made as one")
        };
        Run {
            summary: self.summary(),
            input: self
                .maybe(|make| RunInput::new(make.block()).expect("it is one of several lines")),
            result: self.maybe(Self::json),
            error: self.maybe(|make| ErrorText::lossy(&make.block())),
            metadata,
            file_changes: (0..self.dice.below(3))
                .map(|_| FileChange {
                    path: self.text(),
                    added: self.maybe(Self::number),
                    removed: self.maybe(Self::number),
                })
                .collect(),
        }
    }

    fn worktree(&mut self) -> WorktreeRecord {
        let stored = |word: &str| WorktreeState::from_stored(word).expect("it is a word");
        let path = |make: &mut Self| HostPath::new(format!("/srv/{}", make.text::<String>()));
        WorktreeRecord {
            key: WorktreeKey {
                run: self.id(),
                planned_by: Token::new(self.number()),
            },
            site: WorktreeSite {
                host: self.text(),
                git_repository: path(self).expect("it is one line"),
                root: path(self).expect("it is one line"),
            },
            path: path(self).expect("it is one line"),
            wanted: self.wanted(),
            state: self.word(WorktreeState::KNOWN, stored),
            held_by: Token::new(self.number()),
            salvage: self.maybe(Self::text::<SalvageRef>),
            reason: self.maybe(Self::text),
            created_at: self.at(),
            updated_at: self.at(),
        }
    }

    fn event(&mut self) -> RunEvent {
        let stored = |word: &str| EventKind::from_stored(word).expect("it is a word");
        RunEvent {
            number: EventNumber::new(self.number()),
            at: self.at(),
            kind: self.word(EventKind::KNOWN, stored),
            token: Token::new(self.number()),
            // A detail of null says no more than none.
            detail: self.maybe(Self::json).filter(|detail| !detail.is_null()),
        }
    }

    fn leases(&mut self) -> (Lease, CleanupLease) {
        let lease = LeaseRef {
            run: self.id(),
            token: Token::new(self.number()),
        };
        let child = self.maybe(Self::text);
        let cleanup = CleanupRef {
            worktree: self.worktree().key,
            token: Token::new(self.number()),
        };
        (
            Lease::new(lease, self.owner(), child, self.at(), self.at()),
            CleanupLease::new(cleanup, self.owner(), self.at()),
        )
    }
}

fn session() -> SessionId {
    "0197a8f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
        .parse()
        .expect("it is a session id")
}

/// Through bytes, as a store would, and through a value, as a program that looks into it would.
fn there_and_back<T: Serialize + DeserializeOwned>(record: &T) -> [T; 2] {
    let bytes = serde_json::to_vec(record).expect("a record can be written");
    let value = serde_json::to_value(record).expect("a record can be written");
    [
        serde_json::from_slice(&bytes).expect("what was written can be read"),
        serde_json::from_value(value).expect("what was written can be read"),
    ]
}

proptest! {
    #[test]
    fn a_record_is_read_back_as_it_was_written(seed: u64) {
        let mut make = Maker::new(seed);
        let run = make.run();
        for read in there_and_back(&run) {
            prop_assert_eq!(&read, &run);
        }
        for read in there_and_back(&run.summary) {
            prop_assert_eq!(&read, &run.summary);
        }
        let worktree = make.worktree();
        for read in there_and_back(&worktree) {
            prop_assert_eq!(&read, &worktree);
        }
        let event = make.event();
        for read in there_and_back(&event) {
            prop_assert_eq!(&read, &event);
        }
        let leases = make.leases();
        for read in there_and_back(&leases) {
            prop_assert_eq!(&read, &leases);
        }
    }
}

/// A run as JSON, changed at one place.
fn changed(place: &str, to: Value) -> Result<Run, serde_json::Error> {
    let mut value = serde_json::to_value(Maker::new(7).run()).expect("a record can be written");
    value[place] = to;
    serde_json::from_value(value)
}

#[test]
fn what_no_record_may_hold_is_refused_when_it_is_read() {
    for (place, wrong) in [
        ("workflow", json!("two\nlines")),
        ("workflow", json!("")),
        ("queue", json!("q".repeat(65))),
        ("status", json!("Not A Word")),
        ("id", json!("nobody")),
        ("max_attempts", json!(0)),
        ("token", json!(-1)),
        ("created_at", json!("yesterday")),
        ("tags", json!(["fine", "two\nlines"])),
        ("input", json!("a\0b")),
    ] {
        let refused = changed(place, wrong.clone());
        assert!(refused.is_err(), "{place} of {wrong}: {refused:?}");
    }
    let event = json!({ "number": 1, "at": "2026-05-04T03:02:01Z", "kind": "No Word", "token": 1, "detail": null });
    assert!(serde_json::from_value::<RunEvent>(event).is_err());
}

#[test]
fn words_and_fields_of_a_newer_version_do_not_stand_in_the_way() {
    let newer = changed("status", json!("paused_by_2_0")).expect("it is a word");
    assert_eq!(newer.status.as_str(), "paused_by_2_0");
    let value = serde_json::to_value(&newer).expect("a record can be written");
    assert_eq!(value["status"], "paused_by_2_0");
    assert!(changed("added_in_2_0", json!({ "a": 1 })).is_ok());
}

#[test]
fn a_result_of_null_is_told_from_none() {
    let mut run = Maker::new(7).run();
    for result in [None, Some(Value::Null)] {
        run.result = result;
        for read in there_and_back(&run) {
            assert_eq!(read.result, run.result);
        }
    }
}
