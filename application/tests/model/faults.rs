//! What goes wrong with calls: requests and answers that are lost, requests that take effect late, and delays everywhere.

use application::{
    fakes::{accumulator::MemoryAccumulator, ledger::MemoryLedger},
    ports::{
        Batch, DeadLetter, DeadLetters, FlushReceipt, GenerationStore, LogAccounts, LogBalance, LogStep,
        Outcome, PortError, PulseSink, SealedGeneration, UsageLedger, UsageRow, UsageRows,
    },
};
use async_trait::async_trait;
use domain::{LogName, Shard, Timestamp};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};

/// The calls that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Apply,
    Account,
    Publish,
    Receive,
    Settle,
    Seal,
    Read,
    Write,
    Delete,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has no effect, and its caller does not know.
    RequestLost,
    /// It takes effect, and its caller does not know.
    AnswerLost,
    /// Its caller does not know, and it takes effect when others have gone on; where that cannot be, as
    /// [`Self::RequestLost`].
    Late,
}

/// The fates of the calls to come, by their kind in their order, and how long each of them takes.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Mutex<Plan>>);

struct Plan {
    fates: HashMap<Call, VecDeque<Fate>>,
    delays: u64,
    healed: bool,
    /// Calls that are still on their way.
    late: JoinSet<()>,
}

impl Faults {
    pub(crate) fn new(delays: u64) -> Self {
        let plan = Plan { fates: HashMap::new(), delays: delays | 1, healed: false, late: JoinSet::new() };
        Self(Arc::new(Mutex::new(plan)))
    }

    pub(crate) fn plan(&self, call: Call, fate: Fate) {
        self.0.lock().unwrap().fates.entry(call).or_default().push_back(fate);
    }

    /// From now on nothing goes wrong; what is on its way still arrives.
    pub(crate) fn heal(&self) {
        let mut plan = self.0.lock().unwrap();
        plan.fates.clear();
        plan.healed = true;
    }

    /// A moment of 0 to 3 ms.
    async fn moment(&self) {
        let milliseconds = {
            let mut plan = self.0.lock().unwrap();
            plan.delays ^= plan.delays << 13;
            plan.delays ^= plan.delays >> 7;
            plan.delays ^= plan.delays << 17;
            if plan.healed { 0 } else { plan.delays % 4 }
        };
        if milliseconds > 0 {
            sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    fn fate(&self, call: Call) -> Option<Fate> {
        self.0.lock().unwrap().fates.get_mut(&call)?.pop_front()
    }

    /// Makes a call with what its fate is. `late` makes it once more for whoever does not wait.
    pub(crate) async fn strike<T, F, L>(&self, call: Call, now: F, late: Option<L>) -> Result<T, PortError>
    where
        F: Future<Output = Result<T, PortError>>,
        L: Future<Output = ()> + Send + 'static,
    {
        self.moment().await;
        match (self.fate(call), late) {
            (Some(Fate::Late), Some(late)) => {
                self.0.lock().unwrap().late.spawn(async {
                    sleep(Duration::from_millis(70)).await;
                    late.await;
                });
                Err(lost("late"))
            }
            (Some(Fate::RequestLost | Fate::Late), _) => Err(lost("request")),
            (fate, _) => {
                let answer = now.await?;
                // Whoever is killed here never learns of the effect.
                self.moment().await;
                if fate == Some(Fate::AnswerLost) { Err(lost("answer")) } else { Ok(answer) }
            }
        }
    }

    /// As [`Self::strike`], of a call that cannot be late.
    async fn strike_now<T>(
        &self,
        call: Call,
        now: impl Future<Output = Result<T, PortError>>,
    ) -> Result<T, PortError> {
        self.strike(call, now, None::<std::future::Ready<()>>).await
    }
}

pub(crate) fn lost(what: &'static str) -> PortError {
    PortError::transient("a call of the model", format!("{what} lost"))
}

/// A store in memory whose calls have fates.
pub(crate) struct Faulty<T> {
    pub(crate) inner: Arc<T>,
    pub(crate) faults: Faults,
}

#[async_trait]
impl PulseSink for Faulty<MemoryAccumulator> {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        let (inner, late) = (Arc::clone(&self.inner), batch.clone());
        let late = async move { drop(inner.apply(&late).await) };
        self.faults.strike(Call::Apply, self.inner.apply(batch), Some(late)).await
    }
}

#[async_trait]
impl LogAccounts for Faulty<MemoryAccumulator> {
    async fn open(&self, log: &LogName, from: u64) -> Result<Option<u64>, PortError> {
        let (inner, late) = (Arc::clone(&self.inner), log.clone());
        let late = async move { drop(inner.open(&late, from).await) };
        self.faults.strike(Call::Account, self.inner.open(log, from), Some(late)).await
    }

    async fn settle(&self, log: &LogName, step: LogStep) -> Result<u64, PortError> {
        let (inner, late) = (Arc::clone(&self.inner), log.clone());
        let late = async move { drop(inner.settle(&late, step).await) };
        self.faults.strike(Call::Account, self.inner.settle(log, step), Some(late)).await
    }

    async fn balances(&self) -> Result<Vec<LogBalance>, PortError> {
        self.inner.balances().await
    }
}

#[async_trait]
impl GenerationStore for Faulty<MemoryAccumulator> {
    async fn seal(&self, shard: Shard, generation: u64, now: Timestamp) -> Result<(), PortError> {
        let inner = Arc::clone(&self.inner);
        let late = async move { drop(inner.seal(shard, generation, now).await) };
        self.faults.strike(Call::Seal, self.inner.seal(shard, generation, now), Some(late)).await
    }

    async fn sealed(&self, shard: Shard, generation: u64) -> Result<Option<SealedGeneration>, PortError> {
        self.faults.strike_now(Call::Read, self.inner.sealed(shard, generation)).await
    }

    async fn read(
        &self,
        shard: Shard,
        generation: u64,
        part: u32,
    ) -> Result<(Vec<UsageRow>, Option<u32>), PortError> {
        self.faults.strike_now(Call::Read, self.inner.read(shard, generation, part)).await
    }

    async fn delete(&self, sealed: &SealedGeneration) -> Result<(), PortError> {
        let (inner, late) = (Arc::clone(&self.inner), sealed.clone());
        let late = async move { drop(inner.delete(&late).await) };
        self.faults.strike(Call::Delete, self.inner.delete(sealed), Some(late)).await
    }
}

#[async_trait]
impl UsageLedger for Faulty<MemoryLedger> {
    async fn write(&self, sealed: &SealedGeneration, rows: UsageRows<'_>) -> Result<FlushReceipt, PortError> {
        self.faults.strike_now(Call::Write, self.inner.write(sealed, rows)).await
    }
}

/// Everything that was ever refused, copies included.
#[derive(Default)]
pub(crate) struct Letters(pub(crate) Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for Faulty<Letters> {
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        let store = |inner: Arc<Letters>, letters: Vec<DeadLetter>| async move {
            inner.0.lock().unwrap().extend(letters);
        };
        let now = store(Arc::clone(&self.inner), letters.to_vec());
        let late = store(Arc::clone(&self.inner), letters.to_vec());
        let now = async {
            now.await;
            Ok(())
        };
        self.faults.strike(Call::Publish, now, Some(late)).await
    }
}
