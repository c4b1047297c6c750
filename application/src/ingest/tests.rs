//! The engine against scripted sources and sinks, with the clock paused.

mod alone;
mod applied;
mod archive;
mod idle;
mod letters;
mod logs;

use super::*;
use crate::ports::{
    Batch, DeadLetter, Delivery, Envelope, MockDeadLetters, MockPulseSink, Outcome, PartitionId, Received,
    Watermark,
};
use async_trait::async_trait;
use domain::{Reason, TenantId, Timestamp};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle, time::timeout};

/// Gives what the test puts in and records what is settled; ends when the test lets go of the other end.
struct ScriptedSource {
    deliveries: tokio::sync::Mutex<UnboundedReceiver<Vec<Delivery>>>,
    settled: Arc<Mutex<Vec<Watermark>>>,
    later: Arc<AtomicBool>,
    closed: CancellationToken,
}

#[async_trait]
impl PulseSource for ScriptedSource {
    async fn receive(&self) -> Result<Received, PortError> {
        let deliveries = self.deliveries.lock().await.recv().await;
        Ok(deliveries.map_or(Received::End, Received::Deliveries))
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        self.settled.lock().unwrap().push(watermark);
        Ok(())
    }

    async fn is_drained(&self) -> Result<bool, PortError> {
        Ok(!self.later.load(Ordering::Relaxed))
    }

    async fn close(&self) -> Result<(), PortError> {
        self.closed.cancel();
        Ok(())
    }
}

/// Applies everything as counted, after the tenants in `held` are let go; records the batches.
#[derive(Default)]
struct ScriptedSink {
    held: Mutex<Vec<String>>,
    batches: Mutex<Vec<Batch>>,
}

#[async_trait]
impl PulseSink for ScriptedSink {
    async fn apply(&self, batch: &Batch) -> Result<Vec<Outcome>, PortError> {
        self.batches.lock().unwrap().push(batch.clone());
        let is_held = || {
            let held = self.held.lock().unwrap();
            batch.pulses.iter().any(|pulse| held.iter().any(|tenant| tenant == pulse.tenant.as_str()))
        };
        while is_held() {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(vec![Outcome::Counted; batch.pulses.len()])
    }
}

struct Bench {
    put: mpsc::UnboundedSender<Vec<Delivery>>,
    settled: Arc<Mutex<Vec<Watermark>>>,
    /// Whether the source holds something for later.
    later: Arc<AtomicBool>,
    closed: CancellationToken,
    letters: Arc<Mutex<Vec<DeadLetter>>>,
    tally: Arc<Tally>,
    stop: CancellationToken,
    engine: IngestPulses,
}

fn shards() -> ShardCount {
    ShardCount::new(4).unwrap()
}

/// Two tenants of different shards.
const LEFT: &str = "left";
const RIGHT: &str = "right";

impl Bench {
    fn new(sink: Arc<dyn PulseSink>, limits: Limits) -> Self {
        let letters = Arc::new(Mutex::new(Vec::new()));
        let mut dead_letters = MockDeadLetters::new();
        let kept = Arc::clone(&letters);
        dead_letters.expect_publish().returning(move |letters| {
            kept.lock().unwrap().extend_from_slice(letters);
            Ok(())
        });
        Self::with_dead_letters(sink, limits, dead_letters, letters)
    }

    fn with_dead_letters(
        sink: Arc<dyn PulseSink>,
        limits: Limits,
        dead_letters: MockDeadLetters,
        letters: Arc<Mutex<Vec<DeadLetter>>>,
    ) -> Self {
        let shard = |tenant: &str| shards().shard_of(&TenantId::new(tenant).unwrap());
        assert_ne!(shard(LEFT), shard(RIGHT), "the tests need two lanes");
        let (put, deliveries) = mpsc::unbounded_channel();
        let (settled, later, closed) = (Arc::default(), Arc::default(), CancellationToken::new());
        let source = ScriptedSource {
            deliveries: tokio::sync::Mutex::new(deliveries),
            settled: Arc::clone(&settled),
            later: Arc::clone(&later),
            closed: closed.clone(),
        };
        let tally = Arc::new(Tally::default());
        let route = Route {
            name: "scripted".into(),
            source: Arc::new(source),
            dead_letters: Arc::new(dead_letters),
            decoder: Decoder::default(),
        };
        let engine = IngestPulses {
            routes: vec![route],
            sink,
            sink_name: "sink".into(),
            shards: shards(),
            limits,
            tally: Arc::clone(&tally),
            suspects: None,
            accounts: None,
            applied: None,
        };
        Self { put, settled, later, closed, letters, tally, stop: CancellationToken::new(), engine }
    }

