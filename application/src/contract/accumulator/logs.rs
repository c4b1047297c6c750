//! Places in logs as identities.

use super::{exactness::Dice, *};
use crate::ports::{LogAccount, LogBalance, LogMark, LogStep, LogStretch};
use domain::{LogName, LogPosition};

fn log(name: &str) -> LogName {
    LogName::of(&["contract", name, "0"]).expect("a valid name")
}

fn at(offset: u64, items: u32) -> LogPosition {
    LogPosition { offset, items }
}

/// One anonymous pulse a message, of one unit each, at these offsets.
fn ones(offsets: std::ops::Range<u64>) -> Vec<(LogPosition, Pulse)> {
    offsets.map(|offset| (at(offset, 0), anonymous("1"))).collect()
}

/// A stretch with the pulses of a batch, which are all of the stretch.
fn stretch(name: &str, from: LogPosition, pulses: &[(LogPosition, Pulse)]) -> LogStretch {
    let to = pulses.last().map_or(from, |(place, _)| place.after_pulse()).max(from);
    let pulses = pulses.iter().enumerate().map(|(index, (place, _))| (index, *place)).collect();
    LogStretch { log: log(name), from, to, pulses }
}

impl<S: PulseSink + AccumulatorShards + GenerationStore + LogPositions> Program<S> {
    /// A batch of pulses of one log, of the shard of [`TENANT`].
    fn log_batch(&self, name: &str, from: LogPosition, pulses: &[(LogPosition, Pulse)]) -> Batch {
        let stretches = vec![stretch(name, from, pulses)];
        let pulses = pulses.iter().map(|(_, pulse)| pulse.clone()).collect();
        Batch { shard: self.shard(), number: self.next_number(), pulses, stretches }
    }

    async fn apply_log(
        &self,
        name: &str,
        from: LogPosition,
        pulses: &[(LogPosition, Pulse)],
    ) -> Vec<Outcome> {
        self.store.apply(&self.log_batch(name, from, pulses)).await.expect("the batch is applied")
    }

    /// Moves the shard on without a pulse.
    async fn pass_log(&self, name: &str, from: LogPosition, to: LogPosition) {
        let stretches = vec![LogStretch { log: log(name), from, to, pulses: Vec::new() }];
        let (shard, number) = (self.shard(), self.next_number());
        let batch = Batch { shard, number, pulses: Vec::new(), stretches };
        assert_eq!(self.store.apply(&batch).await.expect("the batch is applied"), []);
    }

    /// How far the shard of [`TENANT`] has counted the log.
    async fn position(&self, name: &str) -> LogPosition {
        let positions = self.store.positions(&log(name)).await.expect("the positions can be read");
        assert_eq!(positions.len(), usize::from(self.shards.get()), "one position a shard");
        positions[usize::from(self.shard().0)]
    }

    async fn counted(&self) -> UsageTotal {
        self.total_of(&anonymous("1").key()).await
    }
}

/// Pulses without any identity but their places are counted once, however often the log is read.
pub async fn a_place_in_a_log_is_counted_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let pulses = ones(0..5);
    assert_eq!(program.position("a").await, LogPosition::START);
    assert_eq!(program.apply_log("a", LogPosition::START, &pulses).await, [Outcome::Counted; 5]);
    assert_eq!(program.position("a").await, at(4, 1));
    assert_eq!(program.apply_log("a", LogPosition::START, &pulses).await, [Outcome::Duplicate; 5]);
    let overlapping = ones(3..7);
    let outcomes = program.apply_log("a", at(3, 0), &overlapping).await;
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Duplicate, Outcome::Counted, Outcome::Counted]);
    assert_eq!(program.counted().await, UsageTotal { amount: units(7), pulses: 7 });
}

