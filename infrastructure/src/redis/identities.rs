//! What is remembered of single pulses.

use super::{RedisAccumulator, answer::Values, fault::Fault, keys};
use application::ports::{PortError, Remembered, RememberedIdentities};
use async_trait::async_trait;
use domain::{Fingerprint, PulseDigest, Shard, Timestamp};
use redis::Value;

#[async_trait]
impl RememberedIdentities for RedisAccumulator {
    async fn remembered(
        &self,
        shard: Shard,
        identities: &[PulseDigest],
    ) -> Result<Vec<(usize, Remembered)>, PortError> {
        const OPERATION: &str = "asking Redis for identities";
        self.find_identities(shard, identities).await.map_err(|fault| fault.during(OPERATION))
    }
}

impl RedisAccumulator {
    async fn find_identities(
        &self,
        shard: Shard,
        identities: &[PulseDigest],
    ) -> Result<Vec<(usize, Remembered)>, Fault> {
        let mut found = Vec::new();
        if identities.is_empty() {
            return Ok(found);
        }
        let mut ask = redis::cmd("HMGET");
        ask.arg(keys::meta(shard)).arg(&["buckets", "clock", "latest"]);
        let meta: Vec<Value> = self.link.query(shard, &ask).await?;
        if meta.first() == Some(&Value::Nil) {
            return Ok(found);
        }
        for bucket in buckets(meta)? {
            let mut ask = redis::cmd("HMGET");
            ask.arg(keys::identities(shard, bucket.number));
            for digest in identities {
                ask.arg(&digest.0[..]);
            }
            let contents: Vec<Option<Vec<u8>>> = self.link.query(shard, &ask).await?;
            for (place, content) in contents.into_iter().enumerate() {
                let Some(content) = content else { continue };
                let content = <[u8; 6]>::try_from(content).map_err(|_| {
                    Fault::Storage("Redis holds an identity with a fingerprint that is not six bytes".into())
                })?;
                let Bucket { after, until, .. } = bucket;
                found.push((place, Remembered { content: Fingerprint(content), after, until }));
            }
        }
        Ok(found)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    number: u64,
    after: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// The buckets with the times between which they were filled, as far as the shard's clock tells (see `seal.lua`): the
/// newest stands first with the time that it was opened, the others with the time they were closed.
fn buckets(meta: Vec<Value>) -> Result<Vec<Bucket>, Fault> {
    let mut meta = Values::new(meta);
    let (listed, clock, latest) = (meta.text()?, meta.number()?, meta.number()?);
    let time = |at: u64| {
        let milliseconds = i64::try_from(latest.saturating_sub(clock.saturating_sub(at))).ok()?;
        let nanos = u32::try_from(milliseconds % 1_000).ok()? * 1_000_000;
        Some(Timestamp::new(milliseconds / 1_000, nanos))
    };
    let bucket = |text: &str| {
        let (number, at) = text.split_once('@')?;
        Some((number.parse().ok()?, at.parse().ok()?))
    };
    let listed: Option<Vec<(u64, u64)>> = listed.split(',').map(bucket).collect();
    let listed = listed.ok_or_else(|| Fault::Storage("the list of buckets does not read".into()))?;
    let bucket = |(place, (number, at)): (usize, &(u64, u64))| {
        let before = listed.get(place + 1).and_then(|(_, closed)| time(*closed));
        let (after, until) = if place == 0 { (time(*at), None) } else { (before, time(*at)) };
        Bucket { number: *number, after, until }
    };
    Ok(listed.iter().enumerate().map(bucket).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_filled_from_the_end_of_the_one_before_until_its_own() {
        let meta = ["3@7000,2@7000,1@4000", "9000", "100000"].map(|text| Value::BulkString(text.into()));
        let at = |seconds| Some(Timestamp::new(seconds, 0));
        let expected = [(3, at(98), None), (2, at(95), at(98)), (1, None, at(95))];
        let found = buckets(meta.to_vec()).unwrap();
        assert_eq!(found, expected.map(|(number, after, until)| Bucket { number, after, until }));
    }
}
