//! A look at every file of a worktree, by content and with no regard for settings that would hide one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use gix::{
    ObjectId,
    filter::plumbing::{
        driver::apply::MaybeDelayed,
        pipeline::convert::{ToGitOutcome, ToWorktreeOutcome, to_worktree},
    },
    index::{
        Entry,
        entry::{self, Flags, Mode, Stage, Stat},
    },
    objs::{self, Kind, Write, tree::EntryKind},
};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    report::{Dirt, RepoPath},
    request::Disposable,
    tree,
};

/// Whether what is found is only hashed, or written to the object database too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Hash,
    Write,
}

/// What a scan takes for granted.
pub(crate) struct Options<'a> {
    pub(crate) store: Store,
    pub(crate) disposable: &'a Disposable,
    /// The making of the worktree was cut short: files that are missing, or hold the beginning of what they should, are no dirt.
    pub(crate) unfinished: Option<Unfinished>,
}

/// What a half-made worktree may hold beyond its index: the files of the salvage that was being restored.
#[derive(Default)]
pub(crate) struct Unfinished {
    pub(crate) salvaged: BTreeMap<RepoPath, ObjectId>,
}

/// A file on disk that differs from what the index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: RepoPath,
    pub(crate) dirt: Dirt,
    pub(crate) kind: EntryKind,
    pub(crate) permissions: u32,
    /// The bytes on disk as a blob, unfiltered.
    pub(crate) id: ObjectId,
}

/// What a worktree holds beyond its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// On disk, and different.
    pub(crate) found: Vec<Found>,
    /// In the index, not on disk, and meant to be.
    pub(crate) deleted: Vec<RepoPath>,
    /// In the index and marked as not to be on disk, where they are not.
    pub(crate) skipped: Vec<RepoPath>,
    /// Ignored and listed as disposable; not part of comparisons.
    pub(crate) disposed: Vec<RepoPath>,
    /// Directories without entries.
    pub(crate) empty_directories: Vec<RepoPath>,
    /// Repositories inside.
    pub(crate) nested: Vec<RepoPath>,
    /// Other file systems inside.
    pub(crate) mounts: Vec<PathBuf>,
    /// What can be neither saved nor passed over.
    pub(crate) unsavable: Vec<RepoPath>,
}

impl Scan {
    /// Names the first path about which two scans differ.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<RepoPath> {
        let list = |scan: &Self| -> BTreeSet<(RepoPath, String)> {
            let found = scan
                .found
                .iter()
                .map(|found| (found.path.clone(), format!("{found:?}")));
            let marked = |paths: &Vec<RepoPath>, mark: &str| -> Vec<_> {
                paths
                    .iter()
                    .map(|path| (path.clone(), mark.to_owned()))
                    .collect()
            };
            found
                .chain(marked(&scan.deleted, "deleted"))
                .chain(marked(&scan.skipped, "skipped"))
                .chain(marked(&scan.empty_directories, "empty"))
                .chain(marked(&scan.nested, "nested"))
                .chain(marked(&scan.unsavable, "unsavable"))
                .collect()
        };
        let (one, other) = (list(self), list(other));
        one.symmetric_difference(&other)
            .next()
            .map(|(path, _)| path.clone())
    }

    /// Sums up all that comparisons regard, for a later process to compare with.
    pub(crate) fn fingerprint(&self, hash: gix::hash::Kind) -> Result<String> {
        let mut text = String::new();
        for found in &self.found {
            text.push_str(&format!("{found:?}\n"));
        }
        for list in [
            &self.deleted,
            &self.skipped,
            &self.empty_directories,
            &self.nested,
            &self.unsavable,
        ] {
            text.push_str(&format!("{list:?}\n"));
        }
        objs::compute_hash(hash, Kind::Blob, text.as_bytes())
            .map(|id| id.to_string())
            .map_err(|error| WorktreeError::git("sum up a worktree", error))
    }
}

