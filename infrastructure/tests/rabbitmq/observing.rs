//! Looking at queues changes nothing.

use super::{Place, channel, put, server, take, within};
use application::ports::{Backlog, LetterPlace, RefusedPulses};
use infrastructure::rabbitmq::{QueueType, RabbitmqLetters, RabbitmqObserver};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};

#[tokio::test]
async fn what_waits_is_counted_also_after_a_cut() {
    let place = Place::new(QueueType::Classic);
    let observer = RabbitmqObserver::new(place.settings.clone());
    assert!(within(observer.waiting()).await.unwrap_err().is_transient(), "there is no queue");
    put(&place.settings, 0..5).await;
    assert_eq!(within(observer.waiting()).await.unwrap(), 5);
    let source = place.source();
    take(&source, 5).await;
    assert_eq!(within(observer.waiting()).await.unwrap(), 0);
    let vhost = place.vhost.clone();
    tokio::task::spawn_blocking(move || server().cut_connections(&vhost)).await.unwrap();
    // What the source had taken waits again. The first look may find out that its connection is gone.
    within(async {
        while observer.waiting().await.ok() != Some(5) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_queue_of_somebody_else_is_counted_and_not_touched() {
    let place = Place::new(QueueType::Quorum);
    let (_connection, channel) = channel(&place.settings).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("pulses.dead".into(), durable, FieldTable::default()).await.unwrap();
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), "pulses.dead".into(), options, b"x", BasicProperties::default())
        .await
        .unwrap();
    let observer = RabbitmqObserver::new(place.settings.clone());
    within(async {
        while observer.count().await.unwrap() != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let letters = RabbitmqLetters::new(place.settings.clone());
    let error = within(letters.open()).await.err().unwrap();
    assert!(!error.is_transient() && error.to_string().contains("not made by this program"), "{error}");
    assert_eq!(within(observer.count()).await.unwrap(), 1);
}
