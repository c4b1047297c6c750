//! `app populate`: load for tests and demonstrations.

mod events;
mod load;
mod outlet;
mod payments;

use crate::{
    cli::{Format, Populate, Target},
    clock, ingest, progress,
    settings::{Fault, Settings},
    usage::{Layout, Renderer, Status},
};
use anyhow::Context;
use application::{populate::Recipe, retry::Dependency};
use domain::UsageTotals;
use events::EventRecipe;
use indicatif::ProgressBar;
use infrastructure::{http::WebhookSender, rabbitmq::RabbitmqSettings};
use load::{Chunk, FileLoad, Load, MadeLoad, Making};
use outlet::Outlet;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    net::Ipv4Addr,
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
    let outlet = match arguments.to {
        Target::Rabbitmq => rabbitmq(&arguments, settings),
        Target::Webhook => webhook(&arguments, settings),
    };
    let outlet = outlet.map_err(crate::settings::Faults::from)?;
    let seed = arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let load = Arc::new(match &arguments.from {
        Some(file) => Load::File(Box::new(FileLoad::new(
            ingest::open(vec![file.clone()], "-")?,
            arguments.total_messages,
            (seed, arguments.duplicates),
            settings.decoder(&settings.ledger()),
            arguments.count_out.is_some(),
        ))),
        None => Load::Made(MadeLoad::new(
            making(&arguments, seed),
            arguments.total_messages.unwrap_or(MESSAGES_DEFAULT),
        )),
    });
    let job = Arc::new(Job {
        bar: progress::messages(load.total()),
        load,
        buffer: usize::try_from(arguments.buffer_size)?,
        counts: arguments.count_out.is_some(),
        dependency: Dependency::new(outlet.name()),
        outlet,
        stop,
    });
    let start = Instant::now();
    let done = publish_all(&job, arguments.workers_number).await;
    job.bar.finish_and_clear();
    let Published { messages, totals } = done?;
    if let Some(file) = &arguments.count_out {
        write_totals(file, totals, format(&arguments))
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

fn rabbitmq(arguments: &Populate, settings: &Settings) -> Result<Outlet, Fault> {
    let instead = "use `app ingest FILE`, which needs no server";
    let broker = settings.broker("app populate --to rabbitmq", instead)?;
    check_format(arguments, broker)?;
    Ok(Outlet::Rabbitmq(broker.clone()))
}

/// The API of the flag, or the one that runs beside with the same settings.
fn webhook(arguments: &Populate, settings: &Settings) -> Result<Outlet, Fault> {
    if format(arguments) != Format::Payment {
        return Err(Fault::new(
            "--format",
            "must be payment with --to webhook: that is what the webhook takes",
        ));
    }
    if arguments.from.is_some() {
        return Err(Fault::new("--from", "goes with --to rabbitmq only: webhooks are made up"));
    }
    let base = arguments.url.clone().unwrap_or_else(|| {
        let mut addr = settings.http.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{addr}")
    });
    let sender = WebhookSender::new(&base, payments::SOURCE, settings.http.webhook_secret.clone());
    let sender = sender.map_err(|error| Fault::new("--url", error.to_string()))?;
    Ok(Outlet::Webhook(Arc::new(sender)))
}

/// That of the flag, or the one that the target takes.
fn format(arguments: &Populate) -> Format {
    arguments.format.unwrap_or(match arguments.to {
        Target::Rabbitmq => Format::Pulse,
        Target::Webhook => Format::Payment,
    })
}

/// Events need routing keys, and an exchange that delivers by them.
fn check_format(arguments: &Populate, broker: &RabbitmqSettings) -> Result<(), Fault> {
    if format(arguments) != Format::Event {
        return Ok(());
    }
    if arguments.from.is_some() {
        let problem = "the lines of a file have no routing keys: publish them with --format pulse";
        return Err(Fault::new("--from", problem));
    }
    if broker.exchange.is_none() {
        let instead = "publish --format pulse, which needs no exchange";
        return Err(Fault::lacking("RABBITMQ_EXCHANGE", "app populate --format event", instead));
    }
    Ok(())
}

fn making(arguments: &Populate, seed: u64) -> Making {
    let &Populate { tenants, skus, start, hours, items_per_message: items, duplicates, .. } = arguments;
    let recipe = Recipe { seed, tenants, skus, start, hours, items, duplicates };
    match format(arguments) {
        Format::Pulse => Making::Pulses(recipe),
        Format::Payment => Making::Payments(recipe),
        Format::Event => Making::Events(EventRecipe { seed, users: tenants, duplicates }),
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
        let channel = job.outlet.open(&job.dependency).await?;
        let mut published = Published::default();
        while !job.stop.is_cancelled() {
            let Some(Chunk { messages, fresh }) = job.load.next(job.buffer, clock::now()).await? else {
                break;
            };
            let count = messages.len() as u64;
            channel.publish(messages, &job.dependency).await?;
            published.messages += count;
            if job.counts {
                for pulse in &fresh {
                    published.totals.add(pulse);
                }
            }
            job.bar.inc(count);
        }
        channel.close().await?;
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
        Format::Pulse | Format::Payment => {
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
