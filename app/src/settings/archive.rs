//! The settings of the archive, and what it takes its messages from.

use super::{
    Fault, Kafka, Settings,
    read::{Reader, amqp_name, duration, number, server_url},
};
use application::{
    decode::{Decoder, SkuRule},
    ingest::{ArchiveEvents, Limits},
};
use infrastructure::rabbitmq::RabbitmqSettings;
use secrecy::SecretString;
use std::time::Duration;

/// Where raw events are kept, and how they get there.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    /// ClickHouse, where it is configured.
    pub(crate) url: Option<SecretString>,
    queue: Option<String>,
    group: Option<String>,
    batch_size: usize,
    batch_linger: Duration,
}

impl Archive {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            url: reader.optional("CLICKHOUSE_URL", server_url(&["http", "https"])),
            queue: reader.optional("ARCHIVE_QUEUE", amqp_name),
            group: reader.optional("ARCHIVE_GROUP", amqp_name),
            batch_size: reader.required("ARCHIVE_BATCH_SIZE", number(1..=ArchiveEvents::EVENTS_MAX)),
            batch_linger: reader
                .required("ARCHIVE_BATCH_LINGER", duration(Duration::ZERO..=Duration::from_mins(1))),
        }
    }
}

impl Settings {
    /// Notes names that would let worker and archive take messages away from each other.
    pub(super) fn check_archive(&self, reader: &mut Reader<'_>) {
        if let Some(broker) = &self.rabbitmq
            && let queue = self.archive_queue(broker)
            && [&broker.queue, &broker.dead_letter_queue].contains(&&queue)
        {
            let fault = "is a queue that the worker uses: the archive needs one of its own";
            reader.fault("ARCHIVE_QUEUE", fault);
        }
        if let (Some(kafka), Some(group)) = (&self.kafka, &self.archive.group)
            && kafka.group == *group
        {
            let fault =
                "is the group of the workers: each message would be counted or archived, and not both";
            reader.fault("ARCHIVE_GROUP", fault);
        }
    }

    /// The queue of the archive, whether it is set or not.
    fn archive_queue(&self, broker: &RabbitmqSettings) -> String {
        self.archive.queue.clone().unwrap_or_else(|| format!("{}.archive", broker.queue))
    }

    /// The broker as the archive uses it.
    ///
    /// # Errors
    /// Names what is lacking, and `instead` as the way out.
    pub(crate) fn archive_broker(&self, caller: &str, instead: &str) -> Result<RabbitmqSettings, Fault> {
        let broker = self.broker(caller, instead)?.clone();
        if self.archive.queue.is_none() && broker.exchange.is_none() {
            let instead = "set ARCHIVE_QUEUE to a queue that is fed in another way";
            return Err(Fault::lacking("RABBITMQ_EXCHANGE", caller, instead));
        }
        let queue = self.archive_queue(&broker);
        let ahead = u16::try_from(self.archive.batch_size * 2).unwrap_or(u16::MAX);
        // The archive has no positions, and leaves what it has taken to the broker.
        let queue_type = broker.queue_type.beside();
        Ok(RabbitmqSettings { queue, queue_type, prefetch: ahead, ..broker })
    }

    /// The topic as the archive reads it.
    ///
    /// # Errors
    /// Names what is lacking, and `instead` as the way out.
    pub(crate) fn archive_kafka(&self, caller: &str, instead: &str) -> Result<Kafka, Fault> {
        let kafka = self.kafka(caller, instead)?.clone();
        let group = self.archive.group.clone().unwrap_or_else(|| format!("{}-archive", kafka.group));
        Ok(Kafka { group, ..kafka })
    }

    /// What the archive makes of messages: it keeps every product, whatever the ledger can, and of any age: it may be
    /// further behind than the worker.
    pub(crate) fn archive_decoder(&self) -> Decoder {
        Decoder { sku_rule: SkuRule::Any, age_max: None, ..self.decoder(&self.ledger()) }
    }

    /// The bounds of the archive's engine.
    pub(crate) fn archive_limits(&self) -> Limits {
        let Archive { batch_size, batch_linger, .. } = self.archive;
        Limits { batch_size, batch_linger, ..self.limits() }
    }
}
