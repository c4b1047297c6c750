//! The archive on the ClickHouse engine, behind an HTTP interface of our own; not on a ClickHouse server.
#![cfg(all(feature = "servers", feature = "clickhouse"))]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it should be")]

use application::{
    decode::{
        Event, ReadAs,
        mapping::{Column, ColumnKind, ColumnValue, Identity, Mapping, Pick, TimeFormat, Value},
    },
    ports::{
        ArchivedEvent, Delivery, Envelope, EventArchive, EventQueries, LogReading, PartitionId, UsageRow,
    },
};
use domain::{Amount, LogName, ProductSku, PulseIdentity, TenantId, Timestamp, TotalAmount, UsageUnit};
use futures_util::TryStreamExt;
use infrastructure::{clickhouse::ClickhouseArchive, test_servers::clickhouse::ClickhouseServer};
use secrecy::SecretString;
use std::sync::Arc;

const KINDS: [(&str, ColumnKind); 6] = [
    ("title", ColumnKind::Text),
    ("price_cents", ColumnKind::Integer),
    ("weight", ColumnKind::Decimal),
    ("paid", ColumnKind::Boolean),
    ("session_date", ColumnKind::Time(TimeFormat::Rfc3339)),
    ("lines", ColumnKind::Json),
];

/// A mapping with a column of each kind, all of them optional.
fn mapping() -> Mapping {
    let value = |name: &str| Value::new(name, Pick::Constant("x".into()));
    let column = |(name, kind): (&str, ColumnKind)| {
        let mut value = value(name);
        value.optional = true;
        Column { name: name.into(), kind, value }
    };
    Mapping {
        name: "orders-1".into(),
        reads_cloud_events: false,
        checks: Vec::new(),
        tenant: value("tenant"),
        product_sku: value("product_sku"),
        use_unity: value("use_unity"),
        used_amount: value("used_amount"),
        identity: Identity::None,
        occurred_at: None,
        columns: KINDS.into_iter().map(column).collect(),
    }
}

fn event(tenant: &str, amount: &str, columns: Vec<ColumnValue>) -> Event {
    Event {
        read_as: ReadAs::Mapping,
        tenant: TenantId::new(tenant).unwrap(),
        product_sku: ProductSku::new("it's a \\ \u{1f600}").unwrap(),
        use_unity: UsageUnit::new("kg").unwrap(),
        amount: Amount::parse(amount).ok(),
        identity: Some(PulseIdentity::Id("17".into())),
        occurred_at: Timestamp::new(1_768_046_400, 123_456_789),
        columns,
    }
}

fn delivery(received_at: i64) -> Delivery {
    Delivery {
        partition: PartitionId(3),
        sequence: 42,
        body: b"{\"a\":\n1}".to_vec(),
        envelope: Envelope {
            message_id: Some("m-1".into()),
            content_type: Some("application/json".into()),
            routing_key: Some("a.b".into()),
            headers: vec![("x-plan".into(), "gold".into()), ("x-empty".into(), String::new())],
        },
        received_at: Timestamp::new(received_at, 1),
        log: Some(Arc::new(LogReading { log: LogName::of(&["kafka", "c", "t", "0"]).unwrap(), after: 0 })),
        returns: 0,
    }
}

fn archived<'a>(
    key: u128,
    event: &'a Event,
    delivery: &'a Delivery,
    mapping: &'a Mapping,
) -> ArchivedEvent<'a> {
    let (body, source) = (delivery.body.as_slice(), "kafka t");
    ArchivedEvent { key, event, body, item: 5, delivery, source, mapping: Some(mapping) }
}

async fn open(server: &ClickhouseServer) -> ClickhouseArchive {
    let archive = ClickhouseArchive::new(&SecretString::from(server.url())).unwrap();
    archive.migrate(Some(&mapping())).await.unwrap();
    archive
}

#[tokio::test]
async fn an_event_is_read_back_as_it_was_with_all_that_its_message_said() {
    let server = ClickhouseServer::start();
    let archive = open(&server).await;
    let (mapping, delivery) = (mapping(), delivery(1_768_046_500));
    let columns = vec![
        ColumnValue::Text("a 'title'".into()),
        ColumnValue::Integer(-4_900),
        ColumnValue::Decimal(-1_500_000_001),
        ColumnValue::Boolean(true),
        ColumnValue::Time(Timestamp::new(-2_208_988_800, 5)),
        ColumnValue::Json("{\"a\":[1]}".into()),
    ];
    let full = event("acme", "9007199254740993.000000001", columns);
    let empty = event("free", "0", vec![ColumnValue::Null; 6]);
    archive
        .keep(&[archived(u128::MAX, &full, &delivery, &mapping), archived(2, &empty, &delivery, &mapping)])
        .await
        .unwrap();

    let rows = server.query("SELECT * FROM archive ORDER BY tenant FORMAT TSVRaw");
    insta::assert_snapshot!("rows", rows);
    let typed = server.query("SELECT * FROM `archive_orders-1` ORDER BY tenant FORMAT TSVWithNamesAndTypes");
    insta::assert_snapshot!("typed", typed);
}

