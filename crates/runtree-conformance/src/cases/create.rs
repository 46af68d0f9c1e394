//! One run for a request: what is stored, what the same request finds, and what another one may not have.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{
    Annotation, ConflictOver, CreateRun, Created, ErrorKind, ErrorText, EventKind, IdempotencyKey,
    MAX_JSON_BYTES, MAX_JSON_DEPTH, NewRun, Outcome, Persistence, Priority, Run, RunFilter,
    RunInput, Token, UniqueKey, UserId, WorkflowName,
};
use serde_json::{Value, json};

use crate::context::{Cx, completed, distinct, session, together};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, take};

/// Everything that PostgreSQL, SQLite and JSON could treat differently: several scripts, a combining mark, a right-to-left mark,
/// quotes of every kind, wildcards of `LIKE`, and a character beyond the basic plane.
pub(crate) const TEXT: &str = "Grüße \u{0301}e 日本語 \u{202e}עברית '\"`\\ %_ {}$1 ?1 🦀";

pub(crate) async fn a_new_run_is_pending_and_whole(cx: Cx) -> Checked {
    let due = cx
        .runs
        .now()
        .await?
        .saturating_add(Duration::from_micros(1_234_567));
    let session = session("0190b5c4-7e1a-7b3c-8d4e-5f60718293a4")?;
    let run = NewRun::new("builder")
        .input("fix the flaky test")
        .idempotency_key("order-17")
        .unique_key("branch main")
        .session(session)
        .user("user-1")
        .priority(Priority::new(-7))
        .max_attempts(NonZeroU32::MIN.saturating_add(2))
        .available_at(due)
        .metadata("ticket", json!({"number": 17}));
    let request = cx.worktree_request(run, Persistence::Persistent)?;
    let before = cx.runs.now().await?;
    let new = cx.create_new(&request).await?;
    let after = cx.runs.now().await?;

    ensure_eq!(new.id, request.id, "the id is the one that the caller drew");
    ensure_eq!(new.status, RunStatus::Pending, "the status of a new run");
    ensure_eq!(new.workflow, WorkflowName::new("builder")?, "the workflow");
    ensure_eq!(
        new.input,
        Some(RunInput::new("fix the flaky test")?),
        "the input"
    );
    ensure_eq!(
        new.idempotency_key,
        Some(IdempotencyKey::new("order-17")?),
        "the idempotency key"
    );
    ensure_eq!(
        new.unique_key,
        Some(UniqueKey::new("branch main")?),
        "the unique key"
    );
    ensure_eq!(new.session_id, Some(session), "the session");
    ensure_eq!(new.user, Some(UserId::new("user-1")?), "the user");
    ensure_eq!(new.priority, Priority::new(-7), "the priority");
    ensure_eq!(new.max_attempts.get(), 3, "the number of attempts allowed");
    ensure_eq!(new.available_at, due, "when the run may start");
    ensure_eq!(
        new.worktree,
        request.worktree,
        "the worktree that the run needs"
    );
    ensure_eq!(
        new.metadata.get("ticket"),
        Some(&json!({"number": 17})),
        "the metadata"
    );
    ensure_eq!(
        (new.attempts, new.token),
        (0, Token::NONE),
        "attempts and token of a new run"
    );
    ensure!(
        before <= new.created_at && new.created_at <= after,
        "a run created between {before} and {after} says {}",
        new.created_at
    );
    ensure_eq!(
        new.updated_at,
        new.created_at,
        "a new run was last changed when it was created"
    );
    ensure_eq!(
        (new.started_at, new.ended_at),
        (None, None),
        "start and end of a new run"
    );
    ensure_eq!(
        cx.get(new.id).await?,
        new,
        "what is read is what the create answered"
    );
    ensure_eq!(
        cx.kinds(new.id).await?,
        [EventKind::Created],
        "the history of a new run"
    );
    Ok(())
}

