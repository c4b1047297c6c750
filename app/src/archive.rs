//! `app --archive`: every raw event, from a queue or a group of its own, to ClickHouse.

use crate::{
    cli::Modes,
    overview::archive_overview,
    service::{kafka_route, rabbitmq_route, tell_metrics},
    settings::{Fault, Faults, Kafka, Settings, SourceKind, shown_url},
};
use anyhow::Context;
use application::{
    ingest::{ArchiveEvents, Limits, Route, Tally},
    open_log::SourceDecides,
    ports::{EventArchive, EventQueries},
};
use infrastructure::{
    metrics::{ArchiveMetricSources, Metrics},
    rabbitmq::RabbitmqSettings,
};
use secrecy::SecretString;
use std::sync::Arc;
use tokio::{select, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const CALLER: &str = "app --archive";
const NAME: &str = "clickhouse";
const WITHOUT: &str = "leave the events unarchived: --worker counts them without it";

/// Archives until `stop`, or until nothing comes any more where that was asked for.
///
/// # Errors
/// [`Faults`] where a setting is lacking; otherwise why it could not go on.
pub(crate) async fn run(modes: Modes, settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let Plan { url, routes, broker, kafka } = plan(settings)?;
    let sources: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    let archive_limits = settings.archive_limits();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        modes = "archive",
        sources = sources.join(","),
        archive = shown_url(url),
        batch_size = archive_limits.batch_size,
        batch_linger = %humantime::format_duration(archive_limits.batch_linger),
        "starting"
    );
    let archive = select! {
        () = stop.cancelled() => return Ok(()),
        archive = open(url, settings) => archive?,
    };
    info!("ready");
    let tally = Arc::new(Tally::default());
    let metrics = Metrics::of_archive(ArchiveMetricSources {
        overview: archive_overview(NAME, Arc::clone(&archive), broker.as_ref(), kafka.as_ref()),
        tally: Arc::clone(&tally),
        version: env!("CARGO_PKG_VERSION"),
    });
    let (mut tasks, end) = (JoinSet::new(), stop.child_token());
    tell_metrics(&settings.http, Arc::new(metrics), &end, &mut tasks).await?;
    let engine = ArchiveEvents {
        routes,
        archive,
        archive_name: NAME.to_owned(),
        run: uuid::Uuid::new_v4().into_bytes(),
        limits: Limits { until_idle: modes.until_idle, ..archive_limits },
        tally: Arc::clone(&tally),
    };
    let result = engine.run(stop).await;
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the program ended abnormally")??;
    }
    let done = tally.snapshot();
    info!(
        messages = done.messages,
        archived = done.counted,
        anonymous = done.anonymous,
        rejected = done.rejected_total(),
        "archiving ended"
    );
    Ok(result?)
}

/// Brings the archive's tables up to date where one is configured, and says which it is.
pub(crate) async fn migrate(settings: &Settings) -> anyhow::Result<Option<String>> {
    match &settings.archive.url {
        Some(url) if cfg!(feature = "clickhouse") => {
            open(url, settings).await?;
            Ok(Some(shown_url(url)))
        }
        _ => Ok(None),
    }
}

/// The archive for questions, where one is configured and this build can ask it.
#[cfg(feature = "clickhouse")]
pub(crate) fn questions(settings: &Settings) -> anyhow::Result<Option<Arc<dyn EventQueries>>> {
    let open =
        |url| Ok(Arc::new(infrastructure::clickhouse::ClickhouseArchive::new(url)?) as Arc<dyn EventQueries>);
    settings.archive.url.as_ref().map(open).transpose()
}

/// As above, where there is none.
#[cfg(not(feature = "clickhouse"))]
#[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
pub(crate) const fn questions(_: &Settings) -> anyhow::Result<Option<Arc<dyn EventQueries>>> {
    Ok(None)
}

/// Where events go, and what they come from.
struct Plan<'a> {
    url: &'a SecretString,
    routes: Vec<Route>,
    /// The broker as the archive uses it, where it is among the sources.
    broker: Option<RabbitmqSettings>,
    /// The topic as the archive reads it, where it is among the sources.
    kafka: Option<Kafka>,
}

fn plan(settings: &Settings) -> anyhow::Result<Plan<'_>> {
    if !cfg!(feature = "clickhouse") {
        let remedy =
            "app --archive needs ClickHouse, and this build has none: build it with `--features clickhouse`";
        return Err(Faults::from(Fault::new("CLICKHOUSE_URL", remedy)).into());
    }
    let (mut routes, mut lacking) = (Vec::new(), Vec::new());
    let (mut used_broker, mut used_kafka) = (None, None);
    let url = settings.archive.url.as_ref();
    if url.is_none() {
        lacking.push(Fault::lacking("CLICKHOUSE_URL", CALLER, WITHOUT));
    }
    let decoder = settings.archive_decoder();
    for kind in &settings.sources {
        let route = match kind {
            SourceKind::Rabbitmq => settings.archive_broker(CALLER, WITHOUT).map(|broker| {
                let route = rabbitmq_route(&broker, decoder.clone(), Arc::new(SourceDecides));
                let name = format!("rabbitmq {}", broker.queue);
                used_broker = Some(broker);
                Ok(Route { name, ..route })
            }),
            SourceKind::Kafka => settings.archive_kafka(CALLER, WITHOUT).map(|kafka| {
                let route = kafka_route(&kafka, decoder.clone(), Arc::new(SourceDecides))?;
                let name = format!("kafka {}", kafka.topic);
                used_kafka = Some(kafka);
                Ok(Route { name, ..route })
            }),
            SourceKind::Inbox => continue,
        };
        match route {
            Ok(route) => routes.push(route),
            Err(fault) => lacking.push(fault),
        }
    }
    if settings.sources.contains(&SourceKind::Inbox) {
        if settings.sources.len() == 1 {
            lacking.push(Fault::new(
                "PULSE_SOURCES",
                "names nothing to archive: the inbox is kept beside the ledger",
            ));
        }
        warn!("the inbox is not archived: PULSE_SOURCES names it beside others");
    }
    match url {
        Some(url) if lacking.is_empty() => {
            let routes = routes.into_iter().collect::<anyhow::Result<_>>()?;
            Ok(Plan { url, routes, broker: used_broker, kafka: used_kafka })
        }
        _ => Err(Faults(lacking).into()),
    }
}

/// Opens the archive with its tables up to date, waiting for it where it is away.
#[cfg(feature = "clickhouse")]
async fn open(url: &SecretString, settings: &Settings) -> anyhow::Result<Arc<dyn EventArchive>> {
    use application::retry::Dependency;

    let archive = infrastructure::clickhouse::ClickhouseArchive::new(url)?;
    let decoder = settings.archive_decoder();
    let migrated = Dependency::new(NAME).hold(|| archive.migrate(decoder.mapping().map(Arc::as_ref))).await;
    migrated.with_context(|| format!("cannot open the archive {}", shown_url(url)))?;
    Ok(Arc::new(archive))
}

/// The plan refuses it before.
#[cfg(not(feature = "clickhouse"))]
async fn open(_: &SecretString, _: &Settings) -> anyhow::Result<Arc<dyn EventArchive>> {
    anyhow::bail!("this build has no ClickHouse (feature clickhouse)")
}
