//! What the engine has done, counted per batch.

use super::{effect::Effect, in_flight::Origin};
use crate::ports::Outcome;
use domain::Reason;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

/// Running counts of one run of the engine; they begin at zero with it and are no part of the books.
#[derive(Debug)]
pub struct Tally {
    messages: AtomicU64,
    counted: AtomicU64,
    duplicates: AtomicU64,
    anonymous: AtomicU64,
    rejected: Mutex<BTreeMap<Reason, u64>>,
    last_received: Mutex<Instant>,
}

/// The counts of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TallySnapshot {
    /// Messages received, those that came again included.
    pub messages: u64,
    /// Pulses counted. One whose batch had to be repeated after a lost reply may stand under `duplicates` instead.
    pub counted: u64,
    /// Pulses whose identity was known with the same content.
    pub duplicates: u64,
    /// Pulses that nothing identifies, neither an id nor a place in a log: all of them count.
    pub anonymous: u64,
    /// Pulses, or whole messages, that were refused and whose dead letter is confirmed, by reason.
    pub rejected: BTreeMap<Reason, u64>,
}

impl TallySnapshot {
    /// All that were refused, for whatever reason.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            messages: AtomicU64::default(),
            counted: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            anonymous: AtomicU64::default(),
            rejected: Mutex::default(),
            last_received: Mutex::new(Instant::now()),
        }
    }
}

impl Tally {
    /// The counts as they are.
    ///
    /// # Panics
    /// Never: no holder of its locks can panic.
    #[must_use]
    pub fn snapshot(&self) -> TallySnapshot {
        TallySnapshot {
            messages: self.messages.load(Ordering::Relaxed),
            counted: self.counted.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            anonymous: self.anonymous.load(Ordering::Relaxed),
            rejected: self.rejected.lock().expect("no holder of this lock can panic").clone(),
        }
    }

    pub(super) fn received(&self, messages: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        *self.last_received.lock().expect("no holder of this lock can panic") = Instant::now();
    }

    pub(super) fn last_received(&self) -> Instant {
        *self.last_received.lock().expect("no holder of this lock can panic")
    }

    pub(super) fn applied<E: Effect>(&self, items: &[E::Item], origins: &[Origin], outcomes: &[Outcome]) {
        let of = |outcome| outcomes.iter().filter(|other| **other == outcome).count() as u64;
        let anonymous =
            items.iter().zip(origins).filter(|(item, origin)| E::is_anonymous(item, origin)).count();
        self.counted.fetch_add(of(Outcome::Counted), Ordering::Relaxed);
        self.duplicates.fetch_add(of(Outcome::Duplicate), Ordering::Relaxed);
        self.anonymous.fetch_add(anonymous as u64, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self, reason: Reason) {
        *self.rejected.lock().expect("no holder of this lock can panic").entry(reason).or_default() += 1;
    }
}
