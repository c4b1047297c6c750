//! The whole way from a topic to the counts: members that come, go and die, and logs that are not what they were.

use super::{Cluster, Counted, TOPIC};
use application::{
    decode::{Decoder, Dedupe},
    fakes::accumulator::MemoryAccumulator,
    ingest::{IngestError, IngestPulses, Limits, Route, Tally},
    ports::{AccumulatorShards, GenerationStore, LogAccounts, PulseSource, Received, ShardBirth, Watermark},
};
use domain::{AccumulatorId, LogPosition, ShardCount, Timestamp, UsageTotals};
use futures_util::future::join_all;
use infrastructure::kafka::KafkaDeadLetters;
use rdkafka::{producer::FutureRecord, util::Timeout};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinSet, block_in_place},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 4;

fn shards() -> ShardCount {
    ShardCount::new(4).unwrap()
}

async fn store() -> MemoryAccumulator {
    let store = MemoryAccumulator::new(Duration::from_hours(48));
    let birth = ShardBirth {
        accumulator: AccumulatorId::from_bytes([1; 16]),
        shards: shards(),
        now: Timestamp::new(0, 0),
    };
    for shard in shards().shards() {
        store.create(shard, birth).await.unwrap();
    }
    store
}

async fn counted(store: &MemoryAccumulator) -> UsageTotals {
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
    }
    totals
}

