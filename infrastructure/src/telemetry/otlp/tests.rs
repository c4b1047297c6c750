use super::*;
use crate::telemetry::adopt;
use application::{ports::Envelope, trace};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
};
use tracing::{debug_span, error_span, subscriber::with_default, trace_span};
use tracing_subscriber::{Registry, layer::SubscriberExt};

const STATE: &str = "vendor=1";

fn caller(trace_id: u128) -> TraceContext {
    let parent = format!("00-{trace_id:032x}-00f067aa0ba902b7-01");
    let headers = [(trace::TRACEPARENT, parent.as_str()), (trace::TRACESTATE, STATE)];
    TraceContext::of_headers(headers.into_iter()).unwrap()
}

/// A collector that takes one request: its address, and the request's bytes.
fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut request, mut chunk) = (Vec::new(), [0; 4_096]);
        loop {
            let count = stream.read(&mut chunk).unwrap();
            request.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8_lossy(&request);
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if request.len() >= head.len() + 4 + length.parse::<usize>().unwrap() {
                break;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        sender.send(request).unwrap();
    });
    (base, receiver)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn spans_go_to_the_collector_under_their_callers_and_batches_with_links() {
    let (base, requests) = collector();
    let (export, layer) = SpanExport::start(&base, "the-service".to_owned()).unwrap();
    let (first, second, theirs) =
        (caller(0x0123_4567_89ab_cdef_0011), caller(0xfeed_face_cafe), caller(0xdead));
    let (own, fresh) = with_default(Registry::default().with(layer), || {
        let span = error_span!("http.request.answer");
        let own = adopt(&span, Some(first.clone()));
        answered(&span, "POST /api/v1/pulses".to_owned(), 503);
        let batch = debug_span!("engine.batch.apply", trace_ids = tracing::field::Empty);
        let envelope = Envelope { headers: second.headers(), ..Envelope::default() };
        trace::link(&batch, [envelope].iter());
        let library = error_span!(target: "sqlx::query", "a query");
        assert_ne!(adopt(&library, Some(theirs.clone())).span_id, theirs.span_id);
        drop(trace_span!("too much"));
        (own, adopt(&error_span!("another"), None))
    });
    drop(export);

    assert_eq!((own.trace_id, own.state(), own.is_sampled()), (first.trace_id, Some(STATE), true));
    assert_ne!(own.span_id, first.span_id);
    assert!(fresh.is_sampled() && fresh.trace_id != first.trace_id);
    let request = requests.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(request.starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
    let span_id = |context: &TraceContext| context.span_id.get().to_be_bytes();
    for told in [
        b"the-service".as_slice(),
        b"POST /api/v1/pulses",
        b"engine.batch.apply",
        &first.trace_id.0.get().to_be_bytes(),
        &second.trace_id.0.get().to_be_bytes(),
        &span_id(&own),
        &span_id(&fresh),
        STATE.as_bytes(),
    ] {
        assert!(contains(&request, told), "{told:?}");
    }
    for other in [b"a query".as_slice(), b"too much", &theirs.trace_id.0.get().to_be_bytes()] {
        assert!(!contains(&request, other), "{other:?}");
    }
}

#[test]
fn a_caller_that_records_nothing_is_followed() {
    let (export, layer) = SpanExport::start("http://127.0.0.1:1", "s".to_owned()).unwrap();
    let own = with_default(Registry::default().with(layer), || {
        adopt(&error_span!("http.request.answer"), Some(caller(7).sampled(false)))
    });
    assert!(own.trace_id == caller(7).trace_id && !own.is_sampled());
    // Nobody is there to take them, and nobody waits for that.
    drop(export);
}
