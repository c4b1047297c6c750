//! RabbitMQ as source, dead letters and target of a publisher, on a real server.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "a test fails where something fails")]

#[path = "rabbitmq/contract.rs"]
mod contract;
#[path = "rabbitmq/faults.rs"]
mod faults;
#[path = "rabbitmq/letters.rs"]
mod letters;
#[path = "rabbitmq/malformed.rs"]
mod malformed;
#[path = "rabbitmq/observing.rs"]
mod observing;
#[path = "rabbitmq/publishing.rs"]
mod publishing;
#[path = "rabbitmq/stream.rs"]
mod stream;
#[path = "rabbitmq/topology.rs"]
mod topology;

use application::ports::{Delivery, PulseSource, Received, Watermark};
use infrastructure::{
    rabbitmq::{OutgoingMessage, QueueType, RabbitmqPublisher, RabbitmqSettings, RabbitmqSource},
    test_servers::rabbitmq::RabbitmqServer,
};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// A call that takes longer than this hangs.
const LIMIT: Duration = Duration::from_mins(1);

/// The server of all tests that do not kill it.
fn server() -> &'static RabbitmqServer {
    static SERVER: OnceLock<RabbitmqServer> = OnceLock::new();
    SERVER.get_or_init(RabbitmqServer::start)
}

/// A virtual host of one test.
struct Place {
    vhost: String,
    settings: RabbitmqSettings,
}

impl Place {
    fn new(queue_type: QueueType) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let vhost = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let settings = settings(&server().vhost(&vhost), queue_type);
        Self { vhost, settings }
    }

    fn source(&self) -> RabbitmqSource {
        RabbitmqSource::new(self.settings.clone())
    }
}

fn settings(url: &str, queue_type: QueueType) -> RabbitmqSettings {
    RabbitmqSettings {
        url: url.to_owned().into(),
        queue: "pulses".to_owned(),
        queue_type,
        exchange: None,
        binding: None,
        prefetch: RabbitmqSettings::PREFETCH,
        dead_letter_queue: "pulses.dead".to_owned(),
    }
}

/// A connection of the test's own.
async fn channel(settings: &RabbitmqSettings) -> (Connection, Channel) {
    use secrecy::ExposeSecret;
    let connection =
        Connection::connect(settings.url.expose_secret(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// How many messages are ready in a queue.
async fn ready(settings: &RabbitmqSettings, queue: &str) -> u32 {
    let (_connection, channel) = channel(settings).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap().message_count()
}

async fn delete_queue(settings: &RabbitmqSettings, queue: &str) {
    let (_connection, channel) = channel(settings).await;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<OutgoingMessage> {
    numbers
        .map(|number| OutgoingMessage { body: number.to_string().into(), ..OutgoingMessage::default() })
        .collect()
}

async fn put(settings: &RabbitmqSettings, numbers: std::ops::Range<u32>) {
    let publisher = RabbitmqPublisher::connect(settings).await.unwrap();
    publisher.publish(numbered(numbers)).await.unwrap();
    publisher.close().await.unwrap();
}

async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, call).await.expect("the call takes no longer than a minute")
}

fn deliveries(received: Received) -> Vec<Delivery> {
    match received {
        Received::Deliveries(deliveries) => deliveries,
        Received::End => panic!("a queue never ends"),
    }
}

fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.body).unwrap().parse().unwrap()
}

async fn take(source: &RabbitmqSource, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(deliveries(within(source.receive()).await.unwrap()));
    }
    assert_eq!(taken.len(), count);
    taken
}

async fn settle(source: &RabbitmqSource, deliveries: &[Delivery]) {
    if let Some(last) = deliveries.last() {
        within(source.settle(Watermark { partition: last.partition, sequence: last.sequence }))
            .await
            .unwrap();
    }
}
