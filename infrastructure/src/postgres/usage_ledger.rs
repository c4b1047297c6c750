//! A generation into the books: its record, its rows and the watermark in one transaction.

use super::{
    PostgresLedger, accumulator_name, bigint,
    binary_copy::{CopyBuffer, UnfitRow},
    counter,
    session::{self, Session},
};
use crate::positions;
use application::{
    crash_point,
    ports::{FlushReceipt, PortError, SealedGeneration, UsageLedger, UsageRows},
};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, TotalAmount, UsageTotal};
use futures_util::{StreamExt, future};
use sqlx::types::chrono::{DateTime, Utc};
use std::time::Duration;

const OPERATION: &str = "write a generation to the ledger";
/// From how many bytes on the waiting rows are sent.
const COPY_BYTES: usize = 1 << 20;
/// How many rows the upsert manages in a second at the very least.
const ROWS_PER_SECOND: u64 = 5_000;

/// The row that makes a generation count once: whoever inserts it writes; all others wait for its commit here.
const INSERT_FLUSH: &str = "\
insert into flushes (accumulator, shard, generation, used_amount, pulse_count, row_count, sealed_at, started_at, flushed_at, positions)
values ($1, $2, $3, $4::numeric, $5, 0, $6, now(), now(), $7::jsonb)
on conflict do nothing";

const SELECT_FLUSH: &str = "\
select used_amount::text, pulse_count, row_count from flushes where accumulator = $1 and shard = $2 and generation = $3";

const CREATE_ROWS: &str = "\
create temporary table flush_rows (
    tenant text collate \"C\",
    product_sku text collate \"C\",
    use_unity text collate \"C\",
    window_start timestamptz,
    used_amount numeric,
    pulse_count bigint
) on commit drop";

const COPY_ROWS: &str = "copy pg_temp.flush_rows from stdin (format binary)";

/// In the order of the key, which writes the indexes three times as fast, and in which writers never deadlock.
const UPSERT_ROWS: &str = "\
insert into hourly_usage as booked
    (tenant, product_sku, use_unity, window_start, used_amount, pulse_count, flushed_amount, flushed_count)
select tenant, product_sku, use_unity, window_start, used_amount, pulse_count, used_amount, pulse_count
from pg_temp.flush_rows
order by tenant, product_sku, use_unity, window_start
on conflict (tenant, product_sku, use_unity, window_start) do update set
    used_amount = booked.used_amount + excluded.used_amount,
    pulse_count = booked.pulse_count + excluded.pulse_count,
    flushed_amount = coalesce(booked.flushed_amount, booked.used_amount) + excluded.flushed_amount,
    flushed_count = coalesce(booked.flushed_count, booked.pulse_count) + excluded.flushed_count,
    updated_at = now()";

const COMPLETE_FLUSH: &str = "\
update flushes set row_count = $4, flushed_at = clock_timestamp()
where accumulator = $1 and shard = $2 and generation = $3";

/// The last statement, so that workers that report what they saw wait for it as briefly as possible.
const ADVANCE_WATERMARK: &str = "\
update accumulator_shards set flushed_generation = $3, flushed_at = now()
where accumulator = $1 and shard = $2 and flushed_generation = $3 - 1 and recovery = $4
    and exists (select from accumulators where id = $1 and retired_at is null)";

/// A generation that is not written.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard}, generation {generation}: {why}")]
struct Refused {
    shard: Shard,
    generation: u64,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("the books hold {} in {} pulses for it, the accumulator sealed {} in {}", .booked.amount, .booked.pulses, .sealed.amount, .sealed.pulses)]
    BookedOtherwise { booked: UsageTotal, sealed: UsageTotal },
    #[error("its rows come to {} in {} pulses, the accumulator sealed {} in {}", .read.amount, .read.pulses, .sealed.amount, .sealed.pulses)]
    RowsOtherwise { read: UsageTotal, sealed: UsageTotal },
    #[error(
        "it does not follow the last one in the books of accumulator {accumulator}, or that is not the one in use, or the \
         shard was recovered since"
    )]
    Gap { accumulator: AccumulatorId },
    #[error("{sent} rows were sent, {taken} arrived")]
    RowsLost { sent: u64, taken: u64 },
    #[error("its record is neither new nor there")]
    RecordLost,
    #[error("the amount {0} on record is not one of ours")]
    Unreadable(String),
    #[error("PostgreSQL cannot hold the time of its sealing")]
    SealedAt,
    #[error(transparent)]
    Row(#[from] UnfitRow),
}

#[async_trait]
impl UsageLedger for PostgresLedger {
    async fn write(&self, sealed: &SealedGeneration, rows: UsageRows<'_>) -> Result<FlushReceipt, PortError> {
        let flush = Flush::new(sealed)?;
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        if !flush.insert(&mut session).await? {
            let receipt = flush.booked(&mut session).await?;
            session.finish().await?;
            return Ok(receipt);
        }
        crash_point::hit("ledger_inserted");
        session.execute(sqlx::query(CREATE_ROWS)).await?;
        let count = flush.copy(&mut session, rows).await?;
        flush.book(&mut session, count).await?;
        crash_point::hit("commit_before");
        crash_point::within("commit_sent_no_reply", session.commit()).await?;
        crash_point::hit("commit_after");
        Ok(FlushReceipt { total: sealed.total, rows: count, written: true })
    }
}

