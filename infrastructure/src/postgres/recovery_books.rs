//! The memory of recoveries, beside the books.

use super::{PostgresLedger, accumulator_name, bigint, counter, session, timestamp};
use crate::positions;
use application::{
    open_log::Settled,
    ports::{FoundAt, PortError, Recovery, RecoveryBooks, Remake, ShardHistory, ShardRecovery},
};
use async_trait::async_trait;
use domain::{AccumulatorId, LogName, Shard, ShardCount};
use sqlx::{
    FromRow,
    types::chrono::{DateTime, Utc},
};
use std::collections::BTreeMap;

const SELECT_HISTORIES: &str = "\
select s.shard, s.seen_at, last.sealed_at, coalesce(last.positions, '{}')::text as positions,
    (select coalesce(sum(pulse_count), 0)::bigint from flushes f
        where f.accumulator = s.accumulator and f.shard = s.shard) as pulses,
    (select coalesce(max(number), 0) from recovered_shards r
        where r.accumulator = s.accumulator and r.shard = s.shard and r.restored_at is not null) as recovered
from accumulator_shards s
left join flushes last on last.accumulator = s.accumulator and last.shard = s.shard
    and last.generation = s.flushed_generation
where s.accumulator = $1 order by s.shard";

const SELECT_LATEST: &str = "\
select r.number, r.word, r.plan, r.given_up::text as given_up, r.ended_at is not null as ended, a.shards
from recoveries r join accumulators a on a.id = r.accumulator
where r.accumulator = $1 order by r.number desc limit 1";

const SELECT_SHARDS: &str = "\
select shard, found_recovery, found_generation, found_sequence, remake, generation, sequence, counted,
    positions::text as positions, flushed_generation, seen_generation, seen_sequence,
    restored_at is not null as restored
from recovered_shards where accumulator = $1 and number = $2 order by shard";

const INSERT_RECOVERY: &str = "\
insert into recoveries (accumulator, number, word, plan, given_up) values ($1, $2, $3, $4, $5::jsonb)
on conflict do nothing";

/// Waits for a flush of the shard that is about to commit, and then finds that the shard has moved.
const BEGIN_SHARD: &str = "\
update accumulator_shards set recovery = $3
where accumulator = $1 and shard = $2 and flushed_generation = $4 and seen_generation = $5 and seen_sequence = $6
    and exists (select from accumulators where id = $1 and retired_at is null)";

const INSERT_SHARD: &str = "\
insert into recovered_shards (accumulator, number, shard, found_recovery, found_generation, found_sequence, remake,
    generation, sequence, counted, positions, flushed_generation, flushed_at, seen_generation, seen_sequence, seen_at)
select accumulator, $3, shard, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, flushed_generation, flushed_at,
    seen_generation, seen_sequence, seen_at
from accumulator_shards where accumulator = $1 and shard = $2";

const RESTORED: &str = "\
update recovered_shards set restored_at = clock_timestamp()
where accumulator = $1 and number = $2 and shard = $3 and restored_at is null";

/// A recovery that took the place of this one has begun at another mark.
const SEE_ANEW: &str = "\
update accumulator_shards set seen_generation = $4, seen_sequence = $5, seen_at = clock_timestamp()
where accumulator = $1 and shard = $3 and recovery = $2";

const MOVING: &str = "update recoveries set logs = logs || $3::jsonb where accumulator = $1 and number = $2";

const ENDED: &str = "\
update recoveries set ended_at = coalesce(ended_at, clock_timestamp()) where accumulator = $1 and number = $2";

const fn word(remake: Remake) -> &'static str {
    match remake {
        Remake::Anew => "anew",
        Remake::DropBooked => "drop_booked",
        Remake::Keep => "keep",
    }
}

#[async_trait]
impl RecoveryBooks for PostgresLedger {
    async fn histories(&self, accumulator: AccumulatorId) -> Result<Vec<ShardHistory>, PortError> {
        const OPERATION: &str = "read what the ledger holds of the shards";
        let mut session = self.begin_question(OPERATION).await?;
        let select = sqlx::query_as(SELECT_HISTORIES).bind(accumulator_name(accumulator));
        let rows: Vec<HistoryRow> = session.fetch_all(select).await?;
        session.finish().await?;
        rows.into_iter().map(|row| row.history(OPERATION)).collect()
    }

