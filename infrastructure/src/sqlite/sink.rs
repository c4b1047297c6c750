//! Counts batches, each in one transaction with the identities that it remembers.

use super::{
    EmbeddedStore, Seen,
    amount::{Limbs, count, stored, total},
    batch::{self, PreparedBatch, Sum, packed, unpacked},
    bulk::Bulk,
    fault::{fault, refusal},
    identities, logs,
};
use application::ports::{Batch, Outcome, PortError, PulseSink};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard};
use sqlx::SqliteConnection;
use std::sync::LazyLock;

const OPERATION: &str = "count a batch in the embedded file";

static ADD: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO counting_usage (shard, generation, slot, key, nanos_high, nanos_low, pulses) VALUES",
        "(?, ?, ?, ?, ?, ?, ?)",
        "ON CONFLICT (shard, generation, slot, key) DO UPDATE SET
            nanos_high = nanos_high + excluded.nanos_high + (nanos_low + excluded.nanos_low) / 1000000000000000000,
            nanos_low = (nanos_low + excluded.nanos_low) % 1000000000000000000,
            pulses = pulses + excluded.pulses",
    )
});

#[async_trait]
impl PulseSink for EmbeddedStore {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        check_size(batch)?;
        let unseen = || format!("shard {} was not opened by this program", batch.shard);
        let seen = self.seen(batch.shard).ok_or_else(|| PortError::permanent(OPERATION, unseen()))?;
        if batch.pulses.is_empty() && batch.stretches.is_empty() {
            return Ok(Vec::new());
        }
        let number = stored(batch.number).map_err(refusal(OPERATION))?;
        let shard = i64::from(batch.shard.0);

        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let row = ShardRow::read(&mut step, shard, &self.writer).await?;
        let row = row.ok_or_else(|| PortError::permanent(OPERATION, lost(batch.shard)))?;
        let standing = row.checked(batch.shard, self.seen(batch.shard).unwrap_or(seen))?;
        match row.last_number {
            Some(last) if last > number => {
                let reason = format!("batch {number} comes after batch {last}");
                return Err(PortError::permanent(OPERATION, reason));
            }
            Some(last) if last == number => {
                self.see(batch.shard, standing);
                return repeated(row.last_outcomes.as_deref(), batch.pulses.len());
            }
            _ => {}
        }
        let stands = logs::stand(OPERATION, &mut step, shard, &batch.stretches).await?;
        let passed = batch.passed(&stands).map_err(refusal(OPERATION))?;
        let key = seen.accumulator.identity_key();
        let fresh = batch.pulses.iter().zip(&passed).filter(|(_, passed)| !**passed).map(|(pulse, _)| pulse);
        let prepared = PreparedBatch::new(fresh, key);
        let known = identities::known(OPERATION, &mut step, shard, &prepared.digests()).await?;
        let mut result = prepared.settle(&known).map_err(refusal(OPERATION))?;
        if passed.contains(&true) {
            let counted_before = batch.pulses.iter().zip(&passed).filter(|(_, passed)| **passed);
            let prepared = PreparedBatch::new(counted_before.map(|(pulse, _)| pulse), key);
            let known = identities::known(OPERATION, &mut step, shard, &prepared.digests()).await?;
            result.merge(&passed, prepared.passed(&known));
        }
        identities::remember(OPERATION, &mut step, shard, &result.fresh).await?;
        add(&mut step, shard, row.generation, &result.sums).await?;
        logs::pass(OPERATION, &mut step, shard, &batch.stretches, &stands).await?;
        row.write(&mut step, shard, &result).await?;
        remember_batch(&mut step, shard, &self.writer, number, row.clock_elapsed, &result.outcomes).await?;
        step.commit().await.map_err(fault(OPERATION))?;
        self.see(batch.shard, Seen { sequence: standing.sequence + 1, ..standing });
        Ok(result.outcomes)
    }
}

fn check_size(batch: &Batch) -> Result<(), PortError> {
    let units = batch.pulses.iter().map(|pulse| pulse.amount.whole_units()).fold(0, u64::saturating_add);
    if batch.pulses.len() > Batch::PULSES_MAX || units > Batch::UNITS_MAX {
        return Err(PortError::permanent(OPERATION, "the batch is too large"));
    }
    Ok(())
}

fn repeated(packed: Option<&[u8]>, pulses: usize) -> Result<Vec<Outcome>, PortError> {
    unpacked(packed, pulses)
        .ok_or_else(|| PortError::permanent(OPERATION, "another batch was counted under this number"))
}

pub(super) fn lost(shard: Shard) -> String {
    format!("shard {shard} is missing from the file, where it was seen before")
}

/// A shard and the last batch of this program, at the beginning of a step.
#[derive(Debug, sqlx::FromRow)]
struct ShardRow {
    accumulator: String,
    generation: i64,
    sequence: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulses: i64,
    clock_elapsed: i64,
    last_number: Option<i64>,
    last_outcomes: Option<Vec<u8>>,
}

