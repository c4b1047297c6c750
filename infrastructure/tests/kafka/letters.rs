//! The contract of dead letters that people go through, and what only a topic has.

use crate::{Cluster, DEAD, TOPIC};
use application::{
    contract::letters::LettersFixture,
    ports::{DeadLetter, DeadLetters, Envelope, LetterPlace},
};
use domain::{LogName, Reason, Rejection, Timestamp};
use infrastructure::kafka::{KafkaDeadLetters, KafkaLetters};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

struct Place {
    cluster: Cluster,
    seen: AtomicUsize,
}

impl Place {
    fn new() -> Self {
        Self { cluster: Cluster::new(1), seen: AtomicUsize::new(0) }
    }
}

impl LettersFixture for Place {
    type Store = KafkaDeadLetters;
    type Place = KafkaLetters;

    const SOURCE: &'static str = "kafka";

    async fn store(&self) -> KafkaDeadLetters {
        KafkaDeadLetters::new(&self.cluster.settings).unwrap()
    }

    async fn place(&self) -> KafkaLetters {
        KafkaLetters::new(self.cluster.settings.clone())
    }

    async fn came_back(&self) -> Vec<(Vec<u8>, Envelope)> {
        let mut all = records(&self.cluster, TOPIC);
        let seen = self.seen.swap(all.len(), Ordering::Relaxed);
        all.split_off(seen)
    }
}

application::letters_contract!(async { Place::new() });

/// Everything in the first partition of a topic.
fn records(cluster: &Cluster, topic: &str) -> Vec<(Vec<u8>, Envelope)> {
    let consumer: BaseConsumer = cluster.client().set("group.id", "test").create().unwrap();
    let (low, high) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(10)).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Offset(low)).unwrap();
    consumer.assign(&from).unwrap();
    let mut records = Vec::new();
    for _ in low..high {
        let message = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
        let routing_key = message.key().map(|key| String::from_utf8(key.to_vec()).unwrap());
        let mut envelope = Envelope { routing_key, ..Envelope::default() };
        for header in message.headers().into_iter().flat_map(Headers::iter) {
            let value = String::from_utf8(header.value.unwrap().to_vec()).unwrap();
            match header.key {
                "message-id" => envelope.message_id = Some(value),
                "content-type" => envelope.content_type = Some(value),
                name => envelope.headers.push((name.to_owned(), value)),
            }
        }
        records.push((message.payload().unwrap_or_default().to_vec(), envelope));
    }
    records
}

fn letter(source: &str, body: Vec<u8>) -> DeadLetter {
    DeadLetter {
        id: "0".repeat(32),
        rejection: Rejection::new(Reason::Malformed, "no"),
        body,
        item: None,
        source: source.to_owned(),
        place: Some((LogName::parse("kafka/c/pulses/3").unwrap(), 7)),
        envelope: Envelope::default(),
        received_at: Timestamp::new(0, 0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_go_back_says_why_and_can_be_removed() {
    let place = Place::new();
    let cut = letter("kafka", vec![b'x'; 11 << 20]);
    place.store().await.publish(&[cut, letter("kafka pulses", b"y".to_vec())]).await.unwrap();
    let mut run = place.place().await.open().await.unwrap();
    let letters = run.next().await.unwrap();
    let obstacles: Vec<&str> =
        letters.iter().map(|(_, letter)| letter.obstacle.as_deref().unwrap()).collect();
    assert!(obstacles[0].contains("all of it is at pulses/3@7"), "{obstacles:?}");
    assert!(obstacles[1].contains("it would count again"), "{obstacles:?}");
    assert_eq!(letters[1].1.place, "pulses/3@7");
    run.remove(&letters.iter().map(|(number, _)| *number).collect::<Vec<_>>()).await.unwrap();
    let mut run = place.place().await.open().await.unwrap();
    assert_eq!(run.next().await.unwrap(), []);
}

/// Nothing is taken out of the topic: what was refused and what became of it can be read for as long as it keeps both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_was_handled_is_followed_by_a_record_that_says_so() {
    let place = Place::new();
    place.store().await.publish(&[letter("kafka", b"a".to_vec())]).await.unwrap();
    let mut run = place.place().await.open().await.unwrap();
    let letters = run.next().await.unwrap();
    run.remove(&[letters[0].0]).await.unwrap();
    // Once more does nothing.
    run.remove(&[letters[0].0]).await.unwrap();
    let records = records(&place.cluster, DEAD);
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].1.headers, [("x-pulse-handled".to_owned(), "0".to_owned())]);
}
