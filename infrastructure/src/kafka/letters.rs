//! The dead-letter topic as people go through it: letters are looked at, sent back to their topic, or marked as handled.

use super::{
    KafkaSettings,
    dead_letters::header,
    envelope::{CONTENT_TYPE, MESSAGE_ID, envelope},
    error::{during, mends_itself},
};
use application::ports::{Envelope, LetterPlace, LetterRun, PortError, Returned, StoredLetter};
use async_trait::async_trait;
use chrono::DateTime;
use domain::Timestamp;
use futures_util::future::try_join_all;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    metadata::{MetadataPartition, MetadataTopic},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

const OPERATION: &str = "go through the dead letters in Kafka";
/// The most letters, and about the most bytes, that are read at once.
const LETTERS_AT_ONCE: usize = 200;
const BYTES_AT_ONCE: usize = 8 << 20;
/// For a question about the topic.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long a poll waits for a message, and how long messages that are there may take to come.
const POLL: Duration = Duration::from_millis(100);
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How the names of the archive's sources begin.
const ARCHIVE: &str = "kafka ";

/// Goes through the dead-letter topic.
///
/// A topic forgets no single record, so a letter that was sent back or removed is followed by a record that says so
/// ([`header::HANDLED`]), in the same partition: it is kept at least as long as the letter. A run reads those first.
pub struct KafkaLetters {
    settings: KafkaSettings,
}

