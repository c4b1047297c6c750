//! The headers of a trace, on their way through the broker.

use super::{Place, channel, take};
use application::{
    ports::{DeadLetter, DeadLetters, Delivery, Envelope, IntakeMessage, PulseIntake, PulseSource},
    trace::TraceContext,
};
use domain::{Reason, Rejection, Timestamp};
use infrastructure::rabbitmq::{QueueType, RabbitmqDeadLetters, RabbitmqIntake, RabbitmqSource};
use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "vendor=1";

fn context() -> TraceContext {
    let headers = [("traceparent", PARENT), ("tracestate", STATE)];
    TraceContext::of_headers(headers.into_iter()).unwrap()
}

fn contexts(taken: &[Delivery]) -> Vec<Option<TraceContext>> {
    taken.iter().map(|delivery| TraceContext::of(&delivery.envelope)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_the_queue() {
    let place = Place::new(QueueType::Quorum);
    let message = IntakeMessage {
        id: "1".to_owned(),
        body: b"1".to_vec(),
        envelope: Envelope { headers: context().headers(), ..Envelope::default() },
        received_at: Timestamp::new(0, 0),
        joins: None,
    };
    RabbitmqIntake::new(place.settings.clone()).take(&[message]).await.unwrap();
    let source = place.source();
    assert_eq!(contexts(&take(&source, 1).await), [Some(context())]);
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_may_send_text_or_bytes_and_what_is_no_trace_changes_nothing() {
    let place = Place::new(QueueType::Classic);
    let source = place.source();
    let _ = source.receive().await.unwrap();
    let (_connection, theirs) = channel(&place.settings).await;
    let of_bytes = |text: &[u8]| AMQPValue::ByteArray(text.to_vec().into());
    let values = [
        ("traceparent", AMQPValue::LongString(PARENT.into())),
        ("TraceParent", of_bytes(PARENT.as_bytes())),
        ("traceparent", of_bytes(&[0xff; 55])),
        ("traceparent", AMQPValue::LongLongInt(7)),
        ("traceparent", AMQPValue::LongString("x".repeat(60_000).into())),
        ("traceparent", AMQPValue::Void),
    ];
    for (name, value) in values {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        headers.insert("tracestate".into(), of_bytes(STATE.as_bytes()));
        let properties = BasicProperties::default().with_headers(headers);
        let publish = theirs.basic_publish(
            "".into(),
            "pulses".into(),
            BasicPublishOptions::default(),
            b"1",
            properties,
        );
        publish.await.unwrap();
    }
    let taken = take(&source, 6).await;
    assert_eq!(contexts(&taken), [Some(context()), Some(context()), None, None, None, None]);
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_its_trace_whatever_else_the_message_said() {
    let place = Place::new(QueueType::Quorum);
    let large = [("a".to_owned(), "x".repeat(65_000)), ("b".to_owned(), "x".repeat(50_000))];
    let headers = large.into_iter().chain(context().headers()).collect();
    let letter = DeadLetter {
        id: "7".repeat(32),
        rejection: Rejection::new(Reason::Malformed, "is not JSON"),
        body: b"x".to_vec(),
        item: None,
        source: "test".to_owned(),
        place: None,
        envelope: Envelope { headers, ..Envelope::default() },
        received_at: Timestamp::new(0, 0),
    };
    RabbitmqDeadLetters::new(place.settings.clone()).publish(&[letter]).await.unwrap();
    let mut settings = place.settings.clone();
    (settings.queue, settings.dead_letter_queue) = (settings.dead_letter_queue, settings.queue);
    let source = RabbitmqSource::new(settings);
    assert_eq!(contexts(&take(&source, 1).await), [Some(context())]);
    source.close().await.unwrap();
}
