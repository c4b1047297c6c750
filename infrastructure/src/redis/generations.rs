//! Generations from sealing to deletion.

use super::{
    RedisAccumulator, answer, answer::Answer, fault::Fault, keys, logs, marks, milliseconds, rows, script,
    sum::Sum,
};
use application::ports::{GenerationStore, PortError, SealedGeneration, UsageRow};
use async_trait::async_trait;
use domain::{Shard, Timestamp};
use redis::Value;

#[async_trait]
impl GenerationStore for RedisAccumulator {
    async fn seal(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), PortError> {
        const OPERATION: &str = "sealing a generation in Redis";
        self.seal_and_drop(shard, generation, now).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, PortError> {
        const OPERATION: &str = "reading a sealed total from Redis";
        self.find_sealed(shard, generation).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn read(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<UsageRow>, Option<u32>), PortError> {
        const OPERATION: &str = "reading rows from Redis";
        rows::read(&self.link, shard, generation, part).await.map_err(|fault| fault.during(OPERATION))
    }

    async fn delete(&self, sealed: &SealedGeneration) -> Result<(), PortError> {
        const OPERATION: &str = "deleting a generation from Redis";
        self.delete_sealed(sealed).await.map_err(|fault| fault.during(OPERATION))
    }
}

/// How many lists of names one step of a deletion deletes: those of a million rows.
const LISTS_MAX: u32 = 256;

impl RedisAccumulator {
    /// Seals to make room where the sums come near the end of what stays exact.
    pub(super) async fn make_room(&self, shard: Shard, generation: u64) -> Result<(), Fault> {
        self.seal_at(shard, generation, None).await.map(drop)
    }

    async fn seal_and_drop(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), Fault> {
        if self.seal_at(shard, generation, Some(now)).await? {
            let seen = self.marks.get(shard);
            self.drop_identities(shard, seen.map(marks::Seen::name), seen).await?;
        }
        Ok(())
    }

    /// Returns whether identities are left that are to be dropped.
    async fn seal_at(&self, shard: Shard, generation: u64, now: Option<Timestamp>) -> Result<bool, Fault> {
        let seen = self.marks.get(shard);
        let mut call = script::SEAL.on(shard, 10, 160);
        self.guard(&mut call, seen);
        call.arg(generation);
        match now {
            Some(now) => call.arg(now.seconds()).arg(now.nanos()).arg(milliseconds(now)),
            None => call.arg("").arg("").arg(""),
        };
        call.arg(u64::try_from(self.dedupe_window.as_millis()).unwrap_or(u64::MAX));
        call.arg(self.identities.letter());
        let answer = self.link.run(shard, &script::SEAL, &call).await?;
        match answer::read(shard, seen, Some(self.shards), answer)? {
            Answer::Done(mut values) => {
                self.note(shard, seen, &mut values)?;
                Ok(values.number()? > 0)
            }
            Answer::Other(word, mut values) if word == b"ahead" => Err(Fault::Refused(format!(
                "generation {generation} of shard {shard} cannot be sealed: generation {} is active",
                values.number()?
            ))),
            Answer::Other(word, _) => Err(answer::unknown(&word)),
        }
    }

    async fn find_sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, Fault> {
        let mut ask = redis::pipe();
        ask.cmd("HMGET").arg(keys::sealed(shard, generation));
        ask.arg(&["total", "seconds", "nanoseconds", "positions"]);
        // Asked for second, so that a deletion in between is not taken for a loss.
        ask.cmd("HMGET").arg(keys::meta(shard)).arg(&["accumulator", "generation", "deleted"]);
        let (sealed, meta): (Vec<Value>, Vec<Value>) = self.link.query_all(shard, &ask).await?;
        let seen = self.marks.get(shard);
        if meta.first() == Some(&Value::Nil) {
            return Err(Fault::Storage(answer::missing(shard, seen)));
        }
        let mut meta = answer::Values::new(meta);
        let (name, active, deleted) = (meta.text()?, meta.number()?, meta.number()?);
        if seen.is_some_and(|seen| seen.name() != name) {
            return Err(Fault::Storage(answer::foreign(shard, &name, seen)));
        }
        if sealed.first() == Some(&Value::Nil) {
            return if deleted < generation && generation < active {
                Err(lost(shard, generation))
            } else {
                Ok(None)
            };
        }
        let mut sealed = answer::Values::new(sealed);
        let (total, sealed_at) = (sealed.sum()?.total(), sealed.timestamp()?);
        let positions = logs::marks(&sealed.optional_text()?.unwrap_or_default())?;
        let (accumulator, recovery) = answer::accumulator(&name)?;
        Ok(Some(SealedGeneration { accumulator, shard, generation, recovery, total, sealed_at, positions }))
    }

    async fn delete_sealed(&self, sealed: &SealedGeneration) -> Result<(), Fault> {
        let mut list = Some(0);
        while let Some(first) = list {
            list = self.delete_from(sealed, first).await?;
        }
        Ok(())
    }

    /// One step of a deletion; returns the list of names to go on with.
    async fn delete_from(&self, sealed: &SealedGeneration, list: u32) -> Result<Option<u32>, Fault> {
        let SealedGeneration { accumulator, shard, generation, recovery, total, .. } = *sealed;
        let seen = self.marks.get(shard);
        let mut call = script::DELETE.on(shard, 8, 160);
        self.guard_for(&mut call, Some(marks::name(accumulator, recovery)), seen);
        // A total that no sum can hold is not that of any generation.
        let expected = Sum::of(total).map(|sum| sum.to_bytes().to_vec()).unwrap_or_default();
        call.arg(generation).arg(&expected[..]).arg(list).arg(LISTS_MAX);
        let answer = self.link.run(shard, &script::DELETE, &call).await?;
        let refused = |reason: String| {
            Err(Fault::Refused(format!(
                "generation {generation} of shard {shard} cannot be deleted: {reason}"
            )))
        };
        match answer::read(shard, seen, Some(self.shards), answer)? {
            Answer::Done(mut values) => self.note(shard, seen, &mut values).map(|()| None),
            Answer::Other(word, mut values) => match &word[..] {
                b"more" => {
                    let next = values.number()?;
                    u32::try_from(next).map(Some).map_err(|_| answer::unknown(&word))
                }
                b"active" => refused(format!("it is not sealed, generation {} is active", values.number()?)),
                b"gap" => refused(format!("generation {} comes first", values.number()?)),
                b"other" => {
                    let found = values.sum()?.total();
                    refused(format!(
                        "it holds {} units of {} pulses, and the ledger has {} of {}",
                        found.amount, found.pulses, total.amount, total.pulses
                    ))
                }
                b"lost" => Err(lost(shard, generation)),
                _ => Err(answer::unknown(&word)),
            },
        }
    }
}

fn lost(shard: Shard, generation: u64) -> Fault {
    let key = keys::sealed(shard, generation);
    Fault::Storage(format!("generation {generation} of shard {shard} is gone and was not deleted ({key})"))
}
