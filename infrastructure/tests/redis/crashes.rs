//! Redis killed, paused, full, wiped, rolled back.

use super::{
    ACCUMULATOR, START, batch, birth, in_both_layouts,
    load::{Load, persist},
    opened, opened_in, pulse, rows, settings,
};
use application::ports::{
    AccumulatorShards, GenerationStore, LogAccounts, LogStep, Outcome, PulseSink, SuspectId, Suspects,
};
use domain::{LogName, Shard, UsageTotals};
use infrastructure::{
    redis::{IdentityLayout, RedisAccumulator},
    test_servers::redis::RedisServer,
};
use std::{fs, path::Path, process::Command, time::Duration};

const SHARDS: u16 = 4;
const KILLS: u32 = 8;

in_both_layouts! {
    kills_of_redis_change_no_count,
    a_restart_of_redis_forgets_the_scripts_and_nothing_else,
    wiped_storage_halts_and_says_what_is_missing,
    a_full_redis_can_still_be_emptied,
}

async fn kills_of_redis_change_no_count(layout: IdentityLayout) {
    let mut server = RedisServer::start();
    let load = Load::start_in(&server.url(), SHARDS, layout).await;
    for _ in 0..KILLS {
        let before = load.retries();
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.kill();
        // Dead for as long as it takes to be noticed.
        while load.retries() == before {
            tokio::task::yield_now().await;
        }
        server.restart();
    }
    load.end().await;
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_waited_for() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    let batch = batch(0, 1, vec![pulse(None, "s", "1"), pulse(Some("a".into()), "s", "1")]);
    server.pause();
    for _ in 0..2 {
        let error = store.apply(&batch).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    server.resume();
    // What was sent before is still in Redis' sockets, and is carried out before or after this: it counts once.
    persist!(store.apply(&batch));
    let state = store.inspect(Shard(0)).await.unwrap().unwrap();
    assert_eq!(state.active.pulses, 2);
}

#[tokio::test]
async fn a_command_that_was_long_on_its_way_changes_nothing() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    let first = batch(0, 1, vec![pulse(None, "s", "1")]);
    store.apply(&first).await.unwrap();
    store.apply(&batch(0, 2, vec![pulse(None, "s", "1")])).await.unwrap();
    let error = store.apply(&first).await.unwrap_err();
    assert!(error.to_string().contains("batch 1 of shard 0 comes after batch 2"), "{error}");
    assert_eq!(store.inspect(Shard(0)).await.unwrap().unwrap().active.pulses, 2);
}

async fn a_restart_of_redis_forgets_the_scripts_and_nothing_else(layout: IdentityLayout) {
    let mut server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    let copy = vec![pulse(Some("a".into()), "s", "1")];
    assert_eq!(store.apply(&batch(0, 1, copy.clone())).await.unwrap(), [Outcome::Counted]);
    server.restart();
    let applied = persist!(store.apply(&batch(0, 2, copy.clone())));
    assert_eq!(applied, [Outcome::Duplicate]);
    let () = server.command(&["SCRIPT", "FLUSH"]);
    store.seal(Shard(0), 1, START).await.unwrap();
    assert_eq!(store.apply(&batch(0, 3, copy)).await.unwrap(), [Outcome::Duplicate]);
}

async fn wiped_storage_halts_and_says_what_is_missing(layout: IdentityLayout) {
    let server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
    let () = server.command(&["FLUSHALL"]);
    let error = store.apply(&batch(0, 2, vec![pulse(None, "s", "1")])).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    let text = error.to_string();
    assert!(text.contains("shard 0 is missing (pulse:{0}:meta)") && text.contains("sequence 2"), "{text}");
    assert!(!store.seal(Shard(0), 1, START).await.unwrap_err().is_transient());
    assert!(!store.sealed(Shard(0), 1).await.unwrap_err().is_transient());
    assert!(!store.inspect(Shard(0)).await.unwrap_err().is_transient());
    assert!(!store.create(Shard(0), birth(1)).await.unwrap_err().is_transient());
    let left: Vec<String> = server.command(&["KEYS", "*"]);
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn storage_that_was_rolled_back_halts_and_says_by_how_much() {
    let mut server = RedisServer::start();
    let store = opened(&server, 1).await;
    store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap();
    server.kill();
    let (data, copy) = (server.folder().join("appendonlydir"), server.folder().join("backup"));
    copy_folder(&data, &copy);
    server.restart();
    for number in 2..=4 {
        persist!(store.apply(&batch(0, number, vec![pulse(None, "s", "1")])));
    }
    store.seal(Shard(0), 1, START).await.unwrap();
    server.kill();
    fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data);
    server.restart();
    let again = batch(0, 5, vec![pulse(None, "s", "1")]);
    let error = loop {
        match store.apply(&again).await {
            Err(error) if error.is_transient() => {}
            answer => break answer.unwrap_err(),
        }
    };
    let text = error.to_string();
    assert!(text.contains("rolled back, 1 generations and 4 changes are gone"), "{text}");
    assert!(!store.inspect(Shard(0)).await.unwrap_err().is_transient());
    // Somebody who has not seen it is not warned by Redis, only by the ledger.
    let newcomer = RedisAccumulator::connect(&settings(&server, 1)).await.unwrap();
    assert_eq!(newcomer.inspect(Shard(0)).await.unwrap().unwrap().active.pulses, 1);
}

