//! What a store must be able to do with its table of events: each method is one transaction, durable when it returns.

use application::ports::{
    DeadLetter, Dealt, Envelope, InboxDepth, InboxEntry, InboxEvent, InboxFilter, PortError,
};
use async_trait::async_trait;
use domain::{Timestamp, check_text};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};
use tracing::warn;

/// Says which events have failed for good as their leases were ended: the id and the new status of each.
pub(crate) fn warn_of_failed(ended: &[(i64, String)]) {
    for (id, _) in ended.iter().filter(|(_, status)| status == "failed") {
        warn!(
            id,
            "an event of the inbox has ended its workers too often and has failed: see `app webhooks list --status failed`"
        );
    }
}

/// How many events [`InboxTable::remove_done`] removes at most.
pub(crate) const REMOVED_MAX: u32 = 2_000;
/// How many expired leases one claim looks after.
pub(crate) const EXPIRED_MAX: u32 = 1_000;
/// After so many claims without an answer an event may be what ends its workers: it is claimed with nothing beside it,
/// and has failed only after such a claim.
pub(crate) const SUSPECT_ATTEMPTS: u32 = 3;
/// The longest wait before the next attempt.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// SHA-256 of what was sent.
pub(crate) type ContentHash = [u8; 32];

/// An event that was checked, as it is written.
#[derive(Debug)]
pub(crate) struct NewRow {
    pub(crate) event: InboxEvent,
    pub(crate) envelope: String,
    pub(crate) hash: ContentHash,
}

/// Events and what people do with them.
#[async_trait]
pub(crate) trait InboxTable: Send + Sync + 'static {
    /// Inserts what is not there. For each row, in order: `None` where it is new, otherwise the hash of what was there.
    ///
    /// No two rows are of one event.
    async fn insert(&self, rows: &[NewRow]) -> Result<Vec<Option<ContentHash>>, PortError>;

    async fn list(&self, filter: &InboxFilter) -> Result<Vec<InboxEntry>, PortError>;

    async fn retry(&self, id: i64) -> Result<Dealt, PortError>;

    async fn discard(&self, id: i64) -> Result<Dealt, PortError>;

    async fn remove_done(&self, before: Timestamp) -> Result<u64, PortError>;

    async fn depth(&self) -> Result<InboxDepth, PortError>;
}

/// A wish for events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    /// Who asks.
    pub(crate) owner: &'a str,
    /// The most events.
    pub(crate) events: u32,
    /// Stop after the event with which their bodies come to this many bytes.
    pub(crate) bytes: u32,
    /// How long they are kept for the owner.
    pub(crate) lease: Duration,
    /// Whether the owner holds nothing: only then may it have an event that is claimed alone.
    pub(crate) may_be_alone: bool,
    /// When an event that nobody answers for has failed.
    pub(crate) attempts_max: u32,
    /// How long it waits after the first attempt.
    pub(crate) retry_after: Duration,
}

/// An event that an owner has.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    /// Which of its claims this is, from 1.
    pub(crate) attempt: u32,
    pub(crate) source: String,
    pub(crate) event_id: String,
    pub(crate) body: Vec<u8>,
    pub(crate) envelope: Envelope,
    pub(crate) received_at: Timestamp,
}

impl Claimed {
    /// Whether nothing may be claimed beside it.
    pub(crate) const fn is_alone(&self) -> bool {
        self.attempt > SUSPECT_ATTEMPTS
    }
}

/// One claim of an event: whoever claims it again, be it the same owner, has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) id: i64,
    pub(crate) attempt: u32,
}

/// Events and what workers do with them. Leases are told by the clock of the store.
#[async_trait]
pub(crate) trait InboxClaims: Send + Sync + 'static {
    /// Lets events whose lease has ended wait again or fail, then takes the oldest that are due, in order.
    ///
    /// One with [`SUSPECT_ATTEMPTS`] is taken alone, where that may be; otherwise it ends the claim, so that its turn comes.
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, PortError>;

    /// Prolongs the leases of those that the owner still has.
    async fn renew(&self, owner: &str, ids: &[i64], lease: Duration) -> Result<(), PortError>;

    /// Ends those that the owner still has by these claims: as done, or as failed where something was refused of them.
    ///
    /// One that it has by a later claim is left alone: what was refused of it is not written down anew yet.
    async fn settle(&self, owner: &str, claims: &[Claimant]) -> Result<(), PortError>;

    /// Whether no event waits or is claimed, by whomever.
    async fn is_drained(&self) -> Result<bool, PortError>;

    /// Lets everything that the owner has wait again, as if it had not been claimed.
    async fn release(&self, owner: &str) -> Result<(), PortError>;

    /// Writes down what was refused, by event, and keeps the letters themselves where the store has a place for them.
    ///
    /// Idempotent. An event that is done already has failed then.
    async fn refuse(
        &self,
        refusals: &BTreeMap<i64, Vec<String>>,
        letters: &[DeadLetter],
    ) -> Result<(), PortError>;
}

impl NewRow {
    /// Checks the event: a single one that no store can take must not fail those that are stored beside it.
    pub(crate) fn new(operation: &'static str, event: InboxEvent) -> Result<Self, PortError> {
        for (what, text) in [("source", &event.source), ("event id", &event.event_id)] {
            check_text(text).map_err(|error| {
                PortError::permanent(operation, format!("the {what} of an event {error}"))
            })?;
        }
        let hash = Sha256::digest(&event.body).into();
        Ok(Self { envelope: envelope_to_json(&event.envelope), hash, event })
    }

    /// What makes it the same event as another.
    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.event.source, &self.event.event_id)
    }

    /// How much memory it stands for.
    pub(crate) fn bytes(&self) -> usize {
        let InboxEvent { original, body, source, event_id, .. } = &self.event;
        original.as_ref().map_or(0, Vec::len)
            + body.len()
            + source.len()
            + event_id.len()
            + self.envelope.len()
    }
}

fn envelope_to_json(envelope: &Envelope) -> String {
    let Envelope { message_id, content_type, routing_key, headers } = envelope;
    let members = [("message_id", message_id), ("content_type", content_type), ("routing_key", routing_key)];
    let mut object: serde_json::Map<String, Value> = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
        .collect();
    if !headers.is_empty() {
        object.insert("headers".to_owned(), json!(headers));
    }
    Value::Object(object).to_string()
}

/// The envelope as [`NewRow`] wrote it.
pub(crate) fn envelope_from_json(text: &str) -> Result<Envelope, serde_json::Error> {
    let mut value: Value = serde_json::from_str(text)?;
    let mut text = |name: &str| serde_json::from_value(value[name].take());
    Ok(Envelope {
        message_id: text("message_id")?,
        content_type: text("content_type")?,
        routing_key: text("routing_key")?,
        headers: match value["headers"].take() {
            Value::Null => Vec::new(),
            headers => serde_json::from_value(headers)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_as_it_was_written() {
        let some = |text: &str| Some(text.to_owned());
        let full = Envelope {
            message_id: some("6f1c\u{0}\u{e9}"),
            content_type: some("application/json"),
            routing_key: some("a.b"),
            headers: vec![("ce-type".to_owned(), "\"x\"".to_owned()), ("empty".to_owned(), String::new())],
        };
        for envelope in [full, Envelope::default()] {
            assert_eq!(envelope_from_json(&envelope_to_json(&envelope)).unwrap(), envelope);
        }
        assert_eq!(envelope_to_json(&Envelope::default()), "{}");
    }
}
