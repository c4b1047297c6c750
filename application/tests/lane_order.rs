//! The keyed worker pool: whatever happens, the tasks of a customer are counted on one lane, one at a time, in the order of
//! their partition, and each once.
//!
//! A plan says which tasks there are, how long each call of the store takes and how it fails, and when engines crash and
//! partitions move. Plans come from a seed and shrink; time is simulated.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

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
use domain::{AccumulatorId, LogName, LogPosition, Shard, ShardCount, TenantId, Timestamp};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How many engines run at a time.
const ENGINES: usize = 2;
const CUSTOMERS: u8 = 7;
/// More than any plan needs.
const LONG: Duration = Duration::from_mins(5);

fn shards() -> ShardCount {
    ShardCount::new(3).unwrap()
}

fn lane_of(customer: u8) -> Shard {
    shards().shard_of(&TenantId::new(name(customer)).unwrap())
}

fn name(customer: u8) -> String {
    format!("customer {customer}")
}

/// What becomes of a call of the store.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It takes effect after some milliseconds, and answers after some more.
    Applied(u64, u64),
    /// It fails before its effect.
    Refused(u64),
    /// It takes effect, and its answer is lost.
    Lost(u64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// An engine dies with what it has in hand; its partitions go to the other one, and another takes its place.
    Crash(usize),
    /// A partition is taken away from whoever has it, who does not stop with what is in hand.
    Move(usize, usize),
}

#[derive(Clone, Debug)]
struct Plan {
    /// The customers of the tasks of each message, and its partition.
    messages: Vec<(usize, Vec<u8>)>,
    partitions: usize,
    /// Of the calls, in their order; all later ones are applied at once.
    fates: Vec<Fate>,
    /// After how many milliseconds what happens.
    steps: Vec<(u64, Step)>,
    batch_size: usize,
    /// How many messages a source gives at once.
    chunk: usize,
}

fn plans() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![
        6 => (0..40_u64, 0..10_u64).prop_map(|(before, after)| Fate::Applied(before, after)),
        1 => (0..5_u64).prop_map(Fate::Refused),
        1 => (0..5_u64).prop_map(Fate::Lost),
    ];
    let step = prop_oneof![
        (0..ENGINES).prop_map(Step::Crash),
        (0..4_usize, 0..ENGINES).prop_map(|(partition, engine)| Step::Move(partition, engine)),
    ];
    let messages = vec((0..4_usize, vec(0..CUSTOMERS, 1..4)), 1..120);
    (messages, 1..=4_usize, vec(fate, 0..200), vec((0..60_u64, step), 0..12), 1..8_usize, 1..20_usize)
        .prop_map(|(messages, partitions, fates, steps, batch_size, chunk)| Plan {
            messages: messages.into_iter().map(|(at, tasks)| (at % partitions, tasks)).collect(),
            partitions,
            fates,
            steps: steps
                .into_iter()
                .map(|(wait, step)| match step {
                    Step::Move(partition, engine) => (wait, Step::Move(partition % partitions, engine)),
                    crash @ Step::Crash(_) => (wait, crash),
                })
                .collect(),
            batch_size,
            chunk,
        })
}

/// A partition: its messages, and who reads it from where on.
struct Partition {
    messages: Vec<Vec<u8>>,
    owner: u64,
    reading: PartitionId,
    log: Arc<LogReading>,
    next: usize,
    settled: Option<Settled>,
}

/// The topic, and what its group has settled.
struct Broker {
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

    fn partitions(&self) -> MutexGuard<'_, Vec<Partition>> {
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

/// A task that was counted: on which lane, and which it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Done {
    lane: Shard,
    customer: String,
    partition: u32,
    place: LogPosition,
}

#[derive(Default)]
struct Record {
    fates: Mutex<VecDeque<Fate>>,
    done: Mutex<Vec<Done>>,
    /// Lanes that were called while they were called.
    overlaps: Mutex<Vec<Shard>>,
    /// A lane whose calls never end, as long as it is here.
    stuck: Mutex<Option<Shard>>,
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
struct Pool {
    broker: Arc<Broker>,
    store: MemoryAccumulator,
    record: Arc<Record>,
    engines: Vec<Engine>,
    batch_size: usize,
    chunk: usize,
}

impl Pool {
    async fn start(plan: &Plan) -> Self {
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
            applied: None,
        };
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(engine.run(stop.clone()));
        self.engines.push(Engine { number, stop, task });
    }