#[tokio::test]
async fn another_accumulator_s_storage_is_refused() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    let () = server.command(&["HSET", "pulse:{0}:meta", "accumulator", &"0".repeat(32)]);
    for error in [
        store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap_err(),
        store.seal(Shard(0), 1, START).await.unwrap_err(),
        store.inspect(Shard(0)).await.unwrap_err(),
        store.sealed(Shard(0), 1).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(!error.is_transient() && text.contains(&ACCUMULATOR.to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_shard_that_was_made_for_another_number_of_shards_is_refused() {
    let server = RedisServer::start();
    opened(&server, 4).await;
    let store = RedisAccumulator::connect(&settings(&server, 2)).await.unwrap();
    store.inspect(Shard(0)).await.unwrap();
    let error = store.apply(&batch(0, 1, vec![pulse(None, "s", "1")])).await.unwrap_err();
    assert!(
        error.to_string().contains("was made for 4 shards, and this program is set to 2 (PULSE_SHARDS)"),
        "{error}"
    );
}

async fn a_full_redis_can_still_be_emptied(layout: IdentityLayout) {
    let server = RedisServer::start();
    let store = opened_in(&server, layout).await;
    let mut expected = UsageTotals::default();
    let mut number = 0;
    let log = |partition: &str| LogName::of(&["kafka", "cluster", "topic", partition]).unwrap();
    assert_eq!(store.open(&log("0"), 7).await.unwrap(), Some(7));
    server.config_set("maxmemory", "4mb");
    let error = loop {
        number += 1;
        let pulses: Vec<_> = (0..1_000)
            .map(|n| pulse(Some(format!("{number}-{n}")), &format!("sku-{number}-{n}"), "1.000000001"))
            .collect();
        match store.apply(&batch(0, number, pulses.clone())).await {
            Ok(_) => pulses.iter().for_each(|pulse| expected.add(pulse)),
            Err(error) => break error,
        }
        assert!(number < 1_000, "Redis takes more than its memory");
    };
    assert!(error.is_transient(), "{error}");
    assert!(number > 2, "nothing was counted before Redis was full");
    // Full beyond doubt: not even the smallest batch fits.
    server.config_set("maxmemory", "1mb");
    let after = batch(0, number + 1, vec![pulse(Some("after".into()), "s", "1")]);
    let error = store.apply(&after).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(store.open(&log("0"), 9).await.unwrap(), Some(7), "what is there is found");
    let step = LogStep { from: 7, to: 8, received: 1, refused: 0 };
    for error in [
        store.open(&log("1"), 7).await.unwrap_err(),
        store.settle(&log("0"), step).await.unwrap_err(),
        store.take(SuspectId([1; 16]), 3).await.unwrap_err(),
    ] {
        assert!(error.is_transient(), "{error}");
    }
    store.seal(Shard(0), 1, START).await.unwrap();
    let sealed = store.sealed(Shard(0), 1).await.unwrap().unwrap();
    assert_eq!(sealed.total, expected.sum());
    assert_eq!(rows(&store, Shard(0), 1).await.unwrap(), expected);
    store.delete(&sealed).await.unwrap();
    server.config_set("maxmemory", "100mb");
    assert_eq!(store.apply(&after).await.unwrap(), [Outcome::Counted]);
}

#[tokio::test]
async fn a_repetition_is_known_however_the_connection_changes() {
    let server = RedisServer::start();
    let store = opened(&server, 1).await;
    let batch = batch(0, 1, vec![pulse(None, "s", "1")]);
    store.apply(&batch).await.unwrap();
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    persist!(store.seal(Shard(0), 1, START));
    persist!(store.apply(&batch));
    assert_eq!(store.sealed(Shard(0), 1).await.unwrap().unwrap().total.pulses, 1);
    assert_eq!(store.inspect(Shard(0)).await.unwrap().unwrap().active.pulses, 0);
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(status.success());
}
