//! Redis as the accumulator: one atomic script a step, on one hash slot a shard.
