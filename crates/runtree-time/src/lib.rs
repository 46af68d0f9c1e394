//! One form for every instant: UTC, microseconds, text that sorts as it compares.
