//! Events are counted exactly once, whatever becomes of the workers that read them.

use application::{
    decode::{Anonymous, Decoder},
    ingest::{IngestPulses, Limits, Route, Tally},
    ports::{AccumulatorShards, Envelope, Inbox, InboxEvent, ShardBirth, Stored},
};
use domain::{AccumulatorId, Shard, ShardCount, Timestamp, TotalAmount};
use futures_util::future::{BoxFuture, join_all};
use infrastructure::{
    inbox::{InboxSettings, StoredInbox},
    sqlite::{EmbeddedSettings, EmbeddedStore},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

const EVENTS: u64 = 20_000;
const CALLERS: u64 = 50;
const KILLS: u64 = 12;
const LIMIT: Duration = Duration::from_mins(1);
const BIRTH: ShardBirth = ShardBirth {
    accumulator: AccumulatorId::from_bytes([7; 16]),
    shards: ShardCount::ONE,
    now: Timestamp::new(1_768_046_400, 0),
};

/// One life of a worker: a sink of its own on the file, like every process has, and the inbox.
async fn work(file: &Path, inbox: StoredInbox, stop: CancellationToken) {
    let sink = Arc::new(EmbeddedStore::open(&EmbeddedSettings::new(file)).await.unwrap());
    sink.create(Shard(0), BIRTH).await.unwrap();
    let reading = InboxSettings {
        poll_interval: Duration::from_millis(50),
        lease: Duration::from_millis(500),
        attempts_max: 1_000,
        retry_after: Duration::from_millis(5),
    };
    let engine = IngestPulses {
        routes: vec![Route {
            name: "inbox".to_owned(),
            source: Arc::new(inbox.source(reading)),
            dead_letters: Arc::new(inbox),
            // Every pulse is known by its event.
            decoder: Decoder { anonymous: Anonymous::Reject, ..Decoder::default() },
        }],
        sink,
        sink_name: "file".to_owned(),
        shards: ShardCount::ONE,
        limits: Limits { batch_size: 200, ..Limits::default() },
        tally: Arc::new(Tally::default()),
        suspects: None,
        accounts: None,
        applied: None,
    };
    engine.run(stop).await.unwrap();
}

/// Stores the events from many callers, while two workers are killed again and again: dropped in the middle of whatever
/// they do, with everything that they have claimed. Then two are left alone until nothing waits.
pub(crate) async fn each_event_is_counted_once(
    open: impl Fn() -> BoxFuture<'static, StoredInbox> + Sync,
    file: &Path,
) {
    let inbox = open().await;
    let storing = join_all((0..CALLERS).map(|caller| store_part(&inbox, caller)));
    let killing = join_all((0..2).map(async |worker| {
        for round in 0..KILLS / 2 {
            let life = work(file, open().await, CancellationToken::new());
            let ended =
                tokio::time::timeout(Duration::from_millis(120 + 90 * round + 50 * worker), life).await;
            assert!(ended.is_err(), "it was killed while it worked");
        }
    }));
    tokio::join!(storing, killing);

    let (stop, mut workers) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..2 {
        let (file, inbox, stop) = (file.to_owned(), open().await, stop.clone());
        workers.spawn(async move { work(&file, inbox, stop).await });
    }
    let start = Instant::now();
    loop {
        let depth = inbox.depth().await.unwrap();
        if depth.received + depth.processing == 0 {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{depth:?}");
        sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
    let depth = inbox.depth().await.unwrap();
    assert_eq!((depth.received, depth.processing, depth.failed), (0, 0, 0));
    let sink = EmbeddedStore::open(&EmbeddedSettings::new(file)).await.unwrap();
    let counted = sink.inspect(Shard(0)).await.unwrap().unwrap().active;
    let amount: u64 = (0..EVENTS).map(|number| number + 1).sum();
    assert_eq!((counted.pulses, counted.amount), (EVENTS, TotalAmount::parse(&amount.to_string()).unwrap()));
}

/// Each event alone in its call, and every tenth again.
async fn store_part(inbox: &StoredInbox, caller: u64) {
    for number in (caller..EVENTS).step_by(usize::try_from(CALLERS).unwrap()) {
        let event = InboxEvent {
            source: "pulses".to_owned(),
            event_id: number.to_string(),
            original: None,
            body: format!(
                r#"{{"tenant":"t{}","product_sku":"s","use_unity":"u","used_amount":{}}}"#,
                number % 7,
                number + 1
            )
            .into_bytes(),
            envelope: Envelope::default(),
            received_at: BIRTH.now,
        };
        assert_eq!(inbox.store(std::slice::from_ref(&event)).await.unwrap(), [Stored::New]);
        if number % 10 == 0 {
            assert_eq!(inbox.store(&[event]).await.unwrap(), [Stored::Known]);
        }
    }
}
