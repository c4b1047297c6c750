//! A small world: a queue and a log, workers and flushers that die, stores that survive.

use crate::{
    expected::{DIGITS, IDS, Item, Model},
    faults::{Call, Fate, Faults, Faulty, Letters},
    sources::{Broker, LogSource, QueueSource},
};
use application::{
    decode::Decoder,
    fakes::{accumulator::MemoryAccumulator, ledger::MemoryLedger},
    flush_usage::{FlushError, FlushSummary, FlushUsage},
    ingest::{IngestError, IngestPulses, Limits, Route, Tally},
    open_shards::open_shards,
    ports::{AccumulatorShards, LogAccounts},
};
use domain::{AccumulatorId, ShardCount, Timestamp};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub(crate) const PROGRAMS: usize = 2;
const NOW: Timestamp = Timestamp::new(1_700_000_000, 0);
/// Far more than anything takes that goes on at all; the clock is not a real one.
const AN_HOUR: Duration = Duration::from_hours(1);

/// One step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A message comes to the queue.
    Publish(Vec<Item>),
    /// A message comes to the log. A pulse without an id gets the next digit; where there is none left, it has an id.
    Append(Vec<Item>),
    /// The next call of the kind will fail.
    Fail(Call, Fate),
    /// A worker starts, if it does not run.
    Work(usize),
    /// A flusher starts, if it does not run.
    Flush(usize),
    /// As by `kill -9`.
    KillWorker(usize),
    /// As by `kill -9`.
    KillFlusher(usize),
    /// All that run go on for a while.
    Wait(u64),
}

pub(crate) struct World {
    broker: Arc<Broker>,
    store: MemoryAccumulator,
    ledger: Arc<MemoryLedger>,
    letters: Arc<Letters>,
    faults: Faults,
    model: Mutex<Model>,
    /// Whether the queue may have given something twice.
    redelivered: bool,
    workers: [Option<JoinHandle<Result<(), IngestError>>>; PROGRAMS],
    flushers: [Option<JoinHandle<Result<FlushSummary, FlushError>>>; PROGRAMS],
}

impl World {
    pub(crate) fn new(delays: u64) -> Self {
        Self {
            broker: Arc::new(Broker::new()),
            store: MemoryAccumulator::new(Duration::from_hours(48)),
            ledger: Arc::new(MemoryLedger::new()),
            letters: Arc::default(),
            faults: Faults::new(delays),
            model: Mutex::default(),
            redelivered: false,
            workers: [None, None],
            flushers: [None, None],
        }
    }

