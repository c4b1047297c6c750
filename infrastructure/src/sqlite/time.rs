//! Points in time as the file holds them.

use super::fault::refusal;
use application::ports::PortError;
use chrono::{DateTime, SecondsFormat};
use domain::Timestamp;
use std::time::Duration;

/// RFC 3339 in UTC; a point outside of its years as seconds since 1970.
pub(super) fn text(time: Timestamp) -> String {
    DateTime::from_timestamp(time.seconds(), time.nanos())
        .map_or_else(|| time.seconds().to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// As the file itself writes the time, always with three digits after the second, so that texts sort like times.
pub(super) fn exact_milliseconds(time: Timestamp) -> String {
    DateTime::from_timestamp(time.seconds(), time.nanos())
        .map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The point in time that [`text`] wrote.
pub(super) fn parse(operation: &'static str, text: &str) -> Result<Timestamp, PortError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Timestamp::new(seconds, 0));
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(refusal(operation))?;
    Ok(Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos()))
}

/// Milliseconds since 1970, held at the ends of 64 bits.
pub(super) fn milliseconds(time: Timestamp) -> i64 {
    time.seconds().saturating_mul(1_000).saturating_add(i64::from(time.nanos() / 1_000_000))
}

/// A length of time in milliseconds, held at a quarter of 64 bits so that sums of a few fit.
pub(super) fn window(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// The clock of a shard: milliseconds of flushes, which one wrong time moves ahead by a quarter of the window at most,
/// and none moves back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) elapsed: i64,
    pub(super) latest: i64,
}

impl Clock {
    pub(super) fn advance(&mut self, now: i64, window: i64) {
        let step = now.saturating_sub(self.latest);
        if step > 0 {
            self.elapsed = self.elapsed.saturating_add(step.min(window / 4));
        }
        // Times a little back come from programs whose clocks differ, and wait until they have caught up; times that
        // are back by more than a window say that the latest was wrong.
        if step > 0 || step < -window {
            self.latest = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_time_is_written_as_rfc_3339() {
        assert_eq!(text(Timestamp::new(1_768_046_400, 0)), "2026-01-10T12:00:00Z");
        assert_eq!(text(Timestamp::new(1_768_046_400, 5)), "2026-01-10T12:00:00.000000005Z");
        assert_eq!(text(Timestamp::new(i64::MAX, 0)), i64::MAX.to_string());
    }

    #[test]
    fn the_clock_moves_a_quarter_at_once_and_never_back() {
        let mut clock = Clock { elapsed: 0, latest: 1_000 };
        for (now, elapsed, latest) in [
            (1_010, 10, 1_010),
            (9_000, 35, 9_000),
            (8_950, 35, 9_000),
            (9_001, 36, 9_001),
            (1_000, 36, 1_000),
            (1_002, 38, 1_002),
        ] {
            clock.advance(now, 100);
            assert_eq!((clock.elapsed, clock.latest), (elapsed, latest), "{now}");
        }
    }
}
