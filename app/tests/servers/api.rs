//! Everything between a poster and the books is killed, again and again: what was accepted is counted once, nothing stays behind.

use crate::system::{App, System, Totals, assert_equal, wait_until};
use infrastructure::test_servers::{free_port, wait_for_port};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

const POSTERS: usize = 100;
const ROUNDS: usize = 8;
const HOUR: &str = "2026-01-10T12:00:00Z";

/// One request of a poster, and what it adds to the books once it is accepted.
struct Request {
    path: &'static str,
    body: String,
    /// Tenant, SKU, unit, amount of each pulse.
    pulses: Vec<(String, &'static str, &'static str, u64)>,
}

/// A single pulse, a batch, or the event of a payment.
fn request(poster: usize, number: u64) -> Request {
    let amount = number % 9 + 1;
    if number % 3 == 2 {
        let body = format!(
            r#"{{"event_id":"evt-{poster}-{number}","type":"charge","amount":"{amount}","currency":"NGN","occurred_at":"{HOUR}"}}"#
        );
        let pulses = vec![("payments".to_owned(), "charge", "NGN", amount)];
        return Request { path: "/webhooks/payments", body, pulses };
    }
    let items = if number % 3 == 1 { 7 } else { 1 };
    let pulses: Vec<_> =
        (0..items).map(|item| (format!("tenant-{}", (poster + item) % 13), "s", "KB", amount)).collect();
    let bodies: Vec<String> = (0..)
        .zip(&pulses)
        .map(|(item, (tenant, ..)): (u32, _)| {
            format!(
                r#"{{"id":"{poster}-{number}-{item}","tenant":"{tenant}","product_sku":"s","used_amount":{amount},"use_unity":"KB","occurred_at":"{HOUR}"}}"#
            )
        })
        .collect();
    let body = if items == 1 { bodies[0].clone() } else { format!("[{}]", bodies.join(",")) };
    Request { path: "/api/v1/pulses", body, pulses }
}

/// The status and the body of the answer; nothing where the connection did not last.
fn call(port: u16, path: &str, token: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Posts until told to stop, each request until it is accepted. Returns what was accepted, and how often it took another try.
fn post(
    port: u16,
    token: &str,
    poster: usize,
    stop: &AtomicBool,
    accepted: &AtomicU64,
) -> (Vec<Request>, u64) {
    let (mut requests, mut repeated, mut number) = (Vec::new(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let request = request(poster, number);
        if number % 5 == 4
            && let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port))
        {
            // A client that is gone before the answer, in the middle of its body, or right after it.
            let whole = format!(
                "POST {} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
                request.path,
                request.body.len(),
                request.body
            );
            let end = if number % 2 == 0 { whole.len() } else { whole.len() - 10 };
            let _ = stream.write_all(&whole.as_bytes()[..end]);
        }
        loop {
            match call(port, request.path, token, &request.body) {
                Some((200 | 202, _)) => break,
                None | Some((429 | 500..=599, _)) => repeated += 1,
                Some(other) => panic!("{}: {other:?}", request.body),
            }
            thread::sleep(Duration::from_millis(50));
        }
        accepted.fetch_add(1, Ordering::Relaxed);
        requests.push(request);
        number += 1;
    }
    (requests, repeated)
}

fn books(requests: &[Request]) -> Totals {
    let mut sums = std::collections::BTreeMap::<[String; 4], (u64, u64)>::new();
    for (tenant, sku, unit, amount) in requests.iter().flat_map(|request| &request.pulses) {
        let key = [tenant.clone(), (*sku).to_owned(), (*unit).to_owned(), HOUR.to_owned()];
        let (sum, count) = sums.entry(key).or_default();
        (*sum, *count) = (*sum + amount, *count + 1);
    }
    sums.into_iter().map(|(key, (sum, count))| (key, (sum.to_string(), count))).collect()
}

/// Kills the API and the workers under load; `sources` says where accepted pulses wait.
fn kills_under_load(sources: &str) {
    let system = System::start();
    let port = free_port();
    let addr = format!("127.0.0.1:{port}");
    let settings = [
        ("PULSE_SOURCES", sources),
        ("HTTP_ADDR", &addr),
        ("API_USERNAME", "admin"),
        ("API_PASSWORD", "a-password-of-this-test"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("INBOX_POLL_INTERVAL", "50ms"),
        ("INBOX_LEASE", "3s"),
        ("FLUSH_SCHEDULE", "* * * * * *"),
    ];
    let start = |name: &str, mode: &str| -> App { system.spawn(name, &[mode], &settings) };
    let mut api = start("api", "--api");
    wait_for_port(port, Duration::from_secs(20));
    let login = r#"{"username":"admin","password":"a-password-of-this-test"}"#;
    let (status, answer) = call(port, "/api/v1/login", "", login).unwrap();
    assert_eq!(status, 200, "{answer}");
    let token = answer.split("\"Token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let mut workers = [start("left", "--worker"), start("right", "--worker")];
    let cron = start("cron", "--cron");

    let (stop, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (requests, repeated) = thread::scope(|scope| {
        let posters: Vec<_> = (0..POSTERS)
            .map(|poster| {
                let (token, stop, accepted) = (&token, &stop, &accepted);
                scope.spawn(move || post(port, token, poster, stop, accepted))
            })
            .collect();
        for round in 0..ROUNDS {
            let before = accepted.load(Ordering::Relaxed);
            let start_of_round = std::time::Instant::now();
            while accepted.load(Ordering::Relaxed) < before + 300 {
                assert!(
                    start_of_round.elapsed() < Duration::from_mins(1),
                    "round {round}: nothing is accepted"
                );
                thread::sleep(Duration::from_millis(10));
            }
            if round % 2 == 0 {
                api.process.kill();
                api = start(&format!("api-{round}"), "--api");
            }
            let side = usize::from(round % 4 > 1);
            workers[side].process.kill();
            workers[side] = start(&format!("worker-{round}"), "--worker");
        }
        stop.store(true, Ordering::Relaxed);
        let posted: Vec<_> = posters.into_iter().map(|poster| poster.join().unwrap()).collect();
        let repeated: u64 = posted.iter().map(|(_, repeated)| repeated).sum();
        (posted.into_iter().flat_map(|(requests, _)| requests).collect::<Vec<_>>(), repeated)
    });
    assert!(repeated > 0, "no request was interrupted, which proves nothing");

    for app in workers.iter_mut().chain([&mut api]) {
        wait_until("it is up", Duration::from_mins(1), || {
            let log = app.log();
            log.contains(": ready") || log.contains(": listening")
        });
        app.process.signal("TERM");
        assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    }
    drop(cron);
    let mut drain = system.spawn("drain", &["--worker", "--until-idle", "3s"], &settings);
    assert_eq!(drain.exit_code(), Some(0), "{}", drain.log());
    system.run(&["flush"]);
    assert_equal(&system.ledger(), &books(&requests));
    for status in ["received", "processing", "failed"] {
        let listed = system.run(&["webhooks", "list", "--status", status, "--json"]).stdout;
        assert_eq!(String::from_utf8(listed).unwrap(), "", "{status}");
    }
}

#[test]
fn pulses_confirmed_by_rabbitmq_and_events_of_the_inbox_survive_kills_of_api_and_workers() {
    kills_under_load("rabbitmq,inbox");
}

#[test]
fn pulses_and_events_of_the_inbox_survive_kills_of_api_and_workers() {
    kills_under_load("inbox");
}
