//! Purchases from RabbitMQ to ClickHouse, with every process killed on the way.

use crate::{
    metrics::{LIMIT, get},
    system::{App, System, wait_until},
};
use infrastructure::test_servers::{clickhouse::ClickhouseServer, free_port, promtool::assert_clean};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

const EXCHANGE: &str = "purchases";
/// Of so many purchases one is broken.
const ONE_BROKEN_IN: u32 = 20;
const CHUNK: u32 = 1_500;

struct Bench {
    system: System,
    clickhouse: ClickhouseServer,
    url: String,
}

impl Bench {
    /// Servers, with the archive's queue bound to the exchange.
    fn start() -> Self {
        let (system, clickhouse) = (System::start(), ClickhouseServer::start());
        let url = clickhouse.url();
        let bench = Self { system, clickhouse, url };
        bench.drain("first");
        bench
    }

    fn archive(&self, name: &str, arguments: &[&str]) -> App {
        let settings = [
            ("CLICKHOUSE_URL", self.url.as_str()),
            ("PULSE_FORMAT", "purchase"),
            ("RABBITMQ_EXCHANGE", EXCHANGE),
            ("ARCHIVE_BATCH_SIZE", "50"),
            ("ARCHIVE_BATCH_LINGER", "50ms"),
        ];
        self.system.spawn(name, &[&["--archive"], arguments].concat(), &settings)
    }

    fn drain(&self, name: &str) {
        let mut app = self.archive(name, &["--until-idle", "2s"]);
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }

    fn archived(&self) -> u32 {
        self.clickhouse.query("SELECT count() FROM events").parse().unwrap()
    }

