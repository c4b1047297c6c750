//! Publishes what was refused, and finishes it once that is confirmed.

use super::{
    Tally,
    in_flight::{Origin, finish_all},
};
use crate::{
    crash_point,
    ports::{DeadLetter, DeadLetters, PortError},
    retry::Dependency,
};
use domain::{Rejection, content_hash};
use std::{fmt::Write, sync::Arc};
use tokio::sync::mpsc;

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
            item: origin.item,
            source: self.source_name.clone(),
            place: delivery.log.as_ref().map(|reading| (reading.log.clone(), delivery.sequence)),
            envelope: delivery.envelope.clone(),
            received_at: delivery.received_at,
        }
    }
}

/// The same for the same bytes at the same place of the same message, which is known by its place in a log, its own id or its whole content.
fn letter_id(source: &str, origin: &Origin) -> String {
    let delivery = &origin.in_flight.delivery;
    let item = origin.item.map_or_else(Vec::new, |item| item.to_be_bytes().to_vec());
    let bytes = &delivery.body[origin.bytes.clone()];
    let place = delivery.log.as_ref().map(|reading| format!("{}@{}", reading.log, delivery.sequence));
    let (kind, message): (&[u8], &[u8]) = match (&place, delivery.envelope.message_id.as_deref()) {
        (Some(place), _) => (b"log", place.as_bytes()),
        (None, Some(id)) if !id.is_empty() => (b"id", id.as_bytes()),
        _ => (b"body", origin.in_flight.content_hash()),
    };
    let hash = content_hash(&[source.as_bytes(), kind, message, &item, bytes]);
    hash.iter().fold(String::with_capacity(32), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
