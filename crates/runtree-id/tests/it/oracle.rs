//! Branch names, judged by the real git program. Without git these tests fail.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use runtree_id::{
    BranchName, DirectoryName, Entropy, IdGenerator, PredictableEntropy, RunId, Slug,
};

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

/// Makes a text of up to seven pieces.
fn random_text(entropy: &PredictableEntropy) -> String {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes).expect("never fails");
    let pieces = 1 + usize::from(bytes[0]) % 7;
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

/// Lists what chance may miss: every ASCII character at every kind of place, and the limits.
fn chosen_names() -> Vec<String> {
    let mut names: Vec<String> = PIECES.iter().map(|piece| (*piece).to_owned()).collect();
    names.extend(
        [
            "a.lock/b", "x/HEAD", "a/.b", "a./b", "-", "--", "a@", "@/a", "/@", "",
        ]
        .map(String::from),
    );
    // No program can be given an argument with a zero byte.
    for character in '\u{1}'..='\u{7f}' {
        names.extend([
            format!("{character}"),
            format!("{character}a"),
            format!("a{character}b"),
            format!("a{character}"),
            format!("a/{character}/b"),
        ]);
    }
    for length in [199, 200, 201] {
        names.push("a".repeat(length));
        names.push("a/".repeat(length / 2) + &"b".repeat(length % 2));
        names.push("é".repeat(length / 2) + &"b".repeat(length % 2));
    }
    names
}

/// Counts the names that both accept, and lists those on which git and the type differ.
#[derive(Debug, Default)]
struct Verdict {
    accepted: usize,
    differing: Vec<String>,
}

impl Verdict {
    fn judge(&mut self, name: &str, outside: &Path) {
        let by_git = git_accepts(name, outside);
        let expected = by_git && !is_refused_beyond_git(name);
        let found = name.parse::<BranchName>();
        if found.is_ok() != expected {
            self.differing
                .push(format!("{name:?}: git {by_git}, here {found:?}"));
        }
        self.accepted += usize::from(expected);
    }
}

/// Runs a job on as many threads as the machine has; each is given its number and their count.
fn on_all_threads<T: Send>(job: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let job = &job;
        let running: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || job(number, threads)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("did not panic"))
            .collect()
    })
}

/// Which names are random is decided by the seed and a name's number, not by the machine.
fn source_of(seed: usize, number: usize) -> PredictableEntropy {
    let word = |value: usize| u64::try_from(value).expect("fits");
    PredictableEntropy::new(word(seed) ^ word(number).wrapping_mul(0xd134_2543_de82_ef95))
}

#[test]
fn the_type_and_git_agree_on_every_branch_name() {
    let count = size_from_env("RUNTREE_TEST_BRANCH_NAMES", 300);
    let seed = size_from_env("RUNTREE_TEST_SEED", 20_250_622);
    let outside = tempfile::tempdir().expect("a directory can be made");
    let chosen = chosen_names();
    let total = chosen.len() + count;
    let verdicts = on_all_threads(|first, step| {
        let mut verdict = Verdict::default();
        for number in (first..total).step_by(step) {
            match chosen.get(number) {
                Some(name) => verdict.judge(name, outside.path()),
                None => verdict.judge(&random_text(&source_of(seed, number)), outside.path()),
            }
        }
        verdict
    });
    let accepted: usize = verdicts.iter().map(|verdict| verdict.accepted).sum();
    println!("{total} names from seed {seed}, of which both accept {accepted}");
    let differing: Vec<&String> = verdicts.iter().flat_map(|v| &v.differing).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    // Neither side may have answered alike throughout.
    assert!(accepted > total / 10, "{accepted} of {total}");
    assert!(accepted < total * 9 / 10, "{accepted} of {total}");
}

#[test]
fn git_takes_every_name_that_is_made_for_a_run_or_for_a_directory() {
    let count = size_from_env("RUNTREE_TEST_BRANCH_NAMES", 300) / 3;
    let seed = size_from_env("RUNTREE_TEST_SEED", 20_250_622);
    let outside = tempfile::tempdir().expect("a directory can be made");
    let id: RunId = IdGenerator::system().run_id().expect("makes an id");
    on_all_threads(|first, step| {
        for number in (first..count).step_by(step) {
            let text = random_text(&source_of(seed, number));
            let slug = Slug::from_text(&text);
            let names = [
                slug.to_string(),
                DirectoryName::for_run(&slug, id).to_string(),
                BranchName::for_run(&slug, id).to_string(),
            ];
            for name in &names {
                assert!(git_accepts(name, outside.path()), "{name} of {text:?}");
            }
            // And a directory name that a person chose, as a part of a ref.
            if let Ok(directory) = text.parse::<DirectoryName>() {
                let name = format!("x/{directory}/y");
                assert!(git_accepts(&name, outside.path()), "{name}");
            }
        }
    });
}