/// Looks at every file below `directory`, the checkout of `repository`, whose index is `index`.
pub(crate) fn scan(
    repository: &gix::Repository,
    index: &gix::index::File,
    directory: &Path,
    options: Options<'_>,
) -> Result<Scan> {
    if index.is_sparse() {
        return Err(WorktreeError::new(
            ErrorKind::UnsupportedFormat,
            format!("the index of {} is sparse", directory.display()),
        ));
    }
    let device = fs::symlink_metadata(directory)
        .map_err(|error| WorktreeError::io("look at", directory, error))?
        .dev();
    let fail = |error| WorktreeError::git("read the attributes and ignore rules", error);
    let excludes = repository
        .excludes(
            index,
            None,
            gix::worktree::stack::state::ignore::Source::WorktreeThenIdMappingIfNotSkipped,
        )
        .map_err(fail)?;
    // Those in force: the files on disk, whether or not git knows them, before those in the index.
    let attributes = repository
        .attributes_only(
            index,
            gix::worktree::stack::state::attributes::Source::WorktreeThenIdMapping,
        )
        .map_err(fail)?;
    let conflicted = index
        .entries()
        .iter()
        .filter(|entry| entry.stage() != Stage::Unconflicted)
        .map(|entry| entry.path(index).to_vec())
        .collect();
    let mut scanner = Scanner {
        repository,
        index,
        filters: None,
        converts_all: converts_line_ends(repository),
        converting: attributes.selected_attribute_matches(CONVERTING),
        attributes,
        excludes,
        conflicted,
        seen: BTreeSet::new(),
        device,
        options,
        scan: Scan::default(),
    };
    scanner.directory(directory, &RepoPath::from_bytes(""))?;
    scanner.note_absent();
    let mut scan = scanner.scan;
    scan.found.sort_by(|one, other| one.path.cmp(&other.path));
    for list in [
        &mut scan.deleted,
        &mut scan.skipped,
        &mut scan.disposed,
        &mut scan.empty_directories,
        &mut scan.nested,
        &mut scan.unsavable,
    ] {
        list.sort();
    }
    Ok(scan)
}

/// The attributes by which a file on disk differs from its blob.
const CONVERTING: [&str; 6] = [
    "filter",
    "text",
    "eol",
    "crlf",
    "ident",
    "working-tree-encoding",
];

/// Tells whether line ends are converted in files that no attribute names.
fn converts_line_ends(repository: &gix::Repository) -> bool {
    let config = repository.config_snapshot();
    config
        .boolean("core.autocrlf")
        .unwrap_or_else(|| config.string("core.autocrlf").is_some())
}

struct Scanner<'a> {
    repository: &'a gix::Repository,
    index: &'a gix::index::File,
    filters: Option<gix::filter::Pipeline<'a>>,
    /// Whether the settings alone make any file on disk differ from its blob.
    converts_all: bool,
    attributes: gix::AttributeStack<'a>,
    converting: gix::attrs::search::Outcome,
    excludes: gix::AttributeStack<'a>,
    conflicted: BTreeSet<Vec<u8>>,
    /// Paths of index entries that are on disk.
    seen: BTreeSet<RepoPath>,
    device: u64,
    options: Options<'a>,
    scan: Scan,
}

/// A name in a directory, and what it is.
struct Listed {
    path: RepoPath,
    place: PathBuf,
    meta: Metadata,
}

impl<'a> Scanner<'a> {
    fn directory(&mut self, place: &Path, path: &RepoPath) -> Result<()> {
        let Some(entries) = self.list(place, path)? else {
            return Ok(());
        };
        if entries.is_empty() && !path.as_bytes().is_empty() {
            if self
                .entry(path)
                .is_some_and(|entry| entry.mode == Mode::COMMIT)
            {
                self.seen.insert(path.clone());
            } else {
                self.scan.empty_directories.push(path.clone());
            }
        }
        for listed in entries {
            if listed.meta.is_dir() {
                self.subdirectory(&listed)?;
            } else {
                self.file(&listed)?;
            }
        }
        Ok(())
    }

