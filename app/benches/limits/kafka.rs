//! The worker on a topic of twelve partitions, by offset, beside the client's own consumer.

use crate::{
    Work, in_turns,
    measure::{Clock, Figure},
    programs::{Bench, Helper, Stores},
    queue::Shape,
    report::{Case, Report},
};
use infrastructure::test_servers::postgres::PostgresServer;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::time::Duration;

const TOPIC: &str = "pulses";
const PARTITIONS: i32 = 12;

struct Topic {
    cluster: Helper,
    brokers: String,
    messages: u32,
}

impl Topic {
    /// A cluster of its own with so many pulses.
    fn filled(shape: Shape, pulses: u32) -> Self {
        let mut cluster = Helper::start(&["kafka-cluster", TOPIC, &PARTITIONS.to_string()]);
        let brokers = cluster.line();
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("linger.ms", "20")
            // The cluster keeps 5 MiB of a partition, as they come.
            .set("compression.codec", "gzip")
            .set("queue.buffering.max.messages", "200000")
            .create()
            .unwrap();
        let mut messages = 0;
        for (partition, body) in (0..PARTITIONS).cycle().zip(shape.bodies(pulses)) {
            let mut record = BaseRecord::<str, [u8]>::to(TOPIC).partition(partition).payload(&body);
            while let Err((error, again)) = producer.send(record) {
                assert!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "{error}"
                );
                producer.poll(Duration::from_millis(10));
                record = again;
            }
            messages += 1;
        }
        producer.flush(Duration::from_mins(2)).unwrap();
        Self { cluster, brokers, messages }
    }

    fn bare(&self, pulses: u32) -> Figure {
        let count = self.messages.to_string();
        let mut helper = Helper::start(&["bare-kafka", &self.brokers, TOPIC, &count]);
        assert_eq!(helper.line(), "first");
        let clock = Clock::start(&[("client", helper.pid()), ("broker", self.cluster.pid())]);
        assert_eq!(helper.line(), "done");
        clock.stop(f64::from(pulses))
    }

    fn worker(&self, bench: &Bench, postgres: &PostgresServer, pulses: u32) -> Figure {
        let stores = Stores::new(bench, postgres);
        let mut settings = stores.settings();
        settings.extend([
            ("PULSE_SOURCES", "kafka".to_owned()),
            ("PULSE_DEDUPE", "offset".to_owned()),
            ("KAFKA_BROKERS", self.brokers.clone()),
            ("KAFKA_TOPIC", TOPIC.to_owned()),
            ("KAFKA_GROUP", bench.name("group")),
        ]);
        let app = bench.spawn(&["--worker"], &settings);
        let first = stores.wait_for(1, &app);
        let clock = Clock::start(&[
            ("worker", app.process.pid()),
            ("broker", self.cluster.pid()),
            ("redis", stores.redis.pid()),
        ]);
        stores.wait_for(pulses, &app);
        let figure = clock.stop(f64::from(pulses - first));
        app.end();
        figure
    }
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let postgres = PostgresServer::start();
    let (pulses, many_pulses) = (bench.size(200_000, 1_000_000), bench.size(500_000, 2_000_000));
    let shape = Shape { ids: false, ..Shape::USUAL };
    let single = Topic::filled(shape, pulses);
    let many = Topic::filled(Shape { items: 100, ..shape }, many_pulses);
    let (limit, limit_of_many) = ("bare consumer", "bare consumer, 100 a message");
    let cases: Vec<Work<'_>> = vec![
        (Case::limit(limit), Box::new(|| single.bare(pulses))),
        (
            Case::beside(limit, "worker by offset", Some(0.7)),
            Box::new(|| single.worker(bench, &postgres, pulses)),
        ),
        (Case::limit(limit_of_many), Box::new(|| many.bare(many_pulses))),
        (
            Case::beside(limit_of_many, "worker by offset, 100 a message", None),
            Box::new(|| many.worker(bench, &postgres, many_pulses)),
        ),
    ];
    in_turns(bench, report, "kafka", cases);
}
