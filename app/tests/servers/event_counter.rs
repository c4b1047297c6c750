//! The event counter: a topic exchange in, a JSON file for each type out, killed in the middle.

use crate::system::{System, wait_until};
use std::{collections::BTreeMap, fs, time::Duration};

const EXCHANGE: &str = "events";
const EVENTS: usize = 12_000;
const TYPES: [&str; 3] = ["created", "updated", "deleted"];

type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// Events as (routing key, body), every fifth of them sent again later, and what they come to.
fn events() -> (Vec<(String, Vec<u8>)>, Counts) {
    let (mut messages, mut counts) = (Vec::new(), Counts::new());
    for number in 0..EVENTS {
        let user = match number % 7 {
            0 => "john.doe".to_owned(),
            1 => "a.event.b".to_owned(),
            _ => format!("user_{}", number % 97),
        };
        let kind = TYPES[number % TYPES.len()];
        let body = format!("{{\"id\":\"event-{number}\"}}");
        messages.push((format!("{user}.event.{kind}"), body.into_bytes()));
        *counts.entry(kind.to_owned()).or_default().entry(user).or_default() += 1;
    }
    let copies: Vec<_> = messages.iter().step_by(5).cloned().collect();
    messages.extend(copies);
    (messages, counts)
}

fn counts_after_a_kill_in_the_middle(system: &System, redis_url: &str) {
    let (messages, expected) = events();
    let folder = system.path("counts");
    let ledger = format!("json:{}", folder.display());
    let settings = [
        ("REDIS_URL", redis_url),
        ("LEDGER_URL", &ledger),
        ("RABBITMQ_EXCHANGE", EXCHANGE),
        ("RABBITMQ_BINDING", "#.event.*"),
        ("PULSE_FORMAT", "event"),
    ];
    let run = |name: &str| {
        let mut app = system.spawn(name, &["--worker", "--until-idle", "2s"], &settings);
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    };
    run("declares");
    system.publish_to(EXCHANGE, &messages);

    let mut first = system.spawn("first", &["--worker", "--until-idle", "2s"], &settings);
    wait_until("a part is taken", Duration::from_mins(1), || {
        (system.depth("pulses") as usize) < messages.len() * 3 / 4
    });
    first.process.kill();
    wait_until("the rest is there again", Duration::from_secs(30), || system.depth("pulses") > 0);
    run("second");
    run("third");

    let read =
        |kind: &str| serde_json::from_slice(&fs::read(folder.join(format!("{kind}.json"))).unwrap()).unwrap();
    let counted: Counts = TYPES.iter().map(|kind| ((*kind).to_owned(), read(kind))).collect();
    assert_eq!(counted, expected);
    assert_eq!(system.depth("pulses"), 0);

    // The same events in another run: each is known. One more of a user adds up.
    system.publish_to(EXCHANGE, &messages[..1_000]);
    let more = br#"{"id":"more"}"#;
    system.publish_to(EXCHANGE, &[("john.doe.event.created".to_owned(), more.to_vec())]);
    run("fourth");
    let again: BTreeMap<String, u64> = read("created");
    assert_eq!(again["john.doe"], expected["created"]["john.doe"] + 1);
    assert_eq!(again.len(), expected["created"].len());
}

#[test]
fn events_counted_in_the_embedded_file_come_to_the_known_counts() {
    counts_after_a_kill_in_the_middle(&System::start(), "");
}

#[test]
fn events_counted_in_redis_come_to_the_known_counts() {
    let system = System::start();
    let redis = system.redis.url();
    counts_after_a_kill_in_the_middle(&system, &redis);
}
