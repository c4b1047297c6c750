//! What the dashboard and the metrics look at.

use crate::{backends::Backends, settings::Kafka};
use application::{
    overview::{GatherArchive, GatherOverview},
    ports::{Backlog, EventArchive, Inbox, PortError, RefusedPulses},
};
use async_trait::async_trait;
use infrastructure::rabbitmq::{QueueType, RabbitmqObserver, RabbitmqSettings, RabbitmqStreamObserver};
use std::{sync::Arc, time::Duration};

/// How long each part may take to answer.
const PART_LIMIT: Duration = Duration::from_secs(2);

/// A look at these stores, and at the broker where there is one.
pub(crate) fn overview(
    backends: &Backends,
    broker: Option<&RabbitmqSettings>,
    kafka: Option<&Kafka>,
) -> GatherOverview {
    let mut backlogs: Vec<(String, Arc<dyn Backlog>)> = Vec::new();
    if let Some(inbox) = &backends.books.inbox {
        backlogs.push(("inbox".to_owned(), Arc::new(InboxBacklog(Arc::clone(inbox) as _))));
    }
    let mut refused: Vec<(String, Arc<dyn RefusedPulses>)> = Vec::new();
    if let Some(file) = &backends.books.file {
        refused.push(("embedded file".to_owned(), Arc::clone(file) as _));
    }
    if let Some(broker) = broker {
        let observer = Arc::new(RabbitmqObserver::new(broker.clone()));
        let backlog: Arc<dyn Backlog> = match broker.queue_type {
            QueueType::Stream => {
                Arc::new(RabbitmqStreamObserver::new(broker.clone(), Arc::clone(&backends.positions)))
            }
            QueueType::Quorum | QueueType::Classic => Arc::clone(&observer) as _,
        };
        backlogs.push(("rabbitmq".to_owned(), backlog));
        refused.push((format!("rabbitmq {}", broker.dead_letter_queue), observer));
    }
    if let Some(backlog) = kafka.and_then(kafka_backlog) {
        backlogs.push(("kafka".to_owned(), backlog));
    }
    GatherOverview {
        accumulator: backends.sink_name.to_owned(),
        ledger: "ledger".to_owned(),
        shards: Arc::clone(&backends.shards),
        shard_count: backends.shard_count,
        generations: Arc::clone(&backends.generations),
        queries: Arc::clone(&backends.books.queries),
        backlogs,
        refused,
        part_limit: PART_LIMIT,
    }
}

/// A look at the archive, and at its broker where it has one.
pub(crate) fn archive_overview(
    name: &str,
    archive: Arc<dyn EventArchive>,
    broker: Option<&RabbitmqSettings>,
    kafka: Option<&Kafka>,
) -> GatherArchive {
    let mut backlogs: Vec<(String, Arc<dyn Backlog>)> = Vec::new();
    let mut refused: Vec<(String, Arc<dyn RefusedPulses>)> = Vec::new();
    if let Some(broker) = broker {
        let observer = Arc::new(RabbitmqObserver::new(broker.clone()));
        backlogs.push((format!("rabbitmq {}", broker.queue), Arc::clone(&observer) as _));
        refused.push((format!("rabbitmq {}", broker.dead_letter_queue), observer));
    }
    if let Some((kafka, backlog)) = kafka.and_then(|kafka| Some((kafka, kafka_backlog(kafka)?))) {
        backlogs.push((format!("kafka {}", kafka.topic), backlog));
    }
    GatherArchive { name: name.to_owned(), archive, backlogs, refused, part_limit: PART_LIMIT }
}

#[cfg(feature = "kafka")]
#[expect(clippy::unnecessary_wraps, reason = "other builds have none")]
fn kafka_backlog(kafka: &Kafka) -> Option<Arc<dyn Backlog>> {
    use infrastructure::kafka::{KafkaObserver, KafkaSettings};
    let Kafka { brokers, topic, group, dead_letter_topic } = kafka.clone();
    Some(Arc::new(KafkaObserver::new(KafkaSettings { brokers, topic, group, dead_letter_topic })))
}

#[cfg(not(feature = "kafka"))]
const fn kafka_backlog(_: &Kafka) -> Option<Arc<dyn Backlog>> {
    None
}

/// What waits in the inbox.
struct InboxBacklog(Arc<dyn Inbox>);

#[async_trait]
impl Backlog for InboxBacklog {
    async fn waiting(&self) -> Result<u64, PortError> {
        Ok(self.0.depth().await?.received)
    }
}
