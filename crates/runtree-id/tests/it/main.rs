//! One binary for all tests of the crate's public face.

mod collisions;
mod corpus;
mod generator;
mod ids;
mod model;
mod names;
mod oracle;
mod processes;
#[cfg(feature = "serde")]
mod serde_text;
mod session;
mod vectors;

/// Reads the size of a test from the environment, so that CI can ask for more.
fn size_from_env(name: &str, default: usize) -> usize {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test may be told its size by its environment"
    )]
    let value = std::env::var_os(name);
    match value {
        None => default,
        Some(text) => text
            .to_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{name} should be a number, not {text:?}")),
    }
}
