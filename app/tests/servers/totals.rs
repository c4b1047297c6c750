//! Real events with known totals.

use crate::system::{System, assert_equal, totals_of};
use std::path::Path;

#[test]
fn a_day_of_flights_sent_twice_and_in_every_shape_comes_to_the_published_totals() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let system = System::start();
    let flights = std::fs::read_to_string(examples.join("flights-day.ndjson")).unwrap();
    let lines: Vec<&str> = flights.lines().collect();
    system.run(&["--worker", "--until-idle", "1s"]);
    let single = lines.iter().map(|line| (None, line.as_bytes().to_vec()));
    let arrays = lines.chunks(100).map(|chunk| (None, format!("[{}]", chunk.join(",")).into_bytes()));
    let ndjson = lines.chunks(37).map(|chunk| (None, chunk.join("\n").into_bytes()));
    system.publish(&single.chain(arrays).chain(ndjson).collect::<Vec<_>>());
    assert_equal(&system.drain(), &totals_of(&examples.join("flights-day.totals.csv")));
    assert_eq!(system.depth("pulses.dead"), 0);
}

#[test]
fn populated_pulses_come_to_what_was_published_and_usage_tells_billed_from_pending() {
    let system = System::start();
    let expected = system.path("expected.csv");
    let count_out = ["--count-out", expected.to_str().unwrap()];
    let load = ["--to", "rabbitmq", "--total-messages", "20000", "--duplicates", "10", "--seed", "7"];
    system.run(&[&["populate"], &load[..], &count_out].concat());
    system.run(&["--worker", "--until-idle", "2s"]);
    let usage = |arguments: &[&str]| system.run(&[&["usage", "--csv"], arguments].concat()).stdout;
    let billed_by_usage = crate::system::totals(&usage(&["--billed"]));
    assert_equal(&billed_by_usage, &system.ledger());
    system.run(&["flush"]);
    assert_equal(&system.ledger(), &totals_of(&expected));
    assert_equal(&crate::system::totals(&usage(&["--billed"])), &totals_of(&expected));

    // The same load again, after the flush: every pulse is known, nothing changes.
    system.run(&[&["populate"], &load[..]].concat());
    assert_equal(&system.drain(), &totals_of(&expected));
}
