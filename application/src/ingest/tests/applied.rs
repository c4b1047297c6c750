//! What the lanes have counted, as it is told.

use super::*;
use crate::{
    decode::{
        Dedupe, Format,
        mapping::{Column, ColumnKind, Identity, Mapping, Pick, Value},
    },
    ports::LogReading,
};
use domain::LogName;
use tokio::sync::mpsc::Receiver;

fn telling(sink: Arc<dyn PulseSink>, room: usize) -> (Bench, Receiver<Vec<AppliedPulse>>) {
    let mut bench = Bench::new(sink, Limits { batch_size: 2, ..Limits::default() });
    let (applied, told) = mpsc::channel(room);
    bench.engine.applied = Some(applied);
    (bench, told)
}

fn ids(told: &mut Receiver<Vec<AppliedPulse>>) -> Vec<String> {
    let mut ids = Vec::new();
    while let Ok(batch) = told.try_recv() {
        ids.extend(batch.into_iter().map(|pulse| pulse.id.unwrap()));
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn each_counted_pulse_is_told_with_its_lane_after_it_was_applied_and_in_its_order() {
    let mut sink = MockPulseSink::new();
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    sink.expect_apply().returning(move |batch| {
        if is_away.load(Ordering::Relaxed) {
            return Err(PortError::transient("apply", "away"));
        }
        let known = |pulse: &domain::Pulse| pulse.identity == Some(domain::PulseIdentity::Id("3".into()));
        let outcome = |pulse| if known(pulse) { Outcome::Duplicate } else { Outcome::Counted };
        Ok(batch.pulses.iter().map(outcome).collect())
    });
    let (bench, mut told) = telling(Arc::new(sink), 10);
    let running = bench.start();
    running.put((1..=5).map(|sequence| one(LEFT, sequence)));
    Running::a_second().await;
    assert!(told.try_recv().is_err(), "nothing is told before it is counted");
    away.store(false, Ordering::Relaxed);
    running.end().await.unwrap();
    let lane = shards().shard_of(&TenantId::new(LEFT).unwrap());
    let first = told.try_recv().unwrap();
    let pulse = |id: &str| AppliedPulse {
        lane,
        tenant: TenantId::new(LEFT).unwrap(),
        id: Some(id.to_owned()),
        partition: None,
        offset: None,
    };
    assert_eq!(first, [pulse("1"), pulse("2")]);
    assert_eq!(ids(&mut told), ["4", "5"], "what was known before is not told again");
}

#[tokio::test(start_paused = true)]
async fn what_a_log_holds_is_told_with_its_place_and_its_id_also_where_that_is_not_remembered() {
    let value = |pointer: &str| Value::new("id", Pick::new("pointer", pointer).unwrap());
    let constant = |text: &str| Value::new("text", Pick::new("constant", text).unwrap());
    let task = Mapping {
        name: "task".into(),
        reads_cloud_events: false,
        tenant: value("/customer"),
        product_sku: constant("task"),
        use_unity: constant("task"),
        used_amount: constant("1"),
        identity: Identity::None,
        occurred_at: None,
        checks: Vec::new(),
        columns: vec![Column { name: "id".into(), kind: ColumnKind::Text, value: value("/id") }],
    };
    let task = Format::Mapping(Arc::new(task));
    let log = LogName::of(&["kafka", "cluster", "tasks", "11"]).unwrap();
    for (format, body) in
        [(Format::Pulse, pulse(LEFT, 7)), (task, format!(r#"{{"id":"7","customer":"{LEFT}"}}"#))]
    {
        let (mut bench, mut told) = telling(Arc::new(ScriptedSink::default()), 10);
        bench.engine.routes[0].decoder.format = format;
        bench.engine.routes[0].decoder.dedupe = Dedupe::Offset;
        let running = bench.start();
        let reading = Some(Arc::new(LogReading { log: log.clone(), after: 0 }));
        running.put([Delivery { log: reading, ..delivery(4_711, body) }]);
        running.end().await.unwrap();
        let batch = told.try_recv().unwrap();
        let place = (batch[0].id.as_deref(), batch[0].partition, batch[0].offset);
        assert_eq!(place, (Some("7"), Some(11), Some(4_711)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_slows_the_lanes_down_and_holds_up_no_settlement_of_what_is_durable() {
    let sink = Arc::new(ScriptedSink::default());
    let (bench, mut told) = telling(Arc::clone(&sink) as _, 1);
    let running = bench.start();
    running.put((1..=20).map(|sequence| one(LEFT, sequence)));
    sleep(Duration::from_hours(1)).await;
    assert_eq!(running.tally.snapshot().counted, 2, "the next batch waits for room");
    assert_eq!(running.settled_up_to(), Some(2));
    told.recv().await.unwrap();
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(4));
    drop(told);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_nobody_reads_any_more_counting_goes_on() {
    let (bench, told) = telling(Arc::new(ScriptedSink::default()), 1);
    let running = bench.start();
    running.put((1..=20).map(|sequence| one(LEFT, sequence)));
    Running::a_second().await;
    drop(told);
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(20));
    running.end().await.unwrap();
}
