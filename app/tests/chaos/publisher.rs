//! Publishers that go on until every message is confirmed, and repeat what they are not sure of.

use crate::plan::Message;
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
/// `first` is when the first was confirmed: the queues are there.
pub(crate) fn start(
    url: String,
    queue: String,
    messages: Vec<Message>,
    first: Arc<OnceLock<Instant>>,
) -> thread::JoinHandle<u32> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let again = runtime.block_on(publish_all(&url, &queue, &messages, &first));
        runtime.shutdown_timeout(Duration::from_millis(100));
        again
    })
}

async fn publish_all(url: &str, queue: &str, messages: &[Message], first: &OnceLock<Instant>) -> u32 {
    let mut channel = None;
    let mut again = 0;
    for (number, chunk) in messages.chunks(CHUNK).enumerate() {
        loop {
            let attempt = timeout(LIMIT, publish(&mut channel, url, queue, chunk)).await;
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
            let _ = timeout(LIMIT, publish(&mut channel, url, queue, chunk)).await;
        }
        sleep(PAUSE).await;
    }
    again
}

/// Publishes a chunk and waits for all confirms. After an error nothing is known of any message in it.
async fn publish(
    open: &mut Option<(Connection, Channel)>,
    url: &str,
    queue: &str,
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
    for Message { id, body } in chunk {
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if let Some(id) = id {
            properties = properties.with_message_id(id.as_str().into());
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
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
