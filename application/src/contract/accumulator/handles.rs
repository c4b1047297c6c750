//! Two programs on one store. Where the store is for one program only, these hold trivially.

use super::*;
use Outcome::{Counted, Duplicate};
use futures_util::future::{join, join_all};

/// A redelivery may reach another worker.
pub async fn two_handles_count_a_pulse_once(fixture: &impl AccumulatorFixture) {
    let first = Program::first(fixture).await;
    let Some(second) = Program::second(fixture).await else { return };
    assert_eq!(first.apply(&[pulse("a", "1")]).await, [Counted]);
    assert_eq!(second.apply(&[pulse("a", "1"), pulse("b", "2")]).await, [Duplicate, Counted]);
    assert_eq!(first.apply(&[pulse("b", "2")]).await, [Duplicate]);
    let expected = totals_of([&pulse("a", "1"), &pulse("b", "2")]);
    assert_eq!(first.totals().await, expected);
    assert_eq!(second.totals().await, expected);
}

/// Both apply the same pulses in different order, and each pulse counts for one of them.
pub async fn two_handles_count_at_the_same_time(fixture: &impl AccumulatorFixture) {
    let first = Program::first(fixture).await;
    let Some(second) = Program::second(fixture).await else { return };
    let pulses: Vec<Pulse> = (0..500)
        .map(|n| with_sku(&format!("sku-{}", n % 7), pulse(&n.to_string(), &format!("{n}.1"))))
        .collect();
    let backwards: Vec<Pulse> = pulses.iter().rev().cloned().collect();
    let run = async |program: &Program<_>, pulses: &[Pulse]| {
        let mut counted = 0;
        for batch in pulses.chunks(20) {
            counted += program.apply(batch).await.iter().filter(|outcome| **outcome == Counted).count();
        }
        counted
    };
    let (left, right) = join(run(&first, &pulses), run(&second, &backwards)).await;
    assert_eq!(left + right, pulses.len());
    assert_eq!(first.totals().await, totals_of(&pulses));
}

/// A cron seals while a worker, which does not know of it, goes on.
pub async fn a_seal_by_another_handle_loses_nothing(fixture: &impl AccumulatorFixture) {
    let worker = Program::first(fixture).await;
    let Some(cron) = Program::second(fixture).await else { return };
    let mut expected = UsageTotals::default();
    for round in 1..=5_u64 {
        let pulses = [pulse(&round.to_string(), "1.5"), anonymous("2")];
        assert_eq!(worker.apply(&pulses).await, [Counted, Counted]);
        for pulse in &pulses {
            expected.add(pulse);
        }
        let apply = worker.apply(&pulses[1..]);
        join(cron.seal(round, START), apply).await;
        expected.add(&pulses[1]);
    }
    assert_eq!(worker.state().await.generation, 6);
    assert_eq!(worker.totals().await, expected);
    assert_eq!(cron.totals().await, expected);
}

/// Two crons at once do the work of one.
pub async fn two_handles_may_seal_and_delete_together(fixture: &impl AccumulatorFixture) {
    let first = Program::first(fixture).await;
    let Some(second) = Program::second(fixture).await else { return };
    first.apply(&[pulse("a", "1")]).await;
    join(first.seal(1, START), second.seal(1, START)).await;
    assert_eq!(first.state().await.generation, 2);
    let sealed = first.sealed(1).await.expect("it is sealed");
    assert_eq!(second.sealed(1).await.as_ref(), Some(&sealed));
    let deleted = join_all([first.store.delete(&sealed), second.store.delete(&sealed)]).await;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    assert_eq!(second.state().await.deleted, 1);
}

/// Each program numbers its own batches.
pub async fn batch_numbers_of_two_handles_do_not_meet(fixture: &impl AccumulatorFixture) {
    let first = Program::first(fixture).await;
    let Some(second) = Program::second(fixture).await else { return };
    let (left, right) = (first.batch(&[anonymous("1")]), second.batch(&[anonymous("1")]));
    assert_eq!(left, right);
    assert_eq!(first.store.apply(&left).await.expect("it is applied"), [Counted]);
    assert_eq!(second.store.apply(&right).await.expect("it is applied"), [Counted]);
    assert_eq!(first.store.apply(&left).await.expect("it is repeated"), [Counted]);
    assert_eq!(first.total_of(&left.pulses[0].key()).await, UsageTotal { amount: units(2), pulses: 2 });
}
