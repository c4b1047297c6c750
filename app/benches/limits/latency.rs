//! How long until a pulse is seen, while publisher, broker and worker have half of what they carry together, and how soon
//! a worker counts.

use crate::{
    client::Client,
    http::Api,
    measure::{median, percentile},
    programs::{App, Bench, Stores},
    queue::{Broker, QUEUE, Shape},
    report::Report,
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// For how long it is measured what publisher, broker and worker carry together.
const FULL_LOAD: Duration = Duration::from_secs(5);

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, body: &[u8]) -> lapin::Confirmation {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let published =
        channel.basic_publish("".into(), QUEUE.into(), BasicPublishOptions::default(), body, properties);
    published.await.unwrap().await.unwrap()
}

/// Publishes so many pulses a second until it is dropped, and never more than the broker confirms.
async fn load(url: String, first: u32, each_second: f64) {
    const TICK: Duration = Duration::from_millis(20);
    const UNCONFIRMED_MAX: usize = 2_000;
    let (_connection, channel) = channel(&url).await;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut bodies = Shape { first, ..Shape::USUAL }.bodies(1_000_000_000);
    let (start, mut sent, mut unconfirmed) = (Instant::now(), 0.0, VecDeque::new());
    loop {
        ticks.tick().await;
        while sent < start.elapsed().as_secs_f64() * each_second {
            let body = bodies.next().unwrap();
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            unconfirmed.push_back(
                channel.basic_publish("".into(), QUEUE.into(), options, &body, properties).await.unwrap(),
            );
            if unconfirmed.len() > UNCONFIRMED_MAX
                && let Some(oldest) = unconfirmed.pop_front()
            {
                assert!(oldest.await.unwrap().is_ack());
            }
            sent += 1.0;
        }
    }
}

/// How many pulses a second are counted while as many are published as this machine has room for.
fn carried(bench: &Bench, broker: &Broker, stores: &Stores, app: &App) -> f64 {
    let mut loading = JoinSet::new();
    loading.spawn_on(load(broker.rabbitmq.url(), 100_000_000, f64::MAX), bench.runtime.handle());
    let (first, start) = (stores.wait_for(1, app), Instant::now());
    std::thread::sleep(FULL_LOAD);
    let rate = f64::from(stores.counted() - first) / start.elapsed().as_secs_f64();
    bench.runtime.block_on(loading.shutdown());
    // What is left in the queue is not to stand before the probes.
    let mut counted = 0;
    while counted < stores.counted() {
        counted = stores.counted();
        std::thread::sleep(Duration::from_millis(500));
    }
    rate
}

/// Seconds from the publishing of a pulse until the API shows it as pending.
async fn seen(channel: &Channel, client: &mut Client, number: u32) -> f64 {
    let body = format!(
        r#"{{"id":"probe-{number}","tenant":"probe_{number}","product_sku":"s","used_amount":1,"use_unity":"u"}}"#
    );
    let path = format!("/api/v1/pulses?tenant=probe_{number}&pending=true");
    let start = Instant::now();
    assert!(publish(channel, body.as_bytes()).await.is_ack());
    loop {
        let (status, answer) = client.call("GET", &path, b"").await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        if answer["total"] == 1 {
            return start.elapsed().as_secs_f64();
        }
        assert!(start.elapsed() < Duration::from_mins(1), "a pulse is never seen");
        sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let broker = Broker::start(bench);
    let stores = Stores::new(bench, &broker.postgres);
    let api = Api::start(bench, &["--worker", "--api"], broker.settings(&stores));
    let probes = bench.size(50, 300);
    let each_second = carried(bench, &broker, &stores, &api.app) / 2.0;
    let times: Vec<f64> = bench.runtime.block_on(async {
        let mut background = JoinSet::new();
        background.spawn(load(broker.rabbitmq.url(), 500_000_000, each_second));
        sleep(Duration::from_secs(2)).await;
        let (_connection, channel) = channel(&broker.rabbitmq.url()).await;
        let mut client = Client::connect(&api.address, &api.token).await;
        let mut times = Vec::new();
        for number in 0..probes {
            times.push(seen(&channel, &mut client, number).await * 1_000.0);
        }
        background.shutdown().await;
        times
    });
    let named =
        |what: &str| format!("published to seen as pending at half load ({each_second:.0}/s), {what}");
    report.fact("latency", &named("median"), median(times.iter().copied()), "ms", None);
    report.fact("latency", &named("p99"), percentile(times, 99), "ms", Some(100.0));
    api.app.end();

    let starts = (0..bench.rounds()).map(|round| {
        let first = 200_000_000 + round * 20_000;
        broker.fill(bench, Shape { first, ..Shape::USUAL }, 20_000);
        let (before, start) = (stores.counted(), Instant::now());
        let app = bench.spawn(&["--worker"], &broker.settings(&stores));
        stores.wait_for(before + 1, &app);
        let seconds = start.elapsed().as_secs_f64();
        stores.wait_for(before + 20_000, &app);
        app.end();
        seconds
    });
    report.fact("latency", "start of a worker to its first count", median(starts), "s", Some(2.0));
}
