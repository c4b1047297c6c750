use super::*;
use crate::ports::{
    FoundRow, MockAccumulatorAudit, MockBooksAudit, MockShardRegistry, RowCount, SealedCut, ShardBooks,
    ShardCounts, ShardRecord, ShardState, ShardStatus, TenantSum, UsageRow,
};
use domain::{AccumulatorId, HourWindow, ProductSku, TenantId, TotalAmount, UsageKey, UsageTotal, UsageUnit};
use futures_util::{StreamExt, stream};

const OURS: AccumulatorId = AccumulatorId::from_bytes([1; 16]);
const NOW: Timestamp = Timestamp::new(7, 0);

const fn total(amount: u128, pulses: u64) -> UsageTotal {
    UsageTotal { amount: TotalAmount::from_nanos(amount), pulses }
}

fn row(total: UsageTotal) -> FoundRow {
    let key = UsageKey {
        tenant: TenantId::new("t").unwrap(),
        product_sku: ProductSku::new("s").unwrap(),
        use_unity: UsageUnit::new("u").unwrap(),
        hour: HourWindow::from_number(0),
    };
    FoundRow::Good(UsageRow { key, total })
}

/// A shard with one generation in the books, one that is sealed, and an active one.
#[derive(Clone)]
struct World {
    before: u64,
    shard: ShardCut,
    later: ShardCut,
    flushed_later: u64,
    rows: [(u64, UsageTotal); 2],
    books: ShardBooks,
    usage: UsageTotal,
    books_away: bool,
}

fn world() -> World {
    let counted = |recorded| RowCount { recorded: Some(recorded), stored: recorded };
    let shard = ShardCut {
        state: ShardState {
            accumulator: OURS,
            shards: ShardCount::ONE,
            generation: 3,
            sequence: 9,
            recovery: 0,
            deleted: 1,
            active: total(30, 3),
            counts: ShardCounts { counted: 6, duplicates: 4, anonymous: 1 },
        },
        active_rows: counted(1),
        sealed: vec![SealedCut { generation: 2, total: Some(total(20, 2)), rows: counted(1) }],
        identities: 4,
        identities_dropped: 1,
        identities_lost: 0,
    };
    World {
        before: 1,
        later: shard.clone(),
        flushed_later: 1,
        shard,
        rows: [(2, total(20, 2)), (3, total(30, 3))],
        books: ShardBooks {
            shard: Shard(0),
            flushed: 1,
            generations: 1,
            last: 1,
            gap: None,
            total: total(10, 1),
            after: Vec::new(),
        },
        usage: total(10, 1),
        books_away: false,
    }
}

impl World {
    async fn audit(self) -> AuditReport {
        let registration = |flushed| Registration {
            accumulator: OURS,
            shards: ShardCount::ONE,
            records: vec![ShardRecord {
                shard: Shard(0),
                status: ShardStatus::Created,
                seen: (3, 9),
                flushed,
                recovery: 0,
            }],
        };
        let (mut registry, mut accumulator) = (MockShardRegistry::new(), MockAccumulatorAudit::new());
        let (before, later) = (registration(self.before), registration(self.flushed_later));
        registry.expect_registration().times(1).returning(move || Ok(Some(before.clone())));
        registry.expect_registration().returning(move || Ok(Some(later.clone())));
        let (first, second) = (self.shard, self.later);
        accumulator.expect_cut().times(1).returning(move |_| Ok(Some(first.clone())));
        accumulator.expect_cut().returning(move |_| Ok(Some(second.clone())));
        let rows = self.rows;
        accumulator.expect_rows().returning(move |_, generation, _| {
            let rows = rows.iter().filter(|(number, _)| *number == generation);
            Ok((rows.map(|(_, total)| row(*total)).collect(), None))
        });
        accumulator.expect_strays().returning(|| Ok(Vec::new()));
        let mut books = MockBooksAudit::new();
        let (shard_books, usage, away) = (self.books, self.usage, self.books_away);
        books.expect_cut().returning(move |_| {
            if away {
                return Err(PortError::transient("ask", "gone"));
            }
            let sum =
                TenantSum { tenant: Ok(TenantId::new("t").unwrap()), total: Ok(usage), rows: 1, altered: 0 };
            let books = AccumulatorBooks {
                accumulator: OURS,
                shards: ShardCount::ONE,
                active: true,
                books: vec![shard_books.clone()],
            };
            let usage = stream::iter([Ok(vec![sum])]).boxed();
            Ok(crate::ports::BooksCut { registration: None, accumulators: vec![books], usage })
        });
        let audit = AuditBooks {
            accumulator_name: "counts".to_owned(),
            registry: Arc::new(registry),
            accumulator: Arc::new(accumulator),
            books: Arc::new(books),
            shard_count: ShardCount::ONE,
        };
        audit.run(NOW).await
    }

