//! PostgreSQL as the ledger, on a real server.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

#[path = "postgres/contract.rs"]
mod contract;
#[path = "postgres/crashes.rs"]
mod crashes;
#[path = "postgres/inbox.rs"]
mod inbox;
#[path = "shared/inbox_crashes.rs"]
mod inbox_crashes;
#[path = "shared/inbox_events.rs"]
mod inbox_events;
#[path = "postgres/server.rs"]
mod server;

use application::ports::{SealedGeneration, UsageRow, UsageRows};
use domain::{
    AccumulatorId, HourWindow, ProductSku, Shard, TenantId, Timestamp, TotalAmount, UsageKey, UsageTotal,
    UsageUnit,
};
use futures_util::{StreamExt, stream};
use infrastructure::postgres::{PostgresLedger, PostgresSettings};

const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([7; 16]);

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings { url: url.into(), max_connections: 4, allow_unsafe_durability: false }
}

async fn connect(url: &str) -> PostgresLedger {
    PostgresLedger::connect(&settings(url)).await.expect("the server is fit")
}

/// Rows that sort in another order than they come in.
fn rows(count: i32, nanos: u128) -> Vec<UsageRow> {
    let row = |number: i32| UsageRow {
        key: UsageKey {
            tenant: TenantId::new(format!("tenant-{}", number % 101)).unwrap(),
            product_sku: ProductSku::new(format!("SKU-{}", number % 7)).unwrap(),
            use_unity: UsageUnit::new("KB").unwrap(),
            hour: HourWindow::from_number(490_000 + number),
        },
        total: UsageTotal { amount: TotalAmount::from_nanos(nanos), pulses: 1 },
    };
    (0..count).map(row).collect()
}

fn sealed(generation: u64, rows: &[UsageRow]) -> SealedGeneration {
    let total = rows.iter().fold(UsageTotal::default(), |sum, row| sum.checked_add(row.total).unwrap());
    SealedGeneration {
        accumulator: ACCUMULATOR,
        shard: Shard(0),
        generation,
        recovery: 0,
        total,
        sealed_at: Timestamp::new(1_768_046_400, 0),
        positions: Vec::new(),
    }
}

fn parts(rows: &[UsageRow]) -> UsageRows<'static> {
    stream::iter(rows.to_vec()).chunks(1_000).map(Ok).boxed()
}
