//! A trace is followed from a request to what became of its pulse, and much work makes few lines.

use crate::system::{App, System};
use infrastructure::test_servers::{free_port, wait_for_port};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// The status and the body of the answer to a POST with these headers.
fn post(port: u16, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn pulse(amount: u32) -> String {
    format!(r#"{{"id":"same","tenant":"t","product_sku":"s","used_amount":{amount},"use_unity":"KB"}}"#)
}

fn stop(mut app: App) -> String {
    app.process.signal("TERM");
    assert_eq!(app.exit_code(), Some(0), "{}", app.log());
    app.log()
}

#[test]
fn a_pulse_that_is_refused_later_is_found_by_the_trace_of_its_request() {
    let system = System::start();
    let port = free_port();
    let addr = format!("127.0.0.1:{port}");
    #[cfg(feature = "otlp")]
    let (collector, spans) = collector::start();
    let settings = [
        ("HTTP_ADDR", addr.as_str()),
        ("API_USERNAME", "admin"),
        ("API_PASSWORD", "a-password-of-this-test"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("LOG_FORMAT", "json"),
        #[cfg(feature = "otlp")]
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
    ];
    let api = system.spawn("api", &["--api"], &settings);
    wait_for_port(port, Duration::from_secs(30));
    let login = r#"{"username":"admin","password":"a-password-of-this-test"}"#;
    let (status, answer) = post(port, "/api/v1/login", "", login);
    assert_eq!(status, 200, "{answer}");
    let token = answer.split("\"Token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let authorization = format!("authorization: Bearer {token}\r\n");
    // Another pulse with the same id: the API cannot know, the worker refuses it.
    assert_eq!(post(port, "/api/v1/pulses", &authorization, &pulse(1)).0, 202);
    let traced = format!("{authorization}traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: vendor=1\r\n");
    assert_eq!(post(port, "/api/v1/pulses", &traced, &pulse(2)).0, 202);
    let wrong = format!("{authorization}traceparent: {}\r\n", "0".repeat(8_000));
    assert_eq!(post(port, "/api/v1/pulses", &wrong, &pulse(1)).0, 202, "it costs no pulse");
    stop(api);

    let mut worker = system.spawn("worker", &["--worker", "--until-idle", "2s"], &settings);
    assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
    let log = worker.log();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("\"level\":\"WARN\"")).collect();
    assert_eq!(refused.len(), 1, "{log}");
    for part in ["refused, and in the dead letters", "\"reasons\":\"conflict\"", "\"letters\":1"] {
        assert!(refused[0].contains(part), "{part} in {}", refused[0]);
    }
    assert!(refused[0].contains(&format!("\"trace_id\":\"{TRACE}\"")), "{}", refused[0]);

    let letters = system.dead_letters();
    assert_eq!(letters.len(), 1);
    let parent = &letters[0].headers["traceparent"];
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"), "{parent}");
    assert!(!parent.contains(SPAN), "it names the span of our request: {parent}");
    assert_eq!(letters[0].headers["tracestate"], "vendor=1");

    #[cfg(feature = "otlp")]
    collector::assert_told(&spans, TRACE, parent);
}

#[test]
fn a_drain_of_many_pulses_logs_a_handful_of_lines() {
    let system = System::start();
    system.run(&["populate", "--to", "rabbitmq", "--total-messages", "10000", "--buffer-size", "1000"]);
    let mut worker = system.spawn("worker", &["--worker", "--until-idle", "2s"], &[]);
    assert_eq!(worker.exit_code(), Some(0), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("counted=10000"), "{log}");
    let lines = log.lines().count();
    assert!((3..=12).contains(&lines), "{lines} lines: {log}");
}

/// Takes exported spans.
#[cfg(feature = "otlp")]
mod collector {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        sync::{Arc, Mutex},
        thread,
    };

    pub(super) type Spans = Arc<Mutex<Vec<u8>>>;

    /// Its address, and the bytes of all bodies that it took so far.
    pub(super) fn start() -> (String, Spans) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let spans = Spans::default();
        let taken = Arc::clone(&spans);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let taken = Arc::clone(&taken);
                thread::spawn(move || take(&mut BufReader::new(stream), &taken));
            }
        });
        (base, spans)
    }

    fn take(stream: &mut BufReader<std::net::TcpStream>, taken: &Spans) {
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
            let header = line.trim().to_lowercase();
            if let Some(bytes) = header.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            }
            if header.is_empty() {
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                taken.lock().unwrap().extend(body);
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
            line.clear();
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap())
            .collect()
    }

    /// The request of the trace, by the span that its message was passed on under; and batches and letters, which are linked.
    pub(super) fn assert_told(spans: &Spans, trace: &str, parent: &str) {
        let spans = spans.lock().unwrap();
        let times = |part: &[u8]| spans.windows(part.len()).filter(|window| *window == part).count();
        let span = parent.split('-').nth(2).unwrap();
        // The span of the request itself, and the links to it of the batch and of the letters.
        assert_eq!(times(&bytes(trace)), 3, "{} bytes", spans.len());
        assert_eq!(times(&bytes(span)), 3, "{} bytes", spans.len());
        for name in ["POST /api/v1/pulses", "engine.batch.apply", "engine.letters.publish", "pulse-ingestor"]
        {
            assert!(times(name.as_bytes()) > 0, "{name}");
        }
    }
}
