//! Every statement, as a constant text: each transition is one statement, decided by guards that PostgreSQL checks.
//!
//! What makes them correct under READ COMMITTED, in one place:
//!
//! - All parts of a statement see one snapshot, and not each other's changes; they hand rows on by `RETURNING`. An `UPDATE` that
//!   waited for a lock re-checks its guards against the new row, but what it joins stays as the snapshot saw it.
//! - So the row of the run is the one point of order: everything that changes a run's lease, worktrees, facts or tags also updates it.
//!   A transition that acts on worktrees reads the token with the same snapshot (`seen`) and repeats it as a guard: if somebody
//!   claimed the run meanwhile, and planned a worktree that the snapshot does not show, the guard fails and nothing is written.
//! - Locks are taken in one order, so that nothing waits in a circle: runs, then their leases, worktrees and clean-ups. A statement that
//!   locks several runs or clean-ups skips those that are locked or takes them in the order of ids; several leases are always taken in
//!   the order of ids. A renewal takes leases alone, the report of a child one. A rescue takes runs and leases together, and waits for
//!   neither. Outside of this order are the unique keys of creates: two that want the same keys the other way round wait for each
//!   other, the server undoes one, and it is done again.
//! - `now` is `statement_timestamp()`: the server's clock, the same instant wherever a statement says it, re-checks included. Only a
//!   renewal asks `clock_timestamp()` whether a lease still lives, once it has the lease's row.
//! - The partial indexes say `IS TRUE`, and so do the few statements that are meant to use them. The others cannot: statistics that
//!   were taken while nothing ran would make such an index look like the shortest way to any running run.
//! - Runs are counted against a concurrency key by one claim at a time, under an advisory lock that was taken before the snapshot. An
//!   expired lease is free for the claim that holds its row.
//! - The numbers of events come from the run's own `last_event`, counted up by the same update.
#[macro_use]
mod parts;

mod annotate;
mod claim;
mod cleanup;
mod list;
mod look;
mod make;
mod own;
mod transition;

pub(super) use self::annotate::*;
pub(super) use self::claim::*;
pub(super) use self::cleanup::*;
#[cfg(test)]
pub(super) use self::list::is_apart;
pub(super) use self::list::{Measured, Shape};
pub(super) use self::look::*;
pub(super) use self::make::*;
pub(super) use self::own::*;
pub(super) use self::transition::*;
