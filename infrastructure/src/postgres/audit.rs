//! Shows the books to an audit (`BooksAudit`).

use super::{PostgresLedger, bigint, session::Session, shard_registry};
use application::ports::{
    AccumulatorBooks, AlteredRow, BooksAudit, BooksCut, PortError, Registration, ShardBooks, TenantSum,
    TenantSums,
};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount, TenantId, TotalAmount, UsageTotal};
use futures_util::{StreamExt, stream};
use sqlx::FromRow;
use std::{collections::BTreeMap, time::Duration};

const OPERATION: &str = "audit the ledger";
/// How long adding up the books may take.
const SUMS_LIMIT: Duration = Duration::from_mins(10);
/// See [`super::usage_queries`].
const MEMORY: &str = "set local work_mem = '64MB'";

/// Walks the primary key of the records once.
const SELECT_SHARDS: &str = "\
select a.id, a.shards, a.retired_at is null as active, s.shard, s.flushed_generation,
    coalesce(f.generations, 0) as generations, coalesce(f.last, 0) as last, f.gap,
    coalesce(f.amount, 0)::numeric(38, 9)::text as amount, coalesce(f.pulses, 0)::text as pulses
from accumulators a
join accumulator_shards s on s.accumulator = a.id
left join (
    select accumulator, shard, count(*) as generations, max(generation) as last,
        min(before + 1) filter (where generation <> before + 1) as gap,
        sum(used_amount) as amount, sum(pulse_count) as pulses
    from (
        select accumulator, shard, generation, used_amount, pulse_count,
            lag(generation, 1, 0::bigint) over (partition by accumulator, shard order by generation) as before
        from flushes
    ) as followed
    group by accumulator, shard
) as f on f.accumulator = s.accumulator and f.shard = s.shard
order by a.created_at, a.id, s.shard";

const SELECT_AFTER: &str = "\
select f.shard, f.generation, f.used_amount::text as amount, f.pulse_count
from flushes f join unnest($2::integer[], $3::bigint[]) as wanted (shard, generation) on wanted.shard = f.shard
where f.accumulator = $1 and f.generation > wanted.generation
order by f.shard, f.generation";

const DECLARE_SUMS: &str = "\
declare sums no scroll cursor for
select tenant, sum(used_amount)::text as amount, sum(pulse_count)::text as pulses, count(*) as row_count,
    count(*) filter (where flushed_amount is not null
        and (used_amount, pulse_count) is distinct from (flushed_amount, flushed_count)) as altered
from hourly_usage group by tenant";

const FETCH_SUMS: &str = "fetch 4096 from sums";

const SELECT_ALTERED: &str = "\
select tenant, product_sku, use_unity, to_char(window_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as hour,
    used_amount::text as amount, pulse_count::text as pulses,
    flushed_amount::text as flushed_amount, flushed_count::text as flushed_pulses
from hourly_usage
where flushed_amount is not null and (used_amount, pulse_count) is distinct from (flushed_amount, flushed_count)
order by tenant, product_sku, use_unity, window_start limit $1";

#[async_trait]
impl BooksAudit for PostgresLedger {
    async fn cut(&self, after: &[u64]) -> Result<BooksCut, PortError> {
        let mut session = self.begin_question(OPERATION).await?;
        session.execute(sqlx::query(MEMORY)).await?;
        let known = session.fetch_all(sqlx::query_as(shard_registry::SELECT_REGISTRATION)).await?;
        let registration = shard_registry::registration(OPERATION, &known)?;
        session.extend_limit(SUMS_LIMIT).await?;
        let rows: Vec<ShardRow> = session.fetch_all(sqlx::query_as(SELECT_SHARDS)).await?;
        let mut records = match &registration {
            Some(known) => records_after(&mut session, known, after).await?,
            None => BTreeMap::new(),
        };
        let accumulators = accumulators(rows, &mut records)?;
        session.execute(sqlx::query(DECLARE_SUMS)).await?;
        Ok(BooksCut { registration, accumulators, usage: sums(session) })
    }

    async fn altered(&self, limit: u32) -> Result<Vec<AlteredRow>, PortError> {
        let mut session = self.begin_question(OPERATION).await?;
        session.extend_limit(SUMS_LIMIT).await?;
        let select = sqlx::query_as(SELECT_ALTERED).bind(i64::from(limit));
        let rows: Vec<Altered> = session.fetch_all(select).await?;
        session.finish().await?;
        Ok(rows.into_iter().map(AlteredRow::from).collect())
    }
}

type Records = BTreeMap<i32, Vec<(u64, UsageTotal)>>;

