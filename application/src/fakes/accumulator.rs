//! An accumulator in memory.

mod shard;

use crate::ports::{
    AccumulatorShards, Batch, GenerationStore, LogAccount, LogAccounts, LogBalance, LogMark, LogPositions,
    LogStep, Outcome, PortError, PulseSink, Remake, SealedGeneration, ShardBirth, ShardMark, ShardRecovery,
    ShardState, ShardStorage, UsageRow,
};
use async_trait::async_trait;
use domain::{LogName, LogPosition, Shard, Timestamp};
use shard::MemoryShard;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Holds shards in memory; each handle stands for one run of a program.
#[derive(Debug)]
pub struct MemoryAccumulator {
    store: Arc<Mutex<Store>>,
    writer: u64,
    dedupe_window: Duration,
    seen: Mutex<BTreeMap<Shard, Seen>>,
}

#[derive(Debug, Default)]
struct Store {
    shards: BTreeMap<Shard, MemoryShard>,
    accounts: BTreeMap<LogName, LogAccount>,
    writers: u64,
}

/// A copy of the store.
#[derive(Clone, Debug)]
pub struct Backup(BTreeMap<Shard, MemoryShard>);

/// How far a handle has seen a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    recovery: u64,
    generation: u64,
    sequence: u64,
}

impl MemoryAccumulator {
    /// A store with nothing in it.
    #[must_use]
    pub fn new(dedupe_window: Duration) -> Self {
        Self::on(Arc::default(), dedupe_window)
    }

    /// A handle that another program has on the same store.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::on(Arc::clone(&self.store), self.dedupe_window)
    }

    /// Loses everything in the store, as a disk does.
    pub fn lose_storage(&self) {
        lock(&self.store).shards.clear();
    }

    /// Everything in the store, as a backup has it.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup(lock(&self.store).shards.clone())
    }

    /// Puts an earlier copy of a shard back in its place; nothing where the copy has none.
    pub fn put_back(&self, backup: &Backup, shard: Shard) {
        let mut store = lock(&self.store);
        match backup.0.get(&shard) {
            Some(copy) => store.shards.insert(shard, copy.clone()),
            None => store.shards.remove(&shard),
        };
    }

    fn on(store: Arc<Mutex<Store>>, dedupe_window: Duration) -> Self {
        let mut inner = lock(&store);
        inner.writers += 1;
        let writer = inner.writers;
        drop(inner);
        Self { store, writer, dedupe_window, seen: Mutex::default() }
    }

    /// Does something with a shard that is there and not behind what was seen, and sees how far it is then.
    fn with<T>(
        &self,
        operation: &'static str,
        shard: Shard,
        act: impl FnOnce(&mut MemoryShard) -> Result<T, String>,
    ) -> Result<T, PortError> {
        let failed = |reason: String| PortError::permanent(operation, reason);
        let mut store = lock(&self.store);
        let state =
            store.shards.get_mut(&shard).ok_or_else(|| failed(format!("shard {shard} is missing")))?;
        let mut seen = lock(&self.seen);
        let mark = seen.get(&shard).copied();
        if mark.is_some_and(|mark| state.recovery != mark.recovery) {
            return Err(failed(format!("shard {shard} was recovered since {mark:?}")));
        }
        if mark.is_some_and(|mark| state.generation < mark.generation || state.sequence < mark.sequence) {
            return Err(failed(format!("shard {shard} is behind {mark:?}")));
        }
        let answer = act(state).map_err(failed);
        let (recovery, generation, sequence) = (state.recovery, state.generation, state.sequence);
        seen.insert(shard, Seen { recovery, generation, sequence });
        answer
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl PulseSink for MemoryAccumulator {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        const OPERATION: &str = "applying a batch in memory";
        let units: u64 =
            batch.pulses.iter().map(|pulse| pulse.amount.whole_units()).fold(0, u64::saturating_add);
        if batch.pulses.len() > Batch::PULSES_MAX || units > Batch::UNITS_MAX {
            return Err(PortError::permanent(OPERATION, "the batch is too large"));
        }
        if !lock(&self.seen).contains_key(&batch.shard) {
            return Err(PortError::permanent(OPERATION, format!("shard {} was not opened", batch.shard)));
        }
        self.with(OPERATION, batch.shard, |shard| shard.apply(self.writer, batch))
    }
}

#[async_trait]
impl AccumulatorShards for MemoryAccumulator {
    async fn inspect(&self, shard: Shard) -> Result<Option<ShardState>, PortError> {
        let known = lock(&self.seen).contains_key(&shard);
        if !known && !lock(&self.store).shards.contains_key(&shard) {
            return Ok(None);
        }
        self.with("inspecting a shard in memory", shard, |state| Ok(Some(state.state())))
    }

    async fn create(&self, shard: Shard, birth: ShardBirth) -> Result<ShardState, PortError> {
        lock(&self.store).shards.entry(shard).or_insert_with(|| MemoryShard::new(birth));
        self.with("making a shard in memory", shard, |state| Ok(state.state()))
    }

    fn marks(&self) -> Vec<ShardMark> {
        let seen = lock(&self.seen);
        let mark = |(shard, seen): (&Shard, &Seen)| ShardMark {
            shard: *shard,
            generation: seen.generation,
            sequence: seen.sequence,
            recovery: seen.recovery,
        };
        seen.iter().map(mark).collect()
    }
}

