//! runtree beside its references, as ratios of medians.