pub(crate) async fn what_was_not_given_is_absent(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let stored = cx.get(run.id).await?;
    ensure_eq!(stored, run, "what is read is what the create answered");
    ensure_eq!(
        run.available_at,
        run.created_at,
        "a run without a start time may start at once"
    );
    ensure_eq!(run.max_attempts.get(), 1, "attempts when none were given");
    ensure!(
        run.input.is_none()
            && run.idempotency_key.is_none()
            && run.unique_key.is_none()
            && run.session_id.is_none()
            && run.user.is_none()
            && run.metadata.is_empty()
            && run.worktree.is_none()
            && run.result.is_none()
            && run.error.is_none()
            && run.cancel.is_none()
            && run.owner.is_none()
            && run.end_reason.is_none(),
        "what was not given must be absent: saw {run:?}"
    );
    Ok(())
}

pub(crate) async fn a_number_of_metadata_comes_back_as_it_was(cx: Cx) -> Checked {
    // Read with less care than it takes, each comes back as the next number.
    for number in [
        907.303_832_202_868_9,
        0.1 + 0.2,
        f64::MIN_POSITIVE,
        f64::MAX,
    ] {
        let created = cx
            .create(NewRun::new("builder").metadata("number", number))
            .await?;
        ensure_eq!(
            created.metadata.get("number").and_then(Value::as_f64),
            Some(number),
            "what a create answers"
        );
        ensure_eq!(
            cx.get(created.id).await?.metadata,
            created.metadata,
            "what is read"
        );
        let same = Annotation::new().metadata("number", number);
        cx.runs
            .annotate(created.id, &same)
            .await?
            .already("the same number again")?;
    }
    Ok(())
}

pub(crate) async fn repeating_a_create_finds_its_run(cx: Cx) -> Checked {
    let request = cx.request(NewRun::new("builder").input("x"))?;
    let new = cx.create_new(&request).await?;
    let again = cx.runs.create(&request).await?;
    let found = take!(again, Created::Existing(run) => run, "the same create again");
    ensure_eq!(found, new, "the run of the same create");
    ensure_eq!(
        cx.kinds(new.id).await?,
        [EventKind::Created],
        "a repeated create writes nothing"
    );
    Ok(())
}

pub(crate) async fn an_idempotency_key_finds_the_run_of_the_same_request(cx: Cx) -> Checked {
    let run = || {
        NewRun::new("builder")
            .input("x")
            .idempotency_key("order-17")
    };
    let new = cx.create(run()).await?;
    let repeated = cx.request(run())?;
    let found = cx.runs.create(&repeated).await?;
    let found = take!(found, Created::Existing(run) => run, "the same request under another id");
    ensure_eq!(found.id, new.id, "the run that the idempotency key names");
    ensure_eq!(
        cx.runs.get(repeated.id).await?,
        None,
        "the run of the second id"
    );
    Ok(())
}

pub(crate) async fn an_idempotency_key_outlives_its_run(cx: Cx) -> Checked {
    let run = || NewRun::new("builder").idempotency_key("order-17");
    let claimed = cx.running(run()).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let found = cx.runs.create(&cx.request(run())?).await?;
    let found = take!(found, Created::Existing(run) => run, "the request of a run that has ended");
    ensure_eq!(
        found.status,
        RunStatus::Completed,
        "the status of the run that was found"
    );
    Ok(())
}

pub(crate) async fn an_idempotency_key_of_another_request_is_a_conflict(cx: Cx) -> Checked {
    let new = cx
        .create(
            NewRun::new("builder")
                .input("x")
                .idempotency_key("order-17"),
        )
        .await?;
    let other = cx.request(
        NewRun::new("builder")
            .input("y")
            .idempotency_key("order-17"),
    )?;
    let over = conflict(&cx, &other, new.id).await?;
    ensure_eq!(
        over,
        ConflictOver::IdempotencyKey,
        "what two requests with one key conflict over"
    );
    ensure_eq!(
        cx.runs.get(other.id).await?,
        None,
        "the run of a create that conflicts"
    );
    ensure_eq!(cx.get(new.id).await?, new, "the run that holds the key");
    Ok(())
}

