//! Replays the fuzz corpus, so that every past finding stays found.

use std::path::Path;

#[test]
fn every_file_of_the_corpus_passes_the_fuzz_body() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/status_word");
    let mut replayed = 0;
    for entry in std::fs::read_dir(directory).expect("the corpus is there") {
        let path = entry.expect("the corpus can be listed").path();
        let bytes = std::fs::read(path).expect("the file can be read");
        runtree_testkit::fuzz::status_word(&bytes);
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} files");
}
