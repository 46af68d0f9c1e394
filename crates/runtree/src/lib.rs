//! Durable runs in isolated git worktrees, for Rust services.
