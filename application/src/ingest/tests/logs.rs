//! Sources that are logs.

use super::*;
use crate::{
    decode::Dedupe,
    fakes::accumulator::MemoryAccumulator,
    open_log::{LogExtent, Settled, open_log},
    ports::{AccumulatorShards, GenerationStore, LogPositions, LogReading, LogStretch, ShardBirth},
};
use domain::{AccumulatorId, LogName, LogPosition, UsageTotals};

fn log() -> LogName {
    LogName::of(&["scripted", "log", "0"]).unwrap()
}

/// A message of the log in the reading that this partition stands for.
fn message(partition: u64, after: u64, offset: u64, body: &str) -> Delivery {
    let log = Some(Arc::new(LogReading { log: log(), after }));
    Delivery { partition: PartitionId(partition), log, ..delivery(offset, body) }
}

fn anonymous(tenant: &str) -> String {
    format!(r#"{{"tenant":"{tenant}","product_sku":"s","used_amount":1,"use_unity":"u"}}"#)
}

fn stretches(batches: &[Batch], tenant: &str) -> Vec<(LogPosition, LogPosition, usize)> {
    let shard = shards().shard_of(&TenantId::new(tenant).unwrap());
    let of_shard = batches.iter().filter(|batch| batch.shard == shard);
    let stretch = |stretch: &LogStretch| (stretch.from, stretch.to, stretch.pulses.len());
    of_shard.flat_map(|batch| batch.stretches.iter().map(stretch)).collect()
}

fn at(offset: u64, items: u32) -> LogPosition {
    LogPosition { offset, items }
}

#[tokio::test(start_paused = true)]
async fn each_batch_names_where_it_continues_and_every_shard_passes_what_is_settled() {
    let sink = Arc::new(ScriptedSink::default());
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    let array = format!("[{},{},{}]", anonymous(LEFT), anonymous(RIGHT), anonymous(LEFT));
    running.put([message(1, 5, 5, &array), message(1, 5, 6, &anonymous(LEFT))]);
    Running::a_second().await;
    Running::a_second().await;
    running.put([message(1, 5, 9, &anonymous(LEFT))]);
    Running::a_second().await;
    assert_eq!(running.tally.snapshot().anonymous, 0, "a place in a log is an identity");
    running.put([message(1, 5, 11, "not json")]);
    running.end().await.unwrap();
    let batches = sink.batches.lock().unwrap();
    let left = stretches(&batches, LEFT);
    assert_eq!(left[0], (at(5, 0), at(6, 1), 3));
    assert!(
        left.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "each continues where the last one ended: {left:?}"
    );
    assert_eq!(left.last().unwrap().1, at(12, 0), "also behind what held no pulse");
    for shard in shards().shards() {
        let of_shard = batches.iter().filter(|batch| batch.shard == shard);
        let last = of_shard.flat_map(|batch| &batch.stretches).last().unwrap();
        assert_eq!(last.to, at(12, 0), "shard {shard}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_is_settled_only_after_every_shard_has_passed_it() {
    let mut sink = MockPulseSink::new();
    let open = CancellationToken::new();
    let is_open = open.clone();
    sink.expect_apply().returning(move |batch| match batch.pulses.len() {
        0 if !is_open.is_cancelled() => Err(PortError::transient("apply", "away")),
        pulses => Ok(vec![Outcome::Counted; pulses]),
    });
    let running = Bench::new(Arc::new(sink), Limits::default()).start();
    running.put([message(1, 0, 0, &anonymous(LEFT))]);
    sleep(Duration::from_mins(1)).await;
    assert_eq!((running.settled_up_to(), running.tally.snapshot().counted), (None, 1));
    open.cancel();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(running.settled_up_to(), Some(0));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_readings_of_one_log_are_never_in_one_batch() {
    let sink = Arc::new(ScriptedSink::default());
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    // Between them another program read up to 8.
    running.put([message(1, 0, 0, &anonymous(LEFT)), message(2, 8, 8, &anonymous(LEFT))]);
    running.end().await.unwrap();
    let pulses = stretches(&sink.batches.lock().unwrap(), LEFT);
    let pulses: Vec<_> = pulses.into_iter().filter(|(_, _, pulses)| *pulses > 0).collect();
    assert_eq!(pulses, [(at(0, 0), at(0, 1), 1), (at(8, 0), at(8, 1), 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_by_is_a_choice() {
    for (dedupe, ids, places) in [(Dedupe::Id, 1, 0), (Dedupe::Offset, 0, 1), (Dedupe::Both, 1, 1)] {
        let sink = Arc::new(ScriptedSink::default());
        let mut bench = Bench::new(Arc::clone(&sink) as _, Limits::default());
        bench.engine.routes[0].decoder.dedupe = dedupe;
        let running = bench.start();
        running.put([message(1, 0, 0, &pulse(LEFT, 1))]);
        running.end().await.unwrap();
        let batches = sink.batches.lock().unwrap();
        let batch = batches.iter().find(|batch| !batch.pulses.is_empty()).unwrap();
        let known = batch.pulses.iter().filter(|pulse| pulse.identity.is_some()).count();
        let placed: usize = batch.stretches.iter().map(|stretch| stretch.pulses.len()).sum();
        assert_eq!((known, placed), (ids, places), "{dedupe:?}");
        assert!(
            batches.iter().any(|batch| batch.pulses.is_empty()),
            "{dedupe:?}: the shards pass it in any case"
        );
    }
}

/// A log and what a group has settled of it, read by workers that may be killed at any moment.
struct Group {
    messages: Vec<String>,
    /// The offset of the first message: what was before was deleted long ago.
    begin: u64,
    settled: Mutex<Option<Settled>>,
    readings: Mutex<u64>,
}

impl Group {
    /// A worker with a handle of its own; it reads on from what is settled.
    async fn worker(&self, store: &MemoryAccumulator) -> (Running, u64) {
        let handle = store.another();
        for shard in shards().shards() {
            handle.inspect(shard).await.unwrap().unwrap();
        }
        let extent = LogExtent {
            begin: self.begin,
            end: self.begin + self.messages.len() as u64,
            settled: *self.settled.lock().unwrap(),
        };
        let counted = handle.positions(&log()).await.unwrap();
        let opened = open_log(log(), &counted, extent).unwrap();
        *self.settled.lock().unwrap() = Some(opened.settled);
        let partition = {
            let mut readings = self.readings.lock().unwrap();
            *readings += 1;
            *readings
        };
        let limits = Limits { batch_size: 7, ..Limits::default() };
        let running = Bench::new(Arc::new(handle), limits).start();
        for (offset, body) in (self.begin..).zip(&self.messages).filter(|(offset, _)| *offset >= opened.start)
        {
            running.put([message(partition, opened.reading.after, offset, body)]);
        }
        (running, partition)
    }

    /// What the worker has settled by now counts for the group.
    fn commit(&self, running: &Running) {
        if let Some(sequence) = running.settled_up_to() {
            let mut settled = self.settled.lock().unwrap();
            let settled = settled.as_mut().unwrap();
            settled.next = settled.next.max(sequence + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn workers_that_are_killed_or_replaced_count_every_pulse_of_a_log_once() {
    for seed in 0..20_u64 {
        let mut random = seed + 1;
        let mut below = move |end: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % end
        };
        let mut expected = 0;
        let tenants = ["a", "b", "c", LEFT, RIGHT];
        let messages: Vec<String> = (0..400)
            .map(|_| {
                let count = below(4);
                expected += count;
                let items: Vec<String> =
                    (0..count).map(|_| anonymous(tenants[usize::try_from(below(5)).unwrap()])).collect();
                if items.is_empty() { "no pulse".to_owned() } else { format!("[{}]", items.join(",")) }
            })
            .collect();
        let store = MemoryAccumulator::new(Duration::from_hours(48));
        let birth = ShardBirth {
            accumulator: AccumulatorId::from_bytes([1; 16]),
            shards: shards(),
            now: Timestamp::new(0, 0),
        };
        for shard in shards().shards() {
            store.create(shard, birth).await.unwrap();
        }
        // Also logs that were trimmed before they were first read.
        let begin = if seed % 2 == 0 { 0 } else { 1_000 };
        let group = Group { messages, begin, settled: Mutex::default(), readings: Mutex::default() };
        let mut zombie = None;
        for _ in 0..6 {
            let (running, _) = group.worker(&store).await;
            sleep(Duration::from_millis(below(40))).await;
            group.commit(&running);
            // Every other one is killed; the rest go on and do not know that they were replaced.
            if below(2) == 0 {
                running.engine.abort();
            } else {
                zombie = Some(running);
            }
        }
        let (running, _) = group.worker(&store).await;
        running.end().await.unwrap();
        if let Some(zombie) = zombie {
            zombie.end().await.unwrap();
        }
        let mut totals = UsageTotals::default();
        for shard in shards().shards() {
            let mut part = Some(0);
            while let Some(number) = part {
                let (rows, next) = store.read(shard, 1, number).await.unwrap();
                for row in rows {
                    totals.add_total(row.key, row.total);
                }
                part = next;
            }
            let end = at(begin + 400, 0);
            assert_eq!(store.another().positions(&log()).await.unwrap(), [end; 4], "seed {seed}");
        }
        assert_eq!(totals.sum().pulses, expected, "seed {seed}");
    }
}
