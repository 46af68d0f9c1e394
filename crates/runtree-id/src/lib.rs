//! Run ids that never collide, and names that are safe for paths and refs.