pub(crate) async fn an_id_of_another_request_is_a_conflict(cx: Cx) -> Checked {
    let new = cx.create(NewRun::new("builder").input("x")).await?;
    let other = CreateRun {
        id: new.id,
        run: NewRun::new("builder").input("y"),
        worktree: None,
    };
    let over = conflict(&cx, &other, new.id).await?;
    ensure_eq!(
        over,
        ConflictOver::Id,
        "what two requests with one id conflict over"
    );
    ensure_eq!(cx.get(new.id).await?, new, "the run that has the id");
    Ok(())
}

pub(crate) async fn a_unique_key_is_held_until_its_run_ends(cx: Cx) -> Checked {
    let run = |input: &str| {
        NewRun::new("builder")
            .input(input)
            .unique_key("branch main")
    };
    let first = cx.create(run("1")).await?;
    let second = cx.request(run("2"))?;
    let over = conflict(&cx, &second, first.id).await?;
    ensure_eq!(
        over,
        ConflictOver::UniqueKey,
        "what a second run with a unique key conflicts over"
    );

    let claimed = cx.claim(first.id).await?;
    let over = conflict(&cx, &second, first.id).await?;
    ensure_eq!(
        over,
        ConflictOver::UniqueKey,
        "what it conflicts over while the first runs"
    );
    ensure_eq!(
        cx.runs.get(second.id).await?,
        None,
        "the run of a create that conflicts"
    );

    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let second = cx.create_new(&second).await?;
    let over = conflict(&cx, &cx.request(run("3"))?, second.id).await?;
    ensure_eq!(
        over,
        ConflictOver::UniqueKey,
        "what a third run conflicts over"
    );
    Ok(())
}

pub(crate) async fn the_same_request_under_a_unique_key_alone_is_still_a_conflict(
    cx: Cx,
) -> Checked {
    let run = || NewRun::new("builder").unique_key("branch main");
    let first = cx.create(run()).await?;
    let over = conflict(&cx, &cx.request(run())?, first.id).await?;
    ensure_eq!(
        over,
        ConflictOver::UniqueKey,
        "a unique key does not make requests the same"
    );
    Ok(())
}

pub(crate) async fn the_idempotency_key_decides_before_the_id(cx: Cx) -> Checked {
    let keyed = || NewRun::new("builder").idempotency_key("order-17");
    let by_key = cx.create(keyed()).await?;
    let by_id = cx.create(NewRun::new("review")).await?;
    let both = CreateRun {
        id: by_id.id,
        run: keyed(),
        worktree: None,
    };
    let found = cx.runs.create(&both).await?;
    let found =
        take!(found, Created::Existing(run) => run, "the key of one run with the id of another");
    ensure_eq!(found.id, by_key.id, "the run that is found");

    let other = CreateRun {
        run: keyed().input("other"),
        ..both
    };
    let over = conflict(&cx, &other, by_key.id).await?;
    ensure_eq!(
        over,
        ConflictOver::IdempotencyKey,
        "what decides when key and id are both taken"
    );
    Ok(())
}

pub(crate) async fn the_id_decides_before_the_unique_key(cx: Cx) -> Checked {
    let request = cx.request(NewRun::new("builder").unique_key("branch main"))?;
    let new = cx.create_new(&request).await?;
    let found = cx.runs.create(&request).await?;
    let found = take!(found, Created::Existing(run) => run, "a repeated create that holds its own unique key");
    ensure_eq!(found.id, new.id, "the run that is found");
    Ok(())
}

