//! The inbox, over the tables of a store: what PostgreSQL and the embedded file have in common.
//!
//! - `tables`: what a store must be able to do, each method one transaction.
//! - `grouped`: stores the events of many callers in one transaction.
//! - `source`: claims events under a lease and gives them to the engine (`PulseSource`).
//! - `refusals`: what is told of refused pulses.

mod grouped;
mod refusals;
mod source;
mod tables;
#[cfg(test)]
mod tests;

pub use source::{HEADER_EVENT, InboxSource};
pub(crate) use {
    refusals::added_refusals,
    tables::{
        Claim, Claimant, Claimed, EXPIRED_MAX, InboxClaims, InboxTable, NewRow, REMOVED_MAX, RETRY_AFTER_MAX,
        SUSPECT_ATTEMPTS, envelope_from_json, warn_of_failed,
    },
};

use application::ports::{
    DeadLetter, DeadLetters, Dealt, Inbox, InboxDepth, InboxEntry, InboxEvent, InboxFilter, PortError, Stored,
};
use async_trait::async_trait;
use domain::Timestamp;
use grouped::GroupedWrites;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How the inbox is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxSettings {
    /// The longest pause between two looks at an empty inbox.
    pub poll_interval: Duration,
    /// How long a claimed event is kept from others after its worker was last heard of. Renewed while it is held.
    pub lease: Duration,
    /// After so many claims that ended without an answer an event has failed; 4 where it is less, because from the fourth
    /// on an event is claimed alone, and does not fail for the fault of another.
    pub attempts_max: u32,
    /// How long an event waits after the first of these, twice as long after each further one, an hour at most.
    pub retry_after: Duration,
}

impl Default for InboxSettings {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            lease: Duration::from_mins(1),
            attempts_max: 10,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// An inbox in the tables of a store. Dropped, it gives up what was not committed; nobody was told of that.
pub struct StoredInbox {
    table: Arc<dyn InboxTable>,
    claims: Arc<dyn InboxClaims>,
    writes: GroupedWrites,
    arrivals: Arc<Notify>,
}

impl StoredInbox {
    /// Starts to store; needs a runtime.
    pub(crate) fn start<S: InboxTable + InboxClaims>(store: Arc<S>) -> Self {
        let table: Arc<dyn InboxTable> = Arc::clone(&store) as _;
        let arrivals = Arc::new(Notify::new());
        Self {
            writes: GroupedWrites::start(Arc::clone(&table), Arc::clone(&arrivals)),
            table,
            claims: store,
            arrivals,
        }
    }

    /// A new reader, which is a worker of its own. It is woken by what is stored through this value.
    #[must_use]
    pub fn source(&self, settings: InboxSettings) -> InboxSource {
        InboxSource::new(Arc::clone(&self.claims), Arc::clone(&self.arrivals), settings)
    }
}

#[async_trait]
impl Inbox for StoredInbox {
    async fn store(&self, events: &[InboxEvent]) -> Result<Vec<Stored>, PortError> {
        self.writes.store(events).await
    }

    async fn list(&self, filter: &InboxFilter) -> Result<Vec<InboxEntry>, PortError> {
        self.table.list(filter).await
    }

    async fn retry(&self, id: i64) -> Result<Dealt, PortError> {
        let retried = self.table.retry(id).await?;
        if retried == Dealt::Done {
            self.arrivals.notify_one();
        }
        Ok(retried)
    }

    async fn discard(&self, id: i64) -> Result<Dealt, PortError> {
        self.table.discard(id).await
    }

    async fn remove_done(&self, before: Timestamp) -> Result<u64, PortError> {
        self.table.remove_done(before).await
    }

    async fn depth(&self) -> Result<InboxDepth, PortError> {
        self.table.depth().await
    }
}

#[async_trait]
impl DeadLetters for StoredInbox {
    /// Writes down at each event what was refused of it. The event ends as failed, when it is settled.
    ///
    /// Permanent for a letter whose message did not come from an [`InboxSource`].
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        if letters.is_empty() {
            return Ok(());
        }
        let refusals = refusals::by_event(letters)?;
        self.claims.refuse(&refusals, letters).await
    }
}
