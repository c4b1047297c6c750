//! Running totals on their way to the ledger, kept in shards and generations.
//!
//! A shard counts into its *active* generation. Sealing makes the next one active and the sealed one immutable; it is
//! read, written to the ledger, and deleted. Generations of a shard are numbered from 1 without gaps.

use super::{PortError, ShardMark, UsageRow};
use async_trait::async_trait;
use domain::{AccumulatorId, LogName, LogPosition, Pulse, Shard, ShardCount, Timestamp, UsageTotal};

/// Pulses of one shard that are made durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The shard of all the pulses.
    pub shard: Shard,
    /// Increasing within the shard and this run of the program. A repetition after an unknown outcome keeps the number,
    /// which is how the sink knows even pulses without an identity again.
    pub number: u64,
    /// The pulses in the order of their arrival: at most [`Self::PULSES_MAX`], and at most [`Self::UNITS_MAX`] together.
    pub pulses: Vec<Pulse>,
    /// What the batch holds of logs, at most one stretch of each log and at most [`Self::PULSES_MAX`]; empty where the place of a pulse says nothing.
    pub stretches: Vec<LogStretch>,
}

/// A stretch of a log, of which a batch holds every pulse of its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStretch {
    /// The log.
    pub log: LogName,
    /// Where the stretch begins: the shard must have counted the log this far.
    pub from: LogPosition,
    /// Where it ends: the shard has counted the log this far once the batch is applied.
    pub to: LogPosition,
    /// Its pulses by their index in the batch, and where they stand: ascending, before `to`. Those before `from` were
    /// counted already, by this program.
    pub pulses: Vec<(usize, LogPosition)>,
}

impl LogStretch {
    /// How many of its pulses a shard that stands there has not taken.
    #[must_use]
    pub fn fresh(&self, stored: LogPosition) -> u64 {
        self.pulses.iter().filter(|(_, place)| *place >= stored).count() as u64
    }
}

impl Batch {
    /// The most pulses in a batch.
    pub const PULSES_MAX: usize = 4_000;
    /// The most whole units in a batch, so that any sum within it fits a signed 64-bit integer.
    pub const UNITS_MAX: u64 = 4_000_000_000_000_000_000;

    /// For each pulse whether the shard has passed it, given how far it has counted the log of each stretch.
    ///
    /// # Errors
    /// What is missing, where the shard is not as far as a stretch begins.
    pub fn passed(&self, stored: &[LogPosition]) -> Result<Vec<bool>, String> {
        let mut passed = vec![false; self.pulses.len()];
        for (stretch, stored) in self.stretches.iter().zip(stored) {
            if *stored < stretch.from {
                return Err(format!(
                    "shard {} has counted log {} up to {stored}, and was seen at {}: what it counted in between is gone, \
                     its storage was lost or rolled back",
                    self.shard, stretch.log, stretch.from
                ));
            }
            for (index, _) in stretch.pulses.iter().take_while(|(_, place)| place < stored) {
                passed[*index] = true;
            }
        }
        Ok(passed)
    }
}

/// What became of one pulse of a batch. In every case it is settled for the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was counted.
    Counted,
    /// Its identity was counted before with the same content.
    Duplicate,
    /// Its identity was counted before with other content: it goes to the dead letters.
    Conflict,
}

/// How far a shard has counted a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogMark {
    /// The log.
    pub log: LogName,
    /// Every pulse of the shard before it is counted.
    pub position: LogPosition,
}

/// Makes batches durable.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait PulseSink: Send + Sync + 'static {
    /// Applies a batch, all or nothing, durable when it returns: one outcome for each pulse, in order.
    ///
    /// Idempotent by the identity of the pulses, and by the number of the batch where it is the shard's latest from this
    /// program. Of two pulses of a batch with one identity the first counts. At most one call a shard at a time.
    ///
    /// A pulse of a stretch that the shard has passed already is not counted again, whether it has an identity or not;
    /// where its identity is known with other content, it is still a conflict. The position of each log moves with the
    /// counts, and never back; a batch may hold stretches without pulses, which only move them. A shard that is not as
    /// far as a stretch begins was rolled back: a permanent error.
    ///
    /// A transient error says nothing about the effect: repeat the same batch. Lost, foreign or rolled-back storage is a
    /// permanent error, and nothing was written.
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError>;
}

