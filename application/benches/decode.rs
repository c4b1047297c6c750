//! What reading a message costs, a hundred pulses in each round: `cargo bench --package application`.

use application::{
    decode::{Decoder, Item},
    ports::{Delivery, Envelope, PartitionId},
};
use divan::{Bencher, counter::ItemsCount};
use domain::Timestamp;

const PULSES: usize = 100;

fn main() {
    divan::main();
}

fn pulse(number: usize) -> String {
    format!(
        r#"{{"id":"{number:012}","tenant":"tenant_{number:06}","product_sku":"SKU-0997","used_amount":307,"use_unity":"KB"}}"#
    )
}

fn with_time(number: usize) -> String {
    pulse(number).replace('}', r#","occurred_at":"2026-01-10T12:00:00Z"}"#)
}

fn with_unknown_fields(number: usize) -> String {
    pulse(number).replace('}', r#","region":"eu-west-1","labels":{"team":"a","tier":["gold"]}}"#)
}

fn cloud_event(number: usize) -> String {
    let data = r#"{"product_sku":"SKU-0997","used_amount":307,"use_unity":"KB"}"#;
    format!(
        r#"{{"specversion":"1.0","id":"{number}","source":"/meters/1","type":"usage","subject":"tenant_{number:06}","data":{data}}}"#
    )
}

fn delivery(body: String) -> Delivery {
    Delivery {
        partition: PartitionId(0),
        sequence: 1,
        returns: 0,
        body: body.into_bytes(),
        envelope: Envelope::default(),
        received_at: Timestamp::new(1_768_048_200, 0),
        log: None,
    }
}

/// Reads the messages again and again; every pulse in them is good.
fn read(bencher: Bencher<'_, '_>, deliveries: &[Delivery]) {
    let decoder = Decoder::default();
    let mut items: Vec<Item> = Vec::new();
    bencher.counter(ItemsCount::new(PULSES)).bench_local(|| {
        items.clear();
        for delivery in deliveries {
            decoder.decode(delivery, &mut items);
        }
        assert!(items.len() == PULSES && items.iter().all(|item| item.pulse.is_ok()));
    });
}

#[divan::bench]
fn one_a_message(bencher: Bencher<'_, '_>) {
    let deliveries: Vec<Delivery> = (0..PULSES).map(|number| delivery(pulse(number))).collect();
    read(bencher, &deliveries);
}

fn array(of: fn(usize) -> String) -> Vec<Delivery> {
    let items: Vec<String> = (0..PULSES).map(of).collect();
    vec![delivery(format!("[{}]", items.join(",")))]
}

#[divan::bench]
fn a_hundred_a_message(bencher: Bencher<'_, '_>) {
    read(bencher, &array(pulse));
}

#[divan::bench]
fn with_times(bencher: Bencher<'_, '_>) {
    read(bencher, &array(with_time));
}

#[divan::bench]
fn with_fields_that_are_ignored(bencher: Bencher<'_, '_>) {
    read(bencher, &array(with_unknown_fields));
}

#[divan::bench]
fn one_a_line(bencher: Bencher<'_, '_>) {
    let lines: Vec<String> = (0..PULSES).map(pulse).collect();
    read(bencher, &[delivery(lines.join("\n"))]);
}

#[divan::bench]
fn cloud_events(bencher: Bencher<'_, '_>) {
    let mut deliveries = array(cloud_event);
    deliveries[0].envelope.content_type = Some("application/cloudevents-batch+json".to_owned());
    read(bencher, &deliveries);
}
