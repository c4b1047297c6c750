//! A queue of RabbitMQ as the place of refused messages.

use super::{
    RabbitmqSettings,
    envelope::{header_table, properties},
    outlet::{Outlet, Parcel, Target, Undelivered},
};
use application::{
    crash_point,
    ports::{DeadLetter, DeadLetters, PortError},
};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat};
use domain::Timestamp;
use lapin::BasicProperties;

/// The headers of a dead letter. The source's own headers keep their names beside them.
pub mod header {
    /// The code of the reason.
    pub const REASON: &str = "x-pulse-reason";
    /// What exactly was wrong.
    pub const DETAIL: &str = "x-pulse-detail";
    /// Which pulse of the message, from 0; absent for the whole message.
    pub const ITEM: &str = "x-pulse-item";
    /// The name of the source.
    pub const SOURCE: &str = "x-pulse-source";
    /// The original message's id, where it had one.
    pub const MESSAGE_ID: &str = "x-pulse-message-id";
    /// The original message's routing key, where it had one.
    pub const ROUTING_KEY: &str = "x-pulse-routing-key";
    /// The original message's offset, where it came from a stream.
    pub const OFFSET: &str = "x-pulse-offset";
    /// When the message arrived: RFC 3339, UTC.
    pub const RECEIVED_AT: &str = "x-pulse-received-at";
}

/// Publishes to the dead-letter queue over a connection of its own, which opens with the first letter.
///
/// The letter's id is the message's id. The queue is declared anew with each connection, so that one that was deleted is
/// there again when the letters are published again.
pub struct RabbitmqDeadLetters {
    queue: String,
    outlet: Outlet,
}

impl RabbitmqDeadLetters {
    /// Dead letters that connect with the first of them.
    #[must_use]
    pub fn new(settings: RabbitmqSettings) -> Self {
        Self { queue: settings.dead_letter_queue.clone(), outlet: Outlet::new(settings, Target::DeadLetters) }
    }

    /// Closes the connection in order, within a few seconds.
    ///
    /// # Errors
    /// Where the broker does not answer. Every letter of a call that succeeded is stored all the same.
    pub async fn close(&self) -> Result<(), PortError> {
        self.outlet.close().await
    }
}

#[async_trait]
impl DeadLetters for RabbitmqDeadLetters {
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        const OPERATION: &str = "publish dead letters to RabbitMQ";
        if letters.is_empty() {
            return Ok(());
        }
        let parcels = letters.iter().map(|letter| Parcel {
            exchange: "",
            routing_key: &self.queue,
            body: &letter.body,
            properties: letter_properties(letter),
        });
        let publish = self.outlet.publish(OPERATION, parcels);
        crash_point::within("dead_letter_after_publish", publish).await.map_err(|error| match error {
            Undelivered::Failed(error) => error,
            // Deleted meanwhile; the next connection declares it.
            Undelivered::Unroutable(answer) => PortError::transient(OPERATION, answer),
        })
    }
}

fn letter_properties(letter: &DeadLetter) -> BasicProperties {
    let envelope = &letter.envelope;
    let item = letter.item.map(|item| item.to_string());
    let received_at = rfc3339(letter.received_at);
    let offset = letter.place.as_ref().map(|(_, offset)| offset.to_string());
    let ours = [
        (header::REASON, Some(letter.rejection.reason.code())),
        (header::DETAIL, Some(letter.rejection.detail.as_str())),
        (header::ITEM, item.as_deref()),
        (header::SOURCE, Some(letter.source.as_str())),
        (header::MESSAGE_ID, envelope.message_id.as_deref()),
        (header::ROUTING_KEY, envelope.routing_key.as_deref()),
        (header::OFFSET, offset.as_deref()),
        (header::RECEIVED_AT, Some(received_at.as_str())),
    ];
    let ours = ours.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let theirs = envelope.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers = header_table(ours.chain(theirs.filter(|(name, _)| !is_ours(name))));
    properties(Some(&letter.id), envelope.content_type.as_deref(), headers)
}

/// Also those that this letter does not have: a header of an earlier refusal must not pass for one of this.
fn is_ours(name: &str) -> bool {
    name.starts_with("x-pulse-")
}

fn rfc3339(time: Timestamp) -> String {
    let time = DateTime::from_timestamp(time.seconds(), time.nanos()).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
