//! The same on a topic: the ledger comes to what was published, whatever happened to Redis.

use crate::{
    kafka::{TOPIC, broker, expected, put, settings},
    recovery::{assert_books_hold, back_up, go_on, missing, put_back, wipe},
    system::{App, System, assert_equal, wait_until},
};
use infrastructure::test_servers::kafka::KafkaServer;
use std::{thread::sleep, time::Duration};

const LIMIT: Duration = Duration::from_mins(2);
const PART: u64 = 4_000;

/// A worker, and a cron that flushes each second, where it is wanted.
struct Running {
    worker: App,
    cron: Option<App>,
}

impl Running {
    fn start(system: &System, brokers: &str, flushes: bool) -> Self {
        let settings = settings(brokers, &[("FLUSH_SCHEDULE", "* * * * * *")]);
        let worker = system.spawn("worker", &["--worker", "--print-pulses"], &settings);
        Self { worker, cron: flushes.then(|| system.spawn("cron", &["--cron"], &settings)) }
    }

    /// Both end by themselves, and say why.
    fn assert_halted(mut self) {
        let apps = [Some(&mut self.worker), self.cron.as_mut()];
        for app in apps.into_iter().flatten() {
            assert_eq!(app.exit_code(), Some(1), "{}", app.log());
            assert!(app.log().contains("app recover"), "{}", app.log());
        }
    }
}

fn billed(system: &System) -> u64 {
    system.ledger().values().map(|(_, pulses)| pulses).sum()
}

/// Everything that is in the topic is counted and flushed.
fn finish(system: &System, kafka: &KafkaServer, brokers: &str, published: u64) {
    put(kafka, published..published + PART);
    let settings = settings(brokers, &[]);
    let mut last = system.spawn("last", &["--worker", "--until-idle", "3s"], &settings);
    assert_eq!(last.exit_code(), Some(0), "{}", last.log());
    system.run(&["flush"]);
    assert_equal(&system.ledger(), &expected(0..published + PART));
    assert_books_hold(system);
}

#[test]
fn a_topic_comes_to_what_was_published_after_redis_was_wiped_in_the_middle_of_it() {
    let (system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let running = Running::start(&system, &brokers, true);
    put(&kafka, 0..PART);
    wait_until("a part of it is flushed", LIMIT, || billed(&system) > PART / 4);
    put(&kafka, PART..2 * PART);
    sleep(Duration::from_millis(300));
    wipe(&system);
    // Whoever has nothing to do notices with its next call.
    put(&kafka, 2 * PART..3 * PART);
    running.assert_halted();
    let said = go_on(&system, &settings(&brokers, &[]));
    assert!(said.contains(TOPIC), "{said}");
    finish(&system, &kafka, &brokers, 3 * PART);
}

#[test]
fn a_topic_comes_to_what_was_published_after_redis_was_rolled_back_behind_the_ledger() {
    let (mut system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let running = Running::start(&system, &brokers, true);
    put(&kafka, 0..PART);
    wait_until("a part of it is flushed", LIMIT, || billed(&system) > PART / 4);
    back_up(&mut system);
    put(&kafka, PART..2 * PART);
    wait_until("more is flushed", LIMIT, || billed(&system) > PART + PART / 4);
    put_back(&mut system);
    running.assert_halted();
    go_on(&system, &settings(&brokers, &[]));
    finish(&system, &kafka, &brokers, 2 * PART);
}

#[test]
fn a_topic_comes_to_what_was_published_after_redis_was_rolled_back_between_two_flushes() {
    let (mut system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let running = Running::start(&system, &brokers, false);
    put(&kafka, 0..PART);
    let counted = || running.worker.out().lines().count() as u64;
    wait_until("a part of it is counted", LIMIT, || counted() > PART / 4);
    back_up(&mut system);
    put(&kafka, PART..2 * PART);
    wait_until("all of it is counted", LIMIT, || counted() == 2 * PART);
    put_back(&mut system);
    running.assert_halted();
    let (outlook, _) = missing(&system, &settings(&brokers, &[]));
    let shards = outlook["shards"].as_array().unwrap();
    assert!(shards.iter().all(|shard| shard["remake"] == "keep"), "{outlook:#}");
    go_on(&system, &settings(&brokers, &[]));
    finish(&system, &kafka, &brokers, 2 * PART);
}

#[cfg(feature = "failpoints")]
#[test]
fn a_recovery_that_dies_at_every_step_is_finished_by_repeating_it() {
    let (system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let running = Running::start(&system, &brokers, true);
    put(&kafka, 0..PART);
    wait_until("a part of it is flushed", LIMIT, || billed(&system) > PART / 4);
    wipe(&system);
    running.assert_halted();
    let settings = settings(&brokers, &[]);
    let word = missing(&system, &settings).0["word"].as_str().unwrap().to_owned();
    let recover = |more: &[(&str, &str)]| {
        let mut command = system.command(&["recover", "--continue-with-loss", &word]);
        command.envs(settings.iter().chain(more).copied()).output().unwrap()
    };
    let log = system.path("crash-points");
    let points = [
        "recovery_beginning",
        "recovery_begun",
        "shard_restoring",
        "shard_restored",
        "shard_recorded",
        "shard_restored",
        "recovery_moving",
        "log_moved",
        "recovery_ending",
    ];
    for point in points {
        let armed = format!("{point}=return");
        let died = recover(&[("FAILPOINTS", &armed), ("PULSE_CRASH_LOG", log.to_str().unwrap())]);
        assert_eq!(died.status.code(), None, "{point}: {}", String::from_utf8_lossy(&died.stderr));
        let (outlook, code) = missing(&system, &settings);
        let agreed = outlook["unfinished"]["word"].as_str();
        // Of the first nobody knows whether it was recorded.
        assert!(agreed == Some(&word) || agreed.is_none() && point == points[0], "{outlook:#}");
        assert_eq!(code, Some(1));
        if point == "shard_restored" {
            let mut early = system.spawn("early", &["--worker"], &settings);
            assert_eq!(early.exit_code(), Some(1), "nobody counts before the end: {}", early.log());
        }
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().collect::<Vec<_>>(), points);
    let done = recover(&[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(missing(&system, &settings).1, Some(0));
    finish(&system, &kafka, &brokers, PART);
}
