//! The values that the small numbers of a sequence stand for.

use std::num::NonZeroU32;
use std::time::Duration;

use runtree_repository::id::{BranchName, CommitId, DirectoryName, OwnerId, RunId, Slug};
use runtree_repository::{
    HostName, LeaseTime, Limit, Owner, Persistence, ProcessMark, QueueName, Tag, UserId,
    WantedWorktree, WorkflowName,
};

use super::step::{Needs, Span};
use crate::backend::ClockSource;
use crate::context::{HOST, LONG, SHORT};
use crate::failure::{Checked, Failure};

const HOSTS: [&str; 2] = [HOST, "beta.example"];
const QUEUES: [&str; 2] = ["default", "slow"];
const STREAMS: [&str; 3] = ["builder", "review", "Builder"];

fn choose<'a>(from: &[&'a str], number: u8) -> Checked<&'a str> {
    let at = usize::from(number) % from.len().max(1);
    let chosen = from.get(at).copied();
    chosen.ok_or_else(|| Failure::new("there is something to choose from"))
}

pub(super) fn workflow(number: u8) -> Checked<WorkflowName> {
    Ok(WorkflowName::new(choose(&STREAMS, number)?)?)
}

pub(super) fn queue(number: u8) -> Checked<QueueName> {
    Ok(QueueName::new(choose(&QUEUES, number)?)?)
}

pub(super) fn host(number: u8) -> Checked<HostName> {
    Ok(HostName::new(choose(&HOSTS, number)?)?)
}

pub(super) fn tag(number: u8) -> Checked<Tag> {
    Ok(Tag::new(format!("tag-{number}"))?)
}

pub(super) fn user(number: u8) -> Checked<UserId> {
    Ok(UserId::new(format!("user-{number}"))?)
}

pub(super) fn member(number: u8) -> String {
    format!("member-{number}")
}

pub(super) fn process(number: u8) -> Checked<ProcessMark> {
    Ok(ProcessMark::new(format!("boot-1/{number}/100"))?)
}

/// Each owner is always on the same machine.
pub(super) fn owner(number: u8) -> Checked<Owner> {
    let id = OwnerId::from_bytes(bytes(0, u64::from(number)));
    Ok(Owner {
        id: id.map_err(|e| Failure::new(e.to_string()))?,
        host: host(number)?,
        process: process(number)?,
    })
}

/// The id of this number.
///
/// Where instants can be equal, the order of the ids is another than that of the numbers, so that it shows when runs are sorted by
/// one of them alone. A server's clock goes on between calls, and then both orders are the same.
pub(super) fn run_id(number: u64, clock: ClockSource) -> Checked<RunId> {
    let low = match clock {
        ClockSource::Passed => number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ClockSource::Server => number,
    };
    RunId::from_bytes(bytes(1, low)).map_err(|e| Failure::new(e.to_string()))
}

/// A UUID of version 7 whose lower half is this number but for the two bits of the variant.
fn bytes(kind: u8, low: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let [_, _, _, _, _, _, version, other, rest @ ..] = &mut bytes;
    *version = 0x70;
    *other = kind;
    *rest = (low & !(3 << 62) | 1 << 63).to_be_bytes();
    bytes
}

pub(super) fn worktree(needs: Needs, id: RunId) -> Checked<Option<WantedWorktree>> {
    let persistence = match needs {
        Needs::Nothing => return Ok(None),
        Needs::Temporary => Persistence::Temporary,
        Needs::Persistent => Persistence::Persistent,
    };
    let slug = Slug::from_text("model");
    Ok(Some(WantedWorktree {
        name: DirectoryName::for_run(&slug, id),
        branch: BranchName::for_run(&slug, id),
        base: commit(1)?,
        persistence,
    }))
}

pub(super) fn commit(number: u32) -> Checked<CommitId> {
    crate::context::commit(number)
}

/// A limit from 1 to 3, or the greatest there is.
pub(super) fn limit(number: u8) -> Checked<Limit> {
    match number {
        0 => Ok(Limit::MAX),
        number => Ok(Limit::new(u64::from(number))?),
    }
}

pub(super) fn count(number: u32) -> Checked<NonZeroU32> {
    NonZeroU32::new(number).ok_or_else(|| Failure::new("a count is not zero"))
}

pub(super) const fn duration(span: Span) -> Duration {
    match span {
        Span::Nothing => Duration::ZERO,
        Span::Short => SHORT,
        Span::Long => LONG,
    }
}

/// How long a lease lasts. Nothing is no time for one: where the clock can be moved it is the shortest, else a long one.
pub(super) fn lease_time(span: Span, clock: ClockSource) -> Checked<LeaseTime> {
    let time = match (span, clock) {
        (Span::Long, _) | (_, ClockSource::Server) => LONG,
        (Span::Nothing | Span::Short, ClockSource::Passed) => SHORT,
    };
    Ok(LeaseTime::new(time)?)
}
