//! `cargo xtask api`: the public items of the crates, kept as text, so that a change of them is read as a difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::shell::{self, Shell};
use crate::tools::PUBLIC_API;
use crate::{Failure, Result, console, environment};

/// A crate whose public items are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// The package.
    pub package: &'static str,
    /// The crates beside the standard library and ours whose types its signatures may show. Each
    /// ties our users to a version of it, so each needs a reason.
    pub foreign: &'static [&'static str],
}

/// Every crate whose public items are kept, the package's name being that of its directory.
pub const SURFACES: &[Surface] = &[
    Surface {
        package: "runtree-status",
        // The traits of serde, which is at 1 and stays there.
        foreign: &["serde_core"],
    },
    Surface {
        package: "runtree-time",
        // The types it converts from and to; jiff and chrono under features named for their versions.
        foreign: &["chrono", "jiff", "serde_core", "time"],
    },
    Surface {
        package: "runtree-id",
        // The type under every id, which databases and other services have as well.
        foreign: &["serde_core", "uuid"],
    },
];

/// The crates of the standard library.
const STANDARD: &[&str] = &["alloc", "core", "std"];

/// What to do with the snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a snapshot is compared or written, and there is no third"
)]
pub enum Mode {
    /// Fails where a snapshot differs from the code.
    Compare,
    /// Writes the snapshots anew, for a person to review.
    Update,
}

/// Compares or writes the snapshots of all crates.
///
/// # Errors
///
/// When a crate's public items are not those of its snapshot, when they show a type of a crate that
/// is not on its list, or when they cannot be listed.
pub fn run(shell: &Shell, mode: Mode) -> Result {
    let mut problems = Vec::new();
    for surface in SURFACES {
        let path = surface.snapshot();
        let file = shell.root().join(&path);
        let found = surface.items(shell)?;
        if mode == Mode::Update {
            let failed = |error| Failure::new(format!("cannot write {path}: {error}"));
            fs::write(&file, &found).map_err(failed)?;
        }
        let compared = compare(read(&file)?.as_deref(), &found);
        let verdicts = [compared, surface.check_foreign(&found)];
        let wrong = verdicts.into_iter().filter_map(std::result::Result::err);
        let before = problems.len();
        problems.extend(wrong.map(|problem| format!("{path} {problem}")));
        if problems.len() == before {
            console::say(&format!("{path}: {} items", found.lines().count()));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{}\nwhat is meant is written anew by `cargo xtask api --update` and reviewed as a difference",
        problems.join("\n")
    )))
}

impl Surface {
    /// Answers where the public items are kept, below the workspace.
    #[must_use]
    pub fn snapshot(&self) -> String {
        format!("crates/{}/tests/snapshots/api.txt", self.package)
    }

    /// Lists the public items, a line each.
    ///
    /// What the compiler implements for every type is left out, and what it derives is not: a type
    /// that is no longer `Copy` breaks its users as much as one that is gone.
    fn items(&self, shell: &Shell) -> Result<String> {
        let mut command = PUBLIC_API.command(shell)?;
        command
            .args(["--package", self.package, "--all-features"])
            .args(["--omit=blanket-impls,auto-trait-impls", "--color=never"])
            // Rustdoc writes JSON only where unstable options are allowed. On a stable toolchain this
            // variable allows them, as cargo-semver-checks does it; for this one command, because code
            // that is built with it may use what is not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            // Build scripts look at that variable: beside everything else, all would be built again.
            .env("CARGO_TARGET_DIR", target(shell));
        shell::read(&mut command)
    }

    /// Checks that the items show no type of a crate that is not on the list, and that the list is
    /// not longer than it must be.
    ///
    /// # Errors
    ///
    /// When it is otherwise; the message names the crates, and a line for each.
    pub fn check_foreign(&self, items: &str) -> std::result::Result<(), String> {
        let own = self.package.replace('-', "_");
        let mut unused: BTreeSet<&str> = self.foreign.iter().copied().collect();
        let mut shown = String::new();
        let mut known = BTreeSet::new();
        for line in items.lines() {
            for root in roots(line) {
                unused.remove(root);
                let is_ours = root == own || root.starts_with("runtree_");
                let is_allowed =
                    is_ours || STANDARD.contains(&root) || self.foreign.contains(&root);
                if !is_allowed && known.insert(root) {
                    write!(shown, "\n  `{root}`: {line}").expect("a text takes what is written");
                }
            }
        }
        if !shown.is_empty() {
            return Err(format!(
                "shows types of crates that are not on its list:{shown}"
            ));
        }
        if unused.is_empty() {
            return Ok(());
        }
        let unused: Vec<&str> = unused.into_iter().collect();
        Err(format!("no longer shows a type of {}", unused.join(", ")))
    }
}

/// Compares what was kept with what is there.
///
/// # Errors
///
/// When nothing was kept, or when they differ; the message has a line for each item that went, came or
/// stands elsewhere.
pub fn compare(kept: Option<&str>, found: &str) -> std::result::Result<(), String> {
    let kept = kept.ok_or("is missing")?;
    // A checkout on Windows may have changed the ends of lines.
    let kept: Vec<&str> = kept.lines().collect();
    let found: Vec<&str> = found.lines().collect();
    if kept == found {
        return Ok(());
    }
    let mut text = String::from("differs from the code:");
    for (sign, line) in differences(&kept, &found) {
        write!(text, "\n  {sign} {line}").expect("a text takes what is written");
    }
    Err(text)
}

