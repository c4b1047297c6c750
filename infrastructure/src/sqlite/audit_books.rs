//! Shows the books to an audit.

use super::{
    EmbeddedStore,
    amount::{Nonsense, WideLimbs, count, stored},
    fault::{fault, refusal},
    registry,
};
use application::ports::{
    AccumulatorBooks, AlteredRow, BooksAudit, BooksCut, PortError, ShardBooks, TenantSum, TenantSums,
};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount, TenantId, TotalAmount, UsageTotal};
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};

const OPERATION: &str = "audit the books of the embedded file";
/// How many tenants are added up in a step.
const PAGE_TENANTS: usize = 1_000;

const ALTERED: &str = "flushed_low IS NOT NULL AND (nanos_top, nanos_high, nanos_low, pulse_count)
    IS NOT (flushed_top, flushed_high, flushed_low, flushed_count)";

#[async_trait]
impl BooksAudit for EmbeddedStore {
    async fn cut(&self, after: &[u64]) -> Result<BooksCut, PortError> {
        let reader = self.file.reader(OPERATION).await?;
        let mut snapshot = Transaction::begin(reader, None).await.map_err(fault(OPERATION))?;
        let registration = registry::read(OPERATION, &mut snapshot).await?;
        let mut accumulators = accumulators(&mut snapshot).await?;
        for known in &mut accumulators {
            add_records(&mut snapshot, known, after).await?;
        }
        Ok(BooksCut { registration, accumulators, usage: sums(snapshot) })
    }

    async fn altered(&self, limit: u32) -> Result<Vec<AlteredRow>, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let rows: Vec<Altered> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT tenant, product_sku, use_unity, window_start, nanos_top, nanos_high, nanos_low, pulse_count,
                flushed_top, flushed_high, flushed_low, flushed_count
             FROM hourly_usage WHERE {ALTERED} ORDER BY tenant, product_sku, use_unity, hour LIMIT ?"
        )))
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await
        .map_err(fault(OPERATION))?;
        Ok(rows.into_iter().map(AlteredRow::from).collect())
    }
}

#[derive(Debug, FromRow)]
struct ShardRow {
    id: String,
    shards: u16,
    active: bool,
    shard: u16,
    flushed_generation: i64,
}

/// The accumulators and their shards, without any record.
async fn accumulators(connection: &mut SqliteConnection) -> Result<Vec<AccumulatorBooks>, PortError> {
    let rows: Vec<ShardRow> = sqlx::query_as(
        "SELECT a.id, a.shards, a.retired_at IS NULL AS active, s.shard, s.flushed_generation
         FROM accumulators AS a JOIN accumulator_shards AS s ON s.accumulator = a.id
         ORDER BY a.created_at, a.id, s.shard",
    )
    .fetch_all(connection)
    .await
    .map_err(fault(OPERATION))?;
    let mut accumulators: Vec<AccumulatorBooks> = Vec::new();
    for row in rows {
        let id = AccumulatorId::parse(&row.id).ok_or(Nonsense).map_err(refusal(OPERATION))?;
        let books = ShardBooks {
            shard: Shard(row.shard),
            flushed: count(row.flushed_generation).map_err(refusal(OPERATION))?,
            generations: 0,
            last: 0,
            gap: None,
            total: UsageTotal::default(),
            after: Vec::new(),
        };
        match accumulators.last_mut() {
            Some(known) if known.accumulator == id => known.books.push(books),
            _ => accumulators.push(AccumulatorBooks {
                accumulator: id,
                shards: ShardCount::new(row.shards).ok_or(Nonsense).map_err(refusal(OPERATION))?,
                active: row.active,
                books: vec![books],
            }),
        }
    }
    Ok(accumulators)
}

#[derive(Debug, FromRow)]
struct FlushRow {
    shard: i64,
    generation: i64,
    nanos_top: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulse_count: i64,
}

