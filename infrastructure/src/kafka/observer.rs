//! Looks at the topic and changes nothing: how far the group is behind.

use super::{KafkaSettings, error::during};
use application::ports::{Backlog, PortError};
use async_trait::async_trait;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::spawn_blocking;

const OPERATION: &str = "ask Kafka how many messages wait";
/// How long each question may take.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// Looks with a client of its own, which is no member of the group. It connects with the first look, and is given up after
/// any error.
pub struct KafkaObserver {
    settings: KafkaSettings,
    open: Arc<Mutex<Option<BaseConsumer>>>,
}

impl KafkaObserver {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(settings: KafkaSettings) -> Self {
        Self { settings, open: Arc::default() }
    }
}

#[async_trait]
impl Backlog for KafkaObserver {
    /// Those that the group has not settled, over all partitions. Markers of transactions count as messages.
    async fn waiting(&self) -> Result<u64, PortError> {
        let (settings, open) = (self.settings.clone(), Arc::clone(&self.open));
        let look = spawn_blocking(move || {
            // Whoever has asked before may have given up, and the question goes on.
            let mut open = open
                .try_lock()
                .map_err(|_| PortError::transient(OPERATION, "the last question is not answered yet"))?;
            let client = match open.take() {
                Some(client) => client,
                None => connect(&settings)?,
            };
            let waiting = waiting(&client, &settings.topic)?;
            *open = Some(client);
            Ok(waiting)
        });
        look.await.map_err(|error| PortError::permanent(OPERATION, error))?
    }
}

fn connect(settings: &KafkaSettings) -> Result<BaseConsumer, PortError> {
    let mut config = settings.client();
    config.set("group.id", &settings.group).set("enable.auto.commit", "false");
    config.create().map_err(|error| during(OPERATION, error))
}

fn waiting(client: &BaseConsumer, topic: &str) -> Result<u64, PortError> {
    let kafka = |error| during(OPERATION, error);
    // What it has to say by itself, of lost connections, the questions find as well.
    while client.poll(Duration::ZERO).is_some() {}
    let metadata = client.fetch_metadata(Some(topic), CALL_LIMIT).map_err(kafka)?;
    let mut partitions = TopicPartitionList::new();
    for known in metadata.topics() {
        for partition in known.partitions() {
            partitions.add_partition(known.name(), partition.id());
        }
    }
    if partitions.count() == 0 {
        return Err(PortError::transient(OPERATION, format!("there is no topic {topic}")));
    }
    let settled = client.committed_offsets(partitions, CALL_LIMIT).map_err(kafka)?;
    let mut waiting = 0;
    for partition in settled.elements() {
        let (begin, end) =
            client.fetch_watermarks(topic, partition.partition(), CALL_LIMIT).map_err(kafka)?;
        let next = match partition.offset() {
            Offset::Offset(offset) => offset.max(begin),
            // The group has settled nothing of it.
            _ => begin,
        };
        waiting += u64::try_from(end - next).unwrap_or(0);
    }
    Ok(waiting)
}
