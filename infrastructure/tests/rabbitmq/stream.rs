//! Streams: the contract of sources, one reader at a time, and streams that are not what they were.

#[path = "stream_backlog.rs"]
mod backlog;
#[path = "stream_recovery.rs"]
mod recovery;

use super::{LIMIT, Place, channel, delete_queue, deliveries, number, numbered, put, within};
use application::{
    contract::source::{Message, SourceFixture},
    ports::{
        DeadLetter, Delivery, Envelope, IntakeMessage, LogPositions, PortError, PulseIntake, PulseSource,
        Received, Watermark,
    },
};
use async_trait::async_trait;
use domain::{LogName, LogPosition, Timestamp};
use infrastructure::rabbitmq::{
    OutgoingMessage, QueueType, RabbitmqDeadLetters, RabbitmqIntake, RabbitmqPublisher, RabbitmqSource,
    RabbitmqStreamSource,
};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::{Duration, sleep, timeout};

/// Two shards that are moved on with what is settled, as the engine does.
#[derive(Clone)]
struct Counted(Arc<Mutex<[LogPosition; 2]>>);

impl Counted {
    fn at(left: (u64, u32), right: (u64, u32)) -> Self {
        let position = |(offset, items)| LogPosition { offset, items };
        Self(Arc::new(Mutex::new([position(left), position(right)])))
    }

    fn pass(&self, next: u64) {
        let mut shards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shards = shards.map(|shard| shard.max(LogPosition::before(next)));
    }
}

#[async_trait]
impl LogPositions for Counted {
    async fn positions(&self, log: &LogName) -> Result<Vec<LogPosition>, PortError> {
        assert!(log.as_str().starts_with("rabbitmq/pulse") && log.partition() == Some(0), "{log}");
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).to_vec())
    }
}

/// A source and its shards.
struct Settling {
    source: RabbitmqStreamSource,
    counted: Counted,
}

#[async_trait]
impl PulseSource for Settling {
    async fn receive(&self) -> Result<Received, PortError> {
        self.source.receive().await
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        self.counted.pass(watermark.sequence + 1);
        self.source.settle(watermark).await
    }

    async fn is_drained(&self) -> Result<bool, PortError> {
        self.source.is_drained().await
    }

    async fn close(&self) -> Result<(), PortError> {
        self.source.close().await
    }
}

/// A stream of one test, and the shards that count it.
struct Stream {
    place: Place,
    counted: Counted,
}

impl Stream {
    fn new() -> Self {
        Self { place: Place::new(QueueType::Stream), counted: Counted::at((0, 0), (0, 0)) }
    }

    /// With the stream made already: RabbitMQ 3.10 may answer `INTERNAL_ERROR` to one of two that make it at once, which may
    /// pass and is no business of the contract.
    async fn declared() -> Self {
        let stream = Self::new();
        put(&stream.place.settings, 0..0).await;
        stream
    }

    fn reader(&self) -> Settling {
        self.reader_of(&self.counted)
    }

    fn reader_of(&self, counted: &Counted) -> Settling {
        let source = RabbitmqStreamSource::new(self.place.settings.clone(), Arc::new(counted.clone()));
        Settling { source, counted: counted.clone() }
    }

    /// Declares the stream as somebody else does who wants little of it kept: two segments.
    async fn declare_trimmed(&self) {
        let (_connection, channel) = channel(&self.place.settings).await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongInt(20_000));
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongInt(40_000));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("pulses".into(), options, arguments).await.unwrap();
    }

    /// Puts so much in that messages are deleted, by and by.
    async fn put_large(&self, messages: u32) {
        let publisher = RabbitmqPublisher::connect(&self.place.settings).await.unwrap();
        for number in 0..messages {
            let body = format!("{number:01000}").into_bytes();
            publisher.publish(vec![OutgoingMessage { body, ..OutgoingMessage::default() }]).await.unwrap();
        }
        publisher.close().await.unwrap();
    }

    async fn delete(&self) {
        delete_queue(&self.place.settings, "pulses").await;
    }
}

