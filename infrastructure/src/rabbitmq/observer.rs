//! Looks at the queues and changes nothing: how much waits, and how much was refused.

use super::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    error::{is_absent, port_error, within},
    stream::backlog,
};
use application::ports::{Backlog, LogPositions, PortError, RefusedPulses};
use async_trait::async_trait;
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use std::{ops::AsyncFnOnce, sync::Arc};
use tokio::sync::Mutex;

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
pub(super) async fn ready(
    operation: &'static str,
    link: &Link,
    queue: &str,
) -> Result<Option<u64>, PortError> {
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

/// Looks at a stream, which keeps what was counted: what waits, the positions of the shards tell.
pub struct RabbitmqStreamObserver {
    observer: RabbitmqObserver,
    positions: Arc<dyn LogPositions>,
}

impl RabbitmqStreamObserver {
    /// An observer that connects with its first look. `positions` are those of the store that counts.
    #[must_use]
    pub fn new(settings: RabbitmqSettings, positions: Arc<dyn LogPositions>) -> Self {
        Self { observer: RabbitmqObserver::new(settings), positions }
    }
}

#[async_trait]
impl Backlog for RabbitmqStreamObserver {
    async fn waiting(&self) -> Result<u64, PortError> {
        const OPERATION: &str = "ask RabbitMQ how much of the stream waits";
        let stream = self.observer.settings.queue.as_str();
        let positions = self.positions.as_ref();
        self.observer
            .look(async |link: &Link| backlog::waiting(OPERATION, link, stream, positions).await)
            .await
    }
}

#[async_trait]
impl RefusedPulses for RabbitmqObserver {
    async fn count(&self) -> Result<u64, PortError> {
        const OPERATION: &str = "count the dead letters in RabbitMQ";
        let queue = self.settings.dead_letter_queue.as_str();
        let ready = self.look(async |link: &Link| ready(OPERATION, link, queue).await).await?;
        Ok(ready.unwrap_or(0))
    }
}
