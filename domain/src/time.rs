//! Points in time and the hours that usage is billed by.

use std::fmt;

const SECONDS_PER_HOUR: i64 = 3_600;

/// A point in time: seconds and nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// The point `nanos` (0 to 999,999,999) after the second; a larger value is held at the end of that second,
    /// which is where RFC 3339's leap second lies.
    #[must_use]
    pub const fn new(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos: if nanos > 999_999_999 { 999_999_999 } else { nanos } }
    }

    /// Seconds since 1970, negative before.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    #[must_use]
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

/// One hour of UTC, counted from 1970-01-01T00:00:00Z: what `hourly_usage.window_start` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HourWindow(i32);

impl HourWindow {
    /// The hour that holds the point in time; hours outside of 32 bits (the year 240,000) are held at the ends.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        let hours = time.seconds.div_euclid(SECONDS_PER_HOUR);
        Self(i32::try_from(hours).unwrap_or(if hours < 0 { i32::MIN } else { i32::MAX }))
    }

    /// The hour with this number, 0 for the first of 1970.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Hours since 1970, negative before.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The first second of the hour, since 1970.
    #[must_use]
    pub const fn start_seconds(self) -> i64 {
        self.0 as i64 * SECONDS_PER_HOUR
    }
}

impl fmt::Display for HourWindow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "hour {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_holds_its_first_and_its_last_second() {
        let cases =
            [(0, 0), (3_599, 0), (3_600, 1), (-1, -1), (-3_600, -1), (-3_601, -2), (i64::MAX, i32::MAX)];
        for (seconds, hour) in cases {
            assert_eq!(HourWindow::of(Timestamp::new(seconds, 0)).number(), hour, "{seconds}");
        }
        assert_eq!(HourWindow::from_number(-2).start_seconds(), -7_200);
    }
}