/// What became of all pulses of a shard, over its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Counted.
    pub counted: u64,
    /// Not counted because their identity was known, those with other content among them.
    pub duplicates: u64,
    /// Of the counted ones, those without an identity.
    pub anonymous: u64,
}

/// Where a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardState {
    /// The accumulator that the shard belongs to.
    pub accumulator: AccumulatorId,
    /// How many shards that accumulator has.
    pub shards: ShardCount,
    /// The active generation.
    pub generation: u64,
    /// Grows with every change of the shard.
    pub sequence: u64,
    /// The number of its latest recovery from lost storage; 0 where there never was one.
    pub recovery: u64,
    /// The newest generation that was deleted after it was written; 0 before the first.
    pub deleted: u64,
    /// What the active generation holds; amounts of different units are added up.
    pub active: UsageTotal,
    /// What became of all its pulses. A repeated batch adds nothing.
    pub counts: ShardCounts,
}

/// With what a shard is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardBirth {
    /// The accumulator that it belongs to.
    pub accumulator: AccumulatorId,
    /// How many shards that accumulator has.
    pub shards: ShardCount,
    /// When.
    pub now: Timestamp,
}

/// The shards of an accumulator and their storage.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait AccumulatorShards: Send + Sync + 'static {
    /// Where the shard stands; `None` where there is no such shard.
    ///
    /// From then on this program refuses the shard when it finds it further back than that.
    async fn inspect(&self, shard: Shard) -> Result<Option<ShardState>, PortError>;

    /// Makes the shard, with generation 1 active and empty, unless it is there; returns where it stands either way.
    async fn create(&self, shard: Shard, birth: ShardBirth) -> Result<ShardState, PortError>;

    /// How far this program has seen each shard that it inspected, made or applied to. Reads nothing from the store.
    fn marks(&self) -> Vec<ShardMark>;
}

/// What a store remembers of logs beside the counts.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LogPositions: Send + Sync + 'static {
    /// How far each shard has counted the log, in the order of the shards; [`LogPosition::START`] where it has not begun.
    async fn positions(&self, log: &LogName) -> Result<Vec<LogPosition>, PortError>;
}

/// A generation that changes no more, with what it held when it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedGeneration {
    /// The accumulator.
    pub accumulator: AccumulatorId,
    /// The shard.
    pub shard: Shard,
    /// The number of the generation.
    pub generation: u64,
    /// The shard's latest recovery when this was read: the ledger takes nothing of before the one that it has on record.
    pub recovery: u64,
    /// Its totals, kept by the same steps that counted; amounts of different units are added up.
    pub total: UsageTotal,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// How far the shard had counted each log by then, in the order of the names.
    pub positions: Vec<LogMark>,
}

/// The generations of the shards, from sealing to deletion.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait GenerationStore: Send + Sync + 'static {
    /// Seals the active generation if its number is `generation`; does nothing where it is sealed already.
    ///
    /// It is also the step that opens and drops the sets of remembered identities.
    async fn seal(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), PortError>;

    /// The sealed generation; `None` where it was deleted (or is still active).
    async fn sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, PortError>;

    /// One part of a generation's rows and the number of the next part, `None` after the last. Start with part 0.
    ///
    /// Parts are bounded in size; a key is in one part only. Parts of a sealed generation are always the same; parts of
    /// the active one are each as of the moment they are read. A generation that was deleted reads as empty.
    async fn read(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<UsageRow>, Option<u32>), PortError>;

    /// Deletes a generation that the ledger holds, if its totals are those given; does nothing where it is deleted.
    ///
    /// Generations are deleted in order; other totals, or a gap, are a permanent error.
    async fn delete(&self, sealed: &SealedGeneration) -> Result<(), PortError>;
}
