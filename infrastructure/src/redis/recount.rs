//! Counts the identities that there really are in compact buckets, beside what the steps that counted have written down.

use super::{
    RedisAccumulator,
    answer::{self, Answer, Values},
    fault::Fault,
    script,
};
use domain::Shard;

/// How many numbers one step counts, of one or two parts each: about a millisecond.
const NUMBERS_A_STEP: u64 = 500;

/// A compact bucket at the moment of a cut.
pub(super) struct CompactBucket {
    pub(super) number: u64,
    pub(super) parts: u64,
    /// The identities that are recorded in it.
    pub(super) identities: u64,
}

impl CompactBucket {
    pub(super) fn read(values: &mut Values) -> Result<Self, Fault> {
        Ok(Self { number: values.number()?, parts: values.number()?, identities: values.number()? })
    }
}

impl RedisAccumulator {
    /// How many identities the bucket had at the moment of the cut, as far as what there is now agrees with what is
    /// recorded. Between the steps others count and drop, so what there is may be anything between what was recorded
    /// before and after them; what it lacks, or has too much, is taken from the answer or added to it.
    pub(super) async fn recount(
        &self,
        shard: Shard,
        name: &str,
        bucket: &CompactBucket,
    ) -> Result<u64, Fault> {
        let power = 1 << bucket.parts.max(1).ilog2();
        let (mut found, mut recorded) = (0, bucket.identities);
        for first in (0..power).step_by(usize::try_from(NUMBERS_A_STEP).unwrap_or(usize::MAX)) {
            let end = power.min(first + NUMBERS_A_STEP);
            match self.recount_step(shard, name, bucket.number, [power, first, end]).await? {
                Some((there, by_now)) => (found, recorded) = (found + there, by_now),
                // Dropped meanwhile: nobody can tell any more.
                None => return Ok(bucket.identities),
            }
        }
        let least = recorded.min(bucket.identities);
        let most = recorded.max(bucket.identities);
        Ok((bucket.identities + found.saturating_sub(most)).saturating_sub(least.saturating_sub(found)))
    }

    /// How many identities this step finds, and how many are recorded in the whole bucket; `None` where it is gone.
    async fn recount_step(
        &self,
        shard: Shard,
        name: &str,
        bucket: u64,
        numbers: [u64; 3],
    ) -> Result<Option<(u64, u64)>, Fault> {
        let mut call = script::RECOUNT.on(shard, 8, 96);
        call.arg(name).arg("").arg(0).arg(0).arg(bucket).arg(&numbers[..]);
        let answer = self.link.run(shard, &script::RECOUNT, &call).await?;
        match answer::read(shard, None, None, answer)? {
            Answer::Done(mut values) => Ok(Some((values.number()?, values.number()?))),
            Answer::Other(word, _) if word == b"gone" => Ok(None),
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }
}
