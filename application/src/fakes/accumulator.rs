//! An accumulator in memory.
