//! What the scripts answer, read strictly.

use super::{
    fault::Fault,
    keys,
    marks::{Seen, parse_name},
    sum::Sum,
};
use domain::{AccumulatorId, LogPosition, Shard, ShardCount, Timestamp};
use redis::Value;

/// The values after `ok`, and otherwise the word that stands in its place with what follows it.
pub(super) enum Answer {
    Done(Values),
    Other(Vec<u8>, Values),
}

/// Values that are taken one after the other.
pub(super) struct Values(std::vec::IntoIter<Value>);

impl Values {
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Fault> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(unreadable("text", other.as_ref())),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Fault> {
        String::from_utf8(self.bytes()?).map_err(|_| Fault::Storage("a name in Redis is not UTF-8".into()))
    }

    /// `None` where a field is not there, as in what an earlier version wrote.
    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Fault> {
        if self.0.as_slice().first() == Some(&Value::Nil) { Ok(None) } else { self.text().map(Some) }
    }

    pub(super) fn number(&mut self) -> Result<u64, Fault> {
        match self.0.next() {
            Some(Value::Int(number)) => u64::try_from(number).ok(),
            Some(Value::BulkString(ref bytes)) => parse_number(bytes),
            ref other => return Err(unreadable("a number", other.as_ref())),
        }
        .ok_or_else(|| unreadable("a number that is not negative", None))
    }

    pub(super) fn sum(&mut self) -> Result<Sum, Fault> {
        let bytes = self.bytes()?;
        Sum::from_bytes(&bytes).ok_or_else(|| Fault::Storage(format!("{} is no sum", bytes.escape_ascii())))
    }

    pub(super) fn timestamp(&mut self) -> Result<Timestamp, Fault> {
        let (seconds, nanos) = (self.text()?, self.number()?);
        match (seconds.parse(), u32::try_from(nanos)) {
            (Ok(seconds), Ok(nanos)) => Ok(Timestamp::new(seconds, nanos)),
            _ => Err(Fault::Storage(format!("{seconds} s and {nanos} ns is no time"))),
        }
    }

    pub(super) fn position(&mut self) -> Result<LogPosition, Fault> {
        let text = self.text()?;
        LogPosition::parse(&text).ok_or_else(|| Fault::Storage(format!("{text} is no position of a log")))
    }

    /// The accumulator of a shard, and the latest recovery of the shard.
    pub(super) fn accumulator(&mut self) -> Result<(AccumulatorId, u64), Fault> {
        accumulator(&self.text()?)
    }

    pub(super) fn shards(&mut self) -> Result<ShardCount, Fault> {
        let number = self.number()?;
        let count = u16::try_from(number).ok().and_then(ShardCount::new);
        count.ok_or_else(|| Fault::Storage(format!("{number} is no number of shards")))
    }
}

/// The accumulator and the recovery that the name of a shard tells.
pub(super) fn accumulator(name: &str) -> Result<(AccumulatorId, u64), Fault> {
    parse_name(name).ok_or_else(|| Fault::Storage(format!("{name} is no accumulator's id")))
}

/// A number as Redis stores it: digits only.
fn parse_number(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn unreadable(expected: &str, found: Option<&Value>) -> Fault {
    Fault::Storage(format!("Redis answers {found:?} where {expected} is expected"))
}

/// Reads the answer of a script; what every script may refuse is an error.
pub(super) fn read(
    shard: Shard,
    seen: Option<Seen>,
    shards: Option<ShardCount>,
    answer: Vec<Value>,
) -> Result<Answer, Fault> {
    let mut values = Values::new(answer);
    let word = values.bytes()?;
    Err(Fault::Storage(match &word[..] {
        b"ok" => return Ok(Answer::Done(values)),
        b"missing" => missing(shard, seen),
        b"foreign" => foreign(shard, &values.text()?, seen),
        b"shards" => {
            let (found, ours) = (values.number()?, shards.map_or(0, ShardCount::get));
            format!(
                "shard {shard} was made for {found} shards, and this program is set to {ours} (PULSE_SHARDS); \
                 the number stays the same for the life of an accumulator"
            )
        }
        b"behind" => behind(shard, (values.number()?, values.number()?), seen),
        _ => return Ok(Answer::Other(word, values)),
    }))
}

pub(super) fn missing(shard: Shard, seen: Option<Seen>) -> String {
    let key = keys::meta(shard);
    let seen = seen.map_or_else(String::new, |seen| {
        format!("; this program has seen it at generation {}, sequence {}", seen.generation, seen.sequence)
    });
    format!(
        "shard {shard} is missing ({key}): the storage of Redis was lost or replaced{seen}; see `app recover`"
    )
}

pub(super) fn foreign(shard: Shard, found: &str, seen: Option<Seen>) -> String {
    let key = keys::meta(shard);
    if let (Some((found, recovery)), Some(seen)) = (parse_name(found), seen)
        && found == seen.accumulator
    {
        return format!(
            "shard {shard} is of recovery {recovery}, and this program has seen it before ({key}): start it again"
        );
    }
    let ours = seen.map_or_else(|| "the one asked for".to_owned(), |seen| seen.accumulator.to_string());
    format!(
        "shard {shard} belongs to accumulator {found}, and not to {ours}: this is another Redis, or its storage was \
         replaced ({key})"
    )
}

/// A word that the scripts of this version do not answer.
pub(super) fn unknown(word: &[u8]) -> Fault {
    Fault::Storage(format!("a script answers {}", word.escape_ascii()))
}

pub(super) fn behind(shard: Shard, (generation, sequence): (u64, u64), seen: Option<Seen>) -> String {
    let (seen_generation, seen_sequence) = seen.map_or((0, 0), |seen| (seen.generation, seen.sequence));
    format!(
        "shard {shard} is at generation {generation}, sequence {sequence}, and this program has seen it at generation \
         {seen_generation}, sequence {seen_sequence}: the storage of Redis was rolled back, {} generations and {} \
         changes are gone; see `app recover`",
        seen_generation.saturating_sub(generation),
        seen_sequence.saturating_sub(sequence),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    const WORDS: [&str; 12] = [
        "ok",
        "missing",
        "foreign",
        "shards",
        "behind",
        "moved",
        "",
        "7",
        "-1",
        "18446744073709551616",
        "1024",
        "3:0",
    ];

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            select(&WORDS[..]).prop_map(|word| Value::BulkString(word.into())),
            vec(any::<u8>(), 0..33).prop_map(Value::BulkString),
            vec(any::<i64>().prop_map(Value::Int), 0..3).prop_map(Value::Array),
        ]
    }

    proptest! {
        #[test]
        fn whatever_redis_answers_is_read_or_refused(
            answer in vec(value(), 0..12),
            takes in vec(0..9_u8, 0..12),
        ) {
            let Ok(Answer::Done(mut values) | Answer::Other(_, mut values)) =
                read(Shard(3), None, ShardCount::new(8), answer)
            else {
                return Ok(());
            };
            for take in takes {
                let left = values.len();
                let taken = match take {
                    0 => values.bytes().map(drop),
                    1 => values.text().map(drop),
                    2 => values.optional_text().map(drop),
                    3 => values.number().map(drop),
                    4 => values.sum().map(drop),
                    5 => values.timestamp().map(drop),
                    6 => values.position().map(drop),
                    7 => values.accumulator().map(drop),
                    _ => values.shards().map(drop),
                };
                prop_assert!(taken.is_err() || take == 2 || values.len() < left, "something was read of nothing");
            }
        }
    }
}
