//! What the flushes of this program have done.

use crate::{
    flush_usage::FlushSummary,
    histogram::{Histogram, HistogramSnapshot},
};
use domain::Timestamp;
use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of how long flushes take, in milliseconds.
const MILLIS: &[u64] = &[10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000];

/// Running counts; they begin at zero with the program and are no part of the books.
#[derive(Debug)]
pub struct FlushTally {
    millis: Histogram,
    generations: AtomicU64,
    rows: AtomicU64,
    pulses: AtomicU64,
    /// In seconds since 1970; 0 before the first.
    last: AtomicI64,
}

/// The counts of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushTallySnapshot {
    /// How long flushes took, in milliseconds, from their begin to their end, waiting for stores included.
    pub millis: HistogramSnapshot,
    /// Generations that they wrote.
    pub generations: u64,
    /// Hourly totals that they added to.
    pub rows: u64,
    /// Pulses in them.
    pub pulses: u64,
    /// The second in which the last one ended; `None` before the first.
    pub last: Option<i64>,
}

impl Default for FlushTally {
    fn default() -> Self {
        Self {
            millis: Histogram::new(MILLIS),
            generations: AtomicU64::default(),
            rows: AtomicU64::default(),
            pulses: AtomicU64::default(),
            last: AtomicI64::default(),
        }
    }
}

impl FlushTally {
    /// A flush has succeeded, `now`, and took so long.
    pub fn flushed(&self, summary: &FlushSummary, took: Duration, now: Timestamp) {
        self.millis.add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        self.generations.fetch_add(summary.generations, Ordering::Relaxed);
        self.rows.fetch_add(summary.rows, Ordering::Relaxed);
        self.pulses.fetch_add(summary.pulses, Ordering::Relaxed);
        self.last.store(now.seconds(), Ordering::Relaxed);
    }

    /// The counts as they are.
    #[must_use]
    pub fn snapshot(&self) -> FlushTallySnapshot {
        FlushTallySnapshot {
            millis: self.millis.snapshot(),
            generations: self.generations.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            pulses: self.pulses.load(Ordering::Relaxed),
            last: Some(self.last.load(Ordering::Relaxed)).filter(|seconds| *seconds != 0),
        }
    }
}
