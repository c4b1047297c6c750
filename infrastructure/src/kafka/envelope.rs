//! What a Kafka message says about itself.

use application::ports::Envelope;
use chrono::Utc;
use domain::Timestamp;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};

/// The header that holds the media type (`CloudEvents` Kafka binding, section 3.2).
pub(super) const CONTENT_TYPE: &str = "content-type";
/// The header that holds the message's own id, where a producer gives it one.
pub(super) const MESSAGE_ID: &str = "message-id";

/// The key, the headers, and what two of them mean.
pub(super) fn envelope(message: &BorrowedMessage<'_>) -> Envelope {
    let mut envelope = Envelope { routing_key: message.key().map(text), ..Envelope::default() };
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let value = header.value.map(text).unwrap_or_default();
        match header.key {
            CONTENT_TYPE if envelope.content_type.is_none() => envelope.content_type = Some(value),
            MESSAGE_ID if envelope.message_id.is_none() => envelope.message_id = Some(value),
            name => envelope.headers.push((name.to_owned(), value)),
        }
    }
    envelope
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// When the message arrived in the log, by its own timestamp, so that it counts for the same hour whenever it is read;
/// now where it has none, or one that is yet to come.
pub(super) fn arrived(message: &BorrowedMessage<'_>) -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the source is where a message's time of arrival is taken")]
    let now = Utc::now();
    let now = Timestamp::new(now.timestamp(), now.timestamp_subsec_nanos());
    let Some(milliseconds) = message.timestamp().to_millis().filter(|milliseconds| *milliseconds > 0) else {
        return now;
    };
    let below_second = u32::try_from(milliseconds.rem_euclid(1_000)).unwrap_or_default();
    Timestamp::new(milliseconds.div_euclid(1_000), below_second * 1_000_000).min(now)
}
