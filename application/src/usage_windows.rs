//! Hours, days and months of a time zone, as spans of whole hours of UTC: the books know no others.

use chrono::{
    DateTime, Datelike, Days, MappedLocalTime, Months, NaiveDate, NaiveTime, Offset, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;
use domain::{HourWindow, Timestamp};

/// The most windows that are summed up at once.
pub const WINDOWS_MAX: usize = 10_000;

const SECONDS_PER_HOUR: i32 = 3_600;

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowLength {
    /// An hour.
    Hour,
    /// From midnight to midnight, by the clocks of the zone: 23 to 25 hours.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// Why there are no such windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A window would begin within an hour of UTC.
    #[error("{0} is not a whole number of hours off UTC then, and totals are kept by the hour")]
    NotWholeHours(Tz),
    /// The span is too long for windows of this length.
    #[error("the span holds more than {WINDOWS_MAX} windows: ask for a shorter span or longer windows")]
    TooMany,
    /// The span reaches beyond the calendar.
    #[error("the span reaches beyond the years that the calendar knows")]
    BeyondCalendar,
}

/// Where the windows of a span begin, and where the last one ends; nothing where the span is empty.
///
/// The first window holds `from` and the last the hour before `to`: they may reach beyond the span.
///
/// # Errors
/// See [`WindowError`].
pub fn window_bounds(
    length: WindowLength,
    zone: Tz,
    from: HourWindow,
    to: HourWindow,
) -> Result<Vec<HourWindow>, WindowError> {
    let bounds = first_window_bounds(length, zone, from, to)?;
    if bounds.last().is_some_and(|last| *last < to) { Err(WindowError::TooMany) } else { Ok(bounds) }
}

/// The same for the first [`WINDOWS_MAX`] windows of a span: it may go on after the last bound.
pub(crate) fn first_window_bounds(
    length: WindowLength,
    zone: Tz,
    from: HourWindow,
    to: HourWindow,
) -> Result<Vec<HourWindow>, WindowError> {
    let mut bounds = Vec::new();
    if from >= to {
        return Ok(bounds);
    }
    let mut next = Cursor::at(length, zone, from)?;
    loop {
        let bound = next.bound()?;
        bounds.push(bound);
        if bound >= to || bounds.len() > WINDOWS_MAX {
            return Ok(bounds);
        }
        next = next.step()?;
    }
}

/// Reads the bound of a span of hours: a date (midnight, UTC), or a full hour in RFC 3339.
///
/// # Errors
/// What is wrong, to stand after the text: totals are hourly, so a bound within an hour is refused instead of moved.
pub fn parse_bound(text: &str) -> Result<HourWindow, &'static str> {
    let seconds = if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        date.and_time(NaiveTime::MIN).and_utc().timestamp()
    } else {
        let time = DateTime::parse_from_rfc3339(text)
            .map_err(|_| "is neither a date (2013-01-31) nor a time in RFC 3339 (2013-01-31T11:00:00Z)")?;
        if time.timestamp() % i64::from(SECONDS_PER_HOUR) != 0 || time.timestamp_subsec_nanos() != 0 {
            return Err("is not a full hour of UTC: totals are kept by the hour");
        }
        time.timestamp()
    };
    Ok(HourWindow::of(Timestamp::new(seconds, 0)))
}

/// The hour as a time of the zone; `None` beyond the calendar.
#[must_use]
pub fn local_time(hour: HourWindow, zone: Tz) -> Option<DateTime<Tz>> {
    DateTime::<Utc>::from_timestamp(hour.start_seconds(), 0)?.with_timezone(&zone).into()
}

/// The beginning of a window.
#[derive(Clone, Copy)]
enum Cursor {
    Hour(HourWindow, Tz),
    Day(NaiveDate, Tz),
    Month(NaiveDate, Tz),
}

impl Cursor {
    fn at(length: WindowLength, zone: Tz, hour: HourWindow) -> Result<Self, WindowError> {
        let date = || local_time(hour, zone).map(|time| time.date_naive()).ok_or(WindowError::BeyondCalendar);
        Ok(match length {
            WindowLength::Hour => Self::Hour(hour, zone),
            WindowLength::Day => Self::Day(date()?, zone),
            WindowLength::Month => Self::Month(date()?.with_day(1).ok_or(WindowError::BeyondCalendar)?, zone),
        })
    }

    fn step(self) -> Result<Self, WindowError> {
        let next = match self {
            Self::Hour(hour, zone) => {
                hour.number().checked_add(1).map(|number| Self::Hour(HourWindow::from_number(number), zone))
            }
            Self::Day(date, zone) => date.checked_add_days(Days::new(1)).map(|date| Self::Day(date, zone)),
            Self::Month(date, zone) => {
                date.checked_add_months(Months::new(1)).map(|date| Self::Month(date, zone))
            }
        };
        next.ok_or(WindowError::BeyondCalendar)
    }

