//! Logs, whose messages keep their places: there the place of a pulse is an identity.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

/// The name of a log: everything that makes a place in it mean one message and no other. Cheap to clone.
///
/// At most [`Self::BYTES_MAX`] bytes, without control characters. Holding one is the proof that it was checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogName(Arc<str>);

impl LogName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 1_024;

    /// Joins the parts, the widest first: technology, cluster, topic, its incarnation, partition.
    ///
    /// Different parts make different names: `/`, `%` and control characters within a part are percent-encoded.
    /// `None` where that is longer than a name may be.
    #[must_use]
    pub fn of(parts: &[&str]) -> Option<Self> {
        let mut name = String::new();
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                name.push('/');
            }
            for character in part.chars() {
                if matches!(character, '/' | '%') || character.is_control() {
                    let mut bytes = [0; 4];
                    for byte in character.encode_utf8(&mut bytes).bytes() {
                        write!(name, "%{byte:02X}").expect("writing to a string cannot fail");
                    }
                } else {
                    name.push(character);
                }
            }
        }
        Self::parse(&name)
    }

    /// Reads a name as it was stored.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= Self::BYTES_MAX && !name.chars().any(char::is_control);
        fits.then(|| Self(name.into()))
    }

    /// The number of the partition: the last part, where that is a number.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.0.rsplit('/').next()?.parse().ok()
    }

    /// The name as it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A place between the pulses of a log, or the pulse right after it: all pulses before it, or none.
///
/// Written as `offset:items`: every message before the offset, and so many items of the message there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPosition {
    /// The place of a message, below [`Self::OFFSET_END`].
    pub offset: u64,
    /// How many of its items are before the position, whether they were pulses of this shard or not.
    pub items: u32,
}

impl LogPosition {
    /// The beginning of every log: no pulse is before it.
    pub const START: Self = Self::before(0);
    /// What offsets stay below: numbers up to here are exact in every store.
    pub const OFFSET_END: u64 = 1 << 53;

    /// Before the message at the offset.
    #[must_use]
    pub const fn before(offset: u64) -> Self {
        Self { offset, items: 0 }
    }

    /// Right after the pulse that stands at this place.
    #[must_use]
    pub const fn after_pulse(self) -> Self {
        match self.items.checked_add(1) {
            Some(items) => Self { offset: self.offset, items },
            None => Self { offset: self.offset.saturating_add(1), items: 0 },
        }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (offset, items) = text.split_once(':')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(offset) || !digits(items) {
            return None;
        }
        Some(Self { offset: offset.parse().ok()?, items: items.parse().ok()? })
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.offset, self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_different_parts_never_meet() {
        let names =
            [["kafka", "a/b", "c"], ["kafka", "a", "b/c"], ["kafka", "a%2Fb", "c"], ["kafka", "a\tb", "c"]]
                .map(|parts| LogName::of(&parts).unwrap().to_string());
        assert_eq!(names, ["kafka/a%2Fb/c", "kafka/a/b%2Fc", "kafka/a%252Fb/c", "kafka/a%09b/c"]);
    }

    #[test]
    fn a_name_that_is_empty_or_too_long_or_not_one_line_is_none() {
        assert_eq!(LogName::of(&[]), None);
        assert_eq!(LogName::of(&["kafka", &"x".repeat(1_024)]), None);
        assert_eq!(LogName::parse("a\nb"), None);
        assert!(LogName::parse("kafka/a%2Fb/c").is_some());
    }

    #[test]
    fn the_last_part_is_the_number_of_the_partition() {
        let partition = |parts: &[&str]| LogName::of(parts).unwrap().partition();
        assert_eq!(partition(&["kafka", "c", "t", "11"]), Some(11));
        assert_eq!(partition(&["file", "7/8"]), None);
    }

    #[test]
    fn positions_are_in_the_order_of_the_pulses() {
        let first = LogPosition::before(7);
        let order = [
            LogPosition::START,
            first,
            first.after_pulse(),
            first.after_pulse().after_pulse(),
            LogPosition::before(8),
        ];
        assert!(order.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn a_position_reads_back_and_nothing_else_does() {
        let position = LogPosition { offset: 9_007_199_254_740_991, items: 3 };
        assert_eq!(LogPosition::parse(&position.to_string()), Some(position));
        for text in ["", ":", "1", "1:", ":1", "+1:0", "1:-1", "1:4294967296", "1:0:0"] {
            assert_eq!(LogPosition::parse(text), None, "{text}");
        }
    }
}