    async fn latest(&self, accumulator: AccumulatorId) -> Result<Option<(Recovery, bool)>, PortError> {
        const OPERATION: &str = "read the latest recovery";
        let name = accumulator_name(accumulator);
        let mut session = self.begin_question(OPERATION).await?;
        let latest: Option<RecoveryRow> =
            session.fetch_optional(sqlx::query_as(SELECT_LATEST).bind(&name)).await?;
        let Some(latest) = latest else {
            session.finish().await?;
            return Ok(None);
        };
        let select = sqlx::query_as(SELECT_SHARDS).bind(&name).bind(latest.number);
        let rows: Vec<ShardRow> = session.fetch_all(select).await?;
        session.finish().await?;
        let unreadable = |what: &'static str| PortError::permanent(OPERATION, what);
        let number = counter(OPERATION, latest.number)?;
        let shards = u16::try_from(latest.shards).ok().and_then(ShardCount::new);
        let shards = shards.ok_or_else(|| unreadable("the number of shards makes no sense"))?;
        let steps = rows.into_iter().map(|row| row.step(OPERATION, accumulator, shards, number));
        let given_up: Option<BTreeMap<String, (u64, u64)>> = serde_json::from_str(&latest.given_up).ok();
        let given_up = given_up.ok_or_else(|| unreadable("offsets that were given up do not read"))?;
        let named = |(log, (from, to)): (String, (u64, u64))| Some((LogName::parse(&log)?, from, to));
        let given_up: Option<Vec<_>> = given_up.into_iter().map(named).collect();
        let recovery = Recovery {
            number,
            word: latest.word,
            plan: latest.plan,
            shards: steps.collect::<Result<_, _>>()?,
            given_up: given_up.ok_or_else(|| unreadable("the name of a log does not read"))?,
        };
        Ok(Some((recovery, latest.ended)))
    }

    async fn begin(&self, accumulator: AccumulatorId, recovery: &Recovery) -> Result<bool, PortError> {
        const OPERATION: &str = "record the beginning of a recovery";
        let (name, number) = (accumulator_name(accumulator), bigint(OPERATION, recovery.number)?);
        let given_up: BTreeMap<&str, (u64, u64)> =
            recovery.given_up.iter().map(|(log, from, to)| (log.as_str(), (*from, *to))).collect();
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let insert = sqlx::query(INSERT_RECOVERY).bind(&name).bind(number).bind(&recovery.word);
        let insert = insert.bind(&recovery.plan).bind(serde_json::json!(given_up).to_string());
        if session.execute(insert).await? != 1 {
            session.finish().await?;
            return Ok(false);
        }
        for (step, _) in &recovery.shards {
            let (shard, found) = (i32::from(step.shard.0), step.found);
            let begin = sqlx::query(BEGIN_SHARD)
                .bind(&name)
                .bind(shard)
                .bind(number)
                .bind(bigint(OPERATION, step.flushed)?)
                .bind(bigint(OPERATION, step.seen.0)?)
                .bind(bigint(OPERATION, step.seen.1)?);
            if session.execute(begin).await? != 1 {
                session.finish().await?;
                return Ok(false);
            }
            let stood = |value: fn(FoundAt) -> u64| found.map(|at| bigint(OPERATION, value(at))).transpose();
            let insert = sqlx::query(INSERT_SHARD)
                .bind(&name)
                .bind(shard)
                .bind(number)
                .bind(stood(|at| at.recovery)?)
                .bind(stood(|at| at.generation)?)
                .bind(stood(|at| at.sequence)?)
                .bind(word(step.remake))
                .bind(bigint(OPERATION, step.generation)?)
                .bind(bigint(OPERATION, step.sequence)?)
                .bind(bigint(OPERATION, step.counted)?)
                .bind(positions::to_json(&step.positions));
            session.execute(insert).await?;
        }
        session.commit().await?;
        Ok(true)
    }

    async fn restored(&self, recovery: &ShardRecovery) -> Result<(), PortError> {
        const OPERATION: &str = "record that a shard was brought back";
        let name = accumulator_name(recovery.accumulator);
        let (number, shard) = (bigint(OPERATION, recovery.number)?, i32::from(recovery.shard.0));
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let restored = sqlx::query(RESTORED).bind(&name).bind(number).bind(shard);
        if session.execute(restored).await? == 1 {
            let seen = sqlx::query(SEE_ANEW).bind(&name).bind(number).bind(shard);
            let seen = seen.bind(bigint(OPERATION, recovery.generation)?);
            session.execute(seen.bind(bigint(OPERATION, recovery.sequence)?)).await?;
        }
        session.commit().await
    }

