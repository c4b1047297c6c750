//! Publishers that go on until every message is confirmed, and repeat what they are not sure of.

use crate::{place::PARTITIONS, plan::Message};
use infrastructure::test_servers::kafka::KafkaServer;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

const CHUNK: usize = 12;
const LIMIT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(60);

type Attempt<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Publishes on a thread of its own; the thread ends when all is confirmed, with how often a chunk was sent again.
/// `first` is when the first was confirmed: the queues are there. `to` is an exchange and a routing key.
pub(crate) fn start(
    url: String,
    to: (String, String),
    messages: Vec<Message>,
    first: Arc<OnceLock<Instant>>,
) -> thread::JoinHandle<u32> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let again = runtime.block_on(publish_all(&url, &to, &messages, &first));
        runtime.shutdown_timeout(Duration::from_millis(100));
        again
    })
}

async fn publish_all(
    url: &str,
    to: &(String, String),
    messages: &[Message],
    first: &OnceLock<Instant>,
) -> u32 {
    let mut channel = None;
    let mut again = 0;
    for (number, chunk) in messages.chunks(CHUNK).enumerate() {
        loop {
            let attempt = timeout(LIMIT, publish(&mut channel, url, to, chunk)).await;
            if matches!(attempt, Ok(Ok(()))) {
                first.get_or_init(Instant::now);
                break;
            }
            again += 1;
            channel = None;
            sleep(PAUSE).await;
        }
        // Now and then all is well and it is sent a second time.
        if number % 9 == 4 {
            let _ = timeout(LIMIT, publish(&mut channel, url, to, chunk)).await;
        }
        sleep(PAUSE).await;
    }
    again
}

/// Publishes a chunk and waits for all confirms. After an error nothing is known of any message in it.
async fn publish(
    open: &mut Option<(Connection, Channel)>,
    url: &str,
    (exchange, key): &(String, String),
    chunk: &[Message],
) -> Attempt<()> {
    if open.is_none() {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        *open = Some((connection, channel));
    }
    let Some((_, channel)) = open else { return Err("not open".into()) };
    let mut confirms = Vec::with_capacity(chunk.len());
    for Message { id, body, .. } in chunk {
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if let Some(id) = id {
            properties = properties.with_message_id(id.as_str().into());
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = channel.basic_publish(
            exchange.as_str().into(),
            key.as_str().into(),
            options,
            body.as_bytes(),
            properties,
        );
        confirms.push(publish.await?);
    }
    for confirm in confirms {
        let confirm = confirm.await?;
        if !confirm.is_ack() || confirm.take_message().is_some() {
            return Err("not confirmed or not routed".into());
        }
    }
    Ok(())
}

/// As [`start`], to a topic of a broker that nobody harms: everything is confirmed at once, and now and then sent twice.
pub(crate) fn start_kafka(
    kafka: Arc<KafkaServer>,
    topic: String,
    messages: Vec<Message>,
) -> thread::JoinHandle<u32> {
    thread::spawn(move || {
        for (number, chunk) in messages.chunks(CHUNK).enumerate() {
            let copies = if number % 9 == 4 { 2 } else { 1 };
            for _ in 0..copies {
                let bodies = chunk.iter().map(|message| message.body.clone().into_bytes());
                kafka.produce(&topic, PARTITIONS, bodies);
            }
            thread::sleep(PAUSE);
        }
        0
    })
}