/// Puts messages of pulses without ids, over all partitions; returns how many pulses that is.
async fn put(cluster: &Cluster, messages: std::ops::Range<u64>) -> u64 {
    let producer = cluster.producer();
    let pulse = |tenant: u64| {
        format!(r#"{{"tenant":"tenant-{tenant}","product_sku":"s","used_amount":1,"use_unity":"u"}}"#)
    };
    let bodies: Vec<String> =
        messages.clone().map(|number| format!("[{},{}]", pulse(number % 7), pulse(number % 11))).collect();
    let sent = bodies.iter().enumerate().map(|(number, body)| {
        let partition = i32::try_from(number).unwrap() % PARTITIONS;
        producer.send(FutureRecord::<str, str>::to(TOPIC).partition(partition).payload(body), Timeout::Never)
    });
    for result in join_all(sent).await {
        result.unwrap();
    }
    2 * (messages.end - messages.start)
}

/// A worker of its own, as a program is.
async fn worker(
    cluster: &Cluster,
    store: &MemoryAccumulator,
    until_idle: Option<Duration>,
) -> (IngestPulses, Arc<Tally>) {
    let handle = Arc::new(store.another());
    for shard in shards().shards() {
        handle.inspect(shard).await.unwrap().unwrap();
    }
    let tally = Arc::new(Tally::default());
    let route = Route {
        name: "kafka".to_owned(),
        source: Arc::new(cluster.source(Arc::clone(&handle) as _)),
        dead_letters: Arc::new(KafkaDeadLetters::new(&cluster.settings).unwrap()),
        decoder: Decoder { dedupe: Dedupe::Offset, ..Decoder::default() },
    };
    let engine = IngestPulses {
        routes: vec![route],
        sink: Arc::clone(&handle) as _,
        sink_name: "memory".to_owned(),
        shards: shards(),
        limits: Limits { batch_size: 50, until_idle, ..Limits::default() },
        tally: Arc::clone(&tally),
        suspects: None,
        accounts: Some(handle),
        applied: None,
    };
    (engine, tally)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulses_without_ids_count_once_through_crashes_and_rebalances() {
    let cluster = Cluster::new(PARTITIONS);
    let store = store().await;
    let mut expected = put(&cluster, 0..2_000).await;
    let mut read = 0;
    for round in 0..3 {
        let mut workers = JoinSet::new();
        let (first, tally) = worker(&cluster, &store, None).await;
        workers.spawn(first.run(CancellationToken::new()));
        let (second, _) = worker(&cluster, &store, None).await;
        let started = async {
            while tally.snapshot().counted + tally.snapshot().duplicates < 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            read = timeout(Duration::from_mins(1), started) => read.expect("the first worker reads"),
            Some(ended) = workers.join_next() => panic!("round {round}: a worker ended: {ended:?}"),
        }
        workers.spawn(second.run(CancellationToken::new()));
        expected += put(&cluster, 0..500 + round).await;
        sleep(Duration::from_millis(400 * round)).await;
        // Both die with whatever they have in hand.
        workers.shutdown().await;
        read += tally.snapshot().messages;
    }
    // The partitions of the dead come when the group has noticed: nobody knows when, so what counts is that they come.
    let (last, tally) = worker(&cluster, &store, None).await;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(last.run(stop.clone()));
    let drained = async {
        // The dead may have counted everything; that it is settled is up to whoever lives.
        let settled = || cluster.committed(PARTITIONS).into_iter().flatten().sum::<i64>().cast_unsigned();
        while counted(&store).await.sum().pulses < expected || 2 * block_in_place(settled) < expected {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_mins(2), drained).await.expect("all is counted and settled in the end");
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    read += tally.snapshot().messages;
    assert_eq!(counted(&store).await.sum().pulses, expected);
    let balances = store.balances().await.unwrap();
    assert!(balances.iter().all(|log| log.missing() == 0 && log.ahead() == 0), "{balances:?}");
    assert_eq!(balances.iter().map(|log| log.account.received).sum::<u64>(), expected);
    assert!(read * 2 > expected, "something was read twice: {read} messages of {expected} pulses");

    // What the group has committed is all there is, and a new member finds nothing to do.
    let (idle, tally) = worker(&cluster, &store, Some(Duration::from_secs(4))).await;
    idle.run(CancellationToken::new()).await.unwrap();
    assert_eq!(tally.snapshot().messages, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_are_lost_under_a_group_stop_the_worker() {
    let cluster = Cluster::new(PARTITIONS);
    put(&cluster, 0..100).await;
    let (first, _) = worker(&cluster, &store().await, Some(Duration::from_secs(6))).await;
    first.run(CancellationToken::new()).await.unwrap();
    let empty = store().await;
    let (second, _) = worker(&cluster, &empty, None).await;
    let ended = timeout(Duration::from_mins(1), second.run(CancellationToken::new())).await;
    let error = ended.expect("the worker stops").unwrap_err();
    assert!(matches!(error, IngestError::Port(_)));
    assert!(error.to_string().contains("is settled up to offset"), "{error}");
    assert_eq!(counted(&empty).await.sum().pulses, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_not_read() {
    let cluster = Cluster::new(1);
    put_one(&cluster).await;
    let source = cluster.source(Arc::new(Counted(vec![LogPosition::before(7)])));
    let error = timeout(Duration::from_mins(1), source.receive()).await.unwrap().unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("made anew"), "{error}");
    source.close().await.unwrap();
}

async fn put_one(cluster: &Cluster) {
    let record = FutureRecord::<str, str>::to(TOPIC).partition(0).payload("x");
    cluster.producer().send(record, Timeout::Never).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_moved_to_another_member_cannot_be_settled_any_more() {
    let cluster = Cluster::new(1);
    put_one(&cluster).await;
    let receive = async |source: &dyn PulseSource| loop {
        match timeout(Duration::from_mins(1), source.receive()).await.unwrap().unwrap() {
            Received::Deliveries(deliveries) if deliveries.is_empty() => {}
            Received::Deliveries(deliveries) => return deliveries[0].clone(),
            Received::End => panic!("a topic has no end"),
        }
    };
    let (old, new) = (cluster.source(Arc::new(Counted(vec![]))), cluster.source(Arc::new(Counted(vec![]))));
    let before = receive(&old).await;
    old.close().await.unwrap();
    let after = receive(&new).await;
    assert_eq!((before.sequence, before.log.is_some()), (after.sequence, true));
    old.settle(Watermark { partition: before.partition, sequence: 0 }).await.unwrap();
    new.close().await.unwrap();
    let third = cluster.source(Arc::new(Counted(vec![])));
    assert_eq!(receive(&third).await.sequence, 0, "it was not settled by the old reading");
    third.close().await.unwrap();
}
