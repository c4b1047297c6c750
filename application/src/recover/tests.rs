use super::*;
use crate::{
    contract::recovery::{ACCUMULATOR, LOG, Program, SHARD, log, pulse},
    fakes::{accumulator::MemoryAccumulator, ledger::MemoryLedger},
    open_log::LogExtent,
    open_shards::{OpenError, open_shards},
    ports::{
        AccumulatorShards, MockAccumulatorAudit, MockLogSource, Remake, RowCount, ShardCounts, ShardCut,
        ShardHistory, ShardRecord, ShardState, ShardStatus,
    },
};
use domain::{AccumulatorId, LogPosition, ShardCount, UsageTotal};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const NOW: Timestamp = Timestamp::new(1_768_046_400, 0);

fn registration(record: ShardRecord) -> Registration {
    Registration { accumulator: ACCUMULATOR, shards: ShardCount::ONE, records: vec![record] }
}

/// Flushed up to generation 5, and seen at generation 6, sequence 90.
fn record() -> ShardRecord {
    ShardRecord { shard: SHARD, status: ShardStatus::Created, seen: (6, 90), flushed: 5, recovery: 0 }
}

fn history() -> ShardHistory {
    ShardHistory {
        shard: SHARD,
        recovered: 0,
        pulses: 700,
        sealed_at: Some(NOW),
        positions: vec![LogMark { log: log(), position: LogPosition::before(50) }],
        seen_at: Some(NOW),
    }
}

fn found(generation: u64, sequence: u64, recovery: u64) -> FoundShard {
    let state = ShardState {
        accumulator: ACCUMULATOR,
        shards: ShardCount::ONE,
        generation,
        sequence,
        recovery,
        deleted: generation.saturating_sub(2),
        active: UsageTotal::default(),
        counts: ShardCounts::default(),
    };
    let positions = vec![LogMark { log: log(), position: LogPosition { offset: 40, items: 2 } }];
    FoundShard { state: Some(state), positions }
}

const GONE: FoundShard = FoundShard { state: None, positions: Vec::new() };

fn planned(
    record: ShardRecord,
    found: FoundShard,
    history: ShardHistory,
) -> Result<RecoveryPlan, StorageFault> {
    let known = registration(record);
    plan(&known, &known, &[found], &[history], &[])
}

/// How the one shard is brought back: the way, the generation, and from which offset its log is read.
fn remade(record: ShardRecord, found: FoundShard, history: ShardHistory) -> (Remake, u64, u64) {
    let plan = planned(record, found, history).unwrap();
    let step = plan.shards[0].recovery(&plan.registration, 1);
    assert!(step.sequence > record.seen.1, "nobody has seen it as far");
    (step.remake, step.generation, step.positions[0].position.offset)
}

#[test]
fn a_shard_as_it_was_seen_needs_nothing() {
    let plan = planned(record(), found(6, 90, 0), history()).unwrap();
    assert!(plan.is_empty());
    let unborn = ShardRecord { status: ShardStatus::Creating, seen: (0, 0), flushed: 0, ..record() };
    assert!(planned(unborn, GONE, history()).unwrap().is_empty(), "it never was made");
}

#[test]
fn a_shard_that_is_gone_is_made_anew_after_the_last_generation_in_the_books() {
    assert_eq!(remade(record(), GONE, history()), (Remake::Anew, 6, 50));
}

#[test]
fn a_copy_with_counts_that_the_books_lack_is_kept_as_it_is() {
    assert_eq!(remade(record(), found(6, 89, 0), history()), (Remake::Keep, 6, 40));
}

#[test]
fn a_copy_whose_counts_are_all_in_the_books_is_emptied_of_them() {
    assert_eq!(remade(record(), found(5, 80, 0), history()), (Remake::DropBooked, 6, 50));
    assert_eq!(remade(record(), found(2, 20, 0), history()), (Remake::DropBooked, 6, 50));
}

