//! Runs every rule over the workspace as it is, a test each, so that a failure names its rule.

use std::sync::OnceLock;

use xtask::project::Project;
use xtask::shell::Shell;
use xtask::tidy;

fn workspace() -> &'static Project {
    static WORKSPACE: OnceLock<Project> = OnceLock::new();
    WORKSPACE
        .get_or_init(|| Project::read(&Shell::of_workspace()).expect("the workspace is readable"))
}

fn holds(name: &str) {
    let check = tidy::named(name).expect("the rule exists");
    let findings = (check.find)(workspace());
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

macro_rules! rules {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                holds(stringify!($name));
            }
        )+

        /// The rules that have a test above.
        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

rules! {
    arrows
    budget
    commands
    crate_docs
    features
    foreign_types
    fuzz_targets
    headers
    length
    links
    lints
    macros_of_drafts
    map
    one_test_program
    proofs
    reasons
    rooms_of_dependencies
    variables
    words
}

#[test]
fn every_rule_has_a_test() {
    for check in tidy::ALL {
        assert!(TESTED.contains(&check.name), "{} is never run", check.name);
    }
}

#[test]
fn the_workspace_that_is_read_is_the_whole_of_it() {
    let project = workspace();
    assert!(project.member("runtree").is_some());
    assert!(project.text("Cargo.lock").is_some());
    let sources = project.with_extension("rs").count();
    assert!(sources > 50, "only {sources} sources were found");
    for member in &project.members {
        assert!(project.paths.contains(&member.directory), "{}", member.name);
    }
}

/// The ground floor carries everything: what these crates drag in, nobody can avoid.
#[test]
fn status_time_and_id_drag_in_no_runtime_no_diesel_and_no_gix() {
    let shell = Shell::of_workspace();
    for package in ["runtree-status", "runtree-time", "runtree-id"] {
        let mut command =
            shell.cargo(&["tree", "--edges=normal", "--all-features", "--prefix=none"]);
        let tree = xtask::shell::read(command.args(["--format={p}", "-p", package]))
            .expect("cargo knows the package");
        assert!(tree.starts_with(package), "{tree}");
        for heavy in ["tokio", "diesel", "gix", "async-std", "libsqlite3-sys"] {
            let found = tree.lines().find(|line| line.starts_with(heavy));
            assert_eq!(found, None, "{package}");
        }
    }
}
