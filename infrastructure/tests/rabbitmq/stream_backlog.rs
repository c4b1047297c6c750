//! How much of a stream waits to be counted.

use super::{Counted, Stream};
use crate::{server, within};
use application::ports::Backlog;
use domain::LogPosition;
use infrastructure::rabbitmq::RabbitmqStreamObserver;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_stream_is_what_not_every_shard_has_counted() {
    let stream = Stream::declared().await;
    let counted = Counted::at((0, 0), (0, 0));
    let observer = RabbitmqStreamObserver::new(stream.place.settings.clone(), Arc::new(counted.clone()));
    assert_eq!(within(observer.waiting()).await.unwrap(), 0, "an empty stream");
    // Each confirmed before the next is sent, so each is a chunk of its own.
    stream.put_large(20).await;
    assert_eq!(within(observer.waiting()).await.unwrap(), 20, "nothing of it was counted");
    let position = |offset, items| LogPosition { offset, items };
    for (shards, waiting) in [
        ([position(20, 0), position(12, 0)], 8),
        ([position(19, 1), position(20, 0)], 1),
        ([position(20, 0), position(20, 0)], 0),
    ] {
        *counted.0.lock().unwrap() = shards;
        assert_eq!(within(observer.waiting()).await.unwrap(), waiting, "{shards:?}");
    }
    let vhost = stream.place.vhost.clone();
    tokio::task::spawn_blocking(move || server().cut_connections(&vhost)).await.unwrap();
    stream.put_large(3).await;
    // The first look may find out that its connection is gone.
    within(async {
        while observer.waiting().await.ok() != Some(3) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stream.delete().await;
    let error = within(observer.waiting()).await.unwrap_err();
    assert!(error.is_transient(), "whoever reads it halts, and says why: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stream_that_lets_go_of_messages_only_those_that_it_has_wait() {
    let stream = Stream::new();
    stream.declare_trimmed().await;
    stream.put_large(400).await;
    let nobody = Counted::at((0, 0), (0, 0));
    let observer = RabbitmqStreamObserver::new(stream.place.settings.clone(), Arc::new(nobody));
    let waiting = within(observer.waiting()).await.unwrap();
    assert!((1..300).contains(&waiting), "{waiting}");
}
