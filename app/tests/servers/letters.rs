//! Dead letters that come back, through `kill -9` at any moment.

use crate::system::System;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Settings under which the worker refuses what it counts without them.
const STRICT: &[(&str, &str)] = &[("PULSE_ANONYMOUS", "reject"), ("PULSE_AGE_MAX", "1h")];
const OLD: &str = r#""occurred_at":"2026-01-10T12:00:00Z""#;

fn body(tenant: &str, amount: usize, more: &str) -> String {
    format!(r#"{{"tenant":"{tenant}","product_sku":"s","use_unity":"KB","used_amount":{amount}{more}}}"#)
}

fn strictly(system: &System) {
    let mut worker = system.spawn("strict", &["--worker", "--until-idle", "2s"], STRICT);
    assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
}

fn text(system: &System, arguments: &[&str]) -> String {
    String::from_utf8(system.run(&[&["dead-letters"], arguments].concat()).stdout).unwrap()
}

fn listed(system: &System, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(system, &[&["list", "--json"], arguments].concat())).unwrap()
}

/// By tenant: the amount and the number of pulses.
fn by_tenant(system: &System) -> BTreeMap<String, (u64, u64)> {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for ([tenant, ..], (amount, pulses)) in system.drain() {
        let sum = sums.entry(tenant).or_default();
        *sum = (sum.0 + amount.parse::<u64>().unwrap(), sum.1 + pulses);
    }
    sums
}

/// Half of them carry an id, some are the second of two in a message with an id, some nothing but the same bytes.
#[test]
fn two_thousand_letters_come_back_through_kills_and_each_counts_once() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let mut messages = Vec::new();
    for number in 0..1_000 {
        let more = format!(r#","id":"{number}",{OLD}"#);
        messages.push((None, body("own", number, &more).into_bytes()));
    }
    for number in 0..500 {
        let pair = format!("[{},{}]", body("fresh", 1, ""), body("item", number, &format!(",{OLD}")));
        messages.push((Some(format!("pair {number}")), pair.into_bytes()));
        messages.push((None, body("same", 7, "").into_bytes()));
    }
    // An amount of nothing is refused whatever the settings are.
    messages.retain(|(_, body)| !String::from_utf8_lossy(body).contains(r#""used_amount":0"#));
    let own: u64 = (1..1_000).sum();
    let items: u64 = (1..500).sum();
    system.publish(&messages);
    strictly(&system);
    let letters = 999 + 499 + 500;
    assert_eq!(system.depth("pulses.dead"), letters);

    let mut kills = 0;
    for round in 0_u64..12 {
        // What the last one held is back by then.
        std::thread::sleep(Duration::from_millis(300));
        let (left, before, start) = (system.depth("pulses.dead"), system.depth("pulses"), Instant::now());
        if left == 0 {
            break;
        }
        let mut replay = system.spawn("replay", &["dead-letters", "replay", "--all"], &[]);
        // When the first letters are taken, or when they arrive where they came from.
        let is_quiet = || match round % 2 {
            0 => system.depth("pulses") == before,
            _ => system.depth("pulses.dead") == left,
        };
        while is_quiet() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        replay.process.kill();
        kills += 1;
    }
    assert!(kills > 1 && system.depth("pulses") > 0, "they came in the middle");
    std::thread::sleep(Duration::from_millis(300));
    text(&system, &["replay", "--all"]);
    assert_eq!(system.depth("pulses.dead"), 0);
    assert!(system.depth("pulses") >= letters);
    let expected =
        [("own", (own, 999)), ("item", (items, 499)), ("same", (3_500, 500)), ("fresh", (499, 499))];
    let expected: BTreeMap<String, (u64, u64)> =
        expected.into_iter().map(|(tenant, sum)| (tenant.to_owned(), sum)).collect();
    assert_eq!(by_tenant(&system), expected);
    assert_eq!(system.depth("pulses.dead"), 0);
}

#[test]
fn letters_are_listed_shown_sent_back_by_reason_and_discarded_and_poison_does_not_circle() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let poison = b"{\"tenant\":\xff\x00".to_vec();
    let messages = [
        (Some("poison".to_owned()), poison.clone()),
        (None, body("late", 5, &format!(",\"id\":\"a\",{OLD}")).into_bytes()),
        (None, body("nobody", 3, "").into_bytes()),
    ];
    system.publish(&messages);
    strictly(&system);

    let all = listed(&system, &[]);
    assert_eq!(
        all["places"][0]["reasons"],
        serde_json::json!({"anonymous": 1, "malformed": 1, "too_old": 1})
    );
    assert_eq!(all["letters"].as_array().unwrap().len(), 3);
    assert_eq!(listed(&system, &["--tenant", "late"])["letters"][0]["reason"], "too_old");
    assert_eq!(listed(&system, &["--since", "2999-01-01"])["places"][0]["letters"], 0);
    let malformed = listed(&system, &["--reason", "malformed"])["letters"][0].clone();
    let id = malformed["id"].as_str().unwrap();
    assert_eq!(system.run(&["dead-letters", "show", id, "--raw"]).stdout, poison);
    let shown = text(&system, &["show", id]);
    assert!(shown.contains("7b 22 74 65 6e 61 6e 74 22 3a ff 00") && shown.contains("poison"), "{shown}");
    let table = text(&system, &["list"]);
    assert!(table.contains("rabbitmq: 3 letters: anonymous 1, malformed 1, too_old 1"), "{table}");

    let dry = text(&system, &["replay", "--reason", "too_old", "--dry-run"]);
    assert_eq!(dry, "rabbitmq pulses.dead: 1 of 3 letters would be sent back\n");
    assert_eq!((system.depth("pulses.dead"), system.depth("pulses")), (3, 0));
    text(&system, &["replay", "--reason", "too_old"]);
    assert_eq!((system.depth("pulses.dead"), system.depth("pulses")), (2, 1));
    let expected = BTreeMap::from([("late".to_owned(), (5, 1))]);
    assert_eq!(by_tenant(&system), expected);

    // What cannot be read comes back each time, three times.
    for round in 1..=3 {
        let sent = text(&system, &["replay", id]);
        assert_eq!(sent, "rabbitmq pulses.dead: 1 of 2 letters sent back\n", "{round}");
        system.run(&["--worker", "--until-idle", "2s"]);
        assert_eq!(listed(&system, &["--reason", "malformed"])["letters"][0]["replays"], round);
    }
    let guarded = text(&system, &["replay", "--reason", "malformed"]);
    assert!(guarded.contains("0 of 2 letters sent back\n") && guarded.contains("--force"), "{guarded}");
    assert_eq!(system.depth("pulses"), 0);
    assert_eq!(system.run(&["dead-letters", "show", id, "--raw"]).stdout, poison, "the same letter");

    let gone = text(&system, &["discard", "--reason", "malformed", "--yes"]);
    assert_eq!(gone, "rabbitmq pulses.dead: 1 of 2 letters discarded\n");
    assert_eq!(system.depth("pulses.dead"), 1);
    text(&system, &["replay", "--all"]);
    let expected = BTreeMap::from([("late".to_owned(), (5, 1)), ("nobody".to_owned(), (3, 1))]);
    assert_eq!(by_tenant(&system), expected);
}
