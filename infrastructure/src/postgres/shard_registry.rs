//! The memory of the accumulator: which shards it has, and how far they were seen.

use super::{PostgresLedger, accumulator_name, bigint, counter, session};
use application::ports::{PortError, Registration, ShardMark, ShardRecord, ShardRegistry, ShardStatus};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount};
use sqlx::FromRow;
use std::collections::BTreeMap;

/// Waits for another process that registers at the same moment, and then does nothing.
const INSERT_ACCUMULATOR: &str =
    "insert into accumulators (id, shards) values ($1, $2) on conflict do nothing";

const INSERT_SHARDS: &str = "\
insert into accumulator_shards (accumulator, shard) select $1, shard from generate_series(0, $2 - 1) as shard";

pub(super) const SELECT_REGISTRATION: &str = "\
select a.id, a.shards, s.shard, s.status, s.seen_generation, s.seen_sequence, s.flushed_generation, s.recovery
from accumulators a join accumulator_shards s on s.accumulator = a.id
where a.retired_at is null
order by s.shard";

const CONFIRM_SHARD: &str = "\
update accumulator_shards set status = 'created', created_at = coalesce(created_at, now())
where accumulator = $1 and shard = $2";

/// In the order of the shards, so that two workers that report the same ones do not wait for each other in a circle.
const LOCK_SHARDS: &str = "\
select shard from accumulator_shards where accumulator = $1 and shard = any ($2) order by shard for update";

const MARK_SHARDS: &str = "\
update accumulator_shards as known
set seen_generation = mark.generation, seen_sequence = mark.sequence, seen_at = now()
from unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[]) as mark (shard, generation, sequence, recovery)
where known.accumulator = $1 and known.shard = mark.shard and known.recovery = mark.recovery
    and (mark.generation, mark.sequence) > (known.seen_generation, known.seen_sequence)";

/// What the registry cannot do.
#[derive(Debug, thiserror::Error)]
enum RegistryError {
    #[error("accumulator {0} was given up and must not be used again")]
    Retired(AccumulatorId),
    #[error("the ledger does not know shard {shard} of accumulator {accumulator}")]
    Unknown { accumulator: AccumulatorId, shard: Shard },
    #[error("the record of an accumulator does not read: {0}")]
    Unreadable(&'static str),
}

#[async_trait]
impl ShardRegistry for PostgresLedger {
    async fn register(
        &self,
        accumulator: AccumulatorId,
        shards: ShardCount,
    ) -> Result<Registration, PortError> {
        const OPERATION: &str = "register the accumulator";
        let (name, count) = (accumulator_name(accumulator), i32::from(shards.get()));
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        if session.execute(sqlx::query(INSERT_ACCUMULATOR).bind(&name).bind(count)).await? == 1 {
            session.execute(sqlx::query(INSERT_SHARDS).bind(&name).bind(count)).await?;
        }
        let rows = session.fetch_all(sqlx::query_as(SELECT_REGISTRATION)).await?;
        let registration = registration(OPERATION, &rows)?
            .ok_or_else(|| PortError::permanent(OPERATION, RegistryError::Retired(accumulator)))?;
        session.commit().await?;
        Ok(registration)
    }

    async fn registration(&self) -> Result<Option<Registration>, PortError> {
        const OPERATION: &str = "read the registration of the accumulator";
        let mut session = self.begin(OPERATION, session::READ).await?;
        let rows = session.fetch_all(sqlx::query_as(SELECT_REGISTRATION)).await?;
        session.finish().await?;
        registration(OPERATION, &rows)
    }

    async fn confirm_created(&self, accumulator: AccumulatorId, shard: Shard) -> Result<(), PortError> {
        const OPERATION: &str = "record that a shard was made";
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let confirm = sqlx::query(CONFIRM_SHARD).bind(accumulator_name(accumulator)).bind(i32::from(shard.0));
        match session.execute(confirm).await? {
            1 => session.commit().await,
            _ => Err(PortError::permanent(OPERATION, RegistryError::Unknown { accumulator, shard })),
        }
    }

    async fn mark_seen(&self, accumulator: AccumulatorId, marks: &[ShardMark]) -> Result<(), PortError> {
        const OPERATION: &str = "record how far the shards were seen";
        // Recovery, generation and sequence.
        let mut furthest: BTreeMap<Shard, (u64, u64, u64)> = BTreeMap::new();
        for mark in marks {
            let seen = furthest.entry(mark.shard).or_default();
            *seen = (*seen).max((mark.recovery, mark.generation, mark.sequence));
        }
        if furthest.is_empty() {
            return Ok(());
        }
        let shards: Vec<i32> = furthest.keys().map(|shard| i32::from(shard.0)).collect();
        let column = |value: fn(&(u64, u64, u64)) -> u64| -> Result<Vec<i64>, PortError> {
            furthest.values().map(|seen| bigint(OPERATION, value(seen))).collect()
        };
        let recoveries = column(|seen| seen.0)?;
        let (generations, sequences) = (column(|seen| seen.1)?, column(|seen| seen.2)?);
        let name = accumulator_name(accumulator);
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let known: Vec<(i32,)> =
            session.fetch_all(sqlx::query_as(LOCK_SHARDS).bind(&name).bind(&shards)).await?;
        if let Some(shard) = furthest.keys().find(|shard| !known.contains(&(i32::from(shard.0),))) {
            return Err(PortError::permanent(
                OPERATION,
                RegistryError::Unknown { accumulator, shard: *shard },
            ));
        }
        let mark = sqlx::query(MARK_SHARDS).bind(name).bind(shards).bind(generations).bind(sequences);
        session.execute(mark.bind(recoveries)).await?;
        session.commit().await
    }
}

#[derive(Debug, FromRow)]
pub(super) struct ShardRow {
    id: String,
    shards: i32,
    shard: i32,
    status: String,
    seen_generation: i64,
    seen_sequence: i64,
    flushed_generation: i64,
    recovery: i64,
}

/// The rows of the accumulator in use, in the order of its shards; `None` where there is none.
pub(super) fn registration(
    operation: &'static str,
    rows: &[ShardRow],
) -> Result<Option<Registration>, PortError> {
    let unreadable = |what| PortError::permanent(operation, RegistryError::Unreadable(what));
    let Some(first) = rows.first() else { return Ok(None) };
    let accumulator = AccumulatorId::parse(&first.id).ok_or_else(|| unreadable("id"))?;
    let shards =
        u16::try_from(first.shards).ok().and_then(ShardCount::new).ok_or_else(|| unreadable("shards"))?;
    let mut records = Vec::with_capacity(rows.len());
    for (shard, row) in shards.shards().zip(rows) {
        if row.shard != i32::from(shard.0) {
            return Err(unreadable("a shard is missing"));
        }
        let status = match row.status.as_str() {
            "creating" => ShardStatus::Creating,
            "created" => ShardStatus::Created,
            _ => return Err(unreadable("status")),
        };
        let seen = (counter(operation, row.seen_generation)?, counter(operation, row.seen_sequence)?);
        records.push(ShardRecord {
            shard,
            status,
            seen,
            flushed: counter(operation, row.flushed_generation)?,
            recovery: counter(operation, row.recovery)?,
        });
    }
    if records.len() != usize::from(shards.get()) || records.len() != rows.len() {
        return Err(unreadable("its shards are not as many as it should have"));
    }
    Ok(Some(Registration { accumulator, shards, records }))
}