/// The same place in another log is another pulse; the other shards have counted nothing of either.
pub async fn logs_do_not_mix_up(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    for name in ["a", "b"] {
        assert_eq!(program.apply_log(name, LogPosition::START, &ones(0..2)).await, [Outcome::Counted; 2]);
    }
    // And both in one batch, beside a pulse of a queue.
    let pulses = vec![anonymous("1"), anonymous("1"), anonymous("1"), anonymous("1")];
    let stretches = [("a", vec![(0, at(1, 0)), (3, at(2, 0))]), ("b", vec![(2, at(2, 0))])]
        .map(|(name, pulses)| LogStretch { log: log(name), from: at(1, 1), to: at(2, 1), pulses });
    let (shard, number) = (program.shard(), program.next_number());
    let batch = Batch { shard, number, pulses, stretches: stretches.into() };
    let outcomes = program.store.apply(&batch).await.expect("the batch is applied");
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Counted, Outcome::Counted, Outcome::Counted]);
    assert_eq!(program.counted().await.pulses, 7);
    let others = program.store.positions(&log("a")).await.expect("the positions can be read");
    let moved = others.iter().filter(|position| **position > LogPosition::START).count();
    assert_eq!(moved, 1, "a shard without pulses of the log is at its start");
}

/// A message may be split between batches: the position counts its items.
pub async fn items_of_one_message_have_places_of_their_own(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let message: Vec<_> = [1, 4, 7, 9].map(|item| (at(5, item), anonymous("1"))).into();
    assert_eq!(program.apply_log("a", LogPosition::START, &message[..2]).await, [Outcome::Counted; 2]);
    assert_eq!(program.position("a").await, at(5, 5));
    let outcomes = program.apply_log("a", LogPosition::START, &message).await;
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Duplicate, Outcome::Counted, Outcome::Counted]);
    assert_eq!(program.counted().await.pulses, 4);
}

/// A shard that is not where it was seen has lost what it counted: nothing more is written to it.
pub async fn a_gap_is_refused_and_nothing_is_written(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply_log("a", LogPosition::START, &ones(0..3)).await;
    let before = program.state().await;
    for batch in [
        program.log_batch("a", at(3, 0), &ones(3..5)),
        program.log_batch("b", at(0, 1), &[]),
        program.log_batch("b", at(7, 0), &ones(7..8)),
    ] {
        let error = program.store.apply(&batch).await.expect_err("there is a gap");
        assert!(!error.is_transient(), "{error}");
    }
    assert_eq!(program.state().await, before);
    assert_eq!(program.position("a").await, at(2, 1));
    assert_eq!(program.position("b").await, LogPosition::START);
}

/// A shard moves on where it had nothing to count, and never back.
pub async fn a_shard_passes_what_holds_nothing_for_it(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.pass_log("a", LogPosition::START, at(10, 0)).await;
    assert_eq!(program.position("a").await, at(10, 0));
    program.pass_log("a", at(3, 0), at(5, 0)).await;
    assert_eq!(program.position("a").await, at(10, 0));
    let pulses = ones(8..12);
    let outcomes = program.apply_log("a", at(8, 0), &pulses).await;
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Duplicate, Outcome::Counted, Outcome::Counted]);
    assert_eq!(program.counted().await.pulses, 2);
}

/// A repetition after a lost answer keeps its number, and moves nothing twice.
pub async fn a_repeated_batch_of_a_log_is_counted_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let batch = program.log_batch("a", LogPosition::START, &ones(0..3));
    for _ in 0..2 {
        assert_eq!(program.store.apply(&batch).await.expect("the batch is applied").len(), 3);
    }
    assert_eq!(program.counted().await.pulses, 3);
    assert_eq!(program.position("a").await, at(2, 1));
}

/// Pulses with ids at other places are copies as on a queue.
pub async fn a_copy_at_another_place_is_known_by_its_id(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let pulses = [(at(0, 0), pulse("x", "1")), (at(1, 0), pulse("x", "1")), (at(2, 0), pulse("y", "1"))];
    let outcomes = program.apply_log("a", LogPosition::START, &pulses).await;
    assert_eq!(outcomes, [Outcome::Counted, Outcome::Duplicate, Outcome::Counted]);
    let outcomes = program.apply_log("b", LogPosition::START, &pulses[2..]).await;
    assert_eq!(outcomes, [Outcome::Duplicate], "in another log as well");
    assert_eq!(program.counted().await.pulses, 2);
}

