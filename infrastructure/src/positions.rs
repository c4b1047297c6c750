//! How far logs were counted, as the ledgers keep it: a JSON object of `offset:items` by the log.

use application::ports::LogMark;
use domain::{LogName, LogPosition};
use std::collections::BTreeMap;

/// The object.
pub(crate) fn to_json(marks: &[LogMark]) -> String {
    let positions: BTreeMap<&str, String> =
        marks.iter().map(|mark| (mark.log.as_str(), mark.position.to_string())).collect();
    serde_json::json!(positions).to_string()
}

/// Reads what [`to_json`] writes; `None` for anything else.
pub(crate) fn from_json(json: &str) -> Option<Vec<LogMark>> {
    let positions: BTreeMap<String, String> = serde_json::from_str(json).ok()?;
    let mark = |(log, position): (String, String)| {
        Some(LogMark { log: LogName::parse(&log)?, position: LogPosition::parse(&position)? })
    };
    positions.into_iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_in_the_order_of_the_logs() {
        let mark = |log: &str, offset| LogMark {
            log: LogName::of(&["kafka", "c\"luster", log, "0"]).unwrap(),
            position: LogPosition { offset, items: 3 },
        };
        let marks = vec![mark("a", 7), mark("b", (1 << 53) - 1)];
        assert_eq!(from_json(&to_json(&marks)), Some(marks));
        assert_eq!(from_json("{}"), Some(Vec::new()));
        for other in ["", "[]", r#"{"a":7}"#, r#"{"a":"7"}"#, r#"{"":"7:0"}"#] {
            assert_eq!(from_json(other), None, "{other}");
        }
    }
}
