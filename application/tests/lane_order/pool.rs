//! Engines that share a topic and a store, as a plan makes them fare.

use super::{Done, ENGINES, Fate, Plan, Step, name, shards};
use application::{
    decode::Decoder,
    fakes::accumulator::MemoryAccumulator,
    ingest::{IngestError, IngestPulses, Limits, Route, Tally},
    open_log::{LogExtent, Settled, open_log},
    ports::{
        AccumulatorShards, Batch, DeadLetter, DeadLetters, Delivery, Envelope, LogPositions, LogReading,
        Outcome, PartitionId, PortError, PulseSink, PulseSource, Received, ShardBirth, Watermark,
    },
};
use async_trait::async_trait;
use domain::{AccumulatorId, LogName, Shard, Timestamp};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// More than any plan needs.
const LONG: Duration = Duration::from_mins(5);

/// A partition: its messages, and who reads it from where on.
pub(super) struct Partition {
    messages: Vec<Vec<u8>>,
    owner: u64,
    reading: PartitionId,
    log: Arc<LogReading>,
    pub(super) next: usize,
    settled: Option<Settled>,
}

/// The topic, and what its group has settled.
pub(super) struct Broker {
    partitions: Mutex<Vec<Partition>>,
    changed: Notify,
    readings: Mutex<u64>,
}

fn log(partition: usize) -> LogName {
    LogName::of(&["kafka", "test", "tasks", &partition.to_string()]).unwrap()
}

