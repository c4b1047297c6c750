//! Applies batches: one script call each.

use super::{
    RedisAccumulator, answer, answer::Answer, batch::PreparedBatch, fault::Fault, keys, marks::Seen, script,
};
use application::ports::{Batch, Outcome, PortError, PulseSink};
use async_trait::async_trait;
use domain::{Fingerprint, Shard};

/// How often room is made for one batch: more than once only where others fill the next generation meanwhile.
const SEALS_MAX: u32 = 8;

/// What one call comes to.
enum Applied {
    /// The identities that were known.
    Known(Vec<(usize, Fingerprint)>),
    /// The active generation has no room for the batch.
    Full(u64),
}

#[async_trait]
impl PulseSink for RedisAccumulator {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        const OPERATION: &str = "applying a batch to Redis";
        self.apply_batch(batch).await.map_err(|fault| fault.during(OPERATION))
    }
}

impl RedisAccumulator {
    async fn apply_batch(&self, batch: &Batch) -> Result<Vec<Outcome>, Fault> {
        let Some(seen) = self.marks.get(batch.shard) else {
            return Err(Fault::Refused(format!("shard {} was not opened by this program", batch.shard)));
        };
        if batch.pulses.is_empty() {
            return Ok(Vec::new());
        }
        let prepared = PreparedBatch::new(seen.accumulator.identity_key(), &batch.pulses)
            .map_err(|error| Fault::Refused(error.to_string()))?;
        for _ in 0..SEALS_MAX {
            match self.apply_once(batch, &prepared).await? {
                Applied::Known(known) => return Ok(prepared.outcomes(&known)),
                Applied::Full(generation) => self.make_room(batch.shard, generation).await?,
            }
        }
        Err(Fault::Passing("others fill each generation before this batch"))
    }

    async fn apply_once(&self, batch: &Batch, prepared: &PreparedBatch) -> Result<Applied, Fault> {
        let seen = self.marks.get(batch.shard);
        let (arguments, bytes) = prepared.size();
        let mut call = script::APPLY.on(&keys::meta(batch.shard), arguments + 6, bytes + 160);
        self.guard(&mut call, seen);
        call.arg(&self.writer).arg(batch.number);
        prepared.write(&mut call);
        let answer = self.link.run(&script::APPLY, &call).await?;
        match answer::read(batch.shard, seen, Some(self.shards), answer)? {
            Answer::Done(mut values) => {
                self.note(batch.shard, seen, &mut values)?;
                let mut known = Vec::with_capacity(values.len() / 2);
                while !values.is_empty() {
                    known.push(known_identity(&mut values, prepared.ids())?);
                }
                Ok(Applied::Known(known))
            }
            Answer::Other(word, mut values) if word == b"full" => Ok(Applied::Full(values.number()?)),
            Answer::Other(word, mut values) if word == b"stale" => Err(Fault::Refused(format!(
                "batch {} of shard {} comes after batch {} of the same program",
                batch.number,
                batch.shard,
                values.number()?
            ))),
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }

    /// Notes the generation and the sequence that an answer begins with.
    pub(super) fn note(
        &self,
        shard: Shard,
        seen: Option<Seen>,
        values: &mut answer::Values,
    ) -> Result<(), Fault> {
        let (generation, sequence) = (values.number()?, values.number()?);
        if let Some(Seen { accumulator, .. }) = seen {
            self.marks.note(shard, Seen { accumulator, generation, sequence });
        }
        Ok(())
    }
}

fn known_identity(values: &mut answer::Values, ids: usize) -> Result<(usize, Fingerprint), Fault> {
    let (index, content) = (values.number()?, values.bytes()?);
    let index = usize::try_from(index).ok().filter(|index| (1..=ids).contains(index));
    let content = <[u8; 6]>::try_from(content).ok();
    match (index, content) {
        (Some(index), Some(content)) => Ok((index - 1, Fingerprint(content))),
        _ => Err(Fault::Storage("Redis holds an identity with a fingerprint that is not six bytes".into())),
    }
}
