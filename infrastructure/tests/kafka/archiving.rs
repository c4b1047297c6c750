//! The archive reads a topic as a group of its own: events are known by their keys, and the group says where to go on.

use super::{Cluster, TOPIC};
use application::{
    decode::Decoder,
    ingest::{ArchiveEvents, IngestError, Limits, Route, Tally},
    open_log::SourceDecides,
    ports::{ArchivedEvent, EventArchive, PortError},
};
use async_trait::async_trait;
use infrastructure::kafka::{KafkaDeadLetters, KafkaSettings};
use rdkafka::{producer::FutureRecord, util::Timeout};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 3;

/// How often each event was kept, by its key.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<u128, u32>>);

#[async_trait]
impl EventArchive for Kept {
    async fn keep(&self, events: &[ArchivedEvent<'_>]) -> Result<(), PortError> {
        let mut kept = self.0.lock().unwrap();
        for event in events {
            *kept.entry(event.key).or_default() += 1;
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Puts events without ids, all alike.
fn put(cluster: &Cluster, events: i32) {
    let producer = cluster.producer();
    let body = r#"{"tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
    for number in 0..events {
        let record = FutureRecord::<str, str>::to(TOPIC).partition(number % PARTITIONS).payload(body);
        drop(producer.send_result(record).unwrap());
    }
    rdkafka::producer::Producer::flush(&producer, Timeout::Never).unwrap();
}

fn archive(
    cluster: &Cluster,
    group: &str,
    kept: &Arc<Kept>,
    until_idle: Option<Duration>,
) -> (ArchiveEvents, Arc<Tally>) {
    let settings = KafkaSettings { group: group.to_owned(), ..cluster.settings.clone() };
    let tally = Arc::new(Tally::default());
    let route = Route {
        name: "kafka pulses".to_owned(),
        dead_letters: Arc::new(KafkaDeadLetters::new(&settings).unwrap()),
        source: Arc::new(infrastructure::kafka::KafkaSource::new(settings, Arc::new(SourceDecides))),
        decoder: Decoder::default(),
    };
    let archive = ArchiveEvents {
        routes: vec![route],
        archive: Arc::clone(kept) as _,
        archive_name: "memory".to_owned(),
        run: [7; 16],
        limits: Limits { batch_size: 50, until_idle, ..Limits::default() },
        tally: Arc::clone(&tally),
    };
    (archive, tally)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_ids_have_one_key_each_through_crashes_and_the_group_goes_on_where_it_was() {
    let cluster = Cluster::new(PARTITIONS);
    let kept = Arc::new(Kept::default());
    put(&cluster, 1_000);
    let (killed, tally) = archive(&cluster, "archive", &kept, None);
    let mut running = JoinSet::new();
    running.spawn(killed.run(CancellationToken::new()));
    let begun = async {
        while tally.snapshot().counted < 200 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_mins(1), begun).await.expect("the archive begins");
    running.shutdown().await;

    put(&cluster, 500);
    // Another group reads all of it again, as after a crash that lost every commit.
    let (again, _) = archive(&cluster, "again", &kept, Some(Duration::from_secs(6)));
    again.run(CancellationToken::new()).await.unwrap();
    let kept_now = kept.0.lock().unwrap().clone();
    assert_eq!(kept_now.len(), 1_500, "each event has a key of its own, and the same one every time");
    assert!(kept_now.values().any(|times| *times > 1), "some were read twice");

    let (idle, tally) = archive(&cluster, "again", &kept, Some(Duration::from_secs(4)));
    let ended: Result<(), IngestError> = idle.run(CancellationToken::new()).await;
    ended.unwrap();
    assert_eq!(tally.snapshot().messages, 0, "what was settled does not come again");
}
