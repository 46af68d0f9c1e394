//! What is learnt of a run is added to it at any time: nothing else changes, and nothing is lost.

use std::collections::BTreeSet;

use runtree_repository::id::RunId;
use runtree_repository::{
    AgentType, Annotation, Change, ChangedPath, Cost, DiffStatistics, EventKind, FileChange,
    GitRepositoryName, MAX_FILE_CHANGES, MAX_FILE_CHANGES_BYTES, MAX_JSON_BYTES, MAX_JSON_DEPTH,
    MAX_TAGS, ModelName, NewRun, Run, SessionName, Tag, Usage, UsageChange,
};
use serde_json::json;

use crate::cases::create::TEXT;
use crate::context::{Cx, again_while_busy, commit, completed, failed, graceful, together};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq, ensure_invalid};

pub(crate) async fn each_field_is_set_kept_and_cleared_alone(cx: Cx) -> Checked {
    let run = cx.create(known()).await?;
    annotated(&cx, run.id, &everything()?).await?;
    let before = cx.get(run.id).await?;
    for (what, set, clear) in single_fields()? {
        let after = annotated(&cx, run.id, &set).await?;
        let mut expected = before.clone();
        set.apply(&mut expected)?;
        expected.summary.updated_at = after.updated_at;
        ensure!(expected != before, "{what} must change something");
        ensure_eq!(after, expected, "the run after {what} was set");
        ensure_eq!(
            cx.get(run.id).await?,
            after,
            "what is read after {what} was set"
        );
        cx.runs
            .annotate(run.id, &set)
            .await?
            .already(&format!("{what} set again"))?;

        let after = annotated(&cx, run.id, &clear).await?;
        clear.apply(&mut expected)?;
        expected.summary.updated_at = after.updated_at;
        ensure_eq!(after, expected, "the run after {what} was cleared");
        ensure_eq!(
            cx.get(run.id).await?,
            after,
            "what is read after {what} was cleared"
        );
        cx.runs
            .annotate(run.id, &clear)
            .await?
            .already(&format!("{what} cleared again"))?;
        // Back to where it was, so that each field is tried alone.
        cx.runs.annotate(run.id, &everything()?).await?.accepted();
    }
    Ok(())
}

pub(crate) async fn everything_at_once_is_kept_whole(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let annotation = everything()?;
    let after = annotated(&cx, run.id, &annotation).await?;
    let mut expected = run.clone();
    annotation.apply(&mut expected)?;
    expected.summary.updated_at = after.updated_at;
    ensure_eq!(after, expected, "the run");
    ensure_eq!(
        cx.get(run.id).await?,
        after,
        "what is read is what was answered"
    );
    ensure!(
        after.updated_at >= run.updated_at,
        "the last change does not go back"
    );
    ensure_eq!(
        cx.kinds(run.id).await?,
        [EventKind::Created, EventKind::Annotated],
        "the history"
    );
    let shown = cx.list(&runtree_repository::RunFilter::new()).await?;
    ensure_eq!(
        shown.first(),
        Some(&after.summary),
        "what a list shows of it"
    );
    cx.runs
        .annotate(run.id, &annotation)
        .await?
        .already("the same again")?;
    ensure_eq!(
        cx.kinds(run.id).await?.len(),
        2,
        "the events after nothing changed"
    );
    ensure_eq!(
        cx.get(run.id).await?,
        after,
        "the run after nothing changed"
    );
    Ok(())
}

