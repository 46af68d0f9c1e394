//! Many requests in one call: each is answered for itself, in order, and all of it is one transaction.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use runtree_repository::id::RunId;
use runtree_repository::{
    ConflictOver, Created, EventKind, IdempotencyKey, Limit, NewRun, Persistence, Run, RunFilter,
    RunInput,
};

use crate::cases::create::TEXT;
use crate::context::{Cx, again_while_busy, session, together};
use crate::failure::{Checked, Failure, ensure, ensure_eq, ensure_invalid, take};

pub(crate) async fn answers_come_in_the_order_of_the_question(cx: Cx) -> Checked {
    let runs = (0..20).map(|n| NewRun::new(format!("workflow-{}", 19 - n)));
    let mut requests = cx.requests(runs)?;
    requests.reverse();
    let runs = cx.create_all(&requests).await?;
    for (number, (request, run)) in requests.iter().zip(&runs).enumerate() {
        ensure_eq!(run.id, request.id, "the run of answer {number}");
        ensure_eq!(
            run.workflow.as_str(),
            format!("workflow-{number}"),
            "the workflow of answer {number}"
        );
        ensure_eq!(cx.get(run.id).await?, *run, "what is read of it");
        ensure_eq!(cx.kinds(run.id).await?, [EventKind::Created], "its history");
    }
    Ok(())
}

pub(crate) async fn nothing_asked_is_nothing_made(cx: Cx) -> Checked {
    ensure_eq!(cx.runs.create_many(&[]).await?, [], "the answers");
    ensure_eq!(cx.ids(&RunFilter::new()).await?, [], "the runs");
    Ok(())
}

pub(crate) async fn repeating_a_call_finds_its_runs(cx: Cx) -> Checked {
    let mut requests = cx.requests((0..9).map(|n| match n % 3 {
        0 => NewRun::new("builder"),
        1 => NewRun::new("builder").idempotency_key(format!("k{n}")),
        _ => NewRun::new("builder").unique_key(format!("u{n}")),
    }))?;
    let first = cx.create_all(&requests).await?;
    // What is repeated under a key may be repeated under another id: who lost its answer before it was read has none.
    requests[1].id = cx.run_id()?;
    for (created, run) in cx
        .runs
        .create_many(&requests)
        .await?
        .into_iter()
        .zip(&first)
    {
        let existing = take!(created, Created::Existing(run) => run, "the same request again");
        ensure_eq!(existing, *run, "the run that was made before");
        ensure_eq!(cx.kinds(run.id).await?, [EventKind::Created], "its history");
    }
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 9, "the runs");
    Ok(())
}

pub(crate) async fn a_conflict_is_the_answer_to_its_request_alone(cx: Cx) -> Checked {
    let held = cx
        .create(NewRun::new("held").idempotency_key("k").unique_key("u"))
        .await?;
    let mut requests = cx.requests([
        NewRun::new("builder"),
        NewRun::new("other").idempotency_key("k"),
        NewRun::new("builder").unique_key("free"),
        NewRun::new("other").unique_key("u"),
        NewRun::new("other"),
        NewRun::new("builder"),
    ])?;
    requests[4].id = held.id;
    let created = cx.runs.create_many(&requests).await?;
    let told: Vec<_> = created.iter().map(told).collect();
    let conflict = |over| ("conflict", held.id, Some(over));
    let new = |n: usize| ("new", requests[n].id, None);
    ensure_eq!(
        told,
        [
            new(0),
            conflict(ConflictOver::IdempotencyKey),
            new(2),
            conflict(ConflictOver::UniqueKey),
            conflict(ConflictOver::Id),
            new(5),
        ],
        "the answers"
    );
    ensure_eq!(cx.get(held.id).await?, held, "the run that was in the way");
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 4, "the runs");
    Ok(())
}

