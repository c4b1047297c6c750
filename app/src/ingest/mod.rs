//! `app ingest`: lines of files, counted in the embedded file or published to RabbitMQ.

mod publish;
mod report;

use crate::{
    backends::Backends,
    cli::Ingest,
    progress,
    settings::{Fault, Faults, Settings},
};
pub(crate) use publish::{give_up, next, outgoing};

use application::ingest::{IngestPulses, Route, Tally};
use indicatif::ProgressBar;
use infrastructure::file::{FileProgress, FileSource, Input};
use publish::Publishing;
use report::{Rejects, Report};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    select,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

const BAR_EVERY: Duration = Duration::from_millis(100);

/// Reads all files and prints what became of their lines.
///
/// # Errors
/// [`crate::settings::Faults`] where a setting is lacking; otherwise why the end was not reached. Repeating the command
/// is safe.
pub(crate) async fn run(
    arguments: Ingest,
    settings: &Settings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let source = Arc::new(open(arguments.files, &arguments.stdin_name)?);
    let progress = source.progress();
    let (rejects, tally) = (Arc::new(Rejects::default()), Arc::new(Tally::default()));
    let published = settings.rabbitmq().map(|_| AtomicU64::new(0));
    let result = if let (Some(broker), Some(published)) = (settings.rabbitmq(), &published) {
        let decoder = settings.decoder(&settings.ledger());
        let lines = Publishing { source: &source, decoder, rejects: &rejects, published };
        with_bar(&progress, lines.run(broker, &stop)).await
    } else {
        let backends = open_embedded(settings).await?;
        let engine = engine(&backends, Arc::clone(&source), settings, &rejects, &tally);
        with_bar(&progress, engine.run(stop.clone())).await.map_err(anyhow::Error::from)
    };
    let report = Report {
        lines: progress.lines(),
        published: published.map(AtomicU64::into_inner),
        tally: tally.snapshot(),
        rejects: rejects.take(),
        too_long: progress.too_long(),
        elapsed: start.elapsed(),
    };
    report.print(&mut std::io::stdout().lock())?;
    result?;
    anyhow::ensure!(
        source.has_ended() || !stop.is_cancelled(),
        "stopped before the end of the input: repeat the command to go on, nothing is counted twice"
    );
    Ok(())
}

/// Opens the inputs; `-` is standard input.
pub(crate) fn open(files: Vec<PathBuf>, stdin_name: &str) -> anyhow::Result<FileSource> {
    let inputs = files.into_iter().map(|file| {
        if file == Path::new("-") { Input::Stdin { name: stdin_name.to_owned() } } else { Input::File(file) }
    });
    Ok(FileSource::open(inputs.collect())?)
}

/// The embedded file, ready to count; servers that count, but no broker to bring them pulses, are a gap in the settings.
async fn open_embedded(settings: &Settings) -> anyhow::Result<Backends> {
    let stores = settings.only_embedded().ok_or_else(|| {
        let instead = "unset REDIS_URL and LEDGER_URL to count in PULSE_DB";
        Faults::from(Fault::lacking("RABBITMQ_URL", "app ingest", instead))
    })?;
    let backends = Backends::open_held(&stores, &settings.counting).await?;
    backends.open_shards().await?;
    Ok(backends)
}

/// The same engine as everything else, with the files as its source.
fn engine(
    backends: &Backends,
    source: Arc<FileSource>,
    settings: &Settings,
    rejects: &Arc<Rejects>,
    tally: &Arc<Tally>,
) -> IngestPulses {
    IngestPulses {
        routes: vec![Route {
            name: "file".to_owned(),
            source,
            dead_letters: rejects.before(backends.dead_letters.clone()),
            decoder: settings.decoder(&settings.ledger()),
        }],
        sink: Arc::clone(&backends.sink),
        sink_name: backends.sink_name.to_owned(),
        shards: backends.shard_count,
        limits: settings.limits(),
        tally: Arc::clone(tally),
        suspects: None,
        accounts: None,
        applied: None,
    }
}

/// Shows how far the reading is while the work goes on.
async fn with_bar<T>(progress: &FileProgress, work: impl Future<Output = T>) -> T {
    let bar = progress::bytes(progress.bytes_total());
    let mut ticks = interval(BAR_EVERY);
    tokio::pin!(work);
    loop {
        select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = ticks.tick() => show(&bar, progress),
        }
    }
}

fn show(bar: &ProgressBar, progress: &FileProgress) {
    bar.set_position(progress.bytes());
    bar.set_message(format!("{} lines", progress.lines()));
}
