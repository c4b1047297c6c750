//! The Redis accumulator on a real Redis.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it should be")]

#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/compact.rs"]
mod compact;
#[path = "redis/contract.rs"]
mod contract;
#[path = "redis/crashes.rs"]
mod crashes;
#[path = "redis/load.rs"]
mod load;
#[path = "redis/start_script.rs"]
mod start_script;
#[path = "redis/startup.rs"]
mod startup;
#[path = "redis/storage.rs"]
mod storage;

use application::ports::{AccumulatorShards, Batch, GenerationStore, PortError, ShardBirth};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId,
    Timestamp, UsageTotals, UsageUnit,
};
use infrastructure::{
    redis::{IdentityLayout, RedisAccumulator, RedisSettings},
    test_servers::redis::RedisServer,
};
use std::time::Duration;

const WINDOW: Duration = Duration::from_hours(48);
const START: Timestamp = Timestamp::new(1_768_046_400, 0);
const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes(*b"tests--of--redis");

fn settings(server: &RedisServer, shards: u16) -> RedisSettings {
    settings_at(&server.url(), shards)
}

fn settings_at(url: &str, shards: u16) -> RedisSettings {
    RedisSettings {
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(2),
        ..RedisSettings::new(url.into(), ShardCount::new(shards).unwrap(), WINDOW)
    }
}

fn birth(shards: u16) -> ShardBirth {
    ShardBirth { accumulator: ACCUMULATOR, shards: ShardCount::new(shards).unwrap(), now: START }
}

/// A handle with all shards made.
async fn opened(server: &RedisServer, shards: u16) -> RedisAccumulator {
    opened_at(&server.url(), shards).await
}

async fn opened_at(url: &str, shards: u16) -> RedisAccumulator {
    opened_with(&settings_at(url, shards)).await
}

/// One that opens buckets in the layout, of one shard.
async fn opened_in(server: &RedisServer, identities: IdentityLayout) -> RedisAccumulator {
    opened_with(&RedisSettings { identities, ..settings(server, 1) }).await
}

async fn opened_with(settings: &RedisSettings) -> RedisAccumulator {
    let (store, shards) = (RedisAccumulator::connect(settings).await.unwrap(), settings.shards.get());
    for shard in birth(shards).shards.shards() {
        store.create(shard, birth(shards)).await.unwrap();
    }
    store
}

/// A pulse for a shard, whatever the tenant says: nothing below the engine looks at that.
fn pulse(id: Option<String>, sku: &str, amount: &str) -> Pulse {
    Pulse {
        tenant: TenantId::new("tenant_xpto").unwrap(),
        product_sku: ProductSku::new(sku).unwrap(),
        use_unity: UsageUnit::new("KB").unwrap(),
        amount: Amount::parse(amount).unwrap(),
        identity: id.map(|id| PulseIdentity::Id(id.into())),
        occurred_at: None,
        hour: HourWindow::from_number(491_124),
    }
}

fn batch(shard: u16, number: u64, pulses: Vec<Pulse>) -> Batch {
    Batch { shard: Shard(shard), number, pulses, stretches: Vec::new() }
}

/// Makes two tests of each function: for buckets of either layout.
macro_rules! in_both_layouts {
    ($($name:ident),+ $(,)?) => {
        mod fast {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(infrastructure::redis::IdentityLayout::Fast).await;
            })+
        }
        mod compact {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(infrastructure::redis::IdentityLayout::Compact).await;
            })+
        }
    };
}
use in_both_layouts;

async fn rows(store: &RedisAccumulator, shard: Shard, generation: u64) -> Result<UsageTotals, PortError> {
    let (mut totals, mut part) = (UsageTotals::default(), Some(0));
    while let Some(number) = part {
        let (rows, next) = store.read(shard, generation, number).await?;
        for row in rows {
            totals.add_total(row.key, row.total);
        }
        part = next;
    }
    Ok(totals)
}
