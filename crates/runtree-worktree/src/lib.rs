//! The life of a git worktree: added whole, listed, salvaged, removed, restored.
