//! Reading: each event given to somebody until it is done, and to nobody for ever.

use super::{
    ATTEMPTS_MAX, DeadLetters, Delivery, Envelope, FreshInbox, Inbox, InboxEvent, InboxStatus, LEASE,
    PulseSource, SUSPECT_ATTEMPTS, close, entries, event, numbered, settle, statuses, store, take, within,
};
use crate::ports::{DeadLetter, Dealt, Stored};
use domain::{Reason, Rejection, Timestamp};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::new(1_768_046_500, 0);
/// After everything that these tests do.
const LATER: Timestamp = Timestamp::new(7_000_000_000, 0);

/// Body, envelope and time as they were stored; a message without an id gets one, which stays the same.
pub async fn what_is_stored_is_given_with_what_it_said<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let envelope = Envelope {
        message_id: Some("6f1c\u{e9}".to_owned()),
        content_type: Some("application/cloudevents+json".to_owned()),
        routing_key: Some("a.b".to_owned()),
        headers: vec![("ce-type".to_owned(), "x \"y\"".to_owned()), ("empty".to_owned(), String::new())],
    };
    let full = InboxEvent { original: Some(b"sent".to_vec()), envelope, ..event("1", "read\0\u{ff}") };
    store(&inbox, &[full.clone(), event("2", "bare")]).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let source = fresh.source(&inbox).await;
        let deliveries = take(&source, 2).await;
        let first = &deliveries[0];
        assert_eq!((&first.body, first.received_at), (&full.body, full.received_at));
        assert_eq!(first.envelope.message_id, full.envelope.message_id);
        assert_eq!(first.envelope.content_type, full.envelope.content_type);
        assert_eq!(first.envelope.routing_key, full.envelope.routing_key);
        assert!(first.envelope.headers.starts_with(&full.envelope.headers));
        ids.extend(deliveries[1].envelope.message_id.clone());
        close(&source).await;
    }
    assert!(ids.len() == 2 && ids[0] == ids[1] && !ids[0].is_empty(), "{ids:?}");
}

/// Received, processing, done; and received again where the worker stopped before.
pub async fn an_event_goes_through_its_life<F: FreshInbox>(fresh: &F) {
    use InboxStatus::{Done, Processing, Received};
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..3)).await;
    let depth = inbox.depth().await.expect("it can be measured");
    assert_eq!((depth.received, depth.processing, depth.failed), (3, 0, 0));
    assert_eq!(depth.oldest, Some(event("", "").received_at));
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 3).await;
    assert_eq!(statuses(&inbox).await, [Processing; 3]);
    let depth = inbox.depth().await.expect("it can be measured");
    assert_eq!((depth.received, depth.processing, depth.failed), (0, 3, 0));
    assert_eq!((depth.oldest, depth.last_done), (None, None));
    settle(&source, &deliveries[..1]).await;
    assert_eq!(statuses(&inbox).await, [Done, Processing, Processing]);
    let depth = inbox.depth().await.expect("it can be measured");
    assert!(depth.last_done.is_some_and(|done| NOW < done && done < LATER), "{depth:?}");
    close(&source).await;
    let after = entries(&inbox).await;
    let seen: Vec<_> = after.iter().map(|entry| (entry.status, entry.attempts)).collect();
    assert_eq!(seen, [(Done, 1), (Received, 0), (Received, 0)], "a stop is no failed attempt");
    assert!(after[0].processed_at.is_some() && after[1].processed_at.is_none());
    assert!(after.iter().all(|entry| entry.last_error.is_none()));
}

/// What is stored in the same process is given long before the next look at the inbox.
pub async fn a_source_wakes_at_once<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let source = fresh.source(&inbox).await;
    let stored = async {
        // Long enough to have seen often that there is nothing: the next look is more than a second away.
        tokio::time::sleep(Duration::from_millis(1_400)).await;
        store(&inbox, &numbered(0..1)).await;
        Instant::now()
    };
    let (deliveries, stored) = tokio::join!(take(&source, 1), stored);
    assert!(stored.elapsed() < Duration::from_secs(1), "{:?}", stored.elapsed());
    settle(&source, &deliveries).await;
    close(&source).await;
}