pub(crate) async fn requests_of_one_call_are_decided_one_after_the_other(cx: Cx) -> Checked {
    let mut requests = cx.requests([
        NewRun::new("builder").idempotency_key("k"),
        NewRun::new("builder").idempotency_key("k"),
        NewRun::new("other").idempotency_key("k"),
        NewRun::new("builder").unique_key("u"),
        NewRun::new("builder").unique_key("u"),
        NewRun::new("builder"),
        NewRun::new("builder"),
        NewRun::new("other"),
    ])?;
    requests[6].id = requests[5].id;
    requests[7].id = requests[5].id;
    let created = cx.runs.create_many(&requests).await?;
    let told: Vec<_> = created.iter().map(told).collect();
    let of = |n: usize| requests[n].id;
    ensure_eq!(
        told,
        [
            ("new", of(0), None),
            ("existing", of(0), None),
            ("conflict", of(0), Some(ConflictOver::IdempotencyKey)),
            ("new", of(3), None),
            ("conflict", of(3), Some(ConflictOver::UniqueKey)),
            ("new", of(5), None),
            ("existing", of(5), None),
            ("conflict", of(5), Some(ConflictOver::Id)),
        ],
        "the answers to requests that want the same"
    );
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 3, "the runs");
    for n in [0, 3, 5] {
        ensure_eq!(
            cx.kinds(of(n)).await?,
            [EventKind::Created],
            "the history of {n}"
        );
    }
    // What comes later in the call stands in nobody's way.
    let held = cx.create(NewRun::new("held").unique_key("held")).await?;
    let mut requests = cx.requests([
        NewRun::new("builder")
            .idempotency_key("free")
            .unique_key("u2"),
        NewRun::new("builder")
            .unique_key("held")
            .idempotency_key("free"),
        NewRun::new("builder").idempotency_key("free"),
        NewRun::new("builder").unique_key("u2"),
    ])?;
    requests[0].id = held.id;
    let created = cx.runs.create_many(&requests).await?;
    ensure_eq!(
        created.iter().map(self::told).collect::<Vec<_>>(),
        [
            ("conflict", held.id, Some(ConflictOver::Id)),
            ("conflict", held.id, Some(ConflictOver::UniqueKey)),
            ("new", requests[2].id, None),
            ("new", requests[3].id, None),
        ],
        "the answers to requests whose keys later ones hold"
    );
    Ok(())
}

pub(crate) async fn one_invalid_request_refuses_the_whole_call(cx: Cx) -> Checked {
    let tags = (0..65).fold(NewRun::new("builder"), |run, n| run.tag(format!("t{n}")));
    for invalid in [
        NewRun::new(""),
        tags,
        NewRun::new("builder").tag(""),
        NewRun::new("builder").tag("t".repeat(65)),
        NewRun::new("builder").tag("a\0b"),
        NewRun::new("builder").queue("two\nlines"),
        NewRun::new("builder").queue("q".repeat(65)),
        NewRun::new("builder").concurrency("", NonZeroU32::MIN),
        NewRun::new("builder").concurrency("c".repeat(256), NonZeroU32::MIN),
        NewRun::new("builder").agent("a".repeat(129)),
        NewRun::new("builder").model("m\0"),
        NewRun::new("builder").session_name("s".repeat(256)),
        NewRun::new("builder").git_repository("g".repeat(4_097)),
        NewRun::new("builder").metadata("a\0b", 1),
    ] {
        let request = cx.request(invalid.clone())?;
        ensure_invalid(cx.runs.create(&request).await, "one invalid request")?;
        let requests = cx.requests([NewRun::new("builder"), invalid, NewRun::new("builder")])?;
        let answer = cx.runs.create_many(&requests).await;
        ensure_invalid(answer, &format!("a call with {:?}", requests[1].run))?;
        ensure_eq!(cx.ids(&RunFilter::new()).await?, [], "the runs");
    }
    Ok(())
}

pub(crate) async fn more_than_the_limit_is_refused_with_nothing_made(cx: Cx) -> Checked {
    let many = Limit::MAX.get() + 1;
    let mut requests = cx.requests((0..many).map(|_| NewRun::new("builder")))?;
    ensure_invalid(cx.runs.create_many(&requests).await, "more than the limit")?;
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 0, "the runs");
    requests.pop();
    ensure_eq!(
        cx.create_all(&requests).await?.len(),
        1_000,
        "the runs of a full call"
    );
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 1_000, "the runs");
    Ok(())
}

pub(crate) async fn more_bytes_than_the_limit_are_refused_with_nothing_made(cx: Cx) -> Checked {
    let input = |bytes: usize| NewRun::new("builder").input("x".repeat(bytes));
    let full = Limit::MAX_BATCH_BYTES / RunInput::MAX_BYTES;
    let runs = (0..full).map(|_| input(RunInput::MAX_BYTES));
    let mut requests = cx.requests(runs)?;
    for more in [input(1), NewRun::new("builder").metadata("k", "v")] {
        requests.push(cx.request(more)?);
        ensure_invalid(
            cx.runs.create_many(&requests).await,
            "more bytes than the limit",
        )?;
        ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 0, "the runs");
        requests.pop();
    }
    ensure_eq!(
        cx.create_all(&requests).await?.len(),
        full,
        "the runs of a full call"
    );
    Ok(())
}

