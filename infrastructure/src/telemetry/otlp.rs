//! Export of spans by OTLP over HTTP, in protobuf.

use super::courier::Courier;
use application::{
    ports::PortError,
    trace::{TraceContext, TraceId, link_with},
};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceState, TracerProvider},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{num::NonZero, time::Duration};
use tracing::{Level, Metadata, Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::dynamic_filter_fn, registry::LookupSpan};

const OPERATION: &str = "export spans";
/// Where collectors take spans (OTLP specification, OTLP/HTTP request).
const PATH: &str = "/v1/traces";
/// How long the last spans may take to be handed over at the end.
const LAST_WORD: Duration = Duration::from_secs(3);
/// Whose spans are exported; those of libraries are not.
const OURS: [&str; 3] = ["app", "application", "infrastructure"];

/// Hands spans to a collector, in the background and in batches; what is too much, or is not taken, is dropped. Dropping
/// it hands over the last ones.
pub struct SpanExport(SdkTracerProvider);

impl SpanExport {
    /// To the collector at `base`, `http://HOST:PORT`, under the name of a service. The layer is to be a part of the
    /// program's one subscriber.
    ///
    /// What else the environment says of `OTEL_…` (sampler, attributes, batches, headers) is heeded.
    ///
    /// # Errors
    /// Permanent where that cannot be an address.
    pub fn start<S>(base: &str, service: String) -> Result<(Self, impl Layer<S> + use<S>), PortError>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let courier = Courier::new().map_err(|error| PortError::permanent(OPERATION, error))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(courier)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{PATH}", base.trim_end_matches('/')))
            .build()
            .map_err(|error| PortError::permanent(OPERATION, error))?;
        let resource = Resource::builder().with_service_name(service).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let layer = tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracer(provider.tracer("pulse-ingestor"))
            // A dynamic filter: what is cached of the filters of several layers loses lines.
            .with_filter(
                dynamic_filter_fn(|metadata, _| is_exported(metadata))
                    .with_max_level_hint(LevelFilter::DEBUG),
            );
        link_with(link);
        RUNNING.store(true, Ordering::Relaxed);
        Ok((Self(provider), layer))
    }
}

impl Drop for SpanExport {
    fn drop(&mut self) {
        // What could not be handed over is lost, as it is while the collector is away, and was told.
        let _ = self.0.shutdown_with_timeout(LAST_WORD);
    }
}

/// Whether spans are exported: asked at every request.
static RUNNING: AtomicBool = AtomicBool::new(false);

pub(super) fn is_running() -> bool {
    RUNNING.load(Ordering::Relaxed)
}

/// Our spans, whatever is logged, and what went wrong in them.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().split("::").next().is_some_and(|name| OURS.contains(&name));
    ours && if metadata.is_span() {
        *metadata.level() <= Level::DEBUG
    } else {
        *metadata.level() <= Level::WARN
    }
}

/// Where an exported span stands, under its caller where it has one; `None` where it is not exported.
pub(super) fn adopt(span: &Span, caller: Option<&TraceContext>) -> Option<TraceContext> {
    if let Some(caller) = caller {
        span.set_parent(Context::new().with_remote_span_context(theirs(caller))).ok()?;
    }
    let context = span.context();
    let own = context.span().span_context().clone();
    let trace_id = TraceId(NonZero::new(u128::from_be_bytes(own.trace_id().to_bytes()))?);
    let span_id = NonZero::new(u64::from_be_bytes(own.span_id().to_bytes()))?;
    Some(match caller {
        Some(caller) => caller.at(span_id).sampled(own.is_sampled()),
        None => TraceContext::new(trace_id, span_id, own.is_sampled()),
    })
}

pub(super) fn answered(span: &Span, name: String, status: u16) {
    let context = span.context();
    let exported = context.span();
    exported.update_name(name);
    if status >= 500 {
        exported.set_status(Status::error(""));
    }
}

fn link(span: &Span, context: &TraceContext) {
    span.add_link(theirs(context));
}

fn theirs(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        context.trace_id.0.get().into(),
        SpanId::from(context.span_id.get()),
        TraceFlags::default().with_sampled(context.is_sampled()),
        true,
        context.state().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
