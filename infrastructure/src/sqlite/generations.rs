//! Seals, reads and deletes generations.

use super::{
    EmbeddedStore, Seen,
    amount::{Limbs, stored, total},
    fault::{fault, refusal},
    identities, logs,
    sink::{lost, standing},
    time::{Clock, milliseconds, window},
};
use crate::positions;
use application::ports::{GenerationStore, PortError, SealedGeneration, UsageRow};
use async_trait::async_trait;
use domain::{Shard, Timestamp, UsageKey, UsageTotal};
use sqlx::SqliteConnection;

/// Rows in a part, unless more share its last slot.
const PART_ROWS: usize = 4_000;

#[async_trait]
impl GenerationStore for EmbeddedStore {
    async fn seal(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), PortError> {
        const OPERATION: &str = "seal a generation of the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let row = ShardRow::read(OPERATION, &mut step, shard).await?;
        let standing = row.checked(OPERATION, shard, self.seen(shard))?;
        if generation > standing.generation {
            let reason =
                format!("generation {generation} is ahead of the active one, {}", standing.generation);
            return Err(PortError::permanent(OPERATION, reason));
        }
        self.see(shard, standing);
        if generation < standing.generation {
            return Ok(());
        }
        let clock = row.advanced(now, window(self.dedupe_window));
        row.seal(OPERATION, &mut step, shard, now, clock).await?;
        logs::seal(OPERATION, &mut step, i64::from(shard.0), row.generation).await?;
        let remembered = row.counted - row.anonymous;
        let (shard_number, window) = (i64::from(shard.0), self.dedupe_window);
        identities::turn_over(OPERATION, &mut step, shard_number, clock, window, remembered).await?;
        step.commit().await.map_err(fault(OPERATION))?;
        drop(turn);
        let next = Seen { generation: generation + 1, sequence: standing.sequence + 1, ..standing };
        self.see(shard, next);
        self.sweep(OPERATION, shard).await
    }

    async fn sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, PortError> {
        const OPERATION: &str = "read a sealed total of the embedded file";
        let mut reader = self.file.reader(OPERATION).await?;
        let seen = self.seen(shard);
        let standing =
            ShardRow::read(OPERATION, &mut reader, shard).await?.checked(OPERATION, shard, seen)?;
        let Ok(number) = stored(generation) else { return Ok(None) };
        let row = SealedRow::read(OPERATION, &mut reader, shard, number).await?;
        let accumulator = standing.accumulator;
        row.map(|row| {
            Ok(SealedGeneration {
                accumulator,
                shard,
                generation,
                recovery: 0,
                total: row.total().map_err(refusal(OPERATION))?,
                sealed_at: row.sealed_at().map_err(refusal(OPERATION))?,
                positions: positions::from_json(&row.positions)
                    .ok_or("the positions of logs cannot be read")
                    .map_err(refusal(OPERATION))?,
            })
        })
        .transpose()
    }

    async fn read(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<UsageRow>, Option<u32>), PortError> {
        const OPERATION: &str = "read rows of the embedded file";
        let Ok(generation) = stored(generation) else { return Ok((Vec::new(), None)) };
        let mut reader = self.file.reader(OPERATION).await?;
        let mut rows = Row::from_slot(OPERATION, &mut reader, shard, generation, part).await?;
        let next = match rows.last().map(|last| last.slot) {
            Some(last) if rows.len() > PART_ROWS => {
                // A slot is in one part whole.
                let whole = rows.partition_point(|row| row.slot < last);
                if whole > 0 {
                    rows.truncate(whole);
                    Some(last)
                } else {
                    rows = Row::of_slot(OPERATION, &mut reader, shard, generation, last).await?;
                    last.checked_add(1)
                }
            }
            _ => None,
        };
        let rows = rows.into_iter().map(|row| row.usage().ok_or("a row of usage cannot be read"));
        Ok((rows.collect::<Result<_, _>>().map_err(refusal(OPERATION))?, next))
    }

