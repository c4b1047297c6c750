use super::*;
use crate::{
    decode::{Event, Format, HEADER_FORMAT, Item, NATIVE, ReadAs},
    ports::{Delivery, Envelope, PartitionId},
};
use domain::Pulse;
use proptest::prelude::*;
use std::sync::Arc;

fn value(field: &str, kind: &str, argument: &str) -> Value {
    Value::new(field, Pick::new(kind, argument).unwrap())
}

fn mapping() -> Mapping {
    Mapping {
        name: "test".into(),
        reads_cloud_events: false,
        checks: Vec::new(),
        tenant: value("tenant", "pointer", "/who/name"),
        product_sku: value("product_sku", "constant", "s"),
        use_unity: value("use_unity", "constant", "u"),
        used_amount: value("used_amount", "pointer", "/amounts/1"),
        identity: Identity::Value(value("identity", "pointer", "/id")),
        occurred_at: None,
        columns: Vec::new(),
    }
}

#[test]
fn a_message_that_says_that_it_is_native_is_not_mapped() {
    let body = br#"{"id":"a","tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
    let mut native = delivery(body);
    native.envelope.headers.push((HEADER_FORMAT.into(), NATIVE.into()));
    let decoder = Decoder { format: Format::Mapping(Arc::new(mapping())), ..Decoder::default() };
    let mut items = Vec::new();
    decoder.decode(&native, &mut items);
    decoder.decode(&delivery(body), &mut items);
    assert!(items[0].pulse.is_ok() && items[1].pulse.is_err(), "{items:?}");
    assert!(decoder.columns(&native, &items[0]).is_err());
}

fn delivery(body: &[u8]) -> Delivery {
    Delivery {
        partition: PartitionId(1),
        sequence: 1,
        log: None,
        returns: 0,
        body: body.to_vec(),
        envelope: Envelope {
            routing_key: Some("john.doe.event.created".into()),
            headers: vec![("X-Plan".into(), "gold".into())],
            ..Envelope::default()
        },
        received_at: Timestamp::new(1_768_048_200, 0),
    }
}

fn decoder(mapping: Mapping) -> Decoder {
    Decoder { format: Format::Mapping(Arc::new(mapping)), ..Decoder::default() }
}

fn decode(mapping: Mapping, delivery: &Delivery) -> Vec<Item> {
    let mut items = Vec::new();
    decoder(mapping).decode(delivery, &mut items);
    items
}

fn one(mapping: Mapping, body: &str) -> Result<Pulse, Rejection> {
    let mut items = decode(mapping, &delivery(body.as_bytes()));
    assert_eq!(items.len(), 1, "{body}");
    items.remove(0).pulse
}

const BODY: &str = r#"{"id":"7","who":{"name":"A"},"amounts":[0,9007199254740993.000000001]}"#;

#[test]
fn values_are_found_in_objects_and_arrays_and_amounts_keep_every_digit() {
    let pulse = one(mapping(), BODY).unwrap();
    assert_eq!(pulse.tenant.as_str(), "A");
    assert_eq!(pulse.amount.to_string(), "9007199254740993.000000001");
    assert_eq!(pulse.identity, Some(PulseIdentity::Id("7".into())));
    assert_eq!((pulse.occurred_at, pulse.hour.start_seconds()), (None, 1_768_046_400));
}

#[test]
fn each_kind_of_place_is_read() {
    for (kind, argument, found) in [
        ("pointer", "/who/name", "A"),
        ("pointer", "/whole", "-17"),
        ("pointer", "/flag", "true"),
        ("pointer", "/a~1b/~0", "escaped"),
        ("pointer", "/", "no name"),
        ("routing_key", "1", "john"),
        ("routing_key", "4", "created"),
        ("routing_key", "-1", "created"),
        ("routing_key", "-4", "john"),
        ("routing_key_without_last", "2", "john.doe"),
        ("routing_key_without_last", "0", "john.doe.event.created"),
        ("header", "x-plan", "gold"),
        ("constant", "fixed", "fixed"),
        ("template", "{{{routing_key:-1}}}/{pointer:/whole}-{header:X-PLAN}", "{created}/-17-gold"),
    ] {
        let body = r#"{"who":{"name":"A"},"whole":-17,"flag":true,"a/b":{"~":"escaped"},"":"no name","id":"7","amounts":[0,1]}"#;
        let pulse = one(Mapping { tenant: value("tenant", kind, argument), ..mapping() }, body).unwrap();
        assert_eq!(pulse.tenant.as_str(), found, "{kind} {argument}");
    }
}

