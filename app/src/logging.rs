//! Logs, to standard error.

use crate::{progress, settings::Log};
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Libraries that say at `info` or `warn` what we say ourselves; lapin also shows what is in a message. `LOG_LEVEL` may
/// name them to hear them.
const QUIET: &str = "lapin=off,sqlx=warn,tokio_cron_scheduler=warn";

/// Starts logging for the whole program; a second call does nothing.
pub(crate) fn start(log: &Log) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.level)).with_writer(BesideBars);
    let _ = if log.json {
        builder.json().flatten_event(true).try_init()
    } else {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colours).try_init()
    };
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
    use tracing_subscriber::{Registry, layer::SubscriberExt};

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
