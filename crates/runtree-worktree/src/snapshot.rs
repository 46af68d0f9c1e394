//! Everything in a worktree that removing it would touch, taken in one go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{
    checkout,
    error::{ErrorKind, Result, WorktreeError},
    files,
    layout::Ours,
    record::Owner,
    refs, registry,
    report::{Dirt, DirtyFile, Head, InProgress, RepoPath},
    repository::Worktrees,
    scan::{self, Scan},
    state::{self, AdminFile},
};
use gix::{
    ObjectId,
    index::entry::{Flags, Stage},
    objs::{self, Kind},
};

/// Where git keeps the repositories of a worktree's submodules.
const MODULES: &str = "modules";

/// What a worktree holds.
pub(crate) struct Snapshot {
    pub(crate) head: ObjectId,
    /// The full name of the reference that HEAD names.
    pub(crate) head_reference: Option<String>,
    pub(crate) index: gix::index::File,
    pub(crate) scan: Scan,
    pub(crate) staged: Vec<RepoPath>,
    pub(crate) conflicted: Vec<RepoPath>,
    pub(crate) announced: Vec<RepoPath>,
    pub(crate) in_progress: BTreeSet<InProgress>,
    pub(crate) admin_files: Vec<AdminFile>,
    /// Every file of the administrative directory but our own and git's lock, as it was when the look began.
    pub(crate) contents: Contents,
    /// Files of the administrative directory that hold what nothing else does.
    pub(crate) private: Vec<RepoPath>,
    /// The commits that no surviving reference holds, with their parents.
    pub(crate) lost: BTreeMap<ObjectId, Vec<ObjectId>>,
    /// Trees and blobs that only private files mention.
    pub(crate) others: BTreeSet<ObjectId>,
}

/// Which worktree to look at: its two directories, which need not be where they belong.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) admin: &'a Path,
    pub(crate) directory: &'a Path,
    /// Whether the directory is there; if not, only what the administrative directory holds is looked at.
    pub(crate) present: bool,
}

impl Snapshot {
    pub(crate) fn take(
        worktrees: &Worktrees,
        place: Place<'_>,
        options: scan::Options<'_>,
    ) -> Result<Self> {
        let repository = worktrees.open_worktree(place.admin, place.directory)?;
        let contents = contents(place.admin, repository.object_hash())?;
        let (head, head_reference) = read_head(&repository, place.admin)?;
        let index = open_index(&repository, place.admin)?;
        let mut scan = if place.present {
            scan::scan(&repository, &index, place.directory, options)?
        } else {
            Scan::default()
        };
        let admin_files = state::admin_files(place.admin)?;
        if contents.keys().any(in_modules) {
            scan.nested
                .push(RepoPath::from_bytes(format!(".git/{MODULES}")));
        }
        let mut mentions = state::mentions(&repository, &admin_files)?;
        // The log of its own branch goes with that branch, whether it is checked out or not.
        let own = Owner::read(&Ours::inside(place.admin))?
            .and_then(|owner| owner.branch)
            .map(|branch| branch.full_ref().to_owned());
        let references: BTreeSet<_> = head_reference.iter().chain(&own).collect();
        for reference in references {
            let log = repository.common_dir().join("logs").join(reference);
            let logged = state::logged(&repository, &log)?;
            mentions.commits.extend(logged.commits);
            mentions.others.extend(logged.others);
        }
        mentions.commits.insert(head);
        // From the main worktree, so that no private reference is taken for one that survives.
        let main = worktrees.repository();
        let held = refs::surviving(&main)?;
        let lost = refs::unreachable(&main, &mentions.commits, &held)?;
        let staged = staged(&repository, head, &index)?;
        let private = private(&repository, &admin_files, &mentions.commits)?;
        Ok(Self {
            head,
            head_reference,
            scan,
            staged,
            conflicted: conflicted(&index),
            announced: announced(&index),
            in_progress: state::in_progress(place.admin),
            admin_files,
            contents,
            private,
            lost,
            others: mentions.others,
            index,
        })
    }

