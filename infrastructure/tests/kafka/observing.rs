//! How far the group is behind.

use super::{Cluster, Counted, GROUP, TOPIC};
use application::{
    contract::source::{Message, SourceFixture},
    ports::{Backlog, Envelope, PulseSource, Received, Watermark},
};
use infrastructure::kafka::{KafkaObserver, KafkaSettings};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::FutureRecord,
    util::Timeout,
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Puts so many messages, over the partitions in turn.
async fn put(cluster: &Cluster, messages: i32, partitions: i32) {
    let producer = cluster.producer();
    for number in 0..messages {
        let record = FutureRecord::<str, str>::to(TOPIC).partition(number % partitions).payload("{}");
        producer.send(record, Timeout::Never).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_group_has_not_settled_waits_over_all_partitions() {
    let cluster = Cluster::new(3);
    let observer = KafkaObserver::new(cluster.settings.clone());
    assert_eq!(observer.waiting().await.unwrap(), 0);
    put(&cluster, 10, 3).await;
    assert_eq!(observer.waiting().await.unwrap(), 10, "the group has settled nothing");

    let consumer: BaseConsumer = cluster.client().set("group.id", GROUP).create().unwrap();
    let mut settled = TopicPartitionList::new();
    settled.add_partition_offset(TOPIC, 0, Offset::Offset(4)).unwrap();
    settled.add_partition_offset(TOPIC, 1, Offset::Offset(1)).unwrap();
    consumer.commit(&settled, CommitMode::Sync).unwrap();
    assert_eq!(observer.waiting().await.unwrap(), 5, "10 and 4 and 1 of them are settled");
    put(&cluster, 3, 3).await;
    assert_eq!(observer.waiting().await.unwrap(), 8);

    let other = KafkaSettings { topic: "none".to_owned(), ..cluster.settings.clone() };
    let error = KafkaObserver::new(other).waiting().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_settles_no_longer_waits_and_brokers_that_are_away_are_told() {
    let cluster = Cluster::new(1);
    let message = Message { body: b"{}".to_vec(), envelope: Envelope::default() };
    cluster.put(vec![message.clone(), message]).await;
    let source = cluster.source(Arc::new(Counted(Vec::new())));
    let observer = KafkaObserver::new(cluster.settings.clone());
    let mut last = None;
    while last.is_none() {
        if let Received::Deliveries(deliveries) = source.receive().await.unwrap() {
            last = deliveries.last().map(|delivery| (delivery.partition, delivery.sequence));
        }
    }
    let (partition, sequence) = last.unwrap();
    source.settle(Watermark { partition, sequence }).await.unwrap();
    assert_eq!(observer.waiting().await.unwrap(), 1 - sequence);
    source.close().await.unwrap();

    cluster.change(|mock| mock.broker_down(1).unwrap());
    sleep(Duration::from_millis(500)).await;
    let error = observer.waiting().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    cluster.change(|mock| mock.broker_up(1).unwrap());
    while observer.waiting().await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}