pub(crate) async fn an_invalid_request_writes_nothing(cx: Cx) -> Checked {
    let mut deep = json!(1);
    for _ in 0..=MAX_JSON_DEPTH {
        deep = json!([deep]);
    }
    let invalid = [
        NewRun::new(""),
        NewRun::new("two\nlines"),
        NewRun::new("builder").input("a\0b"),
        NewRun::new("builder").user("u".repeat(UserId::MAX_BYTES + 1)),
        NewRun::new("builder").idempotency_key(""),
        NewRun::new("builder").metadata("deep", deep),
        NewRun::new("builder").metadata("long", "x".repeat(MAX_JSON_BYTES)),
        NewRun::new("builder").metadata("a\0b", 1),
    ];
    for run in invalid {
        let request = cx.request(run)?;
        match cx.runs.create(&request).await {
            Err(error) => ensure_eq!(
                error.kind(),
                ErrorKind::InvalidInput,
                "the error of {request:?}"
            ),
            Ok(created) => {
                return Err(Failure::new(format!(
                    "an invalid request was answered by {created:?}"
                )));
            }
        }
        ensure_eq!(
            cx.runs.get(request.id).await?,
            None,
            "the run of an invalid request"
        );
    }
    ensure_eq!(
        cx.ids(&RunFilter::new()).await?,
        [],
        "the runs after invalid requests"
    );
    Ok(())
}

pub(crate) async fn every_script_survives_in_every_text(cx: Cx) -> Checked {
    let run = NewRun::new(TEXT)
        .input(format!("{TEXT}\r\n\t{TEXT}\u{7f}"))
        .idempotency_key(TEXT)
        .unique_key(TEXT)
        .user(TEXT)
        .metadata(TEXT, TEXT);
    let new = cx.create(run).await?;
    let stored = cx.get(new.id).await?;
    ensure_eq!(stored.workflow.as_str(), TEXT, "the workflow");
    ensure_eq!(
        stored.input.as_ref().map(RunInput::as_str),
        Some(format!("{TEXT}\r\n\t{TEXT}\u{7f}").as_str()),
        "the input"
    );
    ensure_eq!(
        stored.user.as_ref().map(UserId::as_str),
        Some(TEXT),
        "the user"
    );
    ensure_eq!(
        stored.metadata.get(TEXT),
        Some(&Value::from(TEXT)),
        "the metadata"
    );
    ensure_eq!(stored, new, "what is read is what the create answered");

    let filter = RunFilter::new()
        .workflows([WorkflowName::new(TEXT)?])
        .user(UserId::new(TEXT)?);
    ensure_eq!(
        cx.ids(&filter).await?,
        [new.id],
        "the runs of a filter with the same texts"
    );

    let claimed = cx.claim(new.id).await?;
    let error = Outcome::Failed {
        error: ErrorText::new(TEXT)?,
        retry_after: None,
    };
    let ended = cx
        .runs
        .end(claimed.lease, &error)
        .await?
        .applied("a failure")?;
    ensure_eq!(
        ended.error.as_ref().map(ErrorText::as_str),
        Some(TEXT),
        "the error text"
    );
    ensure_eq!(
        cx.get(new.id).await?,
        ended,
        "what is read is what the ending answered"
    );
    Ok(())
}

pub(crate) async fn texts_that_differ_only_by_case_or_composition_are_different(cx: Cx) -> Checked {
    // The same letter, composed and decomposed; a store that folds or normalizes would call them one.
    for key in ["key", "KEY", "ké", "ke\u{301}", "key ", " key"] {
        let run = NewRun::new("builder")
            .idempotency_key(key)
            .unique_key(key)
            .user(key);
        let new = cx.create(run).await?;
        ensure_eq!(
            cx.ids(&RunFilter::new().user(UserId::new(key)?)).await?,
            [new.id],
            "the runs of the user {key:?}"
        );
    }
    Ok(())
}