pub(crate) async fn a_run_is_annotated_while_it_waits_while_it_runs_and_after_its_end(
    cx: Cx,
) -> Checked {
    let run = cx.create(NewRun::new("builder").tag("t")).await?;
    let note = |n: u32| Annotation::new().metadata("n", n);
    annotated(&cx, run.id, &note(1)).await?;
    let claimed = cx.claim(run.id).await?;
    let after = annotated(&cx, run.id, &note(2)).await?;
    ensure_eq!(
        (after.token, &after.owner, after.lease_expires_at),
        (
            claimed.lease.token,
            &claimed.run.owner,
            Some(claimed.expires_at)
        ),
        "token, owner and lease"
    );
    cx.runs
        .cancel(run.id, &graceful())
        .await?
        .applied("a cancel")?;
    let after = annotated(&cx, run.id, &note(3)).await?;
    ensure!(after.cancel.is_some(), "the wish to stop is still there");
    let ended = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let mut after = annotated(&cx, run.id, &note(4)).await?;
    ensure_eq!(
        after.metadata.get("n"),
        Some(&json!(4)),
        "what was added after the end"
    );
    after.metadata.clone_from(&ended.metadata);
    ensure!(
        after.updated_at >= ended.updated_at,
        "the last change does not go back"
    );
    after.summary.updated_at = ended.updated_at;
    ensure_eq!(after, ended, "everything else of the ended run");
    let annotated = cx.kinds(run.id).await?;
    let annotated = annotated
        .iter()
        .filter(|kind| **kind == EventKind::Annotated)
        .count();
    ensure_eq!(annotated, 4, "the events that say so");
    Ok(())
}

pub(crate) async fn an_unknown_run_and_another_namespaces_run_are_not_found(cx: Cx) -> Checked {
    let note = Annotation::new().metadata("n", 1);
    cx.runs
        .annotate(cx.run_id()?, &note)
        .await?
        .not_found("an unknown run")?;
    let run = cx.create(NewRun::new("builder")).await?;
    let other = cx.open_namespace("tenant").await?;
    other
        .annotate(run.id, &note)
        .await?
        .not_found("another namespace's run")?;
    ensure_eq!(cx.get(run.id).await?, run, "the run");
    Ok(())
}

pub(crate) async fn metadata_is_merged_member_by_member(cx: Cx) -> Checked {
    let run = NewRun::new("builder")
        .metadata("kept", json!({"a": 1}))
        .metadata("changed", json!({"a": 1, "b": 2}))
        .metadata("gone", 1)
        .metadata("null", 1);
    let run = cx.create(run).await?;
    let annotation = Annotation::new()
        .metadata("changed", json!({"c": 3}))
        .metadata("null", json!(null))
        .metadata("new", json!([1, "2", null]))
        .metadata("kept.a", "no path")
        .metadata("", TEXT)
        .metadata("it's \"quoted\" $.a[0]", TEXT)
        .remove_metadata("gone")
        .remove_metadata("never there");
    let after = annotated(&cx, run.id, &annotation).await?;
    let expected = json!({
        "kept": {"a": 1}, "changed": {"c": 3}, "null": null, "new": [1, "2", null],
        "kept.a": "no path", "": TEXT, "it's \"quoted\" $.a[0]": TEXT,
    });
    ensure_eq!(json!(after.metadata), expected, "the metadata");
    ensure_eq!(
        cx.get(run.id).await?,
        after,
        "what is read is what was answered"
    );
    let away = Annotation::new()
        .remove_metadata("")
        .remove_metadata("kept.a")
        .remove_metadata("it's \"quoted\" $.a[0]");
    let after = annotated(&cx, run.id, &away).await?;
    let expected = json!({
        "kept": {"a": 1}, "changed": {"c": 3}, "null": null, "new": [1, "2", null],
    });
    ensure_eq!(
        json!(after.metadata),
        expected,
        "the metadata after three members went"
    );
    let nothing = Annotation::new()
        .remove_metadata("gone")
        .metadata("kept", json!({"a": 1}));
    cx.runs
        .annotate(run.id, &nothing)
        .await?
        .already("what is so already")?;
    Ok(())
}

pub(crate) async fn tags_are_added_and_removed(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder").tag("a").tag("b")).await?;
    let tags = |run: &Run| -> Vec<String> { run.tags.iter().map(ToString::to_string).collect() };
    let annotation = Annotation::new()
        .add_tag("c".parse()?)
        .add_tag("a".parse()?)
        .add_tag(TEXT.parse()?)
        .remove_tag("b".parse()?)
        .remove_tag("never there".parse()?)
        // A tag that is also to be removed is added.
        .remove_tag("c".parse()?);
    let after = annotated(&cx, run.id, &annotation).await?;
    ensure_eq!(tags(&after), [TEXT, "a", "c"], "the tags");
    let none = ["a", "c", TEXT]
        .iter()
        .try_fold(Annotation::new(), |all, tag| {
            Ok::<_, runtree_repository::RepositoryError>(all.remove_tag(tag.parse()?))
        })?;
    ensure_eq!(
        tags(&annotated(&cx, run.id, &none).await?),
        [""; 0],
        "the tags at last"
    );
    cx.runs
        .annotate(run.id, &none)
        .await?
        .already("tags that are not there removed")?;
    Ok(())
}

