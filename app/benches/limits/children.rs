//! The limits, each in a process of its own: a bare consumer of each client, a cluster of Kafka, a server that only answers.
//!
//! A consumer says `first` at its first message and `done` after its last, and waits until it is killed.

use crate::queue::QUEUE;
use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use rdkafka::{
    ClientConfig,
    consumer::{Consumer, StreamConsumer},
    mocking::MockCluster,
};
use std::{io::Write, thread::park, time::Duration};
use tokio::{net::TcpListener, runtime::Runtime};

/// Runs what is asked for; `false` where it is nothing of this.
pub(crate) fn run(name: &str, arguments: &[String]) -> bool {
    let runtime = Runtime::new().unwrap();
    match (name, arguments) {
        ("ack-only", [url, queue, count]) => {
            runtime.block_on(ack_only(url, queue, count.parse().unwrap()));
        }
        ("bare-kafka", [brokers, topic, count]) => {
            runtime.block_on(bare_kafka(brokers, topic, count.parse().unwrap()));
        }
        ("kafka-cluster", [topic, partitions]) => kafka_cluster(topic, partitions.parse().unwrap()),
        ("echo", []) => runtime.block_on(echo()),
        _ => return false,
    }
    loop {
        park();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The AMQP client's own consumer, which reads nothing of a message and acknowledges every 500.
async fn ack_only(url: &str, queue: &str, count: u32) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(1_000, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut arguments = FieldTable::default();
    if queue != QUEUE {
        // A stream, read from its beginning: a queue takes no such argument.
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString(LongString::from("first")));
    }
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await.unwrap();
    for number in 1..=count {
        let delivery = consumer.next().await.unwrap().unwrap();
        if number == 1 {
            say("first");
        }
        if number % 500 == 0 || number == count {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    say("done");
    std::future::pending::<()>().await;
}

/// The Kafka client's own consumer, which reads nothing of a message and lets the client commit.
async fn bare_kafka(brokers: &str, topic: &str, count: u32) {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("bare-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    for number in 1..=count {
        consumer.recv().await.unwrap();
        if number == 1 {
            say("first");
        }
    }
    say("done");
    std::future::pending::<()>().await;
}

/// A cluster in this process, by librdkafka; says where its broker is.
fn kafka_cluster(topic: &str, partitions: i32) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(topic, partitions, 1).unwrap();
    cluster.create_topic("pulses.dead", 1, 1).unwrap();
    say(&cluster.bootstrap_servers());
    loop {
        std::thread::sleep(Duration::from_mins(1));
    }
}

/// Takes any body and answers as the API does; says where it listens.
async fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    say(&listener.local_addr().unwrap().to_string());
    let answer = async |body: Bytes| (StatusCode::ACCEPTED, body.len().to_string());
    let router = Router::new().route("/api/v1/pulses", post(answer));
    axum::serve(listener, router).await.unwrap();
}
