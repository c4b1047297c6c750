//! Numbers and times as people read them.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{Timestamp, TotalAmount};
use maud::{Markup, html};
use std::fmt::Display;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// With a comma after each thousand; decimals stay as they are.
pub(super) fn grouped(number: impl Display) -> String {
    let text = number.to_string();
    let (whole, decimals) = match text.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (text.as_str(), None),
    };
    let mut out = String::with_capacity(text.len() + whole.len() / 3);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(decimals) = decimals {
        out.push('.');
        out.push_str(decimals);
    }
    out
}

/// For the axis of a chart, where there is little room: whole units with three digits and a letter where they are many.
pub(super) fn short(amount: TotalAmount) -> String {
    const STEPS: [(u128, &str); 5] = [
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    let units = amount.nanos() / domain::NANOS_PER_UNIT;
    match STEPS.into_iter().find(|(size, _)| units >= 10 * size) {
        Some((size, letter)) => format!("{}{letter}", grouped(units / size)),
        None => grouped(amount),
    }
}

/// A moment to the second, in UTC.
pub(super) fn moment(time: Timestamp) -> Markup {
    let Some(utc) = utc(time) else { return html! { (time.seconds()) " s" } };
    html! {
        time datetime=(utc.to_rfc3339_opts(SecondsFormat::Secs, true)) { (utc.format("%Y-%m-%d %H:%M:%S")) " UTC" }
    }
}

/// How long ago, or in how long, roughly.
pub(super) fn relative(now: Timestamp, time: Timestamp) -> String {
    let seconds = time.seconds().saturating_sub(now.seconds());
    match (seconds, roughly(seconds.saturating_abs())) {
        (0, _) => "now".to_owned(),
        (1.., length) => format!("in {length}"),
        (_, length) => format!("{length} ago"),
    }
}

fn roughly(seconds: i64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} days", seconds / DAY),
    }
}

/// The time from one moment to another: milliseconds below ten seconds. Clocks that differ make no negative time.
pub(super) fn length(from: Timestamp, to: Timestamp) -> String {
    let millis = |time: Timestamp| {
        time.seconds().saturating_mul(1_000).saturating_add(i64::from(time.nanos() / 1_000_000))
    };
    match millis(to).saturating_sub(millis(from)).max(0) {
        millis @ 0..10_000 => format!("{} ms", grouped(millis)),
        millis => roughly(millis / 1_000),
    }
}

/// The moment in the calendar; `None` beyond its years.
pub(super) fn utc(time: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.seconds(), time.nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in
            [("0", "0"), ("999", "999"), ("1000", "1,000"), ("1234567.000000001", "1,234,567.000000001")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn amounts_on_an_axis_are_short() {
        for (amount, text) in
            [("0.5", "0.5"), ("9999", "9,999"), ("10000", "10k"), ("2500000", "2,500k"), ("10000000", "10M")]
        {
            assert_eq!(short(TotalAmount::parse(amount).unwrap()), text);
        }
    }

    #[test]
    fn times_are_told_as_seen_from_now() {
        let at = |seconds| Timestamp::new(seconds, 0);
        for (seconds, text) in [
            (100, "now"),
            (99, "1 s ago"),
            (160, "in 1 min"),
            (100 - 3_720, "1 h 2 min ago"),
            (500_000, "in 5 days"),
        ] {
            assert_eq!(relative(at(100), at(seconds)), text);
        }
        assert_eq!(length(Timestamp::new(1, 500_000_000), at(3)), "1,500 ms");
        assert_eq!(length(at(3), at(1)), "0 ms");
        assert_eq!(length(at(0), at(90)), "1 min");
    }
}
