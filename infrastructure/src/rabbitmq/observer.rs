//! Looks at the queues and changes nothing: how much waits, and what was refused.

use super::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    envelope::envelope,
    error::{is_absent, port_error, within},
    header,
    topology::declares_dead_letters_alike,
};
use application::ports::{Backlog, PortError, RefusedPulses, StoredLetter};
use async_trait::async_trait;
use chrono::DateTime;
use domain::Timestamp;
use lapin::{
    message::Delivery,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::{ops::AsyncFnOnce, time::Duration};
use tokio::{sync::Mutex, time::sleep};

/// How often, and after how long each time, letters that were given back are looked for.
const RETURN_CHECKS: u32 = 20;
const RETURN_CHECK: Duration = Duration::from_millis(25);

/// Looks over one connection of its own, which it opens when it is needed and gives up after any error.
pub struct RabbitmqObserver {
    settings: RabbitmqSettings,
    open: Mutex<Option<Link>>,
}

impl RabbitmqObserver {
    /// An observer that connects with its first look.
    #[must_use]
    pub fn new(settings: RabbitmqSettings) -> Self {
        Self { settings, open: Mutex::new(None) }
    }

    /// Looks over the open connection, or a new one. A look that fails or is dropped takes its connection with it.
    async fn look<T>(&self, look: impl AsyncFnOnce(&Link) -> Result<T, PortError>) -> Result<T, PortError> {
        let mut open = self.open.lock().await;
        let link = match open.take() {
            Some(link) if link.is_connected() => link,
            _ => Link::open(&self.settings, "observer").await?,
        };
        let seen = look(&link).await?;
        *open = Some(link);
        Ok(seen)
    }
}

/// How many messages are ready in the queue; `None` where there is no such queue.
async fn ready(operation: &'static str, link: &Link, queue: &str) -> Result<Option<u64>, PortError> {
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let declared = tokio::time::timeout(CALL_LIMIT, declared)
        .await
        .map_err(|_| PortError::transient(operation, format!("no answer within {CALL_LIMIT:?}")))?;
    match declared {
        Ok(declared) => {
            within(CALL_LIMIT, operation, channel.close(200, "done".into())).await?;
            Ok(Some(declared.message_count().into()))
        }
        // The broker has closed the channel.
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(port_error(operation, error)),
    }
}

#[async_trait]
impl Backlog for RabbitmqObserver {
    async fn waiting(&self) -> Result<u64, PortError> {
        const OPERATION: &str = "ask RabbitMQ how many messages wait";
        let queue = self.settings.queue.as_str();
        let ready = self.look(async |link: &Link| ready(OPERATION, link, queue).await).await?;
        ready.ok_or_else(|| {
            PortError::transient(OPERATION, format!("there is no queue {queue}; the worker makes it"))
        })
    }
}

#[async_trait]
impl RefusedPulses for RabbitmqObserver {
    /// Takes the letters at the front of the queue and gives them back by closing the channel, which moves none of them.
    ///
    /// Each look counts as a delivery, so a queue that was made with other arguments than ours, and may therefore drop
    /// what was delivered often, is not touched: a permanent error.
    async fn letters(&self, limit: u32) -> Result<Vec<StoredLetter>, PortError> {
        const OPERATION: &str = "look at the dead letters in RabbitMQ";
        let queue = self.settings.dead_letter_queue.as_str();
        self.look(async |link: &Link| {
            if limit == 0 || ready(OPERATION, link, queue).await?.is_none_or(|ready| ready == 0) {
                return Ok(Vec::new());
            }
            if !declares_dead_letters_alike(link, &self.settings).await? {
                let reason = format!(
                    "the queue {queue} was not made by this program and may drop what is looked at often; use \
                     RabbitMQ's own tools"
                );
                return Err(PortError::permanent(OPERATION, reason));
            }
            let channel = link.channel().await?;
            let mut letters = Vec::new();
            for _ in 0..limit {
                let get = channel.basic_get(queue.into(), BasicGetOptions::default());
                match within(CALL_LIMIT, OPERATION, get).await? {
                    Some(message) => letters.push(letter(&message.delivery)),
                    None => break,
                }
            }
            within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await?;
            // The broker answers to the close before all of them are back, and would count too few.
            for _ in 0..RETURN_CHECKS {
                let back = ready(OPERATION, link, queue).await?.and_then(|back| usize::try_from(back).ok());
                if back.is_none_or(|back| back >= letters.len()) {
                    break;
                }
                sleep(RETURN_CHECK).await;
            }
            Ok(letters)
        })
        .await
    }

    async fn count(&self) -> Result<u64, PortError> {
        const OPERATION: &str = "count the dead letters in RabbitMQ";
        let queue = self.settings.dead_letter_queue.as_str();
        let ready = self.look(async |link: &Link| ready(OPERATION, link, queue).await).await?;
        Ok(ready.unwrap_or(0))
    }
}

fn letter(delivery: &Delivery) -> StoredLetter {
    let envelope = envelope(delivery.routing_key.clone(), &delivery.properties);
    let text =
        |wanted| envelope.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let received_at = text(header::RECEIVED_AT).and_then(|time| DateTime::parse_from_rfc3339(&time).ok());
    StoredLetter {
        reason: text(header::REASON).unwrap_or_default(),
        detail: text(header::DETAIL).unwrap_or_default(),
        item: text(header::ITEM).and_then(|item| item.parse().ok()),
        source: text(header::SOURCE).unwrap_or_default(),
        received_at: received_at.map(|time| Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos())),
        body: delivery.data.iter().copied().take(StoredLetter::BODY_BYTES_MAX).collect(),
        body_bytes: u64::try_from(delivery.data.len()).unwrap_or(u64::MAX),
        id: envelope.message_id.unwrap_or_default(),
    }
}
