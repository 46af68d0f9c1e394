//! Starts, watches and stops a process group, and proves that an owner is dead.
