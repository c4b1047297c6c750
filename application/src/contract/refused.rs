//! What everybody who shows dead letters does.

#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]

use crate::ports::{DeadLetter, DeadLetters, Envelope, RefusedPulses, StoredLetter};
use domain::{Reason, Rejection, Timestamp};

/// Of a store that is empty before: nothing is there, then what was published, and looking takes nothing away.
pub async fn letters_are_shown_and_stay(store: &impl DeadLetters, refused: &impl RefusedPulses) {
    assert_eq!(refused.letters(10).await.expect("an empty store can be read"), []);
    assert_eq!(refused.count().await.expect("an empty store can be counted"), 0);
    let long = vec![b'x'; StoredLetter::BODY_BYTES_MAX + 1];
    let letters =
        [letter("a", None, b"{\"tenant\":\xff"), letter("b", Some(3), &long), letter("c", None, b"")];
    store.publish(&letters).await.expect("the letters are stored");
    for _ in 0..3 {
        let mut shown = refused.letters(10).await.expect("the letters can be read");
        shown.sort_by(|left, right| left.id.cmp(&right.id));
        assert_eq!(shown, letters.each_ref().map(stored));
        assert_eq!(refused.count().await.expect("the letters can be counted"), 3);
    }
    assert_eq!(refused.letters(2).await.expect("some letters can be read").len(), 2);
    assert_eq!(refused.letters(0).await.expect("no letters can be read"), []);
}

fn letter(id: &str, item: Option<u32>, body: &[u8]) -> DeadLetter {
    DeadLetter {
        place: None,
        id: id.repeat(32),
        rejection: Rejection::new(Reason::Malformed, format!("not JSON in {id}")),
        body: body.to_vec(),
        item,
        source: "contract".to_owned(),
        envelope: Envelope { headers: vec![("x-of-theirs".into(), "1".into())], ..Envelope::default() },
        received_at: Timestamp::new(1_768_046_400, 123_000_000),
    }
}

fn stored(letter: &DeadLetter) -> StoredLetter {
    StoredLetter {
        id: letter.id.clone(),
        reason: letter.rejection.reason.code().to_owned(),
        detail: letter.rejection.detail.clone(),
        body: letter.body.iter().copied().take(StoredLetter::BODY_BYTES_MAX).collect(),
        body_bytes: u64::try_from(letter.body.len()).expect("a length fits 64 bits"),
        item: letter.item,
        source: letter.source.clone(),
        received_at: Some(letter.received_at),
    }
}
