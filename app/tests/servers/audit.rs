//! The books are proved while everything works and is killed, and a break is told within seconds.

use crate::system::{App, System, wait_until};
use infrastructure::test_servers::free_port;
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread::sleep,
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(1);
const EVERY_SECOND: &str = "* * * * * *";

fn audit(system: &System) -> Value {
    serde_json::from_slice(&system.run(&["audit", "--json"]).stdout).unwrap()
}

fn sql(system: &System, statement: &str) {
    let output =
        Command::new("psql").args(["--no-psqlrc", "-c", statement, system.ledger_url()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn metric(port: u16, name: &str) -> Option<u64> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn the_books_hold_at_every_moment_while_workers_and_crons_are_killed() {
    let system = System::start();
    let load =
        ["populate", "--to", "rabbitmq", "--total-messages", "60000", "--duplicates", "5", "--hours", "3"];
    system.run(&load);
    let worker = |name: &str| -> App { system.spawn(name, &["--worker"], &[]) };
    let cron = || system.spawn("cron", &["--cron"], &[("FLUSH_SCHEDULE", EVERY_SECOND)]);
    let (mut workers, mut crons) = ([worker("left"), worker("right")], [cron(), cron()]);
    wait_until("the accumulator is there", LIMIT, || audit(&system)["checks"][0]["left"] != "0 shards found");
    for round in 0..12 {
        workers[round % 2].process.kill();
        crons[round % 2].process.kill();
        let report = audit(&system);
        assert_eq!(report["outcome"], "holds", "{report:#}");
        workers[round % 2] = worker(if round % 2 == 0 { "left" } else { "right" });
        crons[round % 2] = cron();
        sleep(Duration::from_millis(200));
        let report = audit(&system);
        assert_eq!(report["outcome"], "holds", "{report:#}");
    }
    for app in workers.iter_mut().chain(&mut crons) {
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    assert_eq!(audit(&system)["outcome"], "holds");
}

#[test]
fn a_break_is_found_on_schedule_named_and_told_to_be_over() {
    let system = System::start();
    system.run(&["populate", "--to", "rabbitmq", "--total-messages", "2000"]);
    system.run(&["--worker", "--until-idle", "2s"]);
    let port = free_port();
    let addr = format!("127.0.0.1:{port}");
    let settings =
        [("METRICS_ADDR", addr.as_str()), ("AUDIT_SCHEDULE", EVERY_SECOND), ("LOG_FORMAT", "json")];
    let mut cron = system.spawn("cron", &["--cron"], &settings);
    wait_until("an audit has held", LIMIT, || metric(port, "pulse_books_hold") == Some(1));
    sql(
        &system,
        "update hourly_usage set used_amount = used_amount + 3 where id = (select min(id) from hourly_usage)",
    );
    wait_until("the break is told", LIMIT, || metric(port, "pulse_books_hold") == Some(0));
    assert_eq!(metric(port, "pulse_audit_broken_checks"), Some(2), "{}", cron.log());
    let log = cron.log();
    assert!(log.contains("the books are BROKEN") && log.contains("difference +3 in +0 pulses"), "{log}");
    sql(
        &system,
        "update hourly_usage set used_amount = used_amount - 3 where id = (select min(id) from hourly_usage)",
    );
    wait_until("it is over", LIMIT, || metric(port, "pulse_books_hold") == Some(1));
    wait_until("that is told", LIMIT, || cron.log().contains("the books hold again"));
    cron.process.signal("TERM");
    assert_eq!(cron.exit_code(), Some(0), "{}", cron.log());
}

#[test]
fn a_pulse_of_a_queue_is_explained_by_its_own_and_by_its_messages_id() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let body = |id: &str, amount: &str| {
        format!(r#"{{{id}"tenant":"me","product_sku":"s","used_amount":{amount},"use_unity":"KB"}}"#)
    };
    let batch = format!("[{},{}]", body("", "1"), body("", "2"));
    system.publish(&[
        (None, body(r#""id":"own","#, "1").into_bytes()),
        (None, body(r#""id":"own","#, "2").into_bytes()),
        (Some("message".to_owned()), batch.into_bytes()),
    ]);
    system.run(&["--worker", "--until-idle", "2s"]);
    let explain = |id: &str| -> Value {
        serde_json::from_slice(&system.run(&["explain", id, "--tenant", "me", "--json"]).stdout).unwrap()
    };
    let own = explain("own");
    assert_eq!(
        (&own["fate"], &own["rejected"][0]["reason"]),
        (&"counted".into(), &"conflict".into()),
        "{own:#}"
    );
    let message = explain("message");
    let items: Vec<&Value> = message["counted"].as_array().unwrap().iter().map(|one| &one["item"]).collect();
    assert_eq!(items, [0, 1], "{message:#}");
    assert_eq!(explain("nobody")["fate"], "unknown");
}

#[cfg(feature = "clickhouse")]
#[test]
fn the_archive_is_held_against_the_books_key_by_key_and_shows_the_event() {
    use infrastructure::test_servers::clickhouse::ClickhouseServer;
    let (system, clickhouse) = (System::start(), ClickhouseServer::start());
    let url = clickhouse.url();
    let settings = [("CLICKHOUSE_URL", url.as_str()), ("RABBITMQ_EXCHANGE", "pulses.all")];
    let drain = |mode: &str| {
        let mut app = system.spawn(mode, &[&format!("--{mode}"), "--until-idle", "2s"], &settings);
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    };
    for mode in ["archive", "worker"] {
        drain(mode);
    }
    let pulse = |number: u32| {
        let (tenant, hour) = (number % 7, number % 5);
        let body = format!(
            r#"{{"id":"p-{number}","tenant":"t-{tenant}","product_sku":"s","used_amount":1.25,"use_unity":"KB","occurred_at":"2026-01-10T0{hour}:59:59.5Z"}}"#
        );
        ("any".to_owned(), body.into_bytes())
    };
    system.publish_to("pulses.all", &(0..300).map(pulse).collect::<Vec<_>>());
    // Twice, which counts once on both sides.
    system.publish_to("pulses.all", &(0..50).map(pulse).collect::<Vec<_>>());
    drain("worker");
    drain("archive");
    system.publish_to("pulses.all", &(300..310).map(pulse).collect::<Vec<_>>());
    drain("archive");
    drain("worker");
    let audit = || {
        let output = system.run_with(&["audit", "--json"], &settings);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, report) = audit();
    assert_eq!((code, &report["checks"][10]["check"]), (Some(0), &"archive".into()), "{report:#}");
    assert_eq!(report["checks"][10]["verdict"], "holds", "{report:#}");

    // One pulse that the worker has counted and the archive has not taken.
    system.publish_to("pulses.all", &[pulse(311)]);
    drain("worker");
    let (code, report) = audit();
    let finding = &report["checks"][10]["findings"][0];
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(
        (&finding["tenant"], &finding["window_start"]),
        (&"t-3".into(), &"2026-01-10T01:00:00Z".into())
    );
    assert_eq!(finding["difference"], "+1.25 in +1 pulses", "{report:#}");

    let output = system.run_with(&["explain", "p-7", "--tenant", "t-0", "--json"], &settings);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["fate"], &told["archived"][0]["used_amount"]),
        (&"counted".into(), &"1.25".into()),
        "{told:#}"
    );
    assert!(told["archived"][0]["body"].as_str().unwrap().contains("\"p-7\""), "{told:#}");
}