pub(crate) async fn a_run_made_among_many_is_like_one_made_alone(cx: Cx) -> Checked {
    let alone = cx.create(full(&cx).await?).await?;
    let requests = [
        cx.request(NewRun::new("plain"))?,
        cx.request(full(&cx).await?)?,
        cx.worktree_request(full(&cx).await?, Persistence::Persistent)?,
    ];
    let many = cx.create_all(&requests).await?;
    ensure_eq!(
        full_parts(&many[1]),
        full_parts(&alone),
        "the run among many"
    );
    ensure_eq!(many[2].worktree, requests[2].worktree, "the worktree");
    for run in [&alone, &many[1]] {
        let queue = run.queue.as_str();
        ensure_eq!(queue, TEXT, "the queue");
        let used = run
            .concurrency
            .as_ref()
            .map(|c| (c.key.as_str(), c.limit.get()));
        ensure_eq!(
            used,
            Some((TEXT, u32::MAX)),
            "the concurrency key and its limit"
        );
        let tags: Vec<&str> = run.tags.iter().map(AsRef::as_ref).collect();
        ensure_eq!(tags, [TEXT, "a", "z"], "the tags");
        let facts = &run.facts;
        let told = [
            facts.agent.as_ref().map(AsRef::as_ref),
            facts.model.as_ref().map(AsRef::as_ref),
            facts.session_name.as_ref().map(AsRef::as_ref),
            facts.git_repository.as_ref().map(AsRef::as_ref),
        ];
        ensure_eq!(told, [Some(TEXT); 4], "the facts");
        ensure!(run.deadline.is_some(), "the run has a deadline");
        ensure_eq!(run.retry_of, None, "what it tries again");
        ensure_eq!(run.usage, Default::default(), "what it has used");
    }
    let plain = &many[0];
    ensure_eq!(
        plain.queue.as_str(),
        "default",
        "the queue of a run that names none"
    );
    ensure!(
        plain.concurrency.is_none() && plain.deadline.is_none() && plain.tags.is_empty(),
        "what was not given is absent: saw {plain:?}"
    );
    ensure!(
        plain.facts.is_empty() && plain.file_changes.is_empty(),
        "nor is anything known"
    );
    Ok(())
}

pub(crate) async fn concurrent_calls_make_each_run_once(cx: Cx) -> Checked {
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for task in 0..6 {
        let keys = (0..12).map(|n| NewRun::new("builder").idempotency_key(format!("k{n}")));
        let mut requests = cx.requests(keys)?;
        // Not all in one order: whoever waits for another's key holds one that the other waits for.
        if task % 2 == 1 {
            requests.reverse();
        }
        let runs = if task % 3 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        tasks.push(async move { again_while_busy(|| runs.create_many(&requests)).await });
    }
    let mut made: BTreeMap<IdempotencyKey, (RunId, u32)> = BTreeMap::new();
    for answer in together(tasks).await? {
        for created in answer? {
            let is_new = u32::from(matches!(created, Created::New(_)));
            let run = created.into_run()?;
            let key = run.idempotency_key.clone();
            let key = key.ok_or_else(|| Failure::new("the run has a key"))?;
            let (id, new) = made.entry(key).or_insert((run.id, 0));
            ensure_eq!(run.id, *id, "the run of one key");
            *new += is_new;
        }
    }
    for (key, (_, new)) in &made {
        ensure_eq!(*new, 1, "answers that say the run of {key} is new");
    }
    ensure_eq!(cx.runs.count(&RunFilter::new()).await?, 12, "the runs");
    Ok(())
}

/// A request that says everything that can be said.
async fn full(cx: &Cx) -> Checked<NewRun> {
    let later = cx.runs.now().await?.saturating_add(crate::context::LONG);
    Ok(NewRun::new("builder")
        .input(TEXT)
        .session(session("0190b5c4-7e1a-7b3c-8d4e-5f60718293a4")?)
        .user("user-1")
        .queue(TEXT)
        .concurrency(TEXT, NonZeroU32::MAX)
        .deadline(later)
        .tag("z")
        .tag("a")
        .tag(TEXT)
        .tag("a")
        .agent(TEXT)
        .model(TEXT)
        .session_name(TEXT)
        .git_repository(TEXT)
        .metadata("k", TEXT))
}

/// A run without what tells it from another of the same request: its id and its instants.
fn full_parts(run: &Run) -> Run {
    let mut run = run.clone();
    let summary = &mut run.summary;
    summary.id = RunId::from_bytes([
        1, 0x90, 0xb5, 0xc4, 0x7e, 0x1a, 0x7b, 0x3c, 0x8d, 0x4e, 0x5f, 0x60, 0x71, 0x82, 0x93, 0xa4,
    ])
    .unwrap_or(summary.id);
    let at = runtree_repository::time::Timestamp::MIN;
    (summary.created_at, summary.updated_at, summary.available_at) = (at, at, at);
    summary.deadline = None;
    run
}

fn told(created: &Created) -> (&'static str, RunId, Option<ConflictOver>) {
    match created {
        Created::New(run) => ("new", run.id, None),
        Created::Existing(run) => ("existing", run.id, None),
        Created::Conflict { over, existing } => ("conflict", existing.id, Some(*over)),
    }
}
