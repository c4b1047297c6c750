use super::*;
use crate::{
    decode::{Format, Item},
    ports::{Delivery, PartitionId},
};
use domain::Pulse;
use proptest::prelude::*;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
const DATA: &str = r#"{"product_sku":"SKU-997","used_amount":9007199254740993,"use_unity":"KB","note":[1]}"#;

fn decode_with(format: Format, content_type: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<Item> {
    let delivery = Delivery {
        partition: PartitionId(1),
        sequence: 1,
        log: None,
        returns: 0,
        body: body.to_vec(),
        envelope: Envelope {
            message_id: Some("m".into()),
            content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
            routing_key: None,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        },
        received_at: Timestamp::new(1_768_048_200, 0),
    };
    let mut items = Vec::new();
    Decoder { format, ..Decoder::default() }.decode(&delivery, &mut items);
    items
}

fn structured(body: &str) -> Result<Pulse, Rejection> {
    let mut items = decode_with(Format::Pulse, STRUCTURED, &[], body.as_bytes());
    assert_eq!(items.len(), 1);
    items.remove(0).pulse
}

/// An event with one attribute or field left out, and another in its place.
fn event(field: &str, value: &str) -> String {
    let fields = [
        ("specversion", r#""1.0""#),
        ("id", r#""7""#),
        ("source", r#""/meter/1""#),
        ("type", r#""usage""#),
        ("subject", r#""tenant_xpto""#),
        ("time", r#""2026-01-10T12:00:00Z""#),
        ("data", DATA),
    ];
    let mut parts: Vec<String> = fields
        .iter()
        .filter(|(name, _)| *name != field)
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    if !value.is_empty() {
        parts.push(format!("\"{field}\":{value}"));
    }
    format!("{{{}}}", parts.join(","))
}

fn assert_is_the_pulse(pulse: &Pulse) {
    assert_eq!(pulse.tenant.as_str(), "tenant_xpto");
    assert_eq!((pulse.product_sku.as_str(), pulse.use_unity.as_str()), ("SKU-997", "KB"));
    assert_eq!(pulse.amount.to_string(), "9007199254740993");
    let identity = PulseIdentity::CloudEvent { source: "/meter/1".into(), id: "7".into() };
    assert_eq!(pulse.identity, Some(identity));
    assert_eq!(pulse.occurred_at, Some(Timestamp::new(1_768_046_400, 0)));
    assert_eq!(pulse.hour.start_seconds(), 1_768_046_400);
}

#[test]
fn a_structured_event_is_known_by_its_content_type_whatever_the_format() {
    for format in [Format::Pulse, Format::CloudEvents] {
        for content_type in [STRUCTURED, "Application/CloudEvents+JSON;charset=utf-8", BATCH] {
            let items = decode_with(format.clone(), content_type, &[], event("", "").as_bytes());
            assert_is_the_pulse(items[0].pulse.as_ref().unwrap());
        }
    }
}

#[test]
fn the_format_stands_in_for_the_content_type() {
    for content_type in ["", "application/json"] {
        let items = decode_with(Format::CloudEvents, content_type, &[], event("", "").as_bytes());
        assert_is_the_pulse(items[0].pulse.as_ref().unwrap());
        let items = decode_with(Format::Pulse, content_type, &[], event("", "").as_bytes());
        assert_eq!(items[0].pulse.as_ref().unwrap_err().reason, Reason::MissingField);
    }
}

#[test]
fn bad_events_of_a_batch_are_refused_one_by_one() {
    let (good, bad) = (event("", ""), event("subject", ""));
    let body = format!("[{good}, {bad},7,{good}]");
    let items = decode_with(Format::Pulse, BATCH, &[], body.as_bytes());
    let verdicts: Vec<_> = items
        .iter()
        .map(|item| item.pulse.as_ref().map(|pulse| pulse.amount).map_err(|rejection| rejection.reason).err())
        .collect();
    assert_eq!(verdicts, [None, Some(Reason::MissingField), Some(Reason::Malformed), None]);
    assert_eq!((items[1].index, &body[items[1].bytes.clone()]), (Some(1), &*bad));
}

#[test]
fn each_binding_of_binary_mode_is_read_from_its_headers() {
    for prefix in ["ce-", "Ce-", "ce_", "cloudEvents:", "cloudEvents_"] {
        let names =
            ["specversion", "id", "source", "type", "subject", "time"].map(|name| format!("{prefix}{name}"));
        let values = ["1.0", "7", "/meter/1", "usage", "tenant_xpto", "2026-01-10T12:00:00Z"];
        let mut headers: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
        headers.push(("other", "x"));
        let items = decode_with(Format::Pulse, "application/json", &headers, DATA.as_bytes());
        assert_is_the_pulse(items[0].pulse.as_ref().unwrap());
        assert_eq!((items[0].index, items[0].bytes.clone()), (Some(0), 0..DATA.len()));

        headers.push((&names[1], "8"));
        let items = decode_with(Format::Pulse, "", &headers, DATA.as_bytes());
        assert!(items[0].pulse.as_ref().unwrap_err().detail.contains("attribute id appears twice"));
        headers.truncate(1);
        let items = decode_with(Format::Pulse, "", &headers, DATA.as_bytes());
        assert_eq!(items[0].pulse.as_ref().unwrap_err().detail, "id is missing");
    }
}

#[test]
fn headers_of_http_are_percent_decoded_and_others_are_not() {
    let read = |prefix: &str, subject: &str| {
        let names = ["specversion", "id", "source", "type", "subject"].map(|name| format!("{prefix}{name}"));
        let values = ["1.0", "7", "/meter/1", "usage", subject];
        let headers: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
        decode_with(Format::Pulse, "", &headers, DATA.as_bytes()).remove(0).pulse
    };
    for (written, tenant) in
        [("Euro%20%E2%82%AC", "Euro €"), ("50%", "50%"), ("%zz%4", "%zz%4"), ("a%2525", "a%25")]
    {
        assert_eq!(read("ce-", written).unwrap().tenant.as_str(), tenant);
        assert_eq!(read("ce_", written).unwrap().tenant.as_str(), written);
    }
    assert_eq!(read("ce-", "%ff").unwrap_err().reason, Reason::InvalidField);
    assert_eq!(read("ce-", "a%00").unwrap_err().reason, Reason::InvalidField);
}

#[test]
fn data_may_be_base64() {
    let without_data = event("data", "");
    let with = |fields: &str| structured(&format!("{},{fields}}}", &without_data[..without_data.len() - 1]));
    let encoded = STANDARD.encode(DATA);
    assert_is_the_pulse(&with(&format!(r#""data_base64":"{encoded}""#)).unwrap());
    assert_is_the_pulse(&with(&format!(r#""data":null,"data_base64":"{encoded}""#)).unwrap());
    let twice = with(&format!(r#""data":{DATA},"data_base64":"{encoded}""#));
    assert_eq!(twice.unwrap_err().reason, Reason::Malformed);
    for (value, reason) in [
        (r#""*""#, Reason::InvalidField),
        (r#""/w==""#, Reason::InvalidField),
        ("7", Reason::InvalidField),
        (r#""bm90IGpzb24=""#, Reason::Malformed),
    ] {
        assert_eq!(with(&format!(r#""data_base64":{value}"#)).unwrap_err().reason, reason, "{value}");
    }
}

#[test]
fn each_kind_of_bad_event_is_refused_with_its_reason_and_the_name_of_the_field() {
    let data = |field: &str| format!(r#"{{"product_sku":"s","used_amount":1,"use_unity":"u",{field}}}"#);
    for (field, value, reason, named) in [
        ("specversion", "", Reason::MissingField, "specversion"),
        ("specversion", r#""0.3""#, Reason::InvalidField, "specversion"),
        ("specversion", "1.0", Reason::InvalidField, "specversion"),
        ("id", "", Reason::MissingField, "id"),
        ("id", r#""""#, Reason::InvalidField, "id"),
        ("id", "7", Reason::InvalidField, "id"),
        ("source", "null", Reason::MissingField, "source"),
        ("source", "[]", Reason::InvalidField, "source"),
        ("type", "", Reason::MissingField, "type"),
        ("subject", "", Reason::MissingField, "subject"),
        ("subject", r#""a\u0007""#, Reason::InvalidField, "subject"),
        ("time", r#""noon""#, Reason::InvalidField, "time"),
        ("time", r#""2026-01-10T13:30:01Z""#, Reason::TooFarAhead, "time"),
        ("data", "", Reason::MissingField, "data"),
        ("data", r#""text""#, Reason::Malformed, "data"),
        ("data", "{}", Reason::MissingField, "data.product_sku"),
        ("data", &data(r#""used_amount":2"#), Reason::Malformed, "used_amount appears twice"),
        (
            "data",
            r#"{"product_sku":"s","used_amount":0,"unit":"u"}"#,
            Reason::NotPositive,
            "data.used_amount",
        ),
        ("id\":\"8\",\"id", r#""9""#, Reason::Malformed, "field id appears twice"),
    ] {
        let rejection = structured(&event(field, value)).unwrap_err();
        assert_eq!(rejection.reason, reason, "{field}: {value}: {rejection}");
        assert!(rejection.detail.contains(named), "{field}: {value}: {rejection}");
    }
    for body in ["7", "{", "{}}", "null"] {
        assert_eq!(structured(body).unwrap_err().reason, Reason::Malformed, "{body}");
    }
}

#[test]
fn extensions_are_ignored_whatever_they_hold() {
    for value in ["1e400", r#"{"a":[1]}"#, "null", "true", r#""x""#] {
        assert_is_the_pulse(&structured(&event("extension", value)).unwrap());
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(structured(&event("extension", &deep)).unwrap_err().reason, Reason::Malformed);
}

#[test]
fn a_content_type_that_cannot_be_read_is_refused_whole() {
    let items = decode_with(Format::Pulse, "application/cloudevents+avro", &[], event("", "").as_bytes());
    assert_eq!((items.len(), items[0].index), (1, None));
    assert!(items[0].pulse.as_ref().unwrap_err().detail.contains("application/cloudevents+avro"));
}

proptest! {
    #[test]
    fn no_event_makes_decoding_panic(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[\\[{\"a-z_:,0-9.}\\] \n]{0,80}".prop_map(String::into_bytes),
            (0..400_usize, any::<u8>()).prop_map(|(place, byte)| {
                let mut body = event("", "").into_bytes();
                let place = place % body.len();
                body[place] = byte;
                body
            }),
        ],
        header in "(ce-|ce_|cloudEvents:)?[a-z%é]{0,12}",
        value in ".{0,12}",
        binary: bool,
    ) {
        let headers = [(&*header, &*value), ("ce-specversion", "1.0")];
        let headers = if binary { &headers[..] } else { &headers[..1] };
        prop_assert!(!decode_with(Format::CloudEvents, "", headers, &body).is_empty());
        prop_assert!(!decode_with(Format::Pulse, STRUCTURED, &[], &body).is_empty());
    }
}
