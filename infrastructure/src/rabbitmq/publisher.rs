//! Publishes pulses to RabbitMQ: `app populate` and `app ingest`.

use super::{
    RabbitmqSettings,
    envelope::{header_table, properties},
    outlet::{Outlet, Parcel, Target, Undelivered},
};
use application::ports::PortError;

/// One message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// The bytes.
    pub body: Vec<u8>,
    /// What makes a repetition of the message recognisable, at most 255 bytes.
    pub message_id: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The routing key, at most 255 bytes. The name of the queue where it is absent; without an exchange it is ignored.
    pub routing_key: Option<String>,
    /// Headers; of two with one name the first counts.
    pub headers: Vec<(String, String)>,
}

/// Publishes persistent messages and waits for the broker's confirms, over one connection.
///
/// Not idempotent by itself: after a transient error any of the messages may be in the queue. Publishing the same
/// messages again is safe where they carry ids, of the message or of the pulses in it, because the ingestor counts an id
/// once.
pub struct RabbitmqPublisher {
    exchange: String,
    queue: String,
    outlet: Outlet,
}

impl RabbitmqPublisher {
    /// Connects, and declares the queue, or exchange, queue and binding, as the source does.
    ///
    /// # Errors
    /// Transient where the broker is away, permanent for wrong credentials, virtual host or permissions.
    pub async fn connect(settings: &RabbitmqSettings) -> Result<Self, PortError> {
        let outlet = Outlet::new(settings.clone(), Target::Queue);
        outlet.connect().await?;
        let exchange = settings.exchange.clone().unwrap_or_default();
        Ok(Self { exchange, queue: settings.queue.clone(), outlet })
    }

    /// Publishes the messages in their order, many in flight; all are stored in a queue when it succeeds.
    ///
    /// Calls take turns; use several publishers to publish side by side. After an error the next call connects anew.
    ///
    /// # Errors
    /// Transient where the broker is away or the queue is full; permanent where a message is too large or no queue is
    /// bound by its routing key. In each case any of the messages may be stored.
    pub async fn publish(&self, messages: Vec<OutgoingMessage>) -> Result<(), PortError> {
        const OPERATION: &str = "publish to RabbitMQ";
        let parcels = messages.iter().map(|message| Parcel {
            exchange: &self.exchange,
            routing_key: self.routing_key(message),
            body: &message.body,
            properties: properties(
                message.message_id.as_deref(),
                message.content_type.as_deref(),
                header_table(message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
            ),
        });
        self.outlet.publish(OPERATION, parcels).await.map_err(|error| match error {
            Undelivered::Failed(error) => error,
            // Without an exchange the queue was deleted meanwhile, and the next connection declares it.
            Undelivered::Unroutable(answer) if self.exchange.is_empty() => {
                PortError::transient(OPERATION, answer)
            }
            Undelivered::Unroutable(answer) => PortError::permanent(OPERATION, answer),
        })
    }

    /// Closes the connection in order, within a few seconds.
    ///
    /// # Errors
    /// Where the broker does not answer. Every message of a call that succeeded is stored all the same.
    pub async fn close(&self) -> Result<(), PortError> {
        self.outlet.close().await
    }

    fn routing_key<'a>(&'a self, message: &'a OutgoingMessage) -> &'a str {
        match &message.routing_key {
            Some(key) if !self.exchange.is_empty() => key,
            _ => &self.queue,
        }
    }
}
