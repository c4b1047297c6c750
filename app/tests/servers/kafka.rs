//! Topics on a broker of the Kafka protocol: workers and archives that are killed, and a topic that is not what it was.

use crate::{
    archive::{body, good_below, is_broken, purchase_sums},
    system::{App, System, Totals, assert_equal, totals_of, wait_until},
};
use infrastructure::test_servers::{
    clickhouse::ClickhouseServer,
    kafka::{KafkaMessage, KafkaServer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::{Duration, Instant},
};

pub(crate) const TOPIC: &str = "pulses";
const DEAD: &str = "pulses.dead";
pub(crate) const PARTITIONS: u16 = 12;
const HOUR: &str = "2026-01-10T12:00:00Z";
const LIMIT: Duration = Duration::from_mins(3);

/// How many pulses a message holds.
const ITEMS: usize = 10;

/// How long nothing is counted before a group is taken for stuck: several times what it takes to notice a dead member and to
/// share anew.
const STUCK: Duration = Duration::from_secs(45);

/// `PULSE_TEST_MESSAGES=1000000` makes it the long version.
fn pulses() -> u64 {
    std::env::var("PULSE_TEST_MESSAGES").map_or(100_000, |text| text.parse().unwrap())
}

pub(crate) fn broker() -> KafkaServer {
    let kafka = KafkaServer::start();
    kafka.create_topic(TOPIC, PARTITIONS);
    kafka.create_topic(DEAD, 1);
    kafka
}

pub(crate) fn settings<'a>(brokers: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("PULSE_SOURCES", "kafka"),
        ("PULSE_DEDUPE", "offset"),
        ("KAFKA_BROKERS", brokers),
        ("KAFKA_TOPIC", TOPIC),
    ];
    settings.extend(more);
    settings
}

/// A pulse without an id; many of them are equal.
pub(crate) fn pulse(number: u64) -> (String, u64) {
    let (tenant, amount) = (number % 23, number % 9 + 1);
    let body = format!(
        r#"{{"tenant":"tenant-{tenant}","product_sku":"s","used_amount":{amount},"use_unity":"KB","occurred_at":"{HOUR}"}}"#
    );
    (body, amount)
}

/// Publishes pulses, a message each.
pub(crate) fn put(kafka: &KafkaServer, numbers: std::ops::Range<u64>) {
    kafka.produce(TOPIC, PARTITIONS, numbers.map(|number| pulse(number).0.into_bytes()));
}

/// What these pulses come to.
pub(crate) fn expected(numbers: std::ops::Range<u64>) -> Totals {
    let mut sums = BTreeMap::<String, (u64, u64)>::new();
    for number in numbers {
        let (sum, count) = sums.entry(format!("tenant-{}", number % 23)).or_default();
        (*sum, *count) = (*sum + pulse(number).1, *count + 1);
    }
    let total = |(tenant, (sum, count)): (String, (u64, u64))| {
        ([tenant, "s".to_owned(), "KB".to_owned(), HOUR.to_owned()], (sum.to_string(), count))
    };
    sums.into_iter().map(total).collect()
}

