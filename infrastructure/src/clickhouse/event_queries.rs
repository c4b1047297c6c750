//! Questions about the events that are kept.

use super::{ClickhouseArchive, error::port_error};
use application::ports::{EventQueries, FoundEvent, PortError, UsageRow, UsageRows};
use async_trait::async_trait;
use clickhouse::Row;
use domain::{HourWindow, ProductSku, TenantId, Timestamp, TotalAmount, UsageKey, UsageTotal, UsageUnit};
use futures_util::{StreamExt, stream};
use serde::Deserialize;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const PART_ROWS: usize = 4_096;

/// Hours by the nanoseconds since 1970, rounded down before 1970 as well.
const TOTALS: &str = "\
SELECT tenant, product_sku, CAST(use_unity, 'String') AS unit,
    toInt32(intDiv(toUnixTimestamp64Nano(occurred_at) - positiveModulo(toUnixTimestamp64Nano(occurred_at), 3600000000000),
        3600000000000)) AS hour,
    toString(sum(amount)) AS total, count() AS pulses
FROM (
    SELECT * FROM archive WHERE amount > 0 ORDER BY received_at, item
    LIMIT 1 BY tenant, identity_kind, if(identity = '', toString(event_key), identity)
)
GROUP BY tenant, product_sku, unit, hour ORDER BY tenant, product_sku, unit, hour";

/// A message's identity ends with the place of the pulse, and that of a `CloudEvent` begins with its source.
const EVENTS: &str = "\
SELECT tenant, product_sku, CAST(use_unity, 'String') AS unit, toString(amount) AS shown_amount,
    toUnixTimestamp64Nano(occurred_at) AS occurred, toUnixTimestamp64Nano(received_at) AS received,
    CAST(identity_kind, 'String') AS kind, identity, CAST(source, 'String') AS source_name,
    CAST(log, 'String') AS log_name, offset, item, message_id, body
FROM archive
WHERE ((identity_kind = 'id' AND identity = ?) OR message_id = ?
    OR (identity_kind = 'cloudevent' AND endsWith(identity, concat(' ', ?))))
    AND (? = '' OR tenant = ?)
ORDER BY received_at, item LIMIT ?";

#[derive(Row, Deserialize)]
struct TotalRow {
    tenant: String,
    product_sku: String,
    unit: String,
    hour: i32,
    total: String,
    pulses: u64,
}

#[derive(Row, Deserialize)]
struct EventRow {
    tenant: String,
    product_sku: String,
    unit: String,
    shown_amount: String,
    occurred: i64,
    received: i64,
    kind: String,
    identity: String,
    source_name: String,
    log_name: String,
    offset: Option<u64>,
    item: u32,
    message_id: String,
    #[serde(deserialize_with = "bytes")]
    body: Vec<u8>,
}

#[async_trait]
impl EventQueries for ClickhouseArchive {
    async fn totals(&self) -> Result<UsageRows<'static>, PortError> {
        const OPERATION: &str = "add up the events in ClickHouse";
        let rows = self.client.query(TOTALS).fetch::<TotalRow>();
        let rows = rows.map_err(|error| port_error(OPERATION, error))?;
        let rows = stream::try_unfold(Some(rows), |rows| async {
            let Some(mut rows) = rows else { return Ok(None) };
            let mut part = Vec::new();
            while part.len() < PART_ROWS {
                match rows.next().await.map_err(|error| port_error(OPERATION, error))? {
                    Some(row) => {
                        let unreadable = || PortError::permanent(OPERATION, "a total is not one of ours");
                        part.push(row.usage().ok_or_else(unreadable)?);
                    }
                    None => return Ok((!part.is_empty()).then_some((part, None))),
                }
            }
            Ok(Some((part, Some(rows))))
        });
        Ok(rows.boxed())
    }

    async fn events(
        &self,
        id: &str,
        tenant: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<FoundEvent>, PortError> {
        const OPERATION: &str = "look for an event in ClickHouse";
        let tenant = tenant.as_ref().map_or("", TenantId::as_str);
        let query =
            self.client.query(EVENTS).bind(id).bind(id).bind(id).bind(tenant).bind(tenant).bind(limit);
        let rows = super::within(OPERATION, query.fetch_all::<EventRow>()).await?;
        Ok(rows.into_iter().map(FoundEvent::from).collect())
    }
}

impl TotalRow {
    fn usage(self) -> Option<UsageRow> {
        let key = UsageKey {
            tenant: TenantId::new(self.tenant).ok()?,
            product_sku: ProductSku::new(self.product_sku).ok()?,
            use_unity: UsageUnit::new(self.unit).ok()?,
            hour: HourWindow::from_number(self.hour),
        };
        let total = UsageTotal { amount: TotalAmount::parse(&self.total)?, pulses: self.pulses };
        Some(UsageRow { key, total })
    }
}

impl From<EventRow> for FoundEvent {
    fn from(row: EventRow) -> Self {
        Self {
            key: [row.tenant, row.product_sku, row.unit],
            amount: row.shown_amount,
            occurred_at: time(row.occurred),
            received_at: time(row.received),
            identity: (row.kind, row.identity),
            source: row.source_name,
            place: row.offset.map(|offset| (row.log_name, offset)),
            item: row.item,
            message_id: row.message_id,
            body: row.body,
        }
    }
}

fn time(nanos: i64) -> Timestamp {
    let rest = u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default();
    Timestamp::new(nanos.div_euclid(NANOS_PER_SECOND), rest)
}

/// A `String` of ClickHouse that need not be text.
fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;
    impl serde::de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
    deserializer.deserialize_byte_buf(Bytes)
}