    async fn delete(&self, sealed: &SealedGeneration) -> Result<(), PortError> {
        const OPERATION: &str = "delete a generation of the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let row = ShardRow::read(OPERATION, &mut step, sealed.shard).await?;
        let standing = row.checked(OPERATION, sealed.shard, self.seen(sealed.shard))?;
        let refused = |reason: String| Err(PortError::permanent(OPERATION, reason));
        if standing.accumulator != sealed.accumulator {
            return refused(format!("the shard belongs to accumulator {}", standing.accumulator));
        }
        let generation = stored(sealed.generation).map_err(refusal(OPERATION))?;
        if generation > row.deleted {
            if generation != row.deleted + 1 {
                return refused(format!("generation {} comes before {generation}", row.deleted + 1));
            }
            let held = SealedRow::read(OPERATION, &mut step, sealed.shard, generation).await?;
            let held = held.map(|held| held.total().map_err(refusal(OPERATION))).transpose()?;
            if held != Some(sealed.total) {
                return refused(format!("the books have {:?}, the shard {held:?}", sealed.total));
            }
            forget(OPERATION, &mut step, sealed.shard, generation).await?;
            step.commit().await.map_err(fault(OPERATION))?;
            self.see(sealed.shard, Seen { sequence: standing.sequence + 1, ..standing });
        } else {
            drop(step);
            self.see(sealed.shard, standing);
        }
        drop(turn);
        self.sweep(OPERATION, sealed.shard).await
    }
}

/// From here on the generation is deleted; its rows go in later steps.
async fn forget(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: Shard,
    generation: i64,
) -> Result<(), PortError> {
    sqlx::query("DELETE FROM counting_generations WHERE shard = ? AND generation = ?")
        .bind(i64::from(shard.0))
        .bind(generation)
        .execute(&mut *connection)
        .await
        .map_err(fault(operation))?;
    sqlx::query("UPDATE counting_shards SET deleted = ?2, sequence = sequence + 1 WHERE shard = ?1")
        .bind(i64::from(shard.0))
        .bind(generation)
        .execute(connection)
        .await
        .map_err(fault(operation))?;
    Ok(())
}

#[derive(Debug, sqlx::FromRow)]
struct ShardRow {
    accumulator: String,
    generation: i64,
    sequence: i64,
    deleted: i64,
    counted: i64,
    anonymous: i64,
    clock_elapsed: i64,
    clock_latest: i64,
}

impl ShardRow {
    async fn read(
        operation: &'static str,
        connection: &mut SqliteConnection,
        shard: Shard,
    ) -> Result<Self, PortError> {
        let row: Option<Self> = sqlx::query_as(
            "SELECT accumulator, generation, sequence, deleted, counted, anonymous, clock_elapsed, clock_latest
             FROM counting_shards WHERE shard = ?",
        )
        .bind(i64::from(shard.0))
        .fetch_optional(connection)
        .await
        .map_err(fault(operation))?;
        row.ok_or_else(|| PortError::permanent(operation, lost(shard)))
    }

    fn checked(&self, operation: &'static str, shard: Shard, seen: Option<Seen>) -> Result<Seen, PortError> {
        standing(operation, shard, &self.accumulator, self.generation, self.sequence, seen)
    }

    fn advanced(&self, now: Timestamp, window: i64) -> Clock {
        let mut clock = Clock { elapsed: self.clock_elapsed, latest: self.clock_latest };
        clock.advance(milliseconds(now), window);
        clock
    }