impl Broker {
    fn new(plan: &Plan) -> Arc<Self> {
        let mut partitions: Vec<Partition> = (0..plan.partitions)
            .map(|number| Partition {
                messages: Vec::new(),
                owner: 0,
                reading: PartitionId(0),
                log: Arc::new(LogReading { log: log(number), after: 0 }),
                next: 0,
                settled: None,
            })
            .collect();
        for (partition, tasks) in &plan.messages {
            let task = |customer: &u8| {
                let customer = name(*customer);
                format!(
                    r#"{{"tenant":"{customer}","product_sku":"task","used_amount":1,"use_unity":"task"}}"#
                )
            };
            let tasks: Vec<String> = tasks.iter().map(task).collect();
            partitions[*partition].messages.push(format!("[{}]", tasks.join(",")).into_bytes());
        }
        Arc::new(Self {
            partitions: Mutex::new(partitions),
            changed: Notify::new(),
            readings: Mutex::default(),
        })
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, Vec<Partition>> {
        self.partitions.lock().unwrap()
    }

    /// Gives a partition to an engine, which reads on from where it is settled.
    async fn assign(&self, number: usize, owner: u64, positions: &dyn LogPositions) {
        let counted = positions.positions(&log(number)).await.unwrap();
        let mut partitions = self.partitions();
        let partition = &mut partitions[number];
        let end = partition.messages.len() as u64;
        let extent = LogExtent { begin: 0, end, settled: partition.settled };
        let opened = open_log(log(number), &counted, extent).unwrap();
        let mut readings = self.readings.lock().unwrap();
        *readings += 1;
        partition.owner = owner;
        partition.reading = PartitionId(*readings);
        partition.log = Arc::new(opened.reading);
        partition.next = usize::try_from(opened.start).unwrap();
        partition.settled = Some(opened.settled);
        self.changed.notify_waiters();
    }

    fn of(&self, owner: u64) -> Vec<usize> {
        self.partitions()
            .iter()
            .enumerate()
            .filter(|(_, one)| one.owner == owner)
            .map(|(number, _)| number)
            .collect()
    }

    fn is_settled(&self) -> bool {
        let settled =
            |one: &Partition| one.settled.map_or(0, |settled| settled.next) == one.messages.len() as u64;
        self.partitions().iter().all(settled)
    }

    /// The next messages of one engine, from its partitions in turn.
    fn take(&self, owner: u64, most: usize) -> Vec<Delivery> {
        let mut partitions = self.partitions();
        let mut taken = Vec::new();
        while taken.len() < most {
            let before = taken.len();
            for one in partitions.iter_mut().filter(|one| one.owner == owner) {
                if let Some(body) = one.messages.get(one.next) {
                    taken.push(Delivery {
                        partition: one.reading,
                        sequence: one.next as u64,
                        body: body.clone(),
                        envelope: Envelope::default(),
                        received_at: Timestamp::new(1_700_000_000, 0),
                        log: Some(Arc::clone(&one.log)),
                        returns: 0,
                    });
                    one.next += 1;
                }
            }
            if taken.len() == before {
                break;
            }
        }
        taken
    }
}

/// What one engine gets of the topic.
struct Member {
    broker: Arc<Broker>,
    engine: u64,
    chunk: usize,
}

#[async_trait]
impl PulseSource for Member {
    async fn receive(&self) -> Result<Received, PortError> {
        loop {
            let changed = self.broker.changed.notified();
            let taken = self.broker.take(self.engine, self.chunk);
            if !taken.is_empty() {
                return Ok(Received::Deliveries(taken));
            }
            changed.await;
        }
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        let mut partitions = self.broker.partitions();
        let ours = |one: &&mut Partition| one.owner == self.engine && one.reading == watermark.partition;
        if let Some(settled) = partitions.iter_mut().find(ours).and_then(|one| one.settled.as_mut()) {
            settled.next = settled.next.max(watermark.sequence + 1);
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Nothing is refused here.
struct NoLetters;

#[async_trait]
impl DeadLetters for NoLetters {
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        Err(PortError::permanent("refuse", format!("{letters:?}")))
    }
}

#[derive(Default)]
pub(super) struct Record {
    fates: Mutex<VecDeque<Fate>>,
    pub(super) done: Mutex<Vec<Done>>,
    /// Lanes that were called while they were called.
    pub(super) overlaps: Mutex<Vec<Shard>>,
    /// A lane whose calls never end, as long as it is here.
    pub(super) stuck: Mutex<Option<Shard>>,
}

/// The store as one engine sees it.
struct RecordedStore {
    store: MemoryAccumulator,
    record: Arc<Record>,
    busy: Mutex<BTreeSet<Shard>>,
}

impl RecordedStore {
    async fn new(store: &MemoryAccumulator, record: &Arc<Record>) -> Self {
        let store = store.another();
        for shard in shards().shards() {
            store.inspect(shard).await.unwrap().unwrap();
        }
        Self { store, record: Arc::clone(record), busy: Mutex::default() }
    }

    /// Takes effect, and notes in the order of the effects what was counted.
    async fn count(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        let outcomes = self.store.apply(batch).await?;
        let mut done: Vec<(usize, Done)> = Vec::new();
        for stretch in &batch.stretches {
            let counted = stretch.pulses.iter().filter(|(index, _)| outcomes[*index] == Outcome::Counted);
            done.extend(counted.map(|(index, place)| {
                let task = Done {
                    lane: batch.shard,
                    customer: batch.pulses[*index].tenant.as_str().to_owned(),
                    partition: stretch.log.partition().unwrap(),
                    place: *place,
                };
                (*index, task)
            }));
        }
        done.sort_unstable();
        self.record.done.lock().unwrap().extend(done.into_iter().map(|(_, task)| task));
        Ok(outcomes)
    }

    async fn call(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        while *self.record.stuck.lock().unwrap() == Some(batch.shard) {
            sleep(Duration::from_millis(10)).await;
        }
        let fate = self.record.fates.lock().unwrap().pop_front();
        match fate.unwrap_or(Fate::Applied(0, 0)) {
            Fate::Applied(before, after) => {
                sleep(Duration::from_millis(before)).await;
                let outcomes = self.count(batch).await?;
                sleep(Duration::from_millis(after)).await;
                Ok(outcomes)
            }
            Fate::Refused(after) => {
                sleep(Duration::from_millis(after)).await;
                Err(PortError::transient("apply", "away"))
            }
            Fate::Lost(before) => {
                sleep(Duration::from_millis(before)).await;
                self.count(batch).await?;
                Err(PortError::transient("apply", "no answer"))
            }
        }
    }
}

#[async_trait]
impl PulseSink for RecordedStore {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        if !self.busy.lock().unwrap().insert(batch.shard) {
            self.record.overlaps.lock().unwrap().push(batch.shard);
        }
        let answer = self.call(batch).await;
        self.busy.lock().unwrap().remove(&batch.shard);
        answer
    }
}

/// An engine that runs; dropping it is its crash.
struct Engine {
    number: u64,
    stop: CancellationToken,
    task: JoinSet<Result<(), IngestError>>,
}

/// All that is under test, and what it is tested with.
pub(super) struct Pool {
    pub(super) broker: Arc<Broker>,
    store: MemoryAccumulator,
    pub(super) record: Arc<Record>,
    engines: Vec<Engine>,
    batch_size: usize,
    chunk: usize,
}

impl Pool {
    pub(super) async fn start(plan: &Plan) -> Self {
        let store = MemoryAccumulator::new(Duration::from_hours(48));
        let accumulator = AccumulatorId::from_bytes([1; 16]);
        for shard in shards().shards() {
            let birth = ShardBirth { accumulator, shards: shards(), now: Timestamp::new(0, 0) };
            store.create(shard, birth).await.unwrap();
        }
        let record = Record { fates: Mutex::new(plan.fates.iter().copied().collect()), ..Record::default() };
        let (batch_size, chunk) = (plan.batch_size, plan.chunk);
        let (broker, record) = (Broker::new(plan), Arc::new(record));
        let mut pool = Self { broker, store, record, engines: Vec::new(), batch_size, chunk };
        for number in 1..=ENGINES {
            pool.launch(number as u64).await;
        }
        for partition in 0..plan.partitions {
            pool.give(partition, partition % ENGINES).await;
        }
        pool
    }

