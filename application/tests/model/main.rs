//! The protocol against a model: the engine, the flush and the opening of shards and logs, on stores in memory whose calls
//! are lost, late and repeated, with programs killed at any step. What the books hold in the end is compared with a map and
//! a set.
//!
//! `MODEL_CASES=100000` plays more cases, `MODEL_SEED=7` others. A case that fails is shrunk to the few steps that matter.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod expected;
mod faults;
mod sources;
mod world;

use expected::{IDS, Item, TENANTS};
use faults::{Call, Fate};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use std::env;
use world::{PROGRAMS, Step, World};

const CASES: u32 = 3_000;
const STEPS: usize = 24;

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        8 => (0..TENANTS, 0..IDS).prop_map(|(tenant, id)| Item::Known { tenant, id, content: 0 }),
        1 => (0..TENANTS, 0..IDS).prop_map(|(tenant, id)| Item::Known { tenant, id, content: 1 }),
        4 => (0..TENANTS, 0..IDS).prop_map(|(tenant, digit)| Item::Placed { tenant, digit }),
        1 => (0..IDS).prop_map(|digit| Item::Anonymous { digit }),
        1 => (1..9_u64).prop_map(Item::Bad),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => Just(Call::Apply),
        2 => Just(Call::Account),
        1 => Just(Call::Publish),
        1 => Just(Call::Receive),
        2 => Just(Call::Settle),
        2 => Just(Call::Seal),
        1 => Just(Call::Read),
        2 => Just(Call::Write),
        2 => Just(Call::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![Just(Fate::RequestLost), Just(Fate::AnswerLost), Just(Fate::Late)];
    prop_oneof![
        5 => vec(item(), 1..5).prop_map(Step::Publish),
        4 => vec(item(), 1..5).prop_map(Step::Append),
        5 => (call(), fate).prop_map(|(call, fate)| Step::Fail(call, fate)),
        5 => (0..PROGRAMS).prop_map(Step::Work),
        5 => (0..PROGRAMS).prop_map(Step::Flush),
        3 => (0..PROGRAMS).prop_map(Step::KillWorker),
        3 => (0..PROGRAMS).prop_map(Step::KillFlusher),
        8 => (1..40_u64).prop_map(Step::Wait),
        1 => (200..4_000_u64).prop_map(Step::Wait),
    ]
}

fn number(name: &str, default: u32) -> u32 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn play(delays: u64, steps: &[Step]) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(delays);
        for step in steps {
            world.take(step).await?;
        }
        world.end().await
    })
}

#[test]
fn whatever_is_lost_late_repeated_or_killed_the_books_are_those_of_the_model() {
    let (cases, seed) = (number("MODEL_CASES", CASES), number("MODEL_SEED", 0));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 5_000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let case = (any::<u64>(), vec(step(), 1..STEPS));
    let result = runner.run(&case, |(delays, steps)| play(delays, &steps).map_err(TestCaseError::fail));
    result.unwrap_or_else(|failure| panic!("MODEL_SEED={seed}: {failure}"));
}
