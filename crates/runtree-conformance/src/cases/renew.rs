//! Leases go on while they are renewed, end when they are not, and carry the wish to stop to the owner.

use std::time::Duration;

use runtree_repository::{
    Actor, CancelMode, CancelRequest, EventKind, LeaseRef, LeaseTime, NewRun, Reason, Renewal,
    Token,
};
use serde_json::json;

use crate::context::{BRIEF, Cx, LONG, SHORT, completed, graceful, only, with_attempts};
use crate::failure::{Checked, WriteAnswer, ensure, ensure_eq, take};

pub(crate) async fn answers_come_in_the_order_of_the_question(cx: Cx) -> Checked {
    let first = cx.running(NewRun::new("builder")).await?;
    let second = cx.running(NewRun::new("builder")).await?;
    let third = cx.running(NewRun::new("builder")).await?;
    cx.runs
        .cancel(second.lease.run, &graceful())
        .await?
        .applied("a cancel")?;
    let unknown = LeaseRef {
        run: cx.run_id()?,
        token: Token::new(1),
    };
    let old = LeaseRef {
        token: Token::NONE,
        ..first.lease
    };
    let question = [third.lease, unknown, second.lease, old, first.lease];
    let seen: Vec<_> = cx
        .runs
        .renew(&question, LeaseTime::new(LONG)?)
        .await?
        .iter()
        .map(shape)
        .collect();
    ensure_eq!(
        seen,
        ["renewed", "lost", "cancelled", "lost", "renewed"],
        "the answers to five renewals"
    );
    let turned: Vec<LeaseRef> = question.into_iter().rev().collect();
    let seen: Vec<_> = cx
        .runs
        .renew(&turned, LeaseTime::new(LONG)?)
        .await?
        .iter()
        .map(shape)
        .collect();
    ensure_eq!(
        seen,
        ["renewed", "lost", "cancelled", "lost", "renewed"],
        "the answers in the opposite order"
    );
    Ok(())
}

pub(crate) async fn a_lease_that_is_asked_about_twice_is_answered_twice(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let old = LeaseRef {
        token: Token::NONE,
        ..claimed.lease
    };
    let question = [claimed.lease, old, claimed.lease, old];
    let answers = cx.runs.renew(&question, LeaseTime::new(LONG)?).await?;
    let seen: Vec<_> = answers.iter().map(shape).collect();
    ensure_eq!(
        seen,
        ["renewed", "lost", "renewed", "lost"],
        "the answers to four renewals of two leases"
    );
    Ok(())
}

pub(crate) async fn many_leases_are_renewed_at_once(cx: Cx) -> Checked {
    for _ in 0..150 {
        cx.create(NewRun::new("builder")).await?;
    }
    let leases: Vec<LeaseRef> = cx
        .claim_all()
        .await?
        .iter()
        .map(|claimed| claimed.lease)
        .collect();
    ensure_eq!(leases.len(), 150, "the runs that one claim took");
    let answers = cx.runs.renew(&leases, LeaseTime::new(LONG)?).await?;
    let renewed = answers
        .iter()
        .filter(|answer| shape(answer) == "renewed")
        .count();
    ensure_eq!(
        (answers.len(), renewed),
        (150, 150),
        "answers, and leases that go on"
    );
    Ok(())
}

pub(crate) async fn a_renewal_of_nothing_answers_nothing(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    ensure_eq!(
        cx.runs.renew(&[], LeaseTime::new(LONG)?).await?,
        [],
        "the answers to no question"
    );
    ensure_eq!(
        cx.get(claimed.lease.run).await?.lease_expires_at,
        Some(claimed.expires_at),
        "the lease nobody asked about"
    );
    Ok(())
}

pub(crate) async fn a_renewal_prolongs_the_lease(cx: Cx) -> Checked {
    let run = cx.create(NewRun::new("builder")).await?;
    let claimed = cx.claim_for(run.id, BRIEF).await?;
    cx.pass(Duration::from_millis(1)).await?;
    let before = cx.runs.now().await?;
    let renewed = only(
        cx.runs
            .renew(&[claimed.lease], LeaseTime::new(LONG)?)
            .await?,
        "a renewal",
    )?;
    let expires_at = take!(renewed, Renewal::Renewed { expires_at, cancel: None } => expires_at, "a renewal in time");
    ensure!(
        expires_at >= before.saturating_add(LONG),
        "a lease renewed after {before} for an hour ends at {expires_at}"
    );
    let stored = cx.get(run.id).await?;
    ensure_eq!(
        stored.lease_expires_at,
        Some(expires_at),
        "when the lease ends"
    );
    ensure_eq!(
        stored.token,
        claimed.lease.token,
        "the token after a renewal"
    );
    let lease = only(cx.runs.leases(None).await?, "the live leases")?;
    ensure!(
        lease.heartbeat_at >= before,
        "a renewal after {before} is a heartbeat, saw {}",
        lease.heartbeat_at
    );

    cx.wait_until(claimed.expires_at).await?;
    ensure!(
        cx.rescue_expired().await?.is_empty(),
        "a renewed lease must not be rescued when its first time is over"
    );
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion under a renewed lease")?;
    Ok(())
}