    /// Lists a directory; none if it is a repository of its own, which is noted and not entered.
    fn list(&mut self, place: &Path, path: &RepoPath) -> Result<Option<Vec<Listed>>> {
        let fail = |error| WorktreeError::io("list", place, error);
        let top = path.as_bytes().is_empty();
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(place).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let name = name.as_bytes();
            names.insert(name.to_vec());
            if name.eq_ignore_ascii_case(b".git") {
                continue;
            }
            entries.push(Listed {
                path: path.join(name),
                place: entry.path(),
                meta: entry.metadata().map_err(fail)?,
            });
        }
        let bare = [&b"HEAD"[..], b"objects", b"refs"]
            .iter()
            .all(|name| names.contains(*name));
        let other_git = names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(b".git") && !(top && name == b".git"));
        if other_git || (bare && place.join("objects").is_dir() && place.join("refs").is_dir()) {
            self.scan.nested.push(path.clone());
            return Ok(None);
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Some(entries))
    }

    fn subdirectory(&mut self, listed: &Listed) -> Result<()> {
        if listed.meta.dev() != self.device {
            self.scan.mounts.push(listed.place.clone());
            return Ok(());
        }
        let holds_tracked = self.index.path_is_directory(listed.path.as_bytes().into());
        if !holds_tracked
            && self.options.disposable.covers(&listed.path)
            && self.is_ignored(&listed.path, Some(Mode::DIR))?
        {
            self.scan.disposed.push(listed.path.clone());
            return self.look_for_nested(&listed.place, &listed.path);
        }
        self.directory(&listed.place, &listed.path)
    }

    /// Even what may go unsaved is searched for repositories.
    fn look_for_nested(&mut self, place: &Path, path: &RepoPath) -> Result<()> {
        let Some(entries) = self.list(place, path)? else {
            return Ok(());
        };
        for listed in entries.iter().filter(|listed| listed.meta.is_dir()) {
            if listed.meta.dev() == self.device {
                self.look_for_nested(&listed.place, &listed.path)?;
            } else {
                self.scan.mounts.push(listed.place.clone());
            }
        }
        Ok(())
    }

    fn is_ignored(&mut self, path: &RepoPath, mode: Option<Mode>) -> Result<bool> {
        self.excludes
            .at_path(path.to_path(), mode)
            .map(|platform| platform.is_excluded())
            .map_err(|error| WorktreeError::git(format!("tell whether {path} is ignored"), error))
    }

    fn entry(&self, path: &RepoPath) -> Option<&'a Entry> {
        self.index
            .entry_by_path_and_stage(path.as_bytes().into(), Stage::Unconflicted)
    }

    fn file(&mut self, listed: &Listed) -> Result<()> {
        let kind = if listed.meta.is_symlink() {
            EntryKind::Link
        } else if !listed.meta.is_file() {
            self.scan.unsavable.push(listed.path.clone());
            return Ok(());
        } else if listed.meta.permissions().mode() & 0o100 != 0 {
            EntryKind::BlobExecutable
        } else {
            EntryKind::Blob
        };
        let dirt = match self.entry(&listed.path) {
            Some(entry) => {
                self.seen.insert(listed.path.clone());
                match self.tracked_dirt(listed, entry, kind)? {
                    None => return Ok(()),
                    Some(dirt) => dirt,
                }
            }
            None if self.conflicted.contains(listed.path.as_bytes()) => Dirt::Conflicted,
            None => match self.untracked_dirt(listed)? {
                None => return Ok(()),
                Some(dirt) => dirt,
            },
        };
        if self.is_leftover_of_checkout(listed, kind)? {
            return Ok(());
        }
        let id = self.raw_id(listed, self.options.store)?;
        self.scan.found.push(Found {
            path: listed.path.clone(),
            dirt,
            kind,
            permissions: listed.meta.permissions().mode() & 0o7777,
            id,
        });
        Ok(())
    }

    /// Tells how a file outside the index counts; none if it may go unsaved.
    fn untracked_dirt(&mut self, listed: &Listed) -> Result<Option<Dirt>> {
        let ignored = self.is_ignored(&listed.path, None)?;
        if ignored && self.options.disposable.covers(&listed.path) {
            self.scan.disposed.push(listed.path.clone());
            return Ok(None);
        }
        let safe = listed
            .path
            .as_bytes()
            .split(|&byte| byte == b'/')
            .all(|part| {
                gix::validate::path::component(part.into(), None, strictest_names()).is_ok()
            });
        if !safe {
            self.scan.unsavable.push(listed.path.clone());
            return Ok(None);
        }
        Ok(Some(if ignored {
            Dirt::Ignored
        } else {
            Dirt::Untracked
        }))
    }

    /// Tells how a file differs from its entry in the index, if it does.
    fn tracked_dirt(
        &mut self,
        listed: &Listed,
        entry: &Entry,
        kind: EntryKind,
    ) -> Result<Option<Dirt>> {
        if entry.flags.contains(Flags::INTENT_TO_ADD) {
            return Ok(Some(Dirt::IntentToAdd));
        }
        if tree::kind_of(entry.mode) == Some(kind) && self.holds_what_it_should(listed, entry)? {
            return Ok(None);
        }
        Ok(Some(if entry.flags.contains(Flags::SKIP_WORKTREE) {
            Dirt::SkipWorktree
        } else if entry.flags.contains(Flags::ASSUME_VALID) {
            Dirt::AssumeUnchanged
        } else {
            Dirt::Modified
        }))
    }

    fn holds_what_it_should(&mut self, listed: &Listed, entry: &Entry) -> Result<bool> {
        if self.stat_proves_unchanged(listed, entry)? {
            return Ok(true);
        }
        if self.raw_id(listed, Store::Hash)? == entry.id {
            return Ok(true);
        }
        if listed.meta.is_symlink() || !(self.converts_all || self.is_converted(&listed.path)?) {
            return Ok(false);
        }
        let bytes = fs::read(&listed.place)
            .map_err(|error| WorktreeError::io("read", &listed.place, error))?;
        // Only where both directions agree is nothing lost: a filter that folds two texts into one blob gives back just one.
        Ok(self.cleaned_id(&listed.path, &bytes) == Some(entry.id)
            && self.smudged(&listed.path, entry.id).as_deref() == Some(&bytes[..]))
    }

    /// The times and sizes git noted prove a file unchanged unless it was noted in the very instant of a write, or something converts it:
    /// an attribute, a setting, or, as its blob has another size, a filter that was there once.
    fn stat_proves_unchanged(&mut self, listed: &Listed, entry: &Entry) -> Result<bool> {
        let all = entry::stat::Options {
            trust_ctime: true,
            check_stat: true,
            use_nsec: true,
            use_stdev: false,
        };
        let meta = gix::index::fs::Metadata::from_path_no_follow(&listed.place)
            .map_err(|error| WorktreeError::io("look at", &listed.place, error))?;
        let Ok(now) = Stat::from_fs(&meta) else {
            return Ok(false);
        };
        if !entry.stat.matches(&now, all) || entry.stat.is_racy(self.index.timestamp(), all) {
            return Ok(false);
        }
        if self.converts_all || self.is_converted(&listed.path)? {
            return Ok(false);
        }
        let header = self.repository.find_header(entry.id).map_err(|error| {
            WorktreeError::git(format!("read the blob of {}", listed.path), error)
        })?;
        Ok(header.size() == listed.meta.len())
    }

    /// Tells whether an attribute makes the file on disk differ from its blob.
    fn is_converted(&mut self, path: &RepoPath) -> Result<bool> {
        let platform = self
            .attributes
            .at_path(path.to_path(), Some(Mode::FILE))
            .map_err(|error| WorktreeError::git(format!("read the attributes of {path}"), error))?;
        platform.matching_attributes(&mut self.converting);
        Ok(self.converting.iter_selected().any(|attribute| {
            matches!(
                attribute.assignment.state,
                gix::attrs::StateRef::Set | gix::attrs::StateRef::Value(_)
            )
        }))
    }

    fn filters(&mut self) -> Option<&mut gix::filter::Pipeline<'a>> {
        if self.filters.is_none() {
            self.filters = self
                .repository
                .filter_pipeline(None)
                .ok()
                .map(|(filters, _)| filters);
        }
        self.filters.as_mut()
    }

    /// What git would store for these bytes; none if a filter fails, which counts as a difference.
    fn cleaned_id(&mut self, path: &RepoPath, bytes: &[u8]) -> Option<ObjectId> {
        let (index, hash) = (self.index, self.repository.object_hash());
        let cleaned = match self
            .filters()?
            .convert_to_git(bytes, &path.to_path(), index)
            .ok()?
        {
            ToGitOutcome::Unchanged(_) => bytes.to_vec(),
            ToGitOutcome::Buffer(buffer) => buffer.to_vec(),
            ToGitOutcome::Process(mut process) => {
                let mut cleaned = Vec::new();
                process.read_to_end(&mut cleaned).ok()?;
                cleaned
            }
        };
        objs::compute_hash(hash, Kind::Blob, &cleaned).ok()
    }

    /// What git would check out for this blob; none if a filter fails.
    fn smudged(&mut self, path: &RepoPath, id: ObjectId) -> Option<Vec<u8>> {
        let blob = self.repository.find_blob(id).ok()?.data.clone();
        let outcome = self
            .filters()?
            .convert_to_worktree(
                &blob,
                path.as_bytes().into(),
                to_worktree::Options::default(),
            )
            .ok()?;
        match outcome {
            ToWorktreeOutcome::Unchanged(bytes) | ToWorktreeOutcome::Buffer(bytes) => {
                Some(bytes.to_vec())
            }
            ToWorktreeOutcome::Process(MaybeDelayed::Immediate(mut process)) => {
                let mut bytes = Vec::new();
                process.read_to_end(&mut bytes).ok()?;
                Some(bytes)
            }
            ToWorktreeOutcome::Process(MaybeDelayed::Delayed(_)) => None,
        }
    }

    /// Tells whether a file of a half-made worktree is one that we were writing: it holds the beginning of what belongs there.
    fn is_leftover_of_checkout(&mut self, listed: &Listed, kind: EntryKind) -> Result<bool> {
        let Some(unfinished) = &self.options.unfinished else {
            return Ok(false);
        };
        let salvaged = unfinished.salvaged.get(&listed.path).copied();
        let indexed = self.entry(&listed.path).map(|entry| entry.id);
        let bytes = if kind == EntryKind::Link {
            read_link(listed)?
        } else {
            fs::read(&listed.place)
                .map_err(|error| WorktreeError::io("read", &listed.place, error))?
        };
        for id in [salvaged, indexed].into_iter().flatten() {
            let raw = self
                .repository
                .find_blob(id)
                .ok()
                .map(|blob| blob.data.clone());
            if raw.is_some_and(|raw| raw.starts_with(&bytes))
                || self
                    .smudged(&listed.path, id)
                    .is_some_and(|smudged| smudged.starts_with(&bytes))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the bytes on disk, unfiltered, a blob.
    fn raw_id(&self, listed: &Listed, store: Store) -> Result<ObjectId> {
        let hash = self.repository.object_hash();
        let fail_io = |error| WorktreeError::io("read", &listed.place, error);
        let fail_git = |error| WorktreeError::git(format!("store {}", listed.path), error);
        if listed.meta.is_symlink() {
            let target = read_link(listed)?;
            return match store {
                Store::Hash => objs::compute_hash(hash, Kind::Blob, &target).map_err(fail_git),
                Store::Write => self
                    .repository
                    .write_blob(&target)
                    .map(gix::Id::detach)
                    .map_err(fail_git),
            };
        }
        let file = open_no_follow(&listed.place).map_err(fail_io)?;
        let size = file.metadata().map_err(fail_io)?.len();
        let mut file = Exactly { file, left: size };
        match store {
            Store::Hash => objs::compute_stream_hash(
                hash,
                Kind::Blob,
                &mut file,
                size,
                &mut gix::progress::Discard,
                &AtomicBool::new(false),
            )
            .map_err(fail_git),
            Store::Write => self
                .repository
                .objects
                .write_stream(Kind::Blob, size, &mut file)
                .map_err(|error| WorktreeError::git(format!("store {}", listed.path), error)),
        }
    }

    /// Notes the entries of the index that were not met on disk.
    fn note_absent(&mut self) {
        for entry in self.index.entries() {
            if entry.stage() != Stage::Unconflicted {
                continue;
            }
            let path = RepoPath::from_bytes(entry.path(self.index).to_vec());
            if self.seen.contains(&path) || self.options.unfinished.is_some() {
                continue;
            }
            if entry.flags.contains(Flags::SKIP_WORKTREE) {
                self.scan.skipped.push(path);
            } else {
                self.scan.deleted.push(path);
            }
        }
    }
}

/// Reads just as many bytes of a file as were announced, and fails if there are fewer or more: an object whose size is not the one in
/// its header harms the whole object database.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            return match self.file.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other("it grew while it was read")),
            };
        }
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let Some(part) = buffer.get_mut(..wanted) else {
            return Ok(0);
        };
        let read = self.file.read(part)?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it shrank while it was read",
            ));
        }
        self.left = self
            .left
            .saturating_sub(u64::try_from(read).unwrap_or(self.left));
        Ok(read)
    }
}

fn strictest_names() -> gix::validate::path::component::Options {
    gix::validate::path::component::Options {
        protect_windows: false,
        protect_hfs: true,
        protect_ntfs: true,
    }
}

fn read_link(listed: &Listed) -> Result<Vec<u8>> {
    fs::read_link(&listed.place)
        .map(|target| target.as_os_str().as_bytes().to_vec())
        .map_err(|error| WorktreeError::io("read the link", &listed.place, error))
}

fn open_no_follow(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    File::options().read(true).custom_flags(flags).open(path)
}
