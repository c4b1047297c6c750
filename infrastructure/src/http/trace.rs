//! A span for each request: the id of its trace and its own id are in every line that is logged while it is answered.

use crate::telemetry;
use application::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use axum::{
    extract::{MatchedPath, Request},
    http::HeaderMap,
    response::Response,
};
use tokio::time::Instant;
use tracing::{Instrument, debug, error_span, field::display};

/// How much of a text that a client has made up is logged.
const TEXT_BYTES_MAX: usize = 128;
const REQUEST_ID: &str = "x-request-id";

/// Goes on with the trace of the caller, or begins one, and leaves it with the request for whoever hands something on.
///
/// The span is there at any level of logs: it costs little beside a request, and a line without it tells little.
pub(super) async fn trace<F>(mut request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let exported = telemetry::is_exported().then(|| {
        let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str);
        format!("{} {route}", request.method())
    });
    let caller = caller(request.headers());
    let own = exported.is_none().then(|| telemetry::place(caller.clone()));
    let request_id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let span = error_span!(
        "http.request.answer",
        trace_id = own.as_ref().map(|own| display(own.trace_id)),
        request_id = short(request_id),
        method = request.method().as_str(),
        path = short(request.uri().path()),
    );
    let context = own.unwrap_or_else(|| {
        let context = telemetry::adopt(&span, caller);
        span.record("trace_id", display(context.trace_id));
        context
    });
    request.extensions_mut().insert(context);
    let answer = async {
        let start = Instant::now();
        let response = answer(request).await;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        debug!(status = response.status().as_u16(), micros, "answered");
        response
    };
    let response = answer.instrument(span.clone()).await;
    if let Some(name) = exported {
        telemetry::answered(&span, name, response.status().as_u16());
    }
    response
}

/// What cannot be read is as good as nothing.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let texts = [TRACEPARENT, TRACESTATE].into_iter().flat_map(|name| {
        headers.get_all(name).iter().map(move |value| (name, value.to_str().unwrap_or_default()))
    });
    TraceContext::of_headers(texts.collect::<Vec<_>>().into_iter())
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