async fn records_after(
    session: &mut Session,
    known: &Registration,
    after: &[u64],
) -> Result<Records, PortError> {
    let shards: Vec<i32> = known.shards.shards().map(|shard| i32::from(shard.0)).collect();
    let wanted = |shard: Shard| after.get(usize::from(shard.0)).copied().unwrap_or_default();
    let generations = known.shards.shards().map(|shard| bigint(OPERATION, wanted(shard)));
    let generations: Vec<i64> = generations.collect::<Result<_, _>>()?;
    let select =
        sqlx::query_as(SELECT_AFTER).bind(known.accumulator.to_string()).bind(shards).bind(generations);
    let rows: Vec<(i32, i64, String, i64)> = session.fetch_all(select).await?;
    let mut records = Records::new();
    for (shard, generation, amount, pulses) in rows {
        let total = total(&amount, &pulses.to_string()).map_err(|text| unreadable(&text))?;
        let generation = u64::try_from(generation).map_err(|_| unreadable(&generation.to_string()))?;
        records.entry(shard).or_default().push((generation, total));
    }
    Ok(records)
}

fn accumulators(rows: Vec<ShardRow>, records: &mut Records) -> Result<Vec<AccumulatorBooks>, PortError> {
    let mut accumulators: Vec<AccumulatorBooks> = Vec::new();
    for row in rows {
        let id = AccumulatorId::parse(&row.id).ok_or_else(|| unreadable(&row.id))?;
        let after = if row.active { records.remove(&row.shard).unwrap_or_default() } else { Vec::new() };
        let number = |value: i64| u64::try_from(value).map_err(|_| unreadable(&value.to_string()));
        let books = ShardBooks {
            shard: Shard(u16::try_from(row.shard).map_err(|_| unreadable(&row.shard.to_string()))?),
            flushed: number(row.flushed_generation)?,
            generations: number(row.generations)?,
            last: number(row.last)?,
            gap: row.gap.map(number).transpose()?,
            total: total(&row.amount, &row.pulses).map_err(|text| unreadable(&text))?,
            after,
        };
        match accumulators.last_mut() {
            Some(known) if known.accumulator == id => known.books.push(books),
            _ => accumulators.push(AccumulatorBooks {
                accumulator: id,
                shards: u16::try_from(row.shards)
                    .ok()
                    .and_then(ShardCount::new)
                    .ok_or_else(|| unreadable(&row.shards.to_string()))?,
                active: row.active,
                books: vec![books],
            }),
        }
    }
    Ok(accumulators)
}

fn sums(session: Session) -> TenantSums {
    stream::try_unfold(Some(session), |session| async {
        let Some(mut session) = session else { return Ok(None) };
        let rows: Vec<SumRow> = session.fetch_all(sqlx::query_as(FETCH_SUMS)).await?;
        if rows.is_empty() {
            session.finish().await?;
            return Ok(None);
        }
        Ok(Some((rows.into_iter().map(TenantSum::from).collect(), Some(session))))
    })
    .boxed()
}

/// The total; the texts where they are none.
fn total(amount: &str, pulses: &str) -> Result<UsageTotal, String> {
    let read = || Some(UsageTotal { amount: TotalAmount::parse(amount)?, pulses: pulses.parse().ok()? });
    read().ok_or_else(|| format!("{amount} in {pulses} pulses"))
}

fn unreadable(text: &str) -> PortError {
    PortError::permanent(OPERATION, format!("a record is not one of ours: {text}"))
}

#[derive(Debug, FromRow)]
struct ShardRow {
    id: String,
    shards: i32,
    active: bool,
    shard: i32,
    flushed_generation: i64,
    generations: i64,
    last: i64,
    gap: Option<i64>,
    amount: String,
    pulses: String,
}

#[derive(Debug, FromRow)]
struct SumRow {
    tenant: String,
    amount: String,
    pulses: String,
    row_count: i64,
    altered: i64,
}

impl From<SumRow> for TenantSum {
    fn from(row: SumRow) -> Self {
        let total = total(&row.amount, &row.pulses);
        Self {
            tenant: TenantId::new(row.tenant.clone()).map_err(|_| row.tenant),
            total,
            rows: row.row_count.unsigned_abs(),
            altered: row.altered.unsigned_abs(),
        }
    }
}

#[derive(Debug, FromRow)]
struct Altered {
    tenant: String,
    product_sku: String,
    use_unity: String,
    hour: String,
    amount: String,
    pulses: String,
    flushed_amount: String,
    flushed_pulses: String,
}

impl From<Altered> for AlteredRow {
    fn from(row: Altered) -> Self {
        Self {
            key: [row.tenant, row.product_sku, row.use_unity, row.hour],
            found: (row.amount, row.pulses),
            written: (row.flushed_amount, row.flushed_pulses),
        }
    }
}
