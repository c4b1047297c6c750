//! What the source, and the whole worker with Redis, cost above the AMQP client alone: all drain the same quorum queue, in
//! turns, in one run.
//!
//! `cargo run --release -p infrastructure --example drain_cost -- [MESSAGES] [ROUNDS] [PREFETCH] [SHARDS] [BATCH] [LINGER_MS]`

use application::{
    decode::Decoder,
    fakes::ledger::MemoryLedger,
    ingest::{IngestPulses, Limits, Route, Tally},
    open_shards::open_shards,
    ports::{PulseSource, Received, Watermark},
};
use domain::{AccumulatorId, ShardCount, Timestamp};
use futures_util::StreamExt;
use infrastructure::{
    rabbitmq::{
        OutgoingMessage, QueueType, RabbitmqDeadLetters, RabbitmqPublisher, RabbitmqSettings, RabbitmqSource,
    },
    redis::{RedisAccumulator, RedisSettings},
    test_servers::{rabbitmq::RabbitmqServer, redis::RedisServer},
};
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{
    error::Error,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long a drain took: seconds on the wall, and of this process's CPU.
struct Cost {
    wall: f64,
    cpu: f64,
    broker: f64,
    redis: f64,
}

/// Times since the start of a drain.
struct Clock {
    start: Instant,
    own: f64,
    broker: (u32, f64),
    redis: Option<(u32, f64)>,
}

impl Clock {
    fn start(broker: u32, redis: Option<u32>) -> Outcome<Self> {
        let redis = redis.map(|pid| Outcome::Ok((pid, cpu_seconds(pid)?))).transpose()?;
        let own = cpu_seconds(std::process::id())?;
        Ok(Self { start: Instant::now(), own, broker: (broker, cpu_seconds(broker)?), redis })
    }

    fn stop(&self) -> Outcome<Cost> {
        let since = |(pid, before): (u32, f64)| Outcome::Ok(cpu_seconds(pid)? - before);
        Ok(Cost {
            wall: self.start.elapsed().as_secs_f64(),
            cpu: since((std::process::id(), self.own))?,
            broker: since(self.broker)?,
            redis: self.redis.map_or(Ok(0.0), since)?,
        })
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (messages, rounds, prefetch) =
        (next(500_000)?, next(3)?, next(u32::from(RabbitmqSettings::PREFETCH))?);
    let (shards, batch, linger) = (next(8)?, next(1_000)?, next(10)?);
    let shards = ShardCount::new(u16::try_from(shards)?).ok_or("between 1 and 1024 shards")?;
    let batch_linger = Duration::from_millis(linger.into());
    let limits = Limits { batch_size: batch as usize, batch_linger, ..Limits::default() };
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
    let broker = server.pid();
    let (mut bare_costs, mut source_costs, mut worker_costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        runtime()?.block_on(fill(&settings, messages))?;
        bare_costs.push(runtime()?.block_on(drain_bare(&server.url(), broker, messages))?);
        runtime()?.block_on(fill(&settings, messages))?;
        source_costs.push(runtime()?.block_on(drain_source(&settings, broker, messages))?);
        runtime()?.block_on(fill(&settings, messages))?;
        let redis = RedisServer::start();
        worker_costs
            .push(runtime()?.block_on(drain_worker(&settings, broker, &redis, shards, limits, messages))?);
    }
    println!(
        "{messages} messages of 132 bytes, quorum queue, prefetch {prefetch}, {shards} shards, batches of {batch}, \
         linger {linger} ms, median of {rounds}"
    );
    println!(
        "{:<24} {:>10} {:>8} {:>8} {:>8}  us of CPU a message",
        "", "messages/s", "own", "broker", "redis"
    );
    let report = |name: &str, costs: &mut Vec<Cost>| {
        costs.sort_by(|left, right| left.wall.total_cmp(&right.wall));
        let median = &costs[costs.len() / 2];
        let each = |seconds: f64| seconds / f64::from(messages) * 1e6;
        let (rate, own) = (f64::from(messages) / median.wall, each(median.cpu));
        let (broker, redis) = (each(median.broker), each(median.redis));
        println!("{name:<24} {rate:>10.0} {own:>8.2} {broker:>8.2} {redis:>8.2}");
        (rate, own)
    };
    let bare = report("client alone, 1000/500", &mut bare_costs);
    for (name, costs) in [("RabbitmqSource", &mut source_costs), ("worker with Redis", &mut worker_costs)] {
        let (rate, own) = report(name, costs);
        println!("    {:.3} of the client's rate, own CPU {:+.2} us a message", rate / bare.0, own - bare.1);
    }
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
        r#"{{"id":"{number:012}","tenant":"tenant_{:04}","product_sku":"SKU-{:03}","used_amount":{},"use_unity":"KB","pad":"{:021}"}}"#,
        number % 1_000,
        number % 1_000 % 97,
        100 + number % 307,
        0
    );
    OutgoingMessage { body: body.into_bytes(), ..OutgoingMessage::default() }
}

/// The client's own consumer, which reads nothing of a message and acknowledges every 500.
async fn drain_bare(url: &str, broker: u32, messages: u32) -> Outcome<Cost> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(1_000, BasicQosOptions::default()).await?;
    let clock = Clock::start(broker, None)?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume("drain".into(), "".into(), options, FieldTable::default()).await?;
    let mut count = 0;
    while count < messages {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        count += 1;
        if count % 500 == 0 || count == messages {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    let cost = clock.stop()?;
    connection.close(200, "done".into()).await?;
    Ok(cost)
}

async fn drain_source(settings: &RabbitmqSettings, broker: u32, messages: u32) -> Outcome<Cost> {
    let source = RabbitmqSource::new(settings.clone());
    let clock = Clock::start(broker, None)?;
    let mut count = 0;
    while count < messages as usize {
        let Received::Deliveries(deliveries) = source.receive().await? else {
            return Err("a queue never ends".into());
        };
        count += deliveries.len();
        if let Some(last) = deliveries.last() {
            source.settle(Watermark { partition: last.partition, sequence: last.sequence }).await?;
        }
    }
    let cost = clock.stop()?;
    source.close().await?;
    Ok(cost)
}

/// Everything between the queue and the fsync of Redis.
async fn drain_worker(
    settings: &RabbitmqSettings,
    broker: u32,
    redis: &RedisServer,
    shards: ShardCount,
    limits: Limits,
    messages: u32,
) -> Outcome<Cost> {
    let store = RedisSettings::new(redis.url().into(), shards, Duration::from_hours(48));
    let accumulator = Arc::new(RedisAccumulator::connect(&store).await?);
    let (id, now) = (AccumulatorId::from_bytes([1; 16]), Timestamp::new(1_768_046_400, 0));
    open_shards(&MemoryLedger::new(), accumulator.as_ref(), id, shards, now).await?;
    let tally = Arc::new(Tally::default());
    let engine = IngestPulses {
        routes: vec![Route {
            name: "rabbitmq".to_owned(),
            source: Arc::new(RabbitmqSource::new(settings.clone())),
            dead_letters: Arc::new(RabbitmqDeadLetters::new(settings.clone())),
            decoder: Decoder::default(),
        }],
        sink: accumulator,
        sink_name: "redis".to_owned(),
        shards,
        limits,
        tally: Arc::clone(&tally),
        applied: None,
    };
    let stop = CancellationToken::new();
    let clock = Clock::start(broker, Some(redis.pid()))?;
    let watch = async {
        loop {
            let done = tally.snapshot();
            if done.counted == u64::from(messages) {
                break;
            }
            if done.rejected_total() > 0 {
                stop.cancel();
                return Err("the worker refused a message of this measurement".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let cost = clock.stop();
        stop.cancel();
        cost
    };
    let (ended, cost) = tokio::join!(engine.run(stop.clone()), watch);
    let cost = cost?;
    ended?;
    Ok(cost)
}

/// The CPU time of a process, in user and system mode, which Linux counts in hundredths of a second.
fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // The 14th and 15th field; the second one ends with the parenthesis.
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
