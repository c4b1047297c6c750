//! What is told of refused pulses at the event that they came with.

use super::source::HEADER_EVENT;
use application::ports::{DeadLetter, PortError};
use std::collections::BTreeMap;

/// How many refusals an event tells of one by one.
const LINES_MAX: usize = 50;
const MORE: &str = "and more";

/// The refusals of each event, one line each.
pub(super) fn by_event(letters: &[DeadLetter]) -> Result<BTreeMap<i64, Vec<String>>, PortError> {
    let mut refusals: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for letter in letters {
        // The last one: whoever sent the event may have named a header like ours.
        let id = letter.envelope.headers.iter().rev().find(|(name, _)| name == HEADER_EVENT);
        let id = id.and_then(|(_, id)| id.parse().ok()).ok_or_else(|| {
            PortError::permanent(
                "keep what was refused in the inbox",
                "the message did not come from the inbox",
            )
        })?;
        refusals.entry(id).or_default().push(line(letter));
    }
    Ok(refusals)
}

fn line(letter: &DeadLetter) -> String {
    let reason = letter.rejection.reason.code();
    let detail = letter.rejection.detail.replace(['\n', '\r', '\0'], " ");
    match letter.item {
        Some(item) => format!("item {item}: {reason}: {detail}"),
        None => format!("{reason}: {detail}"),
    }
}

/// The lines that an event had, and those of these that it had not.
pub(crate) fn added_refusals(known: Option<&str>, refusals: &[String]) -> String {
    let mut lines: Vec<&str> = known.map_or_else(Vec::new, |known| known.split('\n').collect());
    for line in refusals {
        if !lines.contains(&line.as_str()) && lines.last() != Some(&MORE) {
            lines.push(if lines.len() < LINES_MAX { line } else { MORE });
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::ports::Envelope;
    use domain::{Reason, Rejection, Timestamp};

    fn letter(headers: &[&str], item: Option<u32>) -> DeadLetter {
        let headers = headers.iter().map(|id| (HEADER_EVENT.to_owned(), (*id).to_owned())).collect();
        DeadLetter {
            place: None,
            id: String::new(),
            rejection: Rejection::new(Reason::NotPositive, "is\n0"),
            body: Vec::new(),
            item,
            source: "inbox".to_owned(),
            envelope: Envelope { headers, ..Envelope::default() },
            received_at: Timestamp::new(0, 0),
        }
    }

    #[test]
    fn refusals_are_told_at_the_event_that_the_source_named() {
        let refusals = by_event(&[letter(&["9", "7"], Some(3)), letter(&["7"], None)]).unwrap();
        let lines = vec!["item 3: not_positive: is 0".to_owned(), "not_positive: is 0".to_owned()];
        assert_eq!(refusals, BTreeMap::from([(7, lines)]));
        for foreign in [letter(&[], None), letter(&["x"], None)] {
            assert!(!by_event(&[foreign]).unwrap_err().is_transient());
        }
    }

    #[test]
    fn a_repetition_adds_nothing_and_the_text_is_bounded() {
        let lines: Vec<String> = (0..60).map(|number| format!("item {number}: x")).collect();
        let once = added_refusals(None, &lines[..2]);
        assert_eq!(once, "item 0: x\nitem 1: x");
        assert_eq!(added_refusals(Some(&once), &lines[..2]), once);
        let all = added_refusals(Some(&once), &lines);
        assert_eq!(all.lines().count(), LINES_MAX + 1);
        assert_eq!(all.lines().last(), Some(MORE));
        assert_eq!(added_refusals(Some(&all), &lines), all);
    }
}
