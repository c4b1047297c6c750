//! The worker on a stream of RabbitMQ, by offset, beside the client's own consumer.

use crate::{
    Work, in_turns,
    measure::Figure,
    programs::{App, Bench},
    queue::{Broker, Shape, publish},
    report::{Case, Report},
};
use lapin::{
    options::{ExchangeDeleteOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};

/// A stream of its own with so many pulses.
fn filled(bench: &Bench, broker: &Broker, shape: Shape, pulses: u32) -> String {
    let stream = bench.name("stream");
    bench.runtime.block_on(async {
        let (connection, channel) = broker.channel().await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("stream")));
        channel.queue_declare(stream.as_str().into(), options, arguments).await.unwrap();
        publish(&channel, &stream, shape, pulses).await;
        connection.close(200, "done".into()).await.unwrap();
    });
    stream
}

/// Forgets that the stream was counted: a new accumulator has counted nothing of it, and halts where it was.
fn forget(bench: &Bench, broker: &Broker, stream: &str) {
    bench.runtime.block_on(async {
        let (connection, channel) = broker.channel().await;
        let settled = format!("{stream}.reader.settled");
        channel.exchange_delete(settled.into(), ExchangeDeleteOptions::default()).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    });
}

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let broker = Broker::start(bench);
    let (pulses, many_pulses) = (bench.size(50_000, 500_000), bench.size(500_000, 2_000_000));
    let shape = Shape { ids: false, ..Shape::USUAL };
    let many = Shape { items: 100, ..shape };
    let (single_stream, stream_of_many) =
        (filled(bench, &broker, shape, pulses), filled(bench, &broker, many, many_pulses));
    let worker = |stream: &str, pulses: u32| -> Figure {
        let more = [
            ("RABBITMQ_QUEUE", stream.to_owned()),
            ("RABBITMQ_QUEUE_TYPE", "stream".to_owned()),
            ("PULSE_DEDUPE", "offset".to_owned()),
        ];
        let (figure, apps, _stores) = broker.workers(bench, pulses, 1, &more);
        apps.into_iter().for_each(App::end);
        forget(bench, &broker, stream);
        figure
    };
    let (limit, limit_of_many) = ("bare consumer", "bare consumer, 100 a message");
    let cases: Vec<Work<'_>> = vec![
        (Case::limit(limit), Box::new(|| broker.ack_only(&single_stream, pulses, 1))),
        (Case::beside(limit, "worker by offset", Some(0.7)), Box::new(|| worker(&single_stream, pulses))),
        (Case::limit(limit_of_many), Box::new(|| broker.ack_only(&stream_of_many, many_pulses, 100))),
        (
            Case::beside(limit_of_many, "worker by offset, 100 a message", None),
            Box::new(|| worker(&stream_of_many, many_pulses)),
        ),
    ];
    in_turns(bench, report, "stream", cases);
}
