//! Trees from flat lists of paths, written only when they are to be kept.

use std::collections::BTreeMap;

use gix::{
    ObjectId,
    index::entry::{Flags, Mode, Stage},
    objs::{
        self,
        tree::{Entry, EntryKind},
    },
};

use crate::{
    error::{Result, WorktreeError},
    report::RepoPath,
};

/// A tree being put together.
#[derive(Default)]
pub(crate) struct TreeBuilder {
    children: BTreeMap<Vec<u8>, Child>,
}

enum Child {
    Leaf(EntryKind, ObjectId),
    Tree(TreeBuilder),
}

impl TreeBuilder {
    /// Puts an entry at `path`; what was at the path, above it or below it goes.
    pub(crate) fn insert(&mut self, path: &RepoPath, kind: EntryKind, id: ObjectId) {
        let mut node = self;
        let mut parts = path.as_bytes().split(|&byte| byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                node.children.insert(part.to_vec(), Child::Leaf(kind, id));
                return;
            }
            let child = node
                .children
                .entry(part.to_vec())
                .or_insert_with(|| Child::Tree(Self::default()));
            if matches!(child, Child::Leaf(..)) {
                *child = Child::Tree(Self::default());
            }
            match child {
                Child::Tree(tree) => node = tree,
                Child::Leaf(..) => return,
            }
        }
    }

    /// Writes the tree and those in it; a tree without entries below the top is left out.
    pub(crate) fn write(self, repository: &gix::Repository) -> Result<ObjectId> {
        let mut tree = objs::Tree::empty();
        for (name, child) in self.children {
            let (kind, id) = match child {
                Child::Leaf(kind, id) => (kind, id),
                Child::Tree(child) if child.children.is_empty() => continue,
                Child::Tree(child) => (EntryKind::Tree, child.write(repository)?),
            };
            tree.entries.push(Entry {
                mode: kind.into(),
                filename: name.into(),
                oid: id,
            });
        }
        tree.entries.sort();
        repository
            .write_object(&tree)
            .map(gix::Id::detach)
            .map_err(|error| WorktreeError::git("write a tree", error))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

/// Collects the index's entries of one stage; what was only announced has no content and is left out.
pub(crate) fn of_index(index: &gix::index::State, stage: Stage) -> TreeBuilder {
    let mut builder = TreeBuilder::default();
    for entry in index.entries() {
        if entry.stage() != stage || entry.flags.contains(Flags::INTENT_TO_ADD) {
            continue;
        }
        if let Some(kind) = kind_of(entry.mode) {
            let path = RepoPath::from_bytes(entry.path(index).to_vec());
            builder.insert(&path, kind, entry.id);
        }
    }
    builder
}

/// Translates an index entry's mode; none for a directory of a sparse index.
pub(crate) fn kind_of(mode: Mode) -> Option<EntryKind> {
    if mode == Mode::FILE {
        Some(EntryKind::Blob)
    } else if mode == Mode::FILE_EXECUTABLE {
        Some(EntryKind::BlobExecutable)
    } else if mode == Mode::SYMLINK {
        Some(EntryKind::Link)
    } else if mode == Mode::COMMIT {
        Some(EntryKind::Commit)
    } else {
        None
    }
}

/// One entry of a flattened tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flat {
    pub(crate) kind: EntryKind,
    pub(crate) id: ObjectId,
}

/// Lists everything in a tree but the trees themselves.
pub(crate) fn flatten(
    repository: &gix::Repository,
    tree: ObjectId,
) -> Result<BTreeMap<RepoPath, Flat>> {
    let mut flat = BTreeMap::new();
    flatten_into(repository, tree, &RepoPath::from_bytes(""), &mut flat)?;
    Ok(flat)
}

fn flatten_into(
    repository: &gix::Repository,
    tree: ObjectId,
    prefix: &RepoPath,
    flat: &mut BTreeMap<RepoPath, Flat>,
) -> Result<()> {
    let fail = |error| WorktreeError::git(format!("read the tree {tree}"), error);
    let tree = repository.find_tree(tree).map_err(fail)?;
    for entry in tree.iter() {
        let entry = entry.map_err(fail)?;
        let path = prefix.join(entry.filename());
        let (kind, id) = (entry.kind(), entry.object_id());
        if kind == EntryKind::Tree {
            flatten_into(repository, id, &path, flat)?;
        } else {
            flat.insert(path, Flat { kind, id });
        }
    }
    Ok(())
}