pub(crate) async fn values_at_their_limits_are_kept(cx: Cx) -> Checked {
    let long = |bytes: usize| "ä".repeat(bytes / 2) + if bytes % 2 == 1 { "x" } else { "" };
    let run = NewRun::new(long(WorkflowName::MAX_BYTES))
        .input(long(RunInput::MAX_BYTES))
        .idempotency_key(long(IdempotencyKey::MAX_BYTES))
        .unique_key(long(UniqueKey::MAX_BYTES))
        .user(long(UserId::MAX_BYTES))
        .priority(Priority::new(i16::MIN))
        .max_attempts(NonZeroU32::MAX);
    let new = cx.create(run).await?;
    ensure_eq!(
        new.max_attempts,
        NonZeroU32::MAX,
        "the largest number of attempts"
    );
    ensure!(
        cx.get(new.id).await? == new,
        "the run with the longest texts must be read as it was created"
    );

    let claimed = cx.claim(new.id).await?;
    let result = Value::from("x".repeat(MAX_JSON_BYTES - 2));
    let outcome = Outcome::Completed {
        result: Some(result.clone()),
    };
    let ended = cx.runs.end(claimed.lease, &outcome).await?;
    let ended = ended
        .accepted()
        .ok_or_else(|| Failure::new("the largest result must be accepted"))?;
    ensure!(
        ended.result == Some(result),
        "the largest result must be answered as it was given"
    );
    ensure!(
        cx.get(new.id).await? == ended,
        "the largest result must be read as it was given"
    );
    Ok(())
}

pub(crate) async fn json_survives_as_it_is(cx: Cx) -> Checked {
    let mut deep = json!("bottom");
    for _ in 0..MAX_JSON_DEPTH - 1 {
        deep = json!([deep]);
    }
    let value = json!({
        "null": null, "true": true, "empty": ["", [], {}], "least": i64::MIN, "most": u64::MAX,
        "fraction": -2.5e-3, "large": 1e300, "whole": 3.0, "control": "\u{1}\u{8}\u{1f}\u{7f}\u{2028}",
        "": "an empty key", "key.with'quotes\"": TEXT, "9": "a key that is a number",
    });
    let run = NewRun::new("builder")
        .metadata("value", value.clone())
        .metadata("deep", deep.clone());
    let new = cx.create(run).await?;
    let stored = cx.get(new.id).await?;
    ensure_eq!(stored.metadata.get("value"), Some(&value), "the metadata");
    ensure_eq!(
        stored.metadata.get("deep"),
        Some(&deep),
        "the deepest metadata"
    );

    let claimed = cx.claim(new.id).await?;
    let outcome = Outcome::Completed {
        result: Some(value.clone()),
    };
    cx.runs
        .end(claimed.lease, &outcome)
        .await?
        .applied("a completion")?;
    ensure_eq!(cx.get(new.id).await?.result, Some(value), "the result");
    Ok(())
}

pub(crate) async fn a_result_of_null_is_not_the_absence_of_a_result(cx: Cx) -> Checked {
    let claimed = cx
        .running(NewRun::new("builder").metadata("nothing", Value::Null))
        .await?;
    let outcome = Outcome::Completed {
        result: Some(Value::Null),
    };
    cx.runs
        .end(claimed.lease, &outcome)
        .await?
        .applied("a completion")?;
    let stored = cx.get(claimed.lease.run).await?;
    ensure_eq!(stored.result, Some(Value::Null), "the result");
    ensure_eq!(
        stored.metadata.get("nothing"),
        Some(&Value::Null),
        "the metadata"
    );
    Ok(())
}

pub(crate) async fn concurrent_creates_of_one_idempotency_key_make_one_run(cx: Cx) -> Checked {
    let requests = (0..16).map(|_| cx.request(NewRun::new("builder").idempotency_key("order-17")));
    let answers = create_together(&cx, requests.collect::<Checked<_>>()?).await?;
    let (new, existing) = new_and_existing(&answers)?;
    ensure_eq!(
        (new.len(), existing.len()),
        (1, 15),
        "new and existing runs of one request"
    );
    let ids: BTreeSet<RunId> = new.iter().chain(&existing).map(|run| run.id).collect();
    ensure_eq!(
        ids.len(),
        1,
        "different runs that the creates answered with"
    );
    ensure_eq!(
        cx.ids(&RunFilter::new()).await?.len(),
        1,
        "the runs that exist"
    );
    Ok(())
}

