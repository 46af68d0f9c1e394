//! A hint that something changed, so that nobody polls in vain.

/// Where a watcher of a store stands: what it has seen of the store's changes.
///
/// Marks belong to the handle that gave them out, and last as long as it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChangeMark(u64);

impl ChangeMark {
    /// Before everything: whoever waits for a change after it is answered at once.
    pub const START: Self = Self(0);

    /// Makes a mark from a backend's own count of changes, which grows with every change.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the backend's count.
    pub const fn get(self) -> u64 {
        self.0
    }
}
