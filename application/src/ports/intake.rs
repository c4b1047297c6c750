//! The way in for pulses that are answered for over HTTP: durable first, counted by the engine afterwards.

use super::{Envelope, PortError};
use async_trait::async_trait;
use domain::Timestamp;

/// One message of pulses, checked, on its way to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeMessage {
    /// Names the message, so that one that is stored twice is known for one: never used again for another.
    pub id: String,
    /// The bytes of the pulses.
    pub body: Vec<u8>,
    /// What the engine is to know beside the body.
    pub envelope: Envelope,
    /// When it arrived.
    pub received_at: Timestamp,
    /// How many pulses it holds, where they may travel in one message with those of others. `None` where the message must
    /// stay what it is.
    pub joins: Option<usize>,
}

/// Hands messages to the place that the engine reads from.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait PulseIntake: Send + Sync + 'static {
    /// Takes all messages; every one is durable when it returns.
    ///
    /// After an error any of them may be durable too. Taking the same messages again is safe: what identifies their
    /// pulses goes with them.
    async fn take(&self, messages: &[IntakeMessage]) -> Result<(), PortError>;

    /// Whether it could take messages now. Changes nothing.
    async fn check(&self) -> Result<(), PortError>;
}
