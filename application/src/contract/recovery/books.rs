//! What the books promise as the memory of recoveries.

use super::{ACCUMULATOR, log, mark};
use crate::{
    contract::ledger::{FreshBooks, key, registered, sealed, total, write},
    open_log::Settled,
    ports::{
        FoundAt, Recovery, RecoveryBooks, Remake, SealedGeneration, ShardMark, ShardRecovery, ShardRegistry,
        UsageLedger, UsageRow,
    },
};
use domain::{Shard, ShardCount};
use futures_util::{StreamExt, stream};

/// Makes a test of each promise of books that remember recoveries. The expression is as that of `ledger_contract!`.
#[macro_export]
macro_rules! recovery_books_contract {
    ($fresh:expr) => {
        $crate::recovery_books_contract! { $fresh =>
            the_books_tell_what_they_hold_of_each_shard
            a_recovery_is_recorded_step_by_step
            nothing_of_before_a_recovery_is_taken
            a_shard_that_has_moved_is_not_recovered_as_it_was
            a_recovery_that_was_given_up_forgets_no_mark
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::recovery::$promise(&fresh).await;
            }
        )*
    };
}

const FIRST: Shard = Shard(0);
const THIRD: Shard = Shard(2);

fn rows(pulses: u64) -> Vec<UsageRow> {
    vec![UsageRow { key: key("t", "s", "u", 7), total: total("5", pulses) }]
}

fn generation(number: u64, recovery: u64) -> SealedGeneration {
    SealedGeneration { recovery, positions: vec![mark(10 * number)], ..sealed(FIRST, number, &rows(3)) }
}

fn seen(generation: u64, sequence: u64, recovery: u64) -> ShardMark {
    ShardMark { shard: FIRST, generation, sequence, recovery }
}

/// The first shard has flushed two generations of three pulses, and was seen at generation 3, sequence 40.
async fn flushed<B: FreshBooks<Ledger: RecoveryBooks>>(books: &B) -> B::Ledger {
    let ledger = registered(books).await;
    for number in [1, 2] {
        write(&ledger, &generation(number, 0), &rows(3)).await;
    }
    ledger.mark_seen(ACCUMULATOR, &[seen(3, 40, 0)]).await.expect("it is recorded");
    ledger
}

fn step(shard: Shard, number: u64) -> ShardRecovery {
    let found = FoundAt { recovery: 0, generation: 2, sequence: 30 };
    let first = shard == FIRST;
    ShardRecovery {
        accumulator: ACCUMULATOR,
        shards: ShardCount::new(4).expect("four is a count"),
        shard,
        number,
        found: first.then_some(found),
        remake: if first { Remake::DropBooked } else { Remake::Anew },
        generation: if first { 3 } else { 1 },
        sequence: 41,
        counted: 6,
        positions: vec![mark(20)],
        flushed: if first { 2 } else { 0 },
        seen: if first { (3, 40) } else { (0, 0) },
    }
}

fn agreed(number: u64) -> Recovery {
    Recovery {
        number,
        word: format!("word-{number}"),
        plan: "shard 0 was rolled back\nshard 2 is gone".to_owned(),
        shards: vec![(step(FIRST, number), false), (step(THIRD, number), false)],
        given_up: vec![(log(), 3, 9)],
    }
}

async fn begin(ledger: &impl RecoveryBooks, recovery: &Recovery) -> bool {
    ledger.begin(ACCUMULATOR, recovery).await.expect("the books answer")
}

/// Pulses, the last positions, and no recovery.
pub async fn the_books_tell_what_they_hold_of_each_shard<B: FreshBooks<Ledger: RecoveryBooks>>(books: &B) {
    let ledger = flushed(books).await;
    let histories = ledger.histories(ACCUMULATOR).await.expect("they can be read");
    let told: Vec<_> = histories
        .iter()
        .map(|known| (known.shard.0, known.pulses, known.recovered, known.positions.clone()))
        .collect();
    let nothing = |shard| (shard, 0, 0, Vec::new());
    assert_eq!(told, [(0, 6, 0, vec![mark(20)]), nothing(1), nothing(2), nothing(3)]);
    assert_eq!(histories[0].sealed_at, Some(generation(2, 0).sealed_at));
    assert_eq!(histories[1].sealed_at, None);
    assert_eq!(ledger.latest(ACCUMULATOR).await.expect("it can be read"), None);
}

