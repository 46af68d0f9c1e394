//! The documents made from the table are the files kept beside these tests.
//!
//! Set `RUNTREE_UPDATE_SNAPSHOTS=1` to write them anew, then review the difference.

use std::path::Path;

use runtree_status::{
    transition_diagram_dot, transition_diagram_mermaid, transition_table_markdown,
};

#[test]
fn the_table_in_the_crate_documentation_is_the_table_in_the_code() {
    compare("transitions.md", &transition_table_markdown());
}

#[test]
fn the_graphviz_diagram_is_the_reviewed_one() {
    compare("transitions.dot", &transition_diagram_dot());
}

#[test]
fn the_mermaid_diagram_is_the_reviewed_one() {
    compare("transitions.mmd", &transition_diagram_mermaid());
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test may be told by its environment to rewrite its files"
)]
fn wants_update() -> bool {
    std::env::var_os("RUNTREE_UPDATE_SNAPSHOTS").is_some()
}

fn compare(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name);
    if wants_update() {
        std::fs::write(&path, made).expect("the snapshot can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the snapshot can be read");
    // A checkout on Windows may have changed the ends of lines.
    assert_eq!(made, kept.replace("\r\n", "\n"), "{}", path.display());
}
