//! Kafka, on the mock cluster that librdkafka brings: the protocol of brokers and groups in this process.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it should be")]

#[path = "kafka/archiving.rs"]
mod archiving;
#[path = "kafka/contract.rs"]
mod contract;
#[path = "kafka/counting.rs"]
mod counting;

use application::ports::{LogPositions, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition};
use infrastructure::kafka::{KafkaSettings, KafkaSource};
use rdkafka::{ClientConfig, mocking::MockCluster, producer::FutureProducer};
use std::sync::{
    Arc,
    mpsc::{Sender, channel},
};

const TOPIC: &str = "pulses";
const DEAD: &str = "pulses.dead";

/// A cluster of its own with the two topics. It lives on a thread of its own, which ends with this.
struct Cluster {
    /// Whether the broker is to be up.
    broker: Sender<bool>,
    settings: KafkaSettings,
}

impl Cluster {
    fn new(partitions: i32) -> Self {
        let (broker, wanted) = channel();
        let (tell, brokers) = channel();
        std::thread::spawn(move || {
            let mock = MockCluster::new(1).unwrap();
            mock.create_topic(TOPIC, partitions, 1).unwrap();
            mock.create_topic(DEAD, 1, 1).unwrap();
            tell.send(mock.bootstrap_servers()).unwrap();
            for up in wanted {
                if up { mock.broker_up(1).unwrap() } else { mock.broker_down(1).unwrap() }
            }
        });
        let settings = KafkaSettings {
            brokers: brokers.recv().unwrap(),
            topic: TOPIC.to_owned(),
            group: "counting".to_owned(),
            dead_letter_topic: DEAD.to_owned(),
        };
        Self { broker, settings }
    }

    fn source(&self, positions: Arc<dyn LogPositions>) -> KafkaSource {
        KafkaSource::new(self.settings.clone(), positions)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers).set("message.max.bytes", "10485760");
        config
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
