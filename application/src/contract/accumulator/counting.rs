//! Which pulses count.

use super::*;
use Outcome::{Conflict, Counted, Duplicate};

/// A shard that was just made holds nothing and counts into generation 1.
pub async fn a_new_shard_is_empty(fixture: &impl AccumulatorFixture) {
    let store = fixture.first().await;
    let shard = Shard(0);
    assert_eq!(store.inspect(shard).await.expect("an absent shard can be asked for"), None);
    assert_eq!(store.marks(), []);
    let birth = ShardBirth { accumulator: accumulator(), shards: fixture.shards(), now: START };
    let state = store.create(shard, birth).await.expect("a shard can be made");
    assert_eq!((state.accumulator, state.shards), (accumulator(), fixture.shards()));
    assert_eq!((state.generation, state.deleted, state.active), (1, 0, UsageTotal::default()));
    assert_eq!(store.inspect(shard).await.expect("the shard can be read"), Some(state));
    assert_eq!(store.read(shard, 1, 0).await.expect("it can be read").0, []);
}

/// Making a shard that is there returns where it stands, and leaves it to its accumulator.
pub async fn making_a_shard_again_changes_nothing(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1")]).await;
    let before = program.state().await;
    let other = AccumulatorId::from_bytes([9; 16]);
    let birth = ShardBirth { accumulator: other, shards: program.shards, now: START };
    let answer = program.store.create(program.shard(), birth).await.expect("the shard is answered");
    assert_eq!(answer, before);
    assert_eq!(program.state().await, before);
}

/// Without having seen the shard nothing could tell whether its storage was lost.
pub async fn a_shard_that_was_not_opened_is_refused(fixture: &impl AccumulatorFixture) {
    let store = fixture.first().await;
    let shard = fixture.shards().shard_of(&anonymous("1").tenant);
    let batch = Batch { shard, number: 1, pulses: vec![anonymous("1")], stretches: Vec::new() };
    let error = store.apply(&batch).await.expect_err("the shard was not opened");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(store.inspect(shard).await.expect("an absent shard can be asked for"), None);
}

/// A batch without pulses is no change.
pub async fn an_empty_batch_changes_nothing(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let before = program.state().await;
    let batch = Batch {
        shard: program.shard(),
        number: program.next_number(),
        pulses: Vec::new(),
        stretches: Vec::new(),
    };
    assert_eq!(program.store.apply(&batch).await.expect("nothing is applied"), []);
    assert_eq!(program.state().await, before);
}

/// In later batches, under the same number or another.
pub async fn a_redelivered_pulse_is_counted_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let pulses = [pulse("a", "307"), pulse("b", "0.9")];
    assert_eq!(program.apply(&pulses).await, [Counted, Counted]);
    assert_eq!(program.apply(&pulses).await, [Duplicate, Duplicate]);
    assert_eq!(program.apply(&[pulse("c", "1"), pulse("a", "307.0")]).await, [Counted, Duplicate]);
    let total = program.total_of(&pulses[0].key()).await;
    assert_eq!((total.amount.to_string().as_str(), total.pulses), ("308.9", 3));
    assert_eq!(program.state().await.active, total);
}

/// Of two pulses of a batch with one identity the first counts.
pub async fn a_pulse_twice_in_a_batch_is_counted_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let batch = [pulse("a", "1"), pulse("a", "1"), pulse("b", "2"), pulse("a", "3"), pulse("a", "1")];
    assert_eq!(program.apply(&batch).await, [Counted, Duplicate, Counted, Conflict, Duplicate]);
    assert_eq!(program.total_of(&batch[0].key()).await, UsageTotal { amount: units(3), pulses: 2 });
    // Once the identity is known, the rest of the batch is held against what the store has, not against the batch.
    let batch = [pulse("a", "3"), pulse("a", "1"), pulse("a", "3")];
    assert_eq!(program.apply(&batch).await, [Conflict, Duplicate, Conflict]);
    assert_eq!(program.total_of(&batch[0].key()).await, UsageTotal { amount: units(3), pulses: 2 });
}

/// Every part of the content matters, and the first content stays.
pub async fn an_identity_with_other_content_is_a_conflict(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let first = pulse("a", "1");
    let others = [
        pulse("a", "2"),
        with_sku("other", pulse("a", "1")),
        Pulse { use_unity: UsageUnit::new("MB").expect("a valid unit"), ..pulse("a", "1") },
        Pulse { occurred_at: Some(START), ..pulse("a", "1") },
    ];
    assert_eq!(program.apply(std::slice::from_ref(&first)).await, [Counted]);
    assert_eq!(program.apply(&others).await, [Conflict; 4]);
    program.seal_active(START).await;
    assert_eq!(program.apply(&others).await, [Conflict; 4]);
    // The hour of arrival is not content: a copy may arrive in the next hour.
    let late = Pulse { hour: HourWindow::from_number(first.hour.number() + 1), ..first.clone() };
    assert_eq!(program.apply(&[late]).await, [Duplicate]);
    assert_eq!(program.totals().await, totals_of([&first]));
}

