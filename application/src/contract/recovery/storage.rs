//! What the storage of a shard promises.

use super::{ACCUMULATOR, LOG, NOW, Program, SHARD, log, mark, pulse};
use crate::{
    fakes::ledger::MemoryLedger,
    ports::{
        AccumulatorShards, FoundAt, GenerationStore, LogPositions, Outcome, PulseSink, Remake, ShardRecovery,
        ShardStorage,
    },
};
use domain::{LogPosition, ShardCount};

/// A store whose shards can be brought back.
pub trait RecoverableStore:
    PulseSink + AccumulatorShards + GenerationStore + LogPositions + ShardStorage
{
}

impl<S: PulseSink + AccumulatorShards + GenerationStore + LogPositions + ShardStorage> RecoverableStore
    for S
{
}

/// A store of one shard with nothing in it, and what may happen to it.
pub trait FragileStore {
    /// The adapter.
    type Store: RecoverableStore;

    /// A handle like that of another program.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    /// Everything in it is gone.
    fn lose(&self);

    /// What stands for the shard is gone, and the rest of it is still there.
    fn lose_by_half(&self);
}

/// Makes a test of each promise of the storage of shards. The expression is a new [`FragileStore`] each time.
#[macro_export]
macro_rules! storage_contract {
    ($fragile:expr) => {
        $crate::storage_contract! { $fragile =>
            a_lost_shard_is_made_anew_where_the_books_end
            what_is_left_of_a_lost_shard_is_not_found_again
            a_shard_whose_counts_are_in_the_books_is_emptied_and_knows_its_pulses
            a_shard_that_is_kept_goes_on_with_its_counts
            an_old_copy_is_replaced_by_an_empty_shard
            a_shard_that_is_not_as_it_was_found_is_left_alone
            whoever_saw_the_shard_before_is_refused
            a_recovery_that_is_repeated_changes_nothing
        }
    };
    ($fragile:expr => $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fragile = $fragile;
                $crate::contract::recovery::$promise(&fragile).await;
            }
        )*
    };
}

type Worker<F> = Program<<F as FragileStore>::Store, MemoryLedger>;

/// Thirty messages of the log and five pulses of a queue are counted and flushed, and then as many again are counted.
async fn counted<F: FragileStore>(fragile: &F) -> Worker<F> {
    let program = Program::open(fragile.open().await, MemoryLedger::new()).await;
    program.count(0..30).await;
    program.take((0..5).map(pulse)).await;
    program.flush(1).await;
    program.count(30..60).await;
    program.take((5..10).map(pulse)).await;
    program
}

async fn found<F: FragileStore>(fragile: &F) -> FoundAt {
    let state = fragile.open().await.inspect(SHARD).await.expect("it can be looked at").expect("it is there");
    FoundAt { recovery: state.recovery, generation: state.generation, sequence: state.sequence }
}

/// The books hold generation 1 with 35 pulses, and the log up to 30.
fn recovery(remake: Remake, found: Option<FoundAt>) -> ShardRecovery {
    let active = if remake == Remake::Keep { found.map_or(0, |found| found.generation) } else { 2 };
    ShardRecovery {
        accumulator: ACCUMULATOR,
        shards: ShardCount::ONE,
        shard: SHARD,
        number: found.map_or(0, |found| found.recovery) + 1,
        found,
        remake,
        generation: active,
        sequence: 1_000,
        counted: 35,
        positions: vec![mark(30)],
        flushed: 1,
        seen: (2, 999),
    }
}

async fn restore<F: FragileStore>(fragile: &F, recovery: &ShardRecovery) -> bool {
    fragile.open().await.restore(recovery, NOW).await.expect("the store answers")
}

/// A program that starts now, on books that know the shard as it is.
async fn another<F: FragileStore>(fragile: &F) -> Worker<F> {
    let (store, ledger) = (fragile.open().await, MemoryLedger::new());
    store.inspect(SHARD).await.expect("it can be looked at").expect("it is there");
    Program { store, ledger, recovery: 0, batches: std::sync::atomic::AtomicU64::new(1) }
}

async fn stands(program: &Program<impl RecoverableStore, MemoryLedger>) -> (u64, u64, u64, u64, u64) {
    let state = program.store.inspect(SHARD).await.expect("it can be looked at").expect("it is there");
    (state.recovery, state.generation, state.deleted, state.active.pulses, state.counts.counted)
}

async fn position(program: &Program<impl RecoverableStore, MemoryLedger>) -> u64 {
    program.store.positions(&log()).await.expect("it can be read")[0].offset
}

/// Empty, after the last generation in the books, with the positions of that; every identity is gone.
pub async fn a_lost_shard_is_made_anew_where_the_books_end(fragile: &impl FragileStore) {
    drop(counted(fragile).await);
    fragile.lose();
    assert!(restore(fragile, &recovery(Remake::Anew, None)).await);
    let program = another(fragile).await;
    assert_eq!(stands(&program).await, (1, 2, 1, 0, 35));
    assert_eq!(position(&program).await, 30);
    assert_eq!(program.take([pulse(0)]).await, [Outcome::Counted]);
    program.count(20..40).await;
    assert_eq!(stands(&program).await, (1, 2, 1, 11, 46), "what it has passed is not counted again");
    program.store.seal(SHARD, 2, NOW).await.expect("it is sealed");
    let sealed = program.store.sealed(SHARD, 2).await.expect("it is read").expect("it is there");
    assert_eq!((sealed.recovery, sealed.total.pulses), (1, 11));
    program.store.delete(&sealed).await.expect("it is deleted");
}

