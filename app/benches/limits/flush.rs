//! A flush beside a sorted `COPY` into the same table.

use crate::{
    Work, in_turns,
    measure::Clock,
    programs::{App, Bench, Stores},
    queue::{Broker, Shape},
    report::{Case, Report},
};
use sqlx::{Connection, Executor, PgConnection};
use std::{cell::RefCell, fmt::Write};

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
}
