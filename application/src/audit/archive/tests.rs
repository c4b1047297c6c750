use super::*;
use crate::{
    audit::Verdict,
    fakes::{accumulator::MemoryAccumulator, ledger::MemoryLedger},
    flush_usage::FlushUsage,
    open_shards::open_shards,
    ports::{Batch, MockEventQueries, PulseSink},
};
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId,
    Timestamp, TotalAmount, UsageUnit,
};
use futures_util::{StreamExt, stream};
use std::sync::Mutex;

const NOW: Timestamp = Timestamp::new(1_700_000_000, 0);

fn key(tenant: &str) -> UsageKey {
    UsageKey {
        tenant: TenantId::new(tenant).unwrap(),
        product_sku: ProductSku::new("s").unwrap(),
        use_unity: UsageUnit::new("u").unwrap(),
        hour: HourWindow::from_number(7),
    }
}

fn row(tenant: &str, units: u64, pulses: u64) -> UsageRow {
    UsageRow { key: key(tenant), total: UsageTotal { amount: TotalAmount::from_parts(units, 0), pulses } }
}

/// The tenants `a` and `b` are in the books with a unit each, `b` and `c` have one pending; the archive answers with these
/// rows, one answer a look.
async fn audit(looks: Vec<Vec<UsageRow>>) -> CheckReport {
    let accumulator = Arc::new(MemoryAccumulator::new(Duration::from_hours(48)));
    let ledger = Arc::new(MemoryLedger::new());
    let id = AccumulatorId::from_bytes([1; 16]);
    open_shards(ledger.as_ref(), accumulator.as_ref(), id, ShardCount::ONE, NOW).await.unwrap();
    let pulse = |tenant: &str| {
        let UsageKey { tenant, product_sku, use_unity, hour } = key(tenant);
        let (amount, identity) =
            (Amount::parse("1").unwrap(), Some(PulseIdentity::Id(tenant.as_str().into())));
        Pulse { tenant, product_sku, use_unity, amount, identity, occurred_at: None, hour }
    };
    let batch = |number, pulses| Batch { shard: Shard(0), number, pulses, stretches: Vec::new() };
    accumulator.apply(&batch(1, vec![pulse("a"), pulse("b")])).await.unwrap();
    let flush = FlushUsage {
        shards: Arc::clone(&accumulator) as _,
        generations: Arc::clone(&accumulator) as _,
        ledger: Arc::clone(&ledger) as _,
        registry: Arc::clone(&ledger) as _,
    };
    flush.run(NOW).await.unwrap();
    let again = Pulse { identity: None, ..pulse("b") };
    accumulator.apply(&batch(2, vec![again, pulse("c")])).await.unwrap();

    let mut events = MockEventQueries::new();
    let looks = Mutex::new(looks.into_iter());
    events.expect_totals().returning(move || {
        let rows = looks.lock().unwrap().next().expect("no more looks than expected");
        Ok(stream::iter(rows).chunks(2).map(Ok).boxed())
    });
    let pending = PendingUsage {
        registry: Arc::clone(&ledger) as _,
        shards: Arc::clone(&accumulator) as _,
        generations: accumulator,
    };
    let audit =
        AuditArchive { events: Arc::new(events), reader: ledger, pending, pause: Duration::from_secs(5) };
    audit.check().await
}

fn whole() -> Vec<UsageRow> {
    vec![row("a", 1, 1), row("b", 2, 2), row("c", 1, 1)]
}

#[tokio::test(start_paused = true)]
async fn events_that_come_to_books_and_pending_hold_at_the_first_look() {
    let report = audit(vec![whole()]).await;
    assert_eq!(report.verdict, Verdict::Holds, "{report:?}");
    assert_eq!(
        (report.left.as_str(), report.right.as_str()),
        ("4 in 4 pulses in the archive", "4 in 4 pulses counted, under 3 keys")
    );
}

#[tokio::test(start_paused = true)]
async fn a_total_that_differs_and_stands_still_is_broken_and_named_with_the_difference() {
    let lacks = vec![row("a", 1, 1), row("b", 2, 2)];
    let other = vec![row("a", 1, 1), row("b", 5, 2), row("c", 1, 1)];
    let strange = [vec![row("_", 3, 1)], whole()].concat();
    for (rows, tenant, difference) in
        [(lacks, "c", "+1 in +1 pulses"), (other, "b", "-3 in +0 pulses"), (strange, "_", "-3 in -1 pulses")]
    {
        let report = audit(vec![rows.clone(), rows]).await;
        let Verdict::Broken(findings, 1) = &report.verdict else { panic!("{report:?}") };
        assert_eq!(findings[0].key.as_ref().unwrap(), &[tenant, "s", "u", "1970-01-01T07:00:00Z"]);
        assert_eq!(findings[0].difference.as_deref(), Some(difference), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_that_still_moves_is_no_break() {
    let behind = vec![row("a", 1, 1), row("b", 1, 1)];
    assert_eq!(audit(vec![behind.clone(), whole()]).await.verdict, Verdict::Holds, "it has caught up");
    let later = vec![row("a", 1, 1), row("b", 1, 1), row("c", 9, 1)];
    let moves = audit(vec![vec![row("a", 1, 1), row("b", 2, 2)], later]).await;
    assert!(matches!(moves.verdict, Verdict::Unknown(_)), "{moves:?}");
    let stands = vec![row("a", 1, 1), row("b", 1, 1), row("c", 1, 1)];
    assert!(matches!(audit(vec![behind, stands]).await.verdict, Verdict::Broken(_, 1)), "b stands still");
}
