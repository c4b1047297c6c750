//! A stream of RabbitMQ in, pulses without ids, and everything killed again and again.

use crate::system::{App, System, Totals, assert_equal, totals_of, wait_until};
use std::{collections::BTreeMap, fs, thread::sleep, time::Duration};

const LIMIT: Duration = Duration::from_mins(2);

/// A system whose queue is a stream.
fn system() -> System {
    let system = System::start();
    fs::write(system.path(".env"), "RABBITMQ_QUEUE_TYPE=stream\nPULSE_DEDUPE=offset\n").unwrap();
    system
}

/// Message ids, of which there are none, and bodies.
type Messages = Vec<(Option<String>, Vec<u8>)>;

/// Messages of two pulses without ids, and what they come to.
fn messages(count: usize) -> (Messages, Totals) {
    let (mut messages, mut totals) = (Messages::new(), BTreeMap::<[String; 4], (u64, u64)>::new());
    for number in 0..count {
        let pulse = |tenant: usize| {
            format!(
                r#"{{"tenant":"tenant-{tenant}","product_sku":"s","used_amount":{amount},"use_unity":"u","occurred_at":"2026-01-10T12:00:00Z"}}"#,
                amount = number % 10 + 1
            )
        };
        let tenants = [number % 13, number % 7];
        messages.push((None, format!("[{},{}]", pulse(tenants[0]), pulse(tenants[1])).into_bytes()));
        for tenant in tenants {
            let key = [format!("tenant-{tenant}"), "s".into(), "u".into(), "2026-01-10T12:00:00Z".into()];
            let total = totals.entry(key).or_default();
            *total = (total.0 + number as u64 % 10 + 1, total.1 + 1);
        }
    }
    (
        messages,
        totals.into_iter().map(|(key, (amount, pulses))| (key, (amount.to_string(), pulses))).collect(),
    )
}

/// As [`System::drain`]; what was counted stays in a stream.
fn drain(system: &System) -> Totals {
    system.run(&["--worker", "--until-idle", "3s"]);
    system.run(&["flush"]);
    system.ledger()
}

fn pulses(totals: &Totals) -> u64 {
    totals.values().map(|(_, pulses)| pulses).sum()
}

fn stop(app: &mut App) {
    wait_until("it has begun", LIMIT, || app.log().contains("starting"));
    app.process.signal("TERM");
    assert_eq!(app.exit_code(), Some(0), "{}", app.log());
}

/// The offsets that a worker has printed, by tenant, in their order.
fn printed(app: &App) -> BTreeMap<String, Vec<u64>> {
    let mut offsets = BTreeMap::<String, Vec<u64>>::new();
    // The last line of a worker that was killed may be cut off.
    for line in app.out().split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let pulse: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(pulse["partition"], 0);
        let tenant = pulse["tenant"].as_str().unwrap().to_owned();
        offsets.entry(tenant).or_default().push(pulse["offset"].as_u64().unwrap());
    }
    offsets
}

#[test]
fn pulses_without_ids_are_exact_when_workers_broker_and_redis_are_killed() {
    let mut system = system();
    let worker = |system: &System, number: u32| {
        system.spawn(&format!("worker-{number}"), &["--worker", "--print-pulses"], &[])
    };
    system.run(&["--worker", "--until-idle", "1s"]);
    let (messages, expected) = messages(40_000);
    let mut parts = messages.chunks(4_000);
    let (mut workers, mut dead) = (vec![worker(&system, 0), worker(&system, 1)], Vec::new());
    let mut cron = system.spawn("cron", &["--cron"], &[("FLUSH_SCHEDULE", "*/2 * * * * *")]);
    for round in 0..10 {
        system.publish(parts.next().unwrap());
        sleep(Duration::from_millis(170 * u64::from(round % 4)));
        let mut killed = workers.remove(0);
        killed.process.kill();
        dead.push(killed);
        workers.push(worker(&system, round + 2));
        match round {
            3 => {
                system.redis.kill();
                system.redis.restart();
            }
            6 => {
                system.rabbitmq.kill();
                system.rabbitmq.restart();
                // The stream is there a little later than its broker.
                let is_back = |app: &App| app.log().contains("dependency is back");
                wait_until("a worker is back", LIMIT, || workers.iter().any(is_back));
            }
            _ => {}
        }
    }
    wait_until("everything is in the ledger", LIMIT, || pulses(&system.ledger()) >= pulses(&expected));
    for app in workers.iter_mut().chain([&mut cron]) {
        stop(app);
    }
    assert_equal(&drain(&system), &expected);
    assert_eq!(system.depth("pulses.dead"), 0);
    // Each of them has counted the pulses of a tenant in the order of the stream.
    for app in dead.iter().chain(&workers) {
        for (tenant, offsets) in printed(app) {
            assert!(offsets.is_sorted(), "{tenant}: {offsets:?}");
        }
    }
}

