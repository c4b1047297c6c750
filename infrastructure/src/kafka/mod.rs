//! Kafka: a topic as a source of pulses, and one as the place of what is refused.
//!
//! The place of a pulse in its partition is its identity. A partition is named by the cluster, the topic and its number:
//! the client cannot tell the topic's own id, so a topic that is made anew is noticed by ending before what was counted, or
//! by the group's offset, which went with the old one.
//!
//! - `source`: takes messages and commits what is settled (`PulseSource`).
//! - `consumer`: the consumer and the thread that polls it; `assignment`: which partitions it reads, and from where on.
//! - `dead_letters`: what was refused (`DeadLetters`); `letters`: people who go through it (`LetterPlace`);
//!   `publisher`: messages for the topic.
//! - `observer`: how far the group is behind (`Backlog`); `recovery`: its offsets, to be set back (`LogSource`).
//! - `envelope`: what a message says about itself; `error`: what is worth trying again.

mod assignment;
mod consumer;
mod dead_letters;
mod envelope;
mod error;
mod letters;
mod observer;
mod publisher;
mod recovery;
mod source;

pub use dead_letters::{KafkaDeadLetters, header};
pub use letters::KafkaLetters;
pub use observer::KafkaObserver;
pub use publisher::{KafkaMessage, KafkaPublisher};
pub use recovery::KafkaOffsets;
pub use source::KafkaSource;

use rdkafka::ClientConfig;

/// Where the messages are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `HOST:PORT`, several separated by commas.
    pub brokers: String,
    /// The topic that pulses are taken from.
    pub topic: String,
    /// The consumer group: its members share the partitions.
    pub group: String,
    /// The topic for what is refused.
    pub dead_letter_topic: String,
}

impl KafkaSettings {
    /// The largest message that is taken or published, in bytes.
    const MESSAGE_BYTES_MAX: &str = "10485760";

    /// Stores each message once, in all in-sync replicas, and gives up on it after half a minute.
    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "30000");
        config
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "pulse-ingestor")
            .set("message.max.bytes", Self::MESSAGE_BYTES_MAX);
        config
    }
}
