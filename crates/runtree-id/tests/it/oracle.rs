//! Branch names, judged by the real git program. Without git these tests fail.

use std::path::Path;
use std::process::{Command, Stdio};

use runtree_id::{BranchName, Entropy, PredictableEntropy};

use crate::size_from_env;

/// Pieces that random names are made of: what git's rules speak of, and plain letters.
const PIECES: [&str; 40] = [
    "a",
    "b",
    "Z",
    "0",
    "-",
    "_",
    ".",
    "..",
    "/",
    "//",
    "@",
    "{",
    "}",
    "@{",
    "~",
    "^",
    ":",
    "?",
    "*",
    "[",
    "]",
    "\\",
    " ",
    "\t",
    "\n",
    "\u{1}",
    "\u{7f}",
    "é",
    "日",
    "HEAD",
    "head",
    ".lock",
    "lock",
    "refs/heads/",
    "main",
    "feat",
    "!",
    "#",
    "'",
    "\"",
];

/// Asks git, outside of any repository, so that it resolves nothing.
fn git_accepts(name: &str, outside: &Path) -> bool {
    let status = Command::new("git")
        .args(["check-ref-format", "--branch", name])
        .current_dir(outside)
        .env("GIT_CEILING_DIRECTORIES", outside)
        .env_remove("GIT_DIR")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("these tests need the git program");
    status.success()
}

/// Says what the documentation promises beyond git, in other words than the code.
fn is_refused_beyond_git(name: &str) -> bool {
    let length = name.len();
    length > 200 || name == "@" || name.eq_ignore_ascii_case("HEAD") || name.contains("@{")
}

fn random_name(entropy: &PredictableEntropy) -> String {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes).expect("never fails");
    let pieces = 1 + usize::from(bytes[0]) % 6;
    bytes[1..=pieces]
        .iter()
        .map(|byte| {
            // Half of the pieces are plain, or hardly a name would be accepted.
            let at = usize::from(*byte);
            if at.is_multiple_of(2) {
                ["a", "b", "feat", "x1"][at / 2 % 4]
            } else {
                PIECES[at / 2 % PIECES.len()]
            }
        })
        .collect()
}

#[test]
fn the_type_and_git_agree_on_every_branch_name() {
    let count = size_from_env("RUNTREE_TEST_BRANCH_NAMES", 300);
    let outside = tempfile::tempdir().expect("a directory can be made");
    let entropy = PredictableEntropy::new(20_250_622);
    let mut names: Vec<String> = PIECES.iter().map(|piece| (*piece).to_owned()).collect();
    names.extend(
        [
            "a.lock/b", "x/HEAD", "a/.b", "a./b", "-", "--", "a@", "@/a", "/@",
        ]
        .map(String::from),
    );
    names.extend([200, 201].map(|length| "a".repeat(length)));
    names.resize_with(names.len() + count, || random_name(&entropy));

    let mut accepted = 0;
    for name in &names {
        let by_git = git_accepts(name, outside.path());
        let expected = by_git && !is_refused_beyond_git(name);
        let found = name.parse::<BranchName>();
        assert_eq!(
            found.is_ok(),
            expected,
            "{name:?}: git {by_git}, here {found:?}"
        );
        accepted += usize::from(expected);
    }
    // Neither side may have answered alike throughout.
    assert!(accepted > names.len() / 10, "{accepted} of {}", names.len());
    assert!(
        accepted < names.len() * 9 / 10,
        "{accepted} of {}",
        names.len()
    );
}
