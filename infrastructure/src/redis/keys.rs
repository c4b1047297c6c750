//! The names of the keys; all of a shard are in one hash slot. The scripts make the same names.

use domain::Shard;

/// How many names a list holds, but for the last of a generation; the scripts know the same number.
pub(super) const NAMES: usize = 4_096;

/// What stands for a shard as long as it lives.
pub(super) fn meta(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:meta")
}

/// The sums of a generation by their encoded usage keys.
pub(super) fn rows(shard: Shard, generation: u64) -> String {
    format!("pulse:{{{shard}}}:agg:{generation}")
}

/// The usage keys of a generation in the order of their appearance, [`NAMES`] to a list.
pub(super) fn names(shard: Shard, generation: u64, list: u32) -> String {
    format!("pulse:{{{shard}}}:names:{generation}:{list}")
}

/// How far each log was counted.
pub(super) fn logs(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:logs")
}

/// What a sealed generation comes to.
pub(super) fn sealed(shard: Shard, generation: u64) -> String {
    format!("pulse:{{{shard}}}:gen:{generation}")
}
