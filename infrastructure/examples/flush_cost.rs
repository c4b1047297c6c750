//! What a flush costs beside the cheapest way into the same table: `flush_cost [ROWS] [REPETITIONS]`.
//!
//! Starts a PostgreSQL of its own. In each repetition: a bare `COPY` of rows that are sorted already, a flush of as many
//! new rows that come shuffled, and a flush of the same rows again, all of which are there by then. Beside the wall clock
//! stands the CPU time of client and server together, which other work on the machine does not change much.

use application::ports::{PortError, SealedGeneration, ShardRegistry, UsageLedger, UsageRow};
use domain::{
    AccumulatorId, HourWindow, ProductSku, Shard, ShardCount, TenantId, Timestamp, TotalAmount, UsageKey,
    UsageTotal, UsageUnit,
};
use futures_util::{StreamExt, stream};
use infrastructure::{
    postgres::{PostgresLedger, PostgresSettings},
    test_servers::postgres::PostgresServer,
};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    env, fs,
    io::{self, Write},
    time::Instant,
};

const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes([7; 16]);
const HOURS: u32 = 20;
const SKUS: u32 = 50;
const FIRST_HOUR: u32 = 491_000;
const PART: u32 = 1_000;
/// A prime, so that the multiples of it visit every row once.
const STRIDE: u64 = 611_953;
const SEND_BYTES: usize = 1 << 20;

const BARE: &str = "\
drop table if exists bare_usage; create table bare_usage (like hourly_usage including all)";
const COPY: &str = "\
copy bare_usage (tenant, product_sku, use_unity, window_start, used_amount, pulse_count) from stdin (format binary)";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1).map(|argument| argument.parse());
    let rows: u32 = arguments.next().transpose()?.unwrap_or(1_000_000);
    let repetitions = arguments.next().transpose()?.unwrap_or(3);
    let server = PostgresServer::start();
    let settings =
        PostgresSettings { url: server.url().into(), max_connections: 2, allow_unsafe_durability: false };
    let ledger = PostgresLedger::connect(&settings).await?;
    ledger.migrate().await?;
    ledger.register(ACCUMULATOR, ShardCount::ONE).await?;
    let mut connection = PgConnection::connect(&server.url()).await?;
    let mut out = io::stdout().lock();
    let cost = Costs { server: server.pid() };
    for _ in 0..repetitions {
        connection.execute(BARE).await?;
        connection.execute("checkpoint").await?;
        let ((), bare) = cost.of(bare_copy(&mut connection, rows)).await?;
        connection.execute("drop table bare_usage; truncate hourly_usage, flushes").await?;
        connection.execute("update accumulator_shards set flushed_generation = 0; checkpoint").await?;
        let (peak, new) = cost.of(flush(&ledger, rows, 1)).await?;
        connection.execute("checkpoint").await?;
        let (_, known) = cost.of(flush(&ledger, rows, 2)).await?;
        for (name, cost) in [("sorted COPY", bare), ("new rows", new), ("known rows", known)] {
            writeln!(
                out,
                "{rows} {name}: {:.0} k rows/s, {:.2} of the COPY's rate; {:.1} us CPU a row, {:.2}",
                f64::from(rows) / cost.wall / 1_000.0,
                bare.wall / cost.wall,
                cost.cpu / f64::from(rows) * 1e6,
                bare.cpu / cost.cpu,
            )?;
        }
        writeln!(out, "{rows} new rows: resident memory grew by {peak} KiB")?;
    }
    Ok(())
}

/// Measures what a piece of work costs.
struct Costs {
    server: u32,
}

/// In seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

impl Costs {
    async fn of<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<(T, Cost), E> {
        let (start, cpu) = (Instant::now(), self.cpu());
        let done = work.await?;
        Ok((done, Cost { wall: start.elapsed().as_secs_f64(), cpu: self.cpu() - cpu }))
    }

