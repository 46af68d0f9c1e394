//! References: made only where none is, moved and deleted only from where they were; and who still holds a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use gix::{
    ObjectId,
    bstr::{BStr, BString},
    refs::{
        FullName, Target,
        transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog},
    },
};
use runtree_id::{BranchName, CommitId};
use runtree_time::Timestamp;

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files,
    names::SalvageRef,
};

/// How long a deletion waits for git's locks: the one on the packed references is held while all of them are written anew.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The name under which we write reflogs and salvage commits.
const OUR_NAME: &str = "runtree";
const OUR_ADDRESS: &str = "runtree@localhost";

pub(crate) fn commit_id(id: ObjectId) -> Result<CommitId> {
    let text = id.to_string();
    text.parse::<CommitId>().map_err(|error| {
        WorktreeError::new(ErrorKind::Corrupt, format!("not a commit id: {text}"))
            .with_source(error)
    })
}

pub(crate) fn object_id(repository: &gix::Repository, commit: &CommitId) -> Result<ObjectId> {
    let id = ObjectId::from_hex(commit.as_str().as_bytes()).map_err(|error| {
        WorktreeError::new(
            ErrorKind::InvalidInput,
            format!("not a commit id: {commit}"),
        )
        .with_source(error)
    })?;
    if id.kind() != repository.object_hash() {
        return Err(WorktreeError::new(
            ErrorKind::InvalidInput,
            format!("the id {commit} is not of the repository's hash function"),
        ));
    }
    Ok(id)
}

/// A signature of ours at `now`.
pub(crate) fn our_signature(now: Timestamp) -> gix::actor::Signature {
    signature(OUR_NAME, OUR_ADDRESS, now)
}

pub(crate) fn signature(name: &str, email: &str, now: Timestamp) -> gix::actor::Signature {
    gix::actor::Signature {
        name: name.into(),
        email: email.into(),
        time: gix::date::Time::new(now.as_unix_seconds(), 0),
    }
}

/// Applies one edit with `by` in the reflog.
fn edit(
    repository: &gix::Repository,
    edit: RefEdit,
    by: &gix::actor::Signature,
) -> Result<(), gix::Error> {
    let mut buffer = gix::date::parse::TimeBuf::default();
    repository
        .edit_references_as(Some(edit), Some(by.to_ref(&mut buffer)))
        .map(drop)
}

fn full_name(name: &str) -> Result<FullName> {
    FullName::try_from(name).map_err(|error| {
        WorktreeError::new(
            ErrorKind::InvalidInput,
            format!("not a reference name: {name}"),
        )
        .with_source(error)
    })
}

/// Reads what a reference points to, followed to its end but not peeled; none if it does not exist.
pub(crate) fn read(repository: &gix::Repository, name: &str) -> Result<Option<ObjectId>> {
    let full = full_name(name)?;
    let fail = |error| WorktreeError::git(format!("read {name}"), error);
    let found = repository.try_find_reference(full.as_ref()).map_err(fail)?;
    let Some(mut reference) = found else {
        return Ok(None);
    };
    reference
        .follow_to_object()
        .map(|id| Some(id.detach()))
        .map_err(fail)
}

/// Makes a reference that must not exist; tells whether it did not.
///
/// A reference that comes to be meanwhile with the same target is taken for the new one. Its log then has no entry with `message`, which
/// [`was_made_by_us`] tells.
pub(crate) fn create(
    repository: &gix::Repository,
    name: &str,
    target: ObjectId,
    message: &str,
    now: Timestamp,
) -> Result<bool> {
    let change = Change::Update {
        log: LogChange {
            mode: RefLog::AndReference,
            force_create_reflog: true,
            message: message.into(),
        },
        expected: PreviousValue::MustNotExist,
        new: Target::Object(target),
    };
    // Also where the settings want no logs: by its log the reference is known for ours.
    let mut logging = repository.clone();
    logging.refs.write_reflog = gix::refs::store::WriteReflog::Normal;
    let outcome = edit(
        &logging,
        RefEdit::new(full_name(name)?, change),
        &our_signature(now),
    );
    match outcome {
        Ok(()) => Ok(true),
        Err(error) => {
            if read(repository, name)?.is_some() {
                return Ok(false);
            }
            Err(WorktreeError::git(format!("create {name}"), error))
        }
    }
}