pub(crate) async fn usage_is_set_or_added_to_and_stays_at_its_limit(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let usage = |input_tokens, output_tokens, cost| Usage {
        input_tokens,
        output_tokens,
        cost: Cost::from_micros(cost),
    };
    let steps = [
        (Annotation::new().add_usage(usage(1, 2, 3)), usage(1, 2, 3)),
        (
            Annotation::new().add_usage(usage(10, 0, 30)),
            usage(11, 2, 33),
        ),
        (Annotation::new().set_usage(usage(5, 0, 1)), usage(5, 0, 1)),
        (
            Annotation::new().add_usage(usage(Usage::MAX - 5, 7, Usage::MAX)),
            usage(Usage::MAX, 7, Usage::MAX),
        ),
        (
            Annotation::new().add_usage(usage(Usage::MAX, Usage::MAX, 1)),
            usage(Usage::MAX, Usage::MAX, Usage::MAX),
        ),
    ];
    for (annotation, expected) in steps {
        let after = annotated(&cx, run.id, &annotation).await?;
        ensure_eq!(
            after.usage,
            expected,
            "the usage after {:?}",
            annotation.usage
        );
        ensure_eq!(
            cx.get(run.id).await?,
            after,
            "what is read is what was answered"
        );
    }
    let most = usage(Usage::MAX, Usage::MAX, Usage::MAX);
    for nothing in [
        Annotation::new().add_usage(usage(1, 1, 1)),
        Annotation::new().add_usage(Usage::default()),
        Annotation::new().set_usage(most),
    ] {
        let what = format!("{:?} of what is at its limit", nothing.usage);
        cx.runs.annotate(run.id, &nothing).await?.already(&what)?;
    }
    annotated(&cx, run.id, &Annotation::new().set_usage(Usage::default())).await?;
    Ok(())
}

pub(crate) async fn counts_of_files_are_kept_in_their_order(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let file = |path: &str, added, removed| -> Checked<FileChange> {
        Ok(FileChange {
            path: path.parse()?,
            added,
            removed,
        })
    };
    let files = vec![
        file("z.rs", Some(1), Some(0))?,
        file("image.png", None, None)?,
        file(TEXT, Some(u32::MAX), Some(u32::MAX))?,
        file("two\nlines\t.rs", Some(0), None)?,
        file("z.rs", Some(1), Some(0))?,
    ];
    let mut set = Annotation::new();
    set.file_changes = Change::Set(files.clone());
    let after = annotated(&cx, run.id, &set).await?;
    ensure_eq!(after.file_changes, files, "the counts of files");
    ensure_eq!(
        cx.get(run.id).await?,
        after,
        "what is read is what was answered"
    );
    let mut empty = Annotation::new();
    empty.file_changes = Change::Set(Vec::new());
    ensure_eq!(
        annotated(&cx, run.id, &empty).await?.file_changes,
        [],
        "the counts of no files"
    );
    empty.file_changes = Change::Clear;
    cx.runs
        .annotate(run.id, &empty)
        .await?
        .already("no counts instead of none")?;
    Ok(())
}

