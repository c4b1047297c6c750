//! `app recover`: what is missing after the storage of Redis was lost or rolled back, and how counting goes on.

mod render;

use crate::{
    audit::Exit,
    backends::{Backends, patiently},
    cli::Recover,
    clock,
    settings::{Accumulator, Settings, SourceKind, Stores},
};
use anyhow::Context;
use application::{
    decode::Dedupe,
    ports::LogSource,
    recover::{Outlook, RecoverError, RecoverStorage},
};
use infrastructure::rabbitmq::{QueueType, RabbitmqSettings, RabbitmqStreamMarks};
use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use tracing::error;

/// Something is missing, or a recovery has not ended.
const MISSING: u8 = 1;
/// How long a program that ends may take to look at what is missing.
const LAST_LOOK: Duration = Duration::from_secs(3);
/// How many shards it tells of one by one.
const SHARDS_TOLD: usize = 16;
/// And how many logs.
const LOGS_TOLD: usize = 16;
const EMBEDDED: &str = "\
nothing to recover: pulses are counted in the embedded file and not in Redis. What it counted and what it remembers are in one \
file, so they are lost or kept together; restore it from its backup.";
const NO_MEMORY: &str = "\
this ledger keeps no record of recoveries: only PostgreSQL does. Restore the storage of Redis, or begin a new accumulator \
(docs/operations.md)";

/// Prints what is missing and ends with [`Exit`] where something is; with the word that this names it is recovered.
///
/// # Errors
/// [`crate::settings::Faults`] where a setting is lacking.
pub(crate) async fn run(arguments: &Recover, settings: &Settings) -> anyhow::Result<()> {
    let stores =
        settings.stores_or_embedded("app recover", "there is nothing to recover in the embedded file")?;
    if matches!(stores.accumulator, Accumulator::Embedded(_)) {
        writeln!(io::stdout(), "{EMBEDDED}")?;
        return Ok(());
    }
    let recovery = patiently(open(&stores, settings)).await?;
    if let Some(word) = &arguments.continue_with_loss {
        let done = recovery.carry_out(word, clock::now()).await?;
        writeln!(io::stdout(), "{}", render::done(&done))?;
    }
    let outlook = match patiently(recovery.look()).await {
        Ok(outlook) => outlook,
        Err(error) if matches!(error.downcast_ref(), Some(RecoverError::Unborn)) => {
            writeln!(io::stdout(), "nothing to recover: nothing was ever counted")?;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    print(&outlook, settings, arguments.json)?;
    if outlook.plan.is_empty() && outlook.unfinished().is_none() {
        return Ok(());
    }
    Err(Exit(MISSING).into())
}

fn print(outlook: &Outlook, settings: &Settings, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &render::json(outlook)).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let by_id_only = settings.counting.dedupe == Dedupe::Id;
        out.write_all(render::text(outlook, by_id_only).as_bytes())?;
    }
    Ok(())
}

async fn open(stores: &Stores, settings: &Settings) -> anyhow::Result<RecoverStorage> {
    let backends = Backends::open(stores, &settings.counting, true).await;
    let backends = backends.with_context(|| format!("cannot open {stores}"))?;
    backends.check_shard_count().await?;
    of(&backends, settings).context(NO_MEMORY)
}

/// The recovery of these stores; `None` where there is none.
fn of(backends: &Backends, settings: &Settings) -> Option<RecoverStorage> {
    Some(RecoverStorage {
        registry: Arc::clone(&backends.books.registry),
        books: Arc::clone(backends.books.recoveries.as_ref()?),
        accumulator: Arc::clone(&backends.audit),
        storage: Arc::clone(backends.storage.as_ref()?),
        sources: sources(settings),
    })
}

/// Says what is missing, where a program ends and something is.
pub(crate) async fn tell_loss(backends: &Backends, settings: &Settings) {
    // The sources are for those who recover: they may be away, and their readers have said what they know.
    let Some(recovery) = of(backends, settings).map(|of| RecoverStorage { sources: Vec::new(), ..of }) else {
        return;
    };
    if let Ok(Ok(outlook)) = timeout(LAST_LOOK, recovery.look()).await
        && !outlook.plan.shards.is_empty()
    {
        for line in outlook.plan.loss().lines().take(SHARDS_TOLD) {
            error!(missing = line, "a shard is not what the ledger has seen");
        }
        let positions = outlook.plan.shards.iter().flat_map(|loss| &loss.positions);
        let logs: BTreeSet<&str> = positions.map(|mark| mark.log.as_str()).collect();
        let logs: Vec<&str> = logs.into_iter().take(LOGS_TOLD).collect();
        error!(
            shards = outlook.plan.shards.len(),
            logs = logs.join(", "),
            "storage of the counts was lost or rolled back: what came from these logs can be rebuilt, what came from queues \
             and over HTTP cannot; `app recover` shows it all and how to go on"
        );
    }
}

/// The logs that the settings name.
fn sources(settings: &Settings) -> Vec<Arc<dyn LogSource>> {
    let broker = settings.rabbitmq().filter(|broker| broker.queue_type == QueueType::Stream);
    let broker = broker.filter(|_| settings.sources.contains(&SourceKind::Rabbitmq));
    let stream = |broker: &RabbitmqSettings| -> Arc<dyn LogSource> {
        Arc::new(RabbitmqStreamMarks::new(broker.clone()))
    };
    broker.map(stream).into_iter().chain(kafka_source(settings)).collect()
}

#[cfg(feature = "kafka")]
fn kafka_source(settings: &Settings) -> Option<Arc<dyn LogSource>> {
    use infrastructure::kafka::{KafkaOffsets, KafkaSettings};
    let of = |kafka: &crate::settings::Kafka| -> Arc<dyn LogSource> {
        let crate::settings::Kafka { brokers, topic, group, dead_letter_topic } = kafka.clone();
        Arc::new(KafkaOffsets::new(KafkaSettings { brokers, topic, group, dead_letter_topic }))
    };
    settings.kafka_source().map(of)
}

#[cfg(not(feature = "kafka"))]
const fn kafka_source(_: &Settings) -> Option<Arc<dyn LogSource>> {
    None
}
