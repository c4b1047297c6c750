//! Where every event is kept as it came.

use super::{Delivery, PortError};
use crate::decode::{Event, mapping::Mapping};
use async_trait::async_trait;

/// One event, what its message said, and where it was.
#[derive(Clone, Copy, Debug)]
pub struct ArchivedEvent<'a> {
    /// What copies of it have in common and no other event has.
    pub key: u128,
    /// What it says.
    pub event: &'a Event,
    /// Its original bytes.
    pub body: &'a [u8],
    /// Its place in the message, from 0.
    pub item: u32,
    /// The message.
    pub delivery: &'a Delivery,
    /// The name of the source.
    pub source: &'a str,
    /// The mapping of its source, which names the columns of an event that was read as one of its messages.
    pub mapping: Option<&'a Mapping>,
}

/// Keeps events for people who ask questions.
#[async_trait]
pub trait EventArchive: Send + Sync + 'static {
    /// Keeps a batch, durable when it returns.
    ///
    /// Idempotent by the keys of the events: one that is kept already changes no answer, whatever batch it comes in. Of
    /// copies the one that was received first is kept. A transient error says nothing about the effect: repeat the batch.
    async fn keep(&self, events: &[ArchivedEvent<'_>]) -> Result<(), PortError>;

    /// Whether it answers, and has what it keeps events in. Changes nothing.
    async fn check(&self) -> Result<(), PortError>;
}
