//! Counting, flushing and reporting together, on an accumulator and a ledger in memory that can fail at any step.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use application::{
    fakes::{accumulator::MemoryAccumulator, ledger::MemoryLedger},
    flush_usage::{FlushError, FlushUsage},
    open_shards::open_shards,
    ports::{
        Batch, FlushReceipt, GenerationStore, PortError, PulseSink, Registration, SealedGeneration,
        UsageFilter, UsageLedger, UsageRow, UsageRows,
    },
    report_usage::{PendingUsage, ReportUsage, ReportedUsage},
};
use async_trait::async_trait;
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId,
    Timestamp, UsageTotals, UsageUnit,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

const NOW: Timestamp = Timestamp::new(1_700_000_000, 0);

/// Steps of the stores that fail, each once, before or after their effect.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<HashMap<(&'static str, When), u32>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum When {
    Before,
    After,
}

impl Faults {
    fn plan(&self, step: &'static str, when: When) {
        self.0.lock().unwrap().insert((step, when), 1);
    }

    fn strike(&self, step: &'static str, when: When) -> Result<(), PortError> {
        match self.0.lock().unwrap().remove(&(step, when)) {
            Some(_) => Err(PortError::transient(step, format!("cut {when:?}"))),
            None => Ok(()),
        }
    }