/// Whoever counted may have died before its conflict was in the dead letters: the next reader must hear of it too.
pub async fn a_conflict_in_a_log_stays_one(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let pulses = [
        (at(0, 0), pulse("x", "1")),
        (at(1, 0), pulse("x", "2")),
        (at(2, 0), anonymous("1")),
        (at(3, 0), pulse("z", "1")),
    ];
    let expected = [Outcome::Counted, Outcome::Conflict, Outcome::Counted];
    assert_eq!(program.apply_log("a", LogPosition::START, &pulses[..3]).await, expected);
    let again = program.apply_log("a", LogPosition::START, &pulses).await;
    assert_eq!(again, [Outcome::Duplicate, Outcome::Conflict, Outcome::Duplicate, Outcome::Counted]);
    assert_eq!(program.counted().await, UsageTotal { amount: units(3), pulses: 3 });
}

/// What a ledger is given with the counts says how far they go.
pub async fn sealing_keeps_the_positions_of_its_moment(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply_log("b", LogPosition::START, &ones(0..2)).await;
    program.apply_log("a", LogPosition::START, &ones(0..4)).await;
    program.seal(1, START).await;
    program.apply_log("a", at(3, 1), &ones(4..6)).await;
    let mark = |name, position| LogMark { log: log(name), position };
    let sealed = program.sealed(1).await.expect("it is sealed");
    assert_eq!(sealed.positions, [mark("a", at(3, 1)), mark("b", at(1, 1))]);
    assert_eq!(program.position("a").await, at(5, 1), "positions outlive their generation");
    program.store.delete(&sealed).await.expect("it is deleted");
    program.seal(2, START).await;
    let sealed = program.sealed(2).await.expect("it is sealed");
    assert_eq!(sealed.positions, [mark("a", at(5, 1)), mark("b", at(1, 1))]);
}

/// Readers that crash, start again from where they had settled, and overlap with ones that do not know that they were
/// replaced: every pulse of the log counts once.
pub async fn any_readers_of_a_log_count_each_pulse_once(fixture: &impl AccumulatorFixture) {
    const LENGTH: u64 = 120;
    let first = Program::first(fixture).await;
    let second = Program::second(fixture).await;
    let programs = [Some(&first), second.as_ref()].map(|program| program.unwrap_or(&first));
    for seed in 0..8_u64 {
        let name = format!("log-{seed}");
        let mut dice = Dice(seed + 1);
        let (mut settled, mut readers) = (0, [0_u64; 2]);
        let before = first.counted().await.pulses;
        while readers.iter().all(|reader| *reader < LENGTH) {
            let which = dice.index(2);
            if dice.below(6) == 0 {
                readers[which] = settled;
            }
            let (from, to) = (readers[which], (readers[which] + 1 + dice.below(9)).min(LENGTH));
            let program = programs[which];
            let outcomes = program.apply_log(&name, at(from, 0), &ones(from..to)).await;
            let passed = outcomes.iter().take_while(|outcome| **outcome == Outcome::Duplicate).count();
            assert!(outcomes[passed..].iter().all(|outcome| *outcome == Outcome::Counted), "{outcomes:?}");
            program.pass_log(&name, at(from, 0), at(to, 0)).await;
            readers[which] = to;
            if dice.below(3) == 0 {
                settled = settled.max(to);
            }
        }
        assert_eq!(first.counted().await.pulses - before, LENGTH, "seed {seed}");
    }
}

