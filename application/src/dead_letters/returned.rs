//! A letter as the message that goes back.

use crate::{
    decode::{HEADER_ITEM, first_item},
    ports::{Envelope, Returned, StoredLetter},
};
use domain::content_hash;

/// The header that counts how often a message was sent back.
pub const HEADER_REPLAYS: &str = "pulse-replays";
/// A letter that came back so often is only sent back where that is forced: what is refused again and again stays.
pub const REPLAYS_MAX: u32 = 3;

/// How often the message was sent back before.
#[must_use]
pub fn replays(envelope: &Envelope) -> u32 {
    let header = envelope.headers.iter().find(|(name, _)| name == HEADER_REPLAYS);
    header.and_then(|(_, count)| count.parse().ok()).unwrap_or_default()
}

/// The message that goes back for a letter.
///
/// Its pulse is known by what it was known by: an id in its body or its headers is sent as it was, an item of a message
/// keeps the id of that message and its place in it ([`HEADER_ITEM`]). A message without an id has one since it was
/// refused; in a letter of an older version it is made here, of the letter's id and the time of arrival.
#[must_use]
pub fn returned(number: u64, letter: StoredLetter) -> Returned {
    let StoredLetter { id, reason, body, item, source, envelope, received_at, .. } = letter;
    let item = item.unwrap_or_else(|| first_item(&envelope));
    let replays = replays(&envelope).saturating_add(1);
    let mut headers = vec![(HEADER_REPLAYS.to_owned(), replays.to_string())];
    if item > 0 {
        headers.push((HEADER_ITEM.to_owned(), item.to_string()));
    }
    let theirs = envelope.headers.into_iter();
    headers.extend(theirs.filter(|(name, _)| name != HEADER_REPLAYS && name != HEADER_ITEM));
    let made = || {
        let time = received_at.map(|time| format!("{}.{}", time.seconds(), time.nanos())).unwrap_or_default();
        let hash = content_hash(&[id.as_bytes(), time.as_bytes(), &body]);
        format!("refused-{:032x}", u128::from_be_bytes(hash))
    };
    // What is no letter of ours goes as it came.
    let message_id = envelope.message_id.or_else(|| (!reason.is_empty()).then(made));
    Returned { number, source, body, envelope: Envelope { message_id, headers, ..envelope } }
}