/// A generation in the types of the tables.
struct Flush<'a> {
    sealed: &'a SealedGeneration,
    accumulator: String,
    shard: i32,
    generation: i64,
    pulses: i64,
    sealed_at: DateTime<Utc>,
}

impl<'a> Flush<'a> {
    fn new(sealed: &'a SealedGeneration) -> Result<Self, PortError> {
        let sealed_at = DateTime::from_timestamp(sealed.sealed_at.seconds(), sealed.sealed_at.nanos());
        Ok(Self {
            sealed,
            accumulator: accumulator_name(sealed.accumulator),
            shard: i32::from(sealed.shard.0),
            generation: bigint(OPERATION, sealed.generation)?,
            pulses: bigint(OPERATION, sealed.total.pulses)?,
            sealed_at: sealed_at.ok_or_else(|| refused(sealed, Why::SealedAt))?,
        })
    }

    /// Inserts the record; `false` where it is there already.
    async fn insert(&self, session: &mut Session) -> Result<bool, PortError> {
        let insert = sqlx::query(INSERT_FLUSH)
            .bind(&self.accumulator)
            .bind(self.shard)
            .bind(self.generation)
            .bind(self.sealed.total.amount.to_string())
            .bind(self.pulses)
            .bind(self.sealed_at)
            .bind(positions::to_json(&self.sealed.positions));
        Ok(session.execute(insert).await? == 1)
    }

    /// The record of an earlier call, if it is of the same generation.
    async fn booked(&self, session: &mut Session) -> Result<FlushReceipt, PortError> {
        let select =
            sqlx::query_as(SELECT_FLUSH).bind(&self.accumulator).bind(self.shard).bind(self.generation);
        let record: Option<(String, i64, i64)> = session.fetch_optional(select).await?;
        let (amount, pulses, rows) = record.ok_or_else(|| self.refused(Why::RecordLost))?;
        let amount = TotalAmount::parse(&amount).ok_or_else(|| self.refused(Why::Unreadable(amount)))?;
        let booked = UsageTotal { amount, pulses: counter(OPERATION, pulses)? };
        if booked != self.sealed.total {
            return Err(self.refused(Why::BookedOtherwise { booked, sealed: self.sealed.total }));
        }
        Ok(FlushReceipt { total: booked, rows: counter(OPERATION, rows)?, written: false })
    }

    /// Sends all rows to the temporary table, the next part being read meanwhile; returns how many they were.
    ///
    /// Many short `COPY` statements instead of one, so that the server never waits for us within a statement: whoever
    /// stops in between is cut off by the limit on idle transactions.
    async fn copy(&self, session: &mut Session, mut rows: UsageRows<'_>) -> Result<u64, PortError> {
        let mut buffer = CopyBuffer::default();
        let mut next = rows.next().await;
        while let Some(part) = next {
            for row in &part? {
                buffer.push(row).map_err(|unfit| self.refused(unfit.into()))?;
            }
            next = if buffer.len() < COPY_BYTES {
                rows.next().await
            } else {
                let (sent, next) = future::join(self.send(session, &mut buffer), rows.next()).await;
                sent?;
                next
            };
        }
        self.send(session, &mut buffer).await?;
        let (count, read) = buffer.sums();
        if read != self.sealed.total {
            return Err(self.refused(Why::RowsOtherwise { read, sealed: self.sealed.total }));
        }
        Ok(count)
    }

    async fn send(&self, session: &mut Session, buffer: &mut CopyBuffer) -> Result<(), PortError> {
        if let Some((bytes, sent)) = buffer.complete() {
            let taken = session.copy(COPY_ROWS, bytes).await?;
            self.all_taken(sent, taken)?;
            buffer.clear();
        }
        Ok(())
    }

    /// Adds the rows to the hourly totals, completes the record and moves the watermark.
    async fn book(&self, session: &mut Session, count: u64) -> Result<(), PortError> {
        session.extend_limit(Duration::from_secs(count / ROWS_PER_SECOND)).await?;
        let booked = crash_point::within("upsert_mid", session.execute(sqlx::query(UPSERT_ROWS))).await?;
        self.all_taken(count, booked)?;
        let complete =
            sqlx::query(COMPLETE_FLUSH).bind(&self.accumulator).bind(self.shard).bind(self.generation);
        session.execute(complete.bind(bigint(OPERATION, count)?)).await?;
        let advance =
            sqlx::query(ADVANCE_WATERMARK).bind(&self.accumulator).bind(self.shard).bind(self.generation);
        match session.execute(advance.bind(bigint(OPERATION, self.sealed.recovery)?)).await? {
            1 => {
                crash_point::hit("watermark_advanced");
                Ok(())
            }
            _ => Err(self.refused(Why::Gap { accumulator: self.sealed.accumulator })),
        }
    }

    fn all_taken(&self, sent: u64, taken: u64) -> Result<(), PortError> {
        if sent == taken { Ok(()) } else { Err(self.refused(Why::RowsLost { sent, taken })) }
    }

    fn refused(&self, why: Why) -> PortError {
        refused(self.sealed, why)
    }
}

fn refused(sealed: &SealedGeneration, why: Why) -> PortError {
    PortError::permanent(OPERATION, Refused { shard: sealed.shard, generation: sealed.generation, why })
}
