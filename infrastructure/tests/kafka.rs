//! Kafka, on the mock cluster that librdkafka brings: the protocol of brokers and groups in this process.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it should be")]

#[path = "kafka/archiving.rs"]
mod archiving;
#[path = "kafka/contract.rs"]
mod contract;
#[path = "kafka/counting.rs"]
mod counting;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/letters.rs"]
mod letters;
#[path = "kafka/observing.rs"]
mod observing;
#[path = "kafka/publishing.rs"]
mod publishing;

use application::ports::{LogPositions, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition};
use infrastructure::kafka::{KafkaSettings, KafkaSource};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::{MockCluster, MockCoordinator},
    producer::{DefaultProducerContext, FutureProducer},
};
use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

const TOPIC: &str = "pulses";
const DEAD: &str = "pulses.dead";
const GROUP: &str = "counting";

type Change = Box<dyn FnOnce(&MockCluster<'static, DefaultProducerContext>) + Send>;

/// A cluster of its own with the two topics. It lives on a thread of its own, which ends with this.
struct Cluster {
    changes: Sender<Change>,
    settings: KafkaSettings,
}

impl Cluster {
    fn new(partitions: i32) -> Self {
        Self::of(1, partitions)
    }

    /// The first broker keeps the group; the partitions are on the brokers in turn.
    fn of(brokers_wanted: i32, partitions: i32) -> Self {
        let (changes, wanted) = channel::<Change>();
        let (tell, brokers) = channel();
        std::thread::spawn(move || {
            let mock = MockCluster::new(brokers_wanted).unwrap();
            mock.create_topic(TOPIC, partitions, 1).unwrap();
            mock.create_topic(DEAD, 1, 1).unwrap();
            for partition in 0..partitions {
                mock.partition_leader(TOPIC, partition, Some(1 + partition % brokers_wanted)).unwrap();
            }
            mock.coordinator(MockCoordinator::Group(GROUP.to_owned()), 1).unwrap();
            tell.send(mock.bootstrap_servers()).unwrap();
            for change in wanted {
                change(&mock);
            }
        });
        let settings = KafkaSettings {
            brokers: brokers.recv().unwrap(),
            topic: TOPIC.to_owned(),
            group: GROUP.to_owned(),
            dead_letter_topic: DEAD.to_owned(),
        };
        Self { changes, settings }
    }

    /// Changes the cluster, in a moment.
    fn change(&self, change: impl FnOnce(&MockCluster<'static, DefaultProducerContext>) + Send + 'static) {
        self.changes.send(Box::new(change)).unwrap();
    }

    fn source(&self, positions: Arc<dyn LogPositions>) -> KafkaSource {
        KafkaSource::new(self.settings.clone(), positions)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers).set("message.max.bytes", "10485760");
        config
    }

    /// What the group has committed of each partition.
    fn committed(&self, partitions: i32) -> Vec<Option<i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", GROUP).create().unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_range(TOPIC, 0, partitions - 1);
        let committed = consumer.committed_offsets(all, Duration::from_secs(10)).unwrap();
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        committed.elements().iter().map(|element| offset(element.offset())).collect()
    }

    fn producer(&self) -> FutureProducer {
        self.client().set("linger.ms", "2").create().unwrap()
    }
}

/// Every shard is where this says.
struct Counted(Vec<LogPosition>);

#[async_trait]
impl LogPositions for Counted {
    async fn positions(&self, _: &LogName) -> Result<Vec<LogPosition>, PortError> {
        Ok(self.0.clone())
    }
}
