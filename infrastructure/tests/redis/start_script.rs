//! `deploy/redis/start.sh` on append-only files that crashes and disks have damaged.

use super::{START, batch, opened, pulse};
use application::ports::{AccumulatorShards, GenerationStore, PulseSink};
use domain::Shard;
use infrastructure::test_servers::redis::RedisServer;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/start.sh");

/// A killed server with ten batches in it.
async fn killed_server() -> RedisServer {
    let mut server = RedisServer::start();
    let store = opened(&server, 1).await;
    for number in 1..=10 {
        let pulses =
            (0..20).map(|n| pulse(Some(format!("{number}-{n}")), &format!("sku-{n}"), "1.5")).collect();
        store.apply(&batch(0, number, pulses)).await.unwrap();
    }
    server.kill();
    server
}

fn newest_file(server: &RedisServer) -> PathBuf {
    let files = fs::read_dir(server.folder().join("appendonlydir")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".incr.aof"));
    files.sort();
    files.pop().unwrap()
}

fn tear(file: &Path, bytes: usize) {
    let content = fs::read(file).unwrap();
    fs::write(file, &content[..content.len() - bytes]).unwrap();
}

/// What the script says when it refuses to start Redis.
fn refusal(server: &RedisServer) -> String {
    let output = Command::new("sh")
        .args([SCRIPT, "--port", "1", "--logfile", "refused.log"])
        .env("REDIS_DATA", server.folder())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!server.folder().join("refused.log").exists(), "Redis was started");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_bytes_are_named() {
    for bytes in [1, 7, 40, 300] {
        let mut server = killed_server().await;
        let file = newest_file(&server);
        let whole = fs::read(&file).unwrap();
        tear(&file, bytes);
        server.restart();
        let log = server.start_log();
        assert!(log.contains("bytes of a torn write off") && log.contains("bytes are left"), "{log}");
        let left = fs::read(&file).unwrap();
        assert!(whole.starts_with(&left) && left.len() < whole.len() - bytes);
        assert!(log.contains(&format!("cut {} bytes", whole.len() - bytes - left.len())), "{log}");
        let state = opened(&server, 1).await.inspect(Shard(0)).await.unwrap().unwrap();
        assert_eq!(state.active.pulses, 180, "the last batch is gone as a whole");
    }
}

/// The fault of Redis 7.0 that counts twice: the transaction that is left open swallows those that follow it.
#[tokio::test]
async fn two_restarts_after_a_tear_count_nothing_twice() {
    let mut server = killed_server().await;
    tear(&newest_file(&server), 9);
    server.restart();
    let store = opened(&server, 1).await;
    for number in 10..=12 {
        let pulses = (0..20).map(|n| pulse(Some(format!("{number}-{n}")), "s", "1")).collect();
        store.apply(&batch(0, number, pulses)).await.unwrap();
    }
    server.restart();
    server.restart();
    assert!(server.start_log().contains("is whole"), "{}", server.start_log());
    let store = opened(&server, 1).await;
    let state = store.inspect(Shard(0)).await.unwrap().unwrap();
    assert_eq!(state.active.pulses, 180 + 60);
    store.seal(Shard(0), 1, START).await.unwrap();
}

#[tokio::test]
async fn a_tear_that_goes_over_into_zeros_is_cut() {
    let mut server = killed_server().await;
    let file = newest_file(&server);
    tear(&file, 25);
    let mut content = fs::read(&file).unwrap();
    content.extend_from_slice(&[0; 4_096]);
    fs::write(&file, content).unwrap();
    server.restart();
    let state = opened(&server, 1).await.inspect(Shard(0)).await.unwrap().unwrap();
    assert_eq!(state.active.pulses, 180);
}

#[tokio::test]
async fn damage_in_the_middle_stops_the_start_and_touches_nothing() {
    let server = killed_server().await;
    let file = newest_file(&server);
    let whole = fs::read(&file).unwrap();
    let middle = whole.len() / 2;
    let length = middle + whole[middle..].windows(3).position(|bytes| bytes == b"\r\n$").unwrap() + 3;
    let damages: [(usize, usize, &[u8]); 4] = [
        (length, 1, b"x"),
        (length, 1, b"\0"),
        // Lengths that make one argument of the rest of the file.
        (length, 0, b"9000"),
        (length, 0, b"9000000000"),
    ];
    for (place, replaced, replacement) in damages {
        let mut content = whole.clone();
        content.splice(place..place + replaced, replacement.iter().copied());
        fs::write(&file, &content).unwrap();
        let refusal = refusal(&server);
        assert!(
            refusal.contains("that is no torn write") && refusal.contains("nothing was changed"),
            "{refusal}"
        );
        assert!(fs::read(&file).unwrap() == content);
    }
}

#[tokio::test]
async fn a_damaged_base_stops_the_start() {
    let mut server = killed_server().await;
    server.restart();
    let () = server.command(&["BGREWRITEAOF"]);
    while server.command::<String>(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:1") {
        std::thread::yield_now();
    }
    server.kill();
    let base = fs::read_dir(server.folder().join("appendonlydir")).unwrap();
    let base =
        base.map(|file| file.unwrap().path()).find(|file| file.to_string_lossy().ends_with(".rdb")).unwrap();
    tear(&base, 4);
    assert!(refusal(&server).contains("not only at its end"));
}

#[tokio::test]
async fn data_without_a_manifest_stops_the_start() {
    let server = killed_server().await;
    fs::remove_file(server.folder().join("appendonlydir/appendonly.aof.manifest")).unwrap();
    assert!(refusal(&server).contains("holds data and no manifest"));
}
