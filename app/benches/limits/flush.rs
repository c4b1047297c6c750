//! A flush beside a sorted `COPY` into the same table.

use crate::{
    Work, in_turns,
    measure::{Clock, memory, percentile},
    programs::{App, Bench, SHARDS, Stores},
    queue::{Broker, Shape},
    report::{Case, Report},
};
use application::ports::{AccumulatorShards, Batch, PulseSink};
use domain::{Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId, UsageUnit};
use infrastructure::redis::{RedisAccumulator, RedisSettings};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    cell::RefCell,
    fmt::Write,
    thread::sleep,
    time::{Duration, Instant},
};

const SEND_BYTES: usize = 1 << 20;

/// Copies as many rows as a flush writes, in the order of the key.
async fn sorted_copy(url: &str, rows: u32) {
    const TABLE: &str = "drop table if exists bare_usage; create table bare_usage (like hourly_usage including all); checkpoint";
    const COPY: &str =
        "copy bare_usage (tenant, product_sku, use_unity, window_start, used_amount, pulse_count) from stdin";
    let mut connection = PgConnection::connect(url).await.unwrap();
    for statement in TABLE.split(';') {
        connection.execute(statement).await.unwrap();
    }
    let mut copy = connection.copy_in_raw(COPY).await.unwrap();
    let mut lines = String::new();
    for number in 0..rows {
        let (tenant, sku) = (number / SKUS, number % SKUS);
        let _ = writeln!(lines, "tenant_{tenant:06}\tSKU-{sku:04}\tKB\t2026-01-10 12:00:00+00\t307\t1");
        if lines.len() >= SEND_BYTES {
            copy.send(lines.as_bytes()).await.unwrap();
            lines.clear();
        }
    }
    copy.send(lines.as_bytes()).await.unwrap();
    copy.finish().await.unwrap();
}

const SKUS: u32 = 100;

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let rows = bench.size(100_000, 1_000_000);
    let broker = Broker::start(bench);
    let (own, postgres) = (std::process::id(), broker.postgres.pid());
    let bare_url = Stores::new(bench, &broker.postgres);
    bench.run(&["migrate"], &broker.settings(&bare_url));
    let bare = || {
        let clock = Clock::start(&[("client", own), ("postgres", postgres)]);
        bench.runtime.block_on(sorted_copy(&bare_url.ledger, rows));
        clock.stop(f64::from(rows))
    };
    let filled = RefCell::new(None::<Stores>);
    // Every pulse has a row of its own.
    let shape = Shape { tenants: rows / SKUS, totals: rows, items: 1_000, ..Shape::USUAL };
    let flush = |stores: &Stores| {
        let settings = broker.settings(stores);
        let clock = Clock::start(&[("flush", own), ("postgres", postgres), ("redis", stores.redis.pid())]);
        bench.run(&["flush"], &settings);
        clock.stop(f64::from(rows))
    };
    let new = || {
        broker.fill(bench, shape, rows);
        let (_, apps, stores) = broker.workers(bench, rows, 1, &[]);
        apps.into_iter().for_each(App::end);
        let figure = flush(&stores);
        filled.replace(Some(stores));
        figure
    };
    let known = || {
        let stores = filled.take().expect("the case before has filled it");
        broker.fill(bench, Shape { first: rows, ..shape }, rows);
        let app = bench.spawn(&["--worker"], &broker.settings(&stores));
        stores.wait_for(2 * rows, &app);
        app.end();
        flush(&stores)
    };
    let limit = "sorted COPY";
    let cases: Vec<Work<'_>> = vec![
        (Case::limit(limit), Box::new(bare)),
        (Case::beside(limit, "app flush, new rows", Some(0.35)), Box::new(new)),
        (Case::beside(limit, "app flush, rows that are there", None), Box::new(known)),
    ];
    in_turns(bench, report, "flush", cases);
    flat_memory(bench, &broker, report);
    apply_meanwhile(bench, &broker, report);
}