#[test]
fn what_is_not_found_or_no_name_is_refused_by_its_field_and_place() {
    for (kind, argument, reason, detail) in [
        ("pointer", "/nobody", Reason::MissingField, "tenant (pointer /nobody) is missing"),
        ("pointer", "/id/name", Reason::MissingField, "is missing"),
        ("pointer", "/amounts/2", Reason::MissingField, "is missing"),
        ("pointer", "/amounts/01", Reason::MissingField, "is missing"),
        ("pointer", "/null", Reason::MissingField, "is missing"),
        ("pointer", "/who", Reason::InvalidField, "must be a string, a whole number or a boolean"),
        ("pointer", "", Reason::InvalidField, "must be a string"),
        ("pointer", "/amounts/1", Reason::InvalidField, "must be a string"),
        ("pointer", "/empty", Reason::InvalidField, "is empty"),
        ("routing_key", "5", Reason::MissingField, "part 5 of the routing key"),
        ("routing_key", "-5", Reason::MissingField, "part -5 of the routing key"),
        ("routing_key_without_last", "4", Reason::MissingField, "without its last 4 parts"),
        ("header", "x-other", Reason::MissingField, "header x-other"),
        ("template", "{header:x-plan}{header:x-other}", Reason::MissingField, "header x-other"),
    ] {
        let body = r#"{"id":"7","who":{"name":"A"},"amounts":[0,1.5],"null":null,"empty":""}"#;
        let rejection =
            one(Mapping { tenant: value("tenant", kind, argument), ..mapping() }, body).unwrap_err();
        assert_eq!(rejection.reason, reason, "{kind} {argument}: {rejection}");
        assert!(rejection.detail.contains(detail), "{kind} {argument}: {rejection}");
    }
}

