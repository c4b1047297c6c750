//! Bytes that nobody meant, made from samples: every decoder, the amounts, the keys, the positions of logs.
//!
//! Nothing may panic, and what is read must be what was written. `FUZZ_CASES=10000000` tries more, `FUZZ_SEED=7` others; a
//! case that fails is shrunk. The samples are in `corpus`, each of them tried unchanged as well.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod edits;

use application::{
    decode::{
        Decoder, Format, Item,
        mapping::{Identity, Mapping, Pick, Value},
    },
    ports::{Delivery, Envelope, PartitionId},
};
use domain::{Amount, LogName, LogPosition, Timestamp, TotalAmount, UsageKey};
use proptest::prelude::{Just, Strategy, prop_oneof};
use std::{path::Path, str, sync::Arc};

const CASES: u32 = 10_000;
/// What makes trouble where it is put between other bytes.
const WORDS: [&[u8]; 22] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\0",
    b"\n",
    b"-0",
    b"1e400",
    b"1e-10",
    b"99999999999999999999999999999999999999999",
    b"null",
    b"\"id\":",
    b"\"used_amount\":",
    b"[[[[[[[[",
    b"+24:00",
    b"\xed\xa0\x80",
];

/// How a message says what it is.
fn envelope() -> impl Strategy<Value = Envelope> {
    let media = |media: &str| Envelope { content_type: Some(media.to_owned()), ..Envelope::default() };
    let attribute = |name: &str, value: &str| (format!("cloudEvents:{name}"), value.to_owned());
    let headers = ["specversion", "id", "source", "type", "subject", "time"]
        .map(|name| attribute(name, if name == "specversion" { "1.0" } else { "a/b:c" }));
    let binary = Envelope { headers: headers.to_vec(), ..media("application/json") };
    prop_oneof![
        4 => Just(Envelope::default()),
        2 => Just(media("application/cloudevents+json; charset=utf-8")),
        2 => Just(media("application/cloudevents-batch+json")),
        2 => Just(binary),
        1 => ".{0,20}".prop_map(move |text| Envelope {
            message_id: Some(text.clone()),
            routing_key: Some(text.clone()),
            headers: vec![attribute("id", &text)],
            ..media(&text)
        }),
    ]
}

fn decoders() -> Vec<Decoder> {
    let value =
        |field: &str, kind: &str, argument: &str| Value::new(field, Pick::new(kind, argument).unwrap());
    let mapping = Mapping {
        name: "fuzz".into(),
        reads_cloud_events: false,
        checks: Vec::new(),
        tenant: value("tenant", "pointer", "/who/name"),
        product_sku: value("product_sku", "template", "{routing_key:-1}/{pointer:/id}"),
        use_unity: value("use_unity", "constant", "u"),
        used_amount: value("used_amount", "pointer", "/amounts/1"),
        identity: Identity::Value(value("identity", "pointer", "/id")),
        occurred_at: None,
        columns: Vec::new(),
    };
    [Format::Pulse, Format::CloudEvents, Format::Mapping(Arc::new(mapping))]
        .map(|format| Decoder { format, ..Decoder::default() })
        .to_vec()
}

/// There is a verdict, and the items stand one after the other in the message.
fn check_items<T>(items: &[Item<T>], body: &[u8]) -> Result<(), String> {
    let in_order = items.windows(2).all(|pair| {
        pair[0].bytes.end <= pair[1].bytes.start && pair[0].index.map(|index| index + 1) == pair[1].index
    });
    let within = items.iter().all(|item| item.bytes.start <= item.bytes.end && item.bytes.end <= body.len());
    if !items.is_empty() && in_order && within { Ok(()) } else { Err("items out of order".to_owned()) }
}

fn decode(body: &[u8], envelope: &Envelope) -> Result<(), String> {
    let delivery = Delivery {
        partition: PartitionId(1),
        sequence: 1,
        body: body.to_vec(),
        envelope: envelope.clone(),
        received_at: Timestamp::new(1_768_048_200, 0),
        log: None,
        returns: 0,
    };
    for decoder in decoders() {
        let (mut items, mut events) = (Vec::new(), Vec::new());
        decoder.decode(&delivery, &mut items);
        decoder.decode_events(&delivery, &mut events);
        check_items(&items, body)?;
        check_items(&events, body)?;
        for pulse in items.iter().filter_map(|item| item.pulse.as_ref().ok()) {
            let amount = pulse.amount;
            if Amount::parse(&amount.to_string()) != Ok(amount) {
                return Err(format!("{amount} does not read back"));
            }
            let mut encoded = Vec::new();
            UsageKey::encode_of(pulse, &mut encoded);
            let key = UsageKey::decode(&encoded).map_err(|error| error.to_string())?;
            if (key.tenant, key.product_sku, key.use_unity, key.hour)
                != (pulse.tenant.clone(), pulse.product_sku.clone(), pulse.use_unity.clone(), pulse.hour)
            {
                return Err("a key does not read back".to_owned());
            }
        }
    }
    Ok(())
}

/// Whatever reads must be what is written of it.
fn parse(bytes: &[u8]) -> Result<(), String> {
    if let Ok(key) = UsageKey::decode(bytes) {
        let mut again = Vec::new();
        key.encode(&mut again);
        if again != bytes {
            return Err("two encodings of a key".to_owned());
        }
    }
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    let amount =
        Amount::parse(text).ok().is_none_or(|amount| Amount::parse(&amount.to_string()) == Ok(amount));
    let total =
        TotalAmount::parse(text).is_none_or(|total| TotalAmount::parse(&total.to_string()) == Some(total));
    let position =
        LogPosition::parse(text).is_none_or(|place| LogPosition::parse(&place.to_string()) == Some(place));
    let joined = LogName::of(&["fuzz", text]).is_none_or(|name| LogName::parse(name.as_str()) == Some(name));
    if amount && total && position && joined { Ok(()) } else { Err(format!("{text:?} does not read back")) }
}

#[test]
fn nothing_panics_and_what_is_read_is_what_was_written() {
    let corpus = edits::corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus"));
    for sample in &corpus {
        decode(sample, &Envelope::default()).and_then(|()| parse(sample)).unwrap();
    }
    let case = (edits::edited(corpus, &WORDS), envelope());
    edits::run(CASES, &case, |(bytes, envelope)| decode(&bytes, &envelope).and_then(|()| parse(&bytes)));
}
