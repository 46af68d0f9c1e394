//! A small git repository to show the main job on, and a look at any repository behind runtree's back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gix::objs::tree::EntryKind;

use crate::Failure;

/// The files of the demonstration repository.
const FILES: &[(&str, &str)] = &[
    (".gitignore", "/target\n"),
    (
        "README.md",
        "# A demonstration\n\nMade by runtree's quickstart; remove it whenever you like.\n",
    ),
    (
        "src/lib.rs",
        "//! Adds two numbers.\n\npub fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n",
    ),
    (
        "tests/flaky.rs",
        "#[test]\nfn adds() {\n    assert_eq!(4, 2 + 2);\n}\n",
    ),
];

/// Makes a git repository with one commit in a temporary place; it stays until somebody removes it.
pub(crate) fn make() -> Result<PathBuf, Failure> {
    let place = tempfile::Builder::new()
        .prefix("runtree-quickstart-")
        .tempdir()?
        .keep();
    let path = place.join("demo");
    let repository = gix::init(&path)?;
    let mut tree = repository.edit_tree(repository.empty_tree().id)?;
    for (name, text) in FILES {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&path))?;
        fs::write(&file, text)?;
        tree.upsert(*name, EntryKind::Blob, repository.write_blob(text)?)?;
    }
    let tree = tree.write()?;
    let who = gix::actor::SignatureRef {
        name: "runtree quickstart".into(),
        email: "quickstart@localhost".into(),
        time: "0 +0000",
    };
    repository.commit_as(
        who,
        who,
        "HEAD",
        "A demonstration",
        tree,
        gix::commit::NO_PARENT_IDS,
    )?;
    let mut index = repository.index_from_tree(&tree)?;
    index.write(gix::index::write::Options::default())?;
    Ok(path)
}

/// Where in a git repository runtree keeps what belongs to no worktree yet, or no more.
pub(crate) fn corner(path: &Path) -> Result<PathBuf, Failure> {
    let common = gix::discover(path)?.common_dir().canonicalize()?;
    Ok(common.join("runtree"))
}

/// What a git repository looks like from outside: every ref with what it points to, `HEAD`, the configuration, the linked
/// worktrees, and the directories where runtree puts its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) refs: BTreeMap<String, String>,
    head: String,
    config: Vec<u8>,
    worktrees: BTreeSet<PathBuf>,
    in_root: BTreeSet<PathBuf>,
}

/// What a later look has and an earlier one had not.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) refs: Vec<String>,
    pub(crate) worktrees: Vec<PathBuf>,
    pub(crate) in_root: Vec<PathBuf>,
}

/// Looks at a git repository with fresh eyes, and at the root of its worktrees.
pub(crate) fn look(path: &Path, root: &Path) -> Result<Look, Failure> {
    let repository = gix::discover(path)?;
    let mut refs = BTreeMap::new();
    for reference in repository.references()?.all()? {
        let reference = reference.map_err(|error| error.to_string())?;
        let name = reference.name().as_bstr().to_string();
        refs.insert(name, format!("{:?}", reference.target()));
    }
    Ok(Look {
        refs,
        head: format!("{:?}", repository.head_name()?),
        config: fs::read(repository.common_dir().join("config"))?,
        worktrees: repository
            .worktrees()?
            .iter()
            .map(gix::worktree::Proxy::base)
            .collect::<Result<_, _>>()?,
        in_root: match fs::read_dir(root) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<_>>()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error.into()),
        },
    })
}

impl Look {
    /// Returns what this look has and the earlier one had not, if that is all that differs.
    pub(crate) fn added_since(&self, earlier: &Self) -> Result<Added, String> {
        if self.head != earlier.head {
            return Err("HEAD of the git repository has changed".to_owned());
        }
        if self.config != earlier.config {
            return Err("the configuration of the git repository has changed".to_owned());
        }
        for (name, target) in &earlier.refs {
            if self.refs.get(name) != Some(target) {
                return Err(format!("the ref {name} has changed"));
            }
        }
        let refs = self.refs.keys();
        let refs = refs.filter(|name| !earlier.refs.contains_key(*name));
        Ok(Added {
            refs: refs.cloned().collect(),
            worktrees: added("worktree", &self.worktrees, &earlier.worktrees)?,
            in_root: added("directory entry", &self.in_root, &earlier.in_root)?,
        })
    }
}

fn added(
    what: &str,
    now: &BTreeSet<PathBuf>,
    before: &BTreeSet<PathBuf>,
) -> Result<Vec<PathBuf>, String> {
    match before.difference(now).next() {
        Some(gone) => Err(format!("the {what} {} is gone", gone.display())),
        None => Ok(now.difference(before).cloned().collect()),
    }
}
