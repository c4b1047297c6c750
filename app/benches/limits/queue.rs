//! The worker on a quorum queue beside the client's own consumer that only acknowledges.

use crate::{
    Work, in_turns,
    measure::{Clock, Figure, memory},
    programs::{App, Bench, Helper, Stores},
    report::{Case, Report},
};
use infrastructure::test_servers::{postgres::PostgresServer, rabbitmq::RabbitmqServer};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions},
};
use std::{cell::RefCell, fmt::Write};

pub(crate) const QUEUE: &str = "pulses";

/// What the pulses of a queue are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) tenants: u32,
    /// How many totals they come to.
    pub(crate) totals: u32,
    /// Of a hundred pulses so many are of the first tenant, whatever their number.
    pub(crate) hot: u32,
    /// How many pulses a message holds.
    pub(crate) items: u32,
    /// Whether they carry an id.
    pub(crate) ids: bool,
    /// The number of the first one: others have other ids.
    pub(crate) first: u32,
}

impl Shape {
    /// A thousand tenants, each with one product; one pulse a message.
    pub(crate) const USUAL: Self =
        Self { tenants: 1_000, totals: 1_000, hot: 0, items: 1, ids: true, first: 0 };

    /// A pulse of about 132 bytes.
    fn pulse(self, number: u32, body: &mut String) {
        let number = self.first + number;
        let total = number % self.totals;
        let tenant = if number % 100 < self.hot { 0 } else { total % self.tenants };
        let sku = total / self.tenants;
        let amount = 100 + number % 307;
        let id =
            if self.ids { format!("\"id\":\"{number:012}\",") } else { "\"none\":\"000000000\",".into() };
        let _ = write!(
            body,
            r#"{{{id}"tenant":"tenant_{tenant:06}","product_sku":"SKU-{sku:04}","used_amount":{amount},"use_unity":"KB","pad":"000000000000000000"}}"#
        );
    }

    /// The bodies of so many pulses.
    pub(crate) fn bodies(self, pulses: u32) -> impl Iterator<Item = Vec<u8>> {
        (0..pulses).step_by(self.items as usize).map(move |first| {
            let mut body = String::new();
            if self.items == 1 {
                self.pulse(first, &mut body);
                return body.into_bytes();
            }
            for number in first..first + self.items {
                body.push(if number == first { '[' } else { ',' });
                self.pulse(number, &mut body);
            }
            body.push(']');
            body.into_bytes()
        })
    }
}

/// The servers of the sections that take from a queue.
pub(crate) struct Broker {
    pub(crate) rabbitmq: RabbitmqServer,
    pub(crate) postgres: PostgresServer,
}

impl Broker {
    pub(crate) fn start(bench: &Bench) -> Self {
        let broker = Self { rabbitmq: RabbitmqServer::start(), postgres: PostgresServer::start() };
        // Once, so that the queue is there.
        let stores = Stores::new(bench, &broker.postgres);
        bench.run(&["--worker", "--until-idle", "500ms"], &broker.settings(&stores));
        broker
    }

    pub(crate) fn settings(&self, stores: &Stores) -> Vec<(&'static str, String)> {
        let mut settings = stores.settings();
        settings.push(("RABBITMQ_URL", self.rabbitmq.url()));
        settings
    }

    /// Empties the queue, and publishes these to it.
    pub(crate) fn fill(&self, bench: &Bench, shape: Shape, pulses: u32) {
        bench.runtime.block_on(async {
            let (connection, channel) = self.channel().await;
            channel.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.unwrap();
            publish(&channel, QUEUE, shape, pulses).await;
            connection.close(200, "done".into()).await.unwrap();
        });
    }

    /// A channel that confirms.
    pub(crate) async fn channel(&self) -> (Connection, Channel) {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&self.rabbitmq.url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        (connection, channel)
    }

    /// Takes all of a queue, or of a stream, by the client alone.
    pub(crate) fn ack_only(&self, queue: &str, pulses: u32, items: u32) -> Figure {
        let count = (pulses / items).to_string();
        let mut helper = Helper::start(&["ack-only", &self.rabbitmq.url(), queue, &count]);
        assert_eq!(helper.line(), "first");
        let clock = Clock::start(&[("client", helper.pid()), ("broker", self.rabbitmq.pid())]);
        assert_eq!(helper.line(), "done");
        clock.stop(f64::from(pulses))
    }

