//! Holds the manifests against the rules for dependencies, features, lints and test programs.

use std::collections::BTreeSet;

use super::Finding;
use crate::combinations::COMBINATIONS;
use crate::project::Project;

const FUZZ_BODIES: &str = "crates/runtree-testkit/src/fuzz.rs";

const LOCK: &str = "Cargo.lock";

/// How many packages the workspace may consist of and depend on, itself, its tests and its tools.
///
/// Raise it together with the dependency that needs it, and say in the commit what it does better
/// than we would.
const PACKAGES_MAX: usize = 290;

/// Dependencies that stay in their rooms: whatever begins with this name, and who may have it.
const ROOMS: &[(&str, &[&str])] = &[
    // The raw loop that runtree-diesel is measured beside goes over the same library.
    ("diesel", &["runtree-diesel", "runtree-benches"]),
    ("libsqlite3-sys", &["runtree-diesel"]),
    ("gix", &["runtree-worktree", "quickstart"]),
    ("process-wrap", &["runtree-process"]),
];

/// The lock file has no more packages than the budget allows.
pub(super) fn budget(project: &Project) -> Vec<Finding> {
    let Some(lock) = project.text(LOCK) else {
        return vec![Finding::new(LOCK, "is missing")];
    };
    let count = lock.lines().filter(|line| *line == "[[package]]").count();
    let problem = match count {
        0 => "lists no packages".to_owned(),
        1..=PACKAGES_MAX => return Vec::new(),
        _ => format!("lists {count} packages, {PACKAGES_MAX} are allowed"),
    };
    vec![Finding::new(LOCK, problem)]
}

/// Every feature of a published package is built by itself or with others, and so is none at all.
pub(super) fn features(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in project.members.iter().filter(|member| member.published) {
        let own = COMBINATIONS.iter().filter(|own| own.package == member.name);
        let built: Vec<&str> = own.flat_map(|own| own.features).copied().collect();
        let forgotten = member.features.iter();
        let forgotten = forgotten.filter(|feature| !built.contains(&feature.as_str()));
        findings.extend(forgotten.map(|feature| {
            Finding::new(
                &*member.name,
                format!("no combination of features has `{feature}`"),
            )
        }));
    }
    findings
}

/// Every fuzz body of the test kit has a target outside the workspace, and every target a body.
pub(super) fn fuzz_targets(project: &Project) -> Vec<Finding> {
    let bodies: BTreeSet<&str> = project
        .text(FUZZ_BODIES)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("pub fn ")?.split('(').next())
        .collect();
    let targets: BTreeSet<&str> = project
        .with_extension("rs")
        .filter_map(|file| {
            file.path
                .strip_prefix("fuzz/fuzz_targets/")?
                .strip_suffix(".rs")
        })
        .collect();
    let manifest = project.text("fuzz/Cargo.toml").unwrap_or_default();
    let named: BTreeSet<&str> = manifest
        .lines()
        .filter_map(|line| {
            line.strip_prefix("path = \"fuzz_targets/")?
                .strip_suffix(".rs\"")
        })
        .collect();
    let differ = |one: &BTreeSet<&str>, other: &BTreeSet<&str>, problem: &str| {
        let lacking = one.difference(other);
        let findings = lacking.map(|name| Finding::new("fuzz", format!("`{name}` {problem}")));
        findings.collect::<Vec<_>>()
    };
    let mut findings = differ(&bodies, &targets, "has a body but no target");
    findings.extend(differ(&targets, &bodies, "has a target but no body"));
    findings.extend(differ(&targets, &named, "is not in the manifest"));
    findings
}

/// Every package takes the workspace's lints, without additions of its own.
pub(super) fn lints(project: &Project) -> Vec<Finding> {
    let members = project.members.iter();
    let without = members.filter(|member| {
        let manifest = project.text(&format!("{}/Cargo.toml", member.directory));
        !manifest.is_some_and(|text| text.contains("\n[lints]\nworkspace = true\n"))
    });
    without
        .map(|member| {
            let problem = "does not have `[lints]` with `workspace = true`";
            Finding::new(format!("{}/Cargo.toml", member.directory), problem)
        })
        .collect()
}

/// Integration tests of a package are one program, `it`, which links once.
pub(super) fn one_test_program(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &project.members {
        let tests = member
            .targets
            .iter()
            .filter(|target| target.starts_with("test "));
        let others = tests.filter(|target| *target != "test it");
        findings.extend(
            others.map(|target| {
                Finding::new(&*member.name, format!("has `{target}` beside `test it`"))
            }),
        );
    }
    findings
}

/// A dependency that has a room is stated in no other manifest, for no kind of build.
pub(super) fn rooms_of_dependencies(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &project.members {
        for dependency in &member.dependencies {
            let room = ROOMS
                .iter()
                .find(|(name, _)| belongs(&dependency.name, name));
            if let Some((_, allowed)) = room
                && !allowed.contains(&member.name.as_str())
            {
                let problem = format!(
                    "depends on `{}`, which stays in {}",
                    dependency.name,
                    allowed.join(", ")
                );
                findings.push(Finding::new(&*member.name, problem));
            }
        }
    }
    findings
}

/// Answers whether a package is the named one or of its family, as `gix-hash` is of `gix`.
fn belongs(package: &str, family: &str) -> bool {
    package
        .strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}