#[test]
fn a_copy_that_was_counted_on_after_it_was_put_back_knows_pulses_that_the_books_lack() {
    let mut astray = found(5, 80, 0);
    astray.positions[0].position = LogPosition { offset: 50, items: 1 };
    assert_eq!(remade(record(), astray, history()), (Remake::Anew, 6, 50));
}

#[test]
fn of_a_copy_of_before_a_recovery_nothing_is_kept() {
    let known = ShardRecord { recovery: 2, ..record() };
    let since = ShardHistory { recovered: 2, ..history() };
    for generation in [5, 6, 7] {
        assert_eq!(remade(known, found(generation, 99, 1), since.clone()), (Remake::Anew, 6, 50));
    }
    // The second one was begun, and never reached the shard.
    let before = ShardHistory { recovered: 1, ..history() };
    assert_eq!(remade(known, found(6, 89, 1), before), (Remake::Keep, 6, 40));
}

#[test]
fn what_is_no_loss_of_the_storage_is_not_mended() {
    let stranger = |mut found: FoundShard| {
        found.state.as_mut().unwrap().accumulator = AccumulatorId::from_bytes([2; 16]);
        found
    };
    let ahead = ShardRecord { flushed: 1, ..record() };
    let cases = [
        (record(), stranger(found(6, 90, 0)), "another installation"),
        (ahead, found(6, 90, 0), "older backup"),
        (record(), found(6, 90, 1), "older backup"),
    ];
    for (record, found, says) in cases {
        let fault = planned(record, found, history()).unwrap_err();
        assert!(fault.to_string().contains(says), "{fault}");
    }
}

#[test]
fn the_word_stands_for_one_loss_and_no_other() {
    let word = |record, found| planned(record, found, history()).unwrap().word();
    let gone = word(record(), GONE);
    assert_eq!((gone.len(), &gone), (8, &word(record(), GONE)));
    assert_ne!(gone, word(record(), found(5, 80, 0)));
    assert_ne!(gone, word(ShardRecord { seen: (6, 91), ..record() }, GONE));
    assert_ne!(word(record(), found(6, 88, 0)), word(record(), found(6, 89, 0)));
}

/// Of a log that the one shard has counted up to before offset 50: what its source shall remember, and what is lost.
fn returned(extent: LogExtent) -> Option<(Settled, Option<(u64, u64)>)> {
    let counted = vec![vec![LogMark { log: log(), position: LogPosition { offset: 50, items: 2 } }]];
    let back = plan::log_return(&log(), &counted, extent).unwrap()?;
    let positions: Vec<LogPosition> = counted[0].iter().map(|mark| mark.position).collect();
    let after = LogExtent { settled: Some(back.to), ..extent };
    let opened = crate::open_log::open_log(log(), &positions, after).unwrap();
    assert_eq!(opened.start, back.to.next, "the reader begins there");
    Some((back.to, back.lost))
}

#[test]
fn a_log_is_read_again_from_where_the_last_shard_is() {
    let settled = |next, first| Some(Settled { next, first });
    assert_eq!(returned(LogExtent { begin: 0, end: 90, settled: settled(50, 0) }), None);
    let back = returned(LogExtent { begin: 0, end: 90, settled: settled(70, 0) });
    assert_eq!(back, Some((Settled { next: 50, first: 0 }, None)));
    // What was before the first reading was nobody's.
    let back = returned(LogExtent { begin: 60, end: 90, settled: settled(70, 60) });
    assert_eq!(back, Some((Settled { next: 60, first: 60 }, None)));
}

#[test]
fn what_a_log_no_longer_holds_is_named_and_left_out() {
    let settled = Some(Settled { next: 70, first: 0 });
    let back = returned(LogExtent { begin: 64, end: 90, settled });
    assert_eq!(back, Some((Settled { next: 64, first: 64 }, Some((50, 64)))));
    let all = returned(LogExtent { begin: 70, end: 70, settled });
    assert_eq!(all, Some((Settled { next: 70, first: 70 }, Some((50, 70)))));
}

