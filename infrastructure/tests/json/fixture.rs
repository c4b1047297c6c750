//! A folder of books of one test, and what is written to it.

use application::ports::{
    FlushReceipt, PortError, SealedGeneration, ShardRegistry, UsageFilter, UsageLedger, UsageReader, UsageRow,
};
use domain::{
    AccumulatorId, HourWindow, ProductSku, Shard, ShardCount, TenantId, Timestamp, TotalAmount, UsageKey,
    UsageTotal, UsageUnit,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use infrastructure::json::JsonLedger;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

pub(crate) const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([7; 16]);

pub(crate) struct Books(TempDir);

impl Books {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// The folder, which does not exist yet, nor does the one that it lies in.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("new/books").join(name)
    }

    pub(crate) fn ledger(&self) -> JsonLedger {
        JsonLedger::new(&self.path("")).unwrap()
    }

    pub(crate) async fn registered(&self) -> JsonLedger {
        let ledger = self.ledger();
        ledger.register(ACCUMULATOR, ShardCount::ONE).await.unwrap();
        ledger
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Everything that is in the folder, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Tenant, product, unit, hour and amount, of one pulse.
pub(crate) type Used<'a> = (&'a str, &'a str, &'a str, i32, &'a str);

pub(crate) fn rows(used: &[Used<'_>]) -> Vec<UsageRow> {
    let row = |(tenant, sku, unit, hour, amount): &Used<'_>| UsageRow {
        key: UsageKey {
            tenant: TenantId::new(*tenant).unwrap(),
            product_sku: ProductSku::new(*sku).unwrap(),
            use_unity: UsageUnit::new(*unit).unwrap(),
            hour: HourWindow::from_number(*hour),
        },
        total: UsageTotal { amount: TotalAmount::parse(amount).unwrap(), pulses: 1 },
    };
    used.iter().map(row).collect()
}

pub(crate) async fn write(
    ledger: &JsonLedger,
    generation: u64,
    used: &[Used<'_>],
) -> Result<FlushReceipt, PortError> {
    let rows = rows(used);
    let add = |sum: UsageTotal, row: &UsageRow| sum.checked_add(row.total).unwrap();
    let total = rows.iter().fold(UsageTotal::default(), add);
    let sealed_at = Timestamp::new(1_768_046_400, 0);
    let sealed = SealedGeneration {
        accumulator: ACCUMULATOR,
        shard: Shard(0),
        generation,
        recovery: 0,
        total,
        sealed_at,
        positions: Vec::new(),
    };
    ledger.write(&sealed, stream::iter([Ok(rows)]).boxed()).await
}

pub(crate) async fn booked(ledger: &JsonLedger) -> Vec<UsageRow> {
    let snapshot = ledger.usage(&UsageFilter::default()).await.unwrap();
    snapshot.rows.try_concat().await.unwrap()
}
