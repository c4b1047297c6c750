//! Answers questions about the books without reading all of them (`UsageQueries`).

use super::{
    EmbeddedStore,
    amount::{Nonsense, WideLimbs, count},
    fault::{fault, refusal},
    time,
};
use application::ports::{
    FlushRecord, GroupBy, LedgerPage, LedgerRow, PortError, UsageFilter, UsageQueries, WindowSum,
};
use async_trait::async_trait;
use domain::{
    HourWindow, ProductSku, Shard, TenantId, Timestamp, TotalAmount, UsageKey, UsageTotal, UsageUnit,
};
use sqlx::{Connection, FromRow, QueryBuilder, Sqlite};

const OPERATION: &str = "ask the books of the embedded file";
const ROW: &str =
    "SELECT id, tenant, product_sku, use_unity, hour, nanos_top, nanos_high, nanos_low, pulse_count,
    created_at, updated_at FROM hourly_usage AS u WHERE true";
/// The bounds are a JSON array; the windows come first, so that each is a range of the index by hour.
const SUMS_FROM: &str = " AS use_unity,
    sum(nanos_top) AS top,
    sum(nanos_high / 1000000000) AS high_billions, sum(nanos_high % 1000000000) AS high_rest,
    sum(nanos_low / 1000000000) AS low_billions, sum(nanos_low % 1000000000) AS low_rest,
    sum(pulse_count) AS pulse_count
    FROM (SELECT key AS number, value AS since, lead(value) OVER (ORDER BY key) AS until FROM json_each(";

#[async_trait]
impl UsageQueries for EmbeddedStore {
    async fn page(&self, filter: &UsageFilter, skip: u64, limit: u32) -> Result<LedgerPage, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let mut snapshot = reader.begin().await.map_err(fault(OPERATION))?;
        let mut counting = QueryBuilder::new("SELECT count(*) FROM hourly_usage AS u WHERE true");
        wanted(&mut counting, filter);
        let total: i64 =
            counting.build_query_scalar().fetch_one(&mut *snapshot).await.map_err(fault(OPERATION))?;
        let mut query = QueryBuilder::new(ROW);
        wanted(&mut query, filter);
        query.push(" ORDER BY tenant, product_sku, use_unity, hour LIMIT ").push_bind(i64::from(limit));
        query.push(" OFFSET ").push_bind(i64::try_from(skip).unwrap_or(i64::MAX));
        let rows: Vec<Row> =
            query.build_query_as().fetch_all(&mut *snapshot).await.map_err(fault(OPERATION))?;
        let rows = rows.into_iter().map(Row::ledger_row).collect::<Result<_, _>>();
        Ok(LedgerPage {
            rows: rows.map_err(refusal(OPERATION))?,
            total: count(total).map_err(refusal(OPERATION))?,
        })
    }

    async fn row(&self, id: i64) -> Result<Option<LedgerRow>, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let mut query = QueryBuilder::new(ROW);
        query.push(" AND id = ").push_bind(id);
        let row: Option<Row> =
            query.build_query_as().fetch_optional(&mut *reader).await.map_err(fault(OPERATION))?;
        row.map(Row::ledger_row).transpose().map_err(refusal(OPERATION))
    }

    async fn span(&self, filter: &UsageFilter) -> Result<Option<(HourWindow, HourWindow)>, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let mut query = QueryBuilder::new("SELECT (SELECT min(hour) FROM hourly_usage AS u WHERE true");
        wanted(&mut query, filter);
        query.push("), (SELECT max(hour) FROM hourly_usage AS u WHERE true");
        wanted(&mut query, filter);
        query.push(")");
        let (first, last): (Option<i32>, Option<i32>) =
            query.build_query_as().fetch_one(&mut *reader).await.map_err(fault(OPERATION))?;
        Ok(first
            .zip(last)
            .map(|(first, last)| (HourWindow::from_number(first), HourWindow::from_number(last))))
    }

    async fn sums(
        &self,
        filter: &UsageFilter,
        bounds: &[HourWindow],
        group_by: GroupBy,
        limit: u32,
    ) -> Result<Vec<WindowSum>, PortError> {
        let bounds: Vec<i32> = bounds.iter().map(|bound| bound.number()).collect();
        let bounds = serde_json::to_string(&bounds).map_err(refusal(OPERATION))?;
        let tenant = if group_by.tenant { "tenant" } else { "NULL" };
        let product_sku = if group_by.product_sku { "product_sku" } else { "NULL" };
        let mut query = QueryBuilder::new("SELECT number, ");
        query.push(tenant).push(" AS tenant, ").push(product_sku).push(" AS product_sku, use_unity");
        query.push(SUMS_FROM).push_bind(bounds);
        query.push(
            ")) AS windows CROSS JOIN hourly_usage AS u ON u.hour >= since AND u.hour < until WHERE true",
        );
        wanted(&mut query, filter);
        query.push(" GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT ").push_bind(i64::from(limit));
        let mut reader = self.file.reader(OPERATION).await?;
        let sums: Vec<Sum> =
            query.build_query_as().fetch_all(&mut *reader).await.map_err(fault(OPERATION))?;
        let sums = sums.into_iter().map(|sum| sum.window_sum().ok_or(Nonsense)).collect::<Result<_, _>>();
        sums.map_err(refusal(OPERATION))
    }

    async fn flushes(&self, limit: u32) -> Result<Vec<FlushRecord>, PortError> {
        let mut reader = self.file.reader(OPERATION).await?;
        let flushes: Vec<Flush> = sqlx::query_as(
            "SELECT shard, generation, nanos_top, nanos_high, nanos_low, pulse_count, row_count, sealed_at,
                started_at, flushed_at
             FROM flushes ORDER BY flushed_at DESC, shard DESC, generation DESC LIMIT ?",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await
        .map_err(fault(OPERATION))?;
        let flushes =
            flushes.into_iter().map(|flush| flush.record().ok_or(Nonsense)).collect::<Result<_, _>>();
        flushes.map_err(refusal(OPERATION))
    }
}