/// The balance of each account, by its log.
async fn balances(store: &impl LogAccounts) -> BTreeMap<LogName, LogBalance> {
    let balances = store.balances().await.expect("the accounts can be read");
    balances.into_iter().map(|balance| (balance.log.clone(), balance)).collect()
}

/// Whoever repeats a step, or takes one from where the account does not stand, changes nothing.
pub async fn an_account_of_a_log_takes_each_step_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let (store, a) = (program.store.as_ref(), log("a"));
    let settle = async |step| store.settle(&a, step).await;
    let step = LogStep { from: 7, to: 9, received: 5, refused: 2 };
    let error = settle(step).await.expect_err("there is no account");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(store.open(&a, 7).await.expect("it is opened"), Some(7));
    for _ in 0..2 {
        assert_eq!(settle(step).await.expect("the step is taken"), 9);
    }
    assert_eq!(store.open(&a, 3).await.expect("it is there"), Some(9));
    assert_eq!(settle(LogStep { from: 8, to: 12, ..step }).await.expect("it is refused"), 9);
    assert_eq!(settle(LogStep { from: 9, to: 10, received: 1, refused: 0 }).await.expect("it is taken"), 10);
    let balances = balances(store).await;
    assert_eq!(balances.len(), 1);
    let account = LogAccount { next: 10, received: 6, refused: 2 };
    assert_eq!(balances[&a], LogBalance { log: a.clone(), account, taken: 0 });
    assert_eq!((balances[&a].missing(), balances[&a].ahead()), (4, 0));
}

/// What comes again to a shard that is further is not taken by it: the account would miss it for ever.
pub async fn an_account_of_a_log_is_opened_where_no_shard_is_further(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply_log("a", LogPosition::START, &ones(0..3)).await;
    let (store, a) = (program.store.as_ref(), log("a"));
    assert_eq!(store.open(&a, 0).await.expect("it is refused"), None);
    assert_eq!(store.open(&a, 2).await.expect("it is refused"), None);
    assert_eq!(balances(store).await.len(), 0);
    assert_eq!(store.open(&a, 3).await.expect("it is opened"), Some(3));
    let account = LogAccount { next: 3, received: 3, refused: 0 };
    let balance = LogBalance { log: a.clone(), account, taken: 3 };
    assert_eq!(balances(store).await[&a], balance, "what was taken before was received before");
}

/// Each place once, whatever becomes of the pulse, and over all shards.
pub async fn what_shards_take_of_a_log_is_told_beside_its_account(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    for name in ["a", "b"] {
        program.store.open(&log(name), 0).await.expect("it is opened");
    }
    let mut pulses = ones(0..3);
    pulses.push((at(3, 0), pulse("id", "1")));
    pulses.push((at(4, 0), pulse("id", "1")));
    pulses.push((at(5, 0), pulse("id", "2")));
    let batch = program.log_batch("a", LogPosition::START, &pulses);
    for _ in 0..2 {
        program.store.apply(&batch).await.expect("it is applied");
    }
    program.apply_log("a", LogPosition::START, &ones(0..3)).await;
    program.apply_log("a", at(2, 0), &ones(2..8)).await;
    program.pass_log("a", at(7, 1), at(20, 0)).await;
    program.apply(&[anonymous("1")]).await;
    program.seal_active(START).await;
    let balances = balances(program.store.as_ref()).await;
    assert_eq!((balances[&log("a")].taken, balances[&log("b")].taken), (8, 0));
    assert_eq!((balances[&log("a")].missing(), balances[&log("a")].ahead()), (0, 8));
    let other = program.shards.shards().find(|shard| *shard != program.shard());
    if let Some(other) = other {
        let stretches = vec![stretch("b", LogPosition::START, &ones(0..2))];
        let pulses = vec![anonymous("1"), anonymous("1")];
        let batch = Batch { shard: other, number: program.next_number(), pulses, stretches };
        program.store.apply(&batch).await.expect("it is applied");
        assert_eq!(self::balances(program.store.as_ref()).await[&log("b")].taken, 2);
    }
}
