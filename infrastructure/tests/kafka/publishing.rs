//! Messages that are published under keys.

use super::{Cluster, Counted};
use application::ports::{Delivery, PulseSource, Received};
use infrastructure::kafka::{KafkaMessage, KafkaPublisher};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

fn message(number: u32) -> KafkaMessage {
    KafkaMessage {
        body: number.to_string().into_bytes(),
        key: Some(format!("tenant-{}", number % 7)),
        message_id: Some(format!("m-{number}")),
        content_type: Some("application/json".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_key_keep_their_order_and_what_they_say_through_an_outage() {
    let cluster = Cluster::new(4);
    let publisher = KafkaPublisher::new(&cluster.settings).unwrap();
    publisher.publish(&(0..1_000).map(message).collect::<Vec<_>>()).await.unwrap();
    cluster.change(|mock| mock.broker_down(1).unwrap());
    let rest: Vec<_> = (1_000..3_000).map(message).collect();
    let outage = async {
        sleep(Duration::from_millis(500)).await;
        cluster.change(|mock| mock.broker_up(1).unwrap());
    };
    let (published, ()) = tokio::join!(publisher.publish(&rest), outage);
    published.unwrap();
    // They are there as soon as the call has returned.
    let source = cluster.source(Arc::new(Counted(Vec::new())));
    let mut all: Vec<Delivery> = Vec::new();
    let receive = async {
        while all.len() < 3_000 {
            match source.receive().await.unwrap() {
                Received::Deliveries(deliveries) => all.extend(deliveries),
                Received::End => panic!("a topic has no end"),
            }
        }
    };
    timeout(Duration::from_mins(1), receive).await.expect("all are there");
    source.close().await.unwrap();
    let mut keys: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for delivery in all {
        let number = std::str::from_utf8(&delivery.body).unwrap().parse().unwrap();
        let expected = message(number);
        let envelope = delivery.envelope;
        assert_eq!(
            (&envelope.message_id, &envelope.content_type),
            (&expected.message_id, &expected.content_type)
        );
        assert_eq!(envelope.routing_key, expected.key);
        keys.entry(envelope.routing_key.unwrap()).or_default().push(number);
    }
    assert_eq!(keys.len(), 7);
    assert_eq!(keys.values().map(Vec::len).sum::<usize>(), 3_000);
    assert!(keys.values().all(|numbers| numbers.is_sorted()), "{keys:?}");
}

#[tokio::test]
async fn nobody_is_told_that_something_is_published_that_is_not() {
    let cluster = Cluster::new(1);
    let publisher = KafkaPublisher::new(&cluster.settings).unwrap();
    let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
    cluster.change(move |mock| mock.request_errors(RDKafkaApiKey::Produce, &refusal));
    sleep(Duration::from_millis(200)).await;
    let error = timeout(Duration::from_mins(1), publisher.publish(&[message(1)])).await.unwrap().unwrap_err();
    assert!(!error.is_transient(), "{error}");
    let large = KafkaMessage { body: vec![b'x'; 11 * 1_024 * 1_024], ..KafkaMessage::default() };
    let error = publisher.publish(&[message(2), large]).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
}