#[async_trait]
impl SourceFixture for Stream {
    type Source = Settling;
    type DeadLetters = RabbitmqDeadLetters;

    async fn source(&self) -> Settling {
        self.reader()
    }

    async fn dead_letters(&self) -> RabbitmqDeadLetters {
        self.place.dead_letters().await
    }

    async fn put(&self, messages: Vec<Message>) {
        self.place.put(messages).await;
    }

    async fn cut(&self) {
        self.place.cut().await;
    }

    async fn stored_letters(&self) -> Vec<DeadLetter> {
        self.place.stored_letters().await
    }
}

// What is settled late is durable all the same, so a log goes on behind it: no promise of
// settling_a_partition_that_is_gone_does_nothing.
application::source_contract! { Stream::declared() =>
    an_empty_source_answers_once_it_is_open
    everything_is_received_in_order
    a_body_is_received_byte_for_byte
    a_message_says_about_itself_what_it_said
    a_call_that_is_dropped_loses_nothing
    messages_that_come_later_are_received
    a_cut_connection_is_a_transient_error_and_heals
    closing_a_source_that_was_never_read_succeeds
    what_was_not_settled_comes_again
    what_was_not_settled_comes_again_after_a_cut
    what_was_settled_does_not_come_again
    a_watermark_settles_everything_below_it
    settling_twice_or_back_changes_nothing
    settling_nothing_that_was_ever_there_succeeds
    a_dead_letter_keeps_its_bytes_and_its_reason
    a_dead_letter_keeps_what_its_message_said
    many_dead_letters_are_stored_by_one_call
    no_dead_letters_at_all_succeed
    dead_letters_survive_a_cut
}

/// The next deliveries that are some.
async fn some(source: &Settling) -> Vec<Delivery> {
    loop {
        let received = deliveries(within(source.receive()).await.unwrap());
        if !received.is_empty() {
            return received;
        }
    }
}

async fn take(source: &Settling, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(some(source).await);
    }
    assert_eq!(taken.len(), count);
    taken
}

async fn settle(source: &Settling, last: &Delivery) {
    let watermark = Watermark { partition: last.partition, sequence: last.sequence };
    within(source.settle(watermark)).await.unwrap();
}