    /// What this process and the server's have used so far.
    fn cpu(&self) -> f64 {
        /// `sysconf(_SC_CLK_TCK)` on every Linux.
        const TICKS_PER_SECOND: f64 = 100.0;
        let own = std::process::id();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ticks = processes.filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            let number = |field: usize| fields.get(field)?.parse::<u32>().ok();
            // Parent, user and system time, and those of children that ended.
            let ours = pid == own || pid == self.server || number(1)? == self.server;
            let ended = if pid == self.server { number(13)? + number(14)? } else { 0 };
            ours.then_some(number(11)? + number(12)? + ended)
        });
        f64::from(ticks.sum::<u32>()) / TICKS_PER_SECOND
    }
}

/// The row with this number in the order of the keys.
fn row(number: u32) -> (String, String, u32) {
    let (tenant, sku, hour) = (number / (HOURS * SKUS), number / HOURS % SKUS, number % HOURS);
    (format!("tenant-{tenant:08}"), format!("SKU-{sku:04}"), FIRST_HOUR + hour)
}

/// The bare `COPY`, the commit included.
async fn bare_copy(connection: &mut PgConnection, rows: u32) -> Result<(), sqlx::Error> {
    // 1.5 in digits of 10,000: three, the first of weight 0, positive, of scale 9; and one pulse.
    const AMOUNT: [i16; 8] = [4, 0, 0, 9, 1, 5_000, 0, 0];
    let mut copy = connection.copy_in_raw(COPY).await?;
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let field = |bytes: &mut Vec<u8>, value: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(value);
    };
    for number in 0..rows {
        let (tenant, sku, hour) = row(number);
        bytes.extend_from_slice(&6_i16.to_be_bytes());
        field(&mut bytes, tenant.as_bytes());
        field(&mut bytes, sku.as_bytes());
        field(&mut bytes, b"KB");
        field(&mut bytes, &((i64::from(hour) * 3_600 - 946_684_800) * 1_000_000).to_be_bytes());
        field(&mut bytes, AMOUNT.map(i16::to_be_bytes).as_flattened());
        field(&mut bytes, &1_i64.to_be_bytes());
        if bytes.len() >= SEND_BYTES {
            copy.send(bytes.as_slice()).await?;
            bytes.clear();
        }
    }
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(bytes).await?;
    copy.finish().await?;
    Ok(())
}

/// A flush; returns by how many KiB the resident memory grew at its peak.
async fn flush(ledger: &PostgresLedger, rows: u32, generation: u64) -> Result<u64, PortError> {
    let total = UsageTotal {
        amount: TotalAmount::from_nanos(u128::from(rows) * 1_500_000_000),
        pulses: u64::from(rows),
    };
    let sealed_at = Timestamp::new(1_768_046_400, 0);
    let sealed = SealedGeneration {
        accumulator: ACCUMULATOR,
        shard: Shard(0),
        generation,
        total,
        sealed_at,
        positions: Vec::new(),
    };
    let part = move |first: u32| -> Result<Vec<UsageRow>, PortError> {
        (first..rows.min(first + PART)).map(|number| shuffled(number, rows)).collect()
    };
    let parts = stream::iter((0..rows).step_by(PART as usize)).map(part).boxed();
    let before = memory("VmRSS:");
    // Sets the peak back to what is resident at the moment.
    let _ = fs::write("/proc/self/clear_refs", "5");
    ledger.write(&sealed, parts).await?;
    Ok(memory("VmHWM:").saturating_sub(before))
}

fn shuffled(number: u32, rows: u32) -> Result<UsageRow, PortError> {
    let place = u64::from(number) * STRIDE % u64::from(rows);
    let (tenant, sku, hour) = row(u32::try_from(place).unwrap_or_default());
    let unfit = |error| PortError::permanent("make a row", error);
    let key = UsageKey {
        tenant: TenantId::new(tenant).map_err(unfit)?,
        product_sku: ProductSku::new(sku).map_err(unfit)?,
        use_unity: UsageUnit::new("KB").map_err(unfit)?,
        hour: HourWindow::from_number(hour.cast_signed()),
    };
    Ok(UsageRow { key, total: UsageTotal { amount: TotalAmount::from_nanos(1_500_000_000), pulses: 1 } })
}

/// A line of the kernel's account of this process, in KiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|text| text.strip_prefix(line));
    value.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}