    /// Lists every difference, ordered by path.
    pub(crate) fn dirty_files(&self) -> Vec<DirtyFile> {
        let mark = |paths: &[RepoPath], dirt: Dirt| -> Vec<DirtyFile> {
            paths
                .iter()
                .map(|path| DirtyFile {
                    path: path.clone(),
                    dirt,
                })
                .collect()
        };
        let mut files: BTreeSet<DirtyFile> = self
            .scan
            .found
            .iter()
            .map(|found| DirtyFile {
                path: found.path.clone(),
                dirt: found.dirt,
            })
            .collect();
        files.extend(mark(&self.staged, Dirt::Staged));
        files.extend(mark(&self.conflicted, Dirt::Conflicted));
        files.extend(mark(&self.announced, Dirt::IntentToAdd));
        files.extend(mark(&self.scan.deleted, Dirt::Deleted));
        files.into_iter().collect()
    }

    /// Tells whether removing the worktree would lose anything.
    pub(crate) fn must_be_saved(&self) -> bool {
        !self.dirty_files().is_empty()
            || !self.lost.is_empty()
            || !self.others.is_empty()
            || !self.in_progress.is_empty()
            || !self.private.is_empty()
    }

    /// Names the first thing about which two looks differ.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<RepoPath> {
        let own = |path: &RepoPath| RepoPath::from_bytes([b".git/", path.as_bytes()].concat());
        self.scan
            .first_difference(&other.scan)
            .or_else(|| {
                let differing = |one: &Contents, other: &Contents| {
                    one.iter()
                        .find(|(path, id)| other.get(path) != Some(id))
                        .map(|(path, _)| own(path))
                };
                differing(&self.contents, &other.contents)
                    .or_else(|| differing(&other.contents, &self.contents))
            })
            .or_else(|| {
                let same = self.head == other.head
                    && self.head_reference == other.head_reference
                    && self.lost == other.lost
                    && self.others == other.others;
                (!same).then(|| RepoPath::from_bytes(".git"))
            })
    }

    /// Sums up all that [`first_difference`](Self::first_difference) regards, for a later process to compare with.
    pub(crate) fn fingerprint(&self, hash: gix::hash::Kind) -> Result<String> {
        let text = format!(
            "{}\n{} {:?}\n{:?}\n{:?}\n{:?}\n",
            self.scan.fingerprint(hash)?,
            self.head,
            self.head_reference,
            self.contents,
            self.lost,
            self.others
        );
        objs::compute_hash(hash, Kind::Blob, text.as_bytes())
            .map(|id| id.to_string())
            .map_err(|error| WorktreeError::git("sum up a worktree", error))
    }
}

/// The bytes of an administrative directory's files, summed up.
pub(crate) type Contents = BTreeMap<RepoPath, ObjectId>;

/// Reads every file of an administrative directory but our own and git's lock.
pub(crate) fn contents(admin: &Path, hash: gix::hash::Kind) -> Result<Contents> {
    let mut files = state::admin_files(admin)?;
    for name in ["gitdir", "commondir"] {
        files.push(AdminFile {
            path: RepoPath::from_bytes(name),
            place: admin.join(name),
        });
    }
    let mut contents = Contents::new();
    for file in files {
        let bytes = files::read_optional(&file.place)
            .map_err(|error| WorktreeError::io("read", &file.place, error))?
            .unwrap_or_default();
        let id = objs::compute_hash(hash, Kind::Blob, &bytes)
            .map_err(|error| WorktreeError::git(format!("sum up {}", file.path), error))?;
        contents.insert(file.path, id);
    }
    Ok(contents)
}

fn in_modules(path: &RepoPath) -> bool {
    path.as_bytes()
        .strip_prefix(MODULES.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"/"))
}

/// Names the files that neither git makes again nor a look at the index, HEAD and the logs accounts for.
fn private(
    repository: &gix::Repository,
    files: &[AdminFile],
    commits: &BTreeSet<ObjectId>,
) -> Result<Vec<RepoPath>> {
    let mut private = Vec::new();
    for file in files {
        let accounted = match file.path.as_bytes() {
            b"HEAD" | b"index" | b"ORIG_HEAD" | b"FETCH_HEAD" | b"logs/HEAD" => true,
            b"COMMIT_EDITMSG" => was_committed(repository, file, commits)?,
            path => path.starts_with(b"sharedindex."),
        };
        if !accounted {
            private.push(file.path.clone());
        }
    }
    Ok(private)
}