pub(crate) async fn values_at_their_limits_are_kept(cx: Cx) -> Checked {
    let long = |bytes: usize| "ä".repeat(bytes / 2) + if bytes % 2 == 1 { "x" } else { "" };
    let run = cx.create(NewRun::new("builder")).await?;
    let mut annotation = Annotation::new();
    annotation.agent = Change::Set(AgentType::new(long(AgentType::MAX_BYTES))?);
    annotation.model = Change::Set(ModelName::new(long(ModelName::MAX_BYTES))?);
    annotation.session_name = Change::Set(SessionName::new(long(SessionName::MAX_BYTES))?);
    let repository = GitRepositoryName::new(long(GitRepositoryName::MAX_BYTES))?;
    annotation.git_repository = Change::Set(repository);
    let most = DiffStatistics {
        files: u32::MAX,
        added: u32::MAX,
        removed: u32::MAX,
    };
    annotation.diff = Change::Set(most);
    let path = ChangedPath::new(long(ChangedPath::MAX_BYTES))?;
    let change = FileChange {
        path,
        added: Some(u32::MAX),
        removed: Some(u32::MAX),
    };
    annotation.file_changes = Change::Set(vec![change]);
    let tags = (0..MAX_TAGS).map(|n| Tag::new(format!("{}{n:02}", long(Tag::MAX_BYTES - 2))));
    annotation.add_tags = tags.collect::<Result<BTreeSet<_>, _>>()?;
    // With the quotes, the braces, the key and the colon as long as a value may be.
    annotation = annotation.metadata("k", "x".repeat(MAX_JSON_BYTES - 8));
    let after = annotated(&cx, run.id, &annotation).await?;
    let mut expected = run;
    annotation.apply(&mut expected)?;
    expected.summary.updated_at = after.updated_at;
    ensure!(after == expected, "what is answered is what was given");
    ensure!(
        cx.get(after.id).await? == after,
        "what is read is what was given"
    );
    let many = (0..MAX_FILE_CHANGES).map(|n| {
        let path = ChangedPath::new(format!("src/{n}.rs"))?;
        Ok(FileChange {
            path,
            added: Some(1),
            removed: None,
        })
    });
    let many = many.collect::<Checked<Vec<_>>>()?;
    let mut annotation = Annotation::new();
    annotation.file_changes = Change::Set(many.clone());
    annotated(&cx, after.id, &annotation).await?;
    ensure!(
        cx.get(after.id).await?.file_changes == many,
        "the counts of ten thousand files"
    );
    Ok(())
}

pub(crate) async fn what_is_beyond_the_limits_is_refused_and_changes_nothing(cx: Cx) -> Checked {
    let run = (0..60).fold(NewRun::new("builder"), |run, n| run.tag(format!("t{n}")));
    let run = cx
        .create(run.metadata("half", "x".repeat(MAX_JSON_BYTES / 2)))
        .await?;
    let tags = |count: usize| -> Checked<Annotation> {
        let tags = (0..count).map(|n| Tag::new(format!("new{n}")));
        let mut annotation = Annotation::new();
        annotation.add_tags = tags.collect::<Result<_, _>>()?;
        Ok(annotation)
    };
    let deep = (0..=MAX_JSON_DEPTH).fold(json!(1), |deep, _| json!([deep]));
    let usage = Usage {
        input_tokens: Usage::MAX + 1,
        ..Usage::default()
    };
    let cost = Usage {
        cost: Cost::from_micros(u64::MAX),
        ..Usage::default()
    };
    let mut files = Annotation::new();
    let one = FileChange {
        path: "a".parse()?,
        added: None,
        removed: None,
    };
    files.file_changes = Change::Set(vec![one; MAX_FILE_CHANGES + 1]);
    let long = FileChange {
        path: ChangedPath::new("x".repeat(ChangedPath::MAX_BYTES))?,
        added: None,
        removed: None,
    };
    let mut paths = Annotation::new();
    let many = MAX_FILE_CHANGES_BYTES / ChangedPath::MAX_BYTES + 1;
    paths.file_changes = Change::Set(vec![long; many]);
    // The first two of them only because of what the run has already.
    for (what, annotation) in [
        ("five tags more than sixty", tags(5)?),
        (
            "two halves of metadata",
            Annotation::new().metadata("more", "x".repeat(MAX_JSON_BYTES / 2)),
        ),
        ("sixty-five tags", tags(65)?),
        (
            "metadata that is too deep",
            Annotation::new().metadata("deep", deep),
        ),
        (
            "metadata that is too long",
            Annotation::new().metadata("k", "x".repeat(MAX_JSON_BYTES)),
        ),
        ("a NUL in a value", Annotation::new().metadata("k", "a\0b")),
        ("a NUL in a key", Annotation::new().metadata("a\0b", 1)),
        (
            "a NUL in a removed key",
            Annotation::new().remove_metadata("a\0b"),
        ),
        (
            "more tokens than a number has",
            Annotation::new().set_usage(usage),
        ),
        (
            "more cost than a number has",
            Annotation::new().add_usage(cost),
        ),
        ("counts of too many files", files),
        ("paths that are too long together", paths),
        ("an annotation of nothing", Annotation::new()),
    ] {
        // What comes with it is not written either.
        for annotation in [
            annotation.clone(),
            annotation
                .clone()
                .metadata("beside", 1)
                .add_tag("b".parse()?),
        ] {
            if what == "an annotation of nothing" && annotation != Annotation::new() {
                continue;
            }
            ensure_invalid(cx.runs.annotate(run.id, &annotation).await, what)?;
            ensure!(cx.get(run.id).await? == run, "{what} must change nothing");
        }
    }
    ensure_eq!(cx.kinds(run.id).await?, [EventKind::Created], "the history");
    let exchanged = tags(5)?.remove_tag("t0".parse()?);
    let after = annotated(&cx, run.id, &exchanged).await?;
    ensure_eq!(after.tags.len(), MAX_TAGS, "the tags when one makes room");
    let smaller = Annotation::new()
        .metadata("half", 1)
        .metadata("more", "x".repeat(MAX_JSON_BYTES / 2));
    annotated(&cx, run.id, &smaller).await?;
    Ok(())
}

