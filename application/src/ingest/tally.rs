//! What the engine has done, counted per batch.

use super::{effect::Effect, in_flight::Origin};
use crate::{
    histogram::{Histogram, HistogramSnapshot},
    ports::Outcome,
    retry::Dependency,
};
use domain::Reason;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Upper bounds of the sizes of batches, in pulses.
const SIZES: &[u64] = &[1, 10, 50, 100, 250, 500, 1_000, 2_000, 4_000];
/// Upper bounds of how long batches take, in microseconds.
const MICROS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// Running counts of one run of the engine; they begin at zero with it and are no part of the books.
#[derive(Debug)]
pub struct Tally {
    messages: AtomicU64,
    counted: AtomicU64,
    duplicates: AtomicU64,
    anonymous: AtomicU64,
    rejected: Mutex<BTreeMap<Reason, u64>>,
    last_received: Mutex<Instant>,
    batch_sizes: Histogram,
    apply_micros: Histogram,
    /// One for each part of the world that the engine calls.
    dependencies: Mutex<Vec<Arc<Dependency>>>,
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
    /// How many pulses each batch held that was applied.
    pub batch_sizes: HistogramSnapshot,
    /// How long each of them took to become durable, in microseconds, waiting for the sink included.
    pub apply_micros: HistogramSnapshot,
    /// How many calls were made again, by the name of what was away.
    pub retries: BTreeMap<String, u64>,
    /// What is away: a call to it has failed and is about to be made again.
    pub away: BTreeSet<String>,
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
            batch_sizes: Histogram::new(SIZES),
            apply_micros: Histogram::new(MICROS),
            dependencies: Mutex::default(),
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
        let (mut retries, mut away) = (BTreeMap::new(), BTreeSet::new());
        for dependency in self.dependencies.lock().expect("no holder of this lock can panic").iter() {
            *retries.entry(dependency.name().to_owned()).or_default() += dependency.retries();
            if dependency.is_away() {
                away.insert(dependency.name().to_owned());
            }
        }
        TallySnapshot {
            messages: self.messages.load(Ordering::Relaxed),
            counted: self.counted.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            anonymous: self.anonymous.load(Ordering::Relaxed),
            rejected: self.rejected.lock().expect("no holder of this lock can panic").clone(),
            batch_sizes: self.batch_sizes.snapshot(),
            apply_micros: self.apply_micros.snapshot(),
            retries,
            away,
        }
    }

    /// A part of the world that the engine calls from now on.
    pub(super) fn depends_on(&self, name: impl Into<String>) -> Arc<Dependency> {
        let dependency = Arc::new(Dependency::new(name));
        let mut dependencies = self.dependencies.lock().expect("no holder of this lock can panic");
        dependencies.push(Arc::clone(&dependency));
        dependency
    }

    pub(super) fn received(&self, messages: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        *self.last_received.lock().expect("no holder of this lock can panic") = Instant::now();
    }

    pub(super) fn last_received(&self) -> Instant {
        *self.last_received.lock().expect("no holder of this lock can panic")
    }

    /// A batch is durable, after so long.
    pub(super) fn applied<E: Effect>(
        &self,
        items: &[E::Item],
        origins: &[Origin],
        outcomes: &[Outcome],
        took: Duration,
    ) {
        self.batch_sizes.add(items.len() as u64);
        self.apply_micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
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
