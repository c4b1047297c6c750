//! An audit of stores that work: what it says must hold at every moment of a day.

use super::{SHARDS, START, Stores, WINDOW};
use application::audit::Outcome;
use domain::{ShardCount, Timestamp};
use infrastructure::{
    postgres::{PostgresLedger, PostgresSettings},
    redis::{IdentityLayout, RedisAccumulator, RedisSettings},
    sqlite::{EmbeddedSettings, EmbeddedStore},
    test_servers::{postgres::PostgresServer, redis::RedisServer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

/// Two programs count and two flush as fast as they can while the books are audited; from one flush to the next as much time
/// passes as they are told.
async fn audited_while_working(programs: Vec<Stores>, audits: u32, step: Duration) {
    let done = Arc::new(AtomicBool::new(false));
    let flushes = Arc::new(AtomicI64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    let programs: Vec<Arc<Stores>> = programs.into_iter().map(Arc::new).collect();
    for (place, stores) in programs.iter().enumerate() {
        let (stores, ended) = (Arc::clone(stores), Arc::clone(&done));
        let numbers = (place as u64 * 1_000_000 + 1)..;
        let counting = Arc::clone(&stores);
        let stopped = Arc::clone(&done);
        let flushes = Arc::clone(&flushes);
        tasks.spawn(async move {
            for number in numbers {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                counting.count(number, 200).await;
            }
        });
        tasks.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                // Two flushes at once may meet; what one leaves the next one takes.
                let passed = flushes.fetch_add(1, Ordering::Relaxed) * i64::try_from(step.as_secs()).unwrap();
                let _ = stores.flush.run(Timestamp::new(START.seconds() + passed, 0)).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
    }
    for _ in 0..audits {
        let report = programs[0].audit().await;
        assert_eq!(report.outcome(), Outcome::Holds, "{report:#?}");
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    programs[0].flush().await;
    programs[0].assert_holds().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_and_postgres_hold_while_two_programs_count_and_flush() {
    redis_and_postgres([IdentityLayout::Fast; 2], Duration::ZERO).await;
}

/// Each bucket is of the layout of the program that opens it, and is dropped soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_holds_while_buckets_of_both_layouts_are_opened_and_dropped() {
    redis_and_postgres([IdentityLayout::Compact, IdentityLayout::Fast], WINDOW / 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_holds_while_compact_buckets_grow() {
    redis_and_postgres([IdentityLayout::Compact; 2], Duration::ZERO).await;
}

async fn redis_and_postgres(layouts: [IdentityLayout; 2], step: Duration) {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let ledger_url = postgres.create_database("pulse");
    let shards = ShardCount::new(SHARDS).unwrap();
    let mut programs = Vec::new();
    for identities in layouts {
        let settings = RedisSettings { identities, ..RedisSettings::new(redis.url().into(), shards, WINDOW) };
        let accumulator = RedisAccumulator::connect(&settings).await.unwrap();
        let settings = PostgresSettings {
            url: ledger_url.clone().into(),
            max_connections: 8,
            allow_unsafe_durability: false,
        };
        let ledger = PostgresLedger::connect(&settings).await.unwrap();
        ledger.migrate().await.unwrap();
        programs.push(Stores::open(Arc::new(accumulator), Arc::new(ledger), shards).await);
    }
    audited_while_working(programs, 60, step).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_embedded_file_holds_while_two_programs_count_and_flush() {
    let folder = tempfile::tempdir().unwrap();
    let mut programs = Vec::new();
    for _ in 0..2 {
        let store =
            EmbeddedStore::open(&EmbeddedSettings::new(folder.path().join("pulse.db"))).await.unwrap();
        let store = Arc::new(store);
        programs.push(Stores::open(Arc::clone(&store), store, ShardCount::ONE).await);
    }
    audited_while_working(programs, 40, Duration::ZERO).await;
}
