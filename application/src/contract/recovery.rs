//! What the stores of an accumulator and of its books promise to a recovery from lost storage.
//!
//! `storage_contract!` and `recovery_books_contract!` make a test of each promise.
#![expect(
    clippy::missing_panics_doc,
    reason = "a promise that is broken panics: that is what the suite is for"
)]

mod books;
mod storage;

pub use {books::*, storage::*};

use crate::{
    open_shards::open_shards,
    ports::{
        AccumulatorShards, Batch, GenerationStore, LogMark, LogStretch, Outcome, PortError, PulseSink,
        ShardMark, ShardRegistry, UsageLedger,
    },
};
use domain::{
    AccumulatorId, Amount, HourWindow, LogName, LogPosition, ProductSku, Pulse, PulseIdentity, Shard,
    ShardCount, TenantId, Timestamp, UsageUnit,
};
use futures_util::{StreamExt, stream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose shard it is.
pub const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([7; 16]);
/// The one shard.
pub const SHARD: Shard = Shard(0);
/// The log that it counts.
pub const LOG: &str = "kafka/cluster/topic/0";
const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);

/// The log that the shard counts.
#[must_use]
pub fn log() -> LogName {
    LogName::parse(LOG).expect("a name")
}

fn mark(offset: u64) -> LogMark {
    LogMark { log: log(), position: LogPosition::before(offset) }
}

/// A pulse of amount 1 with an identity.
#[must_use]
pub fn pulse(number: u64) -> Pulse {
    Pulse { identity: Some(PulseIdentity::Id(format!("id-{number}").into())), ..anonymous() }
}

fn anonymous() -> Pulse {
    Pulse {
        tenant: TenantId::new("t").expect("a tenant"),
        product_sku: ProductSku::new("s").expect("a product"),
        use_unity: UsageUnit::new("u").expect("a unit"),
        amount: Amount::parse("1").expect("an amount"),
        identity: None,
        occurred_at: None,
        hour: HourWindow::from_number(490_000),
    }
}

/// A worker and a cron on one shard.
pub struct Program<A, L> {
    /// The counts.
    pub store: A,
    /// The books.
    pub ledger: L,
    recovery: u64,
    batches: AtomicU64,
}

impl<A: PulseSink + AccumulatorShards + GenerationStore, L: UsageLedger + ShardRegistry> Program<A, L> {
    /// Opens the shard as a start does.
    pub async fn open(store: A, ledger: L) -> Self {
        let opened = open_shards(&ledger, &store, ACCUMULATOR, ShardCount::ONE, NOW).await;
        let recovery = opened.expect("it opens").records[0].recovery;
        Self { store, ledger, recovery, batches: AtomicU64::new(1) }
    }

    /// Counts messages of the log, each a pulse without an identity.
    pub async fn count(&self, offsets: std::ops::Range<u64>) {
        let pulses = offsets.clone().map(|_| anonymous()).collect();
        let stretch = LogStretch {
            log: log(),
            from: LogPosition::START,
            to: LogPosition::before(offsets.end),
            pulses: offsets.enumerate().map(|(index, offset)| (index, LogPosition::before(offset))).collect(),
        };
        self.apply(pulses, vec![stretch]).await.expect("it is counted");
    }

    /// Counts pulses of a queue.
    pub async fn take(&self, pulses: impl IntoIterator<Item = Pulse>) -> Vec<Outcome> {
        self.apply(pulses.into_iter().collect(), Vec::new()).await.expect("they are counted")
    }

    async fn apply(&self, pulses: Vec<Pulse>, stretches: Vec<LogStretch>) -> Result<Vec<Outcome>, PortError> {
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        self.store.apply(&Batch { shard: SHARD, number, pulses, stretches }).await
    }

    /// Seals a generation, writes it and deletes it.
    pub async fn flush(&self, generation: u64) {
        self.store.seal(SHARD, generation, NOW).await.expect("it is sealed");
        self.write(generation).await.expect("it is written");
        let sealed = self.store.sealed(SHARD, generation).await.expect("it is read").expect("it is there");
        self.store.delete(&sealed).await.expect("it is deleted");
    }

    async fn write(&self, generation: u64) -> Result<(), PortError> {
        let sealed = self.store.sealed(SHARD, generation).await?.expect("it is sealed");
        let (rows, next) = self.store.read(SHARD, generation, 0).await?;
        assert_eq!(next, None, "few rows");
        self.ledger.write(&sealed, stream::iter([Ok(rows)]).boxed()).await.map(|_| ())
    }

    /// Leaves in the books how far the shard was seen.
    pub async fn report(&self) {
        let marks: Vec<ShardMark> = self.store.marks();
        assert!(marks.iter().all(|mark| mark.recovery == self.recovery), "{marks:?}");
        self.ledger.mark_seen(ACCUMULATOR, &marks).await.expect("it is recorded");
    }
}
