//! What is read of messages, and why others are refused.

use super::*;
use crate::ports::{Envelope, PartitionId};
use domain::{PulseIdentity, Timestamp};

/// 2026-01-10T12:30:00Z
const NOON: i64 = 1_768_048_200;

fn delivery(body: &[u8]) -> Delivery {
    Delivery {
        partition: PartitionId(1),
        sequence: 1,
        body: body.to_vec(),
        envelope: Envelope::default(),
        received_at: Timestamp::new(NOON, 0),
        log: None,
        returns: 0,
    }
}

fn decode_with(decoder: &Decoder, delivery: &Delivery) -> Vec<Item> {
    let mut items = Vec::new();
    decoder.decode(delivery, &mut items);
    items
}

fn decode(body: &[u8]) -> Vec<Item> {
    decode_with(&Decoder::default(), &delivery(body))
}

fn verdicts(body: &[u8]) -> Vec<Result<String, Reason>> {
    decode(body)
        .into_iter()
        .map(|item| item.pulse.map(|pulse| pulse.amount.to_string()).map_err(|rejection| rejection.reason))
        .collect()
}

fn pulse_json(field: &str, value: &str) -> String {
    let fields = [
        ("id", r#""a""#),
        ("tenant", r#""t""#),
        ("product_sku", r#""s""#),
        ("used_amount", "307"),
        ("use_unity", r#""KB""#),
        ("occurred_at", r#""2026-01-10T12:00:00Z""#),
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

#[test]
fn the_documented_pulse_is_read() {
    let body = br#"{"id":"6f1c","tenant":"tenant_xpto","product_sku":"SKU-997","used_amount":307,"use_unity":"KB","occurred_at":"2026-01-10T14:00:00+02:00"}"#;
    let items = decode(body);
    let pulse = items[0].pulse.as_ref().unwrap();
    assert_eq!(pulse.tenant.as_str(), "tenant_xpto");
    assert_eq!(pulse.product_sku.as_str(), "SKU-997");
    assert_eq!(pulse.use_unity.as_str(), "KB");
    assert_eq!(pulse.amount.to_string(), "307");
    assert_eq!(pulse.identity, Some(PulseIdentity::Id("6f1c".into())));
    assert_eq!(pulse.occurred_at, Some(Timestamp::new(1_768_046_400, 0)));
    assert_eq!(pulse.hour.start_seconds(), 1_768_046_400);
    assert_eq!((items[0].index, items[0].bytes.clone()), (Some(0), 0..body.len()));
}

#[test]
fn amounts_keep_every_digit() {
    for (value, read) in [
        ("9007199254740993", "9007199254740993"),
        ("0.1", "0.1"),
        (r#""0.000000001""#, "0.000000001"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("1E+3", "1000"),
    ] {
        assert_eq!(verdicts(pulse_json("used_amount", value).as_bytes()), [Ok(read.to_owned())]);
    }
}

#[test]
fn each_kind_of_bad_field_is_refused_with_its_reason() {
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    let digits = "9".repeat(400);
    let cases = [
        ("used_amount", "NaN", Reason::Malformed),
        ("used_amount", "1e400", Reason::OutOfRange),
        ("used_amount", &digits, Reason::OutOfRange),
        ("used_amount", "-1", Reason::NotPositive),
        ("used_amount", "0", Reason::NotPositive),
        ("used_amount", "0.1234567891", Reason::TooPrecise),
        ("used_amount", r#""abc""#, Reason::InvalidField),
        ("used_amount", r#""""#, Reason::InvalidField),
        ("used_amount", "true", Reason::InvalidField),
        ("used_amount", "null", Reason::MissingField),
        ("used_amount", "", Reason::MissingField),
        ("used_amount", "[1]", Reason::InvalidField),
        ("tenant", "", Reason::MissingField),
        ("tenant", "null", Reason::MissingField),
        ("tenant", "7", Reason::InvalidField),
        ("tenant", r#""""#, Reason::InvalidField),
        ("tenant", r#""a\u0000b""#, Reason::InvalidField),
        ("tenant", r#""\ud800""#, Reason::InvalidField),
        ("tenant", &long, Reason::InvalidField),
        ("product_sku", "", Reason::MissingField),
        ("use_unity", "{}", Reason::InvalidField),
        ("id", "7", Reason::InvalidField),
        ("id", r#""""#, Reason::InvalidField),
        ("id", r#""a\tb""#, Reason::InvalidField),
        ("occurred_at", r#""yesterday""#, Reason::InvalidField),
        ("occurred_at", r#""2026-01-10T12:00:00""#, Reason::InvalidField),
        ("occurred_at", "1768046400", Reason::InvalidField),
        ("occurred_at", r#""2026-01-10T13:30:01Z""#, Reason::TooFarAhead),
    ];
    for (field, value, reason) in cases {
        let shown = &value[..value.len().min(40)];
        assert_eq!(verdicts(pulse_json(field, value).as_bytes()), [Err(reason)], "{field}: {shown}");
        let items = decode(pulse_json(field, value).as_bytes());
        let detail = &items[0].pulse.as_ref().unwrap_err().detail;
        assert!(reason == Reason::Malformed || detail.contains(field), "{field}: {detail}");
        assert!(detail.len() < 400, "{field}: a detail of {} bytes", detail.len());
    }
}

#[test]
fn what_is_no_pulse_at_all_is_malformed() {
    let deep = "[".repeat(10_000);
    let deep_closed = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_field = pulse_json("extra", &deep_closed);
    let twice = r#"{"tenant":"t","tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
    let alias_twice = r#"{"tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u","unit":"u"}"#;
    let unknown_twice = r#"{"tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u","x":1,"x":2}"#;
    let cases: [&[u8]; 16] = [
        b"",
        b"  \n ",
        b"not json",
        b"{",
        b"42",
        b"null",
        b"\"text\"",
        b"[]",
        b"{\"tenant\":\"\xff\"}",
        b"\0",
        deep.as_bytes(),
        deep_closed.as_bytes(),
        deep_field.as_bytes(),
        twice.as_bytes(),
        alias_twice.as_bytes(),
        unknown_twice.as_bytes(),
    ];
    for body in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(verdicts(body), [Err(Reason::Malformed)], "{shown}");
    }
}

#[test]
fn a_product_that_may_not_name_a_file_is_refused_where_the_books_keep_files() {
    let long = format!("\"{}\"", "x".repeat(201));
    for value in [r#""../../etc/passwd""#, r#""a\u002fb""#, r#""..""#, r#"".hidden""#, &long] {
        let body = pulse_json("product_sku", value);
        assert_eq!(verdicts(body.as_bytes()), [Ok("307".to_owned())], "{value}");
        let decoder = Decoder { sku_rule: SkuRule::FileName, ..Decoder::default() };
        let refused = decode_with(&decoder, &delivery(body.as_bytes()))[0].pulse.clone().unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidField, "{value}");
        assert!(refused.detail.starts_with("product_sku ") && refused.detail.len() < 100, "{refused}");
    }
    let decoder = Decoder { sku_rule: SkuRule::FileName, ..Decoder::default() };
    let body = pulse_json("product_sku", r#""created""#);
    assert!(decode_with(&decoder, &delivery(body.as_bytes()))[0].pulse.is_ok());
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    for value in ["1e400", r#"{"a":[1,{"b":"}]"}]}"#, "null", r#""\"[""#] {
        assert_eq!(verdicts(pulse_json("extra", value).as_bytes()), [Ok("307".to_owned())], "{value}");
    }
}

#[test]
fn unit_is_another_name_of_use_unity_and_escapes_are_read() {
    let body = r#"{"tenant":"\u0061\n","product_sku":"s","used_amount":1,"unit":"\u00b5s"}"#;
    assert_eq!(verdicts(body.as_bytes()), [Err(Reason::InvalidField)]);
    let body = r#"{"tenant":"\u0061:}{*?[","product_sku":"s","used_amount":1,"unit":"\u00b5s"}"#;
    let items = decode(body.as_bytes());
    let pulse = items[0].pulse.as_ref().unwrap();
    assert_eq!((pulse.tenant.as_str(), pulse.use_unity.as_str()), ("a:}{*?[", "µs"));
    assert_eq!((pulse.identity.as_ref(), pulse.hour.start_seconds()), (None, 1_768_046_400));
}

#[test]
fn bad_items_of_an_array_are_refused_one_by_one_with_their_bytes() {
    let good = pulse_json("", "");
    let body = format!(" [ {good} , 7, {{\"tenant\":\"t\"}} ,{good}]");
    assert_eq!(
        verdicts(body.as_bytes()),
        [Ok("307".into()), Err(Reason::Malformed), Err(Reason::MissingField), Ok("307".into())]
    );
    let nested = decode(b" [[1]]");
    assert_eq!((nested[0].index, nested[0].bytes.clone()), (None, 0..6));
    let items = decode(body.as_bytes());
    assert_eq!(&body[items[1].bytes.clone()], "7");
    assert_eq!(&body[items[2].bytes.clone()], "{\"tenant\":\"t\"}");
    assert_eq!(items[3].index, Some(3));
}

#[test]
fn bad_lines_are_refused_one_by_one_with_their_bytes() {
    let good = pulse_json("", "");
    let body = format!("{good}\r\n\nnot json\n{good}");
    assert_eq!(verdicts(body.as_bytes()), [Ok("307".into()), Err(Reason::Malformed), Ok("307".into())]);
    let items = decode(body.as_bytes());
    assert_eq!(&body[items[1].bytes.clone()], "not json");
    let first_bad = format!("{{\"tenant\":\n{good}\n");
    assert_eq!(verdicts(first_bad.as_bytes()), [Err(Reason::Malformed), Ok("307".into())]);
    let pretty = good.replace(',', ",\n  ");
    assert_eq!(verdicts(pretty.as_bytes()), [Ok("307".into())]);
    let nested = format!("{},\n\"original\":\n{good}\n}}", &good[..good.len() - 1]);
    assert_eq!(verdicts(nested.as_bytes()), [Ok("307".into())], "a field that is ignored is no line");
    let after_array = format!("[1]\n{good}\n{good}");
    assert_eq!(
        verdicts(after_array.as_bytes()),
        [Err(Reason::Malformed), Ok("307".into()), Ok("307".into())]
    );
    assert_eq!(verdicts(format!("\u{feff}{good}\n{good}").as_bytes()), [Ok("307".into()), Ok("307".into())]);
    let broken_pretty = pretty.replace('}', "");
    assert_eq!(verdicts(broken_pretty.as_bytes()), [Err(Reason::Malformed)]);
}

#[test]
fn a_message_with_too_many_pulses_is_refused_whole() {
    let decoder = Decoder { items_max: 2, ..Decoder::default() };
    let good = pulse_json("", "");
    for body in [format!("[{good},{good},{good}]"), format!("{good}\n{good}\n{good}")] {
        let items = decode_with(&decoder, &delivery(body.as_bytes()));
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].pulse.as_ref().unwrap_err().reason, Reason::TooManyItems);
        assert_eq!((items[0].index, items[0].bytes.clone()), (None, 0..body.len()));
    }
    assert_eq!(decode_with(&decoder, &delivery(format!("[{good},{good}]").as_bytes())).len(), 2);
}

#[test]
fn the_message_id_stands_in_for_missing_ids() {
    let good = pulse_json("id", "");
    let mut delivery = delivery(format!("[{good},{}]", pulse_json("", "")).as_bytes());
    delivery.envelope.message_id = Some("m".into());
    let identities: Vec<_> = decode_with(&Decoder::default(), &delivery)
        .into_iter()
        .map(|item| item.pulse.unwrap().identity.unwrap())
        .collect();
    assert_eq!(
        identities,
        [PulseIdentity::Message { id: "m".into(), item: 0 }, PulseIdentity::Id("a".into())]
    );
}

#[test]
fn a_message_id_that_is_no_id_is_refused_where_it_is_needed() {
    let mut delivery = delivery(format!("[{},{}]", pulse_json("id", ""), pulse_json("", "")).as_bytes());
    delivery.envelope.message_id = Some("m\u{1a}".into());
    let items = decode_with(&Decoder::default(), &delivery);
    let rejection = items[0].pulse.as_ref().unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidField);
    assert!(rejection.detail.contains("message_id"), "{}", rejection.detail);
    assert!(items[1].pulse.is_ok());
}

#[test]
fn pulses_without_identity_are_refused_where_the_settings_say_so() {
    let decoder = Decoder { anonymous: Anonymous::Reject, ..Decoder::default() };
    let anonymous = pulse_json("id", "");
    let items = decode_with(&decoder, &delivery(anonymous.as_bytes()));
    assert_eq!(items[0].pulse.as_ref().unwrap_err().reason, Reason::Anonymous);
}

#[test]
fn pulses_that_are_too_old_are_refused_where_the_settings_say_so() {
    let decoder = Decoder { age_max: Some(Duration::from_mins(30)), ..Decoder::default() };
    let at = |time: &str| {
        let body = pulse_json("occurred_at", time);
        decode_with(&decoder, &delivery(body.as_bytes()))[0].pulse.as_ref().map_err(|r| r.reason).err()
    };
    assert_eq!(at(r#""2026-01-10T12:00:00Z""#), None);
    assert_eq!(at(r#""2026-01-10T11:59:59.999999999Z""#), Some(Reason::TooOld));
}
