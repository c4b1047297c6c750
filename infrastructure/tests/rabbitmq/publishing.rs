//! Confirms, returns and refusals.

use super::{Place, channel, delete_queue, number, numbered, ready, server, settle, take, within};
use application::ports::{DeadLetter, DeadLetters, Envelope, PortErrorKind, PulseSource};
use domain::{Reason, Rejection, Timestamp};
use infrastructure::rabbitmq::{OutgoingMessage, QueueType, RabbitmqDeadLetters, RabbitmqPublisher};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};

fn letter(number: u32) -> DeadLetter {
    DeadLetter {
        id: format!("{number:032x}"),
        rejection: Rejection::new(Reason::Malformed, "is not JSON"),
        body: b"x".to_vec(),
        item: None,
        source: "test".to_owned(),
        place: None,
        envelope: Envelope::default(),
        received_at: Timestamp::new(0, 0),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_finds_no_queue_is_an_error_and_the_next_try_makes_the_queue() {
    let place = Place::new(QueueType::Quorum);
    let letters = RabbitmqDeadLetters::new(place.settings.clone());
    letters.publish(&[letter(1)]).await.unwrap();
    delete_queue(&place.settings, "pulses.dead").await;
    let error = within(letters.publish(&[letter(2)])).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    within(letters.publish(&[letter(2)])).await.unwrap();
    assert_eq!(ready(&place.settings, "pulses.dead").await, 1);
    letters.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_finds_no_queue_is_an_error_and_the_next_try_makes_the_queue() {
    let place = Place::new(QueueType::Classic);
    let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    delete_queue(&place.settings, "pulses").await;
    let error = within(publisher.publish(numbered(0..10))).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    within(publisher.publish(numbered(0..10))).await.unwrap();
    assert_eq!(ready(&place.settings, "pulses").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_is_never_success() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let place = Place::new(queue_type);
        let (_connection, theirs) = channel(&place.settings).await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.name().into()));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(5));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        theirs.queue_declare("pulses".into(), options, arguments).await.unwrap();
        let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
        // A quorum queue tells its publishers a little later that it is full.
        let mut error = None;
        for _ in 0..100 {
            error = error.or(within(publisher.publish(numbered(0..20))).await.err());
        }
        let error = error.expect("the queue is full");
        assert!(error.is_transient(), "{error}");
        // Whatever came before is there: nothing was dropped from the head.
        let source = place.source();
        let first = super::deliveries(within(source.receive()).await.unwrap());
        assert_eq!(number(&first[0]), 0);
        source.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_messages_than_are_in_flight_at_once_keep_their_order() {
    let place = Place::new(QueueType::Quorum);
    let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    within(publisher.publish(numbered(0..5_000))).await.unwrap();
    within(publisher.publish(Vec::new())).await.unwrap();
    assert_eq!(ready(&place.settings, "pulses").await, 5_000);
    let source = place.source();
    let mut next = 0;
    while next < 5_000 {
        let deliveries = super::deliveries(within(source.receive()).await.unwrap());
        for delivery in &deliveries {
            assert_eq!(number(delivery), next);
            next += 1;
        }
        settle(&source, &deliveries).await;
    }
    source.close().await.unwrap();
    publisher.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_and_callers_work_side_by_side() {
    let place = Place::new(QueueType::Quorum);
    let first = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    let second = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    let (a, b, c) = tokio::join!(
        first.publish(numbered(0..600)),
        first.publish(numbered(600..1_200)),
        second.publish(numbered(1_200..1_800))
    );
    a.and(b).and(c).unwrap();
    let source = place.source();
    let mut numbers: Vec<u32> = take(&source, 1_800).await.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1_800).collect::<Vec<_>>());
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_call_that_is_dropped_leaves_the_publisher_usable() {
    let place = Place::new(QueueType::Quorum);
    let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    for pause_us in [0, 200, 1_000, 5_000, 20_000] {
        let pause = std::time::Duration::from_micros(pause_us);
        let _ = tokio::time::timeout(pause, publisher.publish(numbered(0..3_000))).await;
    }
    delete_queue(&place.settings, "pulses").await;
    let error = within(publisher.publish(numbered(0..1))).await.err();
    assert!(error.is_none_or(|error| error.is_transient()));
    within(publisher.publish(numbered(0..1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_broker_s_limit_is_permanent() {
    let place = Place::new(QueueType::Classic);
    server().evaluate("application:set_env(rabbit, max_message_size, 2000000).");
    let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    let message = |size| vec![OutgoingMessage { body: vec![b'x'; size], ..OutgoingMessage::default() }];
    within(publisher.publish(message(2_000_000))).await.unwrap();
    let error = within(publisher.publish(message(2_000_001))).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Permanent, "{error}");
}
