//! Holds `ARCHITECTURE.md` against the workspace: its map, its arrows and the proofs it names.

use std::collections::BTreeSet;

use super::{Finding, markdown};
use crate::project::{Kind, Member, Project};

const PAGE: &str = "ARCHITECTURE.md";

/// Who builds on whom is what the table of arrows says, and nobody builds on an unpublished package.
pub(super) fn arrows(project: &Project) -> Vec<Finding> {
    let Some(rows) = rows(project, "crate") else {
        return vec![no_table("crate")];
    };
    let mut findings = Vec::new();
    let mut listed = BTreeSet::new();
    for row in rows {
        let [name, targets] = row[..] else {
            findings.push(Finding::new(PAGE, "a row of the arrows has two cells"));
            continue;
        };
        let name = markdown::code_spans(name).concat();
        let stated: BTreeSet<String> = markdown::code_spans(targets)
            .into_iter()
            .map(str::to_owned)
            .collect();
        match project.member(&name) {
            None => findings.push(Finding::new(PAGE, format!("there is no crate `{name}`"))),
            Some(member) => findings.extend(compare(member, &stated, &project.members)),
        }
        listed.insert(name);
    }
    let missing = project.members.iter();
    let missing = missing.filter(|member| !listed.contains(&member.name));
    findings.extend(
        missing.map(|member| {
            Finding::new(PAGE, format!("the arrows lack a row for `{}`", member.name))
        }),
    );
    findings.extend(
        project
            .members
            .iter()
            .flat_map(|member| on_unpublished(member, project)),
    );
    findings
}

fn compare(member: &Member, stated: &BTreeSet<String>, all: &[Member]) -> Option<Finding> {
    let real = member.among(Kind::Normal, all);
    (real != *stated).then(|| {
        let problem = format!(
            "`{}` builds on {}, the manifest says {}",
            member.name,
            list(stated),
            list(&real)
        );
        Finding::new(PAGE, problem)
    })
}

/// A package for others cannot build on one that they do not get.
fn on_unpublished(member: &Member, project: &Project) -> Vec<Finding> {
    if !member.published {
        return Vec::new();
    }
    let names = member.among(Kind::Normal, &project.members).into_iter();
    let unpublished =
        names.filter(|name| project.member(name).is_some_and(|target| !target.published));
    unpublished
        .map(|name| {
            let problem = format!("is published, but builds on `{name}`, which is not");
            Finding::new(&*member.name, problem)
        })
        .collect()
}

/// The map has a line for every package, and a package for every line.
pub(super) fn map(project: &Project) -> Vec<Finding> {
    let Some(rows) = rows(project, "place") else {
        return vec![no_table("place")];
    };
    let listed: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row.first())
        .flat_map(|cell| markdown::code_spans(cell))
        .collect();
    let is_package = |path: &str| project.paths.contains(&format!("{path}/Cargo.toml"));
    let real = project
        .members
        .iter()
        .map(|member| member.directory.as_str());
    let lost = listed.iter().filter(|path| !is_package(path));
    let lost =
        lost.map(|path| Finding::new(PAGE, format!("the map has `{path}`, which is no package")));
    let unlisted = real.filter(|path| !listed.contains(path));
    let unlisted = unlisted.map(|path| Finding::new(PAGE, format!("the map lacks `{path}`")));
    lost.chain(unlisted).collect()
}

/// Every invariant names what holds it, and that exists: a test as `file.rs::function`, or a file.
pub(super) fn proofs(project: &Project) -> Vec<Finding> {
    let Some(rows) = rows(project, "invariant") else {
        return vec![no_table("invariant")];
    };
    let mut findings = Vec::new();
    for row in rows {
        let [invariant, proofs] = row[..] else {
            findings.push(Finding::new(PAGE, "a row of the invariants has two cells"));
            continue;
        };
        let proofs = markdown::code_spans(proofs);
        if proofs.is_empty() {
            findings.push(Finding::new(PAGE, format!("nothing holds \"{invariant}\"")));
        }
        let missing = proofs.into_iter().filter(|proof| !exists(proof, project));
        findings.extend(missing.map(|proof| Finding::new(PAGE, format!("there is no `{proof}`"))));
    }
    findings
}

fn exists(proof: &str, project: &Project) -> bool {
    match proof.split_once("::") {
        Some((file, function)) => project
            .text(file)
            .is_some_and(|text| text.contains(&format!("fn {function}("))),
        None => project.paths.contains(proof),
    }
}

fn rows<'a>(project: &'a Project, first_header: &str) -> Option<Vec<Vec<&'a str>>> {
    let rows = markdown::table(project.text(PAGE)?, first_header)?;
    // An empty table agrees with everything.
    (!rows.is_empty()).then_some(rows)
}

fn no_table(first_header: &str) -> Finding {
    Finding::new(
        PAGE,
        format!("there is no table that begins with `{first_header}`"),
    )
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "nothing of ours".to_owned();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(", ")
}
