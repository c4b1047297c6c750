//! Counts and flushes on all shards at once, and whether the books balance after it.

use super::{START, batch, birth, opened_with, pulse, rows, settings_at};
use application::ports::{AccumulatorShards, GenerationStore, Outcome, PulseSink};
use domain::UsageTotals;
use infrastructure::redis::{IdentityLayout, RedisAccumulator, RedisSettings};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Repeats what fails for a reason that may pass, as the engine does.
macro_rules! persist {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(done) => break done,
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
}
pub(super) use persist;

/// Two programs that count and one that flushes.
pub(super) struct Load {
    shards: u16,
    cron: Arc<RedisAccumulator>,
    counts: JoinSet<UsageTotals>,
    flushes: JoinSet<UsageTotals>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    retries: AtomicU64,
    /// Batches that were applied, of each shard.
    batches: Vec<AtomicU64>,
}

impl Load {
    pub(super) async fn start(url: &str, shards: u16) -> Self {
        Self::start_in(url, shards, IdentityLayout::Fast).await
    }

    /// With shards of that layout.
    pub(super) async fn start_in(url: &str, shards: u16, identities: IdentityLayout) -> Self {
        let settings = RedisSettings { identities, ..settings_at(url, shards) };
        let workers = [Arc::new(opened_with(&settings).await), Arc::new(opened_with(&settings).await)];
        let cron = Arc::new(opened_with(&settings).await);
        let batches = (0..shards).map(|_| AtomicU64::new(0)).collect();
        let progress = Arc::new(Progress { batches, ..Progress::default() });
        let (mut counts, mut flushes) = (JoinSet::new(), JoinSet::new());
        for shard in 0..shards {
            let worker = &workers[usize::from(shard) % workers.len()];
            counts.spawn(count(Arc::clone(worker), shard, Arc::clone(&progress)));
        }
        flushes.spawn(flush(Arc::clone(&cron), shards, Arc::clone(&progress)));
        Self { shards, cron, counts, flushes, progress }
    }

    /// How many calls had to be repeated.
    pub(super) fn retries(&self) -> u64 {
        self.progress.retries.load(Ordering::Relaxed)
    }

    /// How many batches of a shard were applied.
    pub(super) fn batches(&self, shard: u16) -> u64 {
        self.progress.batches[usize::from(shard)].load(Ordering::Relaxed)
    }

    /// Ends it, and compares what the ledger would hold, with what is left to flush, with what was sent.
    pub(super) async fn end(mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut expected = UsageTotals::default();
        while let Some(counted) = self.counts.join_next().await {
            counted.unwrap().into_iter().for_each(|(key, total)| expected.add_total(key, total));
        }
        let mut found = self.flushes.join_next().await.unwrap().unwrap();
        for shard in birth(self.shards).shards.shards() {
            let state = persist!(self.cron.inspect(shard)).unwrap();
            for generation in state.deleted + 1..=state.generation {
                let rows = persist!(rows(&self.cron, shard, generation));
                rows.into_iter().for_each(|(key, total)| found.add_total(key, total));
            }
        }
        assert!(expected.sum().pulses > 1_000, "hardly anything was counted: {:?}", expected.sum());
        assert_eq!(found, expected);
    }
}

/// Counts batches on one shard until told to stop: identities twice, and pulses without any. Returns what was counted.
async fn count(store: Arc<RedisAccumulator>, shard: u16, progress: Arc<Progress>) -> UsageTotals {
    let mut expected = UsageTotals::default();
    let mut number = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        number += 1;
        let mut pulses = Vec::new();
        for n in 0..60 {
            let fresh =
                pulse(Some(format!("{number}-{n}")), &format!("sku-{}", n % 7), "9007199254740.993000001");
            expected.add(&fresh);
            pulses.push(fresh);
            if number > 1 && n % 3 == 0 {
                let earlier = number - 1;
                let copy = Some(format!("{earlier}-{n}"));
                pulses.push(pulse(copy, &format!("sku-{}", n % 7), "9007199254740.993000001"));
            }
        }
        let anonymous = pulse(None, "anonymous", "0.3");
        expected.add(&anonymous);
        pulses.push(anonymous);
        let batch = batch(shard, number, pulses);
        let outcomes = persist!(async {
            store.apply(&batch).await.inspect_err(|_| {
                progress.retries.fetch_add(1, Ordering::Relaxed);
            })
        });
        assert!(!outcomes.contains(&Outcome::Conflict));
        progress.batches[usize::from(shard)].fetch_add(1, Ordering::Relaxed);
    }
    expected
}

/// Seals and deletes on all shards until told to stop. Returns what a ledger would hold.
async fn flush(store: Arc<RedisAccumulator>, shards: u16, progress: Arc<Progress>) -> UsageTotals {
    let mut ledger = UsageTotals::default();
    while !progress.stop.load(Ordering::Relaxed) {
        for shard in birth(shards).shards.shards() {
            let state = persist!(store.inspect(shard)).expect("the shard is there");
            persist!(store.seal(shard, state.generation, START));
            for generation in state.deleted + 1..=state.generation {
                let sealed = persist!(store.sealed(shard, generation)).expect("it is sealed");
                let rows = persist!(rows(&store, shard, generation));
                assert_eq!(rows.sum(), sealed.total, "generation {generation} of shard {shard}");
                rows.into_iter().for_each(|(key, total)| ledger.add_total(key, total));
                persist!(store.delete(&sealed));
            }
        }
    }
    ledger
}
