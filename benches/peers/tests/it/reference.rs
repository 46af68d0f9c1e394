//! The reference is what `uuid` is by default, whatever the peers ask of it.

use std::process::Command;

#[test]
fn no_peer_switches_the_generator_of_the_reference() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges=features", "--invert=uuid"])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo starts");
    let features = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.status.success(), "{tree:?}");
    assert!(features.contains("uuid feature \"v7\""), "{features}");
    for generator in ["fast-rng", "rng-rand"] {
        assert!(!features.contains(generator), "{features}");
    }
}
