//! The names of the keys; all of a shard are in one hash slot. The scripts make the same names.

use application::ports::SuspectId;
use domain::Shard;

/// How many names a list holds, but for the last of a generation; the scripts know the same number.
pub(super) const NAMES: usize = 4_096;

/// What stands for a shard as long as it lives.
pub(super) fn meta(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:meta")
}

/// What is never there.
pub(super) fn never(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:never")
}

/// The sums of a generation by their encoded usage keys.
pub(super) fn rows(shard: Shard, generation: u64) -> String {
    format!("pulse:{{{shard}}}:agg:{generation}")
}

/// The usage keys of a generation in the order of their appearance, [`NAMES`] to a list.
pub(super) fn names(shard: Shard, generation: u64, list: u32) -> String {
    format!("pulse:{{{shard}}}:names:{generation}:{list}")
}

/// How far each log was counted.
pub(super) fn logs(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:logs")
}

/// How many pulses were taken from each log.
pub(super) fn taken(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:taken")
}

/// The shard that has what is of no shard in particular: it is always there.
pub(super) const OF_ALL: Shard = Shard(0);

/// What was received of each log.
pub(super) fn accounts() -> String {
    format!("pulse:{{{OF_ALL}}}:accounts")
}

/// What a sealed generation comes to.
pub(super) fn sealed(shard: Shard, generation: u64) -> String {
    format!("pulse:{{{shard}}}:gen:{generation}")
}

/// The mark of a message that is taken alone.
pub(super) fn suspect(suspect: SuspectId) -> String {
    format!("pulse:{{{OF_ALL}}}:suspect:{:032x}", u128::from_be_bytes(suspect.0))
}

/// What the keys of a shard match.
pub(super) fn of_shard(shard: Shard) -> String {
    format!("pulse:{{{shard}}}:*")
}

/// What the keys of all shards match.
pub(super) const OF_ALL_SHARDS: &str = "pulse:{*}:*";

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is there, or may be, as long as the shard lives.
    Shard,
    /// A generation that is not deleted.
    Generation(u64),
    /// A generation that is sealed and not deleted.
    Sealed(u64),
    /// A bucket of identities.
    Bucket(u64),
    /// A part of a compact one.
    Part(u64, u64),
    /// Nothing that a script makes.
    Nothing,
}

/// The shard of a key and what it is for; `None` where it is no key of a shard.
pub(super) fn purpose(key: &str) -> Option<(Shard, Purpose)> {
    let (shard, rest) = key.strip_prefix("pulse:{")?.split_once("}:")?;
    let shard = Shard(shard.parse().ok()?);
    let number = |text: &str| text.parse().ok();
    let parts: Vec<&str> = rest.split(':').collect();
    let purpose = match parts[..] {
        ["meta" | "logs" | "taken" | "accounts"] => Some(Purpose::Shard),
        ["suspect", id] if u128::from_str_radix(id, 16).is_ok() => Some(Purpose::Shard),
        ["agg", generation] => number(generation).map(Purpose::Generation),
        ["names", generation, list] if list.parse::<u32>().is_ok() => {
            number(generation).map(Purpose::Generation)
        }
        ["gen", generation] => number(generation).map(Purpose::Sealed),
        ["ids", bucket] => number(bucket).map(Purpose::Bucket),
        ["ids", bucket, part] => {
            number(bucket).zip(number(part)).map(|(bucket, part)| Purpose::Part(bucket, part))
        }
        _ => None,
    };
    Some((shard, purpose.unwrap_or(Purpose::Nothing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_shard_tells_what_it_is_for() {
        let shard = Shard(7);
        let expected = [
            (meta(shard), Purpose::Shard),
            (logs(shard), Purpose::Shard),
            (taken(shard), Purpose::Shard),
            (rows(shard, 3), Purpose::Generation(3)),
            (names(shard, 3, 2), Purpose::Generation(3)),
            (sealed(shard, 3), Purpose::Sealed(3)),
            ("pulse:{7}:ids:4".to_owned(), Purpose::Bucket(4)),
            ("pulse:{7}:ids:4:0".to_owned(), Purpose::Part(4, 0)),
            ("pulse:{7}:ids:4:x".to_owned(), Purpose::Nothing),
            ("pulse:{7}:ids:4:1:1".to_owned(), Purpose::Nothing),
            ("pulse:{7}:suspect:00ff".to_owned(), Purpose::Shard),
            ("pulse:{7}:suspect:x".to_owned(), Purpose::Nothing),
            (never(shard), Purpose::Nothing),
            ("pulse:{7}:agg:x".to_owned(), Purpose::Nothing),
            ("pulse:{7}:names:3:x".to_owned(), Purpose::Nothing),
        ];
        for (key, is) in expected {
            assert_eq!(purpose(&key), Some((shard, is)), "{key}");
        }
        assert_eq!(purpose(&suspect(SuspectId([0xf0; 16]))), Some((Shard(0), Purpose::Shard)));
        assert_eq!(purpose(&accounts()), Some((Shard(0), Purpose::Shard)));
        assert_eq!(purpose("pulse:{x}:meta"), None);
    }
}