/// The error that stops a reader.
async fn halt(source: &Settling) -> String {
    loop {
        match within(source.receive()).await {
            Ok(received) => assert_eq!(deliveries(received), [], "nothing is given before it stops"),
            Err(error) if error.is_transient() => {}
            Err(error) => return error.to_string(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_known_by_its_offset_whatever_it_says_itself() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..3).await;
    let publisher = RabbitmqPublisher::connect(&stream.place.settings).await.unwrap();
    let headers = vec![("x-stream-offset".to_owned(), "0".to_owned())];
    publisher.publish(vec![OutgoingMessage { headers, ..OutgoingMessage::default() }]).await.unwrap();
    let source = stream.reader();
    let taken = take(&source, 4).await;
    let offsets: Vec<u64> = taken.iter().map(|delivery| delivery.sequence).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    let log = taken[3].log.as_ref().unwrap();
    assert!(log.log.as_str().ends_with(&format!("/{}/pulses/0", stream.place.vhost)), "{}", log.log);
    assert_eq!((log.after, &taken[3].envelope.headers), (0, &Vec::new()));
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_in_over_http_reaches_a_stream_behind_an_exchange() {
    let mut stream = Stream::new();
    stream.place.settings.exchange = Some("usage".to_owned());
    let intake = RabbitmqIntake::new(stream.place.settings.clone());
    intake.check().await.unwrap();
    let envelope = Envelope { message_id: Some("m".to_owned()), ..Envelope::default() };
    let received_at = Timestamp::new(0, 0);
    let message = |id: &str| IntakeMessage {
        id: id.to_owned(),
        body: b"{}".to_vec(),
        envelope: envelope.clone(),
        received_at,
        joins: None,
    };
    within(intake.take(&[message("1"), message("2")])).await.unwrap();
    let source = stream.reader();
    let taken = take(&source, 2).await;
    assert_eq!(taken[1].sequence, 1);
    assert_eq!((&taken[1].body[..], &taken[1].envelope.message_id), (&b"{}"[..], &envelope.message_id));
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_with_what_the_last_shard_has_not_counted() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..10).await;
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[4]).await;
    source.close().await.unwrap();
    let counted = Counted::at((9, 1), (5, 3));
    let source = stream.reader_of(&counted);
    let taken = take(&source, 5).await;
    assert_eq!((taken[0].sequence, taken[0].log.as_ref().unwrap().after), (5, 5));
    source.close().await.unwrap();
    // All of it is counted: it goes on with what comes.
    let source = stream.reader_of(&Counted::at((10, 0), (10, 0)));
    assert_eq!(deliveries(within(source.receive()).await.unwrap()), []);
    put(&stream.place.settings, 10..11).await;
    assert_eq!(take(&source, 1).await[0].sequence, 10);
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reader_waits_and_takes_over_where_the_first_was() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..10).await;
    let (first, second) = (stream.reader(), stream.reader());
    settle(&first, &take(&first, 10).await[6]).await;
    assert_eq!(deliveries(within(second.receive()).await.unwrap()), [], "it is open, and has nothing");
    assert!(!second.is_drained().await.unwrap() && first.is_drained().await.unwrap());
    assert!(timeout(Duration::from_secs(3), second.receive()).await.is_err(), "it waits");
    first.close().await.unwrap();
    let taken = take(&second, 3).await;
    assert_eq!(taken.iter().map(number).collect::<Vec<_>>(), [7, 8, 9]);
    assert!(second.is_drained().await.unwrap());
    // The other way round, and without a word: both connections are cut, and either may be the next reader.
    let third = stream.reader();
    assert_eq!(deliveries(within(third.receive()).await.unwrap()), []);
    stream.place.cut().await;
    let taken = loop {
        tokio::select! {
            received = second.receive() => match received {
                Ok(received) if deliveries(received.clone()).is_empty() => {}
                Ok(received) => break deliveries(received),
                Err(error) => assert!(error.is_transient(), "{error}"),
            },
            received = third.receive() => match received {
                Ok(received) if deliveries(received.clone()).is_empty() => {}
                Ok(received) => break deliveries(received),
                Err(error) => assert!(error.is_transient(), "{error}"),
            },
            () = sleep(LIMIT) => panic!("nobody takes over"),
        }
    };
    assert_eq!(taken[0].sequence, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_not_read() {
    // Also where nothing had been settled, and where the new one is longer than the old one ever was.
    for settled in [false, true] {
        let stream = Stream::new();
        put(&stream.place.settings, 0..10).await;
        let source = stream.reader();
        let taken = take(&source, 10).await;
        if settled {
            settle(&source, &taken[9]).await;
        }
        source.close().await.unwrap();
        let counted = if settled { stream.counted.clone() } else { Counted::at((9, 1), (0, 0)) };
        stream.delete().await;
        put(&stream.place.settings, 0..20).await;
        let source = stream.reader_of(&counted);
        let error = halt(&source).await;
        assert!(error.contains("made anew") && error.contains("pulses.reader.begun-0"), "{error}");
        source.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_under_its_reader_stops_it() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..10).await;
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[9]).await;
    let (error, ()) = tokio::join!(halt(&source), async {
        sleep(Duration::from_millis(200)).await;
        stream.delete().await;
    });
    // The reader declared it anew, and it is empty.
    assert!(error.contains("ends at offset 0, and it was counted up to 10:0"), "{error}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_lost_its_end_is_not_read() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..10).await;
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[9]).await;
    source.close().await.unwrap();
    let source = stream.reader_of(&Counted::at((10, 0), (10, 1)));
    let error = halt(&source).await;
    assert!(error.contains("ends at offset 10, and it was counted up to 10:1"), "{error}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_deleted_before_they_were_counted_stop_the_reader_until_the_loss_is_accepted() {
    let stream = Stream::new();
    stream.declare_trimmed().await;
    put(&stream.place.settings, 0..10).await;
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[4]).await;
    source.close().await.unwrap();
    stream.put_large(200).await;
    let source = stream.reader();
    let error = halt(&source).await;
    source.close().await.unwrap();
    assert!(error.contains("counted what was at offset 5:"), "{error}");
    let begun = error.rsplit(' ').next().unwrap();
    let (_connection, channel) = channel(&stream.place.settings).await;
    let name = "pulses.reader.settled";
    channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
    let options = ExchangeDeclareOptions { durable: true, auto_delete: true, ..Default::default() };
    channel
        .exchange_declare(begun.into(), ExchangeKind::Direct, options, FieldTable::default())
        .await
        .unwrap();
    channel
        .queue_bind(
            "pulses".into(),
            begun.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let source = stream.reader();
    let first = &some(&source).await[0];
    assert_eq!(begun, format!("pulses.reader.begun-{}", first.sequence));
    settle(&source, first).await;
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_for_the_retention_skips_nothing() {
    let stream = Stream::new();
    stream.declare_trimmed().await;
    put(&stream.place.settings, 0..1).await;
    let mut settings = stream.place.settings.clone();
    settings.prefetch = 1;
    let source = RabbitmqStreamSource::new(settings, Arc::new(stream.counted.clone()));
    let source = Settling { source, counted: stream.counted.clone() };
    take(&source, 1).await;
    // It asks for no more until most is deleted.
    stream.put_large(400).await;
    let mut bodies = 0;
    let error = loop {
        match within(source.receive()).await {
            Ok(received) => {
                for delivery in deliveries(received) {
                    assert_eq!(number(&delivery), bodies, "nothing is skipped");
                    bodies += 1;
                }
            }
            Err(error) if error.is_transient() => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(bodies < 400 && error.contains("deleted before they were counted"), "{bodies}: {error}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_reading_of_a_trimmed_stream_is_taken_up_again_and_misses_what_is_deleted_since() {
    let stream = Stream::new();
    stream.declare_trimmed().await;
    stream.put_large(200).await;
    let source = stream.reader();
    let begin = some(&source).await[0].sequence;
    assert!(begin > 0, "the stream was trimmed");
    source.close().await.unwrap();
    // One shard has counted something, the other nothing; nothing was settled.
    let counted = Counted::at((0, 0), (begin, 1));
    let source = stream.reader_of(&counted);
    let taken = some(&source).await;
    assert_eq!((taken[0].sequence, taken[0].log.as_ref().unwrap().after), (begin, 0));
    source.close().await.unwrap();
    stream.put_large(200).await;
    let source = stream.reader_of(&counted);
    let error = halt(&source).await;
    assert!(error.contains("deleted before they were counted for the first time"), "{error}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_are_lost_under_a_stream_stop_the_reader() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..10).await;
    let source = stream.reader();
    settle(&source, &take(&source, 10).await[9]).await;
    source.close().await.unwrap();
    let source = stream.reader_of(&Counted::at((10, 0), (0, 0)));
    let error = halt(&source).await;
    assert!(error.contains("shard 1 has counted nothing of it"), "{error}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_no_stream_is_not_read_as_one() {
    let stream = Stream::new();
    let mut queue = stream.place.settings.clone();
    queue.queue_type = QueueType::Quorum;
    let publisher = RabbitmqPublisher::connect(&queue).await.unwrap();
    publisher.publish(numbered(0..1)).await.unwrap();
    let source = stream.reader();
    let error = halt(&source).await;
    assert!(error.contains("x-stream-offset"), "{error}");
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_read_as_a_queue() {
    let stream = Stream::new();
    put(&stream.place.settings, 0..1).await;
    let mut settings = stream.place.settings.clone();
    settings.queue_type = QueueType::Quorum;
    let error = within(RabbitmqSource::new(settings).receive()).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("x-priority"), "{error}");
}
