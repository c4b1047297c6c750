//! Removes what is deleted or forgotten already, in bounded steps that any process may repeat after a crash.

use super::{EmbeddedStore, fault::fault};
use application::{crash_point, ports::PortError};
use domain::Shard;
use sqlx::SqliteConnection;

/// Rows in a step: a few ten milliseconds in which nobody else writes.
const STEP_ROWS: i64 = 20_000;
/// Forgotten identities that one call removes; the next seal goes on where it ended.
const IDENTITY_STEPS_MAX: usize = 50;

impl EmbeddedStore {
    /// Removes the rows of deleted generations, and identities that are no longer asked for.
    pub(super) async fn sweep(&self, operation: &'static str, shard: Shard) -> Result<(), PortError> {
        while self.step(operation, shard, Garbage::Usage).await? {}
        for _ in 0..IDENTITY_STEPS_MAX {
            if !self.step(operation, shard, Garbage::Identities).await? {
                break;
            }
        }
        Ok(())
    }

    /// Removes a few rows; whether there may be more.
    async fn step(&self, operation: &'static str, shard: Shard, garbage: Garbage) -> Result<bool, PortError> {
        let mut turn = self.file.writer(operation).await?;
        let mut step = turn.begin().await?;
        let removed = match garbage {
            Garbage::Usage => usage(operation, &mut step, shard).await?,
            Garbage::Identities => forgotten(operation, &mut step, shard).await?,
        };
        if removed > 0 {
            if matches!(garbage, Garbage::Identities) {
                crash_point::hit("bucket_drop");
            }
            step.commit().await.map_err(fault(operation))?;
        }
        Ok(removed > 0)
    }
}

#[derive(Clone, Copy, Debug)]
enum Garbage {
    Usage,
    Identities,
}

async fn usage(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: Shard,
) -> Result<u64, PortError> {
    let removed = sqlx::query(
        "DELETE FROM counting_usage WHERE (shard, generation, slot, key) IN (
            SELECT shard, generation, slot, key FROM counting_usage
            WHERE shard = ?1 AND generation <= (SELECT deleted FROM counting_shards WHERE shard = ?1)
            ORDER BY generation, slot, key LIMIT ?2)",
    )
    .bind(i64::from(shard.0))
    .bind(STEP_ROWS)
    .execute(connection)
    .await
    .map_err(fault(operation))?;
    Ok(removed.rows_affected())
}

async fn forgotten(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: Shard,
) -> Result<u64, PortError> {
    let bucket: Option<i64> = sqlx::query_scalar(
        "SELECT bucket FROM counting_buckets WHERE shard = ? AND dropped ORDER BY bucket LIMIT 1",
    )
    .bind(i64::from(shard.0))
    .fetch_optional(&mut *connection)
    .await
    .map_err(fault(operation))?;
    let Some(bucket) = bucket else { return Ok(0) };
    let removed = sqlx::query(
        "DELETE FROM counting_identities WHERE (bucket, digest) IN (
            SELECT bucket, digest FROM counting_identities WHERE bucket = ?1 ORDER BY digest LIMIT ?2)",
    )
    .bind(bucket)
    .bind(STEP_ROWS)
    .execute(&mut *connection)
    .await
    .map_err(fault(operation))?
    .rows_affected();
    if removed > 0 {
        return Ok(removed);
    }
    let removed = sqlx::query("DELETE FROM counting_buckets WHERE bucket = ?")
        .bind(bucket)
        .execute(connection)
        .await
        .map_err(fault(operation))?;
    Ok(removed.rows_affected())
}