/// ClickHouse lets a name that a SELECT gives win over a column of the table.
#[tokio::test]
async fn columns_may_be_called_as_the_table_calls_its_own_and_what_a_row_does_not_have_is_null() {
    let server = ClickhouseServer::start();
    let archive = open(&server).await;
    let column = |name: &str| {
        let value = Value::new(name, Pick::Constant("x".into()));
        Column { name: name.into(), kind: ColumnKind::Text, value }
    };
    let before = Mapping { columns: vec![column("format")], ..mapping() };
    let after = Mapping { columns: ["format", "columns", "title"].map(column).into(), ..mapping() };
    let delivery = delivery(1_768_046_500);
    let text = |text: &str| ColumnValue::Text(text.into());
    let (old, new) =
        (event("old", "1", vec![text("a")]), event("new", "2", vec![text("b"), text("c"), text("d")]));
    archive.keep(&[archived(1, &old, &delivery, &before)]).await.unwrap();
    archive.migrate(Some(&after)).await.unwrap();
    archive.keep(&[archived(2, &new, &delivery, &after)]).await.unwrap();
    let rows = server.query(
        "SELECT tenant, `format`, `columns`, title FROM `archive_orders-1` ORDER BY tenant FORMAT TSV",
    );
    assert_eq!(rows, "new\tb\tc\td\nold\ta\t\\N\t\\N");
}

#[tokio::test]
async fn copies_change_no_sum_whether_their_batch_is_repeated_or_another_one() {
    let server = ClickhouseServer::start();
    let archive = open(&server).await;
    let mapping = mapping();
    let (first, again) = (delivery(1_000), delivery(2_000));
    let events: Vec<Event> = (0..500).map(|_| event("t", "0.1", vec![ColumnValue::Null; 6])).collect();
    let rows = |delivery, from: u128| -> Vec<_> {
        (from..).zip(&events).map(|(key, event)| archived(key, event, delivery, &mapping)).collect()
    };
    archive.keep(&rows(&again, 0)).await.unwrap();
    archive.keep(&rows(&again, 0)).await.unwrap();
    assert_eq!(server.query("SELECT count() FROM events"), "500", "the repeated batch is not written again");

    archive.keep(&rows(&first, 250)).await.unwrap();
    let sums = "SELECT count(), sum(amount), countIf(received_at < '1970-01-01 00:30:00') FROM archive";
    assert_eq!(server.query(sums), "750\t75\t500", "of copies, the one that was received first is kept");
    server.query("OPTIMIZE TABLE events FINAL");
    assert_eq!(server.query("SELECT count() FROM events"), "750", "and the others are merged away");
    assert_eq!(server.query(sums), "750\t75\t500");
}

#[tokio::test]
async fn a_server_that_is_away_is_transient_and_has_kept_what_it_confirmed() {
    let mut server = ClickhouseServer::start();
    let archive = open(&server).await;
    let (mapping, delivery) = (mapping(), delivery(1_000));
    let event = event("t", "1", vec![ColumnValue::Null; 6]);
    archive.keep(&[archived(1, &event, &delivery, &mapping)]).await.unwrap();
    server.kill();
    assert!(
        archive
            .keep(&[archived(2, &event, &delivery, &mapping)])
            .await
            .is_err_and(|error| error.is_transient())
    );
    assert!(archive.migrate(None).await.is_err_and(|error| error.is_transient()));
    server.restart();
    archive.migrate(Some(&mapping)).await.unwrap();
    archive.keep(&[archived(2, &event, &delivery, &mapping)]).await.unwrap();
    assert_eq!(server.query("SELECT count() FROM archive"), "2");
}

#[tokio::test]
async fn a_table_that_is_gone_is_permanent_and_says_so() {
    let server = ClickhouseServer::start();
    let archive = open(&server).await;
    let (mapping, delivery) = (mapping(), delivery(1_000));
    let event = event("t", "1", vec![ColumnValue::Null; 6]);
    archive.keep(&[archived(1, &event, &delivery, &mapping)]).await.unwrap();
    server.query("DROP TABLE events");
    let error = archive.keep(&[archived(2, &event, &delivery, &mapping)]).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("UNKNOWN_TABLE"), "{error}");
}

