//! What the source costs above the AMQP client alone: both drain the same quorum queue, in turns, in one run.
//!
//! `cargo run --release -p infrastructure --example drain_cost -- [MESSAGES] [ROUNDS] [PREFETCH]`

use application::ports::{PulseSource, Received, Watermark};
use futures_util::StreamExt;
use infrastructure::{
    rabbitmq::{OutgoingMessage, QueueType, RabbitmqPublisher, RabbitmqSettings, RabbitmqSource},
    test_servers::rabbitmq::RabbitmqServer,
};
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{error::Error, fs, time::Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long a drain took: seconds on the wall, and of this process's CPU.
struct Cost {
    wall: f64,
    cpu: f64,
    calls: usize,
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (messages, rounds, prefetch) =
        (next(500_000)?, next(3)?, next(u32::from(RabbitmqSettings::PREFETCH))?);
    let server = RabbitmqServer::start();
    let settings = RabbitmqSettings {
        url: server.url().into(),
        queue: "drain".to_owned(),
        queue_type: QueueType::Quorum,
        exchange: None,
        binding: None,
        prefetch: u16::try_from(prefetch)?,
        dead_letter_queue: "drain.dead".to_owned(),
    };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (mut bare_costs, mut source_costs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        runtime()?.block_on(fill(&settings, messages))?;
        bare_costs.push(runtime()?.block_on(drain_bare(&server.url(), messages))?);
        runtime()?.block_on(fill(&settings, messages))?;
        source_costs.push(runtime()?.block_on(drain_source(&settings, messages))?);
    }
    let report = |name: &str, costs: &mut Vec<Cost>| {
        costs.sort_by(|left, right| left.wall.total_cmp(&right.wall));
        let median = &costs[costs.len() / 2];
        let rate = f64::from(messages) / median.wall;
        let cpu = median.cpu / f64::from(messages) * 1e6;
        println!(
            "{name:<24} {rate:>9.0} messages/s  {cpu:>6.2} us of CPU a message  {:>7} calls",
            median.calls
        );
        (rate, cpu)
    };
    println!("{messages} messages of 132 bytes, quorum queue, prefetch {prefetch}, median of {rounds}");
    let (bare_rate, bare_cpu) = report("client alone, 1000/500", &mut bare_costs);
    let (rate, cpu) = report("RabbitmqSource", &mut source_costs);
    println!("rate {:.3} of the client alone, CPU {:+.2} us a message", rate / bare_rate, cpu - bare_cpu);
    Ok(())
}

async fn fill(settings: &RabbitmqSettings, messages: u32) -> Outcome<()> {
    const STEP: u32 = 20_000;
    let publisher = RabbitmqPublisher::connect(settings).await?;
    for start in (0..messages).step_by(STEP as usize) {
        let numbers = start..(start + STEP).min(messages);
        publisher.publish(numbers.map(message).collect()).await?;
    }
    publisher.close().await?;
    Ok(())
}

fn message(number: u32) -> OutgoingMessage {
    let body = format!(
        r#"{{"id":"{number:012}","tenant":"tenant_{:04}","product_sku":"SKU-{:03}","used_amount":{:03},"use_unity":"KB","pad":"{:021}"}}"#,
        number % 1_000,
        number % 997,
        number % 307,
        0
    );
    OutgoingMessage { body: body.into_bytes(), ..OutgoingMessage::default() }
}

/// The client's own consumer, which reads nothing of a message and acknowledges every 500.
async fn drain_bare(url: &str, messages: u32) -> Outcome<Cost> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(1_000, BasicQosOptions::default()).await?;
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume("drain".into(), "".into(), options, FieldTable::default()).await?;
    let (mut count, mut calls) = (0, 0);
    while count < messages {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        count += 1;
        if count % 500 == 0 || count == messages {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
            calls += 1;
        }
    }
    let cost = Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds()? - cpu, calls };
    connection.close(200, "done".into()).await?;
    Ok(cost)
}

async fn drain_source(settings: &RabbitmqSettings, messages: u32) -> Outcome<Cost> {
    let source = RabbitmqSource::new(settings.clone());
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let (mut count, mut calls) = (0, 0);
    while count < messages as usize {
        let Received::Deliveries(deliveries) = source.receive().await? else {
            return Err("a queue never ends".into());
        };
        count += deliveries.len();
        calls += 1;
        if let Some(last) = deliveries.last() {
            source.settle(Watermark { partition: last.partition, sequence: last.sequence }).await?;
        }
    }
    let cost = Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds()? - cpu, calls };
    source.close().await?;
    Ok(cost)
}

/// The CPU time of this process, in user and system mode, which Linux counts in hundredths of a second.
fn cpu_seconds() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // The 14th and 15th field; the second one ends with the parenthesis.
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
