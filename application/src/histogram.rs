//! How often measurements were how large: cheap to add to from many tasks at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of whole numbers in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above the last.
    buckets: Vec<AtomicU64>,
    sum: AtomicU64,
}

/// A [`Histogram`] as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// The upper bounds of the buckets, ascending; each belongs to its bucket.
    pub bounds: &'static [u64],
    /// How many measurements fell into each bucket and into no smaller one; the last is for those above all bounds.
    pub buckets: Vec<u64>,
    /// All measurements added up.
    pub sum: u64,
}

impl Histogram {
    /// Empty, with these upper bounds, which ascend.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, buckets, sum: AtomicU64::default() }
    }

    /// Adds a measurement.
    pub fn add(&self, measured: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < measured);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(measured, Ordering::Relaxed);
    }

    /// The counts as they are.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: self.bounds,
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1, 10]);
        for measured in [0, 1, 2, 10, 11, 1_000] {
            histogram.add(measured);
        }
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.buckets, snapshot.sum), (vec![2, 2, 2], 1_024));
    }
}
