//! Declares queues, exchange and binding, or uses those that are there. The module's documentation says why each choice.

use super::{
    QueueType, RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    error::{is_refused, port_error, within},
};
use application::ports::PortError;
use lapin::{
    Channel, Error, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use std::sync::Mutex;

/// Declares, and remembers what it has warned of.
#[derive(Debug, Default)]
pub(super) struct Topology {
    warned: Mutex<Vec<String>>,
}

impl Topology {
    /// The queue, and where an exchange is set, the exchange and its binding.
    pub(super) async fn declare_queue(
        &self,
        link: &Link,
        settings: &RabbitmqSettings,
    ) -> Result<(), PortError> {
        let queue = settings.queue.as_str();
        self.declare(link, Declaration::Queue { name: queue, queue_type: settings.queue_type }).await?;
        let Some(exchange) = settings.exchange.as_deref() else { return Ok(()) };
        self.declare(link, Declaration::Exchange { name: exchange }).await?;
        let key = settings.binding.as_deref().unwrap_or("#");
        self.declare(link, Declaration::Binding { queue, exchange, key }).await
    }

    /// The dead-letter queue.
    pub(super) async fn declare_dead_letters(
        &self,
        link: &Link,
        settings: &RabbitmqSettings,
    ) -> Result<(), PortError> {
        let name = settings.dead_letter_queue.as_str();
        self.declare(link, Declaration::Queue { name, queue_type: settings.queue_type.beside() }).await
    }

    /// Declares; where that is refused, looks whether the thing is there and uses it as it is.
    async fn declare(&self, link: &Link, declaration: Declaration<'_>) -> Result<(), PortError> {
        const OPERATION: &str = "declare the topology of RabbitMQ";
        let channel = link.channel().await?;
        let refusal = match tokio::time::timeout(CALL_LIMIT, declaration.make(&channel, link)).await {
            Ok(Ok(())) => return within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await,
            Ok(Err(error)) if is_refused(&error) => error,
            Ok(Err(error)) => return Err(port_error(OPERATION, error)),
            Err(_) => {
                return Err(PortError::transient(OPERATION, format!("no answer within {CALL_LIMIT:?}")));
            }
        };
        // The broker has closed the channel of the declaration that it refused.
        let channel = link.channel().await?;
        within(CALL_LIMIT, OPERATION, declaration.look(&channel)).await?;
        self.warn_once(&refusal);
        within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await
    }

    fn warn_once(&self, refusal: &Error) {
        let answer = refusal.to_string();
        let mut warned = self.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !warned.contains(&answer) {
            tracing::warn!(
                broker.answer = answer,
                "RabbitMQ refused a declaration and what is there is used as it is: a queue that is not durable, drops \
                 its oldest message when it is full, or limits redeliveries can lose accepted pulses"
            );
            warned.push(answer);
        }
    }
}

/// Whether the dead-letter queue is as this program makes it; makes it where there is none.
pub(super) async fn declares_dead_letters_alike(
    link: &Link,
    settings: &RabbitmqSettings,
) -> Result<bool, PortError> {
    const OPERATION: &str = "declare the dead-letter queue of RabbitMQ";
    let name = settings.dead_letter_queue.as_str();
    let channel = link.channel().await?;
    let declaration = Declaration::Queue { name, queue_type: settings.queue_type.beside() };
    match tokio::time::timeout(CALL_LIMIT, declaration.make(&channel, link)).await {
        Ok(Ok(())) => within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await.map(|()| true),
        Ok(Err(error)) if is_refused(&error) => Ok(false),
        Ok(Err(error)) => Err(port_error(OPERATION, error)),
        Err(_) => Err(PortError::transient(OPERATION, format!("no answer within {CALL_LIMIT:?}"))),
    }
}

#[derive(Clone, Copy)]
enum Declaration<'a> {
    Queue { name: &'a str, queue_type: QueueType },
    Exchange { name: &'a str },
    Binding { queue: &'a str, exchange: &'a str, key: &'a str },
}

impl Declaration<'_> {
    async fn make(self, channel: &Channel, link: &Link) -> Result<(), Error> {
        match self {
            Self::Queue { name, queue_type } => {
                let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                let arguments = arguments(queue_type, link.major_version());
                channel.queue_declare(name.into(), options, arguments).await.map(drop)
            }
            Self::Exchange { name } => {
                let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
                channel
                    .exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())
                    .await
            }
            Self::Binding { queue, exchange, key } => {
                let options = QueueBindOptions::default();
                channel
                    .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
                    .await
            }
        }
    }

    /// Fails where it is not there. Nobody can look for a binding, so it is taken for granted.
    async fn look(self, channel: &Channel) -> Result<(), Error> {
        match self {
            Self::Queue { name, .. } => {
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name.into(), options, FieldTable::default()).await.map(drop)
            }
            Self::Exchange { name } => {
                let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                channel
                    .exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())
                    .await
            }
            Self::Binding { .. } => Ok(()),
        }
    }
}

fn arguments(queue_type: QueueType, major_version: Option<u32>) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.name().into()));
    if queue_type != QueueType::Stream {
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    }
    if queue_type == QueueType::Quorum && major_version.is_some_and(|version| version >= 4) {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delivery_limit_is_lifted_where_there_is_one_by_default() {
        let limited = |queue_type, version| arguments(queue_type, version).contains_key("x-delivery-limit");
        assert!(limited(QueueType::Quorum, Some(4)));
        assert!(!limited(QueueType::Quorum, Some(3)));
        assert!(!limited(QueueType::Quorum, None));
        assert!(!limited(QueueType::Classic, Some(4)));
    }
}
