//! Shows the counts to an audit; changes nothing, not even what this program has seen.

use super::{
    RedisAccumulator,
    answer::{self, Answer, Values},
    fault::Fault,
    marks,
    recount::CompactBucket,
    rows, script,
    shards::state,
    sum::Sum,
};
use application::ports::{AccumulatorAudit, FoundRow, PortError, RowCount, SealedCut, ShardCut, Stray};
use async_trait::async_trait;
use domain::Shard;
use redis::Value;

#[async_trait]
impl AccumulatorAudit for RedisAccumulator {
    async fn cut(&self, shard: Shard) -> Result<Option<ShardCut>, PortError> {
        const OPERATION: &str = "reading the figures of a shard from Redis";
        self.cut_shard(shard).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn rows(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<FoundRow>, Option<u32>), PortError> {
        const OPERATION: &str = "reading rows from Redis";
        rows::look(&self.link, shard, generation, part).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn strays(&self) -> Result<Vec<Stray>, PortError> {
        const OPERATION: &str = "looking through the keys of Redis";
        self.find_strays().await.map_err(|fault| fault.during(OPERATION))
    }
}

impl RedisAccumulator {
    async fn cut_shard(&self, shard: Shard) -> Result<Option<ShardCut>, Fault> {
        let mut call = script::CUT.on(shard, 4, 16);
        call.arg("").arg("").arg(0).arg(0);
        let values = self.link.run(shard, &script::CUT, &call).await?;
        if matches!(values.first(), Some(Value::BulkString(word)) if word == b"missing") {
            return Ok(None);
        }
        match answer::read(shard, None, None, values)? {
            Answer::Done(mut values) => {
                let (mut cut, compact) = read_cut(&mut values)?;
                let name = marks::name(cut.state.accumulator, cut.state.recovery);
                for bucket in compact {
                    let there = self.recount(shard, &name, &bucket).await?;
                    cut.identities = (cut.identities + there).saturating_sub(bucket.identities);
                }
                Ok(Some(cut))
            }
            // Nothing is broken: the next flush that succeeds ends it.
            Answer::Other(word, _) if word == b"many" => Err(Fault::Passing(
                "a shard has too many sealed generations to look at in one step: flush them",
            )),
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }
}

/// The cut, and its compact buckets with what is recorded of them.
fn read_cut(values: &mut Values) -> Result<(ShardCut, Vec<CompactBucket>), Fault> {
    let state = state(values)?;
    let active_rows = RowCount { recorded: Some(values.number()?), stored: values.number()? };
    let (identities, identities_dropped, identities_lost) =
        (values.number()?, values.number()?, values.number()?);
    let compact = (0..values.number()?).map(|_| CompactBucket::read(values)).collect::<Result<_, _>>()?;
    let mut sealed = Vec::new();
    while !values.is_empty() {
        sealed.push(SealedCut {
            generation: values.number()?,
            // What is no sum is as good as none.
            total: Sum::from_bytes(&values.bytes()?).map(Sum::total),
            rows: RowCount { recorded: Some(values.number()?), stored: values.number()? },
        });
    }
    let cut = ShardCut { state, active_rows, sealed, identities, identities_dropped, identities_lost };
    Ok((cut, compact))
}
