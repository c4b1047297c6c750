//! What a worker and a cron tell on `METRICS_ADDR` while the servers come and go.

use crate::system::{System, wait_until};
use infrastructure::test_servers::{free_port, promtool::assert_clean};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// The status and the text of an answer on this port; zero and nothing while nobody listens.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, text)| text.to_owned()).unwrap_or_default())
}

pub(crate) fn scrape(port: u16) -> String {
    get(port, "/metrics").1
}

pub(crate) fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_worker_and_a_cron_tell_what_they_do_and_what_is_away() {
    let mut system = System::start();
    let (worker_port, cron_port) = (free_port(), free_port());
    let addr = |port: u16| format!("127.0.0.1:{port}");
    let mut worker = system.spawn("worker", &["--worker"], &[("METRICS_ADDR", &addr(worker_port))]);
    let schedule = ("FLUSH_SCHEDULE", "* * * * * *");
    let mut cron = system.spawn("cron", &["--cron"], &[("METRICS_ADDR", &addr(cron_port)), schedule]);
    system.run(&["populate", "--to", "rabbitmq", "--total-messages", "3000", "--buffer-size", "500"]);
    let worker_value = |name: &str| value(&scrape(worker_port), name);
    wait_until("all are counted", LIMIT, || worker_value("pulse_pulses_counted_total") == Some(3_000));
    wait_until("all are flushed", LIMIT, || {
        value(&scrape(cron_port), "pulse_flushed_pulses_total") == Some(3_000)
    });
    wait_until("all is told as settled", LIMIT, || {
        let text = scrape(worker_port);
        value(&text, "pulse_pending_pulses") == Some(0)
            && value(&text, "pulse_backlog_messages{source=\"rabbitmq\"}") == Some(0)
    });
    let (told, flushed) = (scrape(worker_port), scrape(cron_port));
    assert_eq!(value(&told, "pulse_batch_size_pulses_sum"), Some(3_000), "{told}");
    assert_eq!(value(&told, "pulse_dependency_up{dependency=\"redis\"}"), Some(1), "{told}");
    assert!(
        !told.contains("pulse_flush_duration") && !flushed.contains("pulse_messages_received"),
        "{flushed}"
    );
    assert!(
        value(&flushed, "pulse_flush_duration_seconds_count").is_some_and(|count| count > 0),
        "{flushed}"
    );
    assert!(value(&flushed, "pulse_flushed_rows_total").is_some_and(|rows| rows > 0), "{flushed}");
    assert_clean(&told);
    assert_clean(&flushed);
    for port in [worker_port, cron_port] {
        let ready = get(port, "/readyz");
        assert_eq!((get(port, "/healthz").0, ready.0), (200, 200), "{}", ready.1);
    }

    system.redis.kill();
    system.run(&["populate", "--to", "rabbitmq", "--total-messages", "10"]);
    wait_until("Redis is told to be away", LIMIT, || {
        let text = scrape(worker_port);
        value(&text, "pulse_dependency_up{dependency=\"redis\"}") == Some(0)
            && value(&text, "pulse_dependency_retries_total{dependency=\"redis\"}") > Some(0)
            && !text.contains("pulse_pending_pulses")
    });
    let (status, ready) = get(worker_port, "/readyz");
    assert!(status == 503 && ready.contains(r#"{"name":"redis","state":"down"}"#), "{status} {ready}");
    assert_eq!(get(worker_port, "/healthz").0, 200, "it is alive all the same");
    for app in [&mut worker, &mut cron] {
        app.process.signal("KILL");
        app.process.wait();
    }
}