    pub(crate) async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Publish(items) => self.broker.publish(self.message(items, false)),
            Step::Append(items) => self.broker.append(self.message(items, true)),
            Step::Fail(call, fate) => {
                self.redelivered |= *call == Call::Receive;
                self.faults.plan(*call, *fate);
            }
            Step::Work(number) => {
                self.look().await?;
                if self.workers[*number].is_none() {
                    self.workers[*number] = Some(self.worker(None).await?);
                }
            }
            Step::Flush(number) => {
                self.look().await?;
                if self.flushers[*number].is_none() {
                    self.flushers[*number] = Some(self.flusher());
                }
            }
            Step::KillWorker(number) => {
                self.redelivered |= self.workers[*number].is_some();
                kill(self.workers[*number].take()).await;
            }
            Step::KillFlusher(number) => kill(self.flushers[*number].take()).await,
            Step::Wait(milliseconds) => sleep(Duration::from_millis(*milliseconds)).await,
        }
        Ok(())
    }

    /// Puts everything right, counts what is left, flushes it, and compares.
    pub(crate) async fn end(mut self) -> Result<(), String> {
        if !self.redelivered {
            // Nobody is killed before everything is settled.
            self.faults.heal();
            sleep(Duration::from_secs(20)).await;
        }
        self.look().await?;
        for number in 0..PROGRAMS {
            kill(self.workers[number].take()).await;
            kill(self.flushers[number].take()).await;
        }
        self.faults.heal();
        sleep(Duration::from_millis(100)).await;
        let last = self.worker(Some(Duration::from_millis(50))).await?;
        let ended = timeout(AN_HOUR, last).await.map_err(|_| "the last worker does not end")?;
        ended.map_err(|error| error.to_string())?.map_err(|error| format!("the last worker: {error}"))?;
        if !self.broker.is_drained() {
            return Err("the sources are not settled to their ends".to_owned());
        }
        let flushed = self.flusher().await.map_err(|error| error.to_string())?;
        flushed.map_err(|error| format!("the last flush: {error}"))?;
        self.check_accounts().await?;
        let letters = self.letters.0.lock().unwrap();
        let (model, totals) = (self.model.lock().unwrap(), self.ledger.totals());
        model.check_anonymous(&totals, self.redelivered)?;
        model.check(&totals, &letters)
    }

    /// All that was received of the log was taken by a shard or refused, once.
    async fn check_accounts(&self) -> Result<(), String> {
        let balances = self.store.balances().await.map_err(|error| error.to_string())?;
        match balances.iter().find(|balance| balance.missing() > 0 || balance.ahead() > 0) {
            Some(balance) => Err(format!("the account of the log does not balance: {balance:?}")),
            None => Ok(()),
        }
    }

    /// The programs that have ended by themselves: a flush that was held up is one that somebody repeats; anything else is
    /// a fault.
    async fn look(&mut self) -> Result<(), String> {
        for worker in &mut self.workers {
            if let Some(ended) = worker.take_if(|worker| worker.is_finished()) {
                return Err(format!("a worker has ended by itself: {:?}", ended.await));
            }
        }
        for flusher in &mut self.flushers {
            if let Some(ended) = flusher.take_if(|flusher| flusher.is_finished()) {
                match ended.await.map_err(|error| error.to_string())? {
                    Err(error) if !error.is_transient() => {
                        return Err(format!("a flush has failed: {error}"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn message(&self, items: &[Item], is_log: bool) -> String {
        let mut model = self.model.lock().unwrap();
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let item = match *item {
                Item::Placed { tenant, digit } => {
                    let next = IDS + model.placed(tenant);
                    if is_log && next < DIGITS {
                        Item::Placed { tenant, digit: next }
                    } else {
                        Item::Known { tenant, id: digit % IDS, content: 0 }
                    }
                }
                Item::Anonymous { .. } if !is_log && model.anonymous() < DIGITS => {
                    Item::Anonymous { digit: model.anonymous() }
                }
                Item::Anonymous { digit } => Item::Known { tenant: 0, id: digit % IDS, content: 0 },
                other => other,
            };
            model.add(item);
            texts.push(item.text());
        }
        format!("[{}]", texts.join(","))
    }

    /// A worker with handles of its own, as a new process has them.
    async fn worker(
        &self,
        until_idle: Option<Duration>,
    ) -> Result<JoinHandle<Result<(), IngestError>>, String> {
        let store = Arc::new(self.store.another());
        let (id, shards) = (AccumulatorId::from_bytes([7; 16]), ShardCount::new(2).unwrap());
        let opened = open_shards(&*self.ledger, &*store, id, shards, NOW).await;
        opened.map_err(|error| format!("the shards do not open: {error}"))?;
        let faults = || self.faults.clone();
        let broker = || Arc::clone(&self.broker);
        let queue = QueueSource { broker: broker(), faults: faults(), partition: Mutex::default() };
        let log = LogSource {
            broker: broker(),
            faults: faults(),
            store: Arc::clone(&store),
            reading: Mutex::default(),
        };
        let route = |name: &str, source| Route {
            name: name.to_owned(),
            source,
            dead_letters: Arc::new(Faulty { inner: Arc::clone(&self.letters), faults: faults() }),
            decoder: Decoder::default(),
        };
        let engine = IngestPulses {
            routes: vec![route("queue", Arc::new(queue)), route("log", Arc::new(log))],
            sink: Arc::new(Faulty { inner: Arc::clone(&store), faults: faults() }),
            sink_name: "store".to_owned(),
            shards,
            limits: Limits {
                batch_size: 3,
                batch_linger: Duration::from_millis(2),
                until_idle,
                ..Limits::default()
            },
            tally: Arc::new(Tally::default()),
            suspects: None,
            accounts: Some(Arc::new(Faulty { inner: store, faults: faults() })),
            applied: None,
        };
        Ok(spawn(engine.run(CancellationToken::new())))
    }

    fn flusher(&self) -> JoinHandle<Result<FlushSummary, FlushError>> {
        let store = Arc::new(self.store.another());
        let flush = FlushUsage {
            shards: Arc::clone(&store) as Arc<dyn AccumulatorShards>,
            generations: Arc::new(Faulty { inner: store, faults: self.faults.clone() }),
            ledger: Arc::new(Faulty { inner: Arc::clone(&self.ledger), faults: self.faults.clone() }),
            registry: Arc::clone(&self.ledger) as _,
        };
        spawn(async move { flush.run(NOW).await })
    }
}

#[expect(clippy::disallowed_methods, reason = "the world owns what it starts: it kills or awaits each")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Returns when nothing of it is left.
async fn kill<T>(program: Option<JoinHandle<Result<T, impl Sized>>>) {
    if let Some(program) = program {
        program.abort();
        let _ = program.await;
    }
}
