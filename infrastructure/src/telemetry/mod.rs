//! Where spans stand in traces; in builds with the feature `otlp` they can be exported.

#[cfg(feature = "otlp")]
mod courier;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(feature = "otlp")]
pub use otlp::SpanExport;

use application::trace::{TraceContext, TraceId};
use tracing::Span;

/// Makes a span a part of its caller's trace, or the first of a new one, and says where it stands.
///
/// A new trace is marked as recorded only where spans are exported: elsewhere nobody would find its first span.
pub(crate) fn adopt(span: &Span, caller: Option<TraceContext>) -> TraceContext {
    #[cfg(feature = "otlp")]
    if let Some(exported) = otlp::adopt(span, caller.as_ref()) {
        return exported;
    }
    let _ = span;
    let span_id = rand::random();
    match caller {
        Some(caller) => caller.at(span_id),
        None => TraceContext::new(TraceId(rand::random()), span_id, false),
    }
}

/// Says at an exported span what was answered, of which only the kind of request makes its name.
pub(crate) fn answered(span: &Span, method: &str, route: &str, status: u16) {
    #[cfg(feature = "otlp")]
    otlp::answered(span, method, route, status);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, method, route, status);
}
