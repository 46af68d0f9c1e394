//! The combinations of features that must build; a tidy test sees that no feature is missing here.

/// A package with some of its features, its defaults off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    /// The package.
    pub package: &'static str,
    /// The features, none of them by default.
    pub features: &'static [&'static str],
}

const fn of(package: &'static str, features: &'static [&'static str]) -> Combination {
    Combination { package, features }
}

/// Every combination that means something to somebody, the cheap ones first.
pub const COMBINATIONS: &[Combination] = &[
    of("runtree-status", &[]),
    of("runtree-status", &["serde"]),
    of("runtree-time", &[]),
    of("runtree-time", &["serde"]),
    of("runtree-time", &["jiff02"]),
    of("runtree-time", &["chrono04"]),
    of("runtree-id", &[]),
    of("runtree-id", &["serde"]),
    of("runtree", &[]),
    of("runtree-diesel", &["sqlite"]),
    of("runtree-diesel", &["postgres"]),
    of("runtree", &["sqlite"]),
    of("runtree", &["postgres"]),
    of("runtree", &["worktree"]),
];
