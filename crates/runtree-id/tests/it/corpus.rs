//! Replays the fuzz corpus, so that every past finding stays found.

use std::path::Path;

use runtree_testkit::fuzz;

fn replay(name: &str, body: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let mut replayed = 0;
    for entry in std::fs::read_dir(directory).expect("the corpus is there") {
        let path = entry.expect("the corpus can be listed").path();
        body(&std::fs::read(path).expect("the file can be read"));
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} files of {name}");
}

#[test]
fn the_run_id_corpus_passes_the_fuzz_body() {
    replay("run_id", fuzz::run_id);
}

#[test]
fn the_session_id_corpus_passes_the_fuzz_body() {
    replay("session_id", fuzz::session_id);
}

#[test]
fn the_branch_name_corpus_passes_the_fuzz_body() {
    replay("branch_name", fuzz::branch_name);
}

#[test]
fn the_external_ref_corpus_passes_the_fuzz_body() {
    replay("external_ref", fuzz::external_ref);
}

#[test]
fn the_commit_id_corpus_passes_the_fuzz_body() {
    replay("commit_id", fuzz::commit_id);
}
