//! Makes shards and says where they stand.

use super::{
    EmbeddedStore, Seen,
    amount::{Limbs, count, total},
    fault::{fault, refusal},
    identities,
    sink::{lost, standing},
    time::milliseconds,
};
use application::ports::{AccumulatorShards, PortError, ShardBirth, ShardCounts, ShardMark, ShardState};
use async_trait::async_trait;
use domain::{Shard, ShardCount};
use sqlx::SqliteConnection;

#[async_trait]
impl AccumulatorShards for EmbeddedStore {
    async fn inspect(&self, shard: Shard) -> Result<Option<ShardState>, PortError> {
        const OPERATION: &str = "inspect a shard of the embedded file";
        let mut reader = self.file.reader(OPERATION).await?;
        let seen = self.seen(shard);
        match StateRow::read(OPERATION, &mut reader, shard).await? {
            Some(row) => row.seen(OPERATION, self, shard, seen).map(Some),
            None if seen.is_some() => Err(PortError::permanent(OPERATION, lost(shard))),
            None => Ok(None),
        }
    }

    async fn create(&self, shard: Shard, birth: ShardBirth) -> Result<ShardState, PortError> {
        const OPERATION: &str = "make a shard of the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        if let Some(row) = StateRow::read(OPERATION, &mut step, shard).await? {
            return row.seen(OPERATION, self, shard, self.seen(shard));
        }
        if self.seen(shard).is_some() {
            return Err(PortError::permanent(OPERATION, lost(shard)));
        }
        check_birth(OPERATION, &mut step, shard, birth).await?;
        sqlx::query(
            "INSERT INTO counting_shards (shard, accumulator, shards, generation, sequence, clock_latest)
             VALUES (?, ?, ?, 1, 1, ?)",
        )
        .bind(i64::from(shard.0))
        .bind(birth.accumulator.to_string())
        .bind(i64::from(birth.shards.get()))
        .bind(milliseconds(birth.now))
        .execute(&mut *step)
        .await
        .map_err(fault(OPERATION))?;
        identities::open_first(OPERATION, &mut step, i64::from(shard.0)).await?;
        let row = StateRow::read(OPERATION, &mut step, shard).await?;
        let row = row.ok_or_else(|| PortError::permanent(OPERATION, lost(shard)))?;
        step.commit().await.map_err(fault(OPERATION))?;
        row.seen(OPERATION, self, shard, None)
    }

    fn marks(&self) -> Vec<ShardMark> {
        self.seen_marks()
    }
}

/// One file holds one accumulator, of one number of shards.
async fn check_birth(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: Shard,
    birth: ShardBirth,
) -> Result<(), PortError> {
    if shard.0 >= birth.shards.get() {
        let reason = format!("there is no shard {shard} of {}", birth.shards);
        return Err(PortError::permanent(operation, reason));
    }
    let others: Option<(i64, bool)> = sqlx::query_as(
        "SELECT shards, accumulator = ?1 FROM counting_shards WHERE accumulator <> ?1 OR shards <> ?2 LIMIT 1",
    )
    .bind(birth.accumulator.to_string())
    .bind(i64::from(birth.shards.get()))
    .fetch_optional(connection)
    .await
    .map_err(fault(operation))?;
    match others {
        None => Ok(()),
        Some((shards, true)) => {
            let reason = format!(
                "the file counts in {shards} shards, fixed for its life, and not in {}",
                birth.shards
            );
            Err(PortError::permanent(operation, reason))
        }
        Some((_, false)) => Err(PortError::permanent(operation, "the file holds another accumulator")),
    }
}

#[derive(Debug, sqlx::FromRow)]
pub(super) struct StateRow {
    accumulator: String,
    shards: u16,
    generation: i64,
    sequence: i64,
    deleted: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulses: i64,
    counted: i64,
    known: i64,
    anonymous: i64,
}

impl StateRow {
    pub(super) async fn read(
        operation: &'static str,
        connection: &mut SqliteConnection,
        shard: Shard,
    ) -> Result<Option<Self>, PortError> {
        sqlx::query_as(
            "SELECT accumulator, shards, generation, sequence, deleted, nanos_high, nanos_low, pulses,
                counted, duplicates + conflicts AS known, anonymous
             FROM counting_shards WHERE shard = ?",
        )
        .bind(i64::from(shard.0))
        .fetch_optional(connection)
        .await
        .map_err(fault(operation))
    }

    /// The state, which this program has seen from then on.
    fn seen(
        self,
        operation: &'static str,
        store: &EmbeddedStore,
        shard: Shard,
        seen: Option<Seen>,
    ) -> Result<ShardState, PortError> {
        let (state, now) = self.state(operation, shard, seen)?;
        store.see(shard, now);
        Ok(state)
    }

    /// The state, and how far that is.
    pub(super) fn state(
        self,
        operation: &'static str,
        shard: Shard,
        seen: Option<Seen>,
    ) -> Result<(ShardState, Seen), PortError> {
        let now = standing(operation, shard, &self.accumulator, self.generation, self.sequence, seen)?;
        let shards = ShardCount::new(self.shards).ok_or("the number of shards makes no sense");
        let held = Limbs { high: self.nanos_high, low: self.nanos_low };
        let state = ShardState {
            accumulator: now.accumulator,
            shards: shards.map_err(refusal(operation))?,
            generation: now.generation,
            sequence: now.sequence,
            recovery: 0,
            deleted: count(self.deleted).map_err(refusal(operation))?,
            active: total(held, self.pulses).map_err(refusal(operation))?,
            counts: ShardCounts {
                counted: count(self.counted).map_err(refusal(operation))?,
                duplicates: count(self.known).map_err(refusal(operation))?,
                anonymous: count(self.anonymous).map_err(refusal(operation))?,
            },
        };
        Ok((state, now))
    }
}
