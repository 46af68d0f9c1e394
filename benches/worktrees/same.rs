//! Holds both sides' worktrees against each other: the reference must do the work that runtree does.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use runtree_worktree::BranchPolicy;

use crate::fixture::{Fixture, Workers};

/// Checks that both sides leave the same files, and that git finds no change in ours.
pub(crate) fn check(fixture: &Fixture) {
    let ours = fixture
        .add(&fixture.next_name())
        .expect("a worktree can be added");
    let contents = contents(ours.path());
    assert!(!contents.is_empty(), "runtree writes no files");
    for workers in [Workers::One, Workers::EachCore] {
        let name = fixture.next_name();
        assert!(fixture.git_add(&name, workers), "git adds no worktree");
        compare(&contents, &fixture.git_path(&name));
        fixture.git_forget(&name);
    }
    fixture.git_status(ours.path());
    fixture.remove(&ours, BranchPolicy::DeleteMerged);
}

/// The files of a worktree by their path: kind and permissions, then bytes, or where a link leads.
type Contents = BTreeMap<PathBuf, (u32, Vec<u8>)>;

fn compare(ours: &Contents, other: &Path) {
    let gits = contents(other);
    assert!(ours.keys().eq(gits.keys()), "git writes other files");
    for (path, ours) in ours {
        let path_shown = path.display();
        assert_eq!(ours.0, gits[path].0, "the mode of {path_shown}");
        assert!(ours.1 == gits[path].1, "the bytes of {path_shown}");
    }
}

fn contents(worktree: &Path) -> Contents {
    let mut contents = Contents::new();
    collect(worktree, worktree, &mut contents).expect("a worktree can be read");
    // It says where the registration is, which is another one for each.
    assert!(
        contents.remove(Path::new(".git")).is_some(),
        "it is no worktree"
    );
    contents
}

fn collect(top: &Path, directory: &Path, contents: &mut Contents) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        let kind = metadata.file_type();
        let bytes = if kind.is_dir() {
            collect(top, &path, contents)?;
            Vec::new()
        } else if kind.is_symlink() {
            fs::read_link(&path)?.as_os_str().as_bytes().to_vec()
        } else {
            fs::read(&path)?
        };
        let inside = path.strip_prefix(top).expect("because it lies inside");
        let mode = metadata.permissions().mode();
        contents.insert(inside.to_owned(), (mode, bytes));
    }
    Ok(())
}
