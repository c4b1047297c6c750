//! Where spans stand in traces; in builds with the feature `otlp` they can be exported.

#[cfg(feature = "otlp")]
mod courier;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(feature = "otlp")]
pub use otlp::SpanExport;

use application::trace::{TraceContext, TraceId};
use tracing::Span;

/// Whether spans are exported.
pub(crate) fn is_exported() -> bool {
    #[cfg(feature = "otlp")]
    return otlp::is_running();
    #[cfg(not(feature = "otlp"))]
    false
}

/// A place of its own in the caller's trace, or the first of a new one.
///
/// A new trace is not marked as recorded: where nothing is exported nobody would find its first span.
pub(crate) fn place(caller: Option<TraceContext>) -> TraceContext {
    let span_id = rand::random();
    match caller {
        Some(caller) => caller.at(span_id),
        None => TraceContext::new(TraceId(rand::random()), span_id, false),
    }
}

/// Makes an exported span a part of its caller's trace, or the first of a new one, and says where it stands.
pub(crate) fn adopt(span: &Span, caller: Option<TraceContext>) -> TraceContext {
    #[cfg(feature = "otlp")]
    if let Some(exported) = otlp::adopt(span, caller.as_ref()) {
        return exported;
    }
    let _ = span;
    place(caller)
}

/// Says at an exported span what was answered, of which only the kind of request makes its name.
pub(crate) fn answered(span: &Span, name: String, status: u16) {
    #[cfg(feature = "otlp")]
    otlp::answered(span, name, status);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, name, status);
}
