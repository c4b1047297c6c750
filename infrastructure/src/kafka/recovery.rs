//! The offsets of the group, as a recovery looks at them and sets them back.

use super::{
    KafkaSettings,
    assignment::{add_settled, log_name, offset, settled_of},
    error::{during, is_replaced},
};
use application::{
    open_log::{LogExtent, Settled},
    ports::{LogSource, PortError},
};
use async_trait::async_trait;
use domain::LogName;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    metadata::MetadataTopic,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::task::spawn_blocking;

const OPERATION: &str = "ask Kafka for the offsets of the group";
/// How long each question may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Looks, and commits, with a client of its own, which is no member of the group.
pub struct KafkaOffsets {
    settings: KafkaSettings,
}

impl KafkaOffsets {
    /// Nothing is asked yet.
    #[must_use]
    pub const fn new(settings: KafkaSettings) -> Self {
        Self { settings }
    }

    async fn with_client<T: Send + 'static>(
        &self,
        act: impl FnOnce(&BaseConsumer, &KafkaSettings) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let settings = self.settings.clone();
        let act = move || {
            let mut config = settings.client();
            config.set("group.id", &settings.group).set("enable.auto.commit", "false");
            let client = config.create().map_err(|error| during(OPERATION, error))?;
            act(&client, &settings)
        };
        spawn_blocking(act).await.map_err(|error| PortError::permanent(OPERATION, error))?
    }
}

#[async_trait]
impl LogSource for KafkaOffsets {
    async fn extents(&self) -> Result<Vec<(LogName, LogExtent)>, PortError> {
        let found = self.with_client(|client, settings| {
            let kafka = |error| during(OPERATION, error);
            let topic = settings.topic.as_str();
            partitions(client, topic)?
                .into_iter()
                .map(|(partition, (log, settled))| {
                    let ends = client.fetch_watermarks(topic, partition, CALL_LIMIT).map_err(kafka)?;
                    let (begin, end) = (offset(ends.0)?, offset(ends.1)?);
                    Ok((log, LogExtent { begin, end, settled }))
                })
                .collect()
        });
        found.await
    }

    /// Kafka takes it from no one outside of the group as long as that has members.
    async fn move_to(&self, log: &LogName, settled: Settled) -> Result<(), PortError> {
        const OPERATION: &str = "set the group at Kafka back";
        let log = log.clone();
        let moved = self.with_client(move |client, settings| {
            let known = partitions(client, &settings.topic)?;
            let partition = known.iter().find(|(_, (name, _))| *name == log);
            let (partition, _) = partition
                .ok_or_else(|| PortError::permanent(OPERATION, format!("there is no partition {log}")))?;
            let mut offsets = TopicPartitionList::new();
            add_settled(&mut offsets, &settings.topic, *partition, settled)?;
            client.commit(&offsets, CommitMode::Sync).map_err(|error| match error.rdkafka_error_code() {
                Some(code) if is_replaced(code) => {
                    let group = &settings.group;
                    let what =
                        format!("the group {group} has members: stop all workers, and repeat the command");
                    PortError::permanent(OPERATION, what)
                }
                _ => during(OPERATION, error),
            })
        });
        moved.await
    }
}

/// The partitions of the topic, each as a log, and what the group remembers of it.
fn partitions(
    client: &BaseConsumer,
    topic: &str,
) -> Result<BTreeMap<i32, (LogName, Option<Settled>)>, PortError> {
    let kafka = |error| during(OPERATION, error);
    let metadata = client.fetch_metadata(Some(topic), CALL_LIMIT).map_err(kafka)?;
    let mut wanted = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        wanted.add_partition(topic, partition.id());
    }
    if wanted.count() == 0 {
        return Err(PortError::transient(OPERATION, format!("there is no topic {topic}")));
    }
    let cluster = client.client().fetch_cluster_id(CALL_LIMIT);
    let cluster =
        cluster.ok_or_else(|| PortError::transient(OPERATION, "the cluster did not tell its id"))?;
    let committed = client.committed_offsets(wanted, CALL_LIMIT).map_err(kafka)?;
    let mut partitions = BTreeMap::new();
    for element in committed.elements() {
        element.error().map_err(kafka)?;
        let log = log_name(&cluster, topic, element.partition())?;
        partitions.insert(element.partition(), (log, settled_of(&element)?));
    }
    Ok(partitions)
}