    fn bound(self) -> Result<HourWindow, WindowError> {
        match self {
            Self::Hour(hour, zone) => {
                let time = local_time(hour, zone).ok_or(WindowError::BeyondCalendar)?;
                let whole = time.offset().fix().local_minus_utc() % SECONDS_PER_HOUR == 0;
                if whole { Ok(hour) } else { Err(WindowError::NotWholeHours(zone)) }
            }
            Self::Day(date, zone) | Self::Month(date, zone) => {
                let seconds = first_moment(date, zone).ok_or(WindowError::BeyondCalendar)?.timestamp();
                let hour = HourWindow::of(Timestamp::new(seconds, 0));
                if hour.start_seconds() == seconds { Ok(hour) } else { Err(WindowError::NotWholeHours(zone)) }
            }
        }
    }
}

/// The first moment of a date: the clocks of some zones leave out midnight, or pass it twice.
fn first_moment(date: NaiveDate, zone: Tz) -> Option<DateTime<Tz>> {
    const STEP_MINUTES: i64 = 15;
    const STEPS: i64 = 24 * 60 / STEP_MINUTES;
    let midnight = date.and_time(NaiveTime::MIN);
    (0..STEPS).find_map(|step| {
        let local = midnight.checked_add_signed(TimeDelta::minutes(step * STEP_MINUTES))?;
        match zone.from_local_datetime(&local) {
            MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => Some(time),
            MappedLocalTime::None => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(text: &str) -> HourWindow {
        HourWindow::of(Timestamp::new(DateTime::parse_from_rfc3339(text).unwrap().timestamp(), 0))
    }

    fn bounds(length: WindowLength, zone: Tz, from: &str, to: &str) -> Result<Vec<String>, WindowError> {
        let bounds = window_bounds(length, zone, hour(from), hour(to))?;
        Ok(bounds.into_iter().map(|bound| local_time(bound, zone).unwrap().to_rfc3339()).collect())
    }

    #[test]
    fn days_follow_the_clocks_of_the_zone() {
        let days =
            bounds(WindowLength::Day, Tz::Europe__Berlin, "2026-03-28T12:00:00Z", "2026-03-30T01:00:00Z");
        assert_eq!(
            days.unwrap(),
            [
                "2026-03-28T00:00:00+01:00",
                "2026-03-29T00:00:00+01:00",
                "2026-03-30T00:00:00+02:00",
                "2026-03-31T00:00:00+02:00"
            ]
        );
        // Clocks there went from 23:59:59 to 01:00:00.
        let days =
            bounds(WindowLength::Day, Tz::America__Sao_Paulo, "2018-11-04T05:00:00Z", "2018-11-04T06:00:00Z");
        assert_eq!(days.unwrap(), ["2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"]);
    }

    #[test]
    fn months_and_hours_cover_the_span() {
        let months = bounds(WindowLength::Month, Tz::UTC, "2025-12-31T23:00:00Z", "2026-02-01T00:00:00Z");
        let wanted = ["2025-12-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"];
        assert_eq!(months.unwrap(), wanted);
        let hours = bounds(WindowLength::Hour, Tz::UTC, "2025-12-31T22:00:00Z", "2026-01-01T00:00:00Z");
        assert_eq!(hours.unwrap().len(), 3);
        assert_eq!(
            bounds(WindowLength::Hour, Tz::UTC, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            Ok(vec![])
        );
    }

    #[test]
    fn a_zone_that_is_not_whole_hours_off_is_refused_while_it_is_not() {
        for length in [WindowLength::Hour, WindowLength::Day, WindowLength::Month] {
            let refused = bounds(length, Tz::Asia__Kolkata, "2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z");
            assert_eq!(refused, Err(WindowError::NotWholeHours(Tz::Asia__Kolkata)));
        }
        let at = |from, to| bounds(WindowLength::Day, Tz::Australia__Lord_Howe, from, to);
        assert!(at("2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z").is_ok());
        assert!(at("2026-07-10T00:00:00Z", "2026-07-11T00:00:00Z").is_err());
    }

    #[test]
    fn a_span_without_end_is_refused() {
        let bounds = |from, to| {
            let (from, to) = (HourWindow::from_number(from), HourWindow::from_number(to));
            window_bounds(WindowLength::Hour, Tz::UTC, from, to)
        };
        assert_eq!(bounds(0, i32::MAX), Err(WindowError::TooMany));
        assert_eq!(bounds(i32::MAX - 1, i32::MAX).unwrap().len(), 2, "the last hour that there is");
        assert_eq!(bounds(0, 10_000).unwrap().len(), WINDOWS_MAX + 1);
        assert_eq!(bounds(0, 10_001), Err(WindowError::TooMany));
    }
}
