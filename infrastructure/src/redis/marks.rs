//! How far this program has seen each shard.

use application::ports::ShardMark;
use domain::{AccumulatorId, Shard};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The furthest that was seen of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) accumulator: AccumulatorId,
    pub(super) recovery: u64,
    pub(super) generation: u64,
    pub(super) sequence: u64,
}

impl Seen {
    /// What the shard is called in Redis.
    pub(super) fn name(self) -> String {
        name(self.accumulator, self.recovery)
    }
}

/// What a shard is called in Redis: its accumulator, and after a recovery the number of that. So whoever has seen the shard
/// before it was lost takes the one that was brought back for a stranger's.
pub(super) fn name(accumulator: AccumulatorId, recovery: u64) -> String {
    if recovery == 0 { accumulator.to_string() } else { format!("{accumulator}/{recovery}") }
}

/// Reads what [`name`] writes.
pub(super) fn parse_name(text: &str) -> Option<(AccumulatorId, u64)> {
    let Some((id, recovery)) = text.split_once('/') else { return Some((AccumulatorId::parse(text)?, 0)) };
    let recovery = recovery.parse().ok().filter(|recovery| *recovery > 0)?;
    Some((AccumulatorId::parse(id)?, recovery))
}

/// Marks that only move ahead.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<BTreeMap<Shard, Seen>>);

impl Marks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Shard, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, shard: Shard) -> Option<Seen> {
        self.lock().get(&shard).copied()
    }

    /// Notes what an answer says. Answers may be read in another order than they were given.
    pub(super) fn note(&self, shard: Shard, seen: Seen) {
        let mut marks = self.lock();
        let mark = marks.entry(shard).or_insert(seen);
        mark.generation = mark.generation.max(seen.generation);
        mark.sequence = mark.sequence.max(seen.sequence);
    }

    /// All of them, in the order of the shards.
    pub(super) fn all(&self) -> Vec<ShardMark> {
        let mark = |(shard, seen): (&Shard, &Seen)| ShardMark {
            shard: *shard,
            generation: seen.generation,
            sequence: seen.sequence,
            recovery: seen.recovery,
        };
        self.lock().iter().map(mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_shard_tells_its_recovery_and_nothing_else_reads() {
        let id = AccumulatorId::from_bytes([7; 16]);
        for recovery in [0, 1, 12] {
            assert_eq!(parse_name(&name(id, recovery)), Some((id, recovery)));
        }
        for other in
            ["", "x", "/1", &format!("{id}/0"), &format!("{id}/"), &format!("{id}/-1"), &format!("{id}/1/2")]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
