//! That sums are exact, whatever was known and whatever the names hold.

use super::*;
use Outcome::{Conflict, Counted, Duplicate};

/// `a:b` and `c` is another key than `a` and `b:c`; no character means anything.
pub async fn separators_in_names_do_not_mix_up_usage(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let named = |tenant: &str, sku: &str, unit: &str, hour: i32| Pulse {
        tenant: TenantId::new(tenant).expect("a valid tenant"),
        product_sku: ProductSku::new(sku).expect("a valid SKU"),
        use_unity: UsageUnit::new(unit).expect("a valid unit"),
        hour: HourWindow::from_number(hour),
        ..pulse(&format!("{tenant}/{sku}/{unit}/{hour}"), "1")
    };
    let long = "x".repeat(domain::TEXT_BYTES_MAX);
    let pulses = [
        named("a:b", "c", "u", 0),
        named("a", "b:c", "u", 0),
        named("a", "b", "c:u", 0),
        named("}{", "*?[", "%", 0),
        named("}{", "*?[", "%", -1),
        named("\u{1f600}", "\\", "\"", i32::MAX),
        named(&long, &long, &long, i32::MIN),
        named(" ", "'", "$", 7),
    ];
    assert_eq!(program.apply_all(&pulses).await, [Counted; 8]);
    let totals = program.totals().await;
    assert_eq!(totals, totals_of(&pulses));
    assert_eq!(totals.len(), pulses.len());
}

/// No double on the way, and nanos carry over into units.
pub async fn sums_are_exact_to_the_last_digit(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let amounts = [
        "9007199254740993",
        "9999999999999999.999999999",
        "0.999999999",
        "0.000000001",
        "0.1",
        "0.2",
        "1",
        "9007199254740993.000000001",
    ];
    let pulses: Vec<Pulse> = (0..1_000)
        .map(|n| {
            let amount = pulse(&n.to_string(), amounts[n % amounts.len()]);
            if n % 3 == 0 { with_sku(amounts[n % amounts.len()], amount) } else { amount }
        })
        .collect();
    for batch in pulses.chunks(100) {
        program.apply(batch).await;
    }
    assert_eq!(program.totals().await, totals_of(&pulses));
}

/// One half of each batch was counted before, under amounts whose doubles are not exact.
pub async fn known_pulses_are_taken_back_exactly(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let numbered = |n: usize| {
        let amount = format!("{}.{:09}", 9_007_199_254_740_993 + n, 999_999_999 - n);
        with_sku(&format!("sku-{}", n % 5), pulse(&n.to_string(), &amount))
    };
    let even: Vec<Pulse> = (0..200).step_by(2).map(numbered).collect();
    let all: Vec<Pulse> = (0..200).map(numbered).collect();
    assert_eq!(program.apply(&even).await, [Counted; 100]);
    let outcomes = program.apply(&all).await;
    assert!(outcomes.iter().step_by(2).all(|outcome| *outcome == Duplicate));
    assert!(outcomes.iter().skip(1).step_by(2).all(|outcome| *outcome == Counted));
    assert_eq!(program.totals().await, totals_of(&all));
    let active = program.state().await.active;
    assert_eq!((active.pulses, active.amount), (200, totals_of(&all).sum().amount));
}

/// No row appears for usage that did not count.
pub async fn a_key_of_known_pulses_only_has_no_row(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    program.apply(&[pulse("a", "1"), pulse("b", "0.5")]).await;
    program.seal_active(START).await;
    let batch =
        [pulse("a", "1"), with_sku("conflicting", pulse("b", "0.5")), with_sku("new", pulse("c", "2"))];
    assert_eq!(program.apply(&batch).await, [Duplicate, Conflict, Counted]);
    assert_eq!(program.rows(program.shard(), 2).await, totals_of([&batch[2]]));
}

/// What does not fit a signed 64-bit integer: whether the store seals early or holds it, nothing is off.
pub async fn sums_stay_exact_beyond_64_bits(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let mut expected = UsageTotals::default();
    for round in 0..6 {
        let pulses: Vec<Pulse> =
            (0..400).map(|n| pulse(&format!("{round}-{n}"), "9999999999999999.999999999")).collect();
        assert_eq!(program.apply(&pulses).await, [Counted; 400]);
        for pulse in &pulses {
            expected.add(pulse);
        }
    }
    assert_eq!(program.totals().await, expected);
    let state = program.state().await;
    for generation in 1..state.generation {
        let sealed = program.sealed(generation).await.expect("it is sealed");
        assert_eq!(sealed.total, program.rows(program.shard(), generation).await.sum());
    }
}

/// A long run of batches with copies, conflicts, repetitions, seals and deletions, against a model.
///
/// # Panics
/// Where the store differs from the model.
pub async fn any_history_comes_to_the_model_s_totals(fixture: &impl AccumulatorFixture) {
    let program = Program::first(fixture).await;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut first_content = BTreeMap::<u64, Pulse>::new();
    let (mut expected, mut deleted) = (UsageTotals::default(), UsageTotals::default());
    for _ in 0..120 {
        let mut pulses = Vec::new();
        let mut outcomes = Vec::new();
        for _ in 0..=dice.below(40) {
            let id = dice.below(600);
            let amount = ["1", "0.000000001", "9007199254740993", "0.75"][dice.index(4)];
            let content = with_sku(["x", "y", "x:y"][dice.index(3)], anonymous(amount));
            if dice.below(5) == 0 {
                expected.add(&content);
                outcomes.push(Counted);
                pulses.push(content);
                continue;
            }
            let content = Pulse { identity: Some(PulseIdentity::Id(id.to_string().into())), ..content };
            let known = first_content.get(&id).cloned();
            // Most copies are true ones.
            let content = if dice.below(8) > 0 { known.clone().unwrap_or(content) } else { content };
            outcomes.push(match &known {
                None => Counted,
                Some(known) if *known == content => Duplicate,
                Some(_) => Conflict,
            });
            if known.is_none() {
                expected.add(&content);
                first_content.insert(id, content.clone());
            }
            pulses.push(content);
        }
        let batch = program.batch(&pulses);
        assert_eq!(program.store.apply(&batch).await.expect("the batch is applied"), outcomes);
        if dice.below(3) == 0 {
            let again = program.store.apply(&batch).await.expect("the batch is applied again");
            for (again, before) in again.iter().zip(&outcomes) {
                assert_eq!(*again == Conflict, *before == Conflict);
            }
        }
        if dice.below(10) == 0 {
            program.seal_active(START).await;
        }
        let state = program.state().await;
        if dice.below(12) == 0 && state.deleted + 1 < state.generation {
            let sealed = program.sealed(state.deleted + 1).await.expect("it is sealed");
            for (key, total) in program.rows(program.shard(), sealed.generation).await {
                deleted.add_total(key, total);
            }
            program.store.delete(&sealed).await.expect("it is deleted");
        }
    }
    let mut found = program.totals().await;
    deleted.into_iter().for_each(|(key, total)| found.add_total(key, total));
    assert_eq!(found, expected);
}

/// A small generator (xorshift), so that the history is the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(super) fn index(&mut self, end: u64) -> usize {
        usize::try_from(self.below(end)).expect("small")
    }
}