impl KafkaLetters {
    /// The dead-letter topic of these settings.
    #[must_use]
    pub const fn new(settings: KafkaSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl LetterPlace for KafkaLetters {
    async fn open(&self) -> Result<Box<dyn LetterRun>, PortError> {
        let settings = self.settings.clone();
        // A caller that gives up leaves nothing behind that reads on.
        let abandoned = CancellationToken::new();
        let guard = abandoned.clone().drop_guard();
        let reading =
            spawn_blocking(move || Reading::begin(&settings, &abandoned)).await.map_err(ended)??;
        drop(guard);
        let producer = self.settings.producer().create().map_err(|error| during(OPERATION, error))?;
        Ok(Box::new(Run {
            settings: self.settings.clone(),
            producer,
            reading: Some(reading),
            last: 0,
            given: HashMap::new(),
        }))
    }
}

fn ended(error: tokio::task::JoinError) -> PortError {
    PortError::permanent(OPERATION, error)
}

/// A partition and an offset.
type Place = (i32, i64);

/// One reading of the topic, from its beginning to what was its end when it began.
struct Reading {
    consumer: Arc<BaseConsumer>,
    /// What is still to be read: up to which offset, by partition.
    ends: BTreeMap<i32, i64>,
    handled: BTreeSet<Place>,
}

impl Reading {
    fn begin(settings: &KafkaSettings, abandoned: &CancellationToken) -> Result<Self, PortError> {
        let kafka = |error| during(OPERATION, error);
        let topic = settings.dead_letter_topic.as_str();
        let mut config = settings.client();
        config
            // The client wants a name; nothing is committed, and no group is joined.
            .set("group.id", "pulse-ingestor-dead-letters")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("queued.max.messages.kbytes", "16384");
        let consumer: BaseConsumer = config.create().map_err(kafka)?;
        let metadata = consumer.fetch_metadata(Some(topic), CALL_LIMIT).map_err(kafka)?;
        let absent = RDKafkaErrorCode::UnknownTopicOrPartition;
        for topic in metadata.topics() {
            let partitions = topic.partitions().iter().filter_map(MetadataPartition::error);
            if let Some(code) = topic
                .error()
                .into_iter()
                .chain(partitions)
                .map(RDKafkaErrorCode::from)
                .find(|code| *code != absent)
            {
                return Err(kafka(KafkaError::MetadataFetch(code)));
            }
        }
        let mut spans = BTreeMap::new();
        for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), CALL_LIMIT).map_err(kafka)?;
            if low < high {
                spans.insert(partition.id(), (low, high));
            }
        }
        let mut reading =
            Self { consumer: Arc::new(consumer), ends: BTreeMap::new(), handled: BTreeSet::new() };
        reading.rewind(topic, &spans)?;
        while !reading.ends.is_empty() {
            if abandoned.is_cancelled() {
                return Err(PortError::transient(OPERATION, "nobody waits for it any more"));
            }
            reading.read(|reading, place, letter| {
                if let Read::Handled(offset) = letter {
                    reading.handled.insert((place.0, offset));
                }
                1
            })?;
        }
        reading.rewind(topic, &spans)?;
        Ok(reading)
    }

    fn rewind(&mut self, topic: &str, spans: &BTreeMap<i32, (i64, i64)>) -> Result<(), PortError> {
        let kafka = |error| during(OPERATION, error);
        let mut from = TopicPartitionList::new();
        for (partition, (low, _)) in spans {
            from.add_partition_offset(topic, *partition, Offset::Offset(*low)).map_err(kafka)?;
        }
        self.ends = spans.iter().map(|(partition, (_, high))| (*partition, *high)).collect();
        self.consumer.assign(&from).map_err(kafka)
    }

    /// Hands records on until there is enough of them, or no more; `take` says how many bytes it has kept.
    fn read(&mut self, mut take: impl FnMut(&mut Self, Place, Read) -> usize) -> Result<(), PortError> {
        let (mut records, mut bytes, mut heard) = (0, 0, Instant::now());
        while !self.ends.is_empty() && records < LETTERS_AT_ONCE && bytes < BYTES_AT_ONCE {
            let consumer = Arc::clone(&self.consumer);
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let place = (message.partition(), message.offset());
                    let end = self.ends.get(&place.0).copied();
                    if end.is_some_and(|end| place.1 < end) {
                        let kept = take(self, place, Read::of(&message));
                        records += usize::from(kept > 0);
                        bytes += kept;
                    }
                    if end.is_some_and(|end| place.1 + 1 >= end) {
                        self.ends.remove(&place.0);
                    }
                }
                // What is behind the last record, such as the mark of a transaction, is never given.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    self.ends.remove(&partition);
                }
                Some(Err(error)) if mends_itself(&error) => {}
                // The oldest records were dropped meanwhile; what is gone need not be read.
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    let gone = "the topic dropped its oldest letters meanwhile: begin again";
                    return Err(PortError::transient(OPERATION, gone));
                }
                Some(Err(error)) => return Err(during(OPERATION, error)),
                None => {}
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(PortError::transient(OPERATION, format!("nothing came for {SILENCE_MAX:?}")));
            }
        }
        Ok(())
    }

    /// The next letters that nobody has handled.
    fn letters(&mut self) -> Result<Vec<(Place, StoredLetter)>, PortError> {
        let mut letters = Vec::new();
        while letters.is_empty() && !self.ends.is_empty() {
            self.read(|reading, place, read| match read {
                Read::Letter(letter) if !reading.handled.contains(&place) => {
                    let bytes = letter.body.len() + 1;
                    letters.push((place, *letter));
                    bytes
                }
                _ => 0,
            })?;
        }
        Ok(letters)
    }
}

/// What a record of the topic is.
enum Read {
    Letter(Box<StoredLetter>),
    /// That the letter at this offset of the same partition was handled.
    Handled(i64),
}

