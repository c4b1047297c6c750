//! Batches of events into the table `events`.

use super::{CALL_LIMIT, ClickhouseArchive, error::port_error, within};
use application::{
    decode::{ReadAs, mapping::ColumnValue},
    ports::{ArchivedEvent, EventArchive, PortError},
};
use async_trait::async_trait;
use clickhouse::Row;
use domain::{PulseIdentity, Timestamp, content_hash};
use serde::{Serialize, Serializer};

/// One row. The order of the fields does not matter: the client asks the server for the columns and checks their types.
#[derive(Row, Serialize)]
struct EventRow<'a> {
    tenant: &'a str,
    product_sku: &'a str,
    use_unity: &'a str,
    amount: i128,
    occurred_at: i64,
    received_at: i64,
    identity_kind: &'a str,
    identity: String,
    event_key: u128,
    format: &'a str,
    columns: Vec<(&'a str, String)>,
    source: &'a str,
    log: &'a str,
    offset: Option<u64>,
    item: u32,
    message_id: &'a str,
    routing_key: &'a str,
    content_type: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    #[serde(serialize_with = "bytes")]
    body: &'a [u8],
}

#[async_trait]
impl EventArchive for ClickhouseArchive {
    async fn keep(&self, events: &[ArchivedEvent<'_>]) -> Result<(), PortError> {
        const OPERATION: &str = "insert events into ClickHouse";
        let error = |error| port_error(OPERATION, error);
        let mut insert = within(OPERATION, self.client.insert::<EventRow<'_>>("events"))
            .await?
            .with_timeouts(Some(CALL_LIMIT), Some(CALL_LIMIT))
            // The answer comes when the part is on the disk, and a repeated batch makes no second one.
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token(events));
        for event in events {
            insert.write(&row(event)).await.map_err(error)?;
        }
        insert.end().await.map_err(error)
    }

    async fn check(&self) -> Result<(), PortError> {
        let table = self.client.query("SELECT count() FROM events WHERE 0");
        within("ask ClickHouse for its table", table.fetch_one::<u64>()).await.map(|_| ())
    }
}

/// The same for the same events in the same order, and for no others.
fn token(events: &[ArchivedEvent<'_>]) -> String {
    let keys: Vec<[u8; 16]> = events.iter().map(|event| event.key.to_be_bytes()).collect();
    let hash = content_hash(&keys.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>());
    format!("{:032x}", u128::from_be_bytes(hash))
}

fn row<'a>(archived: &ArchivedEvent<'a>) -> EventRow<'a> {
    let ArchivedEvent { key, event, body, item, delivery, source, mapping } = *archived;
    let envelope = &delivery.envelope;
    let (identity_kind, identity) = identity(event.identity.as_ref());
    let (format, columns) = match (event.read_as, mapping) {
        (ReadAs::Mapping, Some(mapping)) => (&*mapping.name, mapping.columns.as_slice()),
        (ReadAs::CloudEvent, _) => ("cloudevents", &[][..]),
        _ => ("pulse", &[][..]),
    };
    let columns = columns.iter().zip(&event.columns);
    EventRow {
        tenant: event.tenant.as_str(),
        product_sku: event.product_sku.as_str(),
        use_unity: event.use_unity.as_str(),
        amount: event.amount.map_or(0, |amount| i128::try_from(amount.nanos()).unwrap_or(i128::MAX)),
        occurred_at: nanos(event.occurred_at),
        received_at: nanos(delivery.received_at),
        identity_kind,
        identity,
        event_key: key,
        format,
        columns: columns.filter_map(|(column, value)| Some((&*column.name, text(value)?))).collect(),
        source,
        log: delivery.log.as_ref().map_or("", |reading| reading.log.as_str()),
        offset: delivery.log.as_ref().map(|_| delivery.sequence),
        item,
        message_id: envelope.message_id.as_deref().unwrap_or_default(),
        routing_key: envelope.routing_key.as_deref().unwrap_or_default(),
        content_type: envelope.content_type.as_deref().unwrap_or_default(),
        headers: envelope.headers.iter().map(|(name, value)| (&**name, &**value)).collect(),
        body,
    }
}

fn identity(identity: Option<&PulseIdentity>) -> (&'static str, String) {
    match identity {
        None => ("none", String::new()),
        Some(PulseIdentity::Id(id)) => ("id", id.to_string()),
        Some(PulseIdentity::Message { id, item }) => ("message", format!("{id}#{item}")),
        Some(PulseIdentity::CloudEvent { source, id }) => ("cloudevent", format!("{source} {id}")),
    }
}

/// How the views read it back. `None` for null.
fn text(value: &ColumnValue) -> Option<String> {
    Some(match value {
        ColumnValue::Null => return None,
        ColumnValue::Text(text) | ColumnValue::Json(text) => text.clone(),
        ColumnValue::Integer(number) => number.to_string(),
        ColumnValue::Decimal(nanos) => decimal(*nanos),
        ColumnValue::Boolean(value) => value.to_string(),
        ColumnValue::Time(time) => nanos(*time).to_string(),
    })
}

/// A number of 10^-9 with its point.
fn decimal(nanos: i128) -> String {
    let (sign, size) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}

/// Nanoseconds since 1970. Every time of an event fits; the clock of arrival does until the year 2262.
fn nanos(time: Timestamp) -> i64 {
    let nanos = i128::from(time.seconds()) * 1_000_000_000 + i128::from(time.nanos());
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}
