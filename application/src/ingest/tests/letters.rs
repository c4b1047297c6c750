//! What the letters of messages without an id are known by when they come back.

use super::*;
use crate::decode::HEADER_ITEM;

const BAD: &str = r#"{"tenant":1}"#;

/// Two messages with the same bytes are two, and a copy of a letter is one.
#[tokio::test(start_paused = true)]
async fn a_message_without_an_id_gets_one_of_its_own_when_it_is_refused() {
    let running = Bench::new(Arc::new(ScriptedSink::default()), Limits::default()).start();
    let mut named = delivery(4, BAD);
    named.envelope.message_id = Some("its own".to_owned());
    running.put([delivery(1, BAD), delivery(2, BAD), delivery(3, format!("[{BAD},{BAD}]")), named]);
    Running::a_second().await;
    let letters = running.letters.lock().unwrap().clone();
    let ids: Vec<&str> =
        letters.iter().map(|letter| letter.envelope.message_id.as_deref().unwrap()).collect();
    assert_eq!(letters[0].id, letters[1].id, "the letters are copies as far as anybody can tell");
    assert!(ids[..4].iter().all(|id| id.starts_with("refused-")), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    assert_eq!((ids[2], ids[4]), (ids[3], "its own"), "{ids:?}");
    assert_eq!((letters[2].item, letters[3].item), (Some(0), Some(1)));
    running.end().await.unwrap();
}

/// It is the same item of the same message, whatever it came with.
#[tokio::test(start_paused = true)]
async fn an_item_that_comes_back_alone_and_is_refused_again_keeps_its_place() {
    let running = Bench::new(Arc::new(ScriptedSink::default()), Limits::default()).start();
    let mut first = delivery(1, format!("[{},{BAD}]", pulse(LEFT, 1)));
    first.envelope.message_id = Some("m".to_owned());
    let mut again = delivery(2, BAD);
    again.envelope.message_id = Some("m".to_owned());
    again.envelope.headers.push((HEADER_ITEM.to_owned(), "1".to_owned()));
    running.put([first, again]);
    Running::a_second().await;
    let letters = running.letters.lock().unwrap().clone();
    assert_eq!((letters[0].item, letters[1].item), (Some(1), Some(1)));
    assert_eq!(letters[0].id, letters[1].id);
    running.end().await.unwrap();
}
