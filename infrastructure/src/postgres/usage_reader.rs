//! The books as of one moment, read in steps.

use super::{
    FIRST_SECOND, PostgresLedger, counter,
    session::{self, Session},
    window_start,
};
use application::ports::{PortError, UsageFilter, UsageReader, UsageRow, UsageSnapshot};
use async_trait::async_trait;
use domain::{HourWindow, ProductSku, TenantId, Timestamp, TotalAmount, UsageKey, UsageTotal, UsageUnit};
use futures_util::{StreamExt, stream};
use sqlx::{
    FromRow, Postgres, QueryBuilder,
    types::chrono::{DateTime, Utc},
};

const OPERATION: &str = "read the usage from the ledger";

const SELECT_FLUSHED: &str = "\
select s.flushed_generation
from accumulators a join accumulator_shards s on s.accumulator = a.id
where a.retired_at is null
order by s.shard";

/// A cursor, so that every statement is short however slowly the rows are taken.
const DECLARE: &str = "\
declare wanted no scroll cursor for
select id, tenant, product_sku, use_unity, window_start, used_amount::text as used_amount, pulse_count
from hourly_usage where true";

const ORDER: &str = " order by tenant, product_sku, use_unity, window_start";

const FETCH: &str = "fetch 4096 from wanted";

#[async_trait]
impl UsageReader for PostgresLedger {
    async fn usage(&self, filter: &UsageFilter) -> Result<UsageSnapshot, PortError> {
        let mut session = self.begin(OPERATION, session::READ).await?;
        let flushed: Vec<(i64,)> = session.fetch_all(sqlx::query_as(SELECT_FLUSHED)).await?;
        let flushed = flushed
            .into_iter()
            .map(|(generation,)| counter(OPERATION, generation))
            .collect::<Result<_, _>>()?;
        session.execute(declare(filter).build()).await?;
        let rows = stream::try_unfold(Some(session), |session| async {
            let Some(mut session) = session else { return Ok(None) };
            match next_rows(&mut session).await? {
                rows if rows.is_empty() => {
                    session.finish().await?;
                    Ok(None)
                }
                rows => Ok(Some((rows, Some(session)))),
            }
        });
        Ok(UsageSnapshot { flushed, rows: rows.boxed() })
    }
}

/// The query of a filter.
fn declare(filter: &UsageFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(DECLARE);
    push_wanted(&mut query, filter);
    query.push(ORDER);
    query
}

/// The conditions of a filter, each after an `and`.
pub(super) fn push_wanted(query: &mut QueryBuilder<Postgres>, filter: &UsageFilter) {
    let texts = [
        (" and tenant = ", filter.tenant.as_ref().map(TenantId::as_str)),
        (" and product_sku = ", filter.product_sku.as_ref().map(ProductSku::as_str)),
        (" and use_unity = ", filter.use_unity.as_ref().map(UsageUnit::as_str)),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            query.push(condition).push_bind(text.to_owned());
        }
    }
    // Bounds before all that PostgreSQL can hold are held at its first second.
    let bound = |hour| window_start(hour).or_else(|| DateTime::from_timestamp(FIRST_SECOND, 0));
    for (condition, hour) in [(" and window_start >= ", filter.from), (" and window_start < ", filter.to)] {
        if let Some(start) = hour.and_then(bound) {
            query.push(condition).push_bind(start);
        }
    }
}

async fn next_rows(session: &mut Session) -> Result<Vec<UsageRow>, PortError> {
    let rows: Vec<BookedRow> = session.fetch_all(sqlx::query_as(FETCH)).await?;
    rows.into_iter()
        .map(UsageRow::try_from)
        .collect::<Result<_, _>>()
        .map_err(|error| PortError::permanent(OPERATION, error))
}

/// A row of `hourly_usage`.
#[derive(Debug, FromRow)]
struct BookedRow {
    id: i64,
    tenant: String,
    product_sku: String,
    use_unity: String,
    window_start: DateTime<Utc>,
    used_amount: String,
    pulse_count: i64,
}

/// A row that this program did not write.
#[derive(Debug, thiserror::Error)]
#[error("row {id} of hourly_usage is not one of ours: {column} does not read")]
struct ForeignRow {
    id: i64,
    column: &'static str,
}

impl TryFrom<BookedRow> for UsageRow {
    type Error = ForeignRow;

    fn try_from(row: BookedRow) -> Result<Self, ForeignRow> {
        let id = row.id;
        let foreign = |column| ForeignRow { id, column };
        let hour = HourWindow::of(Timestamp::new(row.window_start.timestamp(), 0));
        if hour.start_seconds() != row.window_start.timestamp() {
            return Err(foreign("window_start"));
        }
        Ok(Self {
            key: UsageKey {
                tenant: TenantId::new(row.tenant).map_err(|_| foreign("tenant"))?,
                product_sku: ProductSku::new(row.product_sku).map_err(|_| foreign("product_sku"))?,
                use_unity: UsageUnit::new(row.use_unity).map_err(|_| foreign("use_unity"))?,
                hour,
            },
            total: UsageTotal {
                amount: TotalAmount::parse(&row.used_amount).ok_or_else(|| foreign("used_amount"))?,
                pulses: u64::try_from(row.pulse_count).map_err(|_| foreign("pulse_count"))?,
            },
        })
    }
}
