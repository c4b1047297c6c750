//! What every accumulator does: sinks, shards and generations.