#[test]
fn a_message_is_read_as_strictly_as_a_pulse() {
    for (body, reason) in [
        (r#"{"id":"7","id":"7","who":{"name":"A"},"amounts":[0,1]}"#, Reason::Malformed),
        (r#"{"id":"7","other":1,"other":1,"who":{"name":"A"},"amounts":[0,1]}"#, Reason::Malformed),
        (r#"{"id":"7","who":{"name":"A","name":"B"},"amounts":[0,1]}"#, Reason::Malformed),
        (r#"{"id":"7","who":{"name":"A"},"amounts":[0,0]}"#, Reason::NotPositive),
        (r#"{"id":"7","who":{"name":"A"},"amounts":[0,0.0000000001]}"#, Reason::TooPrecise),
        (r#"{"id":"7","who":{"name":"A"},"amounts":[0,1e99]}"#, Reason::OutOfRange),
        (r#"{"id":"7","who":{"name":"A"},"amounts":[0,true]}"#, Reason::InvalidField),
        (r#"{"who":{"name":"A"},"amounts":[0,1]}"#, Reason::MissingField),
        ("7", Reason::Malformed),
        ("{", Reason::Malformed),
    ] {
        assert_eq!(one(mapping(), body).unwrap_err().reason, reason, "{body}");
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = BODY.replace("\"id\"", &format!("\"deep\":{deep},\"id\""));
    assert_eq!(one(mapping(), &body).unwrap_err().reason, Reason::Malformed);
    let ignored = BODY.replace("\"id\"", r#""ignored":{"a":1,"a":2},"id""#);
    assert!(one(mapping(), &ignored).is_ok(), "what nothing is looked for in may hold anything");
}

#[test]
fn items_of_arrays_and_lines_are_judged_one_by_one() {
    for body in [format!("[{BODY},{{}},{BODY}]"), format!("{BODY}\n{{}}\n{BODY}")] {
        let items = decode(mapping(), &delivery(body.as_bytes()));
        let good: Vec<bool> = items.iter().map(|item| item.pulse.is_ok()).collect();
        assert_eq!(good, [true, false, true]);
        assert_eq!(&body[items[1].bytes.clone()], "{}");
    }
}

#[test]
fn only_listed_values_pass_and_checks_refuse_what_is_of_another_shape() {
    let mut listed = value("product_sku", "routing_key", "-1");
    listed.one_of = vec!["created".into(), "deleted".into()];
    assert!(one(Mapping { product_sku: listed.clone(), ..mapping() }, BODY).is_ok());
    listed.pick = Pick::new("routing_key", "-2").unwrap();
    let rejection = one(Mapping { checks: vec![listed], ..mapping() }, BODY).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidField);
    assert!(rejection.detail.contains("must be one of created, deleted: event"), "{rejection}");
}

#[test]
fn a_header_that_comes_twice_is_refused() {
    let mut delivery = delivery(BODY.as_bytes());
    delivery.envelope.headers.push(("x-plan".into(), "silver".into()));
    let items = decode(Mapping { tenant: value("tenant", "header", "x-plan"), ..mapping() }, &delivery);
    assert_eq!(items[0].pulse.as_ref().unwrap_err().reason, Reason::Malformed);
}

#[test]
fn times_are_read_as_they_are_written_and_may_be_required() {
    let at = |optional, format, time: &str| {
        let mut place = value("occurred_at", "pointer", "/at");
        place.optional = optional;
        let body = BODY.replace("\"id\"", &format!("\"at\":{time},\"id\""));
        one(Mapping { occurred_at: Some((place, format)), ..mapping() }, &body)
            .map(|pulse| pulse.occurred_at)
            .map_err(|rejection| rejection.reason)
    };
    let noon = Ok(Some(Timestamp::new(1_768_046_400, 0)));
    assert_eq!(at(false, TimeFormat::Rfc3339, r#""2026-01-10T12:00:00Z""#), noon);
    assert_eq!(at(false, TimeFormat::UnixSeconds, "1768046400"), noon);
    let before = Ok(Some(Timestamp::new(-2, 999_000_000)));
    assert_eq!(at(false, TimeFormat::UnixMilliseconds, "-1001"), before);
    assert_eq!(at(true, TimeFormat::Rfc3339, "null"), Ok(None));
    assert_eq!(at(false, TimeFormat::Rfc3339, "null"), Err(Reason::MissingField));
    assert_eq!(at(false, TimeFormat::Rfc3339, r#""2026-01-10""#), Err(Reason::InvalidField));
    assert_eq!(at(false, TimeFormat::UnixSeconds, "1.5"), Err(Reason::InvalidField));
    assert_eq!(at(true, TimeFormat::UnixSeconds, "99999999999"), Err(Reason::TooFarAhead));
}

#[test]
fn a_message_without_identity_is_known_by_its_message_id() {
    let mut delivery = delivery(BODY.as_bytes());
    let none = || Mapping { identity: Identity::None, ..mapping() };
    assert_eq!(decode(none(), &delivery)[0].pulse.as_ref().unwrap().identity, None);
    delivery.envelope.message_id = Some("m".into());
    let identity = PulseIdentity::Message { id: "m".into(), item: 0 };
    assert_eq!(decode(none(), &delivery)[0].pulse.as_ref().unwrap().identity, Some(identity));
}

#[test]
fn a_mapping_of_events_reads_their_attributes_and_data_and_another_leaves_them_alone() {
    let events = || Mapping {
        reads_cloud_events: true,
        tenant: value("tenant", "attribute", "subject"),
        product_sku: value("product_sku", "attribute", "extension"),
        used_amount: value("used_amount", "pointer", "/count"),
        identity: Identity::CloudEvent,
        ..mapping()
    };
    let body = r#"{"specversion":"1.0","id":"7","source":"/m","type":"t","subject":"A","extension":5,"data":{"count":3}}"#;
    let pulse = one(events(), body).unwrap();
    assert_eq!((pulse.tenant.as_str(), pulse.product_sku.as_str()), ("A", "5"));
    assert_eq!(pulse.amount.to_string(), "3");
    assert_eq!(pulse.identity, Some(PulseIdentity::CloudEvent { source: "/m".into(), id: "7".into() }));

    let mut binary = delivery(br#"{"count":3}"#);
    let attributes = [
        ("specversion", "1.0"),
        ("id", "7"),
        ("source", "/m"),
        ("type", "t"),
        ("subject", "A"),
        ("extension", "5"),
    ];
    binary.envelope.headers =
        attributes.map(|(name, value)| (format!("ce_{name}"), value.to_owned())).to_vec();
    assert_eq!(decode(events(), &binary)[0].pulse, Ok(pulse));

    let mut announced = delivery(body.as_bytes());
    announced.envelope.content_type = Some("application/cloudevents+json".into());
    let rejection = decode(mapping(), &announced).remove(0).pulse.unwrap_err();
    assert_eq!(
        rejection.detail, "data.product_sku is missing",
        "an event with the data of a pulse is expected"
    );
}

#[test]
fn columns_keep_what_they_hold_exactly() {
    let read = |kind, optional, json: &str| {
        let mut place = value("column", "pointer", "/value");
        place.optional = optional;
        let columns = vec![Column { name: "column".into(), kind, value: place }];
        let delivery = delivery(format!(r#"{{"value":{json}}}"#).as_bytes());
        let decoder = decoder(Mapping { columns, ..mapping() });
        let mut items = Vec::new();
        decoder.decode(&delivery, &mut items);
        assert!(items[0].pulse.is_err(), "columns are there where no pulse is");
        decoder
            .columns(&delivery, &items[0])
            .map(|mut values| values.remove(0))
            .map_err(|rejection| rejection.reason)
    };
    let time = ColumnKind::Time(TimeFormat::Rfc3339);
    for (kind, json, expected) in [
        (ColumnKind::Text, r#""a\n""#, ColumnValue::Text("a\n".into())),
        (ColumnKind::Text, "7", ColumnValue::Text("7".into())),
        (ColumnKind::Integer, "-9223372036854775808", ColumnValue::Integer(i64::MIN)),
        (ColumnKind::Integer, r#""7""#, ColumnValue::Integer(7)),
        (
            ColumnKind::Decimal,
            "-9007199254740993.5",
            ColumnValue::Decimal(-9_007_199_254_740_993_500_000_000),
        ),
        (ColumnKind::Decimal, r#""0.00""#, ColumnValue::Decimal(0)),
        (ColumnKind::Decimal, "-0", ColumnValue::Decimal(0)),
        (ColumnKind::Boolean, "false", ColumnValue::Boolean(false)),
        (time, r#""2026-01-10""#, ColumnValue::Time(Timestamp::new(1_768_003_200, 0))),
        (time, r#""2026-01-10T12:00:00+12:00""#, ColumnValue::Time(Timestamp::new(1_768_003_200, 0))),
        (ColumnKind::Json, r#"{"a": [1e400]}"#, ColumnValue::Json(r#"{"a": [1e400]}"#.into())),
    ] {
        assert_eq!(read(kind, false, json), Ok(expected), "{json}");
        assert_eq!(read(kind, true, "null"), Ok(ColumnValue::Null));
        assert_eq!(read(kind, false, "null"), Err(Reason::MissingField));
    }
    for (kind, json) in [
        (ColumnKind::Text, "1.0"),
        (ColumnKind::Text, "[]"),
        (ColumnKind::Integer, "9223372036854775808"),
        (ColumnKind::Integer, "1e3"),
        (ColumnKind::Decimal, r#""--1""#),
        (ColumnKind::Decimal, "0.0000000001"),
        (ColumnKind::Decimal, "{}"),
        (ColumnKind::Boolean, r#""yes""#),
        (time, r#""2026-13-10""#),
    ] {
        assert_eq!(read(kind, true, json), Err(Reason::InvalidField), "{json}");
    }
}

#[test]
fn a_place_that_cannot_be_is_told_by_what_would_be_right() {
    for (kind, argument, error) in [
        ("pointer", "who", PickError::PointerStart),
        ("pointer", "/a~2", PickError::PointerEscape),
        ("pointer", "/a~", PickError::PointerEscape),
        ("attribute", "Subject", PickError::Attribute),
        ("attribute", "", PickError::Attribute),
        ("routing_key", "0", PickError::RoutingKeyPart),
        ("routing_key", "last", PickError::RoutingKeyPart),
        ("routing_key_without_last", "-1", PickError::RoutingKeyWithoutLast),
        ("header", "", PickError::Header),
        ("constant", "", PickError::Constant(domain::TextError::Empty)),
        ("template", "no place", PickError::Template),
        ("template", "{pointer:/a", PickError::Template),
        ("template", "{pointer:/a}}", PickError::Template),
        ("template", "{subject}", PickError::Template),
        ("template", "{template:x}", PickError::Nested),
        ("template", "{pointer:a}", PickError::PointerStart),
        ("query", "a", PickError::Kind("query".into())),
    ] {
        assert_eq!(Pick::new(kind, argument), Err(error), "{kind} {argument}");
    }
}

proptest! {
    #[test]
    fn no_message_makes_a_mapping_panic(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            "[\\[{\"a-z_:,0-9.}\\] \n]{0,80}".prop_map(String::into_bytes),
            (0..BODY.len(), any::<u8>()).prop_map(|(place, byte)| {
                let mut body = BODY.as_bytes().to_vec();
                body[place] = byte;
                body
            }),
        ],
        key in "[a.é]{0,8}",
        parts in 0..5_u16,
        template in ".{0,20}",
        events: bool,
    ) {
        let kind = ColumnKind::Decimal;
        let columns = vec![Column { name: "c".into(), kind, value: value("c", "pointer", "/amounts/1") }];
        let tenant = Pick::new("template", &template)
            .unwrap_or_else(|_| Pick::new("routing_key_without_last", &parts.to_string()).unwrap());
        let decoder = decoder(Mapping {
            reads_cloud_events: events,
            tenant: Value::new("tenant", tenant),
            columns,
            ..mapping()
        });
        let mut delivery = delivery(&body);
        delivery.envelope.routing_key = Some(key);
        let mut items = Vec::new();
        decoder.decode(&delivery, &mut items);
        prop_assert!(!items.is_empty());
        for item in &items {
            let _ = decoder.columns(&delivery, item);
        }
    }
}

#[test]
fn an_event_keeps_its_columns_and_an_amount_of_zero_and_no_time_that_the_archive_cannot_hold() {
    let column = |name: &str, kind| Column {
        name: name.into(),
        kind,
        value: value(name, "pointer", &format!("/{name}")),
    };
    let columns =
        vec![column("note", ColumnKind::Text), column("at", ColumnKind::Time(TimeFormat::UnixSeconds))];
    let decoder = decoder(Mapping { columns, ..mapping() });
    let events = |delivery: &Delivery| {
        let mut items = Vec::new();
        decoder.decode_events(delivery, &mut items);
        let kept = |event: Event| {
            (event.read_as, event.amount.map(|amount| amount.to_string()), event.columns.len())
        };
        items
            .into_iter()
            .map(|item| item.pulse.map(kept).map_err(|rejection| rejection.reason))
            .collect::<Vec<_>>()
    };
    let body = |amount: &str, note: &str, at: i64| {
        format!(r#"{{"id":"7","who":{{"name":"A"}},"amounts":[0,{amount}],{note}"at":{at}}}"#)
    };
    let note = r#""note":"x","#;
    let cases = [
        (body("0", note, 0), Ok((ReadAs::Mapping, None, 2))),
        (body("\"2.50\"", note, 9_214_646_399), Ok((ReadAs::Mapping, Some("2.5".to_owned()), 2))),
        (body("1", note, 9_214_646_400), Err(Reason::OutOfRange)),
        (body("1", note, -2_208_988_801), Err(Reason::OutOfRange)),
        (body("-1", note, 0), Err(Reason::NotPositive)),
        (body("1", "", 0), Err(Reason::MissingField)),
        ("nothing".to_owned(), Err(Reason::Malformed)),
    ];
    for (body, expected) in cases {
        assert_eq!(events(&delivery(body.as_bytes())), [expected], "{body}");
    }

    // What says itself that it is something else is archived as that.
    let native = r#"{"tenant":"A","product_sku":"s","used_amount":0,"use_unity":"u"}"#;
    let mut marked = delivery(native.as_bytes());
    marked.envelope.headers.push((HEADER_FORMAT.into(), NATIVE.into()));
    assert_eq!(events(&marked), [Ok((ReadAs::Pulse, None, 0))]);
    let event = r#"{"specversion":"1.0","id":"7","source":"/m","type":"u","subject":"A","data":{"product_sku":"s","used_amount":1,"use_unity":"u"}}"#;
    let mut announced = delivery(event.as_bytes());
    announced.envelope.content_type = Some("application/cloudevents+json".into());
    assert_eq!(events(&announced), [Ok((ReadAs::CloudEvent, Some("1".to_owned()), 0))]);
}
