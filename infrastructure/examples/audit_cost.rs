//! What an audit costs: `audit_cost [ROWS]`.
//!
//! Starts a Redis and a PostgreSQL of its own, puts as many hourly totals into the books as it leaves pending in Redis
//! (a million each, in 16 shards), and audits three times.

use application::{
    audit::{AuditBooks, Outcome},
    flush_usage::FlushUsage,
    open_shards::open_shards,
    ports::{Batch, PulseSink},
};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, ShardCount, TenantId, Timestamp,
    UsageUnit,
};
use infrastructure::{
    postgres::{PostgresLedger, PostgresSettings},
    redis::{RedisAccumulator, RedisSettings},
    test_servers::{postgres::PostgresServer, redis::RedisServer},
};
use std::{
    env,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([7; 16]);
const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);
const SHARDS: u16 = 16;
const TENANTS_A_SHARD: u32 = 50;
const BATCH: u32 = 4_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: u32 = env::args().nth(1).map(|rows| rows.parse()).transpose()?.unwrap_or(1_000_000);
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let shards = ShardCount::new(SHARDS).ok_or("a number of shards")?;
    let settings = RedisSettings::new(redis.url().into(), shards, Duration::from_hours(48));
    let accumulator = Arc::new(RedisAccumulator::connect(&settings).await?);
    let settings =
        PostgresSettings { url: postgres.url().into(), max_connections: 4, allow_unsafe_durability: false };
    let ledger = Arc::new(PostgresLedger::connect(&settings).await?);
    ledger.migrate().await?;
    open_shards(ledger.as_ref(), accumulator.as_ref(), ACCUMULATOR, shards, NOW).await?;
    let flush = FlushUsage {
        shards: Arc::clone(&accumulator) as _,
        generations: Arc::clone(&accumulator) as _,
        ledger: Arc::clone(&ledger) as _,
        registry: Arc::clone(&ledger) as _,
    };
    let audit = AuditBooks {
        accumulator_name: "redis".to_owned(),
        registry: Arc::clone(&ledger) as _,
        accumulator: Arc::clone(&accumulator) as _,
        books: ledger,
        shard_count: shards,
    };
    let mut out = io::stdout().lock();
    count(accumulator.as_ref(), shards, rows, 0).await?;
    flush.run(NOW).await?;
    report(&mut out, &audit, &format!("{rows} hourly totals, nothing pending")).await?;
    count(accumulator.as_ref(), shards, rows, rows).await?;
    for _ in 0..3 {
        report(&mut out, &audit, &format!("{rows} hourly totals, {rows} pending")).await?;
    }
    Ok(())
}

async fn report(
    out: &mut impl Write,
    audit: &AuditBooks,
    what: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let found = audit.run(NOW).await;
    writeln!(out, "{what}: {:.2} s", start.elapsed().as_secs_f64())?;
    if found.outcome() == Outcome::Holds { Ok(()) } else { Err(format!("{found:#?}").into()) }
}

/// Each pulse under a key of its own.
async fn count(
    sink: &dyn PulseSink,
    shards: ShardCount,
    rows: u32,
    first: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let a_shard = rows / u32::from(shards.get());
    for shard in shards.shards() {
        let tenants: Vec<TenantId> = (0..100_000)
            .filter_map(|number| TenantId::new(format!("tenant-{number}")).ok())
            .filter(|tenant| shards.shard_of(tenant) == shard)
            .take(TENANTS_A_SHARD as usize)
            .collect();
        for from in (0..a_shard).step_by(BATCH as usize) {
            let pulse = |number: u32| -> Result<Pulse, Box<dyn std::error::Error>> {
                Ok(Pulse {
                    tenant: tenants[(number % TENANTS_A_SHARD) as usize].clone(),
                    product_sku: ProductSku::new(format!("SKU-{}", number / TENANTS_A_SHARD % 10))?,
                    use_unity: UsageUnit::new("KB")?,
                    amount: Amount::parse("307.5")?,
                    identity: Some(PulseIdentity::Id(format!("{}", first + number).into())),
                    occurred_at: None,
                    hour: HourWindow::from_number(i32::try_from(490_000 + number / TENANTS_A_SHARD / 10)?),
                })
            };
            let pulses = (from..(from + BATCH).min(a_shard)).map(pulse).collect::<Result<_, _>>()?;
            let number = u64::from(first + from) + 1;
            sink.apply(&Batch { shard, number, pulses, stretches: Vec::new() }).await?;
        }
    }
    Ok(())
}
