//! Receiving: everything, once per partition, in order.

use super::{
    Delivery, Envelope, Message, PulseSource, Received, SourceFixture, bodies, close, message, next,
    numbered, settle_all, take, within,
};
use std::{collections::BTreeSet, time::Duration};

/// More messages than any source hands over at once come in their order, with increasing places.
pub async fn everything_is_received_in_order(fixture: &impl SourceFixture) {
    let messages = numbered(0..5_000);
    fixture.put(messages.clone()).await;
    let source = fixture.source().await;
    let mut deliveries: Vec<Delivery> = Vec::new();
    while deliveries.len() < messages.len() {
        let received = next(&source).await;
        settle_all(&source, &received).await;
        deliveries.extend(received);
    }
    let expected: Vec<&[u8]> = messages.iter().map(|message| message.body.as_slice()).collect();
    assert_eq!(bodies(&deliveries), expected);
    assert!(
        deliveries
            .is_sorted_by(|left, right| left.partition == right.partition && left.sequence < right.sequence)
    );
    close(&source).await;
}

/// Nothing about the bytes matters.
pub async fn a_body_is_received_byte_for_byte(fixture: &impl SourceFixture) {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let large: Vec<u8> = every_byte.iter().copied().cycle().take(1 << 20).collect();
    let wanted: Vec<Vec<u8>> = vec![Vec::new(), vec![0], vec![0xff, 0xfe], every_byte, large];
    fixture.put(wanted.iter().cloned().map(message).collect()).await;
    let source = fixture.source().await;
    let deliveries = take(&source, wanted.len()).await;
    assert!(bodies(&deliveries).iter().zip(&wanted).all(|(body, wanted)| body == wanted));
    close(&source).await;
}

/// The message's id, media type and headers arrive with it, and are absent where they were absent.
pub async fn a_message_says_about_itself_what_it_said(fixture: &impl SourceFixture) {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let envelope = Envelope {
        message_id: Some("6f1c".to_owned()),
        content_type: Some("application/cloudevents+json; charset=utf-8".to_owned()),
        routing_key: None,
        headers: vec![header("ce-subject", "tenant \u{fc}ber 9"), header("empty", "")],
    };
    fixture.put(vec![Message { body: b"{}".to_vec(), envelope: envelope.clone() }, message("bare")]).await;
    let source = fixture.source().await;
    let deliveries = take(&source, 2).await;
    for (delivery, wanted) in deliveries.iter().zip([envelope, Envelope::default()]) {
        let wanted = fixture.carried(wanted);
        assert_eq!(delivery.envelope.message_id, wanted.message_id);
        assert_eq!(delivery.envelope.content_type, wanted.content_type);
        assert_eq!(delivery.envelope.headers, wanted.headers);
    }
    close(&source).await;
}

/// The first call says that the source is open; the next one waits.
pub async fn an_empty_source_answers_once_it_is_open(fixture: &impl SourceFixture) {
    let source = fixture.source().await;
    let answer = within(source.receive()).await.expect("the source can be read");
    assert_eq!(answer, Received::Deliveries(Vec::new()));
    let waits = tokio::time::timeout(Duration::from_secs(2), source.receive()).await;
    assert!(waits.is_err(), "an open source says so once");
    fixture.cut().await;
    // The cut may be noticed by one call or more; an error is followed by the answer of a source that is open anew.
    let error = within(source.receive()).await.expect_err("the connection was cut");
    assert!(error.is_transient(), "{error}");
    let answer = within(source.receive()).await.expect("the source is opened anew");
    assert_eq!(answer, Received::Deliveries(Vec::new()));
    close(&source).await;
}

/// A call may be dropped at any moment: here after no time, and after a little more each time.
pub async fn a_call_that_is_dropped_loses_nothing(fixture: &impl SourceFixture) {
    let source = fixture.source().await;
    // While it connects, and while it waits for the first message.
    for pause_ms in 0..40 {
        let received = tokio::time::timeout(Duration::from_millis(pause_ms), source.receive()).await;
        assert!(received.is_err(), "there is nothing to receive");
    }
    let mut received = BTreeSet::new();
    let mut number = 0;
    while number < 300 {
        fixture.put(numbered(number..number + 3)).await;
        number += 3;
        let pause = Duration::from_micros(u64::from(number) * 10);
        if let Ok(result) = tokio::time::timeout(pause, source.receive()).await
            && let Received::Deliveries(deliveries) = result.expect("the source can be read")
        {
            received.extend(deliveries.into_iter().map(|delivery| delivery.body));
        }
    }
    while received.len() < 300 {
        received.extend(next(&source).await.into_iter().map(|delivery| delivery.body));
    }
    close(&source).await;
}

/// A call waits for messages that are not there yet.
pub async fn messages_that_come_later_are_received(fixture: &impl SourceFixture) {
    let source = fixture.source().await;
    for round in 0..3 {
        let put = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fixture.put(numbered(round..round + 1)).await;
        };
        let (deliveries, ()) = tokio::join!(next(&source), put);
        assert_eq!(bodies(&deliveries), [round.to_string().as_bytes()]);
        settle_all(&source, &deliveries).await;
    }
    close(&source).await;
}

/// The first call after a cut fails as something that may pass, and the next one connects.
pub async fn a_cut_connection_is_a_transient_error_and_heals(fixture: &impl SourceFixture) {
    fixture.put(numbered(0..1)).await;
    let source = fixture.source().await;
    settle_all(&source, &take(&source, 1).await).await;
    let waiting = async {
        let error = within(source.receive()).await.expect_err("the connection was cut");
        assert!(error.is_transient(), "{error}");
    };
    tokio::join!(waiting, fixture.cut());
    fixture.put(numbered(1..2)).await;
    assert_eq!(bodies(&take(&source, 1).await), [b"1"]);
    close(&source).await;
}

/// A program that stops before it began is no special case.
pub async fn closing_a_source_that_was_never_read_succeeds(fixture: &impl SourceFixture) {
    close(&fixture.source().await).await;
}