    fn wait_until_archived(&self, count: u32) {
        let start = Instant::now();
        while self.archived() < count {
            assert!(start.elapsed() < Duration::from_mins(1), "{} of {count}", self.archived());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn amount(number: u32) -> u32 {
    number % 7 * 1_000
}

/// A purchase; every seventh costs nothing.
fn purchase(number: u32) -> String {
    let (trainer, amount) = (number % 13, amount(number));
    let session = if number.is_multiple_of(3) { "null" } else { r#""2026-02-01T18:00:00+01:00""# };
    format!(
        r#"{{"user_id":"u-{number}","trainer_id":"t-{trainer}","purchase_id":"p-{number}","timestamp":"2026-01-10T09:15:42.120Z","training":{{"type":"live","training_id":"tr-1","title":"It's \"yoga\"","category":"health","price_cents":7000,"discount_cents":{},"session_date":{session}}},"payment":{{"method":"card","status":"paid","amount_cents":{amount},"currency":"EUR"}}}}"#,
        7_000 - amount
    )
}

pub(crate) fn is_broken(number: u32) -> bool {
    number % ONE_BROKEN_IN == 3
}

pub(crate) fn good_below(end: u32) -> u32 {
    (0..end).map(|number| u32::from(!is_broken(number))).sum()
}

pub(crate) fn body(number: u32) -> String {
    let good = purchase(number);
    if !is_broken(number) {
        return good;
    }
    match number / ONE_BROKEN_IN % 5 {
        0 => format!("{number}: not json"),
        1 => good.replace("\"amount_cents\"", "\"amount\""),
        2 => good.replace("7000", "\"many\""),
        3 => good.replace("\"amount_cents\":", "\"amount_cents\":-1"),
        _ => good.replace("\"purchase_id\"", "\"user_id\""),
    }
}

/// A query over the purchases, and its answer where exactly the good ones below the number are there.
pub(crate) fn purchase_sums(published: u32) -> (&'static str, String) {
    let good = good(published);
    let sum: u32 = good.iter().map(|number| amount(*number)).sum();
    let sessions = good.iter().filter(|number| !number.is_multiple_of(3)).count();
    let free = good.iter().filter(|number| amount(**number) == 0).count();
    let expected = format!("{0}\t{0}\t{sum}\t{sum}\t{sessions}\t{free}\t{0}", good.len());
    let query = "SELECT count(), uniqExact(purchase_id), sum(amount_cents), sum(amount), count(session_date), \
                 countIf(amount_cents = 0), countIf(price_cents - discount_cents = amount_cents AND title = 'It\\'s \"yoga\"' \
                 AND payment_method = 'card' AND payment_status = 'paid' AND currency = 'EUR') FROM archive_purchase";
    (query, expected)
}

fn good(published: u32) -> Vec<u32> {
    (0..published).filter(|number| !is_broken(*number)).collect()
}

#[test]
fn the_archive_holds_exactly_the_good_purchases_after_kills_on_both_sides() {
    let mut bench = Bench::start();
    let mut published = 0;
    let publish = |bench: &Bench, published: &mut u32| {
        let chunk = *published..*published + CHUNK;
        *published = chunk.end;
        let messages: Vec<_> =
            chunk.map(|number| ("purchase".to_owned(), body(number).into_bytes())).collect();
        bench.system.publish_to(EXCHANGE, &messages);
    };
    let mut interrupted = 0;
    for round in 0..6 {
        let before = bench.archived();
        publish(&bench, &mut published);
        let mut app = bench.archive("killed", &[]);
        bench.wait_until_archived(before + CHUNK / 4);
        if round == 2 {
            // The engine of ClickHouse dies under the archive, which holds on and goes on when it is back.
            bench.clickhouse.kill();
            publish(&bench, &mut published);
            thread::sleep(Duration::from_secs(1));
            bench.clickhouse.restart();
            bench.wait_until_archived(before + CHUNK);
            let log = app.log();
            assert_eq!(log.matches("dependency is away").count(), 1, "{log}");
            assert_eq!(log.matches("dependency is back").count(), 1, "{log}");
        }
        app.process.kill();
        interrupted += u32::from(bench.archived() < good_below(published));
    }
    assert!(interrupted > 0, "kills came after all was archived, and prove nothing");
    bench.drain("last");
    assert_eq!(bench.system.depth("pulses.archive"), 0);

    let (query, expected) = purchase_sums(published);
    assert_eq!(bench.clickhouse.query(query), expected);
    let trainers = bench.clickhouse.query(
        "SELECT trainer_id, sum(amount) FROM archive_purchase GROUP BY trainer_id ORDER BY toUInt32(substring(trainer_id, 3))",
    );
    let of = |trainer: u32| -> u32 {
        good(published).into_iter().filter(|number| number % 13 == trainer).map(amount).sum()
    };
    let expected: Vec<_> = (0..13).map(|trainer| format!("t-{trainer}\t{}", of(trainer))).collect();
    assert_eq!(trainers, expected.join("\n"));

    // A letter may come twice where the archive was killed between publishing it and settling; none is missing or wrong.
    let letters: BTreeSet<Vec<u8>> =
        bench.system.dead_letters().into_iter().map(|letter| letter.body).collect();
    let broken = (0..published).filter(|number| is_broken(*number));
    assert!(letters == broken.map(|number| body(number).into_bytes()).collect(), "{} letters", letters.len());
}

#[test]
fn the_archive_tells_what_it_keeps_and_that_it_is_not_ready_without_clickhouse() {
    let mut bench = Bench::start();
    let (port, addr) = (free_port(), |port: u16| format!("127.0.0.1:{port}"));
    let settings = [
        ("CLICKHOUSE_URL", bench.url.as_str()),
        ("PULSE_FORMAT", "purchase"),
        ("RABBITMQ_EXCHANGE", EXCHANGE),
        ("METRICS_ADDR", &addr(port)),
    ];
    let mut app = bench.system.spawn("told", &["--archive"], &settings);
    let messages: Vec<_> =
        (0..100).map(|number| ("purchase".to_owned(), body(number).into_bytes())).collect();
    bench.system.publish_to(EXCHANGE, &messages);
    let good = format!("pulse_archive_events_total {}\n", good_below(100));
    wait_until("the good ones are told", LIMIT, || get(port, "/metrics").1.contains(&good));
    wait_until("nothing waits", LIMIT, || {
        let told = get(port, "/metrics").1;
        told.contains("pulse_backlog_messages{source=\"rabbitmq pulses.archive\"} 0\n")
            && told.contains("pulse_dead_letters_messages{place=\"rabbitmq pulses.dead\"} 5\n")
    });
    assert_clean(&get(port, "/metrics").1);
    assert_eq!(get(port, "/healthz").0, 200);
    let (status, ready) = get(port, "/readyz");
    assert_eq!(status, 200, "{ready}");

    bench.clickhouse.kill();
    wait_until("it is not ready", LIMIT, || {
        let (status, ready) = get(port, "/readyz");
        status == 503 && ready.contains(r#"{"name":"clickhouse","state":"down"}"#)
    });
    assert_eq!(get(port, "/healthz").0, 200, "it is alive all the same");
    app.process.signal("TERM");
    assert_eq!(app.exit_code(), Some(0), "{}", app.log());
}

#[test]
fn the_archive_names_what_it_lacks_and_migrates_without_it_running() {
    let bench = Bench::start();
    let mut lacking = bench.system.spawn("lacking", &["--archive"], &[]);
    assert_eq!(lacking.exit_code(), Some(2));
    let log = lacking.log();
    assert!(log.contains("CLICKHOUSE_URL: app --archive needs it"), "{log}");
    assert!(
        log.contains("RABBITMQ_EXCHANGE: app --archive needs it") && log.contains("ARCHIVE_QUEUE"),
        "{log}"
    );

    let settings = [("CLICKHOUSE_URL", bench.url.as_str()), ("PULSE_FORMAT", "payment")];
    let mut migrate = bench.system.spawn("migrate", &["migrate"], &settings);
    assert_eq!(migrate.exit_code(), Some(0), "{}", migrate.log());
    assert_eq!(bench.clickhouse.query("SELECT count() FROM archive_payment"), "0");
}