    async fn moving(
        &self,
        accumulator: AccumulatorId,
        number: u64,
        logs: &[(LogName, Settled)],
    ) -> Result<(), PortError> {
        const OPERATION: &str = "record from where on logs are read again";
        let logs: BTreeMap<&str, u64> = logs.iter().map(|(log, to)| (log.as_str(), to.next)).collect();
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let moving = sqlx::query(MOVING).bind(accumulator_name(accumulator)).bind(bigint(OPERATION, number)?);
        session.execute(moving.bind(serde_json::json!(logs).to_string())).await?;
        session.commit().await
    }

    async fn ended(&self, accumulator: AccumulatorId, number: u64) -> Result<(), PortError> {
        const OPERATION: &str = "record the end of a recovery";
        let mut session = self.begin(OPERATION, session::WRITE).await?;
        let ended = sqlx::query(ENDED).bind(accumulator_name(accumulator)).bind(bigint(OPERATION, number)?);
        session.execute(ended).await?;
        session.commit().await
    }
}

#[derive(Debug, FromRow)]
struct HistoryRow {
    shard: i32,
    seen_at: Option<DateTime<Utc>>,
    sealed_at: Option<DateTime<Utc>>,
    positions: String,
    pulses: i64,
    recovered: i64,
}

impl HistoryRow {
    fn history(self, operation: &'static str) -> Result<ShardHistory, PortError> {
        Ok(ShardHistory {
            shard: shard(operation, self.shard)?,
            recovered: counter(operation, self.recovered)?,
            pulses: counter(operation, self.pulses)?,
            sealed_at: self.sealed_at.map(timestamp),
            positions: read_positions(operation, &self.positions)?,
            seen_at: self.seen_at.map(timestamp),
        })
    }
}

#[derive(Debug, FromRow)]
struct RecoveryRow {
    number: i64,
    word: String,
    plan: String,
    given_up: String,
    ended: bool,
    shards: i32,
}

#[derive(Debug, FromRow)]
struct ShardRow {
    shard: i32,
    found_recovery: Option<i64>,
    found_generation: Option<i64>,
    found_sequence: Option<i64>,
    remake: String,
    generation: i64,
    sequence: i64,
    counted: i64,
    positions: String,
    flushed_generation: i64,
    seen_generation: i64,
    seen_sequence: i64,
    restored: bool,
}

impl ShardRow {
    fn step(
        self,
        operation: &'static str,
        accumulator: AccumulatorId,
        shards: ShardCount,
        number: u64,
    ) -> Result<(ShardRecovery, bool), PortError> {
        let count = |value| counter(operation, value);
        let found = match (self.found_recovery, self.found_generation, self.found_sequence) {
            (Some(recovery), Some(generation), Some(sequence)) => Some(FoundAt {
                recovery: count(recovery)?,
                generation: count(generation)?,
                sequence: count(sequence)?,
            }),
            _ => None,
        };
        let remake = [Remake::Anew, Remake::DropBooked, Remake::Keep];
        let remake = remake.into_iter().find(|remake| word(*remake) == self.remake);
        let step = ShardRecovery {
            accumulator,
            shards,
            shard: shard(operation, self.shard)?,
            number,
            found,
            remake: remake.ok_or_else(|| PortError::permanent(operation, "no way to bring a shard back"))?,
            generation: count(self.generation)?,
            sequence: count(self.sequence)?,
            counted: count(self.counted)?,
            positions: read_positions(operation, &self.positions)?,
            flushed: count(self.flushed_generation)?,
            seen: (count(self.seen_generation)?, count(self.seen_sequence)?),
        };
        Ok((step, self.restored))
    }
}

fn shard(operation: &'static str, number: i32) -> Result<Shard, PortError> {
    u16::try_from(number).map(Shard).map_err(|error| PortError::permanent(operation, error))
}

fn read_positions(
    operation: &'static str,
    json: &str,
) -> Result<Vec<application::ports::LogMark>, PortError> {
    let marks = positions::from_json(json);
    marks.ok_or_else(|| PortError::permanent(operation, "positions of logs do not read"))
}