pub(crate) async fn an_expired_lease_is_lost_though_nobody_took_the_run_up(cx: Cx) -> Checked {
    let claimed = cx.expired(with_attempts(2)?).await?;
    let renewal = only(
        cx.runs
            .renew(&[claimed.lease], LeaseTime::new(LONG)?)
            .await?,
        "a renewal",
    )?;
    ensure_eq!(
        renewal,
        Renewal::Lost,
        "a renewal at the instant the lease expires"
    );
    let rescued = only(
        cx.rescue_expired().await?,
        "a rescue of the run that was not renewed",
    )?;
    ensure_eq!(rescued.lease, claimed.lease, "the lease that was rescued");
    Ok(())
}

pub(crate) async fn a_renewal_tells_who_wants_the_run_to_stop(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let request = CancelRequest {
        mode: CancelMode::Graceful,
        reason: Some(Reason::new("the user pressed stop")?),
        by: Some(Actor::new("user-1")?),
        grace: Some(Duration::from_secs(30)),
    };
    cx.runs
        .cancel(claimed.lease.run, &request)
        .await?
        .applied("a cancel")?;
    let stored = cx.get(claimed.lease.run).await?.cancel.clone();
    ensure!(stored.is_some(), "the cancel intent must be stored");
    for _ in 0..2 {
        let renewal = only(
            cx.runs
                .renew(&[claimed.lease], LeaseTime::new(LONG)?)
                .await?,
            "a renewal",
        )?;
        let told = take!(renewal, Renewal::Renewed { cancel, .. } => cancel, "a renewal in time");
        ensure_eq!(told, stored, "the cancel intent that each renewal tells");
    }
    Ok(())
}

pub(crate) async fn an_old_owner_cannot_renew_the_lease_of_the_new_one(cx: Cx) -> Checked {
    let old = cx.running(with_attempts(2)?).await?;
    only(cx.rescue_dead(old.lease).await?, "a rescue")?;
    ensure_eq!(
        renew(&cx, old.lease).await?,
        Renewal::Lost,
        "a renewal while the run waits again"
    );
    let new = cx.claim(old.lease.run).await?;
    ensure_eq!(
        renew(&cx, old.lease).await?,
        Renewal::Lost,
        "a renewal while the new owner runs"
    );
    let stored = cx.get(new.lease.run).await?;
    ensure_eq!(
        stored.lease_expires_at,
        Some(new.expires_at),
        "the lease of the new owner"
    );
    ensure_eq!(stored.owner, new.run.owner, "the new owner");
    Ok(())
}

pub(crate) async fn a_token_from_the_future_is_lost(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    let future = LeaseRef {
        token: claimed.lease.token.next(),
        ..claimed.lease
    };
    ensure_eq!(
        renew(&cx, future).await?,
        Renewal::Lost,
        "a renewal under a token that was not given out"
    );
    cx.runs
        .end(future, &completed())
        .await?
        .stale("an ending under a token that was not given out")?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("the owner's completion")?;
    Ok(())
}

pub(crate) async fn the_lease_of_an_ended_run_is_lost(cx: Cx) -> Checked {
    let claimed = cx.running(NewRun::new("builder")).await?;
    cx.runs
        .end(claimed.lease, &completed())
        .await?
        .applied("a completion")?;
    ensure_eq!(
        renew(&cx, claimed.lease).await?,
        Renewal::Lost,
        "a renewal after the end"
    );
    Ok(())
}

pub(crate) async fn a_renewal_leaves_no_event_and_a_lost_one_leaves_one(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(2)?).await?;
    for _ in 0..3 {
        renew(&cx, claimed.lease).await?;
    }
    ensure_eq!(
        cx.kinds(claimed.lease.run).await?,
        [EventKind::Created, EventKind::Claimed],
        "the history after three renewals"
    );
    only(cx.rescue_dead(claimed.lease).await?, "a rescue")?;
    for _ in 0..3 {
        renew(&cx, claimed.lease).await?;
    }
    let events = cx.events(claimed.lease.run).await?;
    let rejected: Vec<_> = events
        .iter()
        .filter(|event| event.kind == EventKind::Rejected)
        .collect();
    ensure_eq!(
        rejected.len(),
        1,
        "rejections in the history after three lost renewals of one lease"
    );
    ensure_eq!(
        rejected[0].token,
        claimed.lease.token,
        "the token that the rejected renewal showed"
    );
    ensure_eq!(
        rejected[0].detail,
        Some(json!({"event": "renew"})),
        "what was rejected"
    );
    Ok(())
}

pub(crate) async fn a_renewal_may_shorten_the_lease(cx: Cx) -> Checked {
    let claimed = cx.running(with_attempts(2)?).await?;
    let renewal = only(
        cx.runs
            .renew(&[claimed.lease], LeaseTime::new(SHORT)?)
            .await?,
        "a renewal",
    )?;
    let expires_at =
        take!(renewal, Renewal::Renewed { expires_at, .. } => expires_at, "a renewal in time");
    ensure!(
        expires_at < claimed.expires_at,
        "a renewal for {SHORT:?} must end before {}, saw {expires_at}",
        claimed.expires_at
    );
    cx.wait_until(expires_at).await?;
    ensure_eq!(
        cx.rescue_expired().await?.len(),
        1,
        "rescued runs after the shortened lease"
    );
    Ok(())
}

async fn renew(cx: &Cx, lease: LeaseRef) -> Checked<Renewal> {
    only(
        cx.runs.renew(&[lease], LeaseTime::new(LONG)?).await?,
        "a renewal",
    )
}

fn shape(renewal: &Renewal) -> &'static str {
    match renewal {
        Renewal::Renewed { cancel: None, .. } => "renewed",
        Renewal::Renewed {
            cancel: Some(_), ..
        } => "cancelled",
        Renewal::Lost => "lost",
    }
}
