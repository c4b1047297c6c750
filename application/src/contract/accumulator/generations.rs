//! What happens to generations, from sealing to deletion.

use super::*;
use Outcome::Duplicate;

fn later(seconds: i64) -> Timestamp {
    Timestamp::new(START.seconds() + seconds, 5)
}

/// The sealed generation has its totals and its time; the next one is active and empty.
pub async fn sealing_opens_the_next_generation(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "307"), pulse("b", "0.9")]).await;
    let before = program.state().await;
    assert_eq!(program.sealed(1).await, None, "the active generation is not sealed");
    program.seal(1, later(60)).await;
    let state = program.state().await;
    assert_eq!((state.generation, state.deleted, state.active), (2, 0, UsageTotal::default()));
    assert!(state.sequence > before.sequence);
    let expected = SealedGeneration {
        accumulator: accumulator(),
        shard: program.shard(),
        generation: 1,
        recovery: 0,
        total: before.active,
        sealed_at: later(60),
        positions: Vec::new(),
    };
    assert_eq!(program.sealed(1).await, Some(expected));
    assert_eq!(program.sealed(2).await, None);
}

/// Compare-and-set: a second seal of the same generation does not touch the next one.
pub async fn sealing_twice_seals_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1")]).await;
    program.seal(1, later(60)).await;
    program.apply(&[pulse("b", "2")]).await;
    let (state, sealed) = (program.state().await, program.sealed(1).await);
    program.seal(1, later(120)).await;
    assert_eq!(program.state().await, state);
    assert_eq!(program.sealed(1).await, sealed);
}

/// A generation that does not exist yet cannot be sealed.
pub async fn sealing_ahead_is_refused(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let before = program.state().await;
    let error = program.store.seal(program.shard(), 2, later(60)).await.expect_err("generation 1 is active");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(program.state().await, before);
}

/// What is applied after the seal counts in the next generation.
pub async fn a_sealed_generation_changes_no_more(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let first = [pulse("a", "1"), anonymous("2")];
    program.apply(&first).await;
    program.seal(1, later(60)).await;
    let sealed = program.sealed(1).await;
    let second = [pulse("b", "3"), anonymous("4"), pulse("a", "1")];
    program.apply(&second).await;
    assert_eq!(program.sealed(1).await, sealed);
    assert_eq!(program.rows(program.shard(), 1).await, totals_of(&first));
    assert_eq!(program.rows(program.shard(), 2).await, totals_of(&second[..2]));
}

/// Also with thousands of rows, and with nothing at all.
pub async fn a_sealed_total_is_the_sum_of_its_rows(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let pulses: Vec<Pulse> = (0..12_000)
        .map(|n| with_sku(&format!("sku-{}", n % 5_000), pulse(&n.to_string(), &format!("{n}.5"))))
        .map(
            |pulse| {
                if pulse.amount.whole_units() % 2 == 0 { Pulse { identity: None, ..pulse } } else { pulse }
            },
        )
        .collect();
    for batch in pulses.chunks(3_000) {
        program.apply(batch).await;
    }
    program.seal(1, later(60)).await;
    let rows = program.rows(program.shard(), 1).await;
    assert_eq!(rows, totals_of(&pulses));
    assert_eq!(program.sealed(1).await.map(|sealed| sealed.total), Some(rows.sum()));
    program.seal(2, later(120)).await;
    assert_eq!(program.sealed(2).await.map(|sealed| sealed.total), Some(UsageTotal::default()));
    assert!(program.rows(program.shard(), 2).await.is_empty());
}

/// A copy that comes after the flush is still a copy.
pub async fn identities_outlive_their_generation(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1")]).await;
    for generation in 1..4 {
        program.seal(generation, later(i64::try_from(generation).expect("small"))).await;
        let sealed = program.sealed(generation).await.expect("it is sealed");
        program.store.delete(&sealed).await.expect("it is deleted");
        assert_eq!(program.apply(&[pulse("a", "1")]).await, [Duplicate]);
    }
    assert!(program.totals().await.is_empty());
}

/// Deleting again does nothing, later generations stay.
pub async fn deleting_removes_a_generation_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1"), anonymous("0.25")]).await;
    program.seal(1, later(60)).await;
    program.apply(&[pulse("b", "2")]).await;
    let sealed = program.sealed(1).await.expect("it is sealed");
    let before = program.state().await;
    program.store.delete(&sealed).await.expect("it is deleted");
    let state = program.state().await;
    assert_eq!((state.generation, state.deleted, state.active), (2, 1, before.active));
    assert!(state.sequence > before.sequence);
    assert_eq!(program.sealed(1).await, None);
    assert!(program.rows(program.shard(), 1).await.is_empty());
    program.store.delete(&sealed).await.expect("deleting again does nothing");
    assert_eq!(program.state().await, state);
    assert_eq!(program.rows(program.shard(), 2).await, totals_of([&pulse("b", "2")]));
}

/// The second generation waits for the first.
pub async fn deleting_out_of_order_is_refused(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    for generation in 1..=2 {
        program.apply(&[anonymous("1")]).await;
        program.seal(generation, later(60)).await;
    }
    let second = program.sealed(2).await.expect("it is sealed");
    let before = program.state().await;
    let error = program.store.delete(&second).await.expect_err("generation 1 is still there");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(program.state().await, before);
    assert_eq!(program.rows(program.shard(), 2).await, totals_of([&anonymous("1")]));
}

/// Totals that are not those of the generation, or another accumulator: somebody's books are wrong.
pub async fn deleting_other_totals_is_refused(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[anonymous("1")]).await;
    program.seal(1, later(60)).await;
    let sealed = program.sealed(1).await.expect("it is sealed");
    let before = program.state().await;
    let wrong = [
        SealedGeneration { total: UsageTotal { pulses: 2, ..sealed.total }, ..sealed.clone() },
        SealedGeneration { total: UsageTotal { amount: units(2), ..sealed.total }, ..sealed.clone() },
        SealedGeneration { accumulator: AccumulatorId::from_bytes([9; 16]), ..sealed.clone() },
    ];
    for wrong in wrong {
        let error = program.store.delete(&wrong).await.expect_err("the totals differ");
        assert!(!error.is_transient(), "{error}");
    }
    assert_eq!(program.state().await, before);
    assert_eq!(program.sealed(1).await, Some(sealed));
    assert_eq!(program.rows(program.shard(), 1).await, totals_of([&anonymous("1")]));
}

/// What is not sealed is not in any ledger.
pub async fn deleting_the_active_generation_is_refused(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[anonymous("1")]).await;
    let active = SealedGeneration {
        accumulator: accumulator(),
        shard: program.shard(),
        generation: 1,
        recovery: 0,
        total: program.state().await.active,
        sealed_at: START,
        positions: Vec::new(),
    };
    let error = program.store.delete(&active).await.expect_err("it is active");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(program.totals().await, totals_of([&anonymous("1")]));
}

/// Marks name each opened shard, and never go back.
pub async fn marks_follow_the_shard(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let mark = || {
        let marks = program.store.marks();
        assert_eq!(marks.len(), usize::from(program.shards.get()));
        *marks.iter().find(|mark| mark.shard == program.shard()).expect("the shard was opened")
    };
    let made = mark();
    assert_eq!(made.generation, 1);
    program.apply(&[pulse("a", "1")]).await;
    let applied = mark();
    assert!(applied.sequence > made.sequence);
    program.apply(&[pulse("a", "1")]).await;
    assert!(mark().sequence >= applied.sequence);
    program.seal(1, later(60)).await;
    let state = program.state().await;
    assert_eq!((mark().generation, mark().sequence), (2, state.sequence));
}
