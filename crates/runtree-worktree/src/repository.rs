//! The handle on one git repository: found, checked and opened once, cloned cheaply.

use std::{
    fmt,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use gix::open::{Permissions, permissions};
use runtree_id::CommitId;
use runtree_time::{Clock, SystemClock};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files,
    layout::{self, Layout},
    names::LockHolder,
    refs, registry,
    steps::{Journey, Operation, StepObserver},
};

/// The worktrees of one git repository.
///
/// A handle is cheap to clone and may be shared between threads; all its calls block on files, so an asynchronous caller
/// keeps them off its workers.
#[derive(Clone)]
pub struct Worktrees {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) repository: gix::ThreadSafeRepository,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) holder: LockHolder,
    pub(crate) observer: Option<Arc<dyn StepObserver>>,
    pub(crate) forbidden: Vec<PathBuf>,
    pub(crate) scope: ConfigScope,
}

/// Whose git configuration counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigScope {
    /// The machine's, the user's and the repository's, as for git; variables named `GIT_*` do not count.
    #[default]
    User,
    /// The repository's alone.
    Repository,
}

/// Collects what a [`Worktrees`] handle needs.
#[must_use]
pub struct WorktreesBuilder {
    path: PathBuf,
    root: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    holder: LockHolder,
    observer: Option<Arc<dyn StepObserver>>,
    forbidden: Vec<PathBuf>,
    scope: ConfigScope,
}

impl fmt::Debug for Worktrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worktrees")
            .field("common", &self.inner.layout.common)
            .field("root", &self.inner.layout.root)
            .field("holder", &self.inner.holder)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WorktreesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorktreesBuilder")
            .field("path", &self.path)
            .field("root", &self.root)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

impl WorktreesBuilder {
    /// Puts new worktrees under `root` instead of a sibling directory of the main worktree.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// Takes the present from `clock`.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Names this process to whoever meets its locks.
    pub fn holder(mut self, holder: LockHolder) -> Self {
        self.holder = holder;
        self
    }