    fn start(self) -> Running {
        self.start_as(IngestPulses::run)
    }

    fn start_as<F>(self, run: impl FnOnce(IngestPulses, CancellationToken) -> F) -> Running
    where
        F: Future<Output = Result<(), IngestError>> + Send + 'static,
    {
        let stop = self.stop.clone();
        #[expect(clippy::disallowed_methods, reason = "the test owns the task and joins it")]
        let engine = tokio::spawn(run(self.engine, self.stop));
        Running {
            put: self.put,
            settled: self.settled,
            later: self.later,
            closed: self.closed,
            letters: self.letters,
            tally: self.tally,
            stop,
            engine,
        }
    }
}

struct Running {
    put: mpsc::UnboundedSender<Vec<Delivery>>,
    settled: Arc<Mutex<Vec<Watermark>>>,
    /// Whether the source holds something for later.
    later: Arc<AtomicBool>,
    closed: CancellationToken,
    letters: Arc<Mutex<Vec<DeadLetter>>>,
    tally: Arc<Tally>,
    stop: CancellationToken,
    engine: JoinHandle<Result<(), IngestError>>,
}

impl Running {
    fn put(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.put.send(deliveries.into_iter().collect()).unwrap();
    }

    fn settled_up_to(&self) -> Option<u64> {
        self.settled.lock().unwrap().last().map(|watermark| watermark.sequence)
    }

    /// Lets the paused clock run: everything that can happen in a second happens.
    async fn a_second() {
        sleep(Duration::from_secs(1)).await;
    }

