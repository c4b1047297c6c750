//! The books: hourly totals, what was flushed into them, and which shards exist.

use super::{PortError, SealedGeneration};
use async_trait::async_trait;
use domain::{
    AccumulatorId, HourWindow, ProductSku, Shard, ShardCount, TenantId, Timestamp, UsageKey, UsageTotal,
    UsageUnit,
};
use futures_util::stream::BoxStream;

/// One total under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Where it counts.
    pub key: UsageKey,
    /// How much.
    pub total: UsageTotal,
}

/// The rows of a generation, part after part, read while they are written so that memory stays flat.
pub type UsageRows<'a> = BoxStream<'a, Result<Vec<UsageRow>, PortError>>;

/// That a generation is in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushReceipt {
    /// The total that the ledger recorded for the generation.
    pub total: UsageTotal,
    /// How many rows it had.
    pub rows: u64,
    /// Whether this call wrote it; otherwise an earlier one had.
    pub written: bool,
}

/// Writes sealed generations to the books.
#[async_trait]
pub trait UsageLedger: Send + Sync + 'static {
    /// Writes a generation in one transaction: its record, its rows added to the hourly totals, the shard's watermark.
    ///
    /// Idempotent by (accumulator, shard, generation): where it is recorded already nothing is read or written and the
    /// record is returned. `rows` must come to the sealed total, the generation must follow the last one written, and no
    /// recovery of the shard may have begun since it was read; otherwise nothing is written and the error is permanent. A transient error says nothing about the effect.
    async fn write(&self, sealed: &SealedGeneration, rows: UsageRows<'_>) -> Result<FlushReceipt, PortError>;
}

/// Where the ledger stands with the making of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardStatus {
    /// It may exist or not: whoever makes it has not reported back.
    Creating,
    /// It existed: if it is gone, it was lost.
    Created,
}

/// What the ledger knows of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRecord {
    /// The shard.
    pub shard: Shard,
    /// Whether it was made.
    pub status: ShardStatus,
    /// The furthest (generation, sequence) that anybody reported; (0, 0) before the first report.
    pub seen: (u64, u64),
    /// The last generation in the books; 0 before the first.
    pub flushed: u64,
    /// The latest recovery from lost storage that was begun; 0 where there never was one.
    pub recovery: u64,
}

/// The accumulator that the ledger belongs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub accumulator: AccumulatorId,
    /// How many shards it has.
    pub shards: ShardCount,
    /// What is known of each of them, in order.
    pub records: Vec<ShardRecord>,
}

/// How far a program has seen a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMark {
    /// The shard.
    pub shard: Shard,
    /// Its active generation.
    pub generation: u64,
    /// Its sequence.
    pub sequence: u64,
    /// Its latest recovery.
    pub recovery: u64,
}

/// The ledger's memory of the accumulator, by which lost or rolled-back storage is noticed.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ShardRegistry: Send + Sync + 'static {
    /// Records an accumulator and its shards as [`ShardStatus::Creating`] unless the ledger has one; returns what it has.
    async fn register(
        &self,
        accumulator: AccumulatorId,
        shards: ShardCount,
    ) -> Result<Registration, PortError>;

    /// What the ledger has, without recording anything; `None` before the first registration.
    async fn registration(&self) -> Result<Option<Registration>, PortError>;

    /// Records that the shard was made. Idempotent.
    async fn confirm_created(&self, accumulator: AccumulatorId, shard: Shard) -> Result<(), PortError>;

    /// Records how far shards were seen; marks never go back. Those of before the latest recovery say nothing.
    async fn mark_seen(&self, accumulator: AccumulatorId, marks: &[ShardMark]) -> Result<(), PortError>;
}

/// Which totals; `None` stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only this tenant.
    pub tenant: Option<TenantId>,
    /// Only this product.
    pub product_sku: Option<ProductSku>,
    /// Only this unit.
    pub use_unity: Option<UsageUnit>,
    /// Only hours from this one on.
    pub from: Option<HourWindow>,
    /// Only hours before this one.
    pub to: Option<HourWindow>,
}