#[test]
fn a_log_that_is_another_one_is_told_and_not_touched() {
    let known = registration(record());
    let shorter = LogExtent { begin: 0, end: 20, settled: Some(Settled { next: 70, first: 0 }) };
    let plan = plan(&known, &known, &[GONE], &[history()], &[(log(), shorter)]).unwrap();
    assert!(plan.logs.is_empty() && plan.remarks[0].contains("made anew"), "{:?}", plan.remarks);
}

/// A source of one log, that remembers.
struct Source(Arc<Mutex<LogExtent>>);

impl Source {
    fn new(next: u64) -> Self {
        let settled = Some(Settled { next, first: 0 });
        Self(Arc::new(Mutex::new(LogExtent { begin: 0, end: 1_000, settled })))
    }

    fn port(&self) -> Arc<dyn LogSource> {
        let mut source = MockLogSource::new();
        let (read, moved) = (Arc::clone(&self.0), Arc::clone(&self.0));
        source.expect_extents().returning(move || Ok(vec![(log(), *read.lock().unwrap())]));
        source.expect_move_to().returning(move |_, to| {
            moved.lock().unwrap().settled = Some(to);
            Ok(())
        });
        Arc::new(source)
    }

    fn next(&self) -> u64 {
        self.0.lock().unwrap().settled.unwrap().next
    }
}

fn recovery(store: &Arc<MemoryAccumulator>, ledger: &MemoryLedger, source: &Source) -> RecoverStorage {
    let mut cuts = MockAccumulatorAudit::new();
    let looked_at = Arc::clone(store);
    cuts.expect_cut().returning(move |shard| {
        let state = futures_util::FutureExt::now_or_never(looked_at.another().inspect(shard)).unwrap()?;
        Ok(state.map(|state| ShardCut {
            state,
            active_rows: RowCount::default(),
            sealed: Vec::new(),
            identities: 0,
            identities_dropped: 0,
            identities_lost: 0,
        }))
    });
    RecoverStorage {
        registry: Arc::new(ledger.clone()),
        books: Arc::new(ledger.clone()),
        accumulator: Arc::new(cuts),
        storage: Arc::clone(store) as _,
        sources: vec![source.port()],
    }
}

async fn opens(store: &MemoryAccumulator, ledger: &MemoryLedger) -> Result<Registration, OpenError> {
    let other = AccumulatorId::from_bytes([9; 16]);
    open_shards(ledger, store, other, ShardCount::ONE, NOW).await
}

/// A log of single pulses is counted up to 60, of which 30 are flushed, and its source is told.
async fn counted() -> (Arc<MemoryAccumulator>, MemoryLedger, Source) {
    let store = Arc::new(MemoryAccumulator::new(Duration::from_hours(48)));
    let ledger = MemoryLedger::new();
    let program = Program::open(store.another(), ledger.clone()).await;
    program.count(0..30).await;
    program.flush(1).await;
    program.count(30..60).await;
    program.report().await;
    (store, ledger, Source::new(60))
}

#[tokio::test]
async fn after_a_loss_a_log_comes_to_what_it_would_have() {
    let (store, ledger, source) = counted().await;
    store.lose_storage();
    assert!(opens(&store.another(), &ledger).await.is_err(), "it halts");
    let recovery = recovery(&store, &ledger, &source);
    let word = recovery.look().await.unwrap().plan.word();
    let done = recovery.carry_out(&word, NOW).await.unwrap();
    assert_eq!((done.shards, source.next()), (1, 30));
    let outlook = recovery.look().await.unwrap();
    assert!(outlook.plan.is_empty() && outlook.unfinished().is_none());

    let program = Program::open(store.another(), ledger.clone()).await;
    program.count(source.next()..80).await;
    program.flush(2).await;
    assert_eq!(ledger.totals().sum().pulses, 80);
}