/// Two tenants may use the same id, and an id is not a message id.
pub async fn identities_belong_to_their_tenant(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let message =
        Pulse { identity: Some(PulseIdentity::Message { id: "a".into(), item: 0 }), ..anonymous("1") };
    let event = Pulse {
        identity: Some(PulseIdentity::CloudEvent { source: "s".into(), id: "a".into() }),
        ..anonymous("1")
    };
    let pulses = [pulse("a", "1"), with_tenant("another", pulse("a", "1")), message, event];
    assert_eq!(program.apply_all(&pulses).await, [Counted; 4]);
    assert_eq!(program.apply_all(&pulses).await, [Duplicate; 4]);
    assert_eq!(program.totals().await, totals_of(&pulses));
}

/// Outcomes come in the order of the pulses, whatever stands between them.
pub async fn a_batch_mixes_every_outcome(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1"), pulse("b", "1")]).await;
    let batch = [
        anonymous("5"),
        pulse("b", "1"),
        pulse("c", "7"),
        anonymous("5"),
        pulse("a", "9"),
        pulse("c", "8"),
        pulse("d", "2"),
        pulse("c", "7"),
    ];
    let expected = [Counted, Duplicate, Counted, Counted, Conflict, Conflict, Counted, Duplicate];
    assert_eq!(program.apply(&batch).await, expected);
    let total = program.total_of(&batch[0].key()).await;
    assert_eq!(total, UsageTotal { amount: units(2 + 5 + 7 + 5 + 2), pulses: 6 });
    assert_eq!(program.state().await.active, total);
}

/// A repetition after an unknown outcome keeps the number of the batch: pulses without identity are known by it.
pub async fn a_repeated_batch_is_counted_once(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let batch = program.batch(&[anonymous("1"), pulse("a", "2"), anonymous("1"), pulse("a", "3")]);
    let apply = async || program.store.apply(&batch).await.expect("the batch is applied");
    assert_eq!(apply().await, [Counted, Counted, Counted, Conflict]);
    let again = apply().await;
    assert_eq!((again[0], again[2], again[3]), (Counted, Counted, Conflict));
    assert_ne!(again[1], Conflict);
    program.seal_active(START).await;
    apply().await;
    let expected = UsageTotal { amount: units(4), pulses: 3 };
    assert_eq!(program.total_of(&batch.pulses[0].key()).await, expected);
    // The same pulses under a new number are new ones, as far as anybody can know.
    assert_eq!(program.apply(&batch.pulses).await, [Counted, Duplicate, Counted, Conflict]);
    let expected = UsageTotal { amount: units(6), pulses: 5 };
    assert_eq!(program.total_of(&batch.pulses[0].key()).await, expected);
}

/// A repeated batch adds nothing to the counts, and a seal takes nothing from them.
pub async fn a_shard_knows_what_became_of_all_its_pulses(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    assert_eq!(program.state().await.counts, ShardCounts::default());
    let batch =
        program.batch(&[anonymous("1"), pulse("a", "1"), pulse("a", "1"), pulse("a", "2"), anonymous("1")]);
    for _ in 0..2 {
        program.store.apply(&batch).await.expect("the batch is applied");
        let expected = ShardCounts { counted: 3, duplicates: 2, anonymous: 2 };
        assert_eq!(program.state().await.counts, expected);
    }
    program.seal_active(START).await;
    program.apply(&[pulse("a", "1"), pulse("a", "2"), pulse("b", "1")]).await;
    let state = program.state().await;
    assert_eq!(state.counts, ShardCounts { counted: 4, duplicates: 4, anonymous: 2 });
    assert_eq!(state.active.pulses, 1);
}

/// Each pulse of its own key and identity, then all of them again.
pub async fn a_batch_of_the_largest_size_is_counted(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let pulses: Vec<Pulse> = (0..Batch::PULSES_MAX)
        .map(|n| with_sku(&format!("sku-{n}"), pulse(&format!("id-{n}"), &format!("{}.000000001", n + 1))))
        .collect();
    assert!(program.apply(&pulses).await.iter().all(|outcome| *outcome == Counted));
    assert_eq!(program.totals().await, totals_of(&pulses));
    assert!(program.apply(&pulses).await.iter().all(|outcome| *outcome == Duplicate));
    assert_eq!(program.totals().await, totals_of(&pulses));
}

/// One pulse too many, or one unit too many: nothing of it is counted.
pub async fn a_batch_that_is_too_large_is_refused(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let before = program.state().await;
    let largest = anonymous("9999999999999999.999999999");
    let too_much =
        usize::try_from(Batch::UNITS_MAX / largest.amount.whole_units()).expect("a few hundred") + 1;
    for pulses in [vec![anonymous("1"); Batch::PULSES_MAX + 1], vec![largest; too_much]] {
        let error = program.store.apply(&program.batch(&pulses)).await.expect_err("the batch is too large");
        assert!(!error.is_transient(), "{error}");
    }
    assert_eq!(program.state().await, before);
}