    async fn give(&self, partition: usize, engine: usize) {
        self.broker.assign(partition, self.engines[engine].number, &self.store).await;
    }

    async fn step(&mut self, step: Step) {
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
    async fn finish(mut self) -> Arc<Record> {
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

fn simulated<T>(run: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run)
}

/// All tasks of the plan, as they must be done.
fn tasks(plan: &Plan) -> Vec<Done> {
    let mut ends = BTreeMap::<usize, u64>::new();
    let mut tasks = Vec::new();
    for (partition, customers) in &plan.messages {
        let end = ends.entry(*partition).or_default();
        tasks.extend((0..).zip(customers).map(|(items, customer)| Done {
            lane: lane_of(*customer),
            customer: name(*customer),
            partition: u32::try_from(*partition).unwrap(),
            place: LogPosition { offset: *end, items },
        }));
        *end += 1;
    }
    tasks
}

/// Each task once and on its customer's lane; those of a lane in the order of each partition; never two calls at a time.
fn check(record: &Record, plan: &Plan) -> Result<(), TestCaseError> {
    let done = record.done.lock().unwrap();
    let (mut found, mut wanted) = (done.clone(), tasks(plan));
    found.sort_unstable();
    wanted.sort_unstable();
    prop_assert_eq!(found, wanted, "each task is done once, on the lane of its customer");
    let mut last = BTreeMap::new();
    for task in &*done {
        let before = last.insert((task.lane, task.partition), task.place);
        prop_assert!(before.is_none_or(|before| before < task.place), "{:?} came after {:?}", task, before);
    }
    prop_assert_eq!(&*record.overlaps.lock().unwrap(), &[], "a lane has one call at a time");
    Ok(())
}

fn config() -> Config {
    // PROPTEST_RNG_SEED and PROPTEST_CASES look elsewhere and longer.
    let default = Config::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(4),
        chosen @ RngSeed::Fixed(_) => chosen,
    };
    Config { rng_seed, failure_persistence: None, max_shrink_iters: 4_000, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tasks_of_a_customer_are_counted_on_one_lane_one_at_a_time_in_order_and_once(plan in plans()) {
        let record = simulated(async {
            let mut pool = Pool::start(&plan).await;
            for (wait, step) in &plan.steps {
                sleep(Duration::from_millis(*wait)).await;
                pool.step(*step).await;
            }
            pool.finish().await
        });
        check(&record, &plan)?;
    }

    #[test]
    fn a_stuck_customer_stops_nobody_before_its_own_lane_is_full(plan in plans(), stuck in 0..CUSTOMERS) {
        // One engine has everything and nothing fails, so that what must be done is known.
        let plan = Plan { partitions: 1, fates: Vec::new(), steps: Vec::new(), ..plan };
        let messages = plan.messages.into_iter().map(|(_, tasks)| (0, tasks)).collect();
        let plan = Plan { messages, ..plan };
        let lane = lane_of(stuck);
        // Two batches of the lane may wait; only then does the reader wait, and with it everybody.
        let room = plan.batch_size * 2;
        let (mut stuck_tasks, mut free, mut taken_before_it_waits) = (0, Vec::new(), plan.messages.len() as u64);
        for chunk in tasks(&plan).chunk_by(|left, right| {
            left.place.offset / plan.chunk as u64 == right.place.offset / plan.chunk as u64
        }) {
            stuck_tasks += chunk.iter().filter(|task| task.lane == lane).count();
            if stuck_tasks > room {
                taken_before_it_waits = chunk[chunk.len() - 1].place.offset + 1;
                break;
            }
            free.extend(chunk.iter().filter(|task| task.lane != lane).cloned());
        }
        let record = simulated(async {
            let pool = Pool::start(&plan).await;
            *pool.record.stuck.lock().unwrap() = Some(lane);
            sleep(Duration::from_mins(1)).await;
            let done: BTreeSet<Done> = pool.record.done.lock().unwrap().iter().cloned().collect();
            let missing: Vec<&Done> = free.iter().filter(|task| !done.contains(task)).collect();
            prop_assert_eq!(missing, Vec::<&Done>::new(), "all that others have is done meanwhile");
            prop_assert!(done.iter().all(|task| task.lane != lane));
            prop_assert_eq!(pool.broker.partitions()[0].next as u64, taken_before_it_waits);
            *pool.record.stuck.lock().unwrap() = None;
            Ok(pool.finish().await)
        });
        let record = record?;
        check(&record, &plan)?;
    }
}
