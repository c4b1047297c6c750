//! What the engine itself costs a pulse: a source and a sink in memory, everything between them real.
//!
//! `cargo run --release -p application --example engine_cost [PULSES_PER_MESSAGE]`

use application::{
    decode::Decoder,
    ingest::{IngestPulses, Limits, Route, Tally},
    ports::{
        Batch, DeadLetter, DeadLetters, Delivery, Envelope, Outcome, PartitionId, PortError, PulseSink,
        PulseSource, Received, Watermark,
    },
};
use async_trait::async_trait;
use domain::{ShardCount, Timestamp};
use std::{
    fs,
    io::{Write, stdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

const PULSES: u64 = 3_000_000;
const CHUNK: u64 = 500;

struct Memory {
    items: u64,
    given: AtomicU64,
}

fn pulse(number: u64) -> String {
    let (tenant, sku) = (number % 100, number % 10);
    format!(
        r#"{{"id":"{number:032x}","tenant":"tenant_{tenant}","product_sku":"SKU-{sku}","used_amount":307.5,"use_unity":"KB"}}"#
    )
}

#[async_trait]
impl PulseSource for Memory {
    async fn receive(&self) -> Result<Received, PortError> {
        let messages = (CHUNK / self.items).max(1);
        let first = self.given.fetch_add(messages, Ordering::Relaxed);
        if first * self.items >= PULSES {
            return Ok(Received::End);
        }
        let delivery = |sequence: u64| {
            let pulses = (0..self.items).map(|item| pulse(sequence * self.items + item)).collect::<Vec<_>>();
            Delivery {
                partition: PartitionId(1),
                sequence,
                body: if self.items == 1 { pulses.concat() } else { format!("[{}]", pulses.join(",")) }
                    .into_bytes(),
                envelope: Envelope::default(),
                received_at: Timestamp::new(1_700_000_000, 0),
                log: None,
                returns: 0,
            }
        };
        Ok(Received::Deliveries((first..first + messages).map(delivery).collect()))
    }

    async fn settle(&self, _: Watermark) -> Result<(), PortError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), PortError> {
        Ok(())
    }
}

struct Nowhere;

#[async_trait]
impl PulseSink for Nowhere {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        Ok(vec![Outcome::Counted; batch.pulses.len()])
    }
}

#[async_trait]
impl DeadLetters for Nowhere {
    async fn publish(&self, _: &[DeadLetter]) -> Result<(), PortError> {
        Ok(())
    }
}

/// User and system time of this process in seconds, at the kernel's 100 ticks a second.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<f64> =
        stat.split_whitespace().skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let items = std::env::args().nth(1).map_or(Ok(1), |text| text.parse())?;
    let making = {
        let start = cpu_seconds();
        let source = Memory { items, given: AtomicU64::new(0) };
        while let Received::Deliveries(deliveries) = source.receive().await? {
            std::hint::black_box(deliveries);
        }
        cpu_seconds() - start
    };
    let tally = Arc::new(Tally::default());
    let route = Route {
        name: "memory".into(),
        source: Arc::new(Memory { items, given: AtomicU64::new(0) }),
        dead_letters: Arc::new(Nowhere),
        decoder: Decoder::default(),
    };
    let engine = IngestPulses {
        routes: vec![route],
        sink: Arc::new(Nowhere),
        sink_name: "nowhere".into(),
        shards: ShardCount::new(8).ok_or("shards")?,
        limits: Limits::default(),
        tally: Arc::clone(&tally),
        suspects: None,
        accounts: None,
        applied: None,
    };
    let (start, cpu) = (Instant::now(), cpu_seconds());
    engine.run(CancellationToken::new()).await?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let millions = tally.snapshot().counted as f64 / 1e6;
    writeln!(
        stdout(),
        "{items} a message: {:.0}k pulses/s, {:.2} us CPU a pulse, {:.2} of it to make them",
        millions * 1e3 / wall,
        cpu / millions,
        making / millions
    )?;
    Ok(())
}
