//! Shows the counts to an audit; changes nothing, not even what this program has seen.

use super::{
    RedisAccumulator,
    answer::{self, Answer, Values},
    fault::Fault,
    keys::{self, Purpose},
    node::Call,
    rows, script,
    shards::state,
    sum::Sum,
};
use application::ports::{AccumulatorAudit, FoundRow, PortError, RowCount, SealedCut, ShardCut, Stray};
use async_trait::async_trait;
use domain::Shard;
use redis::Value;
use std::collections::BTreeMap;

/// How many keys one step of the search looks at.
const KEYS_A_STEP: usize = 1_000;
/// How many strays are told.
const STRAYS_MAX: usize = 100;

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
            Answer::Done(mut values) => read_cut(&mut values).map(Some),
            // Nothing is broken: the next flush that succeeds ends it.
            Answer::Other(word, _) if word == b"many" => Err(Fault::Passing(
                "a shard has too many sealed generations to look at in one step: flush them",
            )),
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }

    /// Looks at every key, then at where the shards stand, then whether what is behind them is still there. A generation
    /// and a bucket never come back, and one that is ahead of its shard after it was found never was its.
    async fn find_strays(&self) -> Result<Vec<Stray>, Fault> {
        let mut found: BTreeMap<Shard, Vec<(String, Purpose)>> = BTreeMap::new();
        let mut strays = Vec::new();
        for node in self.link.nodes().await? {
            let mut cursor = 0_u64;
            loop {
                let mut ask = redis::cmd("SCAN");
                ask.arg(cursor).arg("MATCH").arg(keys::OF_ALL_SHARDS).arg("COUNT").arg(KEYS_A_STEP);
                let (next, names): (u64, Vec<Vec<u8>>) = node.ask(Call::Command(&ask)).await?;
                for name in names {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    match keys::purpose(&name) {
                        Some((shard, purpose)) => found.entry(shard).or_default().push((name, purpose)),
                        None => strays.push(Stray { shard: Shard(0), name }),
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        for (shard, names) in found {
            let mut ask = redis::cmd("HMGET");
            ask.arg(keys::meta(shard)).arg(&["generation", "deleted", "buckets"]);
            let meta: Vec<Value> = self.link.query(shard, &ask).await?;
            let standing = Standing::read(meta)?;
            for (name, _) in names.into_iter().filter(|(_, purpose)| !standing.has(*purpose)) {
                let there: u64 = self.link.query(shard, redis::cmd("EXISTS").arg(&name)).await?;
                if there > 0 && strays.len() < STRAYS_MAX {
                    strays.push(Stray { shard, name });
                }
            }
        }
        Ok(strays)
    }
}

/// What a shard has.
struct Standing {
    generation: u64,
    deleted: u64,
    buckets: Vec<u64>,
}

impl Standing {
    /// Nothing where there is no such shard.
    fn read(meta: Vec<Value>) -> Result<Self, Fault> {
        if meta.first() == Some(&Value::Nil) {
            return Ok(Self { generation: 0, deleted: 0, buckets: Vec::new() });
        }
        let mut meta = Values::new(meta);
        let (generation, deleted, buckets) = (meta.number()?, meta.number()?, meta.text()?);
        let number = |bucket: &str| bucket.split_once('@').and_then(|(number, _)| number.parse().ok());
        Ok(Self { generation, deleted, buckets: buckets.split(',').filter_map(number).collect() })
    }

    fn has(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Shard => self.generation > 0,
            Purpose::Generation(generation) => self.deleted < generation && generation <= self.generation,
            Purpose::Sealed(generation) => self.deleted < generation && generation < self.generation,
            Purpose::Bucket(bucket) => self.buckets.contains(&bucket),
            Purpose::Nothing => false,
        }
    }
}

fn read_cut(values: &mut Values) -> Result<ShardCut, Fault> {
    let state = state(values)?;
    let active_rows = RowCount { recorded: Some(values.number()?), stored: values.number()? };
    let (identities, identities_dropped, identities_lost) =
        (values.number()?, values.number()?, values.number()?);
    let mut sealed = Vec::new();
    while !values.is_empty() {
        sealed.push(SealedCut {
            generation: values.number()?,
            // What is no sum is as good as none.
            total: Sum::from_bytes(&values.bytes()?).map(Sum::total),
            rows: RowCount { recorded: Some(values.number()?), stored: values.number()? },
        });
    }
    Ok(ShardCut { state, active_rows, sealed, identities, identities_dropped, identities_lost })
}
