//! A part that fails, or says nothing, is told apart, and the rest is shown.

use super::*;
use crate::{
    fakes::accumulator::MemoryAccumulator,
    ports::{Batch, MockBacklog, MockRefusedPulses, MockUsageQueries, PulseSink, ShardBirth},
};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, TenantId, Timestamp, UsageTotal,
    UsageUnit,
};
use std::future::pending;
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::new(0, 0);
const LIMIT: Duration = Duration::from_secs(2);

fn pulse(id: &str) -> Pulse {
    Pulse {
        tenant: TenantId::new("tenant").unwrap(),
        product_sku: ProductSku::new("sku").unwrap(),
        use_unity: UsageUnit::new("KB").unwrap(),
        amount: Amount::parse("1").unwrap(),
        identity: Some(PulseIdentity::Id(id.into())),
        occurred_at: None,
        hour: HourWindow::from_number(0),
    }
}

/// Two pulses counted, one of them again; the first is in a sealed generation.
async fn accumulator() -> MemoryAccumulator {
    let store = MemoryAccumulator::new(Duration::from_hours(48));
    let shards = ShardCount::new(3).unwrap();
    let birth = ShardBirth { accumulator: AccumulatorId::from_bytes([1; 16]), shards, now: NOW };
    let shard = shards.shard_of(&pulse("a").tenant);
    store.create(shard, birth).await.unwrap();
    store.apply(&Batch { shard, number: 1, pulses: vec![pulse("a")], stretches: Vec::new() }).await.unwrap();
    store.seal(shard, 1, NOW).await.unwrap();
    store
        .apply(&Batch { shard, number: 2, pulses: vec![pulse("a"), pulse("b")], stretches: Vec::new() })
        .await
        .unwrap();
    store
}

fn flush() -> FlushRecord {
    let total = UsageTotal::default();
    let shard = Shard(0);
    FlushRecord { shard, generation: 1, total, rows: 7, sealed_at: NOW, started_at: NOW, flushed_at: NOW }
}

async fn gather(queries: MockUsageQueries, backlogs: Vec<(String, Arc<dyn Backlog>)>) -> Overview {
    let store = Arc::new(accumulator().await);
    let mut refused = MockRefusedPulses::new();
    refused.expect_count().returning(|| Ok(4));
    GatherOverview {
        accumulator: "memory".to_owned(),
        ledger: "books".to_owned(),
        shards: Arc::clone(&store) as _,
        shard_count: ShardCount::new(3).unwrap(),
        generations: store,
        queries: Arc::new(queries),
        backlogs,
        refused: vec![("letters".to_owned(), Arc::new(refused))],
        part_limit: LIMIT,
    }
    .run()
    .await
}

/// A source that never answers.
struct Silent;

#[async_trait::async_trait]
impl Backlog for Silent {
    async fn waiting(&self) -> Result<u64, PortError> {
        pending().await
    }
}

#[tokio::test]
async fn everything_is_shown() {
    let mut queries = MockUsageQueries::new();
    queries.expect_flushes().returning(|_| Ok(vec![flush()]));
    let mut backlog = MockBacklog::new();
    backlog.expect_waiting().returning(|| Ok(12));
    let overview = gather(queries, vec![("queue".to_owned(), Arc::new(backlog))]).await;
    let counts = ShardCounts { counted: 2, duplicates: 1, anonymous: 0 };
    assert_eq!(
        overview.counting.answer,
        Ok(Counting { counts, pending: 2, sealed: 1, oldest_sealed_at: Some(NOW) })
    );
    assert_eq!(overview.flushes.answer, Ok(vec![flush()]));
    assert_eq!((overview.waiting_total(), overview.rejected_total()), (Some(12), Some(4)));
    let health: Vec<_> = overview.health().collect();
    assert_eq!(health, [("memory", None), ("books", None), ("queue", None), ("letters", None)]);
}

#[tokio::test(start_paused = true)]
async fn parts_that_fail_or_say_nothing_leave_the_rest_and_hold_nobody_up() {
    let mut queries = MockUsageQueries::new();
    queries.expect_flushes().returning(|_| Err(PortError::transient("read the books", "connection refused")));
    let start = Instant::now();
    let overview = gather(queries, vec![("queue".to_owned(), Arc::new(Silent))]).await;
    assert_eq!(start.elapsed(), LIMIT);
    assert_eq!(overview.counting.answer.as_ref().map(|counting| counting.pending), Ok(2));
    assert_eq!(overview.rejected_total(), Some(4));
    assert_eq!(overview.waiting_total(), None);
    let faults: Vec<(&str, String)> =
        overview.health().filter_map(|(name, fault)| Some((name, fault?.to_string()))).collect();
    assert_eq!(
        faults,
        [
            ("books", "read the books: connection refused".to_owned()),
            ("queue", "no answer within 2s".to_owned()),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_answers_for_two_things_is_named_once_and_well_only_where_both_answer() {
    for (backlog, well) in [(true, true), (false, false)] {
        let mut queries = MockUsageQueries::new();
        queries.expect_flushes().returning(|_| Ok(vec![flush()]));
        let mut answers = MockBacklog::new();
        answers.expect_waiting().returning(|| Ok(0));
        let backlog: Arc<dyn Backlog> = if backlog { Arc::new(answers) } else { Arc::new(Silent) };
        let overview = gather(queries, vec![("memory".to_owned(), backlog)]).await;
        let health: Vec<(&str, bool)> =
            overview.health().map(|(name, fault)| (name, fault.is_none())).collect();
        assert_eq!(health, [("memory", well), ("books", true), ("letters", true)]);
    }
}
