//! Writes sealed generations to the books.

use super::{
    EmbeddedStore,
    amount::{TooLarge, WideLimbs, count, stored},
    bulk::Bulk,
    fault::{fault, refusal},
    file::Turn,
    time::text,
};
use crate::positions;
use application::{
    crash_point,
    ports::{FlushReceipt, PortError, SealedGeneration, UsageLedger, UsageRow, UsageRows},
};
use async_trait::async_trait;
use domain::UsageTotal;
use futures_util::TryStreamExt;
use sqlx::SqliteConnection;
use std::sync::LazyLock;

const OPERATION: &str = "write a generation to the books of the embedded file";

static STAGE: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO temp.staged
            (tenant, product_sku, use_unity, hour, nanos_top, nanos_high, nanos_low, pulse_count) VALUES",
        "(?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

#[async_trait]
impl UsageLedger for EmbeddedStore {
    async fn write(&self, sealed: &SealedGeneration, rows: UsageRows<'_>) -> Result<FlushReceipt, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        if let Some(receipt) = place(&mut reader, sealed).await? {
            return Ok(receipt);
        }
        drop(reader);
        // The rows wait in a temporary table, so that other steps go on while they are read, and are written in the
        // order of their keys.
        let mut stager = self.file.stager(OPERATION).await?;
        let rows = stage(&mut stager, sealed, rows).await?;
        // This program's turn to write, on the connection that has the rows.
        let _turn = self.file.writer(OPERATION).await?;
        let mut step = stager.begin().await?;
        if let Some(receipt) = place(&mut step, sealed).await? {
            return Ok(receipt);
        }
        book(&mut step, sealed, rows).await?;
        crash_point::hit("commit_before");
        crash_point::within("commit_sent_no_reply", step.commit()).await.map_err(fault(OPERATION))?;
        crash_point::hit("commit_after");
        Ok(FlushReceipt { total: sealed.total, rows, written: true })
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Flush {
    nanos_top: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulse_count: i64,
    row_count: i64,
}

/// The receipt where the generation is in the books; an error where it may not come next.
async fn place(
    connection: &mut SqliteConnection,
    sealed: &SealedGeneration,
) -> Result<Option<FlushReceipt>, PortError> {
    let (accumulator, shard) = (sealed.accumulator.to_string(), i64::from(sealed.shard.0));
    let generation = stored(sealed.generation).map_err(refusal(OPERATION))?;
    let flushed: Option<i64> = sqlx::query_scalar(
        "SELECT flushed_generation FROM accumulator_shards WHERE accumulator = ? AND shard = ?",
    )
    .bind(&accumulator)
    .bind(shard)
    .fetch_optional(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    let refused = |reason: String| Err(PortError::permanent(OPERATION, reason));
    let Some(flushed) = flushed else {
        return refused(format!(
            "shard {shard} of accumulator {accumulator} is not registered with these books"
        ));
    };
    let record: Option<Flush> = sqlx::query_as(
        "SELECT nanos_top, nanos_high, nanos_low, pulse_count, row_count FROM flushes
         WHERE accumulator = ? AND shard = ? AND generation = ?",
    )
    .bind(&accumulator)
    .bind(shard)
    .bind(generation)
    .fetch_optional(connection)
    .await
    .map_err(fault(OPERATION))?;
    let Some(record) = record else {
        if generation == flushed + 1 {
            return Ok(None);
        }
        return refused(format!(
            "generation {generation} of shard {shard} does not follow the last one in the books, {flushed}"
        ));
    };
    let limbs = WideLimbs { top: record.nanos_top, high: record.nanos_high, low: record.nanos_low };
    let total = UsageTotal {
        amount: limbs.amount().map_err(refusal(OPERATION))?,
        pulses: count(record.pulse_count).map_err(refusal(OPERATION))?,
    };
    if total != sealed.total {
        return refused(format!(
            "generation {generation} of shard {shard} is in the books with {total:?}, not {:?}",
            sealed.total
        ));
    }
    let rows = count(record.row_count).map_err(refusal(OPERATION))?;
    Ok(Some(FlushReceipt { total, rows, written: false }))
}

/// Puts the rows into the temporary table, and returns how many they are; they must come to the sealed total.
async fn stage(
    stager: &mut Turn<'_>,
    sealed: &SealedGeneration,
    mut rows: UsageRows<'_>,
) -> Result<u64, PortError> {
    let mut step = stager.begin_staging().await?;
    sqlx::raw_sql(
        "CREATE TEMP TABLE IF NOT EXISTS staged (tenant TEXT, product_sku TEXT, use_unity TEXT, hour INTEGER,
            nanos_top INTEGER, nanos_high INTEGER, nanos_low INTEGER, pulse_count INTEGER);
         DELETE FROM temp.staged;",
    )
    .execute(&mut *step)
    .await
    .map_err(fault(OPERATION))?;
    let (mut total, mut number) = (UsageTotal::default(), 0);
    while let Some(part) = rows.try_next().await? {
        for row in &part {
            total = total.checked_add(row.total).ok_or(TooLarge).map_err(refusal(OPERATION))?;
        }
        number += part.len() as u64;
        stage_part(&mut step, &part).await?;
    }
    if total != sealed.total {
        let reason = format!("the rows come to {total:?}, the sealed total is {:?}", sealed.total);
        return Err(PortError::permanent(OPERATION, reason));
    }
    step.commit().await.map_err(fault(OPERATION))?;
    Ok(number)
}

async fn stage_part(connection: &mut SqliteConnection, rows: &[UsageRow]) -> Result<(), PortError> {
    for (text, range) in STAGE.runs(rows.len()) {
        let mut query = sqlx::query(text);
        for UsageRow { key, total } in &rows[range] {
            let limbs = WideLimbs::of(total.amount).map_err(refusal(OPERATION))?;
            query = query
                .bind(key.tenant.as_str())
                .bind(key.product_sku.as_str())
                .bind(key.use_unity.as_str())
                .bind(key.hour.number())
                .bind(limbs.top)
                .bind(limbs.high)
                .bind(limbs.low)
                .bind(stored(total.pulses).map_err(refusal(OPERATION))?);
        }
        query.execute(&mut *connection).await.map_err(fault(OPERATION))?;
    }
    Ok(())
}

/// The record, the staged rows in the order of their keys, and the watermark.
async fn book(
    connection: &mut SqliteConnection,
    sealed: &SealedGeneration,
    rows: u64,
) -> Result<(), PortError> {
    let (accumulator, shard) = (sealed.accumulator.to_string(), i64::from(sealed.shard.0));
    let generation = stored(sealed.generation).map_err(refusal(OPERATION))?;
    let limbs = WideLimbs::of(sealed.total.amount).map_err(refusal(OPERATION))?;
    let started_at: String = sqlx::query_scalar("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
        .fetch_one(&mut *connection)
        .await
        .map_err(fault(OPERATION))?;
    sqlx::query(
        "INSERT INTO hourly_usage
            (tenant, product_sku, use_unity, hour, nanos_top, nanos_high, nanos_low, pulse_count,
            flushed_top, flushed_high, flushed_low, flushed_count)
         SELECT tenant, product_sku, use_unity, hour, nanos_top, nanos_high, nanos_low, pulse_count,
            nanos_top, nanos_high, nanos_low, pulse_count
         FROM temp.staged WHERE true ORDER BY tenant, product_sku, use_unity, hour
         ON CONFLICT (tenant, product_sku, use_unity, hour) DO UPDATE SET
            nanos_top = nanos_top + excluded.nanos_top + (nanos_high + excluded.nanos_high
                + (nanos_low + excluded.nanos_low) / 1000000000000000000) / 1000000000000000000,
            nanos_high = (nanos_high + excluded.nanos_high
                + (nanos_low + excluded.nanos_low) / 1000000000000000000) % 1000000000000000000,
            nanos_low = (nanos_low + excluded.nanos_low) % 1000000000000000000,
            pulse_count = pulse_count + excluded.pulse_count,
            flushed_top = coalesce(flushed_top, nanos_top) + excluded.nanos_top
                + (coalesce(flushed_high, nanos_high) + excluded.nanos_high
                + (coalesce(flushed_low, nanos_low) + excluded.nanos_low) / 1000000000000000000) / 1000000000000000000,
            flushed_high = (coalesce(flushed_high, nanos_high) + excluded.nanos_high
                + (coalesce(flushed_low, nanos_low) + excluded.nanos_low) / 1000000000000000000) % 1000000000000000000,
            flushed_low = (coalesce(flushed_low, nanos_low) + excluded.nanos_low) % 1000000000000000000,
            flushed_count = coalesce(flushed_count, pulse_count) + excluded.pulse_count,
            updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
    )
    .execute(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    crash_point::hit("upsert_mid");
    sqlx::query(
        "INSERT INTO flushes (accumulator, shard, generation, nanos_top, nanos_high, nanos_low, pulse_count,
            row_count, sealed_at, started_at, positions)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&accumulator)
    .bind(shard)
    .bind(generation)
    .bind(limbs.top)
    .bind(limbs.high)
    .bind(limbs.low)
    .bind(stored(sealed.total.pulses).map_err(refusal(OPERATION))?)
    .bind(stored(rows).map_err(refusal(OPERATION))?)
    .bind(text(sealed.sealed_at))
    .bind(started_at)
    .bind(positions::to_json(&sealed.positions))
    .execute(&mut *connection)
    .await
    .map_err(fault(OPERATION))?;
    crash_point::hit("ledger_inserted");
    let moved = sqlx::query(
        "UPDATE accumulator_shards SET flushed_generation = ?3, flushed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
         WHERE accumulator = ?1 AND shard = ?2 AND flushed_generation = ?3 - 1",
    )
    .bind(&accumulator)
    .bind(shard)
    .bind(generation)
    .execute(connection)
    .await
    .map_err(fault(OPERATION))?;
    if moved.rows_affected() == 1 {
        crash_point::hit("watermark_advanced");
        return Ok(());
    }
    Err(PortError::permanent(OPERATION, "the watermark moved within a transaction: the file is damaged"))
}
