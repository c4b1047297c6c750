//! What an audit of the books asks of the stores: figures that belong together, each set of one moment. Nothing is changed.

use super::{PortError, Registration, ShardState, UsageRow};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount, TenantId, UsageKey, UsageTotal};
use futures_util::stream::BoxStream;

/// What a shard says of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCut {
    /// Where it stands.
    pub state: ShardState,
    /// How many rows the active generation has.
    pub active_rows: RowCount,
    /// The generations after the last deleted one and before the active one, in order.
    pub sealed: Vec<SealedCut>,
    /// How many identities it remembers.
    pub identities: u64,
    /// How many it has remembered in its life and forgotten since.
    pub identities_dropped: u64,
    /// How many pulses in the books it knows nothing of, because their identities were lost with its storage.
    pub identities_lost: u64,
}

/// A sealed generation that is not deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCut {
    /// Its number.
    pub generation: u64,
    /// Its total as it was sealed; `None` where that is gone.
    pub total: Option<UsageTotal>,
    /// How many rows it has.
    pub rows: RowCount,
}

/// A number of rows, counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCount {
    /// As the steps that counted have written it down; `None` where the store keeps no such number.
    pub recorded: Option<u64>,
    /// As many as there are.
    pub stored: u64,
}

/// A row as it is found, readable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundRow {
    /// It reads.
    Good(UsageRow),
    /// It should be there and is not, or does not read.
    Bad {
        /// Where it counts, where that can be told.
        key: Option<UsageKey>,
        /// What is wrong with it.
        fault: String,
    },
}

/// Something in the store of the counts that belongs to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The shard in whose place it is.
    pub shard: Shard,
    /// What it is, by the name that a person finds it by.
    pub name: String,
}

/// Shows the counts that are not in the books yet.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait AccumulatorAudit: Send + Sync + 'static {
    /// All figures of a shard, of one moment; `None` where there is no such shard. Costs a call without its rows.
    async fn cut(&self, shard: Shard) -> Result<Option<ShardCut>, PortError>;

    /// One part of the rows of a generation, and the number of the next part; as `GenerationStore::read`, but what does
    /// not read is told instead of refused.
    async fn rows(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<FoundRow>, Option<u32>), PortError>;

    /// What is stored outside of the generations and the identities that the shards have, at most a hundred; what only
    /// seemed to be because a flush went on meanwhile is not among it.
    async fn strays(&self) -> Result<Vec<Stray>, PortError>;
}

/// What the books hold of a shard of an accumulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardBooks {
    /// The shard.
    pub shard: Shard,
    /// The last generation in the books, by the watermark; 0 before the first.
    pub flushed: u64,
    /// How many generations are on record.
    pub generations: u64,
    /// The last one on record; 0 where there is none.
    pub last: u64,
    /// The first that is missing before the last.
    pub gap: Option<u64>,
    /// The totals of all records.
    pub total: UsageTotal,
    /// The records after the generation that was asked for, in order.
    pub after: Vec<(u64, UsageTotal)>,
}

/// What the books hold of an accumulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccumulatorBooks {
    /// Its id.
    pub accumulator: AccumulatorId,
    /// How many shards it has.
    pub shards: ShardCount,
    /// Whether it is in use.
    pub active: bool,
    /// Its shards in order.
    pub books: Vec<ShardBooks>,
}

/// The hourly totals of a tenant, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSum {
    /// The tenant; as text where it is no name of a tenant.
    pub tenant: Result<TenantId, String>,
    /// The sum; as text where it is no sum of usage.
    pub total: Result<UsageTotal, String>,
    /// How many rows it is of.
    pub rows: u64,
    /// How many of them are not what the flushes have written.
    pub altered: u64,
}

/// The sums of all tenants, part after part.
pub type TenantSums = BoxStream<'static, Result<Vec<TenantSum>, PortError>>;

/// The books of one moment.
pub struct BooksCut {
    /// The accumulator in use; `None` before the first registration.
    pub registration: Option<Registration>,
    /// What the books hold of each accumulator that they ever had.
    pub accumulators: Vec<AccumulatorBooks>,
    /// The hourly totals by tenant.
    pub usage: TenantSums,
}

/// An hourly total that is not what the flushes have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredRow {
    /// Tenant, product, unit and the beginning of the hour, as they stand there.
    pub key: [String; 4],
    /// Amount and pulses as they stand there.
    pub found: (String, String),
    /// Amount and pulses as the flushes have written them.
    pub written: (String, String),
}

/// Shows the books.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait BooksAudit: Send + Sync + 'static {
    /// All figures of one consistent snapshot. `after` says for each shard of the accumulator in use from which
    /// generation on the records are wanted one by one; 0 for shards that it does not name.
    async fn cut(&self, after: &[u64]) -> Result<BooksCut, PortError>;

    /// The first of the hourly totals that are not what the flushes have written, at most `limit`.
    async fn altered(&self, limit: u32) -> Result<Vec<AlteredRow>, PortError>;
}
