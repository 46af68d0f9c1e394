//! The store of runs: traits, records, queries, errors and a backend in memory.