    /// Moves what the active generation holds to the sealed ones, and opens the next.
    async fn seal(
        &self,
        operation: &'static str,
        connection: &mut SqliteConnection,
        shard: Shard,
        now: Timestamp,
        clock: Clock,
    ) -> Result<(), PortError> {
        sqlx::query(
            "INSERT INTO counting_generations
                (shard, generation, nanos_high, nanos_low, pulses, sealed_seconds, sealed_nanos)
             SELECT shard, generation, nanos_high, nanos_low, pulses, ?2, ?3 FROM counting_shards WHERE shard = ?1",
        )
        .bind(i64::from(shard.0))
        .bind(now.seconds())
        .bind(i64::from(now.nanos()))
        .execute(&mut *connection)
        .await
        .map_err(fault(operation))?;
        sqlx::query(
            "UPDATE counting_shards SET generation = generation + 1, sequence = sequence + 1,
                nanos_high = 0, nanos_low = 0, pulses = 0, clock_elapsed = ?2, clock_latest = ?3
             WHERE shard = ?1",
        )
        .bind(i64::from(shard.0))
        .bind(clock.elapsed)
        .bind(clock.latest)
        .execute(connection)
        .await
        .map_err(fault(operation))?;
        Ok(())
    }
}

#[derive(Debug, sqlx::FromRow)]
struct SealedRow {
    nanos_high: i64,
    nanos_low: i64,
    pulses: i64,
    sealed_seconds: i64,
    sealed_nanos: i64,
    positions: String,
}

impl SealedRow {
    async fn read(
        operation: &'static str,
        connection: &mut SqliteConnection,
        shard: Shard,
        generation: i64,
    ) -> Result<Option<Self>, PortError> {
        sqlx::query_as(
            "SELECT nanos_high, nanos_low, pulses, sealed_seconds, sealed_nanos, positions
             FROM counting_generations WHERE shard = ? AND generation = ?",
        )
        .bind(i64::from(shard.0))
        .bind(generation)
        .fetch_optional(connection)
        .await
        .map_err(fault(operation))
    }

    fn total(&self) -> Result<UsageTotal, super::amount::Nonsense> {
        total(Limbs { high: self.nanos_high, low: self.nanos_low }, self.pulses)
    }

    fn sealed_at(&self) -> Result<Timestamp, std::num::TryFromIntError> {
        Ok(Timestamp::new(self.sealed_seconds, self.sealed_nanos.try_into()?))
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    slot: u32,
    key: Vec<u8>,
    nanos_high: i64,
    nanos_low: i64,
    pulses: i64,
}

impl Row {
    /// One row more than a part from this slot on, nothing of a generation that was deleted.
    async fn from_slot(
        operation: &'static str,
        connection: &mut SqliteConnection,
        shard: Shard,
        generation: i64,
        slot: u32,
    ) -> Result<Vec<Self>, PortError> {
        sqlx::query_as(
            "SELECT slot, key, nanos_high, nanos_low, pulses FROM counting_usage
             WHERE shard = ?1 AND generation = ?2 AND slot >= ?3
                AND generation > (SELECT deleted FROM counting_shards WHERE shard = ?1)
             ORDER BY slot, key LIMIT ?4",
        )
        .bind(i64::from(shard.0))
        .bind(generation)
        .bind(i64::from(slot))
        .bind(i64::try_from(PART_ROWS + 1).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await
        .map_err(fault(operation))
    }

    /// All rows of one slot.
    async fn of_slot(
        operation: &'static str,
        connection: &mut SqliteConnection,
        shard: Shard,
        generation: i64,
        slot: u32,
    ) -> Result<Vec<Self>, PortError> {
        sqlx::query_as(
            "SELECT slot, key, nanos_high, nanos_low, pulses FROM counting_usage
             WHERE shard = ?1 AND generation = ?2 AND slot = ?3
                AND generation > (SELECT deleted FROM counting_shards WHERE shard = ?1)
             ORDER BY key",
        )
        .bind(i64::from(shard.0))
        .bind(generation)
        .bind(i64::from(slot))
        .fetch_all(connection)
        .await
        .map_err(fault(operation))
    }

    fn usage(self) -> Option<UsageRow> {
        let total = total(Limbs { high: self.nanos_high, low: self.nanos_low }, self.pulses).ok()?;
        Some(UsageRow { key: UsageKey::decode(&self.key).ok()?, total })
    }
}