#[tokio::test]
async fn events_are_added_up_by_the_hour_once_for_each_identity_and_found_by_their_ids() {
    let server = ClickhouseServer::start();
    let archive = ClickhouseArchive::new(&SecretString::from(server.url())).unwrap();
    archive.migrate(None).await.unwrap();
    let identified = |identity: Option<PulseIdentity>, amount: &str, seconds: i64| Event {
        identity,
        occurred_at: Timestamp::new(seconds, 5),
        ..event("t", amount, Vec::new())
    };
    let own = |id: &str| Some(PulseIdentity::Id(id.into()));
    let of_event = Some(PulseIdentity::CloudEvent { source: "a b".into(), id: "c".into() });
    let of_message = Some(PulseIdentity::Message { id: "m-1".into(), item: 0 });
    let events = [
        (identified(own("a"), "1.5", 1_768_046_400), 10),
        // The same id with another amount, later: the first one counts.
        (identified(own("a"), "7", 1_768_046_400), 20),
        (identified(own("b"), "0", 1_768_046_400), 10),
        (identified(of_event, "2", 1_768_049_999), 10),
        (identified(of_message, "0.000000001", -1), 10),
    ];
    let mapping = mapping();
    for (key, (event, received_at)) in events.iter().enumerate() {
        let delivery = delivery(*received_at);
        archive.keep(&[archived(key as u128, event, &delivery, &mapping)]).await.unwrap();
    }
    let parts: Vec<Vec<UsageRow>> = archive.totals().await.unwrap().try_collect().await.unwrap();
    let totals: Vec<(i32, String, u64)> = parts
        .into_iter()
        .flatten()
        .map(|row| (row.key.hour.number(), row.total.amount.to_string(), row.total.pulses))
        .collect();
    let hour = 1_768_046_400 / 3_600;
    assert_eq!(totals, [(-1, "0.000000001".to_owned(), 1), (hour, "3.5".to_owned(), 2)]);

    let tenant = |name: &str| Some(TenantId::new(name).unwrap());
    let found = archive.events("a", None, 9).await.unwrap();
    let amounts: Vec<_> = found.iter().map(|event| TotalAmount::parse(&event.amount)).collect();
    assert_eq!(amounts, ["1.5", "7"].map(TotalAmount::parse), "both, the first one first");
    assert_eq!(
        (found[0].body.as_slice(), found[0].place.as_ref().map(|place| place.1)),
        (&b"{\"a\":\n1}"[..], Some(42))
    );
    assert_eq!(archive.events("c", tenant("t"), 9).await.unwrap()[0].identity.0, "cloudevent");
    assert_eq!(
        archive.events("m-1", tenant("t"), 9).await.unwrap().len(),
        5,
        "all came in messages of this id"
    );
    assert!(archive.events("a", tenant("u"), 9).await.unwrap().is_empty());
}

/// The one that stands first in the message counts, however the engine keeps them.
#[tokio::test]
async fn of_two_contents_of_one_id_in_a_message_the_first_is_added_up() {
    let server = ClickhouseServer::start();
    let archive = ClickhouseArchive::new(&SecretString::from(server.url())).unwrap();
    archive.migrate(None).await.unwrap();
    let (mapping, delivery) = (mapping(), delivery(10));
    for number in 0..24_u32 {
        let identity = Some(PulseIdentity::Id(format!("id-{number}").into()));
        let content = |amount: &str| Event { identity: identity.clone(), ..event("t", amount, Vec::new()) };
        let (first, second) = (content("1"), content("1000"));
        let at = |key: u32, event, item| ArchivedEvent {
            item,
            ..archived(key.into(), event, &delivery, &mapping)
        };
        // Keys are hashes: either may be the smaller one.
        let (smaller, larger) = (2 * number, 2 * number + 1);
        let keys = if number % 2 == 0 { [smaller, larger] } else { [larger, smaller] };
        let batch = [at(keys[0], &first, 2 * number), at(keys[1], &second, 2 * number + 1)];
        archive.keep(&batch).await.unwrap();
    }
    let parts: Vec<Vec<UsageRow>> = archive.totals().await.unwrap().try_collect().await.unwrap();
    let total = parts.concat()[0].total;
    assert_eq!((total.amount.to_string(), total.pulses), ("24".to_owned(), 24));
}
