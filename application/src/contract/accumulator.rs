//! What every accumulator does: sinks, shards and generations.
//!
//! Implement [`AccumulatorFixture`] and let [`accumulator_contract!`](crate::accumulator_contract) make the tests.

#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the parts of one suite share its vocabulary")
)]

mod counting;
mod exactness;
mod generations;
mod handles;
mod logs;
mod window;

pub use counting::*;
pub use exactness::*;
pub use generations::*;
pub use handles::*;
pub use logs::*;
pub use window::*;

use crate::ports::{
    AccumulatorShards, Batch, GenerationStore, LogAccounts, LogPositions, Outcome, PulseSink,
    SealedGeneration, ShardBirth, ShardCounts, ShardState,
};
use async_trait::async_trait;
use domain::{
    AccumulatorId, Amount, HourWindow, ProductSku, Pulse, PulseIdentity, Shard, ShardCount, TenantId,
    Timestamp, TotalAmount, UsageKey, UsageTotal, UsageTotals, UsageUnit,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A store with nothing in it, and the ways to it.
#[async_trait]
pub trait AccumulatorFixture: Send + Sync {
    /// The adapter.
    type Store: PulseSink + AccumulatorShards + GenerationStore + LogPositions + LogAccounts;

    /// How many shards the suite may open.
    fn shards(&self) -> ShardCount;

    /// How long the store remembers identities: at least a minute, so that the suite itself does not outlast it.
    fn dedupe_window(&self) -> Duration;

    /// The program's handle on the store; called once.
    async fn first(&self) -> Arc<Self::Store>;

    /// A handle that another program has at the same time; `None` where the store is for one program only.
    async fn second(&self) -> Option<Arc<Self::Store>> {
        None
    }
}

/// Makes one test of each function of the suite. The expression gives a new [`AccumulatorFixture`] each time.
#[macro_export]
macro_rules! accumulator_contract {
    ($fixture:expr) => {
        $crate::accumulator_contract! { $fixture =>
            a_new_shard_is_empty,
            making_a_shard_again_changes_nothing,
            a_shard_that_was_not_opened_is_refused,
            an_empty_batch_changes_nothing,
            a_redelivered_pulse_is_counted_once,
            a_pulse_twice_in_a_batch_is_counted_once,
            an_identity_with_other_content_is_a_conflict,
            identities_belong_to_their_tenant,
            a_batch_mixes_every_outcome,
            a_repeated_batch_is_counted_once,
            a_shard_knows_what_became_of_all_its_pulses,
            a_batch_of_the_largest_size_is_counted,
            a_batch_that_is_too_large_is_refused,
            separators_in_names_do_not_mix_up_usage,
            sums_are_exact_to_the_last_digit,
            known_pulses_are_taken_back_exactly,
            a_key_of_known_pulses_only_has_no_row,
            sums_stay_exact_beyond_64_bits,
            any_history_comes_to_the_model_s_totals,
            sealing_opens_the_next_generation,
            sealing_twice_seals_once,
            sealing_ahead_is_refused,
            a_sealed_generation_changes_no_more,
            a_sealed_total_is_the_sum_of_its_rows,
            identities_outlive_their_generation,
            deleting_removes_a_generation_once,
            deleting_out_of_order_is_refused,
            deleting_other_totals_is_refused,
            deleting_the_active_generation_is_refused,
            marks_follow_the_shard,
            two_handles_count_a_pulse_once,
            two_handles_count_at_the_same_time,
            a_seal_by_another_handle_loses_nothing,
            two_handles_may_seal_and_delete_together,
            batch_numbers_of_two_handles_do_not_meet,
            identities_are_known_for_the_whole_window,
            identities_are_forgotten_after_the_window,
            a_missed_flush_forgets_nothing,
            a_clock_that_jumps_ahead_forgets_nothing,
            a_clock_that_jumps_back_forgets_nothing,
            clocks_that_differ_forget_nothing,
            a_clock_that_jumped_back_forgets_again_in_the_end,
            a_place_in_a_log_is_counted_once,
            logs_do_not_mix_up,
            items_of_one_message_have_places_of_their_own,
            a_gap_is_refused_and_nothing_is_written,
            a_shard_passes_what_holds_nothing_for_it,
            a_repeated_batch_of_a_log_is_counted_once,
            a_copy_at_another_place_is_known_by_its_id,
            a_conflict_in_a_log_stays_one,
            sealing_keeps_the_positions_of_its_moment,
            any_readers_of_a_log_count_each_pulse_once,
            an_account_of_a_log_takes_each_step_once,
            an_account_of_a_log_is_opened_where_no_shard_is_further,
            what_shards_take_of_a_log_is_told_beside_its_account,
        }
    };
    ($fixture:expr => $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let fixture = $fixture;
                $crate::contract::accumulator::$name(&fixture).await;
            }
        )+
    };
}

/// When the suite begins: 2026-01-10T12:00:00Z.
const START: Timestamp = Timestamp::new(1_768_046_400, 0);
const TENANT: &str = "tenant_xpto";
const SKU: &str = "SKU-997";

fn accumulator() -> AccumulatorId {
    AccumulatorId::from_bytes(*b"contract--suite!")
}

/// A pulse of [`TENANT`] and [`SKU`] without an identity.
fn anonymous(amount: &str) -> Pulse {
    Pulse {
        tenant: TenantId::new(TENANT).expect("a valid tenant"),
        product_sku: ProductSku::new(SKU).expect("a valid SKU"),
        use_unity: UsageUnit::new("KB").expect("a valid unit"),
        amount: Amount::parse(amount).expect("a valid amount"),
        identity: None,
        occurred_at: None,
        hour: HourWindow::from_number(491_124),
    }
}

