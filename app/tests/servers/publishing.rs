//! Files on their way through RabbitMQ.

use crate::system::{System, assert_equal, totals_of};
use std::{collections::BTreeMap, fs, path::Path};

#[test]
fn an_ingested_file_is_published_and_its_bad_lines_are_listed_and_not_published() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let system = System::start();
    let flights = fs::read_to_string(examples.join("flights-day.ndjson")).unwrap();
    let bad = flights.replacen('\n', "\nnot json\n\n{\"tenant\":\"t\"}\n", 1);
    fs::write(system.path("flights.ndjson"), bad).unwrap();
    for _ in 0..2 {
        let out = system.run(&["ingest", "flights.ndjson"]).stdout;
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("rejected flights.ndjson:2: malformed: "), "{out}");
        assert!(out.contains("rejected flights.ndjson:4: missing_field: "), "{out}");
        assert!(out.contains("1664 lines read, 1662 published and confirmed, 2 rejected"), "{out}");
    }
    assert_equal(&system.drain(), &totals_of(&examples.join("flights-day.totals.csv")));
    assert_eq!(system.depth("pulses.dead"), 0);
}

#[test]
fn lines_without_ids_count_once_however_often_their_file_is_published() {
    let system = System::start();
    let line = r#"{"tenant":"t","product_sku":"s","used_amount":1,"use_unity":"KB","occurred_at":"2026-01-10T12:00:00Z"}"#;
    fs::write(system.path("lines.ndjson"), format!("{line}\n").repeat(2_500)).unwrap();
    let from = ["populate", "--to", "rabbitmq", "--from", "lines.ndjson", "--duplicates", "20"];
    system.run(&[&from[..], &["--count-out", "expected.csv"]].concat());
    system.run(&["ingest", "lines.ndjson"]);
    assert!(system.depth("pulses") > 5_200, "some lines were published three times");
    let ledger = system.drain();
    assert_equal(&ledger, &totals_of(&system.path("expected.csv")));
    assert_eq!(ledger.values().collect::<Vec<_>>(), [&("2500".to_owned(), 2_500)]);
}

#[test]
fn messages_of_many_pulses_come_to_what_was_published() {
    let system = System::start();
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "300", "--items-per-message", "100"];
    let more = ["--duplicates", "10", "--hours", "48", "--workers-number", "3", "--buffer-size", "50"];
    system.run(&[&load[..], &more, &["--count-out", "expected.csv"]].concat());
    assert_eq!(system.depth("pulses"), 300);
    assert_equal(&system.drain(), &totals_of(&system.path("expected.csv")));
}

#[test]
fn events_of_users_are_counted_by_type_and_user_each_id_once() {
    let system = System::start();
    let settings = "RABBITMQ_EXCHANGE=users\nRABBITMQ_BINDING='#.event.*'\nPULSE_FORMAT=event\n";
    fs::write(system.path(".env"), settings).unwrap();
    let load =
        ["populate", "--to", "rabbitmq", "--format", "event", "--total-messages", "5000", "--seed", "7"];
    system.run(&[&load[..], &["--duplicates", "20", "--count-out", "expected.json"]].concat());
    assert_eq!(system.depth("pulses"), 5_000);
    let mut found = BTreeMap::<String, BTreeMap<String, u64>>::new();
    for ([user, kind, unit, _], (amount, pulses)) in system.drain() {
        assert_eq!((unit.as_str(), amount), ("event", pulses.to_string()));
        *found.entry(kind).or_default().entry(user).or_default() += pulses;
    }
    let expected = fs::read(system.path("expected.json")).unwrap();
    assert_eq!(found, serde_json::from_slice::<BTreeMap<_, _>>(&expected).unwrap());
    assert!(found["created"].keys().any(|user| user.starts_with("ann.event.created.")));
    assert_eq!(system.depth("pulses.dead"), 0);
}
