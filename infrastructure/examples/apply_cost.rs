//! What applying costs Redis: CPU per pulse and pulses a second, by size of batch and number of live buckets.
//!
//! `cargo run --release -p infrastructure --features test-servers --example apply_cost [PULSES [BATCH [BUCKETS [KEYS]]]] [compact]`

#![expect(clippy::print_stdout, reason = "a measurement prints its figures")]

use application::ports::{AccumulatorShards, Batch, GenerationStore, PulseSink, ShardBirth};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId,
    Timestamp, UsageUnit,
};
use futures_util::future::join_all;
use infrastructure::{
    redis::{IdentityLayout, RedisAccumulator, RedisSettings},
    test_servers::redis::RedisServer,
};
use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

const SHARDS: u16 = 8;
const START: i64 = 1_768_046_400;

#[tokio::main]
async fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|number| number.parse().ok()).collect();
    let pulses = numbers.first().copied().unwrap_or(400_000);
    let sizes = numbers.get(1).map_or(vec![125, 250, 1_000], |size| vec![*size]);
    let buckets = numbers.get(2).map_or(vec![1, 3], |buckets| vec![*buckets]);
    let keys = numbers.get(3).copied().unwrap_or(1_000);
    let compact = std::env::args().any(|argument| argument == "compact");
    let identities = if compact { IdentityLayout::Compact } else { IdentityLayout::Fast };
    println!("batch  buckets  redis us/pulse: user  system  own us/pulse   pulses/s  bytes/id");
    for buckets in buckets {
        for size in &sizes {
            measure(*size, buckets, pulses, keys, identities).await;
        }
    }
}

async fn measure(size: u64, buckets: u64, pulses: u64, keys: u64, identities: IdentityLayout) {
    let server = RedisServer::start();
    let shards = ShardCount::new(SHARDS).expect("a valid number");
    let settings = RedisSettings::new(server.url().into(), shards, Duration::from_hours(48));
    let settings = RedisSettings { identities, ..settings };
    let store = RedisAccumulator::connect(&settings).await.expect("Redis is there");
    let births =
        ShardBirth { accumulator: AccumulatorId::from_bytes([1; 16]), shards, now: Timestamp::new(START, 0) };
    let mut lanes = Vec::new();
    for shard in shards.shards() {
        store.create(shard, births).await.expect("the shard is made");
        lanes.extend(Lane::new(shard, shards, keys));
    }
    for bucket in 0..buckets {
        run(&store, &mut lanes, size, pulses).await;
        if bucket + 1 == buckets {
            break;
        }
        // As many as the last one has in the end: a compact bucket begins with the parts for as many as the one before.
        run(&store, &mut lanes, size, pulses).await;
        for generation in 1..=2 {
            let generation = bucket * 2 + generation;
            let now = Timestamp::new(START + i64::try_from(generation).expect("small") * 12 * 3_600, 0);
            for shard in shards.shards() {
                store.seal(shard, generation, now).await.expect("it is sealed");
            }
        }
    }
    let memory_before: u64 = memory(&server);
    let ids_before: u64 = lanes.iter().map(|lane| lane.next).sum();
    let (redis, own, start) = (Cpu::of(server.pid()), Cpu::of(std::process::id()), Instant::now());
    run(&store, &mut lanes, size, pulses).await;
    let wall = start.elapsed().as_secs_f64();
    let (redis, own) = (Cpu::of(server.pid()).since(redis), Cpu::of(std::process::id()).since(own));
    let ids = lanes.iter().map(|lane| lane.next).sum::<u64>() - ids_before;
    let bytes = (memory(&server) - memory_before) / ids;
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    let count = pulses as f64;
    println!(
        "{size:5}  {buckets:7}  {:20.2}  {:6.2}  {:12.2}  {:9.0}  {bytes:8}",
        redis.user * 1e6 / count,
        redis.system * 1e6 / count,
        (own.user + own.system) * 1e6 / count,
        count / wall
    );
}

/// Applies so many pulses over all lanes at the same time, one in a hundred of them twice.
async fn run(store: &RedisAccumulator, lanes: &mut [Lane], size: u64, pulses: u64) {
    let left = AtomicU64::new(pulses);
    join_all(lanes.iter_mut().map(async |lane| {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size)).is_ok() {
            let batch = lane.batch(size);
            store.apply(&batch).await.expect("it is applied");
        }
    }))
    .await;
}

/// A shard that has tenants, and what was made up for it.
struct Lane {
    shard: Shard,
    keys: Vec<(TenantId, ProductSku)>,
    next: u64,
    number: u64,
}

impl Lane {
    fn new(shard: Shard, shards: ShardCount, keys: u64) -> Option<Self> {
        let key = |n: u64| {
            (
                TenantId::new(format!("tenant-{:04}", n / 10)).expect("a valid tenant"),
                ProductSku::new(format!("SKU-{}", n % 10)).expect("a valid SKU"),
            )
        };
        let keys: Vec<_> =
            (0..keys).map(key).filter(|(tenant, _)| shards.shard_of(tenant) == shard).collect();
        (!keys.is_empty()).then_some(Self { shard, keys, next: 0, number: 0 })
    }

    fn batch(&mut self, size: u64) -> Batch {
        let unit = UsageUnit::new("KB").expect("a valid unit");
        self.number += 1;
        let pulses = (0..size)
            .map(|n| {
                let id = if n % 100 == 99 { self.next / 2 } else { self.next };
                self.next = id.max(self.next) + u64::from(n % 100 != 99);
                let key = usize::try_from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).expect("31 bits");
                let (tenant, product_sku) = self.keys[key % self.keys.len()].clone();
                Pulse {
                    tenant,
                    product_sku,
                    use_unity: unit.clone(),
                    amount: Amount::parse("307").expect("a valid amount"),
                    identity: Some(PulseIdentity::Id(format!("{}-{id:012}-0123456789", self.shard).into())),
                    occurred_at: None,
                    hour: HourWindow::from_number(491_124),
                }
            })
            .collect();
        Batch { shard: self.shard, number: self.number, pulses, stretches: Vec::new() }
    }
}

/// CPU seconds of a process.
#[derive(Clone, Copy)]
struct Cpu {
    user: f64,
    system: f64,
}

impl Cpu {
    /// As the kernel counts them, at 100 ticks a second.
    fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
        let seconds = |n: usize| fields[n].parse::<f64>().expect("a number of ticks") / 100.0;
        Self { user: seconds(11), system: seconds(12) }
    }

    fn since(self, start: Self) -> Self {
        Self { user: self.user - start.user, system: self.system - start.system }
    }
}

fn memory(server: &RedisServer) -> u64 {
    let info: String = server.command(&["INFO", "memory"]);
    let line =
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("Redis tells its memory");
    line.trim().parse().expect("a number of bytes")
}
