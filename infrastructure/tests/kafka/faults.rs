//! What goes wrong in a cluster and must not hold anything up, and what must stop the reading.

use super::{Cluster, Counted, TOPIC, contract::until};
use application::{
    contract::source::SourceFixture,
    open_log::{LogExtent, Settled},
    ports::{DeadLetter, DeadLetters, Delivery, Envelope, LogSource, PulseSource, Received},
};
use domain::{LogName, LogPosition, Reason, Rejection, Timestamp};
use futures_util::future::join_all;
use infrastructure::kafka::{KafkaDeadLetters, KafkaOffsets, KafkaSource};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::FutureRecord,
    types::{RDKafkaApiKey, RDKafkaRespErr},
    util::Timeout,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

fn unread(cluster: &Cluster) -> KafkaSource {
    cluster.source(Arc::new(Counted(vec![LogPosition::START])))
}

async fn put(cluster: &Cluster, partition: i32, bodies: impl IntoIterator<Item = Vec<u8>>) {
    let producer = cluster.producer();
    let bodies: Vec<_> = bodies.into_iter().collect();
    let sent = bodies.iter().map(|body| {
        let record = FutureRecord::<str, [u8]>::to(TOPIC).partition(partition).payload(body);
        producer.send(record, Timeout::Never)
    });
    for result in join_all(sent).await {
        result.unwrap();
    }
}

