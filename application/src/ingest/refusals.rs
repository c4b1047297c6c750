//! Publishes what was refused, and finishes it once that is confirmed.

use super::{
    Tally,
    in_flight::{Origin, finish_all},
};
use crate::{
    crash_point,
    decode::first_item,
    ports::{DeadLetter, DeadLetters, Delivery, Envelope, PortError},
    retry::Dependency,
};
use domain::{Rejection, content_hash};
use std::sync::Arc;
use tokio::sync::mpsc;

/// How the ids begin that messages without one get when they are refused.
const MADE_ID: &str = "refused-";

/// A refused pulse, or a message that no pulse could be read from.
pub(super) struct Refused {
    pub(super) origin: Origin,
    pub(super) rejection: Rejection,
}

pub(super) struct Refusals {
    pub(super) source_name: String,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    pub(super) dependency: Arc<Dependency>,
    pub(super) tally: Arc<Tally>,
    pub(super) refused: mpsc::Receiver<Refused>,
}

impl Refusals {
    /// How many refused pulses may wait to be published.
    pub(super) const QUEUE: usize = 1_000;
    const AT_ONCE: usize = 200;

    /// Publishes until nobody is left who could refuse anything.
    pub(super) async fn run(mut self) -> Result<(), PortError> {
        let mut refused = Vec::with_capacity(Self::AT_ONCE);
        while self.refused.recv_many(&mut refused, Self::AT_ONCE).await > 0 {
            let letters: Vec<DeadLetter> = refused.iter().map(|refused| self.letter(refused)).collect();
            crash_point::hit("dead_letter_before");
            self.dependency.hold(|| self.dead_letters.publish(&letters)).await?;
            crash_point::hit("dead_letter_after_confirm");
            finish_all(refused.drain(..).map(|Refused { origin, rejection }| {
                self.tally.rejected(rejection.reason);
                origin
            }));
        }
        Ok(())
    }

    fn letter(&self, refused: &Refused) -> DeadLetter {
        let Refused { origin, rejection } = refused;
        let delivery = &origin.in_flight.delivery;
        DeadLetter {
            id: letter_id(&self.source_name, origin),
            rejection: rejection.clone(),
            body: delivery.body[origin.bytes.clone()].to_vec(),
            item: item_of(origin),
            source: self.source_name.clone(),
            place: delivery.log.as_ref().map(|reading| (reading.log.clone(), delivery.sequence)),
            envelope: known(&self.source_name, delivery),
            received_at: delivery.received_at,
        }
    }
}

/// Which pulse of the original message it is: an item that came alone keeps its place.
fn item_of(origin: &Origin) -> Option<u32> {
    origin.item.map(|item| first_item(&origin.in_flight.delivery.envelope).saturating_add(item))
}

/// What the message said, with an id where it had none: the letter stands for one delivery of it, so that what is sent
/// back twice counts once, and two messages with the same bytes count twice.
fn known(source: &str, delivery: &Delivery) -> Envelope {
    let mut envelope = delivery.envelope.clone();
    if envelope.message_id.as_ref().is_none_or(String::is_empty) {
        let Delivery { partition, sequence, received_at, log, .. } = delivery;
        let place = match log {
            Some(reading) => format!("{}@{sequence}", reading.log),
            None => format!("{}/{sequence}@{}.{}", partition.0, received_at.seconds(), received_at.nanos()),
        };
        let hash = content_hash(&[source.as_bytes(), place.as_bytes(), &delivery.body]);
        envelope.message_id = Some(format!("{MADE_ID}{}", hex(hash)));
    }
    envelope
}

fn hex(hash: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(hash))
}

/// The same for the same bytes at the same place of the same message, which is known by its place in a log, its own id or its whole content.
fn letter_id(source: &str, origin: &Origin) -> String {
    let delivery = &origin.in_flight.delivery;
    let item = item_of(origin).map_or_else(Vec::new, |item| item.to_be_bytes().to_vec());
    let bytes = &delivery.body[origin.bytes.clone()];
    let place = delivery.log.as_ref().map(|reading| format!("{}@{}", reading.log, delivery.sequence));
    let (kind, message): (&[u8], &[u8]) = match (&place, delivery.envelope.message_id.as_deref()) {
        (Some(place), _) => (b"log", place.as_bytes()),
        (None, Some(id)) if !id.is_empty() => (b"id", id.as_bytes()),
        _ => (b"body", origin.in_flight.content_hash()),
    };
    hex(content_hash(&[source.as_bytes(), kind, message, &item, bytes]))
}
