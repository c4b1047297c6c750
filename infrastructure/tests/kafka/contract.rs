//! The contract of sources and dead letters, on a topic of one partition.

use super::{Cluster, Counted, DEAD, TOPIC};
use application::{
    contract::source::{Message, SourceFixture},
    ports::{DeadLetter, Delivery, Envelope, PulseSource, Received, Watermark},
};
use async_trait::async_trait;
use chrono::DateTime;
use domain::{LogName, Reason, Rejection, Timestamp};
use futures_util::future::join_all;
use infrastructure::kafka::{KafkaDeadLetters, KafkaSource, header};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::FutureRecord,
    util::Timeout,
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

#[async_trait]
impl SourceFixture for Cluster {
    type Source = KafkaSource;
    type DeadLetters = KafkaDeadLetters;

    async fn source(&self) -> KafkaSource {
        // No shards: nothing contradicts what the group has committed.
        Cluster::source(self, Arc::new(Counted(Vec::new())))
    }

    async fn dead_letters(&self) -> KafkaDeadLetters {
        KafkaDeadLetters::new(&self.settings).unwrap()
    }

    async fn put(&self, messages: Vec<Message>) {
        let producer = self.producer();
        let sent = messages.iter().map(|Message { body, envelope }| {
            let ours = [("message-id", &envelope.message_id), ("content-type", &envelope.content_type)];
            let ours = ours.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
            let theirs = envelope.headers.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let headers = ours.chain(theirs).fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
            let record = FutureRecord::<str, [u8]>::to(TOPIC).partition(0).payload(body).headers(headers);
            producer.send(record, Timeout::Never)
        });
        for result in join_all(sent).await {
            result.unwrap();
        }
    }

    async fn cut(&self) {
        self.change(|mock| mock.broker_down(1).unwrap());
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.change(|mock| mock.broker_up(1).unwrap());
    }

    async fn stored_letters(&self) -> Vec<DeadLetter> {
        let consumer: BaseConsumer = self.client().set("group.id", "letters").create().unwrap();
        let limit = Duration::from_secs(10);
        let (begin, end) = consumer.fetch_watermarks(DEAD, 0, limit).unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(DEAD, 0, Offset::Beginning).unwrap();
        consumer.assign(&all).unwrap();
        (begin..end).map(|_| letter(&consumer.poll(limit).unwrap().unwrap().detach())).collect()
    }
}

fn letter(message: &rdkafka::message::OwnedMessage) -> DeadLetter {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let mut headers: Vec<(String, String)> = headers
        .map(|header| (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap()))
        .collect();
    let mut ours = |name: &str| {
        let index = headers.iter().position(|(header, _)| header == name)?;
        Some(headers.remove(index).1)
    };
    let received_at = DateTime::parse_from_rfc3339(&ours(header::RECEIVED_AT).unwrap()).unwrap();
    let place = ours(header::OFFSET).map(|offset| {
        let parts = [ours(header::TOPIC).unwrap(), ours(header::PARTITION).unwrap()];
        (LogName::of(&[&parts[0], &parts[1]]).unwrap(), offset.parse().unwrap())
    });
    DeadLetter {
        id: ours(header::ID).unwrap(),
        rejection: Rejection::new(
            Reason::from_code(&ours(header::REASON).unwrap()).unwrap(),
            ours(header::DETAIL).unwrap(),
        ),
        item: ours(header::ITEM).map(|item| item.parse().unwrap()),
        source: ours(header::SOURCE).unwrap(),
        place,
        received_at: Timestamp::new(received_at.timestamp(), received_at.timestamp_subsec_nanos()),
        envelope: Envelope {
            message_id: ours("message-id"),
            content_type: ours("content-type"),
            routing_key: message.key().map(|key| String::from_utf8(key.to_vec()).unwrap()),
            headers,
        },
        body: message.payload().unwrap_or_default().to_vec(),
    }
}

// The client heals connections by itself, keeps its partitions, and tells only when every broker is away: the parts of the
// contract that wait for the error of a cut connection do not apply. What must hold instead is below.
application::source_contract! { async { Cluster::new(1) } =>
    everything_is_received_in_order
    a_body_is_received_byte_for_byte
    a_message_says_about_itself_what_it_said
    a_call_that_is_dropped_loses_nothing
    messages_that_come_later_are_received
    closing_a_source_that_was_never_read_succeeds
    what_was_not_settled_comes_again
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

/// Receives until the body was there; errors that may pass are taken for what they are.
pub(super) async fn until(source: &KafkaSource, body: &[u8]) -> Vec<Delivery> {
    let mut all = Vec::new();
    let receive = async {
        while all.last().is_none_or(|delivery: &Delivery| delivery.body != body) {
            match source.receive().await {
                Ok(Received::Deliveries(deliveries)) => all.extend(deliveries),
                Ok(Received::End) => panic!("a topic has no end"),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    };
    timeout(Duration::from_mins(1), receive).await.expect("it is received");
    all
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Message> {
    let message = |number: u32| Message { body: number.to_string().into(), ..Message::default() };
    numbers.map(message).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_source_says_once_that_it_is_open() {
    let cluster = Cluster::new(1);
    let source = cluster.source(Arc::new(Counted(Vec::new())));
    let answer = timeout(Duration::from_mins(1), source.receive()).await.unwrap().unwrap();
    assert_eq!(answer, Received::Deliveries(Vec::new()));
    assert!(timeout(Duration::from_secs(2), source.receive()).await.is_err());
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_nothing_is_missing_and_what_was_settled_stays_settled() {
    let cluster = Cluster::new(1);
    cluster.put(numbered(0..3)).await;
    let source = cluster.source(Arc::new(Counted(Vec::new())));
    let before = until(&source, b"2").await;
    cluster.cut().await;
    cluster.put(numbered(3..5)).await;
    let after = until(&source, b"4").await;
    let mut bodies: Vec<&[u8]> = before.iter().chain(&after).map(|delivery| &delivery.body[..]).collect();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies, [b"0", b"1", b"2", b"3", b"4"]);
    let last = after.last().unwrap();
    let settled = Watermark { partition: last.partition, sequence: last.sequence };
    while let Err(error) = source.settle(settled).await {
        assert!(error.is_transient(), "{error}");
    }
    source.close().await.unwrap();
    cluster.put(numbered(5..6)).await;
    let source = cluster.source(Arc::new(Counted(Vec::new())));
    assert_eq!(until(&source, b"5").await.len(), 1);
    source.close().await.unwrap();
}