/// The next deliveries that are some.
async fn some(source: &KafkaSource) -> Vec<Delivery> {
    loop {
        match timeout(Duration::from_mins(1), source.receive()).await.unwrap().unwrap() {
            Received::Deliveries(deliveries) if deliveries.is_empty() => {}
            Received::Deliveries(deliveries) => return deliveries,
            Received::End => panic!("a topic has no end"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_left_while_it_was_paused_is_read_when_it_comes_back() {
    let cluster = Cluster::new(2);
    for partition in 0..2 {
        put(&cluster, partition, (0..3_000).map(|_| partition.to_string().into_bytes())).await;
    }
    let (slow, second) = (unread(&cluster), unread(&cluster));
    some(&slow).await;
    // Nobody takes what comes, so that its partitions are paused.
    sleep(Duration::from_secs(3)).await;
    let moved = some(&second).await[0].body.clone();
    // Whoever is behind catches up on what is left to it.
    while let Ok(received) = timeout(Duration::from_secs(2), slow.receive()).await {
        received.unwrap();
    }
    second.close().await.unwrap();
    let partition = String::from_utf8(moved).unwrap().parse().unwrap();
    put(&cluster, partition, [b"end".to_vec()]).await;
    until(&slow, b"end").await;
    slow.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_and_comes_back_ends_no_reading() {
    let cluster = Cluster::of(2, 2);
    for partition in 0..2 {
        put(&cluster, partition, [b"before".to_vec()]).await;
    }
    let source = unread(&cluster);
    let mut before = Vec::new();
    while before.len() < 2 {
        before.extend(some(&source).await.into_iter().map(|delivery| delivery.partition));
    }
    cluster.change(|mock| mock.broker_down(2).unwrap());
    let error = timeout(Duration::from_secs(2), source.receive()).await;
    assert!(error.is_err(), "the other broker serves: {error:?}");
    put(&cluster, 0, [b"meanwhile".to_vec()]).await;
    let meanwhile = some(&source).await;
    assert!(before.contains(&meanwhile[0].partition), "it is the same reading");
    cluster.change(|mock| mock.broker_up(2).unwrap());
    put(&cluster, 1, [b"after".to_vec()]).await;
    let after = some(&source).await;
    assert!(before.contains(&after[0].partition) && after[0].partition != meanwhile[0].partition);
    source.close().await.unwrap();
}

fn letter(body: Vec<u8>) -> DeadLetter {
    DeadLetter {
        id: "0".repeat(32),
        rejection: Rejection::new(Reason::Malformed, "no JSON"),
        body,
        item: None,
        source: "kafka".to_owned(),
        place: Some((LogName::of(&[TOPIC, "0"]).unwrap(), 7)),
        received_at: Timestamp::new(1_700_000_000, 0),
        envelope: Envelope {
            message_id: Some("m".repeat(2_000)),
            content_type: Some("application/json".to_owned()),
            routing_key: Some("key".to_owned()),
            headers: vec![
                ("theirs".to_owned(), "h".repeat(2_000)),
                ("traceparent".to_owned(), TRACEPARENT.to_owned()),
            ],
        },
    }
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn truncated(whole: &DeadLetter) -> DeadLetter {
    let mut letter = whole.clone();
    letter.body.truncate(65_536);
    letter.envelope.message_id = None;
    letter.envelope.headers = vec![
        ("traceparent".to_owned(), TRACEPARENT.to_owned()),
        ("x-pulse-truncated".to_owned(), whole.body.len().to_string()),
    ];
    letter
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_is_too_large_is_cut_and_says_so() {
    let cluster = Cluster::new(1);
    let letters = KafkaDeadLetters::new(&cluster.settings).unwrap();
    // More than the client takes, and then one that the broker refuses.
    let whole = [letter(vec![b'a'; 11 * 1_024 * 1_024]), letter(vec![b'b'; 70_000])];
    letters.publish(&whole[..1]).await.unwrap();
    let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE];
    cluster.change(move |mock| mock.request_errors(RDKafkaApiKey::Produce, &refusal));
    sleep(Duration::from_millis(200)).await;
    letters.publish(&whole[1..]).await.unwrap();
    letters.publish(&[letter(b"small".to_vec())]).await.unwrap();
    let stored = cluster.stored_letters().await;
    assert_eq!(stored.len(), 3);
    assert!(stored[0] == truncated(&whole[0]) && stored[1] == truncated(&whole[1]));
    assert_eq!(stored[2], letter(b"small".to_vec()), "what is not too large is whole");
}

/// Puts messages of a megabyte until the cluster has let go of the first; returns where the topic begins.
async fn trim(cluster: &Cluster) -> u64 {
    let consumer: BaseConsumer = cluster.client().create().unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        put(cluster, 0, [vec![b'x'; 900_000]]).await;
        let (begin, _) = consumer.fetch_watermarks(TOPIC, 0, Duration::from_secs(10)).unwrap();
        if begin > 0 {
            return u64::try_from(begin).unwrap();
        }
        assert!(Instant::now() < until, "the cluster lets go of old messages");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_reading_of_a_trimmed_topic_that_was_killed_is_taken_up_again() {
    let cluster = Cluster::new(1);
    let begin = trim(&cluster).await;
    let first = unread(&cluster);
    assert_eq!(some(&first).await[0].sequence, begin);
    first.close().await.unwrap();
    // One shard has counted something, the other one nothing, and nothing was settled.
    let counted = vec![LogPosition { offset: begin + 1, items: 1 }, LogPosition::START];
    let second = cluster.source(Arc::new(Counted(counted)));
    let again = some(&second).await;
    assert_eq!((again[0].sequence, again[0].log.as_ref().unwrap().after), (begin, 0));
    second.close().await.unwrap();
    // What is let go of from then on is missed.
    while trim(&cluster).await == begin {}
    let third = unread(&cluster);
    let error = timeout(Duration::from_mins(1), third.receive()).await.unwrap().unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("were deleted"), "{error}");
    third.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_counted_and_that_the_group_does_not_know_is_not_read() {
    let cluster = Cluster::new(1);
    put(&cluster, 0, (0..9).map(|_| b"new".to_vec())).await;
    let source = cluster.source(Arc::new(Counted(vec![LogPosition::before(7), LogPosition::before(5)])));
    let error = timeout(Duration::from_mins(1), source.receive()).await.unwrap().unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("move the group to offset 5;"), "{error}");
    source.close().await.unwrap();
    assert_eq!(cluster.committed(1), [None], "nothing was committed for it");
    let source = unread(&cluster);
    some(&source).await;
    source.close().await.unwrap();
    assert_eq!(cluster.committed(1), [Some(0)], "the group knows of a topic before it is delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_set_back_and_read_again_and_not_while_it_has_members() {
    let cluster = Cluster::new(2);
    for partition in 0..2 {
        put(&cluster, partition, (0..9).map(|_| b"counted".to_vec())).await;
    }
    let offsets = KafkaOffsets::new(cluster.settings.clone());
    let known = offsets.extents().await.unwrap();
    assert_eq!(known.len(), 2);
    assert!(known.iter().all(|(_, extent)| extent.settled.is_none()), "the group knows nothing of it yet");
    let (settled, back) = (Settled { next: 9, first: 2 }, Settled { next: 5, first: 2 });
    for to in [settled, back] {
        for (log, _) in &known {
            offsets.move_to(log, to).await.unwrap();
        }
        let moved = offsets.extents().await.unwrap();
        let extents: Vec<LogExtent> = moved.iter().map(|(_, extent)| *extent).collect();
        assert_eq!(extents, [LogExtent { begin: 0, end: 9, settled: Some(to) }; 2]);
    }
    let stranger = LogName::of(&["kafka", "other", TOPIC, "0"]).unwrap();
    assert!(!offsets.move_to(&stranger, back).await.unwrap_err().is_transient());

    // One shard of two was lost, and has flushed up to here.
    let left = vec![LogPosition::before(9), LogPosition::before(5)];
    let again = cluster.source(Arc::new(Counted(left)));
    let delivery = &some(&again).await[0];
    assert_eq!((delivery.sequence, delivery.log.as_ref().unwrap().after), (5, 5));
    let error = offsets.move_to(&known[0].0, settled).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("stop all workers"), "{error}");
    again.close().await.unwrap();
    assert_eq!(cluster.committed(2), [Some(5), Some(5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_ahead_of_what_is_left_of_the_counts_is_not_believed() {
    let cluster = Cluster::new(1);
    put(&cluster, 0, (0..9).map(|_| b"counted".to_vec())).await;
    let offsets = KafkaOffsets::new(cluster.settings.clone());
    let log = offsets.extents().await.unwrap()[0].0.clone();
    offsets.move_to(&log, Settled { next: 9, first: 0 }).await.unwrap();
    let source = cluster.source(Arc::new(Counted(vec![LogPosition::before(9), LogPosition::before(5)])));
    let error = timeout(Duration::from_mins(1), source.receive()).await.unwrap().unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("app recover"), "{error}");
    source.close().await.unwrap();
}
