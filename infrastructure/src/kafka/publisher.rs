//! Publishes messages to the topic that pulses are taken from.

use super::{
    KafkaSettings,
    envelope::{CONTENT_TYPE, MESSAGE_ID},
    error::during,
};
use application::ports::PortError;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
};
use std::collections::VecDeque;

const OPERATION: &str = "publish to Kafka";

/// One message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaMessage {
    /// The bytes.
    pub body: Vec<u8>,
    /// What decides about the partition: messages of one key keep their order. Any partition where it is absent.
    pub key: Option<String>,
    /// What makes a repetition of the message recognisable.
    pub message_id: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
}

/// Publishes with an idempotent producer to all in-sync replicas.
///
/// Not idempotent over calls: after an error any of the messages may be in the topic, and a repetition stores them again,
/// at other places. Where they carry ids, of the message or of the pulses in it, those are counted once.
pub struct KafkaPublisher {
    topic: String,
    producer: FutureProducer,
}

impl KafkaPublisher {
    /// A publisher that connects by itself.
    ///
    /// # Errors
    /// Permanent where the settings make no client.
    pub fn new(settings: &KafkaSettings) -> Result<Self, PortError> {
        let producer = settings.producer().create().map_err(|error| during(OPERATION, error))?;
        Ok(Self { topic: settings.topic.clone(), producer })
    }

    /// Publishes the messages in their order, many in flight; the reports of all are there when it succeeds.
    ///
    /// # Errors
    /// Transient where the brokers are away; permanent where a message is too large, or the topic is not to be written.
    pub async fn publish(&self, messages: &[KafkaMessage]) -> Result<(), PortError> {
        let mut reports = VecDeque::with_capacity(messages.len());
        for message in messages {
            let mut record = FutureRecord::<str, [u8]>::to(&self.topic).payload(&message.body);
            record = record.headers(headers(message));
            record.key = message.key.as_deref();
            loop {
                match self.producer.send_result(record) {
                    Ok(report) => break reports.push_back(report),
                    // One that was sent earlier makes room; a later one must not overtake this.
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                        if !reports.is_empty() =>
                    {
                        record = back;
                        if let Some(report) = reports.pop_front() {
                            delivered(report).await?;
                        }
                    }
                    Err((error, _)) => return Err(during(OPERATION, error)),
                }
            }
        }
        for report in reports {
            delivered(report).await?;
        }
        Ok(())
    }
}

async fn delivered(report: DeliveryFuture) -> Result<(), PortError> {
    let ended = |error| PortError::transient(OPERATION, error);
    report.await.map_err(ended)?.map(|_| ()).map_err(|(error, _)| during(OPERATION, error))
}

fn headers(message: &KafkaMessage) -> OwnedHeaders {
    let ours = [(MESSAGE_ID, &message.message_id), (CONTENT_TYPE, &message.content_type)];
    let ours = ours.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    ours.fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}