/// Sees a reference that was just written to the disk, which git leaves to chance.
pub(crate) fn sync(repository: &gix::Repository, name: &str) -> Result<()> {
    let file = repository.common_dir().join(name);
    // Packed meanwhile: then whoever packed it saw to that.
    if !files::exists(&file)? {
        return Ok(());
    }
    files::sync_file(&file)?;
    match file.parent() {
        Some(parent) => files::sync_directory(parent),
        None => Ok(()),
    }
}

/// Deletes a reference that still points to `expected`; tells whether it did.
pub(crate) fn delete(
    repository: &gix::Repository,
    name: &str,
    expected: ObjectId,
    now: Timestamp,
) -> Result<bool> {
    let change = Change::Delete {
        expected: PreviousValue::MustExistAndMatch(Target::Object(expected)),
        log: RefLog::AndReference,
    };
    let edit_once = RefEdit::new(full_name(name)?, change);
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match edit(repository, edit_once.clone(), &our_signature(now)) {
            Ok(()) => return Ok(true),
            Err(_) if read(repository, name)? != Some(expected) => return Ok(false),
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(WorktreeError::git(format!("delete {name}"), error)),
        }
    }
}

/// Moves HEAD, or the branch it names, from `expected` to `new`; tells whether it did.
pub(crate) fn advance_head(
    repository: &gix::Repository,
    expected: ObjectId,
    new: ObjectId,
    message: &str,
    by: &gix::actor::Signature,
) -> Result<bool> {
    let change = Change::Update {
        log: LogChange {
            mode: RefLog::AndReference,
            force_create_reflog: false,
            message: message.into(),
        },
        expected: PreviousValue::MustExistAndMatch(Target::Object(expected)),
        new: Target::Object(new),
    };
    let mut change = RefEdit::new(full_name("HEAD")?, change);
    change.deref = true;
    match edit(repository, change, by) {
        Ok(()) => Ok(true),
        Err(error) => {
            if read(repository, "HEAD")? != Some(expected) {
                return Ok(false);
            }
            Err(WorktreeError::git("move HEAD", error))
        }
    }
}

/// Tells whether the branch's reflog holds the entry with which we made it; `message` is one that no other making writes.
///
/// A log goes with its branch, so the entry of a branch that was deleted and made again is not there.
pub(crate) fn was_made_by_us(
    repository: &gix::Repository,
    branch: &BranchName,
    message: &str,
) -> Result<bool> {
    let name = branch.full_ref();
    let fail = |error| WorktreeError::git(format!("read the log of {name}"), error);
    let full = full_name(name)?;
    let Some(reference) = repository.try_find_reference(full.as_ref()).map_err(fail)? else {
        return Ok(false);
    };
    let mut log = reference.log_iter();
    let Some(entries) = log
        .all()
        .map_err(|error| WorktreeError::git(format!("read the log of {name}"), error))?
    else {
        return Ok(false);
    };
    Ok(entries
        .filter_map(Result::ok)
        .any(|entry| entry.previous_oid().is_null() && entry.message == message.as_bytes()))
}

/// Tells whether no reference of the repository names a commit.
pub(crate) fn has_no_commit(repository: &gix::Repository) -> bool {
    let no_head = repository.head_id().is_err();
    let no_references = repository
        .references()
        .and_then(|all| all.all().map(|mut all| all.next().is_none()))
        .unwrap_or(false);
    no_head && no_references
}