    /// Drains a full queue by so many workers; returns them as well, with the stores.
    pub(crate) fn workers(
        &self,
        bench: &Bench,
        pulses: u32,
        workers: u32,
        more: &[(&'static str, String)],
    ) -> (Figure, Vec<App>, Stores) {
        const NAMES: [&str; 3] = ["worker", "second", "third"];
        let stores = Stores::new(bench, &self.postgres);
        let settings = [self.settings(&stores), more.to_vec()].concat();
        let apps: Vec<App> = (0..workers).map(|_| bench.spawn(&["--worker"], &settings)).collect();
        let first = stores.wait_for(1, &apps[0]);
        let mut watched = vec![("broker", self.rabbitmq.pid()), ("redis", stores.redis.pid())];
        watched.extend(NAMES.into_iter().zip(apps.iter().map(|app| app.process.pid())));
        let clock = Clock::start(&watched);
        stores.wait_for(pulses, &apps[0]);
        let figure = clock.stop(f64::from(pulses - first));
        (figure, apps, stores)
    }
}

/// Publishes pulses, each message confirmed.
pub(crate) async fn publish(channel: &Channel, queue: &str, shape: Shape, pulses: u32) {
    let mut confirms = Vec::new();
    for body in shape.bodies(pulses) {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let published = channel.basic_publish("".into(), queue.into(), options, &body, properties);
        confirms.push(published.await.unwrap());
        if confirms.len() >= 10_000 {
            for confirm in confirms.drain(..) {
                assert!(confirm.await.unwrap().is_ack());
            }
        }
    }
    for confirm in confirms {
        assert!(confirm.await.unwrap().is_ack());
    }
}

/// Bytes that Redis uses.
fn used(stores: &Stores) -> f64 {
    let information: String = stores.redis.command(&["INFO", "memory"]);
    let value = information.lines().find_map(|line| line.strip_prefix("used_memory:"));
    value.unwrap().parse().unwrap()
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let broker = Broker::start(bench);
    let pulses = bench.size(50_000, 500_000);
    let peaks = RefCell::new(Vec::new());
    let (sizes, compact_sizes) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let worker =
        |shape: Shape, pulses: u32, sizes: Option<&RefCell<Vec<f64>>>, more: &[(&'static str, String)]| {
            broker.fill(bench, shape, pulses);
            let (figure, apps, stores) = broker.workers(bench, pulses, 1, more);
            if let Some(sizes) = sizes {
                peaks.borrow_mut().push(memory(apps[0].process.pid(), "VmHWM") / 1024.0);
                sizes.borrow_mut().push(used(&stores) / f64::from(pulses));
            }
            apps.into_iter().for_each(App::end);
            figure
        };
    let alone = |shape: Shape, pulses: u32| {
        broker.fill(bench, shape, pulses);
        broker.ack_only(QUEUE, pulses, shape.items)
    };
    let many = Shape { items: 100, ..Shape::USUAL };
    let (limit, limit_of_many) = ("acknowledge only", "acknowledge only, 100 a message");
    let without = "worker that remembers no ids (this bench's build only)";
    let forgetful = [("PULSE_MUTATION", "no-dedupe".to_owned())];
    let (compact, less) = ("worker, compact identities", [("REDIS_IDENTITIES", "compact".to_owned())]);
    let many_pulses = bench.size(500_000, 3_000_000);
    let cases: Vec<Work<'_>> = vec![
        (Case::limit(limit), Box::new(|| alone(Shape::USUAL, pulses))),
        (Case::beside(limit, without, None), Box::new(|| worker(Shape::USUAL, pulses, None, &forgetful))),
        (
            Case::beside(limit, "worker", Some(0.8)),
            Box::new(|| worker(Shape::USUAL, pulses, Some(&sizes), &[])),
        ),
        (
            Case::beside(limit, compact, None),
            Box::new(|| worker(Shape::USUAL, pulses, Some(&compact_sizes), &less)),
        ),
        (Case::limit(limit_of_many), Box::new(|| alone(many, many_pulses))),
        (
            Case::beside(limit_of_many, "worker, 100 a message", None),
            Box::new(|| worker(many, many_pulses, None, &[])),
        ),
    ];
    in_turns(bench, report, "queue", cases);
    let median = |values: RefCell<Vec<f64>>| crate::measure::median(values.into_inner());
    report.fact("queue", "resident memory of the worker, peak", median(peaks), "MiB", Some(64.0));
    report.fact("queue", "Redis a remembered id, sums included", median(sizes), "bytes", None);
    let compact_size = median(compact_sizes);
    report.fact("queue", "Redis a remembered id, sums included, compact", compact_size, "bytes", None);
    if let (Some(with), Some(without)) = (report.rate("queue", "worker"), report.rate("queue", without)) {
        let cost = (1.0 - with / without) * 100.0;
        report.fact("queue", "cost of remembering ids", cost, "percent of the rate", Some(10.0));
    }
}