    async fn broken(self) -> Vec<CheckKind> {
        let report = self.audit().await;
        let broken = report.checks.into_iter().filter(|check| matches!(check.verdict, Verdict::Broken(..)));
        broken.map(|check| check.kind).collect()
    }
}

#[tokio::test]
async fn books_that_balance_hold() {
    let report = world().audit().await;
    assert_eq!(report.outcome(), Outcome::Holds, "{report:#?}");
    assert_eq!(report.checks.iter().map(|check| check.kind).collect::<Vec<_>>(), CheckKind::OF_THE_BOOKS);
}

#[tokio::test]
async fn a_generation_that_is_in_the_books_and_not_deleted_yet_counts_once() {
    let mut world = world();
    let found =
        ShardBooks { flushed: 2, generations: 2, last: 2, total: total(30, 3), ..world.books.clone() };
    world.books = ShardBooks { after: vec![(2, total(20, 2))], ..found };
    world.usage = total(30, 3);
    // Its rows may be gone at any moment.
    world.rows[0].1 = total(0, 0);
    assert_eq!(world.broken().await, []);
}

#[tokio::test]
async fn the_rows_of_the_active_generation_may_be_of_any_moment_of_the_reading() {
    let mut grown = world();
    grown.rows[1].1 = total(34, 4);
    grown.later.state.active = total(37, 5);
    assert_eq!(grown.clone().broken().await, []);
    grown.rows[1].1 = total(29, 4);
    assert_eq!(grown.clone().broken().await, [CheckKind::Rows], "less than at the beginning");
    grown.rows[1].1 = total(38, 5);
    assert_eq!(grown.broken().await, [CheckKind::Rows], "more than at the end");

    // Sealed meanwhile, and then in the books.
    let mut sealed = world();
    sealed.rows[1].1 = total(34, 4);
    sealed.later.state.generation = 4;
    let rows = RowCount::default();
    sealed.later.sealed.push(SealedCut { generation: 3, total: Some(total(34, 4)), rows });
    assert_eq!(sealed.clone().broken().await, []);
    sealed.rows[1].1 = total(0, 0);
    assert_eq!(sealed.clone().broken().await, [CheckKind::Rows]);
    sealed.flushed_later = 3;
    assert_eq!(sealed.broken().await, [], "it is in the books, its rows count no more");
}

#[tokio::test]
async fn every_figure_that_is_off_breaks_its_check() {
    use CheckKind::{Booked, Contiguous, Counted, HourlyUsage, Identities, Rows, Storage, Watermarks};
    type Change = fn(&mut World);
    let cases: [(Change, &[CheckKind]); 9] = [
        (|world| world.rows[0].1 = total(19, 2), &[Rows]),
        (|world| world.shard.sealed[0].rows.stored = 2, &[Rows]),
        (|world| world.shard.state.counts.counted = 7, &[Counted, Identities]),
        (|world| world.shard.identities = 3, &[Identities]),
        (|world| world.usage = total(11, 1), &[HourlyUsage]),
        (|world| world.books.total = total(9, 1), &[HourlyUsage]),
        (|world| world.books.gap = Some(1), &[Contiguous]),
        (|world| world.before = 3, &[Storage, Watermarks]),
        (
            |world| {
                world.books = ShardBooks {
                    flushed: 2,
                    generations: 2,
                    last: 2,
                    total: total(31, 3),
                    after: vec![(2, total(21, 2))],
                    ..world.books.clone()
                };
                world.usage = total(31, 3);
            },
            &[Booked],
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut world = world();
        change(&mut world);
        assert_eq!(world.broken().await, expected, "case {number}");
    }
}

#[tokio::test]
async fn a_ledger_that_is_away_leaves_unknown_what_needs_it_and_no_more() {
    let report = World { books_away: true, ..world() }.audit().await;
    assert_eq!(report.outcome(), Outcome::Unknown);
    let holds = |kind: CheckKind| {
        report.checks.iter().any(|check| check.kind == kind && check.verdict == Verdict::Holds)
    };
    assert!(holds(CheckKind::Identities) && holds(CheckKind::Strays), "{report:#?}");
    assert!(!holds(CheckKind::Counted) && !holds(CheckKind::HourlyUsage), "{report:#?}");
}
