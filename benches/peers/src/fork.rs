//! What a fork does to a maker of ids: the ids that parent and child both made.
//!
//! A process makes some ids, so that whatever pool there is has been filled, and forks. Parent and
//! child begin at one instant and each make as many ids again; the child hands its own over through a pipe.
//! Optionally other threads of the parent make ids with the same maker all the while, so that the fork
//! falls into their work: what they held, the child has no thread to give back.

#![expect(
    unsafe_code,
    reason = "the standard library starts processes, but cannot fork"
)]

use std::io::{self, PipeWriter, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{hint, thread};

use crate::Maker;

/// The bits of an id that all makers fill at random, at its end.
const RANDOM_BITS: u32 = 62;

/// How long after the fork parent and child begin; both are ready long before.
const HEAD_START: Duration = Duration::from_millis(2);

/// How many ids a thread makes at most while another forks.
const THREAD_IDS: usize = 1_000_000;

/// How ids are made around forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many ids parent and child each make after a fork.
    pub ids: usize,
    /// How often the parent forks.
    pub rounds: usize,
    /// How many other threads of the parent make ids meanwhile.
    pub threads: usize,
    /// How long a child may take before it counts as hung.
    pub patience: Duration,
}

/// What was seen over all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many ids children made.
    pub ids: usize,
    /// How many ids were made once more than once.
    pub duplicates: usize,
    /// The same of the random bits alone, which is what is left when parent and child do not
    /// happen to work within the same instant.
    pub random_duplicates: usize,
    /// How many children hung; there are no rounds after the first.
    pub hung: usize,
}

impl Outcome {
    /// Returns whether every id differs from every other, in its random bits as well.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self
            == Self {
                ids: self.ids,
                ..Self::default()
            }
    }
}

/// Forks as planned and counts.
///
/// # Errors
///
/// When the system cannot fork, or a child ends otherwise than by its work or by hanging.
pub fn run(maker: &Maker, plan: &Plan) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    for _ in 0..plan.rounds {
        let Some(mut ids) = round(maker, plan)? else {
            outcome.hung += 1;
            break;
        };
        outcome.ids += plan.ids;
        outcome.duplicates += repeated(&mut ids);
        for id in &mut ids {
            *id &= (1 << RANDOM_BITS) - 1;
        }
        outcome.random_duplicates += repeated(&mut ids);
    }
    Ok(outcome)
}

/// Forks once and returns all ids that were made, or nothing when the child hung.
fn round(maker: &Maker, plan: &Plan) -> io::Result<Option<Vec<u128>>> {
    let stop = AtomicBool::new(false);
    let at_work = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || {
            let mut ids = vec![maker.make()];
            at_work.fetch_add(1, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) && ids.len() < THREAD_IDS {
                ids.push(maker.make());
            }
            ids
        };
        let threads: Vec<_> = (0..plan.threads).map(|_| scope.spawn(work)).collect();
        while at_work.load(Ordering::Relaxed) < plan.threads {
            hint::spin_loop();
        }
        let made = make_in_both(maker, plan);
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("because makers do not panic"));
        }
        Ok(made?.map(|ids| {
            all.extend(ids);
            all
        }))
    })
}

fn make_in_both(maker: &Maker, plan: &Plan) -> io::Result<Option<Vec<u128>>> {
    let mut ids: Vec<u128> = (0..plan.ids).map(|_| maker.make()).collect();
    let (mut from_child, to_parent) = io::pipe()?;
    let start = Instant::now() + HEAD_START;
    // SAFETY: the child makes ids, which may take locks and memory that another thread held at the
    // fork; that it could then wait for ever is what is tried here, and `alarm` ends it. It runs
    // nothing of the parent's afterwards, because `in_child` never returns.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        0 => in_child(maker, plan, start, to_parent),
        _ => drop(to_parent),
    }
    ids.extend(make_from(maker, plan, start));
    let mut bytes = Vec::new();
    let read = from_child.read_to_end(&mut bytes);
    let ended = ended_well(child)?;
    read?;
    let (of_child, _) = bytes.as_chunks();
    ids.extend(of_child.iter().map(|bytes| u128::from_ne_bytes(*bytes)));
    Ok(ended.then_some(ids))
}

fn make_from(maker: &Maker, plan: &Plan, start: Instant) -> Vec<u128> {
    while Instant::now() < start {
        hint::spin_loop();
    }
    (0..plan.ids).map(|_| maker.make()).collect()
}

/// Makes ids in the child, hands them over and ends the process.
fn in_child(maker: &Maker, plan: &Plan, start: Instant, mut to_parent: PipeWriter) -> ! {
    let seconds = u32::try_from(plan.patience.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: `alarm` only asks for a signal, which ends this process unless it ends before.
    unsafe { libc::alarm(seconds.max(1)) };
    let worked = panic::catch_unwind(AssertUnwindSafe(|| {
        let ids = make_from(maker, plan, start);
        let bytes: Vec<u8> = ids.into_iter().flat_map(u128::to_ne_bytes).collect();
        to_parent.write_all(&bytes)
    }));
    let status = i32::from(!matches!(worked, Ok(Ok(()))));
    // SAFETY: it ends this process at once, without what the parent wants done at its own end.
    unsafe { libc::_exit(status) }
}

/// Waits for the child and returns whether it did its work; if not, it hung.
fn ended_well(child: libc::pid_t) -> io::Result<bool> {
    let mut status = 0;
    // SAFETY: `child` is our own and nobody else waits for it; `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM {
        return Ok(false);
    }
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        return Ok(true);
    }
    Err(io::Error::other(format!(
        "the child ended with wait status {status:#x}"
    )))
}

/// Counts how many of the ids have been there already; leaves them sorted.
fn repeated(ids: &mut [u128]) -> usize {
    ids.sort_unstable();
    ids.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_counts_once_for_each_time_it_was_there_already() {
        assert_eq!(repeated(&mut [3, 1, 2]), 0);
        assert_eq!(repeated(&mut [3, 1, 3, 2, 3, 1]), 3);
    }
}
