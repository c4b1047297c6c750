//! What a round reads from, and where it counts and keeps its books.

use crate::arena::Arena;

/// The partitions of a topic.
pub(crate) const PARTITIONS: u16 = 2;

/// The kind of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A queue, Redis and PostgreSQL.
    Servers,
    /// As [`Self::Servers`], and every event is archived as well.
    Archive,
    /// As [`Self::Servers`], with a folder of JSON files in the place of PostgreSQL.
    Json,
    /// As [`Self::Servers`], with a stream in the place of the queue; offsets are all that identifies a pulse.
    Stream,
    /// As [`Self::Stream`], with a topic of Kafka.
    Kafka,
    /// The embedded file.
    File,
}

impl Place {
    /// Short runs of different seeds have some of each.
    pub(crate) fn of((seed, round): (u64, u32)) -> Self {
        match (seed + u64::from(round)) % 16 {
            1 | 9 => Self::Archive,
            2 | 10 => Self::Json,
            5 | 13 => Self::Stream,
            // A group takes ten seconds to notice that one of it has died.
            6 => Self::Kafka,
            3 | 7 | 11 | 15 => Self::File,
            _ => Self::Servers,
        }
    }

    /// Whether a message that ends its workers is found there: a log has no count of returns.
    pub(crate) const fn suspects(self) -> bool {
        matches!(self, Self::Servers | Self::Archive | Self::Json)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::Archive => "archive",
            Self::Json => "json",
            Self::Stream => "stream",
            Self::Kafka => "kafka",
            Self::File => "file",
        }
    }

    pub(crate) const fn is_log(self) -> bool {
        matches!(self, Self::Stream | Self::Kafka)
    }

    /// How long nothing must come for a drain to end: readers of a log take turns.
    pub(crate) const fn idle(self) -> &'static str {
        if self.is_log() { "3s" } else { "700ms" }
    }

    /// What is set beside the addresses that all rounds have.
    pub(crate) fn settings(self, arena: &mut Arena, name: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Servers | Self::Json | Self::File => Vec::new(),
            Self::Archive => {
                let url = arena.clickhouse().url().replace("/pulse", &format!("/{name}"));
                vec![
                    ("CLICKHOUSE_URL", url),
                    ("RABBITMQ_EXCHANGE", name.to_owned()),
                    ("RABBITMQ_BINDING", "#".to_owned()),
                    ("ARCHIVE_BATCH_SIZE", "50".to_owned()),
                    ("ARCHIVE_BATCH_LINGER", "50ms".to_owned()),
                ]
            }
            Self::Stream => {
                vec![("RABBITMQ_QUEUE_TYPE", "stream".to_owned()), ("PULSE_DEDUPE", "offset".to_owned())]
            }
            Self::Kafka => {
                let kafka = arena.kafka();
                let (topic, dead) = (format!("{name}.pulses"), format!("{name}.dead"));
                kafka.create_topic(&topic, PARTITIONS);
                kafka.create_topic(&dead, 1);
                vec![
                    ("PULSE_SOURCES", "kafka".to_owned()),
                    ("PULSE_DEDUPE", "offset".to_owned()),
                    ("KAFKA_BROKERS", kafka.brokers()),
                    ("KAFKA_TOPIC", topic),
                    ("KAFKA_DEAD_LETTER_TOPIC", dead),
                    ("KAFKA_GROUP", name.to_owned()),
                ]
            }
        }
    }
}
