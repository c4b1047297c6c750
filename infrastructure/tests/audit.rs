//! The audit on real stores: it holds while they work, and finds and names what somebody has broken.
#![cfg(feature = "servers")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it should be")]

#[path = "audit/broken.rs"]
mod broken;
#[path = "audit/embedded.rs"]
mod embedded;
#[path = "audit/working.rs"]
mod working;

use application::{
    audit::{AuditBooks, AuditReport, Finding, Outcome, Verdict},
    flush_usage::FlushUsage,
    open_shards::open_shards,
    ports::{
        AccumulatorAudit, AccumulatorShards, Batch, BooksAudit, GenerationStore, PulseSink, ShardRegistry,
        UsageLedger,
    },
};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId,
    Timestamp, UsageUnit,
};
use std::{sync::Arc, time::Duration};

const START: Timestamp = Timestamp::new(1_768_046_400, 0);
const ACCUMULATOR: AccumulatorId = AccumulatorId::from_bytes(*b"tests--of--audit");
const WINDOW: Duration = Duration::from_hours(48);
const SHARDS: u16 = 4;

/// Stores with the ports that an audit, a flush and a batch need.
struct Stores {
    audit: AuditBooks,
    flush: FlushUsage,
    sink: Arc<dyn PulseSink>,
    shards: ShardCount,
}

impl Stores {
    async fn open<A, B>(accumulator: Arc<A>, books: Arc<B>, shards: ShardCount) -> Self
    where
        A: AccumulatorAudit + AccumulatorShards + GenerationStore + PulseSink,
        B: BooksAudit + UsageLedger + ShardRegistry,
    {
        open_shards(books.as_ref(), accumulator.as_ref(), ACCUMULATOR, shards, START).await.unwrap();
        Self {
            audit: AuditBooks {
                accumulator_name: "counts".to_owned(),
                registry: Arc::clone(&books) as _,
                accumulator: Arc::clone(&accumulator) as _,
                books: Arc::clone(&books) as _,
                shard_count: shards,
            },
            flush: FlushUsage {
                shards: Arc::clone(&accumulator) as _,
                generations: Arc::clone(&accumulator) as _,
                ledger: Arc::clone(&books) as _,
                registry: Arc::clone(&books) as _,
            },
            sink: accumulator as _,
            shards,
        }
    }

    /// Counts a batch in each shard: pulses of its tenants, with and without ids.
    async fn count(&self, number: u64, pulses: u64) {
        for shard in self.shards.shards() {
            let pulses = (0..pulses).map(|pulse| self.pulse(shard, number, pulse)).collect();
            let batch = Batch { shard, number, pulses, stretches: Vec::new() };
            self.sink.apply(&batch).await.unwrap();
        }
    }

    fn pulse(&self, shard: Shard, batch: u64, number: u64) -> Pulse {
        Pulse {
            tenant: self.tenant(shard),
            product_sku: ProductSku::new(format!("SKU-{}", number % 7)).unwrap(),
            use_unity: UsageUnit::new("KB").unwrap(),
            amount: Amount::parse("307.000000001").unwrap(),
            identity: (!number.is_multiple_of(5))
                .then(|| PulseIdentity::Id(format!("{batch}-{number}").into())),
            occurred_at: None,
            hour: HourWindow::from_number(491_124),
        }
    }

    /// The first tenant that counts in the shard.
    fn tenant(&self, shard: Shard) -> TenantId {
        (0..100_000)
            .map(|number| TenantId::new(format!("tenant-{number}")).unwrap())
            .find(|tenant| self.shards.shard_of(tenant) == shard)
            .unwrap()
    }

    async fn flush(&self) {
        self.flush.run(START).await.unwrap();
    }

    async fn audit(&self) -> AuditReport {
        self.audit.run(START).await
    }

    async fn assert_holds(&self) {
        let report = self.audit().await;
        assert_eq!(report.outcome(), Outcome::Holds, "{report:#?}");
    }

    /// The numbers of the checks that are broken, and everything that they name.
    async fn broken(&self) -> (Vec<u8>, Vec<Finding>) {
        let report = self.audit().await;
        let (mut numbers, mut all) = (Vec::new(), Vec::new());
        for check in report.checks {
            match check.verdict {
                Verdict::Holds => {}
                Verdict::Broken(findings, _) => {
                    numbers.push(check.kind.number());
                    all.extend(findings);
                }
                Verdict::Unknown(why) => panic!("check {} is unknown: {why}", check.kind.number()),
            }
        }
        (numbers, all)
    }
}

/// Whether one of the findings says all of that.
fn says(findings: &[Finding], words: &[&str]) -> bool {
    findings.iter().map(Finding::to_string).any(|told| words.iter().all(|word| told.contains(word)))
}