    fn are_spent(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

struct Faulty<T> {
    inner: Arc<T>,
    faults: Faults,
}

#[async_trait]
impl GenerationStore for Faulty<MemoryAccumulator> {
    async fn seal(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), PortError> {
        self.faults.strike("seal", When::Before)?;
        self.inner.seal(shard, generation, now).await?;
        self.faults.strike("seal", When::After)
    }

    async fn sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, PortError> {
        self.inner.sealed(shard, generation).await
    }

    async fn read(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<UsageRow>, Option<u32>), PortError> {
        self.faults.strike("read", When::Before)?;
        self.inner.read(shard, generation, part).await
    }

    async fn delete(&self, sealed: &SealedGeneration) -> Result<(), PortError> {
        self.faults.strike("delete", When::Before)?;
        self.inner.delete(sealed).await?;
        self.faults.strike("delete", When::After)
    }
}

#[async_trait]
impl UsageLedger for Faulty<MemoryLedger> {
    async fn write(&self, sealed: &SealedGeneration, rows: UsageRows<'_>) -> Result<FlushReceipt, PortError> {
        self.faults.strike("write", When::Before)?;
        let receipt = self.inner.write(sealed, rows).await?;
        self.faults.strike("write", When::After)?;
        Ok(receipt)
    }
}

struct House {
    accumulator: Arc<MemoryAccumulator>,
    ledger: Arc<MemoryLedger>,
    registration: Registration,
    faults: Faults,
}

impl House {
    async fn open() -> Self {
        let accumulator = Arc::new(MemoryAccumulator::new(Duration::from_hours(48)));
        let ledger = Arc::new(MemoryLedger::new());
        let shards = ShardCount::new(2).unwrap();
        let id = AccumulatorId::from_bytes([5; 16]);
        let registration = open_shards(&*ledger, &*accumulator, id, shards, NOW).await.unwrap();
        Self { accumulator, ledger, registration, faults: Faults::default() }
    }

    fn flush(&self) -> FlushUsage {
        FlushUsage {
            shards: Arc::clone(&self.accumulator) as _,
            generations: Arc::new(Faulty {
                inner: Arc::clone(&self.accumulator),
                faults: self.faults.clone(),
            }),
            ledger: Arc::new(Faulty { inner: Arc::clone(&self.ledger), faults: self.faults.clone() }),
            registry: Arc::clone(&self.ledger) as _,
        }
    }

    async fn count(&self, number: u64, pulses: &[Pulse]) {
        for shard in self.registration.shards.shards() {
            let of_shard = |pulse: &&Pulse| self.registration.shards.shard_of(&pulse.tenant) == shard;
            let pulses = pulses.iter().filter(of_shard).cloned().collect();
            self.accumulator.apply(&Batch { shard, number, pulses, stretches: Vec::new() }).await.unwrap();
        }
    }

    async fn report(&self) -> Vec<ReportedUsage> {
        let pending = PendingUsage {
            registry: Arc::clone(&self.ledger) as _,
            shards: Arc::clone(&self.accumulator) as _,
            generations: Arc::clone(&self.accumulator) as _,
        };
        let report = ReportUsage { reader: Arc::clone(&self.ledger) as _, pending: Some(pending) };
        report.run(&UsageFilter::default()).await.unwrap().into_values().collect()
    }
}

fn pulse(id: u32) -> Pulse {
    Pulse {
        tenant: TenantId::new(format!("tenant {}", id % 7)).unwrap(),
        product_sku: ProductSku::new("s").unwrap(),
        use_unity: UsageUnit::new("u").unwrap(),
        amount: Amount::parse("0.7").unwrap(),
        identity: Some(PulseIdentity::Id(id.to_string().into())),
        occurred_at: None,
        hour: HourWindow::from_number(i32::try_from(id % 3).unwrap()),
    }
}

fn pulses(ids: std::ops::Range<u32>) -> Vec<Pulse> {
    ids.map(pulse).collect()
}

fn expected(pulses: &[Pulse]) -> UsageTotals {
    let mut totals = UsageTotals::default();
    for pulse in pulses {
        totals.add(pulse);
    }
    totals
}

#[tokio::test]
async fn a_flush_moves_everything_and_a_second_one_nothing() {
    let house = House::open().await;
    house.count(1, &pulses(0..50)).await;
    let summary = house.flush().run(NOW).await.unwrap();
    assert_eq!((summary.generations, summary.pulses, summary.rows), (2, 50, 21));
    assert_eq!(house.ledger.totals(), expected(&pulses(0..50)));
    house.count(2, &pulses(0..60)).await;
    assert_eq!(house.flush().run(NOW).await.unwrap().pulses, 10, "the first fifty are known");
    assert_eq!(house.flush().run(NOW).await.unwrap().generations, 0);
    assert_eq!(house.ledger.totals(), expected(&pulses(0..60)));
}

#[tokio::test]
async fn a_flush_that_is_cut_at_any_step_is_made_up_for_by_the_next() {
    for (step, when) in [
        ("seal", When::Before),
        ("seal", When::After),
        ("read", When::Before),
        ("write", When::Before),
        ("write", When::After),
        ("delete", When::Before),
        ("delete", When::After),
    ] {
        let house = House::open().await;
        house.count(1, &pulses(0..50)).await;
        house.faults.plan(step, when);
        let error = house.flush().run(NOW).await.unwrap_err();
        assert!(error.is_transient(), "{step} {when:?}: {error}");
        assert!(house.faults.are_spent(), "{step} was reached");
        house.count(2, &pulses(40..60)).await;
        house.flush().run(NOW).await.unwrap();
        assert_eq!(house.ledger.totals(), expected(&pulses(0..60)), "{step} {when:?}");
    }
}

#[tokio::test]
async fn crons_at_once_write_each_generation_once() {
    let house = House::open().await;
    house.count(1, &pulses(0..50)).await;
    let (left, right) = (house.flush(), house.flush());
    let (left, right) = tokio::join!(left.run(NOW), right.run(NOW));
    assert_eq!(left.unwrap().pulses + right.unwrap().pulses, 50);
    assert_eq!(house.ledger.totals(), expected(&pulses(0..50)));
}

#[tokio::test]
async fn a_flush_before_anything_was_counted_does_nothing() {
    let house = House::open().await;
    assert_eq!(house.flush().run(NOW).await.unwrap().generations, 0);
    let flush = FlushUsage { registry: Arc::new(MemoryLedger::new()), ..house.flush() };
    assert_eq!(flush.run(NOW).await.unwrap().generations, 0);
}

#[tokio::test]
async fn a_flush_of_lost_storage_stops_and_says_so() {
    let house = House::open().await;
    house.count(1, &pulses(0..50)).await;
    house.flush().run(NOW).await.unwrap();
    house.accumulator.lose_storage();
    let error = house.flush().run(NOW).await.unwrap_err();
    assert!(
        matches!(error, FlushError::Storage(_) | FlushError::Port(_)) && !error.is_transient(),
        "{error}"
    );
    assert_eq!(house.ledger.totals(), expected(&pulses(0..50)));
}

#[tokio::test]
async fn a_report_tells_billed_from_pending_and_never_counts_both() {
    let house = House::open().await;
    house.count(1, &pulses(0..50)).await;
    house.flush().run(NOW).await.unwrap();
    house.count(2, &pulses(50..60)).await;
    let sums = |report: &[ReportedUsage]| {
        report.iter().fold((0, 0), |(billed, pending), usage| {
            (billed + usage.billed.pulses, pending + usage.pending.pulses)
        })
    };
    assert_eq!(sums(&house.report().await), (50, 10));
    // Written and not yet deleted: in both stores, and reported as billed.
    house.faults.plan("delete", When::Before);
    house.flush().run(NOW).await.unwrap_err();
    let (billed, pending) = sums(&house.report().await);
    assert!((billed, pending) == (60, 0) || billed + pending == 60, "{billed} {pending}");
}