    async fn end(self) -> Result<(), IngestError> {
        drop(self.put);
        timeout(Duration::from_mins(10), self.engine).await.expect("the engine ends").unwrap()
    }
}

fn pulse(tenant: &str, id: u64) -> String {
    format!(r#"{{"id":"{id}","tenant":"{tenant}","product_sku":"s","used_amount":1,"use_unity":"u"}}"#)
}

fn delivery(sequence: u64, body: impl Into<Vec<u8>>) -> Delivery {
    Delivery {
        partition: PartitionId(1),
        sequence,
        body: body.into(),
        envelope: Envelope::default(),
        received_at: Timestamp::new(1_700_000_000, 0),
        log: None,
        returns: 0,
    }
}

fn one(tenant: &str, sequence: u64) -> Delivery {
    delivery(sequence, pulse(tenant, sequence))
}

fn held_sink(tenant: &str) -> Arc<ScriptedSink> {
    let sink = ScriptedSink::default();
    sink.held.lock().unwrap().push(tenant.to_owned());
    Arc::new(sink)
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_settled_only_after_every_pulse_in_it_is_applied() {
    let sink = held_sink(LEFT);
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    running.put([delivery(1, format!("[{},{}]", pulse(RIGHT, 1), pulse(LEFT, 2)))]);
    Running::a_second().await;
    assert_eq!(sink.batches.lock().unwrap().len(), 2, "both lanes were asked");
    assert_eq!(running.settled_up_to(), None);
    sink.held.lock().unwrap().clear();
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(1));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_watermark_never_passes_a_delivery_that_is_not_finished() {
    let sink = held_sink(LEFT);
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    running.put([one(RIGHT, 1), one(LEFT, 2), one(RIGHT, 3), one(RIGHT, 4)]);
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(1), "the third and fourth are applied, the second is not");
    assert_eq!(running.tally.snapshot().counted, 3);
    sink.held.lock().unwrap().clear();
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(4));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_partition_has_a_watermark_of_its_own() {
    let sink = held_sink(LEFT);
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    let other = |sequence| Delivery { partition: PartitionId(2), ..one(RIGHT, sequence) };
    running.put([one(LEFT, 1), other(1), other(9)]);
    Running::a_second().await;
    let settled = running.settled.lock().unwrap().clone();
    assert!(settled.iter().all(|watermark| watermark.partition == PartitionId(2)));
    assert_eq!(settled.last().unwrap().sequence, 9);
    sink.held.lock().unwrap().clear();
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_world_is_held_in_place_with_the_same_batch() {
    let mut sink = MockPulseSink::new();
    let (mut failures, mut first) = (0, None);
    sink.expect_apply().times(6).returning(move |batch| {
        assert_eq!(first.get_or_insert_with(|| batch.clone()), batch, "a repetition repeats the batch");
        failures += 1;
        if failures <= 5 {
            return Err(PortError::transient("apply", "away"));
        }
        Ok(vec![Outcome::Counted; batch.pulses.len()])
    });
    let running = Bench::new(Arc::new(sink), Limits::default()).start();
    running.put([one(LEFT, 1)]);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(running.settled_up_to(), Some(1));
    assert_eq!(running.letters.lock().unwrap().len(), 0);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_permanent_fault_ends_the_engine_with_nothing_settled() {
    let mut sink = MockPulseSink::new();
    sink.expect_apply().returning(|_| Err(PortError::permanent("apply", "the storage was lost")));
    let running = Bench::new(Arc::new(sink), Limits::default()).start();
    running.put([one(LEFT, 1)]);
    let (settled, letters) = (Arc::clone(&running.settled), Arc::clone(&running.letters));
    let error = running.end().await.unwrap_err();
    assert!(error.to_string().contains("the storage was lost"), "{error}");
    assert_eq!(settled.lock().unwrap().len() + letters.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn too_few_outcomes_end_the_engine_instead_of_settling_the_rest() {
    let mut sink = MockPulseSink::new();
    sink.expect_apply().returning(|_| Ok(vec![]));
    let running = Bench::new(Arc::new(sink), Limits::default()).start();
    running.put([one(LEFT, 1)]);
    assert!(matches!(running.end().await, Err(IngestError::Port(_))));
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_settled_only_after_its_dead_letter_is_confirmed() {
    let mut dead_letters = MockDeadLetters::new();
    let confirmed = CancellationToken::new();
    let is_confirmed = confirmed.clone();
    dead_letters.expect_publish().returning(move |_| {
        if is_confirmed.is_cancelled() { Ok(()) } else { Err(PortError::transient("publish", "returned")) }
    });
    let sink = Arc::new(ScriptedSink::default());
    let running = Bench::with_dead_letters(sink, Limits::default(), dead_letters, Arc::default()).start();
    running.put([delivery(1, "not json"), one(LEFT, 2)]);
    sleep(Duration::from_mins(1)).await;
    assert_eq!((running.settled_up_to(), running.tally.snapshot().counted), (None, 1));
    confirmed.cancel();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(running.settled_up_to(), Some(2));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bad_items_go_to_the_dead_letters_with_their_bytes_and_the_good_ones_count() {
    let running = Bench::new(Arc::new(ScriptedSink::default()), Limits::default()).start();
    let mut message = delivery(1, format!("[{},{{\"tenant\":1}},{}]", pulse(LEFT, 1), pulse(RIGHT, 2)));
    message.envelope.message_id = Some("m".into());
    running.put([message.clone(), Delivery { sequence: 2, ..message }, delivery(3, "\0")]);
    Running::a_second().await;
    let letters = running.letters.lock().unwrap().clone();
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[0].body, b"{\"tenant\":1}");
    assert_eq!((letters[0].item, letters[0].rejection.reason), (Some(1), Reason::InvalidField));
    assert_eq!(letters[0].id, letters[1].id, "the same item of the same message has the same letter");
    assert_ne!(letters[0].id, letters[2].id);
    let tally = running.tally.snapshot();
    assert_eq!((tally.counted, tally.rejected_total(), tally.messages), (4, 3, 3));
    assert_eq!((tally.batch_sizes.sum, tally.apply_micros.buckets.iter().sum::<u64>() > 0), (4, true));
    assert!(
        !tally.retries.is_empty() && tally.retries.values().all(|tries| *tries == 0),
        "{:?}",
        tally.retries
    );
    assert_eq!(running.settled_up_to(), Some(3));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_found_by_the_sink_becomes_a_dead_letter() {
    let mut sink = MockPulseSink::new();
    sink.expect_apply().returning(|_| Ok(vec![Outcome::Counted, Outcome::Conflict, Outcome::Duplicate]));
    let running = Bench::new(Arc::new(sink), Limits::default()).start();
    running.put([one(LEFT, 1), one(LEFT, 2), one(LEFT, 3)]);
    Running::a_second().await;
    let letters = running.letters.lock().unwrap().clone();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].rejection.reason, &*letters[0].body),
        (Reason::Conflict, pulse(LEFT, 2).as_bytes())
    );
    let tally = running.tally.snapshot();
    assert_eq!((tally.counted, tally.duplicates, tally.rejected[&Reason::Conflict]), (1, 1, 1));
    assert_eq!(running.settled_up_to(), Some(3));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_out_when_it_is_full_or_when_its_first_pulse_has_waited() {
    let sink = Arc::new(ScriptedSink::default());
    let limits = Limits { batch_size: 3, batch_linger: Duration::from_millis(500), ..Limits::default() };
    let running = Bench::new(Arc::clone(&sink) as _, limits).start();
    running.put((1..=7).map(|sequence| one(LEFT, sequence)));
    let sizes = || sink.batches.lock().unwrap().iter().map(|batch| batch.pulses.len()).collect::<Vec<_>>();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(sizes(), [3, 3]);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(sizes(), [3, 3, 1]);
    let batches = sink.batches.lock().unwrap().clone();
    assert!(batches.is_sorted_by(|left, right| left.number < right.number));
    let ids: Vec<u64> = (1..=7).collect();
    let applied: Vec<u64> = batches
        .iter()
        .flat_map(|batch| &batch.pulses)
        .map(|pulse| match pulse.identity.as_ref().unwrap() {
            domain::PulseIdentity::Id(id) => id.parse().unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(applied, ids, "a lane keeps the order of arrival");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_not_full_go_out_at_the_same_moment_on_all_lanes() {
    let sink = Arc::new(ScriptedSink::default());
    let limits = Limits { batch_linger: Duration::from_millis(500), ..Limits::default() };
    let running = Bench::new(Arc::clone(&sink) as _, limits).start();
    let shards = || sink.batches.lock().unwrap().iter().map(|batch| batch.shard).collect::<Vec<_>>();
    sleep(Duration::from_millis(100)).await;
    running.put([one(LEFT, 1)]);
    sleep(Duration::from_millis(300)).await;
    running.put([one(RIGHT, 2)]);
    sleep(Duration::from_millis(90)).await;
    assert!(shards().is_empty(), "{:?}", shards());
    sleep(Duration::from_millis(20)).await;
    assert_eq!(shards().len(), 2);
    assert_ne!(shards()[0], shards()[1]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_amounts_of_a_batch_fit_a_signed_64_bit_integer() {
    let sink = Arc::new(ScriptedSink::default());
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    running.put((1..=900).map(|sequence| {
        delivery(sequence, pulse(LEFT, sequence).replace(":1,", ":9999999999999999.999999999,"))
    }));
    Running::a_second().await;
    let batches = sink.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().map(|batch| batch.pulses.len()).sum::<usize>(), 900);
    for batch in batches {
        let nanos: u128 = batch.pulses.iter().map(|pulse| pulse.amount.nanos()).sum();
        assert!(nanos / domain::NANOS_PER_UNIT <= u128::from(Batch::UNITS_MAX));
    }
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_tenant_stops_the_others_only_at_the_bound_of_its_lane() {
    let sink = held_sink(LEFT);
    let limits = Limits { batch_size: 10, ..Limits::default() };
    let running = Bench::new(Arc::clone(&sink) as _, limits).start();
    running.put((1..=20).map(|sequence| one(LEFT, sequence)));
    running.put((21..=500).map(|sequence| one(RIGHT, sequence)));
    Running::a_second().await;
    assert_eq!(
        running.tally.snapshot().counted,
        480,
        "twenty pulses wait in the slow lane, all others count"
    );
    running.put([one(LEFT, 501), one(RIGHT, 502)]);
    Running::a_second().await;
    assert_eq!(running.tally.snapshot().counted, 480, "past its bound the slow lane holds its source");
    sink.held.lock().unwrap().clear();
    Running::a_second().await;
    assert_eq!((running.tally.snapshot().counted, running.settled_up_to()), (502, Some(502)));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_and_settles_what_is_in_hand_and_closes_the_source() {
    let sink = held_sink(LEFT);
    let running = Bench::new(Arc::clone(&sink) as _, Limits::default()).start();
    running.put([one(LEFT, 1), one(RIGHT, 2)]);
    Running::a_second().await;
    running.stop.cancel();
    Running::a_second().await;
    assert!(!running.engine.is_finished() && !running.closed.is_cancelled());
    let _ = running.put.send(vec![one(RIGHT, 3)]);
    sink.held.lock().unwrap().clear();
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(2));
    assert!(running.closed.is_cancelled());
    running.end().await.unwrap();
    assert_eq!(sink.batches.lock().unwrap().len(), 2, "nothing is taken after the stop");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_is_given_up_with_the_count_of_what_is_left() {
    let running = Bench::new(held_sink(LEFT), Limits::default()).start();
    running.put([one(LEFT, 1), one(LEFT, 2)]);
    Running::a_second().await;
    running.stop.cancel();
    sleep(Duration::from_secs(29)).await;
    assert!(!running.engine.is_finished());
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, IngestError::DrainTimeout { unsettled: 2 }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_is_the_end_of_the_engine() {
    let running = Bench::new(Arc::new(ScriptedSink::default()), Limits::default()).start();
    running.put((1..=5_000).map(|sequence| one(if sequence % 3 == 0 { LEFT } else { RIGHT }, sequence)));
    let (settled, closed) = (Arc::clone(&running.settled), running.closed.clone());
    running.end().await.unwrap();
    assert_eq!(settled.lock().unwrap().last().unwrap().sequence, 5_000);
    assert!(closed.is_cancelled());
}
