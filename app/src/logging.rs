//! Logs, to standard error, and the export of spans.

use crate::{
    progress,
    settings::{Export, Log},
};
#[cfg(feature = "otlp")]
use infrastructure::telemetry::SpanExport;
use std::io::{self, IsTerminal, Write};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Libraries that say at `info` or `warn` what we say ourselves; lapin also shows what is in a message. `LOG_LEVEL` may
/// name them to hear them.
const QUIET: &str = "lapin=off,sqlx=warn,tokio_cron_scheduler=warn";

type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

/// Starts logging for the whole program, and the export of spans where one is asked for; a second call does nothing.
/// Dropping what it returns hands over the last spans.
///
/// # Errors
/// Where spans cannot be exported to such an address.
pub(crate) fn start(log: &Log) -> anyhow::Result<Option<SpanExport>> {
    // One filter for all where nothing is exported: a filter of one layer among others loses lines where a library asks
    // whether something is enabled and then says nothing. The filter of the export has every line asked for anew.
    let Some(export) = &log.export else {
        let _ = tracing_subscriber::registry().with(filter(&log.level)).with(lines(log.json)).try_init();
        return Ok(None);
    };
    let mut layers: Layers = vec![lines(log.json).with_filter(filter(&log.level)).boxed()];
    let exporting = start_export(export, &mut layers)?;
    let _ = tracing_subscriber::registry().with(layers).try_init();
    if !cfg!(feature = "otlp") {
        let Export { endpoint, service } = export;
        tracing::warn!(
            endpoint,
            service,
            "OTEL_EXPORTER_OTLP_ENDPOINT is not used: this build exports no spans (feature otlp)"
        );
    }
    Ok(Some(exporting))
}

fn lines<S: Subscriber + for<'span> LookupSpan<'span>>(json: bool) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = fmt::layer().with_writer(BesideBars);
    if json {
        return lines.json().flatten_event(true).boxed();
    }
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    lines.with_ansi(colours).boxed()
}

#[cfg(feature = "otlp")]
fn start_export(export: &Export, layers: &mut Layers) -> anyhow::Result<SpanExport> {
    let (handle, layer) = SpanExport::start(&export.endpoint, export.service.clone())?;
    layers.push(layer.boxed());
    Ok(handle)
}

/// Nothing: this build exports no spans.
#[cfg(not(feature = "otlp"))]
pub(crate) struct SpanExport;

#[cfg(not(feature = "otlp"))]
#[expect(clippy::unnecessary_wraps, reason = "as in builds that export spans")]
fn start_export(_: &Export, _: &mut Layers) -> anyhow::Result<SpanExport> {
    Ok(SpanExport)
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{QUIET},{level}"))
}

/// Standard error, with progress bars out of the way while a line is written.
struct BesideBars;

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for BesideBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::bars().suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{Level, enabled, subscriber::with_default};

    #[test]
    fn lapin_which_shows_messages_is_heard_only_where_it_is_asked_for() {
        let heard = |level: &str| {
            with_default(
                Registry::default().with(filter(level)),
                || enabled!(target: "lapin::returned_messages", Level::WARN),
            )
        };
        for level in ["info", "warn", "debug", "trace", "app=debug,info"] {
            assert!(!heard(level), "{level}");
        }
        assert!(heard("info,lapin=warn"));
    }
}
