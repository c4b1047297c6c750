//! What is kept in Redis, and that it stays bounded.

use super::{ACCUMULATOR, START, WINDOW, batch, in_both_layouts, opened, opened_in, pulse, rows};
use application::ports::{
    AccumulatorAudit, AccumulatorShards, FoundAt, GenerationStore, Outcome, PulseSink, Remake, ShardRecovery,
    ShardStorage,
};
use domain::{Shard, Timestamp};
use infrastructure::{redis::IdentityLayout, test_servers::redis::RedisServer};
use std::collections::{BTreeSet, HashMap};

const META: &str = "pulse:{0}:meta";

in_both_layouts! {
    counted_pulses_are_the_known_identities_and_the_anonymous_and_the_dropped,
    a_quiet_shard_opens_no_buckets,
    a_batch_that_does_not_fit_seals_and_is_counted_in_the_next_generation,
    pulses_whose_identities_were_lost_are_told_apart_and_nothing_is_left_behind,
}

fn meta(server: &RedisServer, field: &str) -> String {
    server.command(&["HGET", META, field])
}

/// So many steps of a quarter of the window after the start.
fn quarters(steps: u32) -> Timestamp {
    Timestamp::new(START.seconds() + i64::try_from((WINDOW / 4 * steps).as_secs()).unwrap(), 0)
}

#[tokio::test]
async fn a_shard_keeps_its_keys_in_one_hash_slot() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(Some("a".into()), "s", "1")])).await.unwrap();
    store.seal(Shard(0), 1, START).await.unwrap();
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    keys.sort();
    let expected =
        ["pulse:{0}:agg:1", "pulse:{0}:gen:1", "pulse:{0}:ids:1", "pulse:{0}:meta", "pulse:{0}:names:1:0"];
    assert_eq!(keys, expected);
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    store.delete(&sealed).await.unwrap();
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    keys.sort();
    assert_eq!(keys, ["pulse:{0}:ids:1", "pulse:{0}:meta"]);
}

#[tokio::test]
async fn nothing_expires_by_itself() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(Some("a".into()), "s", "1")])).await.unwrap();
    let info: String = server.command(&["INFO", "keyspace"]);
    assert!(info.contains("expires=0"), "{info}");
}

async fn counted_pulses_are_the_known_identities_and_the_anonymous_and_the_dropped(layout: IdentityLayout) {
    let server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    let mut number = 0;
    for step in 1..=24 {
        for round in 0..2 {
            number += 1;
            let mut pulses: Vec<_> =
                (0..5).map(|n| pulse(Some(format!("{step}-{round}-{n}")), "s", "1")).collect();
            pulses.push(pulse(None, "s", "1"));
            pulses.push(pulse(Some(format!("{step}-0-0")), "s", "1"));
            store.apply(&batch(0, number, pulses)).await.unwrap();
        }
        let generation = store.inspect(Shard(0)).await.unwrap().unwrap().generation;
        store.seal(Shard(0), generation, quarters(step)).await.unwrap();
        let sealed = store.sealed(Shard(0), generation).await.unwrap().unwrap();
        store.delete(&sealed).await.unwrap();

        let count = |field| meta(&server, field).parse::<u64>().unwrap();
        let buckets: Vec<String> = server.command(&["KEYS", "pulse:{0}:ids:*"]);
        let numbers: BTreeSet<_> = buckets.iter().filter_map(|key| key.split(':').nth(3)).collect();
        assert!(numbers.len() <= 5, "{buckets:?}");
        let known: u64 = buckets.iter().map(|key| server.command::<u64>(&["HLEN", key])).sum();
        assert_eq!(count("counted"), known + count("anonymous") + count("ids_dropped"));
        assert_eq!(count("counted") + count("duplicates"), number * 7);
    }
    let dropped: u64 = meta(&server, "ids_dropped").parse().unwrap();
    assert!(dropped > 100, "{dropped}");
}

async fn a_quiet_shard_opens_no_buckets(layout: IdentityLayout) {
    let server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    for generation in 1..=20 {
        store.seal(Shard(0), generation, quarters(u32::try_from(generation).unwrap())).await.unwrap();
    }
    let list = if layout == IdentityLayout::Fast { "buckets" } else { "bucket_layouts" };
    assert!(meta(&server, list).starts_with("1@"));
}

#[tokio::test]
async fn programs_that_are_gone_leave_nothing_behind() {
    let server = RedisServer::start();
    for round in 1..=5 {
        let store = opened(&server, 1).await;
        store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
        store.seal(Shard(0), round, START).await.unwrap();
    }
    let meta: HashMap<String, Vec<u8>> = server.command(&["HGETALL", META]);
    let writers = meta.keys().filter(|field| field.starts_with("w:")).count();
    assert_eq!(writers, 2, "those of the last two generations");
}