/// Tells whether the message that git kept is that of a commit; a commit that failed leaves what was typed for it.
fn was_committed(
    repository: &gix::Repository,
    file: &AdminFile,
    commits: &BTreeSet<ObjectId>,
) -> Result<bool> {
    let bytes =
        fs::read(&file.place).map_err(|error| WorktreeError::io("read", &file.place, error))?;
    let kept = bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.starts_with(b"#"))
        .collect::<Vec<_>>()
        .join(&b'\n');
    Ok(commits.iter().any(|id| {
        repository.find_commit(*id).is_ok_and(|commit| {
            commit
                .message_raw()
                .is_ok_and(|message| message.trim_ascii() == kept.trim_ascii())
        })
    }))
}

fn read_head(repository: &gix::Repository, admin: &Path) -> Result<(ObjectId, Option<String>)> {
    let unreadable = |why: &str| {
        WorktreeError::new(
            ErrorKind::Corrupt,
            format!("HEAD in {} {why}", admin.display()),
        )
    };
    match registry::read_head(admin, repository) {
        Head::Detached(commit) => Ok((refs::object_id(repository, &commit)?, None)),
        Head::Branch {
            reference,
            commit: Some(commit),
        } => Ok((refs::object_id(repository, &commit)?, Some(reference))),
        Head::Branch {
            reference,
            commit: None,
        } => Err(unreadable(&format!(
            "names {reference}, which has no commit"
        ))),
        Head::Unreadable => Err(unreadable("cannot be read")),
    }
}

/// Opens the index as it is on disk; an empty one stands for none.
fn open_index(repository: &gix::Repository, admin: &Path) -> Result<gix::index::File> {
    let path = admin.join("index");
    match fs::symlink_metadata(&path) {
        Ok(_) => {}
        Err(error) if files::is_absent(&error) => {
            let empty = gix::index::State::new(repository.object_hash());
            return Ok(gix::index::File::from_state(empty, path));
        }
        Err(error) => return Err(WorktreeError::io("look at", &path, error)),
    }
    repository
        .open_index()
        .map_err(|error| WorktreeError::git(format!("read the index {}", path.display()), error))
}

/// Lists the paths at which the index differs from HEAD's tree.
fn staged(
    repository: &gix::Repository,
    head: ObjectId,
    index: &gix::index::File,
) -> Result<Vec<RepoPath>> {
    let committed = checkout::index_of_commit(repository, head)?;
    let entries = |index: &gix::index::File| -> BTreeSet<(Vec<u8>, u32, ObjectId)> {
        index
            .entries()
            .iter()
            .filter(|entry| {
                entry.stage() == Stage::Unconflicted && !entry.flags.contains(Flags::INTENT_TO_ADD)
            })
            .map(|entry| (entry.path(index).to_vec(), entry.mode.bits(), entry.id))
            .collect()
    };
    let conflicted: BTreeSet<_> = conflicted(index).into_iter().collect();
    let paths: BTreeSet<_> = entries(&committed)
        .symmetric_difference(&entries(index))
        .map(|(path, _, _)| RepoPath::from_bytes(path.clone()))
        .filter(|path| !conflicted.contains(path))
        .collect();
    Ok(paths.into_iter().collect())
}

fn conflicted(index: &gix::index::File) -> Vec<RepoPath> {
    let paths: BTreeSet<_> = index
        .entries()
        .iter()
        .filter(|entry| entry.stage() != Stage::Unconflicted)
        .map(|entry| RepoPath::from_bytes(entry.path(index).to_vec()))
        .collect();
    paths.into_iter().collect()
}

fn announced(index: &gix::index::File) -> Vec<RepoPath> {
    index
        .entries()
        .iter()
        .filter(|entry| entry.flags.contains(Flags::INTENT_TO_ADD))
        .map(|entry| RepoPath::from_bytes(entry.path(index).to_vec()))
        .collect()
}