pub(crate) async fn concurrent_creates_of_one_id_make_one_run(cx: Cx) -> Checked {
    let request = cx.request(NewRun::new("builder").input("x"))?;
    let answers = create_together(&cx, vec![request; 16]).await?;
    let (new, existing) = new_and_existing(&answers)?;
    ensure_eq!(
        (new.len(), existing.len()),
        (1, 15),
        "new and existing runs of one create"
    );
    Ok(())
}

pub(crate) async fn concurrent_creates_of_one_unique_key_make_one_run(cx: Cx) -> Checked {
    let requests = (0..16).map(|n| {
        cx.request(
            NewRun::new("builder")
                .input(n.to_string())
                .unique_key("branch main"),
        )
    });
    let answers = create_together(&cx, requests.collect::<Checked<_>>()?).await?;
    let new = answers
        .iter()
        .filter(|answer| matches!(answer, Created::New(_)));
    ensure_eq!(new.count(), 1, "new runs among {answers:?}");
    let over = |answer: &&Created| {
        matches!(
            answer,
            Created::Conflict {
                over: ConflictOver::UniqueKey,
                ..
            }
        )
    };
    ensure_eq!(
        answers.iter().filter(over).count(),
        15,
        "conflicts over the unique key among {answers:?}"
    );
    ensure_eq!(
        cx.ids(&RunFilter::new()).await?.len(),
        1,
        "the runs that exist"
    );
    Ok(())
}

pub(crate) async fn concurrent_creates_of_different_requests_make_them_all(cx: Cx) -> Checked {
    let requests =
        (0..32).map(|n| cx.request(NewRun::new("builder").idempotency_key(n.to_string())));
    let requests: Vec<CreateRun> = requests.collect::<Checked<_>>()?;
    let wanted: BTreeSet<RunId> = requests.iter().map(|request| request.id).collect();
    let answers = create_together(&cx, requests).await?;
    let (new, _) = new_and_existing(&answers)?;
    ensure_eq!(new.len(), 32, "new runs");
    ensure_eq!(
        distinct(cx.ids(&RunFilter::new()).await?, "the list")?,
        wanted,
        "the runs that exist"
    );
    Ok(())
}

/// Makes a create that must conflict with this run, and answers what they conflict over.
async fn conflict(cx: &Cx, request: &CreateRun, with: RunId) -> Checked<ConflictOver> {
    let created = cx.runs.create(request).await?;
    let (over, existing) = take!(
        created,
        Created::Conflict { over, existing } => (over, existing),
        "a request that another run stands in the way of"
    );
    ensure_eq!(existing.id, with, "the run that the conflict names");
    Ok(over)
}

/// Makes creates at once, over two handles.
async fn create_together(cx: &Cx, requests: Vec<CreateRun>) -> Checked<Vec<Created>> {
    let other = cx.open_again().await?;
    let tasks = requests.into_iter().enumerate().map(|(n, request)| {
        let runs = if n % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        async move { runs.create(&request).await }
    });
    let answers = together(tasks.collect()).await?;
    Ok(answers.into_iter().collect::<Result<_, _>>()?)
}

fn new_and_existing(answers: &[Created]) -> Checked<(Vec<&Run>, Vec<&Run>)> {
    let (mut new, mut existing) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Created::New(run) => new.push(run),
            Created::Existing(run) => existing.push(run),
            Created::Conflict { .. } => {
                return Err(Failure::new(format!(
                    "no request conflicts here: saw {answer:?}"
                )));
            }
        }
    }
    Ok((new, existing))
}
