//! The words for where a run stands, and the one table of how it moves.
