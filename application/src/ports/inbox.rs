//! A durable waiting room for what comes over HTTP: stored before it is answered for, then read as a source.
//!
//! The reading side is a [`super::PulseSource`], and what it refuses goes to a [`super::DeadLetters`], both of the same
//! store.

use super::{Envelope, PortError};
use async_trait::async_trait;
use domain::Timestamp;

/// One event as it arrived, and what the engine is to read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEvent {
    /// Who sent it: `payments` for a webhook, `pulses` for what was posted to the API.
    pub source: String,
    /// What makes a repetition recognisable within its source.
    pub event_id: String,
    /// The bytes as they were sent, where they are not the body itself.
    pub original: Option<Vec<u8>>,
    /// What the engine is to read: native pulses, or `CloudEvents` where the envelope's content type says so.
    pub body: Vec<u8>,
    /// What the engine is to know beside the body.
    pub envelope: Envelope,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// What became of an event that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is in the inbox.
    New,
    /// The same event was stored before, with the same body; what was sent may be written differently.
    Known,
    /// Another event with this id was stored before: nothing was changed.
    Conflict,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboxStatus {
    /// It waits.
    Received,
    /// Somebody has claimed it, for as long as a lease.
    Processing,
    /// Its pulses are counted or known.
    Done,
    /// It was refused, or too many attempts ended without an answer.
    Failed,
}

impl InboxStatus {
    /// Every status, in the order of an event's life.
    pub const ALL: [Self; 4] = [Self::Received, Self::Processing, Self::Done, Self::Failed];

    /// The word for tables and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Processing => "processing",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The status with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

/// An event as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Names it; grows with the order of arrival.
    pub id: i64,
    /// Who sent it.
    pub source: String,
    /// Its id within the source.
    pub event_id: String,
    /// Where it stands.
    pub status: InboxStatus,
    /// How often it was claimed.
    pub attempts: u32,
    /// Why the last attempt did not end well.
    pub last_error: Option<String>,
    /// When it arrived.
    pub received_at: Timestamp,
    /// When it was done or failed for good.
    pub processed_at: Option<Timestamp>,
    /// The bytes as they were sent.
    pub original: Vec<u8>,
}

/// Which events, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxFilter {
    /// Only with this status.
    pub status: Option<InboxStatus>,
    /// Only of this source.
    pub source: Option<String>,
    /// Only with a smaller id: the last of the page before.
    pub before: Option<i64>,
    /// The most entries, at least 1.
    pub limit: u32,
}

/// What became of the wish to send a failed event round again, or to discard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dealt {
    /// It waits again, with its attempts counted from zero; or it is gone.
    Done,
    /// It has not failed, so nothing was done.
    NotFailed(InboxStatus),
    /// There is no such event.
    Unknown,
}

/// How many events stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxDepth {
    /// Waiting.
    pub received: u64,
    /// Claimed.
    pub processing: u64,
    /// Failed.
    pub failed: u64,
    /// When the oldest of those arrived that could be taken now: it is due, or its claim has ended without an answer.
    pub oldest: Option<Timestamp>,
    /// When an event was done last, of those that are still there.
    pub last_done: Option<Timestamp>,
}

/// Stores events durably, and lets people look after them.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// Stores events, all durable when it returns: one outcome for each, in order, repetitions within the call included.
    ///
    /// Idempotent by source and event id. All or nothing; a transient error says nothing about the effect.
    async fn store(&self, events: &[InboxEvent]) -> Result<Vec<Stored>, PortError>;

    /// The wanted events, newest first.
    async fn list(&self, filter: &InboxFilter) -> Result<Vec<InboxEntry>, PortError>;

    /// Lets a failed event wait again.
    async fn retry(&self, id: i64) -> Result<Dealt, PortError>;

    /// Removes a failed event. The same event is new when it is stored again.
    async fn discard(&self, id: i64) -> Result<Dealt, PortError>;

    /// Removes at most some thousand events that were done before a moment; how many. Call again while it is not 0.
    async fn remove_done(&self, before: Timestamp) -> Result<u64, PortError>;

    /// How many events stand where.
    async fn depth(&self) -> Result<InboxDepth, PortError>;
}