#[tokio::test]
async fn another_word_changes_nothing() {
    let (store, ledger, source) = counted().await;
    store.lose_storage();
    let recovery = recovery(&store, &ledger, &source);
    let error = recovery.carry_out("00000000", NOW).await.unwrap_err();
    assert!(matches!(error, RecoverError::Word { .. }), "{error}");
    assert_eq!(store.another().inspect(SHARD).await.unwrap(), None);
    assert!(recovery.look().await.unwrap().latest.is_none());
}

/// Every call of a port of the recovery, in turn, fails once: before it had an effect, or after.
#[tokio::test]
async fn a_recovery_that_is_cut_off_anywhere_is_finished_by_the_same_word() {
    for late in [false, true] {
        for cut in 0.. {
            let (store, ledger, source) = counted().await;
            store.lose_storage();
            let whole = recovery(&store, &ledger, &source);
            let word = whole.look().await.unwrap().plan.word();
            let steps = Arc::new(Steps { left: AtomicUsize::new(cut), late });
            let cut_off = RecoverStorage {
                books: Arc::new(Breaking { inner: ledger.clone(), steps: Arc::clone(&steps) }),
                storage: Arc::new(Breaking { inner: store.another(), steps }),
                ..recovery(&store, &ledger, &source)
            };
            if cut_off.carry_out(&word, NOW).await.is_ok() {
                assert!(cut > 4, "every step was cut off: {cut}");
                break;
            }
            let program = store.another();
            let halts = opens(&program, &ledger).await.is_err();
            let restored = program.inspect(SHARD).await.unwrap().is_some();
            assert!(halts || restored, "nobody counts before the shard is back");
            match whole.carry_out(&word, NOW).await {
                Ok(_) => {}
                // It had ended, and only the answer was lost.
                Err(RecoverError::Word { .. }) => assert!(whole.look().await.unwrap().plan.is_empty()),
                Err(error) => panic!("{error}"),
            }
            assert!(whole.look().await.unwrap().unfinished().is_none());
            let program = Program::open(store.another(), ledger.clone()).await;
            program.count(source.next()..80).await;
            program.flush(2).await;
            assert_eq!(ledger.totals().sum().pulses, 80, "cut off at {cut}, late: {late}");
        }
    }
}

#[tokio::test]
async fn storage_that_is_lost_again_before_the_end_needs_another_word() {
    let (store, ledger, source) = counted().await;
    let backup = store.backup();
    store.lose_storage();
    let whole = recovery(&store, &ledger, &source);
    let first = whole.look().await.unwrap().plan.word();
    let steps = Arc::new(Steps { left: AtomicUsize::new(0), late: false });
    let storage = Arc::new(Breaking { inner: store.another(), steps });
    let cut_off = RecoverStorage { storage, ..recovery(&store, &ledger, &source) };
    cut_off.carry_out(&first, NOW).await.unwrap_err();
    // In the meantime somebody has found the newest storage.
    store.put_back(&backup, SHARD);
    let error = whole.carry_out(&first, NOW).await.unwrap_err();
    assert!(matches!(error, RecoverError::Changed(SHARD)), "{error}");
    let outlook = whole.look().await.unwrap();
    assert_eq!(outlook.plan.shards[0].remake, Remake::Keep);
    assert_eq!(outlook.plan.shards[0].found.map(|at| (at.recovery, at.generation)), Some((0, 2)));
    whole.carry_out(&outlook.plan.word(), NOW).await.unwrap();
    assert_eq!(source.next(), 60, "it had counted all of it");
    let program = Program::open(store.another(), ledger.clone()).await;
    program.count(60..80).await;
    program.flush(2).await;
    assert_eq!(ledger.totals().sum().pulses, 80);
}