/// Answers the lines that went (`-`) and came (`+`), each group where it belongs.
fn differences<'a>(kept: &[&'a str], found: &[&'a str]) -> Vec<(char, &'a str)> {
    // The longest common subsequence, by its lengths from each pair of places to the ends.
    let mut lengths = vec![vec![0_u32; found.len() + 1]; kept.len() + 1];
    for (at, one) in kept.iter().enumerate().rev() {
        for (place, other) in found.iter().enumerate().rev() {
            lengths[at][place] = if one == other {
                lengths[at + 1][place + 1] + 1
            } else {
                lengths[at + 1][place].max(lengths[at][place + 1])
            };
        }
    }
    let (mut at, mut place) = (0, 0);
    let mut lines = Vec::new();
    while at < kept.len() || place < found.len() {
        if at < kept.len() && place < found.len() && kept[at] == found[place] {
            (at, place) = (at + 1, place + 1);
        } else if place == found.len()
            || (at < kept.len() && lengths[at + 1][place] >= lengths[at][place + 1])
        {
            lines.push(('-', kept[at]));
            at += 1;
        } else {
            lines.push(('+', found[place]));
            place += 1;
        }
    }
    lines
}

/// Answers the first part of every path of two or more parts in a line of code: the crate it is of.
fn roots(line: &str) -> impl Iterator<Item = &str> {
    let in_path = |character: char| character.is_alphanumeric() || matches!(character, '_' | ':');
    line.split(move |character| !in_path(character))
        .filter_map(|path| path.split_once("::"))
        .map(|(root, _)| root)
        // `Self::Error` and `D::Error` are paths of no crate; crates have small letters.
        .filter(|root| root.starts_with(|first: char| first.is_ascii_lowercase() || first == '_'))
}

fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!(
            "cannot read {}: {error}",
            file.display()
        ))),
    }
}

/// Answers where rustdoc's JSON is built, below where everything else is.
fn target(shell: &Shell) -> std::path::PathBuf {
    shell.root().join(environment::target()).join("api")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEMS: &str = "pub mod one\npub fn one::two(&str) -> core::option::Option<uuid::Uuid>\n";

    const SURFACE: Surface = Surface {
        package: "one",
        foreign: &["uuid"],
    };

    #[test]
    fn a_snapshot_that_is_the_code_agrees_whatever_its_line_ends() {
        assert_eq!(compare(Some(ITEMS), ITEMS), Ok(()));
        assert_eq!(compare(Some(&ITEMS.replace('\n', "\r\n")), ITEMS), Ok(()));
    }

    #[test]
    fn a_snapshot_that_is_missing_agrees_with_nothing() {
        assert_eq!(compare(None, ITEMS), Err("is missing".to_owned()));
        assert_eq!(compare(None, ""), Err("is missing".to_owned()));
    }

    #[test]
    fn every_line_that_went_or_came_makes_the_comparison_fail_and_is_shown() {
        for (found, shown) in [
            ("pub mod one\n", "\n  - pub fn one::two"),
            (
                &*format!("{ITEMS}pub fn one::three()\n"),
                "\n  + pub fn one::three()",
            ),
            (&*ITEMS.replace("&str", "u8"), "\n  + pub fn one::two(u8)"),
            ("", "\n  - pub mod one\n  - pub fn one::two"),
        ] {
            let problem = compare(Some(ITEMS), found).expect_err("they differ");
            assert!(problem.contains(shown), "{problem}");
        }
    }

    #[test]
    fn a_difference_names_the_lines_that_changed_and_no_other() {
        let kept = ["a", "b", "c", "d"];
        let found = ["a", "c", "x", "d", "b"];
        assert_eq!(
            differences(&kept, &found),
            [('-', "b"), ('+', "x"), ('+', "b")]
        );
        assert_eq!(differences(&kept, &kept), []);
        assert_eq!(differences(&[], &["a"]), [('+', "a")]);
    }

    #[test]
    fn an_order_that_changed_is_a_difference() {
        assert!(compare(Some("a\nb\n"), "b\na\n").is_err());
    }

    #[test]
    fn a_foreign_type_that_is_not_on_the_list_is_named_with_its_line() {
        assert_eq!(SURFACE.check_foreign(ITEMS), Ok(()));
        for line in [
            "pub fn one::open(&gix::Repository)",
            "impl core::convert::From<gix::Error> for one::Error",
            "impl<'de> gix::Trait<'de> for one::Error",
            "pub fn one::open<T: gix::Trait>(T) -> <T as core::ops::Deref>::Target",
        ] {
            let problem = SURFACE.check_foreign(&format!("{ITEMS}{line}\n"));
            let problem = problem.expect_err("gix is not on the list");
            assert!(
                problem.contains("`gix`") && problem.contains(line),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_list_that_allows_more_than_is_shown_is_too_long() {
        let problem = SURFACE.check_foreign("pub mod one\n");
        assert_eq!(problem, Err("no longer shows a type of uuid".to_owned()));
    }

    #[test]
    fn names_of_ours_of_the_standard_library_and_of_type_parameters_are_not_foreign() {
        let none = Surface {
            package: "runtree-one",
            foreign: &[],
        };
        for line in [
            "pub fn runtree_one::a(runtree_two::B) -> core::option::Option<alloc::string::String>",
            "pub fn runtree_one::A::serialize<S>(S) -> core::result::Result<<S as std::B>::Ok, S::Error>",
            "pub const runtree_one::A::ALL: [Self; 19]",
        ] {
            assert_eq!(none.check_foreign(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn every_snapshot_is_there_and_shows_only_what_its_list_allows() {
        let shell = Shell::of_workspace();
        for surface in SURFACES {
            let path = surface.snapshot();
            let kept = read(&shell.root().join(&path)).expect("the file is readable");
            let kept = kept.unwrap_or_else(|| panic!("{path} is missing"));
            assert_eq!(surface.check_foreign(&kept), Ok(()), "{path}");
        }
    }
}
