//! Feeds every rule a sample that breaks it: a rule that accepts its canary holds nothing.

use std::collections::BTreeSet;

use xtask::project::{Dependency, Kind, Member, Project};
use xtask::tidy;

/// A bad sample, the rule it breaks, and what the finding must say.
struct Canary {
    rule: &'static str,
    sample: Project,
    says: &'static str,
}

fn canary(rule: &'static str, sample: Project, says: &'static str) -> Canary {
    Canary { rule, sample, says }
}

#[test]
fn every_rule_rejects_its_canaries() {
    let canaries = canaries();
    for canary in &canaries {
        let check = tidy::named(canary.rule).expect("the rule exists");
        let findings = (check.find)(&canary.sample);
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(
            lines.iter().any(|line| line.contains(canary.says)),
            "`{}` did not say `{}` but {lines:?}",
            canary.rule,
            canary.says
        );
    }
    for check in tidy::ALL {
        let fed = canaries.iter().any(|canary| canary.rule == check.name);
        assert!(fed, "`{}` has no canary", check.name);
    }
}

/// The counterpart: what is in order draws no finding, so that a canary is not rejected for nothing.
#[test]
fn every_rule_accepts_a_project_in_order() {
    let sample = in_order();
    for check in tidy::ALL {
        assert_eq!((check.find)(&sample), [], "{}", check.name);
    }
}

const PAGE: &str = "\
| place | what it is for |
|---|---|
| `crates/runtree` | the facade |
| `crates/kit` | tests |

| crate | builds on |
|---|---|
| `runtree` | nothing of ours |
| `kit` | `runtree` |

| invariant | held by |
|---|---|
| it holds | `crates/runtree/src/lib.rs::holds` and `Cargo.lock` |
";

const LIBRARY: &str = "\
//! A sentence that is long enough.
//!
//! ```
//! ```
//!
//! # Main types
//! # What it does not do
//! # Guarantees
//! # Limits
//! # Features
//! # Alternatives

pub fn holds() {}
";

const GUIDE: &str = "\
# The guide

