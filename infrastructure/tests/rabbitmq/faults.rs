//! Servers that die, stop answering or close the connection: nothing is lost, and it is noticed.

use super::{
    LIMIT, Place, RabbitmqServer, delete_queue, deliveries, number, numbered, put, ready, server, settings,
    settle, take, within,
};
use application::ports::{DeadLetters, PortError, PulseSource, Received};
use infrastructure::rabbitmq::{QueueType, RabbitmqDeadLetters, RabbitmqPublisher, RabbitmqSource};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Receives and settles until every number below `count` was received, over any number of transient errors.
async fn receive_all(source: &RabbitmqSource, count: u32) -> u32 {
    let mut received = BTreeSet::new();
    let mut errors = 0;
    while received.len() < count as usize {
        match within(source.receive()).await {
            Ok(Received::Deliveries(chunk)) => {
                received.extend(chunk.iter().map(number));
                settle(source, &chunk).await;
            }
            Ok(Received::End) => panic!("a queue never ends"),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                errors += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    assert_eq!(received, (0..count).collect());
    errors
}

/// Publishes all numbers below `count` in steps, each until it is confirmed.
async fn publish_all(publisher: &RabbitmqPublisher, count: u32) {
    for start in (0..count).step_by(100) {
        while let Err(error) = within(publisher.publish(numbered(start..(start + 100).min(count)))).await {
            assert!(error.is_transient(), "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_confirmed_is_lost_when_the_broker_is_killed() {
    const COUNT: u32 = 30_000;
    let server = Arc::new(Mutex::new(RabbitmqServer::start()));
    let settings = settings(&server.lock().await.url(), QueueType::Quorum);
    let publisher = RabbitmqPublisher::connect(&settings).await.unwrap();
    let source = RabbitmqSource::new(settings.clone());
    let kill = async {
        for pause_ms in [500, 700] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let mut server = server.clone().lock_owned().await;
            tokio::task::spawn_blocking(move || server.restart()).await.unwrap();
        }
    };
    let (errors, (), ()) = tokio::join!(receive_all(&source, COUNT), publish_all(&publisher, COUNT), kill);
    assert!(errors >= 2, "the source noticed each kill");
    // Copies of what was published or received twice may still be there.
    while let Ok(received) = tokio::time::timeout(Duration::from_secs(2), source.receive()).await {
        settle(&source, &deliveries(received.unwrap())).await;
    }
    source.close().await.unwrap();
    publisher.close().await.unwrap();
    assert_eq!(ready(&settings, "pulses").await, 0, "what was settled stays settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_answering_is_noticed_by_its_heartbeats() {
    let server = RabbitmqServer::start();
    let settings = settings(&format!("{}?heartbeat=1", server.url()), QueueType::Quorum);
    put(&settings, 0..10).await;
    let source = RabbitmqSource::new(settings.clone());
    let taken = take(&source, 10).await;
    server.pause();
    let start = Instant::now();
    let error = within(source.receive()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "noticed after {:?}", start.elapsed());
    settle(&source, &taken).await;
    // The kernel accepts the connection; nobody answers on it.
    let error = within(source.receive()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    await_that("no connection is left behind", || open_connections(&server) == 0).await;
    server.resume();
    let mut again = Vec::new();
    while again.len() < 10 {
        match within(source.receive()).await {
            Ok(received) => again.extend(deliveries(received)),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    settle(&source, &again).await;
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_takes_seconds_where_the_broker_does_not_answer() {
    let server = RabbitmqServer::start();
    let settings = settings(&server.url(), QueueType::Quorum);
    put(&settings, 0..1).await;
    let (source, letters) =
        (RabbitmqSource::new(settings.clone()), RabbitmqDeadLetters::new(settings.clone()));
    let publisher = RabbitmqPublisher::connect(&settings).await.unwrap();
    take(&source, 1).await;
    letters.publish(&[]).await.unwrap();
    assert_eq!(open_connections(&server), 2);
    server.pause();
    let start = Instant::now();
    let (first, second) = tokio::join!(source.close(), publisher.close());
    assert!(first.is_ok(), "a source has nothing left to hand over: {first:?}");
    assert!(second.is_err_and(|error| error.is_transient()));
    assert!(start.elapsed() < Duration::from_secs(8), "took {:?}", start.elapsed());
    await_that("no connection is left behind", || open_connections(&server) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_succeeds_at_once_where_the_connection_is_dead() {
    let mut server = RabbitmqServer::start();
    let settings = settings(&server.url(), QueueType::Quorum);
    put(&settings, 0..10).await;
    let source = RabbitmqSource::new(settings.clone());
    let taken = take(&source, 10).await;
    server.kill();
    settle(&source, &taken).await;
    let start = Instant::now();
    within(source.close()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(7), "took {:?}", start.elapsed());
    server.restart();
    let again = RabbitmqSource::new(settings.clone());
    settle(&again, &take(&again, 10).await).await;
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_is_quick_and_hands_over_what_was_settled() {
    let place = Place::new(QueueType::Quorum);
    put(&place.settings, 0..1_000).await;
    let source = place.source();
    let taken = take(&source, 1_000).await;
    settle(&source, &taken[..600]).await;
    let start = Instant::now();
    source.close().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    assert_eq!(ready(&place.settings, "pulses").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_server_closes_heals() {
    let place = Place::new(QueueType::Quorum);
    let source = place.source();
    let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    let close = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let vhost = place.vhost.clone();
            tokio::task::spawn_blocking(move || server().close_connections(&vhost)).await.unwrap();
        }
    };
    let (errors, (), ()) = tokio::join!(receive_all(&source, 20_000), publish_all(&publisher, 20_000), close);
    assert!(errors >= 1);
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_while_it_is_read_is_a_transient_error_and_comes_back() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let place = Place::new(queue_type);
        put(&place.settings, 0..5).await;
        let source = place.source();
        take(&source, 5).await;
        delete_queue(&place.settings, "pulses").await;
        let error: PortError = within(source.receive()).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        let (received, ()) = tokio::join!(within(source.receive()), async {
            tokio::time::sleep(LIMIT / 100).await;
            put(&place.settings, 5..6).await;
        });
        assert_eq!(deliveries(received.unwrap()).iter().map(number).collect::<Vec<_>>(), [5]);
        source.close().await.unwrap();
    }
}

/// The connections of this process to a server that are open on our side: each has a thread of the client.
fn open_connections(server: &RabbitmqServer) -> usize {
    const ESTABLISHED: &str = "01";
    let remote = format!(":{:04X}", server.port());
    std::fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&remote) && fields[3] == ESTABLISHED)
        .count()
}

async fn await_that(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT / 3, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
