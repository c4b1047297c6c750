//! Applies batches: one script call each.

use super::{
    RedisAccumulator, answer,
    answer::{Answer, Values},
    batch::PreparedBatch,
    fault::Fault,
    logs,
    marks::Seen,
    script,
};
use application::ports::{Batch, Outcome, PortError, PulseSink};
use async_trait::async_trait;
use domain::{Fingerprint, LogPosition, Pulse, Shard};

/// How often one batch is tried: more than once only where room must be made for it, or others count the same logs.
const TRIES_MAX: u32 = 8;
/// The number that asks for identities and counts nothing.
const ASK: u64 = 0;

/// What one call comes to.
enum Applied {
    /// The identities that were known.
    Known(Vec<(usize, Fingerprint)>),
    /// The active generation has no room for the batch.
    Full(u64),
    /// Where the logs stand, not all of them where they were believed to.
    Moved(Vec<LogPosition>),
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
        if batch.pulses.is_empty() && batch.stretches.is_empty() {
            return Ok(Vec::new());
        }
        logs::check(batch)?;
        let mut believed: Vec<LogPosition> = batch.stretches.iter().map(|stretch| stretch.from).collect();
        // What was counted of the logs before. Empty where no log says anything.
        let mut passed = match &believed[..] {
            [] => Vec::new(),
            believed => batch.passed(believed).map_err(Fault::Storage)?,
        };
        let mut prepared = prepare(seen, not_passed(batch, &passed))?;
        for _ in 0..TRIES_MAX {
            match self.apply_once(batch, batch.number, &prepared, &believed).await? {
                Applied::Known(known) => {
                    let outcomes = prepared.outcomes(&known);
                    return if passed.contains(&true) {
                        self.with_passed(batch, seen, &passed, outcomes).await
                    } else {
                        Ok(outcomes)
                    };
                }
                Applied::Full(generation) => self.make_room(batch.shard, generation).await?,
                Applied::Moved(stands) => {
                    passed = batch.passed(&stands).map_err(Fault::Storage)?;
                    prepared = prepare(seen, not_passed(batch, &passed))?;
                    believed = stands;
                }
            }
        }
        Err(Fault::Passing("others fill each generation, or count the same logs, before this batch"))
    }

    async fn apply_once(
        &self,
        batch: &Batch,
        number: u64,
        prepared: &PreparedBatch,
        believed: &[LogPosition],
    ) -> Result<Applied, Fault> {
        let seen = self.marks.get(batch.shard);
        let (arguments, bytes) = prepared.size();
        let arguments = arguments + 6 + 4 * believed.len();
        let mut call = script::APPLY.on(batch.shard, arguments, bytes + 160 + 128 * believed.len());
        self.guard(&mut call, seen);
        call.arg(&self.writer).arg(number);
        prepared.write(&mut call, believed.len());
        for (stretch, stands) in batch.stretches.iter().zip(believed) {
            call.arg(stretch.log.as_str()).arg(stands.to_string()).arg(stretch.to.max(*stands).to_string());
            call.arg(stretch.fresh(*stands));
        }
        let answer = self.link.run(batch.shard, &script::APPLY, &call).await?;
        match answer::read(batch.shard, seen, Some(self.shards), answer)? {
            Answer::Done(mut values) => {
                self.note(batch.shard, seen, &mut values)?;
                let mut known = Vec::with_capacity(values.len() / 2);
                while !values.is_empty() {
                    known.push(known_identity(&mut values, prepared.ids())?);
                }
                Ok(Applied::Known(known))
            }
            Answer::Other(word, mut values) => match &word[..] {
                b"full" => Ok(Applied::Full(values.number()?)),
                b"moved" => {
                    believed.iter().map(|_| values.position()).collect::<Result<_, _>>().map(Applied::Moved)
                }
                b"logs" => Err(logs::too_many(batch.shard, values.number()?)),
                b"stale" => Err(Fault::Refused(format!(
                    "batch {number} of shard {} comes after batch {} of the same program",
                    batch.shard,
                    values.number()?
                ))),
                _ => Err(answer::unknown(&word)),
            },
        }
    }

    /// The outcomes of the whole batch, given those of the pulses that others had not counted.
    ///
    /// Of those that they had, the identities are asked once more: whoever counted them may have died before it could
    /// refuse what was in conflict. That is no part of the step, because what is known of an identity never changes.
    async fn with_passed(
        &self,
        batch: &Batch,
        seen: Seen,
        passed: &[bool],
        fresh: Vec<Outcome>,
    ) -> Result<Vec<Outcome>, Fault> {
        let known_by_id = |(pulse, passed): &(&Pulse, &bool)| **passed && pulse.identity.is_some();
        let asked: Vec<&Pulse> =
            batch.pulses.iter().zip(passed).filter(known_by_id).map(|(pulse, _)| pulse).collect();
        let mut answers = Vec::new();
        if !asked.is_empty() {
            let asked = prepare(seen, asked)?;
            if let Applied::Known(known) = self.apply_once(batch, ASK, &asked, &[]).await? {
                answers = asked.outcomes(&known);
            }
        }
        let (mut fresh, mut answers) = (fresh.into_iter(), answers.into_iter());
        let outcome = |(pulse, passed): (&Pulse, &bool)| match (passed, &pulse.identity) {
            (false, _) => fresh.next().unwrap_or(Outcome::Counted),
            (true, Some(_)) if answers.next() == Some(Outcome::Conflict) => Outcome::Conflict,
            (true, _) => Outcome::Duplicate,
        };
        Ok(batch.pulses.iter().zip(passed).map(outcome).collect())
    }

    /// Notes the generation and the sequence that an answer begins with.
    pub(super) fn note(&self, shard: Shard, seen: Option<Seen>, values: &mut Values) -> Result<(), Fault> {
        let (generation, sequence) = (values.number()?, values.number()?);
        if let Some(seen) = seen {
            self.marks.note(shard, Seen { generation, sequence, ..seen });
        }
        Ok(())
    }
}

fn not_passed<'a>(batch: &'a Batch, passed: &'a [bool]) -> impl Iterator<Item = &'a Pulse> {
    let is_passed = |index| passed.get(index).copied().unwrap_or_default();
    batch.pulses.iter().enumerate().filter(move |(index, _)| !is_passed(*index)).map(|(_, pulse)| pulse)
}

fn prepare<'a>(seen: Seen, pulses: impl IntoIterator<Item = &'a Pulse>) -> Result<PreparedBatch, Fault> {
    PreparedBatch::new(seen.accumulator.identity_key(), pulses)
        .map_err(|error| Fault::Refused(error.to_string()))
}

fn known_identity(values: &mut Values, ids: usize) -> Result<(usize, Fingerprint), Fault> {
    let (index, content) = (values.number()?, values.bytes()?);
    let index = usize::try_from(index).ok().filter(|index| (1..=ids).contains(index));
    let content = <[u8; 6]>::try_from(content).ok();
    match (index, content) {
        (Some(index), Some(content)) => Ok((index - 1, Fingerprint(content))),
        _ => Err(Fault::Storage("Redis holds an identity with a fingerprint that is not six bytes".into())),
    }
}