#[test]
fn a_second_worker_waits_and_takes_over_when_the_first_is_killed() {
    let system = system();
    system.run(&["--worker", "--until-idle", "1s"]);
    let (messages, expected) = messages(2_000);
    system.publish(&messages[..1_000]);
    let mut first = system.spawn("first", &["--worker", "--print-pulses"], &[]);
    wait_until("the first one has counted", LIMIT, || first.out().lines().count() == 2_000);
    let mut second = system.spawn("second", &["--worker", "--print-pulses"], &[]);
    wait_until("the second one waits", LIMIT, || second.log().contains("another reader has the stream"));
    assert_eq!(second.out(), "");
    first.process.kill();
    system.publish(&messages[1_000..]);
    wait_until("the second one has counted", LIMIT, || second.out().lines().count() == 2_000);
    stop(&mut second);
    assert_equal(&drain(&system), &expected);
    let (before, after) = (printed(&first), printed(&second));
    for (tenant, offsets) in after {
        let all: Vec<u64> = before[&tenant].iter().copied().chain(offsets).collect();
        assert!(all.is_sorted(), "{tenant}: {all:?}");
    }
}

#[test]
fn made_up_load_fills_a_stream_and_a_drain_ends_by_itself() {
    let system = system();
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "20000", "--workers-number", "2"];
    system.run(&[&load[..], &["--count-out", "expected.csv"]].concat());
    assert_equal(&drain(&system), &totals_of(&system.path("expected.csv")));
    // All of it is still there, and none of it counts again.
    assert_equal(&drain(&system), &totals_of(&system.path("expected.csv")));
    system.publish(&[(None, b"not json".to_vec())]);
    drain(&system);
    let letters = system.dead_letters();
    assert_eq!((letters.len(), &letters[0].body[..]), (1, &b"not json"[..]));
    assert_eq!(letters[0].headers["x-pulse-offset"], "20000");
    drain(&system);
    assert_eq!(system.depth("pulses.dead"), 0, "a refused message is refused once");
}

#[test]
fn a_stream_that_was_made_anew_stops_the_worker_and_nothing_of_it_is_counted() {
    let system = system();
    system.run(&["--worker", "--until-idle", "1s"]);
    let (messages, _) = messages(3_000);
    system.publish(&messages[..1_000]);
    let before = drain(&system);
    system.make_stream_anew("pulses");
    // It is longer than the old one was.
    system.publish(&messages);
    let mut worker = system.spawn("worker", &["--worker"], &[]);
    assert_eq!(worker.exit_code(), Some(1), "{}", worker.log());
    assert!(worker.log().contains("the stream was made anew"), "{}", worker.log());
    system.run(&["flush"]);
    assert_equal(&system.ledger(), &before);
}

/// A shard's place says nothing of what was refused before it.
#[cfg(feature = "failpoints")]
#[test]
fn what_was_refused_is_not_lost_where_every_shard_has_gone_past_it() {
    let system = system();
    // Few enough that each of them gets something of what follows.
    fs::write(system.path(".env"), "RABBITMQ_QUEUE_TYPE=stream\nPULSE_DEDUPE=offset\nPULSE_SHARDS=2\n")
        .unwrap();
    system.run(&["--worker", "--until-idle", "1s"]);
    let (good, expected) = messages(600);
    system.publish(&good[..300]);
    drain(&system);
    let bad = |number: u32| (None, format!("{number} is not json").into_bytes());
    system.publish(&[&[bad(0)], &good[300..], &[bad(1)]].concat());
    // Its letters are on their way for ever.
    let stuck = [("FAILPOINTS", "dead_letter_before=sleep(600000)")];
    let mut worker = system.spawn("stuck", &["--worker"], &stuck);
    let counted = || {
        let metas: Vec<String> = system.redis.command(&["KEYS", "pulse:{*}:meta"]);
        let counted = |key: &String| system.redis.command::<u64>(&["HGET", key, "counted"]);
        metas.iter().map(counted).sum::<u64>()
    };
    wait_until("everything else is counted", LIMIT, || counted() == pulses(&expected));
    worker.process.kill();
    assert_equal(&drain(&system), &expected);
    let letters: Vec<Vec<u8>> = system.dead_letters().into_iter().map(|letter| letter.body).collect();
    assert_eq!(letters, [bad(0).1, bad(1).1]);
}
