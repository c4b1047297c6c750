//! What is remembered of single pulses.

use super::{
    RedisAccumulator,
    answer::{self, Answer, Values},
    fault::Fault,
    script,
};
use application::ports::{PortError, Remembered, RememberedIdentities};
use async_trait::async_trait;
use domain::{Fingerprint, PulseDigest, Shard, Timestamp};

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
        if identities.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = script::LOOK_UP.on(shard, 4 + identities.len(), 32 * identities.len());
        call.arg("").arg("").arg(0).arg(0);
        for digest in identities {
            call.arg(&digest.0[..]);
        }
        let answer = self.link.run(shard, &script::LOOK_UP, &call).await?;
        match answer::read(shard, None, None, answer)? {
            Answer::Done(values) if values.is_empty() => Ok(Vec::new()),
            Answer::Done(values) => found(values, identities.len()),
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }
}

/// Reads what `look_up.lua` answers for so many identities.
fn found(mut values: Values, identities: usize) -> Result<Vec<(usize, Remembered)>, Fault> {
    let buckets = buckets(&mut values)?;
    let mut found = Vec::new();
    while !values.is_empty() {
        let (bucket, place, content) = (values.number()?, values.number()?, values.bytes()?);
        let content = <[u8; 6]>::try_from(content).map_err(|_| {
            Fault::Storage("Redis holds an identity with a fingerprint that is not six bytes".into())
        })?;
        let place = usize::try_from(place).ok().filter(|place| *place < identities);
        let bucket = usize::try_from(bucket).ok().and_then(|bucket| buckets.get(bucket));
        let (Some(place), Some(Bucket { after, until })) = (place, bucket) else {
            return Err(Fault::Storage("an identity is found in no bucket or place".into()));
        };
        found.push((place, Remembered { content: Fingerprint(content), after: *after, until: *until }));
    }
    found.sort_by_key(|(place, _)| *place);
    Ok(found)
}

/// The times between which a bucket was filled, as far as the shard's clock tells (see `seal.lua`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    after: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// The newest bucket is told first, with the time that it was opened, the others with the time they were closed.
fn buckets(values: &mut Values) -> Result<Vec<Bucket>, Fault> {
    let (clock, latest) = (values.number()?, values.number()?);
    let times: Vec<u64> = (0..values.number()?).map(|_| values.number()).collect::<Result<_, _>>()?;
    let time = |at: u64| {
        let milliseconds = i64::try_from(latest.saturating_sub(clock.saturating_sub(at))).ok()?;
        let nanos = u32::try_from(milliseconds % 1_000).ok()? * 1_000_000;
        Some(Timestamp::new(milliseconds / 1_000, nanos))
    };
    let bucket = |(place, at): (usize, &u64)| {
        let before = times.get(place + 1).and_then(|closed| time(*closed));
        let (after, until) = if place == 0 { (time(*at), None) } else { (before, time(*at)) };
        Bucket { after, until }
    };
    Ok(times.iter().enumerate().map(bucket).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::Value;

    #[test]
    fn a_bucket_is_filled_from_the_end_of_the_one_before_until_its_own() {
        let told = ["9000", "100000", "3", "7000", "7000", "4000"].map(|text| Value::BulkString(text.into()));
        let at = |seconds| Some(Timestamp::new(seconds, 0));
        let expected = [(at(98), None), (at(95), at(98)), (None, at(95))];
        let found = buckets(&mut Values::new(told.to_vec())).unwrap();
        assert_eq!(found, expected.map(|(after, until)| Bucket { after, until }));
    }
}