Run `cargo xtask test`, or `cargo test -p kit --test it`; see [above](#the-guide) and [the map](ARCHITECTURE.md).

```sh
RUST_LOG=debug cargo test -p runtree # with words
cargo fuzz run TARGET
```
";

const LINTS: &str = "[package]\n\n[lints]\nworkspace = true\n";

fn member(name: &str, published: bool, dependencies: &[(&str, Kind)]) -> Member {
    let dependencies = dependencies.iter().map(|(name, kind)| Dependency {
        name: (*name).to_owned(),
        kind: *kind,
    });
    Member {
        name: name.to_owned(),
        directory: format!("crates/{name}"),
        dependencies: dependencies.collect(),
        features: BTreeSet::new(),
        targets: BTreeSet::from(["test it".to_owned()]),
        published,
    }
}

fn in_order() -> Project {
    let mut project = Project::of_files(&[
        ("ARCHITECTURE.md", PAGE),
        ("CONTRIBUTING.md", GUIDE),
        ("Cargo.lock", "[[package]]\n"),
        ("crates/kit/Cargo.toml", LINTS),
        ("crates/runtree/Cargo.toml", LINTS),
        ("crates/runtree/src/lib.rs", LIBRARY),
    ]);
    project.members = vec![
        member("runtree", true, &[("kit", Kind::Dev)]),
        member("kit", false, &[("runtree", Kind::Normal)]),
    ];
    project
}

/// The project in order, with one file in another state.
fn with_file(path: &str, text: &str) -> Project {
    let mut project = in_order();
    project.files.retain(|file| file.path != path);
    let added = Project::of_files(&[(path, text)]);
    project.files.extend(added.files);
    project.paths.extend(added.paths);
    project
}

/// The project in order, with something changed in its facade.
fn with_facade(change: impl FnOnce(&mut Member)) -> Project {
    let mut project = in_order();
    change(&mut project.members[0]);
    project
}

/// The project in order, with a word on a page replaced.
fn with_word(path: &str, word: &str, other: &str) -> Project {
    let project = in_order();
    let text = project.text(path).expect("the file exists");
    assert!(text.contains(word), "{word}");
    with_file(path, &text.replace(word, other))
}

fn depends_on(name: &str, kind: Kind) -> Project {
    with_facade(|member| {
        let name = name.to_owned();
        member.dependencies.push(Dependency { name, kind });
    })
}

fn canaries() -> Vec<Canary> {
    let mut all = of_the_architecture_page();
    all.extend(of_the_documents());
    all.extend(of_the_manifests());
    all.extend(of_the_sources());
    all
}

fn of_the_architecture_page() -> Vec<Canary> {
    let page = "ARCHITECTURE.md";
    vec![
        canary(
            "arrows",
            with_word(page, "`kit` | `runtree`", "`kit` | nothing of ours"),
            "the manifest says runtree",
        ),
        canary(
            "arrows",
            depends_on("kit", Kind::Normal),
            "builds on `kit`, which is not",
        ),
        canary(
            "arrows",
            with_word(page, "| `kit` | `runtree` |\n", ""),
            "lack a row for `kit`",
        ),
        canary(
            "arrows",
            with_word(page, "| `kit` | `runtree` |", "| `tool` | `runtree` |"),
            "there is no crate `tool`",
        ),
        canary(
            "arrows",
            with_word(page, "| crate |", "| room |"),
            "there is no table",
        ),
        canary(
            "map",
            with_word(page, "`crates/kit`", "`crates/gone`"),
            "`crates/gone`, which is no package",
        ),
        canary(
            "map",
            with_word(page, "`crates/kit`", "the kit"),
            "lacks `crates/kit`",
        ),
        canary(
            "proofs",
            with_word(page, "::holds", "::held"),
            "there is no `crates/runtree/src/lib.rs::held`",
        ),
        canary(
            "proofs",
            with_word(
                page,
                "`crates/runtree/src/lib.rs::holds` and `Cargo.lock`",
                "hope",
            ),
            "nothing holds",
        ),
    ]
}

fn of_the_documents() -> Vec<Canary> {
    let guide = "CONTRIBUTING.md";
    let explained = concat!("RUNTREE", "_SAMPLE");
    let reads = format!("{LIBRARY}const NAME: &str = \"{explained}\";\n");
    vec![
        canary(
            "commands",
            with_word(guide, "cargo xtask test", "cargo xtask paint"),
            "no `cargo xtask paint`",
        ),
        canary(
            "commands",
            with_word(guide, "cargo test -p runtree #", "cargo frobnicate #"),
            "no `cargo frobnicate`",
        ),
        canary(
            "commands",
            with_word(guide, "-p runtree #", "-p gone #"),
            "CONTRIBUTING.md:6: there is no package `gone`",
        ),
        canary(
            "commands",
            with_word(guide, "--test it", "--test all"),
            "there is no test all",
        ),
        canary(
            "commands",
            with_word(guide, "run TARGET", "run --sanitizer none gone"),
            "no fuzz target `gone`",
        ),
        canary(
            "commands",
            with_word(guide, "cargo fuzz run TARGET", ".ci/gone"),
            "no `.ci/gone`",
        ),
        canary(
            "links",
            with_word(guide, "(ARCHITECTURE.md)", "(docs/gone.md)"),
            "`docs/gone.md` leads nowhere",
        ),
        canary(
            "links",
            with_word(guide, "(#the-guide)", "(#gone)"),
            "`#gone` leads nowhere",
        ),
        canary(
            "links",
            with_word(guide, "(ARCHITECTURE.md)", "(../up.md)"),
            "leads nowhere",
        ),
        canary(
            "variables",
            with_file("crates/runtree/src/lib.rs", &reads),
            "is not explained",
        ),
        canary(
            "variables",
            with_word(guide, "RUST_LOG", explained),
            "nothing reads",
        ),
    ]
}

fn of_the_manifests() -> Vec<Canary> {
    let lock = "[[package]]\n".repeat(10_000);
    vec![
        canary(
            "budget",
            with_file("Cargo.lock", &lock),
            "lists 10000 packages",
        ),
        canary("budget", with_file("Cargo.lock", ""), "lists no packages"),
        canary(
            "features",
            with_facade(|member| {
                member.features.insert("new".to_owned());
            }),
            "no combination of features has `new`",
        ),
        canary(
            "fuzz_targets",
            with_file(
                "crates/runtree-testkit/src/fuzz.rs",
                "pub fn words(bytes: &[u8]) {\n",
            ),
            "`words` has a body but no target",
        ),
        canary(
            "fuzz_targets",
            with_file("fuzz/fuzz_targets/words.rs", "//! Fuzzes the words."),
            "`words` has a target but no body",
        ),
        canary(
            "fuzz_targets",
            with_file("fuzz/fuzz_targets/words.rs", "//! Fuzzes the words."),
            "`words` is not in the manifest",
        ),
        canary(
            "lints",
            with_file("crates/kit/Cargo.toml", "[package]\n"),
            "crates/kit/Cargo.toml: does not have",
        ),
        canary(
            "one_test_program",
            with_facade(|member| {
                member.targets.insert("test more".to_owned());
            }),
            "has `test more`",
        ),
        canary(
            "rooms_of_dependencies",
            depends_on("diesel-async", Kind::Dev),
            "depends on `diesel-async`",
        ),
        canary(
            "rooms_of_dependencies",
            depends_on("gix", Kind::Build),
            "depends on `gix`",
        ),
    ]
}

fn of_the_sources() -> Vec<Canary> {
    let library = "crates/runtree/src/lib.rs";
    let source = |code: &str| {
        with_file(
            "src.rs",
            &format!("//! A sentence that is long enough.\n{code}\n"),
        )
    };
    let worktree = |code: &str| with_file("crates/runtree-worktree/src/lib.rs", code);
    vec![
        canary(
            "crate_docs",
            with_word(library, "//! # Limits\n", ""),
            "lacks `Limits`",
        ),
        canary(
            "crate_docs",
            with_word(library, "//! # Main types\n", ""),
            "lacks `Main types`",
        ),
        canary(
            "crate_docs",
            with_word(library, "//! ```\n", ""),
            "a runnable example",
        ),
        canary(
            "foreign_types",
            worktree("pub fn open(\n    path: &Path,\n) -> Result<gix::Repository> {\n"),
            "lib.rs:1: a type of gix",
        ),
        canary(
            "foreign_types",
            worktree("    pub id: gix::ObjectId,\n"),
            "a type of gix",
        ),
        canary(
            "foreign_types",
            worktree("impl From<gix::Error> for Error {\n"),
            "a type of gix",
        ),
        canary(
            "headers",
            with_file("src.rs", "fn main() {}\n"),
            "does not open with",
        ),
        canary(
            "headers",
            with_file("src.rs", "//! Some words without an end\n"),
            "does not open",
        ),
        canary("length", source(&"\n".repeat(800)), "src.rs: has 802 lines"),
        canary(
            "macros_of_drafts",
            source(concat!("fn later() { todo", "!(\"soon\") }")),
            "src.rs:2:",
        ),
        canary(
            "reasons",
            source(concat!("#[", "allow(dead_code)]")),
            "src.rs:2:",
        ),
        canary(
            "reasons",
            source(concat!("#![", "allow(dead_code)]")),
            "src.rs:2:",
        ),
        canary(
            "reasons",
            source(concat!("#[cfg_attr(windows, ", "allow(dead_code))]")),
            "src.rs:2:",
        ),
        canary(
            "words",
            with_file("notes.txt", concat!("see /wo", "rk/here\n")),
            "notes.txt:1:",
        ),
    ]
}

#[test]
fn private_uses_of_gix_are_the_worktree_rooms_own_business() {
    let check = tidy::named("foreign_types").expect("the rule exists");
    for code in [
        "pub struct Git(gix::Repository);\n",
        "pub(crate) fn open() -> gix::Repository {\n",
        "pub fn name(&self) -> &str {\n    gix::name()\n}\n",
    ] {
        let sample = with_file("crates/runtree-worktree/src/lib.rs", code);
        assert_eq!((check.find)(&sample), [], "{code}");
    }
}
