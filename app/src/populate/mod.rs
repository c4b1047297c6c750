//! `app populate`: load for tests and demonstrations.

mod events;
mod load;
mod outlet;
mod payments;
mod shapes;

use crate::{
    cli::{Format, Populate},
    clock, ingest, mappings, progress,
    settings::{Fault, Faults, Settings},
    usage::{Layout, Renderer, Status},
};
use anyhow::Context;
use application::{
    decode::{self, Decoder},
    populate::Recipe,
    retry::Dependency,
};
use domain::UsageTotals;
use events::EventRecipe;
use indicatif::ProgressBar;
use load::{Chunk, FileLoad, Load, MadeLoad, Making};
use outlet::Outlet;
use shapes::{PurchaseRecipe, TaskRecipe};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};
use tokio::{select, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const MESSAGES_DEFAULT: u64 = 10_000;

/// Publishes the load, each message confirmed, and prints what it was.
///
/// # Errors
/// [`crate::settings::Faults`] where a setting is lacking; otherwise why not everything was published.
pub(crate) async fn run(
    arguments: Populate,
    settings: &Settings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let decoder = decoder(&arguments, settings).map_err(Faults::from)?;
    let outlet = Outlet::find(&arguments, settings, decoder.clone()).map_err(Faults::from)?;
    let seed = arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let load = Arc::new(match &arguments.from {
        Some(file) => Load::File(Box::new(FileLoad::new(
            ingest::open(vec![file.clone()], "-")?,
            arguments.total_messages,
            (seed, arguments.duplicates),
            decoder,
            arguments.count_out.is_some(),
        ))),
        None => Load::Made(MadeLoad::new(
            making(&arguments, seed),
            arguments.total_messages.unwrap_or(MESSAGES_DEFAULT),
        )),
    });
    let publishers = outlet.publishers(arguments.workers_number);
    let job = Arc::new(Job {
        dependency: Dependency::new(outlet.name()),
        outlet,
        bar: progress::messages(load.total()),
        load,
        buffer: usize::try_from(arguments.buffer_size)?,
        counts: arguments.count_out.is_some(),
        stop,
    });
    let start = Instant::now();
    let done = publish_all(&job, publishers).await;
    job.bar.finish_and_clear();
    let Published { messages, totals } = done?;
    if let Some(file) = &arguments.count_out {
        write_totals(file, totals, arguments.format())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    write!(
        out,
        "{messages} messages published and confirmed in {seconds:.1} s ({:.0}/s)",
        rate(messages, seconds)
    )?;
    writeln!(out, "{}", if arguments.from.is_none() { format!(", seed {seed}") } else { String::new() })?;
    anyhow::ensure!(!job.stop.is_cancelled(), "stopped before the end");
    Ok(())
}

/// What reads the messages of the format; that of the settings reads pulses of a file.
fn decoder(arguments: &Populate, settings: &Settings) -> Result<Decoder, Fault> {
    let mapping = match arguments.format() {
        Format::Pulse => None,
        Format::Event => Some("event"),
        Format::Payment => Some("payment"),
        Format::Purchase => Some("purchase"),
        Format::Task => Some("task"),
    };
    let decoder = settings.decoder(&settings.ledger());
    let format = match mapping {
        None if arguments.from.is_some() => return Ok(decoder),
        None => decode::Format::Pulse,
        Some(name) => {
            let mapping = mappings::find(name, Path::new("."))
                .map_err(|error| Fault::new("--format", format!("{name} has no mapping: {error:?}")))?;
            decode::Format::Mapping(Arc::new(mapping))
        }
    };
    Ok(Decoder { format, ..decoder })
}

fn making(arguments: &Populate, seed: u64) -> Making {
    let &Populate { tenants, skus, start, hours, items_per_message: items, duplicates, .. } = arguments;
    let recipe = Recipe { seed, tenants, skus, start, hours, items, duplicates };
    match arguments.format() {
        Format::Pulse => Making::Pulses(recipe),
        Format::Payment => Making::Payments(recipe),
        Format::Event => Making::Events(EventRecipe { seed, users: tenants, duplicates }),
        Format::Purchase => {
            let (trainers, trainings) = (tenants, skus);
            Making::Purchases(PurchaseRecipe { seed, trainers, trainings, start, hours, duplicates })
        }
        Format::Task => Making::Tasks(TaskRecipe { seed, customers: tenants }),
    }
}

/// What all publishers share.
struct Job {
    outlet: Outlet,
    load: Arc<Load>,
    buffer: usize,
    counts: bool,
    bar: ProgressBar,
    dependency: Dependency,
    stop: CancellationToken,
}

/// What was published and confirmed.
#[derive(Default)]
struct Published {
    messages: u64,
    totals: UsageTotals,
}

async fn publish_all(job: &Arc<Job>, publishers: u16) -> anyhow::Result<Published> {
    let mut tasks = JoinSet::new();
    for _ in 0..publishers {
        tasks.spawn(publish(Arc::clone(job)));
    }
    let mut all = Published::default();
    while let Some(ended) = tasks.join_next().await {
        let Published { messages, totals } = ended.context("a publisher ended abnormally")??;
        all.messages += messages;
        for (key, total) in totals {
            all.totals.add_total(key, total);
        }
    }
    Ok(all)
}

/// Publishes with a connection of its own until there is nothing left, or until the program is to stop.
async fn publish(job: Arc<Job>) -> anyhow::Result<Published> {
    let work = async {
        let publisher = job.dependency.hold(|| job.outlet.connect()).await?;
        let mut published = Published::default();
        while !job.stop.is_cancelled() {
            let Some(Chunk { messages, fresh }) = job.load.next(job.buffer, clock::now()).await? else {
                break;
            };
            let count = messages.len() as u64;
            publisher.publish(messages, &job.dependency).await?;
            published.messages += count;
            if job.counts {
                for pulse in &fresh {
                    published.totals.add(pulse);
                }
            }
            job.bar.inc(count);
        }
        publisher.close().await?;
        Ok(published)
    };
    select! {
        biased;
        published = work => published,
        () = ingest::give_up(&job.stop, &job.dependency) => {
            anyhow::bail!("stopped while {} was away: what was published is not known", job.outlet.name())
        }
    }
}

/// Writes the totals as `app usage --billed --csv` prints them, or those of events by type and user, all or nothing.
fn write_totals(file: &Path, totals: UsageTotals, format: Format) -> anyhow::Result<()> {
    let unfinished = file.with_added_extension("unfinished");
    let out = BufWriter::new(File::create(&unfinished)?);
    match format {
        Format::Pulse | Format::Payment | Format::Purchase | Format::Task => {
            let mut out = Renderer::new(out, Layout::Csv, false)?;
            for (key, total) in totals {
                out.row(&key, total, Status::Billed)?;
            }
            out.finish()?;
        }
        Format::Event => events::write_counts(totals, out)?,
    }
    Ok(std::fs::rename(unfinished, file)?)
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