impl ShardRow {
    async fn read(
        connection: &mut SqliteConnection,
        shard: i64,
        writer: &[u8; 16],
    ) -> Result<Option<Self>, PortError> {
        sqlx::query_as(
            "SELECT accumulator, generation, sequence, nanos_high, nanos_low, pulses, clock_elapsed,
                batches.number AS last_number, batches.outcomes AS last_outcomes
             FROM counting_shards AS shards
             LEFT JOIN counting_batches AS batches ON batches.shard = shards.shard AND batches.writer = ?2
             WHERE shards.shard = ?1",
        )
        .bind(shard)
        .bind(writer.as_slice())
        .fetch_optional(connection)
        .await
        .map_err(fault(OPERATION))
    }

    /// Where the shard stands, unless it is another one or further back than this program has seen it.
    fn checked(&self, shard: Shard, seen: Seen) -> Result<Seen, PortError> {
        standing(OPERATION, shard, &self.accumulator, self.generation, self.sequence, Some(seen))
    }

    async fn write(
        &self,
        connection: &mut SqliteConnection,
        shard: i64,
        result: &batch::Result,
    ) -> Result<(), PortError> {
        let held = Limbs { high: self.nanos_high, low: self.nanos_low };
        let active = total(held, self.pulses).map_err(refusal(OPERATION))?;
        let active = active.checked_add(result.total).ok_or("the total of the generation is too large");
        let active = active.map_err(refusal(OPERATION))?;
        let limbs = Limbs::of(active.amount).map_err(refusal(OPERATION))?;
        let number = |count: u64| stored(count).map_err(refusal(OPERATION));
        sqlx::query(
            "UPDATE counting_shards SET sequence = sequence + 1, nanos_high = ?2, nanos_low = ?3, pulses = ?4,
                counted = counted + ?5, duplicates = duplicates + ?6, conflicts = conflicts + ?7,
                anonymous = anonymous + ?8
             WHERE shard = ?1",
        )
        .bind(shard)
        .bind(limbs.high)
        .bind(limbs.low)
        .bind(number(active.pulses)?)
        .bind(number(result.total.pulses)?)
        .bind(number(result.duplicates)?)
        .bind(number(result.conflicts)?)
        .bind(number(result.anonymous)?)
        .execute(connection)
        .await
        .map_err(fault(OPERATION))?;
        Ok(())
    }
}

/// A shard as it stands, unless it is another one or further back than it was seen.
pub(super) fn standing(
    operation: &'static str,
    shard: Shard,
    accumulator: &str,
    generation: i64,
    sequence: i64,
    seen: Option<Seen>,
) -> Result<Seen, PortError> {
    let accumulator = AccumulatorId::parse(accumulator).ok_or("the accumulator's id cannot be read");
    let now = Seen {
        accumulator: accumulator.map_err(refusal(operation))?,
        generation: count(generation).map_err(refusal(operation))?,
        sequence: count(sequence).map_err(refusal(operation))?,
    };
    let Some(seen) = seen else { return Ok(now) };
    let reason = if now.accumulator != seen.accumulator {
        format!("shard {shard} belongs to accumulator {}, not to {}", now.accumulator, seen.accumulator)
    } else if now.generation < seen.generation || now.sequence < seen.sequence {
        format!(
            "shard {shard} is at generation {}, sequence {}, where it was seen at {}, {} before: the file was put back",
            now.generation, now.sequence, seen.generation, seen.sequence
        )
    } else {
        return Ok(now);
    };
    Err(PortError::permanent(operation, reason))
}

async fn add(
    connection: &mut SqliteConnection,
    shard: i64,
    generation: i64,
    sums: &[Sum],
) -> Result<(), PortError> {
    for (text, range) in ADD.runs(sums.len()) {
        let mut query = sqlx::query(text);
        for sum in &sums[range] {
            let limbs = Limbs::of(sum.total.amount).map_err(refusal(OPERATION))?;
            let pulses = stored(sum.total.pulses).map_err(refusal(OPERATION))?;
            query = query
                .bind(shard)
                .bind(generation)
                .bind(i64::from(sum.slot))
                .bind(sum.key.as_slice())
                .bind(limbs.high)
                .bind(limbs.low)
                .bind(pulses);
        }
        query.execute(&mut *connection).await.map_err(fault(OPERATION))?;
    }
    Ok(())
}

async fn remember_batch(
    connection: &mut SqliteConnection,
    shard: i64,
    writer: &[u8; 16],
    number: i64,
    applied_at: i64,
    outcomes: &[Outcome],
) -> Result<(), PortError> {
    sqlx::query(
        "INSERT INTO counting_batches (shard, writer, number, outcomes, applied_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (shard, writer) DO UPDATE SET
            number = excluded.number, outcomes = excluded.outcomes, applied_at = excluded.applied_at",
    )
    .bind(shard)
    .bind(writer.as_slice())
    .bind(number)
    .bind(packed(outcomes))
    .bind(applied_at)
    .execute(connection)
    .await
    .map_err(fault(OPERATION))?;
    Ok(())
}