    /// Lets `observer` hear of every durable step.
    pub fn observer(mut self, observer: Arc<dyn StepObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Forbids roots in these directories, such as the system's temporary one, and the removal of any directory that holds one of
    /// them, such as the user's home.
    pub fn forbid<I>(mut self, directories: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<PathBuf>,
    {
        self.forbidden
            .extend(directories.into_iter().map(Into::into));
        self
    }

    /// States whose git configuration counts.
    pub fn config_scope(mut self, scope: ConfigScope) -> Self {
        self.scope = scope;
        self
    }

    /// Opens the git repository and checks the root.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotARepository`], [`ErrorKind::Untrusted`], [`ErrorKind::UnsupportedFormat`], [`ErrorKind::UnsafeRoot`], and
    /// those of the file system.
    pub fn open(self) -> Result<Worktrees> {
        let common = find_common_directory(&self.path)?;
        refuse_unsupported_format(&common)?;
        let repository = open_at(&common, self.scope).map_err(|error| {
            if owner_differs(&common) {
                return WorktreeError::new(
                    ErrorKind::Untrusted,
                    format!(
                        "the git repository {} belongs to another user; list it in git's safe.directory to trust it",
                        common.display()
                    ),
                )
                .with_source(error);
            }
            WorktreeError::git(format!("open the git repository {}", common.display()), error)
        })?;
        let local = repository.to_thread_local();
        let main = if local.is_bare() {
            None
        } else {
            local.workdir().map(Path::to_owned)
        };
        let root = match self.root {
            Some(root) => layout::normalize(
                &std::path::absolute(&root)
                    .map_err(|error| WorktreeError::io("resolve", &root, error))?,
            ),
            None => default_root(main.as_deref().unwrap_or(&common)),
        };
        let root = layout::resolve_existing(&root)
            .map_err(|error| WorktreeError::io("resolve", &root, error))?;
        let forbidden = self
            .forbidden
            .iter()
            .map(|path| {
                layout::resolve_existing(path)
                    .map_err(|error| WorktreeError::io("resolve", path, error))
            })
            .collect::<Result<_>>()?;
        let worktrees = Worktrees {
            inner: Arc::new(Inner {
                layout: Layout { common, main, root },
                repository,
                clock: self.clock,
                holder: self.holder,
                observer: self.observer,
                forbidden,
                scope: self.scope,
            }),
        };
        worktrees.refuse_unsafe_root()?;
        Ok(worktrees)
    }
}

impl Worktrees {
    /// Opens the git repository that `path` lies in: a main worktree, a linked one, or a `.git` directory.
    ///
    /// # Errors
    ///
    /// As [`WorktreesBuilder::open`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Starts a handle with other than the default settings.
    pub fn builder(path: impl Into<PathBuf>) -> WorktreesBuilder {
        WorktreesBuilder {
            path: path.into(),
            root: None,
            clock: Arc::new(SystemClock),
            holder: LockHolder::unnamed(),
            observer: None,
            forbidden: Vec::new(),
            scope: ConfigScope::default(),
        }
    }

    /// Returns this handle under another name to whoever meets its locks.
    #[must_use]
    pub fn with_holder(&self, holder: LockHolder) -> Self {
        let inner = Inner {
            holder,
            ..Inner::clone(&self.inner)
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Returns where new worktrees go.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.layout.root
    }

    /// Returns the main worktree, or the repository itself where it is bare.
    #[must_use]
    pub fn main_path(&self) -> &Path {
        let layout = &self.inner.layout;
        layout.main.as_deref().unwrap_or(&layout.common)
    }

    /// Finds the commit that a revision (`HEAD`, a branch, a tag, a commit) names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoCommit`] while the git repository has no commit, [`ErrorKind::RevisionNotFound`].
    pub fn resolve(&self, revision: &str) -> Result<CommitId> {
        let repository = self.repository();
        let not_found = |error: gix::Error| {
            if refs::has_no_commit(&repository) {
                return self.no_commit();
            }
            WorktreeError::new(
                ErrorKind::RevisionNotFound,
                format!(
                    "the revision {revision:?} names no commit in {}",
                    self.main_path().display()
                ),
            )
            .with_source(error)
        };
        let commit = repository
            .rev_parse_single(revision)
            .and_then(|id| id.object())
            .and_then(gix::Object::peel_to_commit)
            .map_err(not_found)?;
        refs::commit_id(commit.id)
    }

    pub(crate) fn no_commit(&self) -> WorktreeError {
        WorktreeError::new(
            ErrorKind::NoCommit,
            format!(
                "the git repository {} has no commit yet; make a first commit",
                self.main_path().display()
            ),
        )
    }

    /// A handle for this thread on the repository, as seen from its main worktree.
    pub(crate) fn repository(&self) -> gix::Repository {
        self.inner.repository.to_thread_local()
    }

    /// A handle on the repository as seen from the worktree with this administrative directory, whose files are at `directory`.
    pub(crate) fn open_worktree(&self, admin: &Path, directory: &Path) -> Result<gix::Repository> {
        let fail =
            |error| WorktreeError::git(format!("open the worktree {}", directory.display()), error);
        // The repository was found trustworthy when it was opened; its linked worktree is not asked again, as its directory may be
        // missing or in the trash.
        let mut repository = options(admin, self.inner.scope)
            .with(gix::sec::Trust::Full)
            .filter_config_section(|_| true)
            .open(admin)
            .map_err(fail)?
            .to_thread_local();
        if files::exists(directory)? {
            repository.set_workdir(directory.to_owned()).map_err(fail)?;
        }
        Ok(repository)
    }

    pub(crate) fn journey(&self, operation: Operation) -> Journey<'_> {
        Journey {
            operation,
            observer: self.inner.observer.as_deref(),
        }
    }

    /// A root inside git's own directory, a forbidden directory, or a worktree that does not ignore it, endangers what lies in it.
    fn refuse_unsafe_root(&self) -> Result<()> {
        let Inner {
            layout, forbidden, ..
        } = &*self.inner;
        let refuse = |why: String| {
            Err(WorktreeError::new(
                ErrorKind::UnsafeRoot,
                format!(
                    "the root {} for worktrees is {why}; choose another",
                    layout.root.display()
                ),
            ))
        };
        if layout.root.starts_with(&layout.common) {
            return refuse(format!(
                "inside git's directory {}",
                layout.common.display()
            ));
        }
        if let Some(place) = forbidden
            .iter()
            .find(|place| layout.root.starts_with(place))
        {
            return refuse(format!("inside {}, which is forbidden", place.display()));
        }
        let linked = registry::read_all(layout, &self.repository())?;
        for worktree in linked.iter().filter(|worktree| !worktree.is_bare()) {
            let Ok(inside) = layout.root.strip_prefix(worktree.path()) else {
                continue;
            };
            if inside.as_os_str().is_empty() || !self.ignores(worktree.path(), inside)? {
                return refuse(format!(
                    "inside the worktree {}, which does not ignore it",
                    worktree.path().display()
                ));
            }
        }
        Ok(())
    }

    fn ignores(&self, worktree: &Path, inside: &Path) -> Result<bool> {
        let look = || -> Result<bool, gix::Error> {
            let repository = open_at(&worktree.join(".git"), self.inner.scope)?.to_thread_local();
            let index = repository.index_or_empty()?;
            let tracked = {
                let index: &gix::index::State = &index;
                index.path_is_directory(inside.as_os_str().as_bytes().into())
            };
            let mut excludes = repository.excludes(
                &index,
                None,
                gix::worktree::stack::state::ignore::Source::WorktreeThenIdMappingIfNotSkipped,
            )?;
            let excluded = excludes
                .at_path(inside, Some(gix::index::entry::Mode::DIR))?
                .is_excluded();
            Ok(excluded && !tracked)
        };
        look().map_err(|error| {
            WorktreeError::git(format!("read what {} ignores", worktree.display()), error)
        })
    }
}

/// Opens a git directory as it stands, with no variable of the environment pointing it elsewhere.
fn open_at(git_dir: &Path, scope: ConfigScope) -> Result<gix::ThreadSafeRepository, gix::Error> {
    options(git_dir, scope)
        .bail_if_untrusted(true)
        .open(git_dir)
}

fn options(git_dir: &Path, scope: ConfigScope) -> gix::open::Options {
    let permissions = match scope {
        ConfigScope::Repository => Permissions::isolated(),
        ConfigScope::User => Permissions {
            env: permissions::Environment {
                home: gix::sec::Permission::Allow,
                xdg_config_home: gix::sec::Permission::Allow,
                ..permissions::Environment::isolated()
            },
            config: permissions::Config {
                env: false,
                ..permissions::Config::all()
            },
            attributes: permissions::Attributes::all(),
        },
    };
    gix::open::Options::default()
        .permissions(permissions)
        .open_path_as_is(git_dir.file_name() != Some(".git".as_ref()))
}

fn default_root(main: &Path) -> PathBuf {
    let mut name = main.file_name().unwrap_or("repository".as_ref()).to_owned();
    name.push(".worktrees");
    main.with_file_name(name)
}

fn owner_differs(directory: &Path) -> bool {
    std::fs::metadata(directory).is_ok_and(|meta| meta.uid() != rustix::process::geteuid().as_raw())
}

/// Walks up from `path` to the git repository it lies in, and from a linked worktree to the common directory.
fn find_common_directory(path: &Path) -> Result<PathBuf> {
    let not_found = || {
        WorktreeError::new(
            ErrorKind::NotARepository,
            format!(
                "{} is in no git repository; name a directory inside one, or make one there with `git init`",
                path.display()
            ),
        )
    };
    let start = match path.canonicalize() {
        Ok(start) => start,
        Err(error) if files::is_absent(&error) => return Err(not_found().with_source(error)),
        Err(error) => return Err(WorktreeError::io("open", path, error)),
    };
    for directory in start.ancestors() {
        if let Some(git_dir) = git_directory_at(directory)? {
            return common_directory_of(&git_dir);
        }
    }
    Err(not_found())
}

/// Tells the git directory of a worktree, or that this is one.
fn git_directory_at(directory: &Path) -> Result<Option<PathBuf>> {
    if is_git_directory(directory) {
        return Ok(Some(directory.to_owned()));
    }
    let dot_git = directory.join(".git");
    if is_git_directory(&dot_git) {
        return Ok(Some(dot_git));
    }
    if !dot_git.is_file() {
        return Ok(None);
    }
    let line =
        std::fs::read(&dot_git).map_err(|error| WorktreeError::io("read", &dot_git, error))?;
    layout::parse_path_line(&line, "gitdir: ", directory)
        .filter(|git_dir| is_git_directory(git_dir))
        .map(Some)
        .ok_or_else(|| {
            WorktreeError::new(
                ErrorKind::NotARepository,
                format!("{} names no git directory", dot_git.display()),
            )
        })
}

fn is_git_directory(directory: &Path) -> bool {
    directory.join("HEAD").symlink_metadata().is_ok()
        && (directory.join("commondir").is_file()
            || (directory.join("objects").is_dir() && directory.join("refs").is_dir()))
}

fn common_directory_of(git_dir: &Path) -> Result<PathBuf> {
    let file = git_dir.join("commondir");
    let common = match files::read_optional(&file)
        .map_err(|error| WorktreeError::io("read", &file, error))?
    {
        None => git_dir.to_owned(),
        Some(line) => layout::parse_path_line(&line, "", git_dir).ok_or_else(|| {
            WorktreeError::new(
                ErrorKind::NotARepository,
                format!("{} is empty", file.display()),
            )
        })?,
    };
    common
        .canonicalize()
        .map_err(|error| WorktreeError::io("open", &common, error))
}

fn refuse_unsupported_format(common: &Path) -> Result<()> {
    let path = common.join("config");
    let config = gix::config::File::from_path_no_includes(path.clone(), gix::config::Source::Local)
        .map_err(|error| WorktreeError::git(format!("read {}", path.display()), error))?;
    let storage = config.string("extensions.refStorage");
    match storage {
        Some(storage) if storage.as_slice() != b"files" => Err(WorktreeError::new(
            ErrorKind::UnsupportedFormat,
            format!(
                "the git repository {} keeps its references as {storage}, which is not supported; convert them with `git refs migrate --ref-format=files`",
                common.display()
            ),
        )),
        Some(_) | None => Ok(()),
    }
}
