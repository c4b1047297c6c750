//! Where every event is kept as it came.

use super::{Delivery, PortError, UsageRows};
use crate::decode::{Event, mapping::Mapping};
use async_trait::async_trait;
use domain::{TenantId, Timestamp};

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

/// An event as the archive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEvent {
    /// Tenant, product and unit.
    pub key: [String; 3],
    /// The amount in decimal digits.
    pub amount: String,
    /// Its own time, or else that of its arrival.
    pub occurred_at: Timestamp,
    /// When its first copy arrived at the archive.
    pub received_at: Timestamp,
    /// By what it is known: the kind, and the identity.
    pub identity: (String, String),
    /// The name of the source.
    pub source: String,
    /// The log and the offset of its message, where it is of a log.
    pub place: Option<(String, u64)>,
    /// Its place in the message, from 0.
    pub item: u32,
    /// The id of its message; empty where it has none.
    pub message_id: String,
    /// Its original bytes.
    pub body: Vec<u8>,
}

/// Answers questions about the events that are kept.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait EventQueries: Send + Sync + 'static {
    /// What the events come to, in the order of the keys: of those with one identity the first, and none of amount 0.
    async fn totals(&self) -> Result<UsageRows<'static>, PortError>;

    /// The events with this id as their own, their message's or their `CloudEvent`'s, the first ones, at most `limit`.
    async fn events(
        &self,
        id: &str,
        tenant: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<FoundEvent>, PortError>;
}
