//! A look into one worktree, ours or not, that reports and changes nothing.

use std::path::{Path, PathBuf};

use crate::{
    error::{ErrorKind, Result, WorktreeError},
    files, refs, registry,
    report::{Inspection, Probe},
    repository::Worktrees,
    request::Disposable,
    scan::{self, Store},
    snapshot::{Place, Snapshot},
    state,
};

impl Worktrees {
    /// Tells everything in the linked worktree at `path` that removing it would touch; nothing in the user's configuration hides any.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when no linked worktree is registered there. A look that fails is [`Probe::Unknown`] and no error.
    pub fn inspect(&self, path: impl AsRef<Path>) -> Result<Inspection> {
        let path = path.as_ref();
        let admin = self.admin_of(path)?;
        let head = registry::read_head(&admin, &self.repository());
        let in_progress: Vec<_> = state::in_progress(&admin).into_iter().collect();
        let lock_files = state::admin_files(&admin).map(|files| state::lock_files(&files));
        let place = Place {
            admin: &admin,
            directory: path,
            present: files::exists(path)?,
        };
        let options = scan::Options {
            store: Store::Hash,
            disposable: &Disposable::none(),
            unfinished: None,
        };
        let snapshot = Snapshot::take(self, place, options);
        let (files, nested, only_here) = match snapshot {
            Ok(snapshot) => {
                let lost = snapshot
                    .lost
                    .keys()
                    .map(|id| refs::commit_id(*id))
                    .collect::<Result<Vec<_>>>()?;
                (
                    probe(snapshot.dirty_files()),
                    probe(snapshot.scan.nested),
                    probe(lost),
                )
            }
            Err(error) => {
                let why = error.to_string();
                (
                    Probe::Unknown(why.clone()),
                    Probe::Unknown(why.clone()),
                    Probe::Unknown(why),
                )
            }
        };
        Ok(Inspection {
            path: path.to_owned(),
            head,
            files,
            in_progress: probe(in_progress),
            nested,
            only_here,
            lock_files: match lock_files {
                Ok(names) => probe(names),
                Err(error) => Probe::Unknown(error.to_string()),
            },
        })
    }

    /// Finds the registration of the linked worktree at `path`.
    fn admin_of(&self, path: &Path) -> Result<PathBuf> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let wanted = real(path);
        registry::registrations(&self.inner.layout)?
            .into_iter()
            .find(|admin| registry::read_gitdir(admin).is_ok_and(|found| real(&found) == wanted))
            .ok_or_else(|| {
                WorktreeError::new(
                    ErrorKind::NotFound,
                    format!("no linked worktree is registered at {}", path.display()),
                )
            })
    }
}

fn probe<T>(found: Vec<T>) -> Probe<Vec<T>> {
    if found.is_empty() {
        Probe::Clean
    } else {
        Probe::Dirty(found)
    }
}