pub(crate) async fn concurrent_additions_lose_nothing(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder").tag("t")).await?;
    let other = cx.open_again().await?;
    let mut tasks = Vec::new();
    for task in 0..8_u64 {
        let runs = if task % 2 == 0 {
            cx.runs.clone()
        } else {
            other.clone()
        };
        let id = run.id;
        tasks.push(async move {
            for step in 0..8_u64 {
                let usage = Usage {
                    input_tokens: 1,
                    output_tokens: task,
                    cost: Cost::from_micros(step),
                };
                let annotation = Annotation::new()
                    .add_usage(usage)
                    .metadata(format!("{task}-{step}"), step)
                    .add_tag(format!("{task}-{}", step % 4).parse()?);
                let answer = again_while_busy(|| runs.annotate(id, &annotation)).await?;
                answer.applied("an annotation")?;
            }
            Checked::Ok(())
        });
    }
    for answer in together(tasks).await? {
        answer?;
    }
    let run = cx.get(run.id).await?;
    let expected = Usage {
        input_tokens: 64,
        output_tokens: 224,
        cost: Cost::from_micros(224),
    };
    ensure_eq!(run.usage, expected, "the sum of what eight tasks added");
    ensure_eq!(run.metadata.len(), 64, "the members that eight tasks added");
    ensure_eq!(run.tags.len(), 33, "the tags that eight tasks added");
    ensure_eq!(cx.events(run.id).await?.len(), 65, "the events");
    Ok(())
}

pub(crate) async fn an_annotation_and_an_ending_do_not_undo_each_other(cx: Cx) -> Checked {
    for round in 0..5 {
        let claimed = cx.running(NewRun::new("builder")).await?;
        let lease = claimed.lease;
        let other = cx.open_again().await?;
        let outcome = if round % 2 == 0 {
            completed()
        } else {
            failed("no")
        };
        let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = Checked> + Send>>> = Vec::new();
        for n in 0..4_u32 {
            let runs = if n % 2 == 0 {
                cx.runs.clone()
            } else {
                other.clone()
            };
            tasks.push(Box::pin(async move {
                let note = everything()?.metadata(format!("n{n}"), n);
                again_while_busy(|| runs.annotate(lease.run, &note))
                    .await?
                    .accepted();
                Ok(())
            }));
        }
        let runs = other.clone();
        tasks.push(Box::pin(async move {
            let answer = again_while_busy(|| runs.end(lease, &outcome)).await?;
            answer.applied("an ending").map(drop)
        }));
        for answer in together(tasks).await? {
            answer?;
        }
        let run = cx.get(lease.run).await?;
        ensure!(run.has_ended(), "the run has ended: saw {run:?}");
        ensure_eq!(
            (&run.owner, run.lease_expires_at),
            (&None, None),
            "owner and lease"
        );
        ensure_eq!(run.tags.len(), 2, "the tags that were added");
        for n in 0..4_u32 {
            ensure_eq!(
                run.metadata.get(&format!("n{n}")),
                Some(&json!(n)),
                "what task {n} added"
            );
        }
    }
    Ok(())
}

