//! Redis loses its storage, or is given an older copy of it: what can be rebuilt is, and what cannot is missing and no more.

use crate::system::{System, Totals, assert_equal, wait_until};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

const LIMIT: Duration = Duration::from_mins(2);
const HOUR: &str = "2026-01-10T12:00:00Z";

/// What `app recover` says is missing, and its exit code.
pub(crate) fn missing(system: &System, settings: &[(&str, &str)]) -> (Value, Option<i32>) {
    let output = system.command(&["recover", "--json"]).envs(settings.iter().copied()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let outlook = serde_json::from_slice(&output.stdout);
    (outlook.unwrap_or_else(|_| panic!("{errors}")), output.status.code())
}

/// Goes on with the loss that is shown; returns what was said.
pub(crate) fn go_on(system: &System, settings: &[(&str, &str)]) -> String {
    let (outlook, code) = missing(system, settings);
    assert_eq!((code, &outlook["missing"]), (Some(1), &Value::Bool(true)), "{outlook:#}");
    let word = outlook["word"].as_str().unwrap();
    let mut command = system.command(&["recover", "--continue-with-loss", word]);
    let output = command.envs(settings.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(missing(system, settings).1, Some(0));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn wipe(system: &System) {
    let () = system.redis.command(&["FLUSHALL"]);
}

/// Keeps a copy of the files of Redis, which is killed for it and started again.
pub(crate) fn back_up(system: &mut System) {
    system.redis.kill();
    copy(&system.redis.folder().join("appendonlydir"), &system.path("backup"));
    system.redis.restart();
}

/// Puts the copy in the place of what Redis has.
pub(crate) fn put_back(system: &mut System) {
    system.redis.kill();
    fs::remove_dir_all(system.redis.folder().join("appendonlydir")).unwrap();
    copy(&system.path("backup"), &system.redis.folder().join("appendonlydir"));
    system.redis.restart();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The audit after a recovery: every check holds, and what was lost is said.
pub(crate) fn assert_books_hold(system: &System) -> String {
    let output = system.run(&["audit"]);
    String::from_utf8(output.stdout).unwrap()
}

/// Message ids, of which there are none, and bodies.
type Messages = Vec<(Option<String>, Vec<u8>)>;

/// Pulses with ids, and what they come to: amounts from 1 to 9 for 23 tenants.
fn pulses(sku: &str, count: u64) -> (Messages, Totals) {
    let mut sums = BTreeMap::<String, (u64, u64)>::new();
    let mut messages = Messages::new();
    for number in 0..count {
        let (tenant, amount) = (format!("tenant-{}", number % 23), number % 9 + 1);
        let body = format!(
            r#"{{"id":"{sku}-{number}","tenant":"{tenant}","product_sku":"{sku}","used_amount":{amount},"use_unity":"KB","occurred_at":"{HOUR}"}}"#
        );
        messages.push((None, body.into_bytes()));
        let sum = sums.entry(tenant).or_default();
        *sum = (sum.0 + amount, sum.1 + 1);
    }
    let total = |(tenant, (sum, count)): (String, (u64, u64))| {
        ([tenant, sku.to_owned(), "KB".to_owned(), HOUR.to_owned()], (sum.to_string(), count))
    };
    (messages, sums.into_iter().map(total).collect())
}

/// Counts the pulses that are in the queue and flushes nothing: all of them are acknowledged.
fn count_only(system: &System, name: &str, pulses: usize) {
    let mut worker = system.spawn(name, &["--worker", "--print-pulses"], &[]);
    wait_until("all are counted", LIMIT, || worker.out().lines().count() == pulses);
    worker.process.signal("TERM");
    assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
    assert_eq!(system.depth("pulses"), 0);
}

#[test]
fn of_a_queue_exactly_what_was_counted_since_the_last_flush_is_missing() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    assert_eq!(missing(&system, &[]).1, Some(0), "nothing is missing yet");
    let parts = ["billed", "counted", "waiting"].map(|sku| pulses(sku, 2_000));
    system.publish(&parts[0].0);
    system.drain();
    system.publish(&parts[1].0);
    count_only(&system, "first", 2_000);
    system.publish(&parts[2].0);
    wipe(&system);

    // Whatever starts halts, says what is missing, and changes nothing.
    for mode in ["--worker", "--cron"] {
        let mut halted = system.spawn(mode, &[mode], &[]);
        assert_eq!(halted.exit_code(), Some(1), "{}", halted.log());
        for said in ["is gone", "in the ledger up to generation", "seen at generation", "app recover"] {
            assert!(halted.log().contains(said), "{said}: {}", halted.log());
        }
    }
    let (outlook, _) = missing(&system, &[]);
    let shards = outlook["shards"].as_array().unwrap();
    let billed: u64 = shards.iter().map(|shard| shard["ledger_pulses"].as_u64().unwrap()).sum();
    assert_eq!(billed, 2_000, "{outlook:#}");
    assert!(shards.iter().all(|shard| shard["found"].is_null() && shard["remake"] == "anew"), "{outlook:#}");
    let mut wrong = system.command(&["recover", "--continue-with-loss", "00000000"]);
    let wrong = wrong.output().unwrap();
    assert_eq!(wrong.status.code(), Some(1), "another word changes nothing");
    assert_eq!(missing(&system, &[]).0, outlook);

    go_on(&system, &[]);
    let mut expected = parts[0].1.clone();
    expected.extend(parts[2].1.clone());
    assert_equal(&system.drain(), &expected);
    let audit = assert_books_hold(&system);
    assert!(audit.contains("2000 lost with storage"), "{audit}");
    // What is counted from now on is remembered again.
    system.publish(&parts[2].0);
    assert_equal(&system.drain(), &expected);
    assert_books_hold(&system);
}

#[test]
fn an_older_copy_of_the_storage_keeps_what_it_holds_and_knows_it_again() {
    let mut system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let parts = ["billed", "copied", "lost"].map(|sku| pulses(sku, 2_000));
    system.publish(&parts[0].0);
    system.drain();
    system.publish(&parts[1].0);
    count_only(&system, "second", 2_000);
    back_up(&mut system);
    system.publish(&parts[2].0);
    count_only(&system, "third", 2_000);
    put_back(&mut system);

    let (outlook, _) = missing(&system, &[]);
    let shards = outlook["shards"].as_array().unwrap();
    assert!(!shards.is_empty() && shards.iter().all(|shard| shard["remake"] == "keep"), "{outlook:#}");
    go_on(&system, &[]);
    // Copies of what the copy knows are none.
    system.publish(&parts[1].0);
    let mut expected = parts[0].1.clone();
    expected.extend(parts[1].1.clone());
    assert_equal(&system.drain(), &expected);
    assert_books_hold(&system);
}

#[test]
fn an_older_copy_whose_counts_were_flushed_since_counts_nothing_twice() {
    let mut system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let parts = ["copied", "flushed", "lost"].map(|sku| pulses(sku, 2_000));
    system.publish(&parts[0].0);
    count_only(&system, "fourth", 2_000);
    back_up(&mut system);
    system.publish(&parts[1].0);
    system.drain();
    system.publish(&parts[2].0);
    count_only(&system, "fifth", 2_000);
    put_back(&mut system);

    let (outlook, _) = missing(&system, &[]);
    let shards = outlook["shards"].as_array().unwrap();
    assert!(shards.iter().any(|shard| shard["remake"] == "drop_booked"), "{outlook:#}");
    go_on(&system, &[]);
    system.publish(&parts[0].0);
    let mut expected = parts[0].1.clone();
    expected.extend(parts[1].1.clone());
    assert_equal(&system.drain(), &expected);
    let audit = assert_books_hold(&system);
    assert!(audit.contains("2000 lost with storage"), "{audit}");
}

#[test]
fn a_stream_is_counted_again_from_where_the_ledger_has_it() {
    let system = System::start();
    fs::write(system.path(".env"), "RABBITMQ_QUEUE_TYPE=stream\nPULSE_DEDUPE=offset\n").unwrap();
    let drain = || {
        system.run(&["--worker", "--until-idle", "3s"]);
        system.run(&["flush"]);
        system.ledger()
    };
    drain();
    let parts = ["billed", "counted", "later"].map(|sku| pulses(sku, 2_000));
    system.publish(&parts[0].0);
    drain();
    system.publish(&parts[1].0);
    let mut worker = system.spawn("worker", &["--worker", "--print-pulses"], &[]);
    wait_until("all of it is counted", LIMIT, || worker.out().lines().count() >= 2_000);
    wipe(&system);
    assert_eq!(worker.exit_code(), Some(1), "{}", worker.log());
    assert!(worker.log().contains("app recover"), "{}", worker.log());
    go_on(&system, &[]);
    system.publish(&parts[2].0);
    let expected = parts.into_iter().flat_map(|(_, totals)| totals).collect();
    assert_equal(&drain(), &expected);
    assert_books_hold(&system);
}

#[test]
fn the_embedded_file_needs_no_recovery_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_app")).arg("recover").current_dir(&folder).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("embedded file"), "{said}");
}
