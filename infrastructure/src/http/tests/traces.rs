//! The trace of a caller: in the lines that are logged, and in what is handed on.

use super::*;
use crate::kept_log::KeptLog;
use application::{ports::Envelope, trace::TraceContext};
use std::sync::Mutex;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// The API over an intake that keeps envelopes, and fails as it is told.
fn traced(fails: bool) -> (Router, Arc<Mutex<Vec<Envelope>>>) {
    let kept: Arc<Mutex<Vec<Envelope>>> = Arc::default();
    let mut ports = ports();
    let (mut intake, mut inbox) = (MockPulseIntake::new(), MockInbox::new());
    let (taken, stored) = (Arc::clone(&kept), Arc::clone(&kept));
    intake.expect_take().returning(move |messages| {
        taken.lock().unwrap().extend(messages.iter().map(|message| message.envelope.clone()));
        if fails { Err(PortError::transient("store", "away")) } else { Ok(()) }
    });
    inbox.expect_store().returning(move |events| {
        stored.lock().unwrap().extend(events.iter().map(|event| event.envelope.clone()));
        Ok(vec![Stored::New])
    });
    ports.intake = Arc::new(intake);
    ports.inbox = Arc::new(inbox);
    (router(state(ports, HttpLimits::default())), kept)
}

async fn post(service: &Router, path: &str, body: &str, headers: &[(&str, &[u8])]) -> StatusCode {
    let token = key(Scope::Ingest).text;
    let mut request = request("POST", path, Some(&token), body.to_owned());
    for (name, value) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, header::HeaderValue::from_bytes(value).unwrap());
    }
    answer(service, request).await.status()
}

#[tokio::test]
async fn the_lines_of_a_request_name_its_trace_and_its_own_id() {
    let (service, _) = traced(true);
    // A place in the program that is reached for the first time just when a subscriber comes may not hear of it, and other
    // tests run beside this one.
    post(&service, "/api/v1/pulses", PULSE, &[]).await;
    let (log, guard) = KeptLog::start();
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("traceparent", parent.as_bytes()), ("x-request-id", b"request-7")];
    let status = post(&service, "/api/v1/pulses", PULSE, &headers).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(guard);
    let lines = log.lines();
    let line = lines.iter().find(|line| line["message"].to_string().contains("turned away"));
    let line = line.expect("a dependency is away");
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    assert_eq!(line["span"]["request_id"], "request-7", "{line}");
    assert_eq!(line["span"]["path"], "/api/v1/pulses", "{line}");
}

#[tokio::test]
async fn what_is_handed_on_stands_in_the_trace_of_its_caller_under_a_span_of_ours() {
    let (service, kept) = traced(false);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("traceparent", parent.as_bytes()), ("tracestate", b"a=1"), ("tracestate", b"b=2")];
    assert_eq!(post(&service, "/api/v1/pulses", PULSE, &headers).await, StatusCode::ACCEPTED);
    let signature = signature(PAYMENT);
    let signed = [headers.as_slice(), &[("x-webhook-signature", signature.as_bytes())]].concat();
    assert_eq!(post(&service, "/webhooks/payments", PAYMENT, &signed).await, StatusCode::OK);
    let contexts: Vec<TraceContext> =
        kept.lock().unwrap().iter().map(|envelope| TraceContext::of(envelope).unwrap()).collect();
    assert_eq!(contexts.len(), 2);
    for context in &contexts {
        assert_eq!(context.trace_id.to_string(), TRACE);
        assert_ne!(format!("{:016x}", context.span_id), SPAN);
        assert_eq!((context.state(), context.is_sampled()), (Some("a=1,b=2"), true));
    }
    assert_ne!(contexts[0].span_id, contexts[1].span_id);
}

#[tokio::test]
async fn without_a_trace_that_can_be_read_there_is_a_new_one_and_the_pulse_counts() {
    let (service, kept) = traced(false);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let long = format!("{parent}-{}", "x".repeat(8_000));
    let (good, long) = (parent.as_bytes(), long.as_bytes());
    let wrong: [&[(&str, &[u8])]; 5] = [
        &[],
        &[("traceparent", b"00-nonsense")],
        &[("traceparent", b"\xff\xfe")],
        &[("traceparent", long)],
        &[("traceparent", good), ("traceparent", good)],
    ];
    for headers in wrong {
        assert_eq!(post(&service, "/api/v1/pulses", PULSE, headers).await, StatusCode::ACCEPTED);
    }
    let kept = kept.lock().unwrap();
    let traces: std::collections::BTreeSet<String> = kept
        .iter()
        .map(|envelope| {
            let context = TraceContext::of(envelope).unwrap();
            assert!(!context.is_sampled() && context.state().is_none());
            context.trace_id.to_string()
        })
        .collect();
    assert!(traces.len() == 5 && !traces.contains(TRACE), "{traces:?}");
}
