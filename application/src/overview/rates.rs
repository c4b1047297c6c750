//! From two looks at counters to what happens per second.

use crate::ports::ShardCounts;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Over how long a time a rate is taken at most.
const LONGEST: Duration = Duration::from_secs(10);
/// How far two looks are apart at least, so that a rate is more than noise.
const SHORTEST: Duration = Duration::from_secs(1);

/// The last looks at the counters.
#[derive(Debug, Default)]
pub struct RateWindow {
    looks: VecDeque<(Instant, ShardCounts)>,
}

/// Whole pulses per second over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Counted and known ones together.
    pub received: u64,
    /// Counted.
    pub counted: u64,
    /// Known.
    pub duplicates: u64,
}

impl RateWindow {
    /// Notes a look and compares it with the oldest of the last ten seconds, or the latest before these; `None` after the
    /// first look and where the counters went back: they are another accumulator's.
    pub fn note(&mut self, now: Instant, counts: ShardCounts) -> Option<Rates> {
        let gone_back =
            |last: ShardCounts| counts.counted < last.counted || counts.duplicates < last.duplicates;
        if self.looks.back().is_some_and(|(_, last)| gone_back(*last)) {
            self.looks.clear();
        }
        // The second one is kept while it is old enough, so that there is always one to compare with.
        while self.looks.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= LONGEST) {
            self.looks.pop_front();
        }
        let rates = self.looks.front().and_then(|(then, before)| {
            let elapsed = now.duration_since(*then);
            (elapsed >= SHORTEST).then(|| Rates::between(*before, counts, elapsed))
        });
        if self.looks.back().is_none_or(|(then, _)| now.duration_since(*then) >= SHORTEST) {
            self.looks.push_back((now, counts));
        }
        rates
    }
}

impl Rates {
    fn between(before: ShardCounts, after: ShardCounts, elapsed: Duration) -> Self {
        let per_second = |before: u64, after: u64| {
            let rate = u128::from(after.saturating_sub(before)) * 1_000 / elapsed.as_millis().max(1);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let received = |counts: ShardCounts| counts.counted.saturating_add(counts.duplicates);
        Self {
            received: per_second(received(before), received(after)),
            counted: per_second(before.counted, after.counted),
            duplicates: per_second(before.duplicates, after.duplicates),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counted: u64, duplicates: u64) -> ShardCounts {
        ShardCounts { counted, duplicates, anonymous: 0 }
    }

    #[test]
    fn a_rate_is_what_was_added_per_second_over_the_last_ten_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = RateWindow::default();
        assert_eq!(window.note(at(0), counts(1_000, 0)), None);
        assert_eq!(window.note(start + Duration::from_millis(500), counts(1_500, 0)), None);
        let expected = Rates { received: 600, counted: 500, duplicates: 100 };
        assert_eq!(window.note(at(2), counts(2_000, 200)), Some(expected));
        for second in 3..=12 {
            window.note(at(second), counts(2_000, 200));
        }
        assert_eq!(window.note(at(13), counts(2_000, 200)), Some(Rates::default()), "it is quiet");
        let long_after = window.note(at(113), counts(3_000, 200));
        assert_eq!(long_after, Some(Rates { received: 10, counted: 10, duplicates: 0 }));
        assert!(window.looks.len() < 12, "looks are bounded");
    }

    #[test]
    fn counters_that_went_back_have_no_rate() {
        let start = Instant::now();
        let mut window = RateWindow::default();
        window.note(start, counts(1_000, 0));
        assert_eq!(window.note(start + Duration::from_secs(5), counts(10, 0)), None);
        let next = window.note(start + Duration::from_secs(6), counts(20, 0));
        assert_eq!(next.map(|rates| rates.counted), Some(10));
    }
}
