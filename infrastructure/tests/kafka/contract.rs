//! The contract of sources and dead letters, on a topic of one partition.

use super::{Cluster, Counted, DEAD, TOPIC};
use application::{
    contract::source::{Message, SourceFixture},
    ports::{DeadLetter, Envelope},
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
        self.broker.send(false).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.broker.send(true).unwrap();
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

application::source_contract!(async { Cluster::new(1) });