#[tokio::test]
async fn offsets_that_go_after_they_were_agreed_to_need_another_word() {
    let (store, ledger, source) = counted().await;
    store.lose_storage();
    let whole = recovery(&store, &ledger, &source);
    let word = whole.look().await.unwrap().plan.word();
    let steps = Arc::new(Steps { left: AtomicUsize::new(0), late: false });
    let storage = Arc::new(Breaking { inner: store.another(), steps });
    let cut_off = RecoverStorage { storage, ..recovery(&store, &ledger, &source) };
    cut_off.carry_out(&word, NOW).await.unwrap_err();
    source.0.lock().unwrap().begin = 44;
    let error = whole.carry_out(&word, NOW).await.unwrap_err();
    assert!(matches!(error, RecoverError::LostMore { from: 30, to: 44, .. }), "{error}");
    let next = whole.look().await.unwrap().plan;
    assert!(next.loss().contains(LOG) && next.loss().contains("30 to 43"), "{}", next.loss());
    whole.carry_out(&next.word(), NOW).await.unwrap();
    assert_eq!(source.next(), 44);
}

#[tokio::test]
async fn pulses_that_came_over_a_queue_are_missing_as_the_plan_says_and_no_others() {
    let store = Arc::new(MemoryAccumulator::new(Duration::from_hours(48)));
    let (ledger, source) = (MemoryLedger::new(), Source::new(0));
    let program = Program::open(store.another(), ledger.clone()).await;
    program.take((0..30).map(pulse)).await;
    program.flush(1).await;
    program.take((30..60).map(pulse)).await;
    program.report().await;
    store.lose_storage();
    let recovery = recovery(&store, &ledger, &source);
    let outlook = recovery.look().await.unwrap();
    assert_eq!((outlook.plan.shards[0].flushed, outlook.plan.shards[0].pulses), (1, 30));
    recovery.carry_out(&outlook.plan.word(), NOW).await.unwrap();
    let program = Program::open(store.another(), ledger.clone()).await;
    program.take((60..70).map(pulse)).await;
    program.flush(2).await;
    assert_eq!(ledger.totals().sum().pulses, 40);
    let state = store.another().inspect(SHARD).await.unwrap().unwrap();
    assert_eq!(state.counts.counted, 40, "as many as the books hold");
}

/// How many calls pass before one fails, and whether that one has its effect.
struct Steps {
    left: AtomicUsize,
    late: bool,
}

impl Steps {
    async fn step<T>(&self, call: impl Future<Output = Result<T, PortError>>) -> Result<T, PortError> {
        let due =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if !due {
            return call.await;
        }
        if self.late {
            call.await?;
        }
        Err(PortError::transient("step", "cut off"))
    }
}

struct Breaking<P> {
    inner: P,
    steps: Arc<Steps>,
}

#[async_trait::async_trait]
impl RecoveryBooks for Breaking<MemoryLedger> {
    async fn histories(&self, accumulator: AccumulatorId) -> Result<Vec<ShardHistory>, PortError> {
        self.inner.histories(accumulator).await
    }

    async fn latest(&self, accumulator: AccumulatorId) -> Result<Option<(Recovery, bool)>, PortError> {
        self.inner.latest(accumulator).await
    }

    async fn begin(&self, accumulator: AccumulatorId, recovery: &Recovery) -> Result<bool, PortError> {
        self.steps.step(self.inner.begin(accumulator, recovery)).await
    }

    async fn restored(&self, recovery: &crate::ports::ShardRecovery) -> Result<(), PortError> {
        self.steps.step(self.inner.restored(recovery)).await
    }

    async fn moving(
        &self,
        accumulator: AccumulatorId,
        number: u64,
        logs: &[(LogName, Settled)],
    ) -> Result<(), PortError> {
        self.steps.step(self.inner.moving(accumulator, number, logs)).await
    }

    async fn ended(&self, accumulator: AccumulatorId, number: u64) -> Result<(), PortError> {
        self.steps.step(self.inner.ended(accumulator, number)).await
    }
}

#[async_trait::async_trait]
impl ShardStorage for Breaking<MemoryAccumulator> {
    async fn log_marks(&self, shard: Shard) -> Result<Vec<LogMark>, PortError> {
        self.inner.log_marks(shard).await
    }

    async fn restore(
        &self,
        recovery: &crate::ports::ShardRecovery,
        now: Timestamp,
    ) -> Result<bool, PortError> {
        self.steps.step(self.inner.restore(recovery, now)).await
    }
}
