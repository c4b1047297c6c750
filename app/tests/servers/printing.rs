//! `--print-pulses`: what is counted, as somebody reads it.

use crate::system::{System, assert_equal, totals_of, wait_until};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::Duration,
};

#[test]
fn each_pulse_is_printed_once_and_those_of_a_tenant_by_one_lane() {
    let system = System::start();
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "5000", "--duplicates", "10"];
    system.run(&[&load[..], &["--count-out", "expected.csv"]].concat());
    let out = system.run(&["--worker", "--print-pulses", "--until-idle", "2s"]).stdout;
    let (mut ids, mut lanes) = (BTreeSet::new(), BTreeMap::new());
    for line in String::from_utf8(out).unwrap().lines() {
        let pulse: serde_json::Value = serde_json::from_str(line).unwrap();
        let (tenant, id) = (pulse["tenant"].as_str().unwrap(), pulse["id"].as_str().unwrap());
        assert!(ids.insert((tenant.to_owned(), id.to_owned())), "{id} is printed once");
        let lane = pulse["lane"].as_u64().unwrap();
        assert_eq!(*lanes.entry(tenant.to_owned()).or_insert(lane), lane, "{tenant} has one lane");
        assert!(pulse["partition"].is_null() && pulse["offset"].is_null(), "a queue has no places");
    }
    let expected = totals_of(&system.path("expected.csv"));
    assert_eq!(ids.len() as u64, expected.values().map(|(_, pulses)| pulses).sum::<u64>());
    assert!(lanes.values().collect::<BTreeSet<_>>().len() > 1);
    assert_equal(&system.drain(), &expected);
}

#[test]
fn an_output_that_is_closed_stops_the_worker_in_order_and_is_no_success() {
    let system = System::start();
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "20000"];
    system.run(&[&load[..], &["--count-out", "expected.csv"]].concat());
    let mut worker = system
        .command(&["--worker", "--print-pulses"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(worker.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"lane\":"), "{first}");
    // Nobody reads any more, like `head`.
    let mut errors = String::new();
    worker.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(1), "{errors}");
    assert!(errors.contains("--print-pulses: standard output cannot be written to any more"), "{errors}");
    assert!(errors.contains("ingestion ended"), "{errors}");
    assert_equal(&system.drain(), &totals_of(&system.path("expected.csv")));
}

#[test]
fn an_output_that_nobody_reads_slows_the_worker_down_and_ends_it_in_order_after_a_while() {
    let system = System::start();
    let load = ["populate", "--to", "rabbitmq", "--total-messages", "50000"];
    system.run(&[&load[..], &["--count-out", "expected.csv"]].concat());
    let mut worker = system
        .command(&["--worker", "--print-pulses"])
        .env("PULSE_BATCH_SIZE", "500")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let depth = || system.depth("pulses");
    wait_until("the worker takes messages", Duration::from_secs(20), || depth() < 50_000);
    // 64 KiB fit into a pipe. What is durable is settled, what is not waits for somebody to read.
    std::thread::sleep(Duration::from_secs(5));
    let waiting = depth();
    std::thread::sleep(Duration::from_secs(5));
    assert!(waiting > 10_000 && depth() == waiting, "{waiting} messages wait");
    let mut errors = String::new();
    // After 30 s it gives up by itself, and ends.
    worker.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(1), "{errors}");
    assert!(errors.contains("nobody has read from standard output for 30s"), "{errors}");
    assert_equal(&system.drain(), &totals_of(&system.path("expected.csv")));
}