/// The records of an accumulator, in the order of their key.
async fn add_records(
    connection: &mut SqliteConnection,
    known: &mut AccumulatorBooks,
    after: &[u64],
) -> Result<(), PortError> {
    let mut rows = sqlx::query_as::<_, FlushRow>(
        "SELECT shard, generation, nanos_top, nanos_high, nanos_low, pulse_count FROM flushes
         WHERE accumulator = ? ORDER BY shard, generation",
    )
    .bind(known.accumulator.to_string())
    .fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(fault(OPERATION))? {
        let limbs = WideLimbs { top: row.nanos_top, high: row.nanos_high, low: row.nanos_low };
        let total = UsageTotal {
            amount: limbs.amount().map_err(refusal(OPERATION))?,
            pulses: count(row.pulse_count).map_err(refusal(OPERATION))?,
        };
        let generation = count(row.generation).map_err(refusal(OPERATION))?;
        let place = usize::try_from(row.shard).ok();
        let Some(books) = place.and_then(|place| known.books.get_mut(place)) else {
            return Err(PortError::permanent(OPERATION, format!("flushes name shard {}", row.shard)));
        };
        if generation != books.last + 1 && books.gap.is_none() {
            books.gap = Some(books.last + 1);
        }
        books.last = generation;
        books.generations += 1;
        let sum = books.total.checked_add(total).ok_or("the books are beyond 2^128 nanos");
        books.total = sum.map_err(refusal(OPERATION))?;
        let wanted = place.and_then(|place| after.get(place)).copied().unwrap_or_default();
        if known.active && generation > wanted {
            books.after.push((generation, total));
        }
    }
    Ok(())
}

/// The limbs are added up in halves of nine digits, which do not overflow below 10^9 rows of one tenant.
#[derive(Debug, FromRow)]
struct SumRow {
    tenant: String,
    top: i64,
    high_billions: i64,
    high_rest: i64,
    low_billions: i64,
    low_rest: i64,
    pulses: i64,
    row_count: i64,
    altered: i64,
}

fn sums(snapshot: Transaction<'static, Sqlite>) -> TenantSums {
    stream::try_unfold(Some((snapshot, String::new())), |walk| async {
        let Some((mut snapshot, last)) = walk else { return Ok(None) };
        let rows: Vec<SumRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT tenant, sum(nanos_top) AS top,
                sum(nanos_high / 1000000000) AS high_billions, sum(nanos_high % 1000000000) AS high_rest,
                sum(nanos_low / 1000000000) AS low_billions, sum(nanos_low % 1000000000) AS low_rest,
                sum(pulse_count) AS pulses, count(*) AS row_count, sum({ALTERED}) AS altered
             FROM hourly_usage WHERE tenant > ? GROUP BY tenant ORDER BY tenant LIMIT ?"
        )))
        .bind(last)
        .bind(stored(PAGE_TENANTS as u64).map_err(refusal(OPERATION))?)
        .fetch_all(&mut *snapshot)
        .await
        .map_err(fault(OPERATION))?;
        let Some(last) = rows.last().map(|row| row.tenant.clone()) else { return Ok(None) };
        let full = rows.len() == PAGE_TENANTS;
        let sums: Vec<TenantSum> = rows.into_iter().map(TenantSum::from).collect();
        Ok(Some((sums, full.then_some((snapshot, last)))))
    })
    .boxed()
}

impl SumRow {
    fn total(&self) -> Option<UsageTotal> {
        const BILLION: u128 = 1_000_000_000;
        let halves = [self.top, self.high_billions, self.high_rest, self.low_billions, self.low_rest];
        let mut nanos: u128 = 0;
        for half in halves {
            nanos = nanos.checked_mul(BILLION)?.checked_add(u128::try_from(half).ok()?)?;
        }
        Some(UsageTotal { amount: TotalAmount::from_nanos(nanos), pulses: count(self.pulses).ok()? })
    }
}

impl From<SumRow> for TenantSum {
    fn from(row: SumRow) -> Self {
        let total = row.total().ok_or_else(|| format!("a number below zero, in {} pulses", row.pulses));
        Self {
            total,
            rows: row.row_count.unsigned_abs(),
            altered: row.altered.unsigned_abs(),
            tenant: TenantId::new(row.tenant.clone()).map_err(|_| row.tenant),
        }
    }
}

#[derive(Debug, FromRow)]
struct Altered {
    tenant: String,
    product_sku: String,
    use_unity: String,
    window_start: String,
    nanos_top: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulse_count: i64,
    flushed_top: i64,
    flushed_high: i64,
    flushed_low: i64,
    flushed_count: i64,
}

impl From<Altered> for AlteredRow {
    fn from(row: Altered) -> Self {
        let text = |top, high, low| match (WideLimbs { top, high, low }).amount() {
            Ok(amount) => amount.to_string(),
            Err(Nonsense) => format!("limbs {top}, {high}, {low}"),
        };
        Self {
            found: (text(row.nanos_top, row.nanos_high, row.nanos_low), row.pulse_count.to_string()),
            written: (
                text(row.flushed_top, row.flushed_high, row.flushed_low),
                row.flushed_count.to_string(),
            ),
            key: [row.tenant, row.product_sku, row.use_unity, row.window_start],
        }
    }
}
