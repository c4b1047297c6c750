//! The queue as the place where pulses wait for the engine.

use super::{OutgoingMessage, RabbitmqPublisher, RabbitmqSettings};
use application::ports::{IntakeMessage, PortError, PulseIntake};
use async_trait::async_trait;
use tokio::sync::OnceCell;

/// Publishes messages with confirms, over one connection that opens with the first of them.
pub struct RabbitmqIntake {
    settings: RabbitmqSettings,
    publisher: OnceCell<RabbitmqPublisher>,
}

impl RabbitmqIntake {
    /// Names the broker; nothing is connected yet.
    #[must_use]
    pub fn new(settings: RabbitmqSettings) -> Self {
        Self { settings, publisher: OnceCell::new() }
    }

    async fn publisher(&self) -> Result<&RabbitmqPublisher, PortError> {
        self.publisher.get_or_try_init(|| RabbitmqPublisher::connect(&self.settings)).await
    }
}

#[async_trait]
impl PulseIntake for RabbitmqIntake {
    async fn take(&self, messages: &[IntakeMessage]) -> Result<(), PortError> {
        let messages = messages.iter().map(|message| OutgoingMessage {
            body: message.body.clone(),
            message_id: message.envelope.message_id.clone(),
            content_type: message.envelope.content_type.clone(),
            routing_key: None,
            headers: message.envelope.headers.clone(),
        });
        self.publisher().await?.publish(messages.collect()).await
    }

    async fn check(&self) -> Result<(), PortError> {
        // No message: it connects anew where the connection is gone, and does nothing else.
        self.publisher().await?.publish(Vec::new()).await
    }
}
