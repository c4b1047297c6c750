//! How far logs were counted.

use super::{
    EmbeddedStore,
    amount::{count, stored},
    fault::{fault, refusal},
};
use application::ports::{LogPositions, LogStretch, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition};
use sqlx::SqliteConnection;

#[async_trait]
impl LogPositions for EmbeddedStore {
    async fn positions(&self, log: &LogName) -> Result<Vec<LogPosition>, PortError> {
        const OPERATION: &str = "read how far a log was counted in the embedded file";
        let mut reader = self.file.reader(OPERATION).await?;
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT coalesce(log_offset, 0), coalesce(items, 0) FROM counting_shards AS shards
             LEFT JOIN counting_logs AS logs ON logs.shard = shards.shard AND log = ?
             ORDER BY shards.shard",
        )
        .bind(log.as_str())
        .fetch_all(&mut *reader)
        .await
        .map_err(fault(OPERATION))?;
        rows.into_iter().map(|row| position(OPERATION, row)).collect()
    }
}

fn position(operation: &'static str, (offset, items): (i64, i64)) -> Result<LogPosition, PortError> {
    let offset = count(offset).map_err(refusal(operation))?;
    let items = u32::try_from(items).map_err(refusal(operation))?;
    Ok(LogPosition { offset, items })
}

/// Where the shard stands on the log of each stretch.
pub(super) async fn stand(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
    stretches: &[LogStretch],
) -> Result<Vec<LogPosition>, PortError> {
    let mut positions = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        let row = sqlx::query_as("SELECT log_offset, items FROM counting_logs WHERE shard = ? AND log = ?")
            .bind(shard)
            .bind(stretch.log.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(fault(operation))?;
        positions.push(position(operation, row.unwrap_or_default())?);
    }
    Ok(positions)
}

/// Moves the shard from where it stands to the end of each stretch, never back, and adds what it takes of it.
pub(super) async fn pass(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
    stretches: &[LogStretch],
    stands: &[LogPosition],
) -> Result<(), PortError> {
    for (stretch, stands) in stretches.iter().zip(stands) {
        let LogStretch { log, to, .. } = stretch;
        sqlx::query(
            "INSERT INTO counting_logs (shard, log, log_offset, items, taken) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (shard, log) DO UPDATE SET
                log_offset = excluded.log_offset, items = excluded.items, taken = taken + excluded.taken
             WHERE (excluded.log_offset, excluded.items) > (log_offset, items)",
        )
        .bind(shard)
        .bind(log.as_str())
        .bind(stored(to.offset).map_err(refusal(operation))?)
        .bind(i64::from(to.items))
        .bind(stored(stretch.fresh(*stands)).map_err(refusal(operation))?)
        .execute(&mut *connection)
        .await
        .map_err(fault(operation))?;
    }
    Ok(())
}

/// Copies where the shard stands on every log to the generation that was sealed.
pub(super) async fn seal(
    operation: &'static str,
    connection: &mut SqliteConnection,
    shard: i64,
    generation: i64,
) -> Result<(), PortError> {
    sqlx::query(
        "UPDATE counting_generations SET positions =
            (SELECT json_group_object(log, log_offset || ':' || items) FROM counting_logs WHERE shard = ?1)
         WHERE shard = ?1 AND generation = ?2",
    )
    .bind(shard)
    .bind(generation)
    .execute(connection)
    .await
    .map_err(fault(operation))?;
    Ok(())
}