/// The same with an id.
fn pulse(id: &str, amount: &str) -> Pulse {
    Pulse { identity: Some(PulseIdentity::Id(id.into())), ..anonymous(amount) }
}

fn with_sku(sku: &str, pulse: Pulse) -> Pulse {
    Pulse { product_sku: ProductSku::new(sku).expect("a valid SKU"), ..pulse }
}

fn with_tenant(tenant: &str, pulse: Pulse) -> Pulse {
    Pulse { tenant: TenantId::new(tenant).expect("a valid tenant"), ..pulse }
}

fn units(units: u64) -> TotalAmount {
    TotalAmount::from_parts(units, 0)
}

/// What counting the pulses comes to, whatever their identities.
fn totals_of<'a>(pulses: impl IntoIterator<Item = &'a Pulse>) -> UsageTotals {
    let mut totals = UsageTotals::default();
    pulses.into_iter().for_each(|pulse| totals.add(pulse));
    totals
}

/// A handle, with the numbering of batches that a program does.
struct Program<S> {
    store: Arc<S>,
    shards: ShardCount,
    last_number: std::sync::atomic::AtomicU64,
}

impl<S: PulseSink + AccumulatorShards + GenerationStore + LogPositions> Program<S> {
    /// The first handle, with all shards made.
    async fn first<F: AccumulatorFixture<Store = S>>(fixture: &F) -> Self {
        Self::open(fixture.first().await, fixture.shards()).await
    }

    /// The second handle, with all shards seen, where there is one.
    async fn second<F: AccumulatorFixture<Store = S>>(fixture: &F) -> Option<Self> {
        let store = fixture.second().await?;
        for shard in fixture.shards().shards() {
            store.inspect(shard).await.expect("the shard can be read").expect("the first handle made it");
        }
        Some(Self { store, shards: fixture.shards(), last_number: 0.into() })
    }

    async fn open(store: Arc<S>, shards: ShardCount) -> Self {
        for shard in shards.shards() {
            store
                .create(shard, ShardBirth { accumulator: accumulator(), shards, now: START })
                .await
                .expect("a shard can be made");
        }
        Self { store, shards, last_number: 0.into() }
    }

    /// The shard of [`TENANT`].
    fn shard(&self) -> Shard {
        self.shards.shard_of(&TenantId::new(TENANT).expect("a valid tenant"))
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }

    /// One batch of pulses of one shard.
    fn batch(&self, pulses: &[Pulse]) -> Batch {
        let shard = self.shards.shard_of(&pulses[0].tenant);
        assert!(pulses.iter().all(|pulse| self.shards.shard_of(&pulse.tenant) == shard), "one shard a batch");
        Batch { shard, number: self.next_number(), pulses: pulses.to_vec(), stretches: Vec::new() }
    }

    /// Applies the pulses as one batch.
    async fn apply(&self, pulses: &[Pulse]) -> Vec<Outcome> {
        self.store.apply(&self.batch(pulses)).await.expect("the batch is applied")
    }

    /// Applies pulses of any tenants, one batch a shard; outcomes in the order of the pulses.
    async fn apply_all(&self, pulses: &[Pulse]) -> Vec<Outcome> {
        let mut by_shard = BTreeMap::<Shard, Vec<usize>>::new();
        for (index, pulse) in pulses.iter().enumerate() {
            by_shard.entry(self.shards.shard_of(&pulse.tenant)).or_default().push(index);
        }
        let mut outcomes = vec![Outcome::Counted; pulses.len()];
        for indices in by_shard.values() {
            let batch: Vec<Pulse> = indices.iter().map(|index| pulses[*index].clone()).collect();
            for (index, outcome) in indices.iter().zip(self.apply(&batch).await) {
                outcomes[*index] = outcome;
            }
        }
        outcomes
    }

    async fn state_of(&self, shard: Shard) -> ShardState {
        self.store.inspect(shard).await.expect("the shard can be read").expect("the shard is there")
    }

    async fn state(&self) -> ShardState {
        self.state_of(self.shard()).await
    }

    async fn seal(&self, generation: u64, now: Timestamp) {
        self.store.seal(self.shard(), generation, now).await.expect("the generation is sealed");
    }

    /// Seals whatever is active.
    async fn seal_active(&self, now: Timestamp) {
        let generation = self.state().await.generation;
        self.seal(generation, now).await;
    }

    async fn sealed(&self, generation: u64) -> Option<SealedGeneration> {
        self.store.sealed(self.shard(), generation).await.expect("the generation can be asked for")
    }

    /// Every row of one generation of one shard.
    async fn rows(&self, shard: Shard, generation: u64) -> UsageTotals {
        let mut totals = UsageTotals::default();
        let mut part = Some(0);
        while let Some(number) = part {
            let (rows, next) = self.store.read(shard, generation, number).await.expect("the part is read");
            for row in rows {
                assert_eq!(totals.get(&row.key), UsageTotal::default(), "{:?} is in two rows", row.key);
                assert!(row.total.pulses > 0, "{:?} counts no pulse", row.key);
                totals.add_total(row.key, row.total);
            }
            assert!(next.is_none_or(|next| next > number), "parts are numbered upwards");
            part = next;
        }
        totals
    }

    /// Everything that is not deleted, over all shards and generations.
    async fn totals(&self) -> UsageTotals {
        let mut totals = UsageTotals::default();
        for shard in self.shards.shards() {
            let state = self.state_of(shard).await;
            for generation in state.deleted + 1..=state.generation {
                for (key, total) in self.rows(shard, generation).await {
                    totals.add_total(key, total);
                }
            }
        }
        totals
    }

    async fn total_of(&self, key: &UsageKey) -> UsageTotal {
        self.totals().await.get(key)
    }
}