/// Each step is seen by whoever looks next; of two at the same time one begins.
pub async fn a_recovery_is_recorded_step_by_step<B: FreshBooks<Ledger: RecoveryBooks>>(books: &B) {
    let (ledger, other) = (flushed(books).await, books.open().await);
    let mut recovery = agreed(1);
    assert!(begin(&ledger, &recovery).await);
    assert!(!begin(&other, &recovery).await, "the number is taken");
    assert_eq!(other.latest(ACCUMULATOR).await.expect("it can be read"), Some((recovery.clone(), false)));
    for _ in 0..2 {
        ledger.restored(&recovery.shards[0].0).await.expect("it is recorded");
    }
    recovery.shards[0].1 = true;
    assert_eq!(other.latest(ACCUMULATOR).await.expect("it can be read"), Some((recovery.clone(), false)));
    let recovered: Vec<u64> = other
        .histories(ACCUMULATOR)
        .await
        .expect("they can be read")
        .iter()
        .map(|known| known.recovered)
        .collect();
    assert_eq!(recovered, [1, 0, 0, 0]);
    let to = Settled { next: 20, first: 0 };
    ledger.moving(ACCUMULATOR, 1, &[(log(), to)]).await.expect("it is recorded");
    for _ in 0..2 {
        ledger.ended(ACCUMULATOR, 1).await.expect("it is recorded");
    }
    assert_eq!(other.latest(ACCUMULATOR).await.expect("it can be read"), Some((recovery, true)));
    let known = other.registration().await.expect("it can be read").expect("it is there");
    let records: Vec<_> = known.records.iter().map(|record| (record.recovery, record.seen)).collect();
    assert_eq!(records, [(1, (3, 41)), (0, (0, 0)), (1, (0, 0)), (0, (0, 0))]);
}

/// Neither a generation that a cron had read, nor how far a worker had seen the shard.
pub async fn nothing_of_before_a_recovery_is_taken<B: FreshBooks<Ledger: RecoveryBooks>>(books: &B) {
    let ledger = flushed(books).await;
    assert!(begin(&ledger, &agreed(1)).await);
    let parts = || stream::iter([Ok(rows(3))]).boxed();
    let error = ledger.write(&generation(3, 0), parts()).await.expect_err("it is of before");
    assert!(!error.is_transient(), "{error}");
    ledger.mark_seen(ACCUMULATOR, &[seen(9, 900, 0)]).await.expect("it is recorded");
    ledger.restored(&step(FIRST, 1)).await.expect("it is recorded");
    ledger.mark_seen(ACCUMULATOR, &[seen(9, 900, 0)]).await.expect("it is recorded");
    write(&ledger, &generation(3, 1), &rows(3)).await;
    ledger.mark_seen(ACCUMULATOR, &[seen(4, 50, 1)]).await.expect("it is recorded");
    let known = ledger.registration().await.expect("it can be read").expect("it is there");
    assert_eq!((known.records[0].seen, known.records[0].flushed), ((4, 50), 3));
    let again = write(&ledger, &generation(2, 0), &rows(3)).await;
    assert!(!again.written, "what is in the books is there, whoever asks");
}

/// Flushed or seen further than it was when the loss was looked at: nothing is recorded.
pub async fn a_shard_that_has_moved_is_not_recovered_as_it_was<B: FreshBooks<Ledger: RecoveryBooks>>(
    books: &B,
) {
    let ledger = flushed(books).await;
    ledger.mark_seen(ACCUMULATOR, &[seen(3, 41, 0)]).await.expect("it is recorded");
    assert!(!begin(&ledger, &agreed(1)).await);
    let mut moved = agreed(1);
    moved.shards[0].0.seen = (3, 41);
    write(&ledger, &generation(3, 0), &rows(3)).await;
    assert!(!begin(&ledger, &moved).await);
    assert_eq!(ledger.latest(ACCUMULATOR).await.expect("it can be read"), None);
    moved.shards[0].0.flushed = 3;
    assert!(begin(&ledger, &moved).await);
}

/// Another took its place before it had reached the shards: the mark of the shard is that of the one that is carried out.
pub async fn a_recovery_that_was_given_up_forgets_no_mark<B: FreshBooks<Ledger: RecoveryBooks>>(books: &B) {
    let ledger = flushed(books).await;
    assert!(begin(&ledger, &agreed(1)).await);
    assert!(begin(&ledger, &agreed(2)).await);
    ledger.restored(&step(FIRST, 1)).await.expect("it is recorded");
    let known = ledger.registration().await.expect("it can be read").expect("it is there");
    assert_eq!((known.records[0].recovery, known.records[0].seen), (2, (3, 40)));
    assert_eq!(ledger.latest(ACCUMULATOR).await.expect("it can be read"), Some((agreed(2), false)));
}