/// Which commits the shared references hold: all but salvages, what comes and goes with a stash or a prefetch, and what is private to
/// one worktree.
pub(crate) fn surviving(repository: &gix::Repository) -> Result<BTreeSet<ObjectId>> {
    const PASSING: [&[u8]; 6] = [
        b"refs/stash",
        b"refs/prefetch/",
        b"refs/bisect/",
        b"refs/worktree/",
        b"refs/rewritten/",
        SalvageRef::PREFIX.as_bytes(),
    ];
    held_by(repository, |name| {
        !PASSING.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// Which commits the references hold whose full names are `wanted`.
pub(crate) fn held_by(
    repository: &gix::Repository,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<BTreeSet<ObjectId>> {
    let mut held = BTreeSet::new();
    for mut reference in list(repository)? {
        let name = reference.name().as_bstr();
        if !name.starts_with(b"refs/")
            || !wanted(name)
            || matches!(reference.target(), gix::refs::TargetRef::Symbolic(_))
        {
            continue;
        }
        // A reference to something that is no commit holds none.
        if let Ok(commit) = reference.peel_to_commit() {
            held.insert(commit.id);
        }
    }
    Ok(held)
}

/// How often to list the references again when one of them was deleted or packed meanwhile.
const LIST_ATTEMPTS: u32 = 10;

/// Lists every reference.
///
/// One that goes away while it is read is either deleted, or packed and then seen the next time; where they go without pause, those that
/// were seen must do.
pub(crate) fn list(repository: &gix::Repository) -> Result<Vec<gix::Reference<'_>>> {
    let fail = |error| WorktreeError::git("list the references", error);
    let mut attempt = 1;
    loop {
        let mut found = Vec::new();
        let mut missed = false;
        let platform = repository.references().map_err(fail)?;
        for reference in platform.all().map_err(fail)? {
            match reference {
                Ok(reference) => found.push(reference),
                Err(error) if error.is_not_found() => missed = true,
                Err(error) => return Err(fail(error)),
            }
        }
        if !missed || attempt == LIST_ATTEMPTS {
            return Ok(found);
        }
        attempt += 1;
    }
}

/// Of the commits reachable from `candidates`, finds those that `held` does not reach, as a map from commit to its parents.
pub(crate) fn unreachable(
    repository: &gix::Repository,
    candidates: &BTreeSet<ObjectId>,
    held: &BTreeSet<ObjectId>,
) -> Result<BTreeMap<ObjectId, Vec<ObjectId>>> {
    let tips: Vec<_> = candidates.difference(held).copied().collect();
    if tips.is_empty() {
        return Ok(BTreeMap::new());
    }
    let fail = |error| WorktreeError::git("walk the history", error);
    let mut found = BTreeMap::new();
    for commit in repository
        .rev_walk(tips)
        .with_hidden(held.iter().copied())
        .all()
        .map_err(fail)?
    {
        let commit = commit.map_err(fail)?;
        found.insert(commit.id, commit.parent_ids.to_vec());
    }
    Ok(found)
}

/// Of the commits in `found`, those that no other one in it has as a parent: together they reach all of them.
pub(crate) fn tips(found: &BTreeMap<ObjectId, Vec<ObjectId>>) -> Vec<ObjectId> {
    let parents: BTreeSet<_> = found.values().flatten().collect();
    found
        .keys()
        .filter(|id| !parents.contains(id))
        .copied()
        .collect()
}

/// A line of a reflog.
pub(crate) fn log_line(
    previous: ObjectId,
    new: ObjectId,
    by: &gix::actor::Signature,
    message: &BStr,
) -> BString {
    let seconds = by.time.seconds;
    let mut line = format!(
        "{previous} {new} {} <{}> {seconds} +0000\t",
        by.name, by.email
    )
    .into_bytes();
    line.extend_from_slice(message);
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use runtree_testkit::git::GitFixture;

    use super::*;

    #[test]
    fn a_branch_is_ours_only_by_the_entry_that_no_other_making_writes() {
        let fixture = GitFixture::new();
        fixture.git(["config", "core.logAllRefUpdates", "false"]);
        fixture.git(["branch", "theirs"]);
        let repository = gix::open(fixture.path()).unwrap();
        let tip = repository.head_id().unwrap().detach();
        let now = Timestamp::UNIX_EPOCH;
        for (name, expected) in [("theirs", false), ("ours", true)] {
            let branch: BranchName = name.parse().unwrap();
            // For one that exists already at the same commit, this succeeds as well.
            assert!(create(&repository, branch.full_ref(), tip, "made 1", now).unwrap());
            let made = |message| was_made_by_us(&repository, &branch, message).unwrap();
            assert_eq!(made("made 1"), expected, "{name}");
            assert!(!made("made 2"), "{name}");
        }
    }
}
