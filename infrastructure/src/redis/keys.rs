//! The names of the keys; all of a shard are in one hash slot.

use domain::{Shard, content_hash};

/// Into how many hashes the rows of a generation are spread, so that none of them grows too long to read at once.
pub(super) const PARTS: u32 = 256;

/// What stands for a shard as long as it lives.
pub(super) fn meta(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:meta")
}

/// Some of the rows of a generation.
pub(super) fn rows(shard: Shard, generation: u64, part: u32) -> String {
    format!("pulse:{{{shard}}}:agg:{generation}:{part}")
}

/// What a sealed generation comes to.
pub(super) fn sealed(shard: Shard, generation: u64) -> String {
    format!("pulse:{{{shard}}}:gen:{generation}")
}

/// The part of a row, by its encoded usage key: the same in every program and version.
pub(super) fn part(key: &[u8]) -> u8 {
    let [part, ..] = content_hash(&[key]);
    part
}

/// What a field counts; the byte after the usage key.
pub(super) mod suffix {
    /// Whole units.
    pub(crate) const UNITS: u8 = b'u';
    /// Nanos, a plain sum that may exceed a unit.
    pub(crate) const NANOS: u8 = b'n';
    /// Pulses.
    pub(crate) const PULSES: u8 = b'c';
}