#[async_trait]
impl LogPositions for MemoryAccumulator {
    async fn positions(&self, log: &LogName) -> Result<Vec<LogPosition>, PortError> {
        const OPERATION: &str = "reading how far a log was counted in memory";
        let (store, seen) = (lock(&self.store), lock(&self.seen));
        let position = |(shard, state): (&Shard, &MemoryShard)| match seen.get(shard) {
            Some(mark) if mark.recovery != state.recovery => {
                Err(PortError::permanent(OPERATION, format!("shard {shard} was recovered since {mark:?}")))
            }
            _ => Ok(state.position(log)),
        };
        store.shards.iter().map(position).collect()
    }
}

#[async_trait]
impl ShardStorage for MemoryAccumulator {
    async fn log_marks(&self, shard: Shard) -> Result<Vec<LogMark>, PortError> {
        Ok(lock(&self.store).shards.get(&shard).map(MemoryShard::log_marks).unwrap_or_default())
    }

    async fn restore(&self, recovery: &ShardRecovery, now: Timestamp) -> Result<bool, PortError> {
        let mut store = lock(&self.store);
        let found = store.shards.get_mut(&recovery.shard);
        if found.as_ref().is_some_and(|shard| shard.recovery == recovery.number) {
            return Ok(true);
        }
        if found.as_ref().map(|shard| shard.found_at()) != recovery.found {
            return Ok(false);
        }
        match found {
            Some(shard) if recovery.remake != Remake::Anew => shard.restore(recovery),
            _ => {
                store.shards.insert(recovery.shard, MemoryShard::anew(recovery, now));
            }
        }
        store.accounts.clear();
        Ok(true)
    }
}

#[async_trait]
impl LogAccounts for MemoryAccumulator {
    async fn open(&self, log: &LogName, from: u64) -> Result<Option<u64>, PortError> {
        let mut store = lock(&self.store);
        let further = store.shards.values().any(|shard| shard.position(log) > LogPosition::before(from));
        if further && !store.accounts.contains_key(log) {
            return Ok(None);
        }
        let received = store.shards.values().map(|shard| shard.taken(log)).sum();
        let new = LogAccount { next: from, received, refused: 0 };
        Ok(Some(store.accounts.entry(log.clone()).or_insert(new).next))
    }

    async fn settle(&self, log: &LogName, step: LogStep) -> Result<u64, PortError> {
        let mut store = lock(&self.store);
        let account = store.accounts.get_mut(log);
        let account =
            account.ok_or_else(|| PortError::permanent("settling a log in memory", "there is no account"))?;
        if account.next == step.from {
            let (received, refused) = (account.received + step.received, account.refused + step.refused);
            *account = LogAccount { next: step.to, received, refused };
        }
        Ok(account.next)
    }

    async fn balances(&self) -> Result<Vec<LogBalance>, PortError> {
        let store = lock(&self.store);
        let taken = |log: &LogName| store.shards.values().map(|shard| shard.taken(log)).sum();
        let balance = |(log, account): (&LogName, &LogAccount)| LogBalance {
            log: log.clone(),
            account: *account,
            taken: taken(log),
        };
        Ok(store.accounts.iter().map(balance).collect())
    }
}

#[async_trait]
impl GenerationStore for MemoryAccumulator {
    async fn seal(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), PortError> {
        self.with("sealing a generation in memory", shard, |state| {
            state.seal(generation, now, self.dedupe_window)
        })
    }

    async fn sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, PortError> {
        self.with("reading a sealed total in memory", shard, |state| Ok(state.sealed(shard, generation)))
    }

    async fn read(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<UsageRow>, Option<u32>), PortError> {
        self.with("reading rows in memory", shard, |state| Ok(state.read(generation, part)))
    }

    async fn delete(&self, sealed: &SealedGeneration) -> Result<(), PortError> {
        self.with("deleting a generation in memory", sealed.shard, |state| state.delete(sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::accumulator::AccumulatorFixture;
    use domain::{AccumulatorId, ShardCount};

    struct Memory(MemoryAccumulator, u16);

    #[async_trait]
    impl AccumulatorFixture for Memory {
        type Store = MemoryAccumulator;

        fn shards(&self) -> ShardCount {
            ShardCount::new(self.1).unwrap()
        }

        fn dedupe_window(&self) -> Duration {
            self.0.dedupe_window
        }

        async fn first(&self) -> Arc<MemoryAccumulator> {
            Arc::new(self.0.another())
        }

        async fn second(&self) -> Option<Arc<MemoryAccumulator>> {
            Some(Arc::new(self.0.another()))
        }
    }

    impl crate::contract::recovery::FragileStore for MemoryAccumulator {
        type Store = Self;

        async fn open(&self) -> Self {
            self.another()
        }

        fn lose(&self) {
            self.lose_storage();
        }

        /// In memory a shard is one thing.
        fn lose_by_half(&self) {
            self.lose_storage();
        }
    }

    crate::storage_contract!(MemoryAccumulator::new(Duration::from_hours(48)));

    mod of_four_shards {
        use super::*;
        crate::accumulator_contract!(Memory(MemoryAccumulator::new(Duration::from_hours(48)), 4));
    }

    mod of_one_shard {
        use super::*;
        crate::accumulator_contract!(Memory(MemoryAccumulator::new(Duration::from_mins(1)), 1));
    }

    #[tokio::test]
    async fn lost_storage_is_noticed_by_the_handle_that_saw_it() {
        let store = MemoryAccumulator::new(Duration::from_hours(48));
        let birth = ShardBirth {
            accumulator: AccumulatorId::from_bytes([1; 16]),
            shards: ShardCount::ONE,
            now: Timestamp::new(0, 0),
        };
        store.create(Shard(0), birth).await.unwrap();
        store.lose_storage();
        assert!(!store.inspect(Shard(0)).await.unwrap_err().is_transient());
        assert_eq!(store.another().inspect(Shard(0)).await.unwrap(), None);
    }
}