/// Nobody gets what another has.
pub async fn two_sources_share_the_events<F: FreshInbox>(fresh: &F) {
    let (inbox, other) = (fresh.open().await, fresh.open().await);
    let sources = [fresh.source(&inbox).await, fresh.source(&other).await];
    store(&inbox, &numbered(0..900)).await;
    let mut given: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut count = 0;
    for round in 0.. {
        if count == 900 {
            break;
        }
        let source = &sources[round % 2];
        let Ok(received) = tokio::time::timeout(Duration::from_millis(100), source.receive()).await else {
            continue;
        };
        if let crate::ports::Received::Deliveries(deliveries) = received.expect("the source can be read") {
            count += deliveries.len();
            given.extend(deliveries.iter().map(|delivery| delivery.body.clone()));
            if !deliveries.is_empty() {
                settle(source, &deliveries).await;
            }
        }
    }
    assert_eq!(given.len(), 900, "each was given once");
    assert_eq!(statuses(&inbox).await, [InboxStatus::Done; 900]);
    for source in &sources {
        close(source).await;
    }
}

/// A worker that is killed says nothing: others take what it had when its lease is over, and then it has no say any more.
pub async fn what_a_lost_worker_had_is_given_again<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..5)).await;
    let lost = fresh.source(&inbox).await;
    let deliveries = take(&lost, 5).await;
    settle(&lost, &deliveries[..2]).await;
    drop(lost);
    let source = fresh.source(&inbox).await;
    assert!(!source.is_drained().await.expect("it can be asked for"), "what the other had may come again");
    let again = take(&source, 3).await;
    assert!(!source.is_drained().await.expect("it can be asked for"));
    assert_eq!(again.iter().map(|it| &it.body).collect::<Vec<_>>(), [b"2", b"3", b"4"]);
    assert!(again.iter().zip(&deliveries[2..]).all(|(again, first)| again.envelope == first.envelope));
    let entries = entries(&inbox).await;
    assert_eq!(entries.iter().map(|entry| entry.attempts).collect::<Vec<_>>(), [1, 1, 2, 2, 2]);
    assert!(entries[2].last_error.as_ref().is_some_and(|error| error.contains("attempt 1")));
    settle(&source, &again).await;
    assert_eq!(statuses(&inbox).await, [InboxStatus::Done; 5]);
    assert!(source.is_drained().await.expect("it can be asked for"));
    close(&source).await;
}

/// Whatever nobody has: what is due, and what a worker had that is lost; not what a worker holds or what waits for its next
/// attempt.
pub async fn what_could_be_taken_is_told_by_its_age<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    let oldest = async || inbox.depth().await.expect("it can be measured").oldest;
    store(&inbox, &numbered(0..1)).await;
    let lost = fresh.source(&inbox).await;
    take(&lost, 1).await;
    assert_eq!(oldest().await, None, "a worker holds it");
    drop(lost);
    let later = InboxEvent { received_at: NOW, ..event("1", "1") };
    store(&inbox, &[later]).await;
    assert_eq!(oldest().await, Some(NOW), "the lease of the other has not ended");
    let end = Instant::now() + LEASE * 10;
    while oldest().await != Some(event("", "").received_at) {
        assert!(Instant::now() < end, "the lease ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// For so long that a lease would have ended.
async fn assert_nothing_comes(source: &impl PulseSource) {
    let end = Instant::now() + LEASE * 3;
    while let Ok(received) = tokio::time::timeout_at(end, source.receive()).await {
        let received = received.expect("the source can be read");
        assert_eq!(received, crate::ports::Received::Deliveries(Vec::new()));
    }
}

/// However long it takes to count it.
pub async fn a_lease_that_is_held_is_renewed<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..1)).await;
    let slow = fresh.source(&inbox).await;
    let deliveries = take(&slow, 1).await;
    let other = fresh.source(&inbox).await;
    assert_nothing_comes(&other).await;
    settle(&slow, &deliveries).await;
    let entries = entries(&inbox).await;
    assert_eq!((entries[0].status, entries[0].attempts), (InboxStatus::Done, 1));
    close(&slow).await;
    close(&other).await;
}

