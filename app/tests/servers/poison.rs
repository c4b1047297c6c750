//! A message that ends every worker that looks at it, and innocent ones whose workers are ended all the time.

use crate::system::{App, System, assert_equal, totals_of, wait_until};
use std::{collections::BTreeSet, thread::sleep, time::Duration};

const GOOD: usize = 600;
/// The build for tests dies at a message with this text in it.
const DEADLY: [(&str, &str); 1] = [("FAILPOINTS", "poison=return(deadly)")];

fn pulse(id: &str, tenant: &str) -> Vec<u8> {
    let body = r#""product_sku":"s","used_amount":1,"use_unity":"KB""#;
    format!(r#"{{"id":"{id}","tenant":"{tenant}",{body}}}"#).into_bytes()
}

/// Starts workers until one ends in order; how many died.
fn deaths(system: &System) -> u32 {
    let mut deaths = 0;
    loop {
        let mut worker = system.spawn("worker", &["--worker", "--until-idle", "1s"], &DEADLY);
        match worker.exit_code() {
            Some(0) => return deaths,
            None => deaths += 1,
            Some(code) => panic!("a worker gave up with {code}: {}", worker.log()),
        }
        assert!(deaths <= 20, "it goes on for ever: {}", worker.log());
    }
}

#[test]
fn a_message_that_ends_every_worker_is_refused_with_its_reason_and_all_others_count() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let poison = pulse("deadly", "p");
    let mut messages: Vec<_> = (0..GOOD).map(|id| (None, pulse(&id.to_string(), "g"))).collect();
    messages.insert(GOOD / 2, (Some("m".to_owned()), poison.clone()));
    system.publish(&messages);

    assert_eq!(deaths(&system), 6, "three among others, three alone");
    system.run(&["flush"]);
    let counted = |system: &System| system.ledger().values().map(|(_, pulses)| *pulses).sum::<u64>();
    assert_eq!((counted(&system), system.depth("pulses")), (GOOD as u64, 0));
    assert_eq!(system.depth("pulses.dead"), 1);

    // What it does is known by now, and mended: it is sent back, and counts.
    system.run(&["dead-letters", "replay", "--reason", "poison"]);
    assert_eq!(system.depth("pulses.dead"), 0);
    system.drain();
    assert_eq!(counted(&system), GOOD as u64 + 1);

    // Sent back to workers that still die of it, it needs as many deaths again.
    system.publish(&[(Some("again".to_owned()), pulse("deadly again", "p"))]);
    assert_eq!(deaths(&system), 6);
    let letters = system.dead_letters();
    let found: BTreeSet<(&str, &[u8])> =
        letters.iter().map(|letter| (letter.headers["x-pulse-reason"].as_str(), &*letter.body)).collect();
    assert_eq!(found, BTreeSet::from([("poison", &*pulse("deadly again", "p"))]));
    assert!(letters[0].headers["x-pulse-detail"].starts_with("ended 3 workers"));
}

#[test]
fn messages_that_came_back_again_and_again_for_the_death_of_others_are_never_refused() {
    let system = System::start();
    let expected = system.path("expected.csv");
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "30000", "--duplicates", "5"];
    system.run(&[&load[..], &["--count-out", expected.to_str().unwrap(), "--hours", "3"]].concat());
    let ready = |worker: &App| worker.log().matches("ready").count();
    let mut log = String::new();
    for round in 0..24_u64 {
        let mut worker = system.spawn(&format!("worker-{round}"), &["--worker"], &[]);
        wait_until("the worker is up", Duration::from_secs(30), || ready(&worker) > 0);
        sleep(Duration::from_millis(150 + 70 * (round % 4)));
        if round % 6 == 5 {
            worker.process.signal("TERM");
            assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
        } else {
            worker.process.kill();
        }
        log += &worker.log();
    }
    assert!(log.contains("taken one by one"), "nothing came back often enough: {log}");
    assert_equal(&system.drain(), &totals_of(&expected));
    assert_eq!(system.depth("pulses.dead"), 0);
}