impl UsageFilter {
    /// Whether a total under this key is wanted.
    #[must_use]
    pub fn wants(&self, key: &UsageKey) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == key.tenant)
            && self.product_sku.as_ref().is_none_or(|sku| *sku == key.product_sku)
            && self.use_unity.as_ref().is_none_or(|unit| *unit == key.use_unity)
            && self.from.is_none_or(|from| from <= key.hour)
            && self.to.is_none_or(|to| key.hour < to)
    }
}

/// The books as of one moment.
pub struct UsageSnapshot {
    /// The last generation in the books of each shard, in the order of the shards; empty before the first registration.
    pub flushed: Vec<u64>,
    /// The wanted totals in the order of their keys.
    pub rows: UsageRows<'static>,
}

/// Reads the books.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait UsageReader: Send + Sync + 'static {
    /// The totals and the watermarks of one consistent snapshot.
    async fn usage(&self, filter: &UsageFilter) -> Result<UsageSnapshot, PortError>;
}

/// One row of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// Names the row.
    pub id: i64,
    /// Where it counts.
    pub key: UsageKey,
    /// How much.
    pub total: UsageTotal,
    /// When the first flush wrote it.
    pub created_at: Timestamp,
    /// When the last flush added to it.
    pub updated_at: Timestamp,
}

/// Some rows of the books, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerPage {
    /// The rows, in the order of their keys.
    pub rows: Vec<LedgerRow>,
    /// How many rows the filter wants.
    pub total: u64,
}

/// By what usage is added up. Units are never added to each other, so sums are always apart by unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupBy {
    /// Apart by tenant.
    pub tenant: bool,
    /// Apart by product.
    pub product_sku: bool,
}

/// The sum of a group in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSum {
    /// The number of the window among those asked for, from 0.
    pub window: usize,
    /// The tenant, where they were kept apart.
    pub tenant: Option<TenantId>,
    /// The product, where they were kept apart.
    pub product_sku: Option<ProductSku>,
    /// What the amount is counted in.
    pub use_unity: UsageUnit,
    /// How much.
    pub total: UsageTotal,
}

/// The flush of one generation of one shard, as the books record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushRecord {
    /// The shard.
    pub shard: Shard,
    /// The generation that was written.
    pub generation: u64,
    /// What it held; amounts of different units are added up.
    pub total: UsageTotal,
    /// How many rows it added to.
    pub rows: u64,
    /// When the generation was sealed.
    pub sealed_at: Timestamp,
    /// When its transaction began.
    pub started_at: Timestamp,
    /// When its rows were written.
    pub flushed_at: Timestamp,
}

/// Answers questions about the books without reading all of them.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait UsageQueries: Send + Sync + 'static {
    /// The wanted rows from the `skip`-th on, at most `limit`, in the order of their keys.
    async fn page(&self, filter: &UsageFilter, skip: u64, limit: u32) -> Result<LedgerPage, PortError>;

    /// The row with this number.
    async fn row(&self, id: i64) -> Result<Option<LedgerRow>, PortError>;

    /// The first and the last hour of the wanted rows; `None` where there are none.
    async fn span(&self, filter: &UsageFilter) -> Result<Option<(HourWindow, HourWindow)>, PortError>;

    /// Sums of the wanted rows by window and group, in the order of both; at most `limit` of them.
    ///
    /// A window reaches from one of the bounds (ascending) up to before the next; what lies outside is left out.
    async fn sums(
        &self,
        filter: &UsageFilter,
        bounds: &[HourWindow],
        group_by: GroupBy,
        limit: u32,
    ) -> Result<Vec<WindowSum>, PortError>;

    /// The latest flushes, newest first, at most `limit`.
    async fn flushes(&self, limit: u32) -> Result<Vec<FlushRecord>, PortError>;
}
