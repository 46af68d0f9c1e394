//! What the tidy checks look at: the workspace's text files, and its members as cargo describes them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::shell::{self, Shell};
use crate::{Failure, Result};

/// Directories that hold nothing written by people, by their path below the root; besides, what cargo builds in anywhere.
const SKIPPED: &[&str] = &[".git", "target", "fuzz/corpus", "fuzz/artifacts"];

/// A text file, by its path below the root, with `/` between the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// The path.
    pub path: String,
    /// The content.
    pub text: String,
}

impl TextFile {
    /// Makes a file that is nowhere but here.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Answers whether the name ends with a dot and this extension.
    #[must_use]
    pub fn is(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|own| own == extension)
    }
}

/// Which builds a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "cargo knows these three kinds, and every check must say which it means"
)]
pub enum Kind {
    /// Everything that uses the package.
    Normal,
    /// Its tests, examples and benches.
    Dev,
    /// Its build script.
    Build,
}

/// A dependency as a manifest states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package's name, whatever the manifest calls it.
    pub name: String,
    /// Which builds it is for.
    pub kind: Kind,
}

/// A package of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its directory below the root.
    pub directory: String,
    /// What it depends on directly, with all features.
    pub dependencies: Vec<Dependency>,
    /// Its features but `default`.
    pub features: BTreeSet<String>,
    /// The names of its integration tests, examples and benches, each with its kind in front: `test it`.
    pub targets: BTreeSet<String>,
    /// Whether it is meant for others.
    pub published: bool,
}

/// All that the checks look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Project {
    /// The text files, sorted by path.
    pub files: Vec<TextFile>,
    /// Every file and directory by path, whether text or not.
    pub paths: BTreeSet<String>,
    /// The workspace's packages.
    pub members: Vec<Member>,
}

impl Project {
    /// Reads the workspace.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or cargo cannot describe the workspace.
    pub fn read(shell: &Shell) -> Result<Self> {
        let mut project = Self::default();
        walk(shell.root(), "", &mut project)
            .map_err(|error| Failure::new(format!("cannot read the workspace: {error}")))?;
        project
            .files
            .sort_by(|one, other| one.path.cmp(&other.path));
        let metadata =
            shell::read(&mut shell.cargo(&["metadata", "--no-deps", "--format-version=1"]))?;
        project.members = members(&metadata)?;
        Ok(project)
    }

    /// Makes a project of files alone.
    #[must_use]
    pub fn of_files(files: &[(&str, &str)]) -> Self {
        let mut project = Self::default();
        for (path, text) in files {
            project.files.push(TextFile::new(*path, *text));
            // A file's directories exist as well.
            let above = Path::new(path).ancestors();
            let above = above.filter_map(Path::to_str).map(str::to_owned);
            project.paths.extend(above);
        }
        project
    }

    /// Answers the text of a file, or nothing when there is no such file.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        let file = self.files.iter().find(|file| file.path == path)?;
        Some(&file.text)
    }

    /// Answers the files whose name ends with this extension.
    pub fn with_extension(&self, extension: &str) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(move |file| file.is(extension))
    }

    /// Answers the member of this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

impl Member {
    /// Answers what of the given kind it depends on among these packages.
    pub fn among(&self, kind: Kind, packages: &[Self]) -> BTreeSet<String> {
        let ours = |name: &String| packages.iter().any(|member| member.name == **name);
        let dependencies = self.dependencies.iter();
        dependencies
            .filter(|dependency| dependency.kind == kind)
            .map(|dependency| dependency.name.clone())
            .filter(ours)
            .collect()
    }
}

fn walk(root: &Path, below: &str, project: &mut Project) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(io::Error::other(format!(
                "a name that is not UTF-8 in `{below}`"
            )));
        };
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        if SKIPPED.contains(&path.as_str()) || path.ends_with("/target") {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(root, &path, project)?;
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            project.files.push(TextFile::new(path.clone(), text));
        }
        project.paths.insert(path);
    }
    Ok(())
}

/// Reads the members from what `cargo metadata --no-deps` prints.
fn members(metadata: &str) -> Result<Vec<Member>> {
    let unreadable = || Failure::new("cargo metadata is not as expected");
    let metadata: Value = serde_json::from_str(metadata).map_err(|_| unreadable())?;
    let root = metadata["workspace_root"].as_str().ok_or_else(unreadable)?;
    let packages = metadata["packages"].as_array().ok_or_else(unreadable)?;
    let members = packages
        .iter()
        .map(|package| member(package, Path::new(root)));
    members.collect::<Option<_>>().ok_or_else(unreadable)
}

fn member(package: &Value, root: &Path) -> Option<Member> {
    let manifest = Path::new(package["manifest_path"].as_str()?);
    let directory = manifest.parent()?.strip_prefix(root).ok()?;
    let dependencies = package["dependencies"].as_array()?;
    let targets = package["targets"].as_array()?;
    let features = package["features"].as_object()?.keys();
    Some(Member {
        name: package["name"].as_str()?.to_owned(),
        directory: directory.to_str()?.to_owned(),
        dependencies: dependencies.iter().map(dependency).collect::<Option<_>>()?,
        features: features
            .filter(|name| *name != "default")
            .cloned()
            .collect(),
        targets: targets.iter().map(target).collect::<Option<_>>()?,
        // Nothing stands for every registry, an empty list for none.
        published: package["publish"]
            .as_array()
            .is_none_or(|to| !to.is_empty()),
    })
}

fn dependency(value: &Value) -> Option<Dependency> {
    let kind = match value["kind"].as_str() {
        None => Kind::Normal,
        Some("dev") => Kind::Dev,
        Some("build") => Kind::Build,
        Some(_) => return None,
    };
    let name = value["name"].as_str()?.to_owned();
    Some(Dependency { name, kind })
}

fn target(value: &Value) -> Option<String> {
    let kind = value["kind"].as_array()?.first()?.as_str()?;
    Some(format!("{kind} {}", value["name"].as_str()?))
}
