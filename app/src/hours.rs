//! Hours as users write and read them.

use application::usage_windows::parse_bound as parse;
use chrono::{DateTime, Utc};
use clap::{Arg, Command, builder::TypedValueParser, error::ErrorKind};
use domain::HourWindow;
use std::ffi::OsStr;

/// Reads the bound of a span of hours: a date (midnight, UTC), or a full hour in RFC 3339.
///
/// Totals are hourly, so a bound within an hour is refused instead of moved.
#[derive(Clone, Copy)]
pub(crate) struct HourBound;

impl TypedValueParser for HourBound {
    type Value = HourWindow;

    fn parse_ref(
        &self,
        command: &Command,
        _argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<HourWindow, clap::Error> {
        let text = value.to_string_lossy();
        parse(&text).map_err(|problem| {
            let message = format!("{text:?} {problem}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// The start of the hour in RFC 3339, as the ledger and its exports write it: `2013-01-02T11:00:00Z`.
pub(crate) fn window_start(hour: HourWindow) -> String {
    match DateTime::<Utc>::from_timestamp(hour.start_seconds(), 0) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        // Chrono ends in the year 262,142, hours in 246,953: there is no such hour, and a total is never left out.
        None => hour.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_date_or_a_full_hour() {
        for (text, start) in [
            ("2013-01-02", "2013-01-02T00:00:00Z"),
            ("2013-01-02T11:00:00Z", "2013-01-02T11:00:00Z"),
            ("2013-01-02T11:00:00+02:00", "2013-01-02T09:00:00Z"),
            ("1969-12-31T23:00:00Z", "1969-12-31T23:00:00Z"),
        ] {
            assert_eq!(parse(text).map(window_start).as_deref(), Ok(start), "{text}");
        }
        for text in
            ["2013-01-02T11:30:00Z", "2013-01-02T11:00:00.5Z", "2013-01-02T11:00:00+05:30", "yesterday", ""]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_hour_can_be_written() {
        for number in [i32::MIN, i32::MAX] {
            assert!(window_start(HourWindow::from_number(number)).ends_with(":00:00Z"), "{number}");
        }
    }
}
