//! Reads the books as of one moment.

use super::{
    EmbeddedStore,
    amount::{WideLimbs, count},
    fault::{fault, refusal},
    registry,
};
use application::ports::{PortError, UsageFilter, UsageReader, UsageRow, UsageSnapshot};
use async_trait::async_trait;
use domain::{HourWindow, ProductSku, TenantId, UsageKey, UsageTotal, UsageUnit};
use futures_util::{StreamExt, stream};
use sqlx::{QueryBuilder, Sqlite, Transaction};

const OPERATION: &str = "read the books of the embedded file";
const PAGE_ROWS: usize = 4_000;

#[async_trait]
impl UsageReader for EmbeddedStore {
    async fn usage(&self, filter: &UsageFilter) -> Result<UsageSnapshot, PortError> {
        let reader = self.file.reader(OPERATION).await?;
        let mut snapshot = Transaction::begin(reader, None).await.map_err(fault(OPERATION))?;
        let registration = registry::read(OPERATION, &mut snapshot).await?;
        let flushed = registration.map(|known| known.records.iter().map(|record| record.flushed).collect());
        let walk = Walk { snapshot, filter: filter.clone(), last: None };
        let rows = stream::try_unfold(Some(walk), async |walk: Option<Walk>| match walk {
            Some(walk) => walk.next().await,
            None => Ok(None),
        });
        Ok(UsageSnapshot { flushed: flushed.unwrap_or_default(), rows: rows.boxed() })
    }
}

/// A way through the wanted rows in the order of their keys, within one read transaction.
struct Walk {
    snapshot: Transaction<'static, Sqlite>,
    filter: UsageFilter,
    last: Option<UsageKey>,
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    tenant: String,
    product_sku: String,
    use_unity: String,
    hour: i32,
    nanos_top: i64,
    nanos_high: i64,
    nanos_low: i64,
    pulse_count: i64,
}

impl Walk {
    /// The next rows, and the rest of the way where there may be more.
    async fn next(mut self) -> Result<Option<(Vec<UsageRow>, Option<Self>)>, PortError> {
        let rows: Vec<Row> =
            self.query().build_query_as().fetch_all(&mut *self.snapshot).await.map_err(fault(OPERATION))?;
        let full = rows.len() == PAGE_ROWS;
        let rows = rows.into_iter().map(|row| row.usage().ok_or("a row of the books cannot be read"));
        let rows: Vec<UsageRow> = rows.collect::<Result<_, _>>().map_err(refusal(OPERATION))?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.last = Some(last.key.clone());
        Ok(Some((rows, full.then_some(self))))
    }

    fn query(&self) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new(
            "SELECT tenant, product_sku, use_unity, hour, nanos_top, nanos_high, nanos_low, pulse_count
             FROM hourly_usage WHERE true",
        );
        if let Some(tenant) = &self.filter.tenant {
            query.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
        }
        if let Some(sku) = &self.filter.product_sku {
            query.push(" AND product_sku = ").push_bind(sku.as_str().to_owned());
        }
        if let Some(unit) = &self.filter.use_unity {
            query.push(" AND use_unity = ").push_bind(unit.as_str().to_owned());
        }
        if let Some(from) = self.filter.from {
            query.push(" AND hour >= ").push_bind(from.number());
        }
        if let Some(to) = self.filter.to {
            query.push(" AND hour < ").push_bind(to.number());
        }
        if let Some(last) = &self.last {
            query.push(" AND (tenant, product_sku, use_unity, hour) > (");
            query.push_bind(last.tenant.as_str().to_owned()).push(", ");
            query.push_bind(last.product_sku.as_str().to_owned()).push(", ");
            query.push_bind(last.use_unity.as_str().to_owned()).push(", ");
            query.push_bind(last.hour.number()).push(")");
        }
        query.push(" ORDER BY tenant, product_sku, use_unity, hour LIMIT ");
        query.push_bind(i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX));
        query
    }
}

impl Row {
    fn usage(self) -> Option<UsageRow> {
        let limbs = WideLimbs { top: self.nanos_top, high: self.nanos_high, low: self.nanos_low };
        let key = UsageKey {
            tenant: TenantId::new(self.tenant).ok()?,
            product_sku: ProductSku::new(self.product_sku).ok()?,
            use_unity: UsageUnit::new(self.use_unity).ok()?,
            hour: HourWindow::from_number(self.hour),
        };
        let total = UsageTotal { amount: limbs.amount().ok()?, pulses: count(self.pulse_count).ok()? };
        Some(UsageRow { key, total })
    }
}