pub(crate) async fn a_word_of_a_newer_version_is_not_annotated(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    cx.write_status(run.id, "paused_by_operator").await?;
    let before = cx.get(run.id).await?;
    cx.runs
        .annotate(run.id, &everything()?)
        .await?
        .stale("an annotation of an unknown status")?;
    ensure_eq!(cx.get(run.id).await?, before, "the run");
    ensure_eq!(cx.kinds(run.id).await?, [EventKind::Created], "the history");
    Ok(())
}

async fn annotated(cx: &Cx, id: RunId, annotation: &Annotation) -> Checked<Run> {
    cx.runs
        .annotate(id, annotation)
        .await?
        .applied("an annotation")
}

/// A run of which something is known before it begins.
fn known() -> NewRun {
    NewRun::new("builder")
        .agent("first")
        .model("first")
        .metadata("k", 0)
        .tag("t")
}

/// An annotation that says something of everything.
fn everything() -> Checked<Annotation> {
    let mut all = Annotation::new()
        .commits(commit(1)?, commit(2)?)
        .diff(DiffStatistics {
            files: 1,
            added: 2,
            removed: 3,
        })
        .set_usage(Usage {
            input_tokens: 4,
            output_tokens: 5,
            cost: Cost::from_micros(6),
        })
        .add_tag("all".parse()?)
        .add_tag("t".parse()?)
        .metadata("all", json!({"a": [1, 2]}));
    all.agent = Change::Set("coder".parse()?);
    all.model = Change::Set("model-1".parse()?);
    all.session_name = Change::Set("a session".parse()?);
    all.git_repository = Change::Set("repo".parse()?);
    all.file_changes = Change::Set(vec![FileChange {
        path: "src/lib.rs".parse()?,
        added: Some(2),
        removed: Some(3),
    }]);
    Ok(all)
}

/// For each field an annotation that sets nothing else, and one that clears nothing else.
fn single_fields() -> Checked<Vec<(&'static str, Annotation, Annotation)>> {
    let with = |change: &dyn Fn(&mut Annotation)| {
        let mut annotation = Annotation::new();
        change(&mut annotation);
        annotation
    };
    macro_rules! field {
        ($field:ident, $value:expr) => {{
            let value = $value;
            (
                stringify!($field),
                with(&|it| it.$field = Change::Set(value.clone())),
                with(&|it| it.$field = Change::Clear),
            )
        }};
    }
    let other = DiffStatistics {
        files: 7,
        added: 0,
        removed: 0,
    };
    let file = FileChange {
        path: "other".parse()?,
        added: None,
        removed: None,
    };
    let usage = Usage {
        input_tokens: 0,
        output_tokens: 9,
        cost: Cost::from_micros(1),
    };
    Ok(vec![
        field!(agent, "reviewer".parse::<AgentType>()?),
        field!(model, TEXT.parse::<ModelName>()?),
        field!(session_name, TEXT.parse::<SessionName>()?),
        field!(git_repository, TEXT.parse::<GitRepositoryName>()?),
        field!(first_commit, commit(8)?),
        field!(last_commit, commit(9)?),
        field!(diff, other),
        field!(file_changes, vec![file.clone()]),
        (
            "usage",
            with(&|it| it.usage = UsageChange::Set(usage)),
            with(&|it| it.usage = UsageChange::Set(Usage::default())),
        ),
        (
            "a tag",
            Annotation::new().add_tag("single".parse()?),
            Annotation::new().remove_tag("single".parse()?),
        ),
        (
            "a member of the metadata",
            Annotation::new().metadata("single", json!([null])),
            Annotation::new().remove_metadata("single"),
        ),
    ])
}