/// What kills each worker that takes it must not do so for ever.
pub async fn an_event_that_nobody_answers_for_fails<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..1)).await;
    for attempt in 1..=ATTEMPTS_MAX {
        let source = fresh.source(&inbox).await;
        take(&source, 1).await;
        let entries = entries(&inbox).await;
        assert_eq!((entries[0].status, entries[0].attempts), (InboxStatus::Processing, attempt));
    }
    let source = fresh.source(&inbox).await;
    assert_nothing_comes(&source).await;
    let entries = entries(&inbox).await;
    assert_eq!((entries[0].status, entries[0].attempts), (InboxStatus::Failed, ATTEMPTS_MAX));
    assert!(entries[0].processed_at.is_some() && entries[0].last_error.is_some());
    close(&source).await;
}

/// Its neighbours are given to somebody who survives them.
pub async fn an_event_that_ends_its_workers_fails_alone<F: FreshInbox>(fresh: &F) {
    use InboxStatus::{Done, Failed};
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..4)).await;
    for _ in 0..SUSPECT_ATTEMPTS {
        take(&fresh.source(&inbox).await, 4).await;
    }
    let mut source = fresh.source(&inbox).await;
    // Nothing is held against this one; its turn comes behind those that are taken alone.
    store(&inbox, &[event("4", "4")]).await;
    let mut settled = BTreeSet::new();
    while settled.len() < 4 {
        let deliveries = take(&source, 1).await;
        if deliveries[0].body == b"1" {
            source = fresh.source(&inbox).await;
        } else {
            settle(&source, &deliveries).await;
            settled.insert(deliveries[0].body.clone());
        }
    }
    assert_nothing_comes(&source).await;
    assert_eq!(statuses(&inbox).await, [Done, Failed, Done, Done, Done]);
    close(&source).await;
}

fn letter(delivery: &Delivery, item: Option<u32>, detail: &str) -> DeadLetter {
    DeadLetter {
        place: None,
        id: format!("{:032x}", delivery.sequence * 1_000 + u64::from(item.unwrap_or(999))),
        rejection: Rejection::new(Reason::NotPositive, detail),
        body: b"bad".to_vec(),
        item,
        source: "inbox".to_owned(),
        envelope: delivery.envelope.clone(),
        received_at: delivery.received_at,
    }
}

async fn refuse(inbox: &impl DeadLetters, letters: &[DeadLetter]) {
    within(inbox.publish(letters)).await.expect("dead letters can be published");
}

/// Settling says only that the good ones count. What was refused before a stop is asked anew.
pub async fn what_was_refused_fails_with_the_reasons<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..3)).await;
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 3).await;
    refuse(&inbox, &[letter(&deliveries[0], Some(7), "used_amount is 0")]).await;
    assert_eq!(statuses(&inbox).await[0], InboxStatus::Processing, "its good pulses may not be counted yet");
    close(&source).await;

    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 3).await;
    let letters =
        [letter(&deliveries[1], Some(2), "used_amount is 0"), letter(&deliveries[1], Some(5), "it's \u{fc}")];
    refuse(&inbox, &letters[..1]).await;
    refuse(&inbox, &letters).await;
    refuse(&inbox, &[letter(&deliveries[2], None, "whole")]).await;
    settle(&source, &deliveries).await;
    refuse(&inbox, &[]).await;
    let entries = entries(&inbox).await;
    let seen: Vec<_> = entries.iter().map(|entry| (entry.status, entry.last_error.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (InboxStatus::Done, None),
            (
                InboxStatus::Failed,
                Some("item 2: not_positive: used_amount is 0; item 5: not_positive: it's \u{fc}")
            ),
            (InboxStatus::Failed, Some("not_positive: whole")),
        ]
    );
    assert!(entries.iter().all(|entry| entry.processed_at.is_some()));
    close(&source).await;
}

