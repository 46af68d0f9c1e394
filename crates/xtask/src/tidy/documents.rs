//! Holds the Markdown files against the workspace: the commands they show, their links, the variables.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::{Finding, markdown};
use crate::cli;
use crate::project::{Project, TextFile};

/// Cargo's commands, its own and those of the tools that a page may name.
const CARGO: &[&str] = &[
    "add", "bench", "build", "check", "clippy", "deny", "doc", "fmt", "fuzz", "install",
    "metadata", "nextest", "run", "test", "tree", "update",
];

/// Where the variables are explained.
const GUIDE: &str = "CONTRIBUTING.md";

/// Every command that a page shows exists, with the package or target it names.
pub(super) fn commands(project: &Project) -> Vec<Finding> {
    each_line(project, |file, index, line, fenced| {
        let shown: Vec<&str> = if fenced {
            vec![line.trim_start().trim_start_matches("$ ")]
        } else {
            markdown::code_spans(line)
        };
        let problems = shown
            .into_iter()
            .filter_map(|text| problem_of(text, project));
        problems
            .map(|problem| Finding::at_line(&file.path, index, problem))
            .collect()
    })
}

fn problem_of(text: &str, project: &Project) -> Option<String> {
    let mut words = text
        .split_whitespace()
        .skip_while(|word| is_assignment(word));
    match words.next()? {
        "cargo" => {}
        script if script.starts_with(".ci/") || script.starts_with("./") => {
            let path = script.trim_start_matches("./");
            let missing = !project.paths.contains(path);
            return missing.then(|| format!("there is no `{path}`"));
        }
        _ => return None,
    }
    let words: Vec<&str> = words
        .take_while(|word| !word.starts_with('#'))
        .filter(|word| !word.starts_with('+'))
        .collect();
    let command = *words.first()?;
    if command == "xtask" {
        let name = words.get(1)?;
        return (!cli::is_command(name)).then(|| format!("there is no `cargo xtask {name}`"));
    }
    if !CARGO.contains(&command) {
        return Some(format!("there is no `cargo {command}`"));
    }
    if command == "fuzz" {
        return fuzz_problem(&words, project);
    }
    let after = |option: &str| {
        let place = words.iter().position(|word| *word == option)?;
        words.get(place + 1).copied().filter(|name| is_name(name))
    };
    let package = after("-p").or_else(|| after("--package"));
    if let Some(name) = package
        && project.member(name).is_none()
    {
        return Some(format!("there is no package `{name}`"));
    }
    ["test", "bench", "example"].into_iter().find_map(|kind| {
        let name = after(&format!("--{kind}"))?;
        let target = format!("{kind} {name}");
        let mut members = project.members.iter();
        let found = members.any(|member| {
            package.is_none_or(|package| package == member.name) && member.targets.contains(&target)
        });
        (!found).then(|| format!("there is no {target}"))
    })
}

fn fuzz_problem(words: &[&str], project: &Project) -> Option<String> {
    let ["fuzz", "run", rest @ ..] = words else {
        return None;
    };
    let target = match rest {
        ["--sanitizer", _, target, ..] | [target, ..] => *target,
        [] => return None,
    };
    let path = format!("fuzz/fuzz_targets/{target}.rs");
    (is_name(target) && !project.paths.contains(&path))
        .then(|| format!("there is no fuzz target `{target}`"))
}

/// Placeholders are in capitals; what is in small letters must exist.
fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let in_capitals = |character: char| character.is_ascii_uppercase() || character == '_';
        !name.is_empty() && name.chars().all(in_capitals)
    })
}

/// Every relative link leads to a file, and to a heading where it names one.
pub(super) fn links(project: &Project) -> Vec<Finding> {
    each_line(project, |file, index, line, fenced| {
        if fenced {
            return Vec::new();
        }
        let targets = markdown::link_targets(line).into_iter();
        targets
            .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
            .filter(|target| !resolves(target, file, project))
            .map(|target| Finding::at_line(&file.path, index, format!("`{target}` leads nowhere")))
            .collect()
    })
}

fn resolves(target: &str, from: &TextFile, project: &Project) -> bool {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let Some(path) = joined(&from.path, path) else {
        return false;
    };
    match anchor {
        None => project.paths.contains(&path),
        Some(anchor) => project
            .text(&path)
            .is_some_and(|text| markdown::anchors(text).iter().any(|own| own == anchor)),
    }
}

/// Answers where a relative link leads, below the root, or nothing when it leaves it.
fn joined(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// The variables that the sources name are those that the guide explains.
pub(super) fn variables(project: &Project) -> Vec<Finding> {
    let Some(guide) = project.text(GUIDE) else {
        return vec![Finding::new(GUIDE, "is missing")];
    };
    let explained = variables_in(guide);
    let sources = project.with_extension("rs");
    let used: BTreeSet<&str> = sources.flat_map(|file| variables_in(&file.text)).collect();
    let unexplained = used.iter().filter(|name| !explained.contains(*name));
    let unused = explained.iter().filter(|name| !used.contains(*name));
    unexplained
        .map(|name| Finding::new(GUIDE, format!("`{name}` is not explained")))
        .chain(unused.map(|name| Finding::new(GUIDE, format!("nothing reads `{name}`"))))
        .collect()
}

/// The prefix of every variable of ours; in two parts, so that this file is not found to use one.
const PREFIX: &str = concat!("RUNTREE", "_");

fn variables_in(text: &str) -> BTreeSet<&str> {
    let places = text.match_indices(PREFIX).map(|(place, _)| &text[place..]);
    let in_name = |character: char| character.is_ascii_uppercase() || character == '_';
    places
        .map(|rest| {
            let end = rest.find(|character| !in_name(character));
            &rest[..end.unwrap_or(rest.len())]
        })
        .filter(|name| name.len() > PREFIX.len() && !name.ends_with('_'))
        .collect()
}

fn each_line(
    project: &Project,
    find: impl Fn(&TextFile, usize, &str, bool) -> Vec<Finding>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.with_extension("md") {
        for (index, line, fenced) in markdown::lines(&file.text) {
            findings.extend(find(file, index, line, fenced));
        }
    }
    findings
}