/// The conditions of a filter on `u`.
fn wanted(query: &mut QueryBuilder<Sqlite>, filter: &UsageFilter) {
    let texts = [
        (" AND u.tenant = ", filter.tenant.as_ref().map(TenantId::as_str)),
        (" AND u.product_sku = ", filter.product_sku.as_ref().map(ProductSku::as_str)),
        (" AND u.use_unity = ", filter.use_unity.as_ref().map(UsageUnit::as_str)),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            query.push(condition).push_bind(text.to_owned());
        }
    }
    for (condition, hour) in [(" AND u.hour >= ", filter.from), (" AND u.hour < ", filter.to)] {
        if let Some(hour) = hour {
            query.push(condition).push_bind(hour.number());
        }
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    tenant: String,
    product_sku: String,
    use_unity: String,
    hour: i32,
    nanos_top: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulse_count: i64,
    created_at: String,
    updated_at: String,
}

impl Row {
    fn ledger_row(self) -> Result<LedgerRow, Nonsense> {
        let limbs = WideLimbs { top: self.nanos_top, high: self.nanos_high, low: self.nanos_low };
        Ok(LedgerRow {
            id: self.id,
            key: UsageKey {
                tenant: TenantId::new(self.tenant).map_err(|_| Nonsense)?,
                product_sku: ProductSku::new(self.product_sku).map_err(|_| Nonsense)?,
                use_unity: UsageUnit::new(self.use_unity).map_err(|_| Nonsense)?,
                hour: HourWindow::from_number(self.hour),
            },
            total: UsageTotal { amount: limbs.amount()?, pulses: count(self.pulse_count)? },
            created_at: moment(&self.created_at)?,
            updated_at: moment(&self.updated_at)?,
        })
    }
}

#[derive(FromRow)]
struct Sum {
    number: i64,
    tenant: Option<String>,
    product_sku: Option<String>,
    use_unity: String,
    top: i64,
    high_billions: i64,
    high_rest: i64,
    low_billions: i64,
    low_rest: i64,
    pulse_count: i64,
}

impl Sum {
    /// The limbs are added up in halves of nine digits, which do not overflow below 10^9 rows of one group.
    fn window_sum(self) -> Option<WindowSum> {
        const BILLION: u128 = 1_000_000_000;
        let halves = [self.top, self.high_billions, self.high_rest, self.low_billions, self.low_rest];
        let mut nanos: u128 = 0;
        for half in halves {
            nanos = nanos.checked_mul(BILLION)?.checked_add(u128::try_from(half).ok()?)?;
        }
        Some(WindowSum {
            window: usize::try_from(self.number).ok()?,
            tenant: self.tenant.map(TenantId::new).transpose().ok()?,
            product_sku: self.product_sku.map(ProductSku::new).transpose().ok()?,
            use_unity: UsageUnit::new(self.use_unity).ok()?,
            total: UsageTotal {
                amount: TotalAmount::from_nanos(nanos),
                pulses: count(self.pulse_count).ok()?,
            },
        })
    }
}

#[derive(FromRow)]
struct Flush {
    shard: i64,
    generation: i64,
    nanos_top: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulse_count: i64,
    row_count: i64,
    sealed_at: String,
    started_at: String,
    flushed_at: String,
}

impl Flush {
    fn record(self) -> Option<FlushRecord> {
        let limbs = WideLimbs { top: self.nanos_top, high: self.nanos_high, low: self.nanos_low };
        Some(FlushRecord {
            shard: Shard(u16::try_from(self.shard).ok()?),
            generation: count(self.generation).ok()?,
            total: UsageTotal { amount: limbs.amount().ok()?, pulses: count(self.pulse_count).ok()? },
            rows: count(self.row_count).ok()?,
            sealed_at: moment(&self.sealed_at).ok()?,
            started_at: moment(&self.started_at).ok()?,
            flushed_at: moment(&self.flushed_at).ok()?,
        })
    }
}

fn moment(text: &str) -> Result<Timestamp, Nonsense> {
    time::parse(OPERATION, text).map_err(|_| Nonsense)
}
