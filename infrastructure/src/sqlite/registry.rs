//! The memory of the accumulator, by which lost or rolled-back storage is noticed.

use super::{
    EmbeddedStore,
    amount::{count, stored},
    fault::{fault, refusal},
};
use application::ports::{PortError, Registration, ShardMark, ShardRecord, ShardRegistry, ShardStatus};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount};
use sqlx::{Connection, SqliteConnection};

#[async_trait]
impl ShardRegistry for EmbeddedStore {
    async fn register(
        &self,
        accumulator: AccumulatorId,
        shards: ShardCount,
    ) -> Result<Registration, PortError> {
        const OPERATION: &str = "register an accumulator with the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        if let Some(registration) = read(OPERATION, &mut step).await? {
            return Ok(registration);
        }
        sqlx::query("INSERT INTO accumulators (id, shards) VALUES (?, ?)")
            .bind(accumulator.to_string())
            .bind(i64::from(shards.get()))
            .execute(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
        for shard in shards.shards() {
            sqlx::query("INSERT INTO accumulator_shards (accumulator, shard) VALUES (?, ?)")
                .bind(accumulator.to_string())
                .bind(i64::from(shard.0))
                .execute(&mut *step)
                .await
                .map_err(fault(OPERATION))?;
        }
        let registration = read(OPERATION, &mut step).await?;
        step.commit().await.map_err(fault(OPERATION))?;
        registration.ok_or("the registration is not there after it was made").map_err(refusal(OPERATION))
    }

    async fn registration(&self) -> Result<Option<Registration>, PortError> {
        const OPERATION: &str = "read the registration of the embedded file";
        let mut reader = self.file.reader(OPERATION).await?;
        let mut snapshot = reader.begin().await.map_err(fault(OPERATION))?;
        read(OPERATION, &mut snapshot).await
    }

    async fn confirm_created(&self, accumulator: AccumulatorId, shard: Shard) -> Result<(), PortError> {
        const OPERATION: &str = "confirm a shard in the embedded file";
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        let confirmed = sqlx::query(
            "UPDATE accumulator_shards SET status = 'created',
                created_at = coalesce(created_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
             WHERE accumulator = ? AND shard = ?",
        )
        .bind(accumulator.to_string())
        .bind(i64::from(shard.0))
        .execute(&mut *step)
        .await
        .map_err(fault(OPERATION))?;
        if confirmed.rows_affected() == 0 {
            return Err(PortError::permanent(OPERATION, stranger(accumulator, shard)));
        }
        step.commit().await.map_err(fault(OPERATION))
    }

    async fn mark_seen(&self, accumulator: AccumulatorId, marks: &[ShardMark]) -> Result<(), PortError> {
        const OPERATION: &str = "record how far shards were seen in the embedded file";
        if marks.is_empty() {
            return Ok(());
        }
        let mut turn = self.file.writer(OPERATION).await?;
        let mut step = turn.begin().await?;
        for mark in marks {
            // The row is matched whether or not it moves, so that no row means a stranger.
            let known = sqlx::query(
                "UPDATE accumulator_shards SET
                    seen_at = iif((?3, ?4) > (seen_generation, seen_sequence),
                        strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), seen_at),
                    seen_generation = max(seen_generation, ?3),
                    seen_sequence =
                        iif((?3, ?4) > (seen_generation, seen_sequence), ?4, seen_sequence)
                 WHERE accumulator = ?1 AND shard = ?2",
            )
            .bind(accumulator.to_string())
            .bind(i64::from(mark.shard.0))
            .bind(stored(mark.generation).map_err(refusal(OPERATION))?)
            .bind(stored(mark.sequence).map_err(refusal(OPERATION))?)
            .execute(&mut *step)
            .await
            .map_err(fault(OPERATION))?;
            if known.rows_affected() == 0 {
                return Err(PortError::permanent(OPERATION, stranger(accumulator, mark.shard)));
            }
        }
        step.commit().await.map_err(fault(OPERATION))
    }
}

fn stranger(accumulator: AccumulatorId, shard: Shard) -> String {
    format!("shard {shard} of accumulator {accumulator} is not registered")
}

#[derive(Debug, sqlx::FromRow)]
struct RecordRow {
    shard: u16,
    status: String,
    seen_generation: i64,
    seen_sequence: i64,
    flushed_generation: i64,
}

impl RecordRow {
    fn record(self, operation: &'static str) -> Result<ShardRecord, PortError> {
        let number = |stored| count(stored).map_err(refusal(operation));
        Ok(ShardRecord {
            shard: Shard(self.shard),
            status: match self.status.as_str() {
                "creating" => ShardStatus::Creating,
                "created" => ShardStatus::Created,
                other => {
                    return Err(PortError::permanent(operation, format!("{other} is no status of a shard")));
                }
            },
            seen: (number(self.seen_generation)?, number(self.seen_sequence)?),
            flushed: number(self.flushed_generation)?,
            recovery: 0,
        })
    }
}

/// Of one moment, where the connection is in a transaction.
pub(super) async fn read(
    operation: &'static str,
    connection: &mut SqliteConnection,
) -> Result<Option<Registration>, PortError> {
    let active: Option<(String, u16)> =
        sqlx::query_as("SELECT id, shards FROM accumulators WHERE retired_at IS NULL")
            .fetch_optional(&mut *connection)
            .await
            .map_err(fault(operation))?;
    let Some((id, shards)) = active else { return Ok(None) };
    let accumulator = AccumulatorId::parse(&id).ok_or("the accumulator's id cannot be read");
    let shards = ShardCount::new(shards).ok_or("the number of shards makes no sense");
    let rows: Vec<RecordRow> = sqlx::query_as(
        "SELECT shard, status, seen_generation, seen_sequence, flushed_generation
         FROM accumulator_shards WHERE accumulator = ? ORDER BY shard",
    )
    .bind(id)
    .fetch_all(connection)
    .await
    .map_err(fault(operation))?;
    Ok(Some(Registration {
        accumulator: accumulator.map_err(refusal(operation))?,
        shards: shards.map_err(refusal(operation))?,
        records: rows.into_iter().map(|row| row.record(operation)).collect::<Result<_, _>>()?,
    }))
}
