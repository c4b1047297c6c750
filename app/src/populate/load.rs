//! Where the messages of a load come from: made up, or the lines of a file.

use super::{
    events::EventRecipe,
    payments,
    shapes::{PurchaseRecipe, TaskRecipe},
};
use crate::ingest;
use application::{
    decode::Decoder,
    populate::{Dice, Made, Recipe},
    ports::Delivery,
};
use domain::{AccumulatorId, IdentityKey, Pulse, PulseDigest, Timestamp};
use infrastructure::{file::FileSource, rabbitmq::OutgoingMessage};
use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Messages for one publisher.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) messages: Vec<OutgoingMessage>,
    /// The pulses in them that no other chunk has.
    pub(super) fresh: Vec<Pulse>,
}

/// A source of messages that several publishers draw from.
pub(super) enum Load {
    Made(MadeLoad),
    File(Box<FileLoad>),
}

impl Load {
    /// How many messages there are, where that is known.
    pub(super) const fn total(&self) -> Option<u64> {
        match self {
            Self::Made(load) => Some(load.total),
            Self::File(load) => load.total,
        }
    }

    /// About so many of the next messages; `None` after the last.
    pub(super) async fn next(&self, at_once: usize, now: Timestamp) -> anyhow::Result<Option<Chunk>> {
        match self {
            Self::Made(load) => Ok(load.next(at_once, now)),
            Self::File(load) => load.next(at_once, now).await,
        }
    }
}

/// Takes the next numbers of those that are left.
fn take(next: &AtomicU64, at_once: usize, total: u64) -> Range<u64> {
    let start = next.fetch_add(at_once as u64, Ordering::Relaxed).min(total);
    start..(start + at_once as u64).min(total)
}

/// What is made up.
#[derive(Clone, Copy)]
pub(super) enum Making {
    /// Native pulses.
    Pulses(Recipe),
    /// Events of users.
    Events(EventRecipe),
    /// Purchases of trainings.
    Purchases(PurchaseRecipe),
    /// Tasks of customers.
    Tasks(TaskRecipe),
    /// Events of payments.
    Payments(Recipe),
}

/// Made-up messages.
pub(super) struct MadeLoad {
    making: Making,
    total: u64,
    next: AtomicU64,
}

impl MadeLoad {
    pub(super) const fn new(making: Making, total: u64) -> Self {
        Self { making, total, next: AtomicU64::new(0) }
    }

    fn next(&self, at_once: usize, now: Timestamp) -> Option<Chunk> {
        let numbers = take(&self.next, at_once, self.total);
        let mut chunk = Chunk::default();
        for number in numbers {
            let (Made { message_id, body, fresh }, routing_key) = match self.making {
                Making::Pulses(recipe) => (recipe.message(number), None),
                Making::Purchases(recipe) => (recipe.message(number), None),
                Making::Tasks(recipe) => (recipe.message(number, now), None),
                Making::Payments(recipe) => (payments::message(&recipe, number), None),
                Making::Events(recipe) => {
                    let (made, routing_key) = recipe.message(number);
                    (made, Some(routing_key))
                }
            };
            chunk.fresh.extend(fresh);
            chunk.messages.push(OutgoingMessage {
                body,
                message_id: Some(message_id),
                content_type: Some("application/json".to_owned()),
                routing_key,
                ..OutgoingMessage::default()
            });
        }
        (!chunk.messages.is_empty()).then_some(chunk)
    }
}

/// The lines of a file, each a message.
pub(super) struct FileLoad {
    source: FileSource,
    total: Option<u64>,
    left: AtomicU64,
    /// The seed, and how many of 100 lines are published twice.
    repeats: (u64, u8),
    decoder: Decoder,
    /// The identities of the pulses so far, where they are counted: sixteen bytes each.
    seen: Option<Mutex<HashSet<PulseDigest>>>,
}

impl FileLoad {
    pub(super) fn new(
        source: FileSource,
        total: Option<u64>,
        repeats: (u64, u8),
        decoder: Decoder,
        counts: bool,
    ) -> Self {
        let left = AtomicU64::new(total.unwrap_or(u64::MAX));
        Self { source, total, left, repeats, decoder, seen: counts.then(Mutex::default) }
    }

    async fn next(&self, at_once: usize, now: Timestamp) -> anyhow::Result<Option<Chunk>> {
        let Some(lines) = ingest::next(&self.source, at_once).await? else { return Ok(None) };
        let mut chunk = Chunk::default();
        for line in lines {
            if !self.take_one() {
                break;
            }
            chunk.fresh.extend(self.fresh(&line, now));
            let repeated = self.is_repeated(&line) && self.take_one();
            let message = ingest::outgoing(line);
            if repeated {
                chunk.messages.push(message.clone());
            }
            chunk.messages.push(message);
        }
        Ok((!chunk.messages.is_empty()).then_some(chunk))
    }

    fn take_one(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn is_repeated(&self, line: &Delivery) -> bool {
        let (seed, percent) = self.repeats;
        Dice::new(seed, line.sequence, 0).below(100) < u64::from(percent)
    }

    /// The good pulses of the line that were not met before. Those without an identity are known by the line's.
    fn fresh(&self, line: &Delivery, now: Timestamp) -> Vec<Pulse> {
        let Some(seen) = &self.seen else { return Vec::new() };
        let mut items = Vec::new();
        self.decoder.decode(&Delivery { received_at: now, ..line.clone() }, &mut items);
        let key = identity_key();
        let mut seen = seen.lock().expect("no holder of this lock can panic");
        items
            .into_iter()
            .filter_map(|item| item.pulse.ok())
            .filter(|pulse| {
                let digest = pulse.identity.as_ref().map(|identity| key.digest(&pulse.tenant, identity));
                digest.is_none_or(|digest| seen.insert(digest))
            })
            .collect()
    }
}

/// Any key does: the digests never leave the process.
const fn identity_key() -> IdentityKey {
    AccumulatorId::from_bytes([0; 16]).identity_key()
}
