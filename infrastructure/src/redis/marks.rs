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
    pub(super) generation: u64,
    pub(super) sequence: u64,
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
        };
        self.lock().iter().map(mark).collect()
    }
}