#[test]
fn pulses_without_ids_count_once_through_ten_kills_and_constant_rebalances() {
    let (system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let settings = settings(&brokers, &[("FLUSH_SCHEDULE", "*/2 * * * * *")]);
    let start = |name: &str| system.spawn(name, &["--worker"], &settings);
    let mut cron = system.spawn("cron", &["--cron"], &settings);
    let names = ["first", "second", "third"];
    let mut workers = names.map(start);

    let (total, mut published) = (pulses(), 0);
    let mut sums = BTreeMap::<String, (u64, u64)>::new();
    let step = total / 20;
    let counted = || system.ledger().values().map(|(_, pulses)| *pulses).sum::<u64>();
    for round in 0..10 {
        let chunk = published..if round == 9 { total } else { published + 2 * step };
        published = chunk.end;
        // A worker that dies leaves its group after the session's time; one that comes makes the group share anew at once.
        kafka.produce(
            TOPIC,
            PARTITIONS,
            chunk.step_by(ITEMS).map(|first| {
                let items = (first..).take(ITEMS).map(|number| {
                    let (body, amount) = pulse(number);
                    let (sum, count) = sums.entry(format!("tenant-{}", number % 23)).or_default();
                    (*sum, *count) = (*sum + amount, *count + 1);
                    body
                });
                format!("[{}]", items.collect::<Vec<_>>().join(",")).into_bytes()
            }),
        );
        sleep(Duration::from_millis(300 + 400 * (round % 3)));
        let side = usize::try_from(round % 3).unwrap();
        workers[side].process.kill();
        workers[side] = start(names[side]);
        if round % 3 == 2 {
            // A fourth comes and goes in peace: two more rebalances.
            let mut guest = start("guest");
            sleep(Duration::from_secs(1));
            guest.process.signal("TERM");
            assert_eq!(guest.exit_code(), Some(0), "{}", guest.log());
        }
    }
    let (mut now, mut since) = (counted(), Instant::now());
    let (mut groups, mut last_group) = (1, "pulse-ingestor".to_owned());
    while now < total {
        let logs = || workers.iter().chain([&cron]).map(App::log).collect::<Vec<_>>().join("\n---\n");
        assert!(groups <= 3, "{now} of {total} pulses are in the ledger:\n{}", logs());
        if since.elapsed() > STUCK {
            // The broker of the tests waits for ever for a leader that died while its group was formed. The workers go on in
            // another group, from where this one is.
            for worker in &mut workers {
                worker.process.kill();
            }
            let group = format!("group-{groups}");
            kafka.copy_group(TOPIC, PARTITIONS, &last_group, &group);
            let settings = [&settings[..], &[("KAFKA_GROUP", group.as_str())]].concat();
            workers = names.map(|name| system.spawn(name, &["--worker"], &settings));
            (since, groups, last_group) = (Instant::now(), groups + 1, group);
        }
        sleep(Duration::from_millis(50));
        let more = counted();
        if more > now {
            (now, since) = (more, Instant::now());
        }
    }
    for app in workers.iter_mut().chain([&mut cron]) {
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    system.run(&["flush"]);
    let expected = sums.into_iter().map(|(tenant, (sum, count))| {
        ([tenant, "s".to_owned(), "KB".to_owned(), HOUR.to_owned()], (sum.to_string(), count))
    });
    assert_equal(&system.ledger(), &expected.collect());
    assert_eq!(kafka.messages(DEAD), []);
}

/// The crash point that the chaos harness does not come by.
#[cfg(feature = "failpoints")]
#[test]
fn workers_that_die_while_they_commit_their_offsets_count_every_pulse_once() {
    let (system, kafka) = (System::start(), broker());
    let (brokers, log) = (kafka.brokers(), system.path("crash-points"));
    let (mut published, mut sums) = (0, BTreeMap::<String, (u64, u64)>::new());
    // Each death costs the time in which the group notices it.
    for passes in [0, 2] {
        let chunk = published..published + 600;
        published = chunk.end;
        let bodies = chunk.map(|number| {
            let (body, amount) = pulse(number);
            let (sum, count) = sums.entry(format!("tenant-{}", number % 23)).or_default();
            (*sum, *count) = (*sum + amount, *count + 1);
            body.into_bytes()
        });
        kafka.produce(TOPIC, PARTITIONS, bodies);
        let armed = format!("offset_commit={passes}*off->return");
        let more = [("FAILPOINTS", armed.as_str()), ("PULSE_CRASH_LOG", log.to_str().unwrap())];
        let mut worker = system.spawn("dying", &["--worker"], &settings(&brokers, &more));
        assert_eq!(worker.exit_code(), None, "it dies by a signal: {}", worker.log());
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "offset_commit\noffset_commit\n");
    let mut last = system.spawn("last", &["--worker", "--until-idle", "3s"], &settings(&brokers, &[]));
    assert_eq!(last.exit_code(), Some(0), "{}", last.log());
    system.run(&["flush"]);
    let expected = sums.into_iter().map(|(tenant, (sum, count))| {
        ([tenant, "s".to_owned(), "KB".to_owned(), HOUR.to_owned()], (sum.to_string(), count))
    });
    assert_equal(&system.ledger(), &expected.collect());
}

#[test]
fn what_populate_puts_into_a_topic_is_counted_as_it_says() {
    let (system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let file = system.path("expected.csv");
    let load =
        ["populate", "--to", "kafka", "--total-messages", "20000", "--hours", "3", "--duplicates", "5"];
    let more = [("PULSE_DEDUPE", "both")];
    let arguments = [&load[..], &["--count-out", file.to_str().unwrap()]].concat();
    let mut populate = system.spawn("populate", &arguments, &settings(&brokers, &more));
    assert_eq!(populate.exit_code(), Some(0), "{}", populate.log());
    let mut worker = system.spawn("worker", &["--worker", "--until-idle", "3s"], &settings(&brokers, &more));
    assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
    assert_equal(&system.ledger(), &totals_of(&file));
}

#[test]
fn a_topic_made_anew_halts_the_worker_and_says_so() {
    let (system, kafka) = (System::start(), broker());
    let brokers = kafka.brokers();
    let settings = settings(&brokers, &[]);
    let drain = |name: &str| system.spawn(name, &["--worker", "--until-idle", "3s"], &settings);
    let put = |numbers: std::ops::Range<u64>| {
        kafka.produce(TOPIC, PARTITIONS, numbers.map(|number| pulse(number).0.into_bytes()));
    };
    put(0..1_200);
    let mut worker = drain("before");
    assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
    let before = system.ledger();

    kafka.delete_topic(TOPIC);
    kafka.create_topic(TOPIC, PARTITIONS);
    put(0..120);
    let mut worker = drain("after");
    assert_eq!(worker.exit_code(), Some(1), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("pulses") && (log.contains("made anew") || log.contains("ends at")), "{log}");
    assert_equal(&system.ledger(), &before);
}

#[test]
fn the_archive_holds_exactly_the_good_purchases_of_a_topic_after_five_kills() {
    const CHUNK: u32 = 1_500;
    let (system, kafka, clickhouse) = (System::start(), broker(), ClickhouseServer::start());
    let (brokers, url) = (kafka.brokers(), clickhouse.url());
    let more = [
        ("CLICKHOUSE_URL", url.as_str()),
        ("PULSE_FORMAT", "purchase"),
        ("ARCHIVE_BATCH_SIZE", "50"),
        ("ARCHIVE_BATCH_LINGER", "50ms"),
    ];
    let settings = settings(&brokers, &more);
    let archive = |name: &str, arguments: &[&str]| -> App {
        system.spawn(name, &[&["--archive"], arguments].concat(), &settings)
    };
    let mut first = archive("first", &["--until-idle", "1s"]);
    assert_eq!(first.exit_code(), Some(0), "{}", first.log());
    let archived = || clickhouse.query("SELECT count() FROM events").parse::<u32>().unwrap();
    let (mut published, mut interrupted) = (0, 0);
    for _ in 0..5 {
        let chunk = published..published + CHUNK;
        published = chunk.end;
        kafka.produce(TOPIC, PARTITIONS, chunk.map(|number| body(number).into_bytes()));
        let before = archived();
        let mut app = archive("killed", &[]);
        // The partitions of the one before come when the group has noticed that it is gone.
        wait_until("a part is archived", LIMIT, || archived() > before + CHUNK / 8);
        app.process.kill();
        interrupted += u32::from(archived() < good_below(published));
    }
    assert!(interrupted > 0, "kills came after all was archived, and prove nothing");
    let app = archive("last", &[]);
    let rows = || clickhouse.query("SELECT count() FROM archive_purchase").parse::<u32>().unwrap();
    wait_until("all are archived", LIMIT, || rows() >= good_below(published));
    let bad: BTreeSet<Vec<u8>> =
        (0..published).filter(|number| is_broken(*number)).map(|number| body(number).into_bytes()).collect();
    let mut letters = Vec::new();
    let start = Instant::now();
    let bodies = |letters: &[KafkaMessage]| -> BTreeSet<Vec<u8>> {
        letters.iter().map(|letter| letter.body.clone()).collect()
    };
    while bodies(&letters) != bad {
        assert!(start.elapsed() < LIMIT, "{} letters: {letters:?}", letters.len());
        letters = kafka.messages(DEAD);
    }
    drop(app);
    let (query, expected) = purchase_sums(published);
    assert_eq!(clickhouse.query(query), expected);
    for letter in letters {
        for name in ["x-pulse-reason", "x-pulse-topic", "x-pulse-partition", "x-pulse-offset"] {
            assert!(letter.headers.contains_key(name), "{:?} lacks {name}", letter.headers);
        }
    }
}
