//! Received = counted + duplicate + rejected + in flight, told by a process that has received nothing itself.

use crate::{
    kafka::{PARTITIONS, TOPIC, broker, pulse, settings},
    metrics::{LIMIT, scrape, value},
    system::{System, wait_until},
};
use infrastructure::test_servers::{free_port, kafka::KafkaServer};

/// Two pulses without an id, one whose id all have, and one that is refused.
fn message(number: u64) -> Vec<u8> {
    let known = pulse(7).0.replacen('{', "{\"id\":\"all\",", 1);
    format!("[{},{},{known},{{\"tenant\":7}}]", pulse(number).0, pulse(number + 1).0).into_bytes()
}

fn produce(kafka: &KafkaServer, numbers: std::ops::Range<u64>) {
    kafka.produce(TOPIC, PARTITIONS, numbers.map(message));
}

#[test]
fn a_pulse_that_is_settled_and_not_counted_is_missing_and_stays_so_and_nothing_else_ever_is() {
    let (system, kafka) = (System::start(), broker());
    let (brokers, port) = (kafka.brokers(), free_port());
    let settings = settings(&brokers, &[("PULSE_DEDUPE", "both")]);
    let work = |name: &str, more: &[(&str, &str)]| {
        let settings = [&settings[..], more].concat();
        let mut worker = system.spawn(name, &["--worker", "--until-idle", "3s"], &settings);
        worker.exit_code()
    };
    let addr = format!("127.0.0.1:{port}");
    let _cron = system.spawn("cron", &["--cron"], &[&settings[..], &[("METRICS_ADDR", &addr)]].concat());
    let told = || {
        let text = scrape(port);
        ["received", "refused", "taken"]
            .map(|what| value(&text, &format!("pulse_log_{what}_pulses_total")))
            .into_iter()
            .chain(["missing", "ahead"].map(|what| value(&text, &format!("pulse_log_{what}_pulses"))))
            .collect::<Option<Vec<u64>>>()
    };
    let is = |expected: [u64; 5]| {
        wait_until(&format!("{expected:?} is told"), LIMIT, || told().as_deref() == Some(&expected[..]));
    };

    produce(&kafka, 0..600);
    // It dies with batches that are counted and not settled, and others that are not.
    assert_eq!(work("dies", &[("FAILPOINTS", "apply_after=3*off->return")]), None);
    wait_until("what it has counted is in flight", LIMIT, || told().is_some_and(|told| told[4] > 0));
    assert_eq!(told().map(|told| told[3]), Some(0));
    assert_eq!(work("first", &[]), Some(0));
    is([2_400, 600, 1_800, 0, 0]);

    produce(&kafka, 600..1_200);
    assert_eq!(work("loses", &[("PULSE_MUTATION", "drop-pulse")]), Some(0));
    system.run(&["flush"]);
    let counted = system.ledger().values().map(|(_, pulses)| *pulses).sum::<u64>();
    let duplicates = value(&scrape(port), "pulse_accumulator_duplicate_pulses_total").unwrap();
    let lost = 3_600 - counted - duplicates;
    assert!(lost > 0, "the mutation loses something");
    is([4_800, 1_200, 3_600 - lost, lost, 0]);

    produce(&kafka, 1_200..1_300);
    assert_eq!(work("last", &[]), Some(0));
    is([5_200, 1_300, 3_900 - lost, lost, 0]);
}