/// Whatever had names that its next generations and buckets will have.
pub async fn what_is_left_of_a_lost_shard_is_not_found_again(fragile: &impl FragileStore) {
    drop(counted(fragile).await);
    fragile.lose_by_half();
    assert!(restore(fragile, &recovery(Remake::Anew, None)).await);
    let program = another(fragile).await;
    assert_eq!(program.take([pulse(0), pulse(7)]).await, [Outcome::Counted; 2]);
    let (rows, _) = program.store.read(SHARD, 2, 0).await.expect("it can be read");
    assert_eq!(rows.iter().map(|row| row.total.pulses).sum::<u64>(), 2);
}

/// A copy of before the first flush, whose generation has come into the books since.
pub async fn a_shard_whose_counts_are_in_the_books_is_emptied_and_knows_its_pulses(
    fragile: &impl FragileStore,
) {
    let program = Program::open(fragile.open().await, MemoryLedger::new()).await;
    program.count(0..10).await;
    program.take((0..3).map(pulse)).await;
    drop(program);
    let at = found(fragile).await;
    assert!(restore(fragile, &recovery(Remake::DropBooked, Some(at))).await);
    let program = another(fragile).await;
    assert_eq!(stands(&program).await, (1, 2, 1, 0, 35));
    assert_eq!(position(&program).await, 30);
    assert_eq!(program.take([pulse(0), pulse(9)]).await, [Outcome::Duplicate, Outcome::Counted]);
    let (rows, _) = program.store.read(SHARD, 1, 0).await.expect("it can be read");
    assert_eq!(rows, [], "they are in the books");
}

/// Counts, identities and positions.
pub async fn a_shard_that_is_kept_goes_on_with_its_counts(fragile: &impl FragileStore) {
    drop(counted(fragile).await);
    let at = found(fragile).await;
    assert!(restore(fragile, &recovery(Remake::Keep, Some(at))).await);
    let program = another(fragile).await;
    assert_eq!(stands(&program).await, (1, 2, 1, 35, 70));
    assert_eq!(position(&program).await, 60);
    assert_eq!(program.take([pulse(0), pulse(7)]).await, [Outcome::Duplicate; 2]);
}

/// Not even its identities can be believed: what it had counted was counted again.
pub async fn an_old_copy_is_replaced_by_an_empty_shard(fragile: &impl FragileStore) {
    drop(counted(fragile).await);
    let at = found(fragile).await;
    assert!(restore(fragile, &recovery(Remake::Anew, Some(at))).await);
    let program = another(fragile).await;
    assert_eq!(stands(&program).await, (1, 2, 1, 0, 35));
    assert_eq!((position(&program).await, LOG), (30, log().as_str()));
    assert_eq!(program.take([pulse(0), pulse(7)]).await, [Outcome::Counted; 2]);
}

/// Gone, there again, or further on.
pub async fn a_shard_that_is_not_as_it_was_found_is_left_alone(fragile: &impl FragileStore) {
    let program = counted(fragile).await;
    let (at, before) = (found(fragile).await, stands(&program).await);
    let further = FoundAt { sequence: at.sequence - 1, ..at };
    let later = FoundAt { recovery: 1, ..at };
    for was in [None, Some(further), Some(later)] {
        for remake in [Remake::Anew, Remake::DropBooked, Remake::Keep] {
            assert!(!restore(fragile, &recovery(remake, was)).await, "{was:?}");
        }
    }
    assert_eq!(stands(&program).await, before);
    fragile.lose();
    assert!(!restore(fragile, &recovery(Remake::Keep, Some(at))).await);
    assert!(fragile.open().await.inspect(SHARD).await.expect("it can be looked at").is_none());
}

/// However far the shard has come since, and whatever they do.
pub async fn whoever_saw_the_shard_before_is_refused(fragile: &impl FragileStore) {
    for remake in [Remake::Keep, Remake::Anew] {
        fragile.lose();
        let stale = counted(fragile).await;
        stale.store.seal(SHARD, 2, NOW).await.expect("it is sealed");
        let sealed = stale.store.sealed(SHARD, 2).await.expect("it is read").expect("it is there");
        let at = found(fragile).await;
        assert!(restore(fragile, &recovery(remake, Some(at))).await);
        let program = another(fragile).await;
        program.take((100..103).map(pulse)).await;
        let before = stands(&program).await;
        let refused = [
            stale.apply(vec![pulse(200)], Vec::new()).await.map(|_| ()),
            stale.store.inspect(SHARD).await.map(|_| ()),
            stale.store.seal(SHARD, before.1, NOW).await,
            stale.store.delete(&sealed).await,
            stale.store.positions(&log()).await.map(|_| ()),
        ];
        for refused in refused {
            let error = refused.expect_err("it saw another shard");
            assert!(!error.is_transient(), "{error}");
        }
        assert_eq!(stands(&program).await, before);
    }
}

/// Also once the shard has gone on.
pub async fn a_recovery_that_is_repeated_changes_nothing(fragile: &impl FragileStore) {
    drop(counted(fragile).await);
    fragile.lose();
    let recovery = recovery(Remake::Anew, None);
    assert!(restore(fragile, &recovery).await && restore(fragile, &recovery).await);
    let program = another(fragile).await;
    program.take([pulse(0)]).await;
    assert!(restore(fragile, &recovery).await);
    assert_eq!(stands(&program).await, (1, 2, 1, 1, 36));
    let marks = program.store.log_marks(SHARD).await.expect("it can be read");
    assert_eq!(marks[0].position, LogPosition::before(30));
}
