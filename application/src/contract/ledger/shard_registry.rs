//! What a ledger promises about its memory of the accumulator.

use super::{ACCUMULATOR, FreshBooks, SHARD, assert_refused, registered};
use crate::ports::{Registration, ShardMark, ShardRecord, ShardRegistry, ShardStatus};
use domain::{AccumulatorId, Shard, ShardCount};
use futures_util::future;

const OTHER: AccumulatorId = AccumulatorId::from_bytes([0xab; 16]);

/// Every shard is being made; whoever registers another accumulator afterwards is told of this one.
pub async fn the_first_registration_stands(books: &impl FreshBooks) {
    let ledger = books.open().await;
    assert_eq!(ledger.registration().await.expect("it can be read"), None);
    let shards = ShardCount::new(3).expect("three is a count");
    let record =
        |shard| ShardRecord { shard, status: ShardStatus::Creating, seen: (0, 0), flushed: 0, recovery: 0 };
    let first = Registration { accumulator: OTHER, shards, records: shards.shards().map(record).collect() };
    assert_eq!(ledger.register(OTHER, shards).await.expect("it registers"), first);
    let second = books.open().await;
    assert_eq!(second.register(ACCUMULATOR, ShardCount::ONE).await.expect("it is told"), first);
    assert_eq!(second.register(OTHER, ShardCount::ONE).await.expect("it is told"), first);
    assert_eq!(second.registration().await.expect("it can be read"), Some(first));
}

/// Workers that start together on empty books end with one accumulator.
pub async fn registrations_at_the_same_time_agree(books: &impl FreshBooks) {
    let ledgers = [books.open().await, books.open().await, books.open().await];
    let shards = ShardCount::new(64).expect("64 is a count");
    let registrations = ledgers.iter().zip(1..).map(|(ledger, byte)| async move {
        const TRIES: usize = 20;
        let accumulator = AccumulatorId::from_bytes([byte; 16]);
        for _ in 1..TRIES {
            match ledger.register(accumulator, shards).await {
                Err(error) if error.is_transient() => {}
                known => return known,
            }
        }
        ledger.register(accumulator, shards).await
    });
    let agreed: Vec<Registration> =
        future::join_all(registrations).await.into_iter().map(|known| known.expect("all register")).collect();
    assert_eq!((&agreed[0], &agreed[0]), (&agreed[1], &agreed[2]));
    assert_eq!(agreed[0].records.len(), 64);
}

/// Also when it is said twice; of strangers nothing is recorded.
pub async fn a_shard_once_made_stays_made(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    for _ in 0..2 {
        ledger.confirm_created(ACCUMULATOR, SHARD).await.expect("it is recorded");
    }
    ledger.register(ACCUMULATOR, ShardCount::ONE).await.expect("it is told");
    assert_refused(ledger.confirm_created(ACCUMULATOR, Shard(4)).await);
    assert_refused(ledger.confirm_created(OTHER, SHARD).await);
    let records =
        books.open().await.registration().await.expect("it can be read").expect("it is there").records;
    let made: Vec<bool> = records.iter().map(|record| record.status == ShardStatus::Created).collect();
    assert_eq!(made, [false, false, true, false]);
}

/// Whatever the order of the reports: the furthest stays. A report about a stranger is refused whole.
pub async fn marks_never_go_back(books: &impl FreshBooks) {
    let ledger = registered(books).await;
    let mark =
        |shard, generation, sequence| ShardMark { shard: Shard(shard), generation, sequence, recovery: 0 };
    let reports: [&[ShardMark]; 6] = [
        &[mark(0, 1, 5), mark(1, 2, 900), mark(3, 7, 7)],
        &[mark(0, 1, 4), mark(1, 1, 1_000), mark(3, 7, 8)],
        &[],
        // Twice in one report.
        &[mark(0, 3, 6), mark(0, 2, 7), mark(0, 3, 5)],
        &[mark(2, 1, 9_007_199_254_740_993)],
        // All of it has been seen before.
        &[mark(0, 3, 5), mark(1, 1, 1_000), mark(2, 1, 1), mark(3, 7, 7)],
    ];
    for marks in reports {
        ledger.mark_seen(ACCUMULATOR, marks).await.expect("it is recorded");
    }
    assert_refused(ledger.mark_seen(ACCUMULATOR, &[mark(0, 9, 9), mark(4, 1, 1)]).await);
    assert_refused(ledger.mark_seen(OTHER, &[mark(0, 9, 9)]).await);
    let registration = books.open().await.registration().await.expect("it can be read").expect("it is there");
    let seen: Vec<(u64, u64)> = registration.records.iter().map(|record| record.seen).collect();
    assert_eq!(seen, [(3, 6), (2, 900), (1, 9_007_199_254_740_993), (7, 8)]);
}