/// A Redis with so many totals to flush.
fn filled(bench: &Bench, broker: &Broker, rows: u32) -> Stores {
    let shape = Shape { tenants: rows / SKUS, totals: rows, items: 1_000, ..Shape::USUAL };
    broker.fill(bench, shape, rows);
    let (_, apps, stores) = broker.workers(bench, rows, 1, &[]);
    apps.into_iter().for_each(App::end);
    stores
}

/// The memory that a flush takes at most, by the number of its rows.
fn flat_memory(bench: &Bench, broker: &Broker, report: &mut Report) {
    for rows in [bench.size(10_000, 100_000), bench.size(100_000, 1_000_000), bench.size(300_000, 10_000_000)]
    {
        let stores = filled(bench, broker, rows);
        let mut app = bench.spawn(&["flush"], &broker.settings(&stores));
        let (mut peak, start) = (0.0_f64, Instant::now());
        let status = loop {
            peak = peak.max(memory(app.process.pid(), "VmHWM") / 1024.0);
            if let Some(status) = app.process.ended() {
                break status;
            }
            sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{}", app.log());
        let rate = f64::from(rows) / start.elapsed().as_secs_f64();
        report.fact(
            "flush",
            &format!("resident memory of a flush of {rows} rows, peak"),
            peak,
            "MiB",
            Some(64.0),
        );
        report.fact(
            "flush",
            &format!("rows a second of a flush of {rows} rows, start included"),
            rate,
            "",
            None,
        );
    }
}

/// How long a batch takes while rows are flushed, and while not.
fn apply_meanwhile(bench: &Bench, broker: &Broker, report: &mut Report) {
    const BATCHES: u32 = 1_000;
    let stores = filled(bench, broker, bench.size(100_000, 1_000_000));
    let accumulator = bench.runtime.block_on(async {
        let shards = ShardCount::new(u16::try_from(SHARDS).unwrap()).unwrap();
        let settings = RedisSettings::new(stores.redis.url().into(), shards, Duration::from_hours(48));
        let accumulator = RedisAccumulator::connect(&settings).await.unwrap();
        for shard in shards.shards() {
            accumulator.inspect(shard).await.unwrap();
        }
        accumulator
    });
    let mut number = 0;
    let mut apply = || {
        number += 1;
        let batch = batch(number);
        let start = Instant::now();
        bench.runtime.block_on(accumulator.apply(&batch)).unwrap();
        let time = start.elapsed().as_secs_f64() * 1_000.0;
        sleep(Duration::from_millis(5));
        time
    };
    let alone: Vec<f64> = (0..BATCHES).map(|_| apply()).collect();
    let mut app = bench.spawn(&["flush"], &broker.settings(&stores));
    let mut meanwhile = Vec::new();
    let status = loop {
        meanwhile.push(apply());
        if let Some(status) = app.process.ended() {
            break status;
        }
    };
    assert!(status.success(), "{}", app.log());
    let (alone, meanwhile) = (percentile(alone, 99), percentile(meanwhile, 99));
    report.fact("flush", "a batch of 1,000 into Redis, p99", alone, "ms", None);
    report.fact("flush", "the same during a flush, p99", meanwhile, "ms", None);
    report.fact("flush", "the same during a flush", meanwhile / alone, "times the time", Some(2.0));
}

/// A thousand pulses of one shard, each with an id that no other has.
fn batch(number: u32) -> Batch {
    let pulse = |item: u32| Pulse {
        tenant: TenantId::new("tenant").unwrap(),
        product_sku: ProductSku::new(format!("SKU-{item}")).unwrap(),
        use_unity: UsageUnit::new("KB").unwrap(),
        amount: Amount::parse("307").unwrap(),
        identity: Some(PulseIdentity::Id(format!("{number}-{item}").into())),
        occurred_at: None,
        hour: HourWindow::from_number(480_000),
    };
    let shard = Shard(u16::try_from(number % SHARDS).unwrap());
    Batch { shard, number: number.into(), pulses: (0..1_000).map(pulse).collect(), stretches: Vec::new() }
}