#[tokio::test]
async fn a_generation_of_very_many_rows_is_deleted_in_steps() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
    store.seal(Shard(0), 1, START).await.unwrap();
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    // As if it had three million rows.
    let () = server.command(&["HSET", "pulse:{0}:gen:1", "rows", "3000000"]);
    for list in 1..733 {
        let () = server.command(&["RPUSH", &format!("pulse:{{0}}:names:1:{list}"), "name"]);
    }
    store.delete(&sealed).await.unwrap();
    let left: Vec<String> = server.command(&["KEYS", "pulse:{0}:[gn]*"]);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(store.inspect(Shard(0)).await.unwrap().unwrap().deleted, 1);
}

#[tokio::test]
async fn a_generation_that_is_deleted_by_half_reads_as_empty_and_is_deleted_again() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
    store.seal(Shard(0), 1, START).await.unwrap();
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    let _: u64 = server.command(&["UNLINK", "pulse:{0}:agg:1"]);
    assert!(rows(&store, Shard(0), 1).await.unwrap().is_empty());
    store.delete(&sealed).await.unwrap();
    assert_eq!(store.sealed(Shard(0), 1).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_row_is_an_error_and_not_left_out() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1"), pulse(None, "t", "1")])).await.unwrap();
    let names: Vec<Vec<u8>> = server.command(&["LRANGE", "pulse:{0}:names:1:0", "0", "-1"]);
    let name = String::from_utf8(names[0].clone()).unwrap();
    let () = server.command(&["HSET", "pulse:{0}:agg:1", &name, "307"]);
    assert!(!rows(&store, Shard(0), 1).await.unwrap_err().is_transient());
    let _: u64 = server.command(&["HDEL", "pulse:{0}:agg:1", &name]);
    assert!(!rows(&store, Shard(0), 1).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_lost_sealed_total_is_not_taken_for_a_deletion() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
    store.seal(Shard(0), 1, START).await.unwrap();
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    let _: u64 = server.command(&["DEL", "pulse:{0}:gen:1"]);
    assert!(!store.sealed(Shard(0), 1).await.unwrap_err().is_transient());
    assert!(!store.delete(&sealed).await.unwrap_err().is_transient());
}

async fn a_batch_that_does_not_fit_seals_and_is_counted_in_the_next_generation(layout: IdentityLayout) {
    let server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    let large = |round: u32| -> Vec<_> {
        (0..400).map(|n| pulse(Some(format!("{round}-{n}")), "s", "9999999999999999.999999999")).collect()
    };
    for round in 1..=3 {
        let outcomes = store.apply(&batch(0, u64::from(round), large(round))).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Counted));
    }
    let state = store.inspect(Shard(0)).await.unwrap().unwrap();
    assert_eq!((state.generation, state.active.pulses), (2, 400));
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    assert_eq!(sealed.total.pulses, 800);
    assert!(sealed.sealed_at.seconds() > START.seconds(), "by the time of Redis");
}

async fn pulses_whose_identities_were_lost_are_told_apart_and_nothing_is_left_behind(layout: IdentityLayout) {
    let server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    for (number, generation) in [(1, 1), (2, 2)] {
        let pulses = (0..5).map(|n| pulse(Some(format!("{number}-{n}")), "s", "1")).collect();
        store.apply(&batch(0, number, pulses)).await.unwrap();
        store.seal(Shard(0), generation, START).await.unwrap();
    }
    let at = store.inspect(Shard(0)).await.unwrap().unwrap();
    // The ledger has come to hold more of it than this copy.
    let mut recovery = ShardRecovery {
        accumulator: ACCUMULATOR,
        shards: at.shards,
        shard: Shard(0),
        number: 1,
        found: Some(FoundAt { recovery: 0, generation: at.generation, sequence: at.sequence }),
        remake: Remake::DropBooked,
        generation: 9,
        sequence: 100,
        counted: 25,
        positions: Vec::new(),
        flushed: 8,
        seen: (9, 99),
    };
    assert!(store.restore(&recovery, START).await.unwrap());
    let cut = AccumulatorAudit::cut(&store, Shard(0)).await.unwrap().unwrap();
    assert_eq!((cut.identities, cut.identities_lost, cut.state.counts.counted), (10, 15, 25));
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]);
    keys.sort();
    let identities = if layout == IdentityLayout::Fast { "pulse:{0}:ids:1" } else { "pulse:{0}:ids:1:0" };
    assert_eq!(keys, [identities, "pulse:{0}:meta"]);

    let _: u64 = server.command(&["DEL", META]);
    recovery = ShardRecovery { number: 2, found: None, remake: Remake::Anew, ..recovery };
    assert!(store.restore(&recovery, START).await.unwrap());
    let cut = AccumulatorAudit::cut(&store, Shard(0)).await.unwrap().unwrap();
    assert_eq!((cut.identities, cut.identities_lost, cut.state.counts.counted), (0, 25, 25));
    assert_eq!(meta(&server, "accumulator"), format!("{ACCUMULATOR}/2"));
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    assert_eq!(keys, ["pulse:{0}:meta"]);
}
