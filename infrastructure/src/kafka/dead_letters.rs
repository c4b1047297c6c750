//! A topic of Kafka as the place of refused messages.

use super::{
    KafkaSettings,
    envelope::{CONTENT_TYPE, MESSAGE_ID},
    error::during,
};
use application::ports::{DeadLetter, DeadLetters, Envelope, PortError};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat};
use domain::Timestamp;
use futures_util::future::try_join_all;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};

const OPERATION: &str = "publish dead letters to Kafka";
/// How much is kept of a body that is too large for the topic.
const CUT_BYTES: usize = 64 * 1_024;
/// How long the key, the id and the media type of such a message may be to be kept.
const SHORT_BYTES: usize = 1_024;

/// The headers of a dead letter. The message's own headers keep their names beside them.
pub mod header {
    /// Names the letter: copies of one have the same.
    pub const ID: &str = "x-pulse-id";
    /// The code of the reason.
    pub const REASON: &str = "x-pulse-reason";
    /// What exactly was wrong.
    pub const DETAIL: &str = "x-pulse-detail";
    /// Which pulse of the message, from 0; absent for the whole message.
    pub const ITEM: &str = "x-pulse-item";
    /// The name of the source.
    pub const SOURCE: &str = "x-pulse-source";
    /// The topic that the message was in.
    pub const TOPIC: &str = "x-pulse-topic";
    /// Its partition.
    pub const PARTITION: &str = "x-pulse-partition";
    /// Its offset.
    pub const OFFSET: &str = "x-pulse-offset";
    /// When it arrived, by its own timestamp: RFC 3339, UTC.
    pub const RECEIVED_AT: &str = "x-pulse-received-at";
    /// On a record that is no letter: the letter at this offset of the same partition was sent back or removed.
    pub const HANDLED: &str = "x-pulse-handled";
    /// How many bytes the body had, where only its beginning is here; the whole message is where topic, partition and
    /// offset say.
    pub const TRUNCATED: &str = "x-pulse-truncated";
}

/// Publishes with an idempotent producer to all in-sync replicas, under the key that the message had.
///
/// A letter that is too large for the topic is published with the first 64 KiB of its body and without the headers of its
/// message; [`header::TRUNCATED`] says how many bytes there were. It would hold up its partition for ever otherwise.
pub struct KafkaDeadLetters {
    topic: String,
    producer: FutureProducer,
}

impl KafkaDeadLetters {
    /// Dead letters that connect by themselves.
    ///
    /// # Errors
    /// Permanent where the settings make no client.
    pub fn new(settings: &KafkaSettings) -> Result<Self, PortError> {
        let mut config = settings.producer();
        // What is larger goes alone: a broker refuses all that came together with a letter that is too large.
        config.set("batch.size", "65536");
        let producer = config.create().map_err(|error| during(OPERATION, error))?;
        Ok(Self { topic: settings.dead_letter_topic.clone(), producer })
    }

    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError> {
        let sent = match self.produce(letter, headers(letter)).await {
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                let size = letter.body.len().to_string();
                let letter = cut(letter);
                let truncated = Header { key: header::TRUNCATED, value: Some(&size) };
                self.produce(&letter, headers(&letter).insert(truncated)).await
            }
            sent => sent,
        };
        sent.map_err(|error| during(OPERATION, error))
    }

    async fn produce(&self, letter: &DeadLetter, headers: OwnedHeaders) -> Result<(), KafkaError> {
        let mut record = FutureRecord::<str, [u8]>::to(&self.topic).payload(&letter.body).headers(headers);
        if let Some(key) = &letter.envelope.routing_key {
            record = record.key(key);
        }
        self.producer.send(record, Timeout::Never).await.map(|_| ()).map_err(|(error, _)| error)
    }
}

/// The letter with the beginning of its body, and of what its message said only what is short.
fn cut(letter: &DeadLetter) -> DeadLetter {
    let short = |text: &Option<String>| text.clone().filter(|text| text.len() <= SHORT_BYTES);
    let envelope = &letter.envelope;
    DeadLetter {
        id: letter.id.clone(),
        rejection: letter.rejection.clone(),
        body: letter.body.iter().copied().take(CUT_BYTES).collect(),
        item: letter.item,
        source: letter.source.clone(),
        place: letter.place.clone(),
        envelope: Envelope {
            message_id: short(&envelope.message_id),
            content_type: short(&envelope.content_type),
            routing_key: short(&envelope.routing_key),
            headers: Vec::new(),
        },
        received_at: letter.received_at,
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        try_join_all(letters.iter().map(|letter| self.send(letter))).await.map(|_| ())
    }
}

fn headers(letter: &DeadLetter) -> OwnedHeaders {
    let envelope = &letter.envelope;
    let item = letter.item.map(|item| item.to_string());
    let received_at = rfc3339(letter.received_at);
    let offset = letter.place.as_ref().map(|(_, offset)| offset.to_string());
    // A topic has no slash in its name.
    let mut parts = letter.place.as_ref().map(|(log, _)| log.as_str().rsplit('/')).into_iter().flatten();
    let (partition, topic) = (parts.next(), parts.next());
    let ours = [
        (header::ID, Some(letter.id.as_str())),
        (header::REASON, Some(letter.rejection.reason.code())),
        (header::DETAIL, Some(letter.rejection.detail.as_str())),
        (header::ITEM, item.as_deref()),
        (header::SOURCE, Some(letter.source.as_str())),
        (header::TOPIC, topic),
        (header::PARTITION, partition),
        (header::OFFSET, offset.as_deref()),
        (header::RECEIVED_AT, Some(received_at.as_str())),
        (MESSAGE_ID, envelope.message_id.as_deref()),
        (CONTENT_TYPE, envelope.content_type.as_deref()),
    ];
    let ours = ours.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let theirs = envelope.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // A header of an earlier refusal must not pass for one of this.
    let theirs = theirs.filter(|(name, _)| !name.starts_with("x-pulse-"));
    ours.chain(theirs)
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

fn rfc3339(time: Timestamp) -> String {
    let time = DateTime::from_timestamp(time.seconds(), time.nanos()).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
