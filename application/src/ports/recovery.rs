//! What a recovery from lost storage asks of the stores and of the sources.

use super::{LogMark, PortError};
use crate::open_log::{LogExtent, Settled};
use async_trait::async_trait;
use domain::{AccumulatorId, LogName, Shard, ShardCount, Timestamp};

/// What becomes of what is there of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remake {
    /// Nothing of it is kept: the shard is made anew, empty, after the last generation in the books.
    Anew,
    /// All that it has counted is in the books and goes; the identities that it remembers stay.
    DropBooked,
    /// It stays as it is.
    Keep,
}

/// Where a shard was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAt {
    /// Its latest recovery.
    pub recovery: u64,
    /// Its active generation.
    pub generation: u64,
    /// Its sequence.
    pub sequence: u64,
}

/// How one shard is brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRecovery {
    /// The accumulator.
    pub accumulator: AccumulatorId,
    /// How many shards it has.
    pub shards: ShardCount,
    /// The shard.
    pub shard: Shard,
    /// The number of the recovery, from 1. Programs that have seen the shard before it are refused from then on.
    pub number: u64,
    /// Where it was found; `None` where it was gone.
    pub found: Option<FoundAt>,
    /// What becomes of it.
    pub remake: Remake,
    /// The generation that is active from then on.
    pub generation: u64,
    /// The sequence from then on.
    pub sequence: u64,
    /// How many pulses of the shard are in the books.
    pub counted: u64,
    /// How far it has counted logs from then on; where it is kept, its own say.
    pub positions: Vec<LogMark>,
    /// The last generation in the books when it was found.
    pub flushed: u64,
    /// The furthest that it was seen by then.
    pub seen: (u64, u64),
}

/// The storage of shards, as a recovery looks at it.
#[async_trait]
pub trait ShardStorage: Send + Sync + 'static {
    /// How far the shard has counted each log, in the order of the names; none where there is no such shard.
    async fn log_marks(&self, shard: Shard) -> Result<Vec<LogMark>, PortError>;

    /// Brings the shard back, all or nothing, durable when it returns. Idempotent by the number of the recovery.
    ///
    /// `false` where the shard is not as it was found: nothing was changed.
    async fn restore(&self, recovery: &ShardRecovery, now: Timestamp) -> Result<bool, PortError>;
}

/// What the books know of a shard beside its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHistory {
    /// The shard.
    pub shard: Shard,
    /// The latest recovery that was carried out on it; 0 where there is none.
    pub recovered: u64,
    /// How many of its pulses are in the books.
    pub pulses: u64,
    /// When its last generation in the books was sealed.
    pub sealed_at: Option<Timestamp>,
    /// How far it had counted each log by then.
    pub positions: Vec<LogMark>,
    /// When it was seen the furthest.
    pub seen_at: Option<Timestamp>,
}

/// A recovery that a person has agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Its number, from 1.
    pub number: u64,
    /// By which word.
    pub word: String,
    /// What that stands for, in the words in which it was shown.
    pub plan: String,
    /// Its shards, and whether each is brought back.
    pub shards: Vec<(ShardRecovery, bool)>,
    /// Of which logs which offsets were given up: from, and up to before.
    pub given_up: Vec<(LogName, u64, u64)>,
}

/// The books as the memory of recoveries.
#[async_trait]
pub trait RecoveryBooks: Send + Sync + 'static {
    /// What the books know of the shards of the accumulator, in their order.
    async fn histories(&self, accumulator: AccumulatorId) -> Result<Vec<ShardHistory>, PortError>;

    /// The latest recovery, and whether it has ended; `None` where there never was one.
    async fn latest(&self, accumulator: AccumulatorId) -> Result<Option<(Recovery, bool)>, PortError>;

    /// Records a recovery that is about to begin; from then on nothing that was read or seen of its shards before is
    /// taken. One that has not ended is given up for it.
    ///
    /// `false` where one of the shards is no longer recorded as it was found, or the number is taken: nothing was recorded.
    async fn begin(&self, accumulator: AccumulatorId, recovery: &Recovery) -> Result<bool, PortError>;

    /// Records that a shard was brought back; what it was seen at before is forgotten. Idempotent.
    async fn restored(&self, recovery: &ShardRecovery) -> Result<(), PortError>;

    /// Records from where on logs are about to be read again.
    async fn moving(
        &self,
        accumulator: AccumulatorId,
        number: u64,
        logs: &[(LogName, Settled)],
    ) -> Result<(), PortError>;

    /// Records the end of a recovery. Idempotent.
    async fn ended(&self, accumulator: AccumulatorId, number: u64) -> Result<(), PortError>;
}

/// A source of logs, whose memory of what was settled can be set back.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LogSource: Send + Sync + 'static {
    /// The logs that it reads, and what it says of each.
    async fn extents(&self) -> Result<Vec<(LogName, LogExtent)>, PortError>;

    /// Makes the next reading begin there. Nobody reads the source meanwhile; where it knows of readers, it refuses.
    async fn move_to(&self, log: &LogName, settled: Settled) -> Result<(), PortError>;
}