    async fn launch(&mut self, number: u64) {
        let sink = RecordedStore::new(&self.store, &self.record).await;
        let route = Route {
            name: "tasks".to_owned(),
            source: Arc::new(Member { broker: Arc::clone(&self.broker), engine: number, chunk: self.chunk }),
            dead_letters: Arc::new(NoLetters),
            decoder: Decoder::default(),
        };
        let engine = IngestPulses {
            routes: vec![route],
            sink: Arc::new(sink),
            sink_name: "store".to_owned(),
            shards: shards(),
            limits: Limits { batch_size: self.batch_size, ..Limits::default() },
            tally: Arc::new(Tally::default()),
            suspects: None,
            accounts: None,
            applied: None,
        };
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(engine.run(stop.clone()));
        self.engines.push(Engine { number, stop, task });
    }

    async fn give(&self, partition: usize, engine: usize) {
        self.broker.assign(partition, self.engines[engine].number, &self.store).await;
    }

    pub(super) async fn step(&mut self, step: Step) {
        match step {
            Step::Move(partition, engine) => self.give(partition, engine).await,
            Step::Crash(engine) => {
                let crashed = self.engines.remove(engine);
                let number = crashed.number;
                drop(crashed);
                for partition in self.broker.of(number) {
                    self.give(partition, 0).await;
                }
                self.launch(number + ENGINES as u64).await;
            }
        }
    }

    /// Until everything is counted and settled, and the engines have stopped.
    pub(super) async fn finish(mut self) -> Arc<Record> {
        let settled = async {
            while !self.broker.is_settled() {
                for engine in &mut self.engines {
                    assert!(engine.task.try_join_next().is_none(), "an engine has ended by itself");
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, settled).await.expect("everything is settled in the end");
        for engine in &mut self.engines {
            engine.stop.cancel();
            engine.task.join_next().await.unwrap().unwrap().unwrap();
        }
        self.record
    }
}
