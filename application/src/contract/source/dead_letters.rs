//! Dead letters: stored when the call returns, with everything that a person or a replay needs.

use super::{DeadLetter, DeadLetters, Envelope, Reason, Rejection, SourceFixture, Timestamp, within};
use std::collections::BTreeMap;

fn letter(number: u32, body: impl Into<Vec<u8>>) -> DeadLetter {
    DeadLetter {
        id: format!("{number:032x}"),
        rejection: Rejection::new(Reason::Malformed, "is not JSON: unexpected \u{201c}x\u{201d} at 3"),
        body: body.into(),
        item: None,
        source: "contract".to_owned(),
        place: None,
        envelope: Envelope::default(),
        received_at: Timestamp::new(1_768_046_400, 250_000_000),
    }
}

async fn publish(letters: &impl DeadLetters, published: &[DeadLetter]) {
    within(letters.publish(published)).await.expect("dead letters can be published");
}

/// The stored letters by their id; copies of one are the same.
async fn stored(fixture: &impl SourceFixture) -> BTreeMap<String, DeadLetter> {
    let mut stored: BTreeMap<String, DeadLetter> = BTreeMap::new();
    for letter in fixture.stored_letters().await {
        if let Some(copy) = stored.insert(letter.id.clone(), letter.clone()) {
            assert_eq!(copy, letter, "copies of a letter are the same");
        }
    }
    stored
}

fn by_id(letters: &[DeadLetter]) -> BTreeMap<String, DeadLetter> {
    letters.iter().map(|letter| (letter.id.clone(), letter.clone())).collect()
}

/// Any bytes, every reason.
pub async fn a_dead_letter_keeps_its_bytes_and_its_reason(fixture: &impl SourceFixture) {
    let large: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    let bodies = [Vec::new(), b"{\"amount\":".to_vec(), vec![0, 1, 0], vec![0xff, 0xfe, 0x80], large];
    let mut letters: Vec<DeadLetter> = (0..).zip(bodies).map(|(number, body)| letter(number, body)).collect();
    letters.extend((100..).zip(Reason::ALL).map(|(number, reason)| DeadLetter {
        rejection: Rejection::new(reason, format!("fault {number}")),
        item: Some(number),
        ..letter(number, "bad")
    }));
    publish(&fixture.dead_letters().await, &letters).await;
    assert!(stored(fixture).await == by_id(&letters));
}

/// The envelope of the refused message, also where it names headers as the dead letters' own are named.
pub async fn a_dead_letter_keeps_what_its_message_said(fixture: &impl SourceFixture) {
    let envelope = Envelope {
        message_id: Some("6f1c\u{e9}".to_owned()),
        content_type: Some("application/json".to_owned()),
        routing_key: Some("john.doe.event.created".to_owned()),
        headers: vec![
            ("traceparent".to_owned(), "00-4bf9-01".to_owned()),
            ("x-empty".to_owned(), String::new()),
        ],
    };
    let letters = [DeadLetter { envelope, received_at: Timestamp::new(0, 1), ..letter(1, "bad") }];
    publish(&fixture.dead_letters().await, &letters).await;
    assert_eq!(stored(fixture).await, by_id(&letters));
}

/// One call, one answer for all of them.
pub async fn many_dead_letters_are_stored_by_one_call(fixture: &impl SourceFixture) {
    let letters: Vec<DeadLetter> = (0..2_500).map(|number| letter(number, number.to_string())).collect();
    publish(&fixture.dead_letters().await, &letters).await;
    assert_eq!(stored(fixture).await, by_id(&letters));
}

/// A call without letters does nothing.
pub async fn no_dead_letters_at_all_succeed(fixture: &impl SourceFixture) {
    publish(&fixture.dead_letters().await, &[]).await;
    assert!(stored(fixture).await.is_empty());
}

/// After a lost connection the same handle publishes again, at most after a transient error.
pub async fn dead_letters_survive_a_cut(fixture: &impl SourceFixture) {
    let handle = fixture.dead_letters().await;
    let letters = [letter(1, "before"), letter(2, "after")];
    publish(&handle, &letters[..1]).await;
    fixture.cut().await;
    while let Err(error) = within(handle.publish(&letters[1..])).await {
        assert!(error.is_transient(), "{error}");
    }
    assert_eq!(stored(fixture).await, by_id(&letters));
}