impl Read {
    fn of(message: &rdkafka::message::BorrowedMessage<'_>) -> Self {
        let Envelope { message_id, content_type, routing_key, mut headers } = envelope(message);
        let mut ours = |wanted| {
            let place = headers.iter().position(|(name, _)| name == wanted)?;
            Some(headers.remove(place).1)
        };
        if let Some(Ok(offset)) = ours(header::HANDLED).map(|offset| offset.parse()) {
            return Self::Handled(offset);
        }
        let place = match (ours(header::TOPIC), ours(header::PARTITION), ours(header::OFFSET)) {
            (Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}@{offset}"),
            _ => String::new(),
        };
        let source = ours(header::SOURCE).unwrap_or_default();
        let obstacle = if ours(header::TRUNCATED).is_some() {
            Some(format!("only the beginning of the message is here; all of it is at {place}"))
        } else if source.starts_with(ARCHIVE) {
            Some("the archive refused it, and workers read the same topic: it would count again".to_owned())
        } else {
            None
        };
        let received_at = ours(header::RECEIVED_AT).and_then(|time| DateTime::parse_from_rfc3339(&time).ok());
        let received_at =
            received_at.map(|time| Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos()));
        Self::Letter(Box::new(StoredLetter {
            id: ours(header::ID).unwrap_or_default(),
            reason: ours(header::REASON).unwrap_or_default(),
            detail: ours(header::DETAIL).unwrap_or_default(),
            item: ours(header::ITEM).and_then(|item| item.parse().ok()),
            body: message.payload().map(<[u8]>::to_vec).unwrap_or_default(),
            source,
            place,
            envelope: Envelope { message_id, content_type, routing_key, headers },
            received_at,
            obstacle,
        }))
    }
}

struct Run {
    settings: KafkaSettings,
    producer: FutureProducer,
    /// Absent while it is being read, and after that has failed.
    reading: Option<Reading>,
    last: u64,
    /// Where the letters stand that were given last and are not handled.
    given: HashMap<u64, Place>,
}

impl Run {
    async fn send(&self, record: FutureRecord<'_, str, [u8]>) -> Result<(), PortError> {
        let sent = self.producer.send(record, Timeout::Never).await;
        sent.map(|_| ()).map_err(|(error, _)| during(OPERATION, error))
    }

    /// Says that these letters are handled.
    async fn mark(&mut self, numbers: impl Iterator<Item = u64>) -> Result<(), PortError> {
        let places: Vec<(u64, Place)> =
            numbers.filter_map(|number| Some((number, *self.given.get(&number)?))).collect();
        let topic = self.settings.dead_letter_topic.as_str();
        let marks = places.iter().map(|(_, (partition, offset))| {
            let value = offset.to_string();
            let mark = Header { key: header::HANDLED, value: Some(&value) };
            let record = FutureRecord::<str, [u8]>::to(topic).partition(*partition).payload(&[]);
            self.send(record.headers(OwnedHeaders::new().insert(mark)))
        });
        try_join_all(marks).await?;
        for (number, _) in places {
            self.given.remove(&number);
        }
        Ok(())
    }
}

#[async_trait]
impl LetterRun for Run {
    async fn next(&mut self) -> Result<Vec<(u64, StoredLetter)>, PortError> {
        let gone = || PortError::transient(OPERATION, "the reading has failed: begin again");
        let mut reading = self.reading.take().ok_or_else(gone)?;
        let (reading, letters) = spawn_blocking(move || {
            let letters = reading.letters();
            (reading, letters)
        })
        .await
        .map_err(ended)?;
        let letters = letters?;
        self.reading = Some(reading);
        if !letters.is_empty() {
            self.given.clear();
        }
        let number = |(place, letter)| {
            self.last += 1;
            self.given.insert(self.last, place);
            (self.last, letter)
        };
        Ok(letters.into_iter().map(number).collect())
    }

    async fn send_back(&mut self, letters: &[Returned]) -> Result<(), PortError> {
        let sends = letters.iter().map(|letter| {
            let mut record = FutureRecord::<str, [u8]>::to(&self.settings.topic)
                .payload(&letter.body)
                .headers(headers(&letter.envelope));
            record.key = letter.envelope.routing_key.as_deref();
            self.send(record)
        });
        try_join_all(sends).await?;
        self.mark(letters.iter().map(|letter| letter.number)).await
    }

    async fn remove(&mut self, numbers: &[u64]) -> Result<(), PortError> {
        self.mark(numbers.iter().copied()).await
    }

    async fn close(&mut self) -> Result<(), PortError> {
        Ok(())
    }
}

fn headers(envelope: &Envelope) -> OwnedHeaders {
    let ours = [(MESSAGE_ID, &envelope.message_id), (CONTENT_TYPE, &envelope.content_type)];
    let ours = ours.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    let theirs = envelope.headers.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    ours.chain(theirs)
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}