/// A refusal of a worker that had lost it is not lost.
pub async fn an_event_refused_after_it_was_done_has_failed<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..2)).await;
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 2).await;
    settle(&source, &deliveries).await;
    refuse(&inbox, &[letter(&deliveries[0], None, "late")]).await;
    let entries = entries(&inbox).await;
    assert_eq!(
        (entries[0].status, entries[0].last_error.as_deref()),
        (InboxStatus::Failed, Some("not_positive: late"))
    );
    assert_eq!(entries[1].status, InboxStatus::Done);
    close(&source).await;
}

/// With its attempts counted from zero; others are left alone and told apart.
pub async fn a_failed_event_can_be_sent_round_again<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..2)).await;
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 2).await;
    refuse(&inbox, &[letter(&deliveries[0], None, "no")]).await;
    settle(&source, &deliveries).await;
    let before = entries(&inbox).await;
    assert_eq!(inbox.retry(before[0].id).await.expect("it can be asked for"), Dealt::Done);
    let again = take(&source, 1).await;
    assert_eq!(again[0].body, b"0");
    assert_eq!(again[0].envelope.message_id, deliveries[0].envelope.message_id);
    let retried = |id| inbox.retry(id);
    let in_hand = retried(before[0].id).await.expect("it can be asked for");
    assert_eq!(in_hand, Dealt::NotFailed(InboxStatus::Processing));
    settle(&source, &again).await;
    let done = retried(before[1].id).await.expect("it can be asked for");
    assert_eq!(done, Dealt::NotFailed(InboxStatus::Done));
    assert_eq!(retried(i64::MAX).await.expect("it can be asked for"), Dealt::Unknown);
    let after = entries(&inbox).await;
    assert_eq!((after[0].status, after[0].attempts, &after[0].last_error), (InboxStatus::Done, 1, &None));
    assert_eq!(after[1], before[1]);
    close(&source).await;
}

/// And nothing else; what is stored again is new.
pub async fn only_a_failed_event_can_be_discarded<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..3)).await;
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 3).await;
    refuse(&inbox, &[letter(&deliveries[0], None, "no")]).await;
    settle(&source, &deliveries[..2]).await;
    let before = entries(&inbox).await;
    let discarded = async |id| inbox.discard(id).await.expect("it can be asked for");
    assert_eq!(discarded(before[1].id).await, Dealt::NotFailed(InboxStatus::Done));
    assert_eq!(discarded(before[2].id).await, Dealt::NotFailed(InboxStatus::Processing));
    assert_eq!(entries(&inbox).await, before);
    assert_eq!(discarded(before[0].id).await, Dealt::Done);
    assert_eq!(discarded(before[0].id).await, Dealt::Unknown);
    assert_eq!(entries(&inbox).await, before[1..]);
    assert_eq!(store(&inbox, &numbered(0..2)).await, [Stored::New, Stored::Known]);
    close(&source).await;
}

/// And only what was done before the moment, in bounded steps.
pub async fn only_what_is_done_is_removed<F: FreshInbox>(fresh: &F) {
    let inbox = fresh.open().await;
    store(&inbox, &numbered(0..5)).await;
    let source = fresh.source(&inbox).await;
    let deliveries = take(&source, 5).await;
    refuse(&inbox, &[letter(&deliveries[1], None, "no")]).await;
    settle(&source, &deliveries[..4]).await;
    let long_ago = inbox.remove_done(Timestamp::new(1_000_000_000, 0)).await;
    assert_eq!(long_ago.expect("it can be asked for"), 0);
    assert_eq!(inbox.remove_done(LATER).await.expect("it can be asked for"), 3);
    assert_eq!(inbox.remove_done(LATER).await.expect("it can be asked for"), 0);
    assert_eq!(statuses(&inbox).await, [InboxStatus::Failed, InboxStatus::Processing]);
    close(&source).await;
    let newest = entries(&inbox).await.last().expect("there are two").id;
    store(&inbox, &[event("new", "new")]).await;
    assert!(entries(&inbox).await[2].id > newest, "numbers grow");
}
