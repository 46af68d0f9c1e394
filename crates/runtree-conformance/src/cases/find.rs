//! A run is found by the ending of its id, and never guessed.

use std::collections::BTreeSet;

use runtree_repository::id::{IdEnding, Lookup, RunId};
use runtree_repository::{CreateRun, NewRun, RunSummary};

use crate::context::{Cx, completed};
use crate::failure::{Checked, Failure, WriteAnswer, ensure, ensure_eq, take};

pub(crate) async fn a_run_is_found_by_the_ending_of_its_id(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder").input("x")).await?;
    cx.create(NewRun::new("builder")).await?;
    let text = run.id.to_string();
    // From the short form up to the whole id without its prefix; 26 characters are more bits than a number of 128 has.
    for length in [8, 9, 12, 13, 25, 26] {
        let found = cx.runs.find(&ending(&text[text.len() - length..])?).await?;
        ensure_eq!(
            found,
            Lookup::Found(run.summary.clone()),
            "the run that ends with {length} characters of {text}"
        );
    }
    Ok(())
}

pub(crate) async fn what_a_person_types_in_upper_case_is_found(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let typed = format!(" {} ", run.id.short().as_str().to_uppercase());
    let found = cx.runs.find(&ending(&typed)?).await?;
    ensure_eq!(
        found,
        Lookup::Found(run.summary.clone()),
        "the run that ends with {typed:?}"
    );
    Ok(())
}

pub(crate) async fn an_ended_run_is_found_as_it_is_now(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let run = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    let found = cx.runs.find(&run.id.short()).await?;
    ensure_eq!(
        found,
        Lookup::Found(run.summary.clone()),
        "the run that has ended"
    );
    Ok(())
}

pub(crate) async fn an_ending_that_no_run_has_finds_nothing(cx: Cx) -> Checked {
    ensure_eq!(
        cx.runs.find(&cx.run_id()?.short()).await?,
        Lookup::NotFound,
        "a look-up in an empty store"
    );
    let id = with_ending(&cx, [1, 2, 3, 4, 5, 6]).await?;
    let text = id.to_string();
    let other = cx.run_id_ending([1, 2, 3, 4, 5, 7])?.to_string();
    ensure_eq!(
        cx.runs.find(&ending(&other[other.len() - 9..])?).await?,
        Lookup::NotFound,
        "a look-up of {other} beside {text}"
    );
    // What stands in the middle of an id is no ending.
    let middle = &text[text.len() - 14..text.len() - 8];
    if !text.ends_with(middle) {
        ensure_eq!(
            cx.runs.find(&ending(middle)?).await?,
            Lookup::NotFound,
            "a look-up of the middle of {text}"
        );
    }
    Ok(())
}

pub(crate) async fn an_ending_of_several_runs_is_ambiguous(cx: Cx) -> Checked {
    let (first, second) = (
        with_ending(&cx, [9, 2, 3, 4, 5, 6]).await?,
        with_ending(&cx, [8, 2, 3, 4, 5, 6]).await?,
    );
    let third = with_ending(&cx, [8, 2, 3, 4, 5, 7]).await?;
    let text = first.to_string();
    // Eight characters are the last forty bits, which the first two share; the ninth tells them apart.
    let found = cx.runs.find(&ending(&text[text.len() - 8..])?).await?;
    let candidates =
        take!(found, Lookup::Ambiguous(candidates) => candidates, "an ending of two runs");
    let ids: BTreeSet<RunId> = candidates.iter().map(|run| run.id).collect();
    ensure_eq!(
        (ids, candidates.len()),
        (BTreeSet::from([first, second]), 2),
        "the candidates"
    );
    for id in [first, second, third] {
        let text = id.to_string();
        let found: Lookup<RunSummary> = cx.runs.find(&ending(&text[text.len() - 10..])?).await?;
        ensure_eq!(
            found.map(|run| run.id),
            Lookup::Found(id),
            "the run of ten characters"
        );
    }
    Ok(())
}

pub(crate) async fn an_ambiguous_ending_names_at_most_ten_candidates(cx: Cx) -> Checked {
    for first in 0..12 {
        with_ending(&cx, [first, 2, 3, 4, 5, 6]).await?;
    }
    let text = cx.run_id_ending([0, 2, 3, 4, 5, 6])?.to_string();
    let found = cx.runs.find(&ending(&text[text.len() - 8..])?).await?;
    let candidates =
        take!(found, Lookup::Ambiguous(candidates) => candidates, "an ending of twelve runs");
    ensure!(
        (2..=10).contains(&candidates.len()),
        "two to ten candidates are named, saw {}",
        candidates.len()
    );
    Ok(())
}

async fn with_ending(cx: &Cx, low: [u8; 6]) -> Checked<RunId> {
    let request = CreateRun {
        id: cx.run_id_ending(low)?,
        run: NewRun::new("builder"),
        worktree: None,
    };
    Ok(cx.create_new(&request).await?.id)
}

fn ending(text: &str) -> Checked<IdEnding> {
    IdEnding::new(text).map_err(|e| Failure::new(e.to_string()))
}

pub(crate) async fn a_run_is_found_by_its_idempotency_key_whole(cx: Cx) -> Checked {
    let key = crate::cases::create::TEXT;
    let run = NewRun::new("builder")
        .input("x")
        .idempotency_key(key)
        .metadata("k", 1)
        .tag("t");
    let run = cx.create(run).await?;
    cx.create(NewRun::new("builder").idempotency_key("other"))
        .await?;
    cx.create(NewRun::new("builder").unique_key(key)).await?;
    ensure_eq!(
        cx.runs.get_by_key(&key.parse()?).await?,
        Some(run.clone()),
        "the run of the key"
    );
    let claimed = cx.claim(run.id).await?;
    let ended = cx
        .runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure_eq!(
        cx.runs.get_by_key(&key.parse()?).await?,
        Some(ended),
        "the ended run of the key"
    );
    Ok(())
}

pub(crate) async fn a_key_that_no_run_has_finds_nothing(cx: Cx) -> Checked {
    cx.create(NewRun::new("builder")).await?;
    cx.create(NewRun::new("builder").idempotency_key("Key 1"))
        .await?;
    for key in ["key 1", "Key 1 ", "Key", "Key%", "Key_1", "default"] {
        ensure_eq!(
            cx.runs.get_by_key(&key.parse()?).await?,
            None,
            "the run of the key `{key}`"
        );
    }
    Ok(())
}

pub(crate) async fn a_key_of_another_namespace_is_not_found(cx: Cx) -> Checked {
    cx.create(NewRun::new("builder").idempotency_key("k"))
        .await?;
    let other = cx.open_namespace("tenant").await?;
    ensure_eq!(
        other.get_by_key(&"k".parse()?).await?,
        None,
        "another namespace's run by its key"
    );
    let own = cx.request(NewRun::new("review").idempotency_key("k"))?;
    let own = other.create(&own).await?.into_run()?;
    ensure_eq!(
        other.get_by_key(&"k".parse()?).await?,
        Some(own),
        "the own run by its key"
    );
    Ok(())
}
