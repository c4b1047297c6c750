//! Where shards stand, and how they are made.

use super::{
    RedisAccumulator, answer,
    answer::{Answer, Values},
    fault::Fault,
    keys,
    marks::{self, Seen},
    milliseconds, script,
};
use application::ports::{AccumulatorShards, PortError, ShardBirth, ShardCounts, ShardMark, ShardState};
use async_trait::async_trait;
use domain::Shard;
use redis::Value;

/// The fields of meta that [`state`] reads, in its order; `create.lua` answers the same.
const FIELDS: [&str; 9] = [
    "accumulator",
    "shards",
    "generation",
    "sequence",
    "deleted",
    "total",
    "counted",
    "duplicates",
    "anonymous",
];

#[async_trait]
impl AccumulatorShards for RedisAccumulator {
    async fn inspect(&self, shard: Shard) -> Result<Option<ShardState>, PortError> {
        const OPERATION: &str = "inspecting a shard in Redis";
        self.inspect_shard(shard).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn create(&self, shard: Shard, birth: ShardBirth) -> Result<ShardState, PortError> {
        const OPERATION: &str = "making a shard in Redis";
        self.create_shard(shard, birth).await.map_err(|fault| fault.during(OPERATION))
    }

    fn marks(&self) -> Vec<ShardMark> {
        self.marks.all()
    }
}

impl RedisAccumulator {
    async fn inspect_shard(&self, shard: Shard) -> Result<Option<ShardState>, Fault> {
        // Before the question: an answer to another call may be noted while this one is on its way.
        let seen = self.marks.get(shard);
        let mut ask = redis::cmd("HMGET");
        ask.arg(keys::meta(shard)).arg(&FIELDS[..]);
        let values: Vec<Value> = self.link.query(shard, &ask).await?;
        match (values.first(), seen) {
            (Some(Value::Nil), None) => return Ok(None),
            (Some(Value::Nil), Some(_)) => return Err(Fault::Storage(answer::missing(shard, seen))),
            _ => {}
        }
        let state = state(&mut Values::new(values))?;
        if let Some(seen) = seen {
            let name = marks::name(state.accumulator, state.recovery);
            if name != seen.name() {
                return Err(Fault::Storage(answer::foreign(shard, &name, Some(seen))));
            }
            if state.generation < seen.generation || state.sequence < seen.sequence {
                let found = (state.generation, state.sequence);
                return Err(Fault::Storage(answer::behind(shard, found, Some(seen))));
            }
        }
        self.note_state(shard, &state);
        Ok(Some(state))
    }

    async fn create_shard(&self, shard: Shard, birth: ShardBirth) -> Result<ShardState, Fault> {
        let seen = self.marks.get(shard);
        let mut call = script::CREATE.on(shard, 8, 128);
        let (generation, sequence) = seen.map_or((0, 0), |seen| (seen.generation, seen.sequence));
        call.arg("").arg("").arg(generation).arg(sequence).arg(milliseconds(birth.now));
        call.arg(birth.accumulator.to_string()).arg(birth.shards.get()).arg(self.identities.letter());
        let answer = self.link.run(shard, &script::CREATE, &call).await?;
        match answer::read(shard, seen, None, answer)? {
            Answer::Done(mut values) => {
                let state = state(&mut values)?;
                self.note_state(shard, &state);
                Ok(state)
            }
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }

    fn note_state(&self, shard: Shard, state: &ShardState) {
        let ShardState { accumulator, recovery, generation, sequence, .. } = *state;
        self.marks.note(shard, Seen { accumulator, recovery, generation, sequence });
    }
}

pub(super) fn state(values: &mut Values) -> Result<ShardState, Fault> {
    let (accumulator, recovery) = values.accumulator()?;
    Ok(ShardState {
        accumulator,
        recovery,
        shards: values.shards()?,
        generation: values.number()?,
        sequence: values.number()?,
        deleted: values.number()?,
        active: values.sum()?.total(),
        counts: ShardCounts {
            counted: values.number()?,
            duplicates: values.number()?,
            anonymous: values.number()?,
        },
    })
}
