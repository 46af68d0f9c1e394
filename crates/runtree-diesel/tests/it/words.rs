//! The words of statuses and end reasons: the statements take them from the transition table's crate, the schema knows no others.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails its test by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use runtree_repository::status::{EndReason, RunStatus};

/// The files below a directory of this crate that end in `ending`.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}

/// The words in quotes that a text compares a status with.
fn compared_with_status(sql: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in sql.match_indices("status") {
        let rest = sql[at + "status".len()..].trim_start();
        for operator in ["=", "<>", "IN (", "NOT IN ("] {
            if let Some(values) = rest.strip_prefix(operator) {
                let list = values.split(&[')', '\n'][..]).next().unwrap();
                // Only what stands before the next part of the condition belongs to it.
                let list = list
                    .split(" AND ")
                    .next()
                    .unwrap()
                    .split(" OR ")
                    .next()
                    .unwrap();
                found.extend(list.split('\'').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn no_statement_spells_a_status_or_an_end_reason_by_itself() {
    let quoted = |word: &&str| format!("'{word}'");
    let all = RunStatus::KNOWN_WORDS.iter().chain(EndReason::KNOWN_WORDS);
    let mut words: Vec<String> = all.map(quoted).collect();
    // Nor is a status given as a value by hand; `error` and `lost` are also plain words of the code.
    words.extend(
        RunStatus::KNOWN_WORDS
            .iter()
            .map(|word| format!("\"{word}\"")),
    );
    let mut statements = 0;
    // The tests of plans are files of their own beside the statements, and fill tables with rows of every kind.
    for path in files("src", ".rs")
        .into_iter()
        .filter(|path| !path.ends_with("plans.rs"))
    {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        statements += code.matches("status!(").count();
        for word in &words {
            assert!(!code.contains(word.as_str()), "{}: {word}", path.display());
        }
    }
    assert!(statements > 50, "{statements}");
}

#[test]
fn the_schema_compares_statuses_only_with_words_of_the_table() {
    let mut found = BTreeSet::new();
    for path in files("migrations", ".sql") {
        let sql = fs::read_to_string(&path).unwrap();
        found.extend(compared_with_status(&sql));
    }
    let known: BTreeSet<String> = RunStatus::KNOWN_WORDS
        .iter()
        .map(|word| (*word).to_owned())
        .collect();
    assert!(found.is_subset(&known), "{found:?}");
    assert!(
        found.contains("pending") && found.contains("running"),
        "{found:?}"
    );
    // The reader of conditions itself sees what is not known.
    assert_eq!(
        compared_with_status("WHERE status IN ('a', 'b') OR r.status <> 'c' AND state = 'd'"),
        BTreeSet::from(["a", "b", "c"].map(str::to_owned))
    );
}
