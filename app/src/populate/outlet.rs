//! Where a load goes.

use application::{ports::PortError, retry::Dependency};
use futures_util::{StreamExt, TryStreamExt, stream};
use infrastructure::{
    http::WebhookSender,
    rabbitmq::{OutgoingMessage, RabbitmqPublisher, RabbitmqSettings},
};
use std::sync::Arc;

/// How many webhooks of a burst one worker has under way: each needs a connection.
const REQUESTS_AT_ONCE: usize = 32;

/// Where all workers publish.
#[derive(Clone)]
pub(super) enum Outlet {
    /// A queue or an exchange.
    Rabbitmq(RabbitmqSettings),
    /// An API that takes webhooks.
    Webhook(Arc<WebhookSender>),
}

impl Outlet {
    /// What operators call it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Webhook(_) => "api",
        }
    }

    /// A way in for one worker, waiting while it is away.
    pub(super) async fn open(&self, dependency: &Dependency) -> Result<Channel, PortError> {
        match self {
            Self::Rabbitmq(broker) => {
                let publisher = dependency.hold(|| RabbitmqPublisher::connect(broker)).await?;
                Ok(Channel::Rabbitmq(Box::new(publisher)))
            }
            Self::Webhook(sender) => Ok(Channel::Webhook(Arc::clone(sender))),
        }
    }
}

/// The way in of one worker.
pub(super) enum Channel {
    Rabbitmq(Box<RabbitmqPublisher>),
    Webhook(Arc<WebhookSender>),
}

impl Channel {
    /// Publishes the messages, which are durable when it returns, waiting while it is away.
    pub(super) async fn publish(
        &self,
        messages: Vec<OutgoingMessage>,
        dependency: &Dependency,
    ) -> Result<(), PortError> {
        match self {
            Self::Rabbitmq(publisher) => dependency.hold(|| publisher.publish(messages.clone())).await,
            Self::Webhook(sender) => {
                let send = |message: OutgoingMessage| async move {
                    dependency.hold(|| sender.send(message.body.clone())).await
                };
                stream::iter(messages).map(send).buffer_unordered(REQUESTS_AT_ONCE).try_collect().await
            }
        }
    }

    /// Ends it.
    pub(super) async fn close(&self) -> Result<(), PortError> {
        match self {
            Self::Rabbitmq(publisher) => publisher.close().await,
            Self::Webhook(_) => Ok(()),
        }
    }
}
