//! Storing: once, durable, and told apart from what was there.

use super::{
    ALL, FreshInbox, Inbox, InboxEvent, InboxFilter, InboxStatus, Stored, entries, event, numbered, settle,
    store, take,
};
use futures_util::future::join_all;
use std::collections::BTreeMap;

/// Everything about them, as another process sees it.
pub async fn what_is_stored_is_listed_newest_first<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    assert_eq!(inbox.list(&ALL).await.expect("events can be listed"), []);
    let with_original = InboxEvent { original: Some(b"{ \"a\" : 1 }\0".to_vec()), ..event("1", "{\"a\":1}") };
    assert_eq!(store(&inbox, &[with_original.clone(), event("0", "zero")]).await, [Stored::New; 2]);
    store(&inbox, &[event("2", "")]).await;
    let listed = fresh.open().await.list(&ALL).await.expect("events can be listed");
    let ids: Vec<&str> = listed.iter().map(|entry| entry.event_id.as_str()).collect();
    assert_eq!(ids, ["2", "0", "1"]);
    assert!(listed.is_sorted_by(|left, right| left.id > right.id));
    let originals: Vec<&[u8]> = listed.iter().map(|entry| entry.original.as_slice()).collect();
    assert_eq!(originals, [&b""[..], b"zero", b"{ \"a\" : 1 }\0"]);
    for entry in listed {
        assert_eq!((entry.source.as_str(), entry.status), ("payments", InboxStatus::Received));
        assert_eq!((entry.attempts, entry.last_error, entry.processed_at), (0, None, None));
        assert_eq!(entry.received_at, with_original.received_at);
    }
}

/// Whoever sends it again, and however far the first one is; another source's is another event.
pub async fn the_same_event_is_stored_once<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let first = InboxEvent { original: Some(b"sent".to_vec()), ..event("1", "read") };
    assert_eq!(store(&inbox, std::slice::from_ref(&first)).await, [Stored::New]);
    // Senders may write a repetition anew, with other spaces or fields; what is counted is what makes it the same.
    let again = InboxEvent { original: Some(b"sent in another way".to_vec()), ..first.clone() };
    assert_eq!(store(&fresh.open().await, std::slice::from_ref(&again)).await, [Stored::Known]);
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 1).await;
    assert_eq!(deliveries[0].body, b"read");
    assert_eq!(store(&inbox, std::slice::from_ref(&first)).await, [Stored::Known]);
    settle(&source, &deliveries).await;
    assert_eq!(store(&inbox, std::slice::from_ref(&first)).await, [Stored::Known]);
    let elsewhere = InboxEvent { source: "pulses".to_owned(), ..first };
    assert_eq!(store(&inbox, &[elsewhere]).await, [Stored::New]);
    assert_eq!(entries(&inbox).await.len(), 2);
    super::close(&source).await;
}

/// The first one stays.
pub async fn another_event_of_the_same_id_is_a_conflict<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &[event("1", "first")]).await;
    assert_eq!(
        store(&inbox, &[event("1", "second"), event("2", "other")]).await,
        [Stored::Conflict, Stored::New]
    );
    let with_original = InboxEvent { original: Some(b"first".to_vec()), ..event("1", "second") };
    assert_eq!(store(&inbox, &[with_original]).await, [Stored::Conflict]);
    let entries = entries(&inbox).await;
    assert_eq!(entries[0].original, b"first");
    assert_eq!(entries.len(), 2);
}

/// As if they had come one after the other; none is none.
pub async fn repetitions_within_one_call_are_told_apart<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let call = [event("1", "a"), event("2", "b"), event("1", "a"), event("2", "c"), event("3", "d")];
    assert_eq!(
        store(&inbox, &call).await,
        [Stored::New, Stored::New, Stored::Known, Stored::Conflict, Stored::New]
    );
    assert_eq!(store(&inbox, &[]).await, []);
    assert_eq!(entries(&inbox).await.len(), 3);
}

/// Of many who store the same events, through two handles, each event is new to exactly one.
pub async fn callers_at_the_same_time_agree<F: FreshInbox>(fresh: &F) {
    let handles = [fresh.open().await, fresh.open().await];
    let calls = (0..100_u32).map(|caller| {
        let inbox = &handles[usize::from(caller % 2 == 1)];
        async move {
            // Each event is sent by ten callers, two of which send something else.
            let number = caller / 10;
            let body = if caller % 10 < 8 { "same" } else { "other" };
            (number, store(inbox, &[event(&number.to_string(), body)]).await[0])
        }
    });
    let mut outcomes: BTreeMap<u32, Vec<Stored>> = BTreeMap::new();
    for (number, outcome) in join_all(calls).await {
        outcomes.entry(number).or_default().push(outcome);
    }
    for (number, outcomes) in outcomes {
        let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
        assert_eq!(count(Stored::New), 1, "event {number} is new to one: {outcomes:?}");
        let (known, conflicts) = (count(Stored::Known), count(Stored::Conflict));
        assert!((known, conflicts) == (7, 2) || (known, conflicts) == (1, 8), "event {number}: {outcomes:?}");
    }
    assert_eq!(entries(&handles[0]).await.len(), 10);
}

/// A fault of one caller is no fault of those whose events are stored beside it.
pub async fn an_event_that_cannot_be_stored_fails_alone<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let (good, nul, long) = ([event("1", "a")], [event("a\0b", "a")], [event(&"x".repeat(257), "a")]);
    let (good, nul, long) = tokio::join!(inbox.store(&good), inbox.store(&nul), inbox.store(&long));
    assert_eq!(good.expect("events can be stored"), [Stored::New]);
    for refused in [nul, long] {
        assert!(!refused.expect_err("it is refused").is_transient());
    }
    assert_eq!(entries(&inbox).await.len(), 1);
}

/// Status, source, page and limit, alone and together.
pub async fn every_filter_holds<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let mut events = numbered(0..6);
    for event in &mut events[3..] {
        "pulses".clone_into(&mut event.source);
    }
    store(&inbox, &events).await;
    let source = fresh.source(&inbox).await;
    settle(&source, &take(&source, 6).await[..4]).await;
    super::close(&source).await;
    let ids = async |filter: InboxFilter| -> Vec<String> {
        let listed = inbox.list(&filter).await.expect("events can be listed");
        listed.into_iter().map(|entry| entry.event_id).collect()
    };
    assert_eq!(ids(InboxFilter { status: Some(InboxStatus::Done), ..ALL }).await, ["3", "2", "1", "0"]);
    assert_eq!(ids(InboxFilter { status: Some(InboxStatus::Received), ..ALL }).await, ["5", "4"]);
    assert_eq!(ids(InboxFilter { status: Some(InboxStatus::Failed), ..ALL }).await, [""; 0]);
    assert_eq!(ids(InboxFilter { source: Some("pulses".to_owned()), ..ALL }).await, ["5", "4", "3"]);
    let fifth = inbox.list(&InboxFilter { limit: 2, ..ALL }).await.expect("events can be listed")[1].id;
    let page = InboxFilter { before: Some(fifth), limit: 2, ..ALL };
    assert_eq!(ids(page.clone()).await, ["3", "2"]);
    let page = InboxFilter { source: Some("payments".to_owned()), status: Some(InboxStatus::Done), ..page };
    assert_eq!(ids(page).await, ["2", "1"]);
}
