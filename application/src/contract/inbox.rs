//! What every inbox does, together with its source and its dead letters.
//!
//! `inbox_contract!` makes a test of each promise. What the source does beside that is in [`super::source`].
#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]

mod reading;
mod storing;

pub use {reading::*, storing::*};

use crate::ports::{
    DeadLetters, Delivery, Envelope, Inbox, InboxEntry, InboxEvent, InboxFilter, InboxStatus, PulseSource,
    Received, Stored, Watermark,
};
use domain::Timestamp;
use std::time::Duration;

/// A call that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// An empty inbox of one test.
pub trait FreshInbox {
    /// A handle on the inbox, and on its dead letters.
    type Inbox: Inbox + DeadLetters;
    /// A reader of it.
    type Source: PulseSource;

    /// A handle like that of another process: every call gives one more on the same inbox.
    fn open(&self) -> impl Future<Output = Self::Inbox> + Send;

    /// A reader beside the handle, in the same process, which waits longer and longer up to [`POLL_INTERVAL`] for the next
    /// look, 5 ms at first. Its leases end after [`LEASE`] where it is dropped without being
    /// closed, an event has failed after [`ATTEMPTS_MAX`] of these, and it is tried again a moment after the others.
    fn source(&self, inbox: &Self::Inbox) -> impl Future<Output = Self::Source> + Send;
}

/// How long a source waits at most between two looks in these tests.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How long a lease lasts in these tests.
pub const LEASE: Duration = Duration::from_secs(1);
/// How many claims without an answer an event survives in these tests, the last one not included.
pub const ATTEMPTS_MAX: u32 = 4;
/// After so many of these an event is claimed alone.
pub const SUSPECT_ATTEMPTS: u32 = 3;

/// Makes a test of each promise. The expression is a future of [`FreshInbox`], asked for once a test.
#[macro_export]
macro_rules! inbox_contract {
    ($fresh:expr) => {
        $crate::inbox_contract! { $fresh =>
            what_is_stored_is_listed_newest_first
            the_same_event_is_stored_once
            another_event_of_the_same_id_is_a_conflict
            repetitions_within_one_call_are_told_apart
            callers_at_the_same_time_agree
            an_event_that_cannot_be_stored_fails_alone
            every_filter_holds
            what_is_stored_is_given_with_what_it_said
            an_event_goes_through_its_life
            a_source_wakes_at_once
            two_sources_share_the_events
            what_a_lost_worker_had_is_given_again
            what_could_be_taken_is_told_by_its_age
            a_lease_that_is_held_is_renewed
            an_event_that_nobody_answers_for_fails
            an_event_that_ends_its_workers_fails_alone
            what_was_refused_fails_with_the_reasons
            an_event_refused_after_it_was_done_has_failed
            a_failed_event_can_be_sent_round_again
            only_a_failed_event_can_be_discarded
            only_what_is_done_is_removed
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::inbox::$promise(&fresh).await;
            }
        )*
    };
}

/// Arrived at a time with a fraction, to the microsecond.
fn event(event_id: &str, body: &str) -> InboxEvent {
    InboxEvent {
        source: "payments".to_owned(),
        event_id: event_id.to_owned(),
        original: None,
        body: body.into(),
        envelope: Envelope::default(),
        received_at: Timestamp::new(1_768_046_400, 250_001_000),
    }
}

/// The events `0`, `1`, and so on.
fn numbered(numbers: std::ops::Range<u32>) -> Vec<InboxEvent> {
    numbers.map(|number| event(&number.to_string(), &number.to_string())).collect()
}

async fn store(inbox: &impl Inbox, events: &[InboxEvent]) -> Vec<Stored> {
    within(inbox.store(events)).await.expect("events can be stored")
}

const ALL: InboxFilter = InboxFilter { status: None, source: None, before: None, limit: 1_000 };

/// All events, oldest first.
async fn entries(inbox: &impl Inbox) -> Vec<InboxEntry> {
    let mut entries = inbox.list(&ALL).await.expect("events can be listed");
    entries.reverse();
    entries
}

/// Where the events stand, oldest first.
async fn statuses(inbox: &impl Inbox) -> Vec<InboxStatus> {
    entries(inbox).await.into_iter().map(|entry| entry.status).collect()
}

async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, call).await.expect("the call does not hang")
}

/// Receives until there are that many.
async fn take(source: &impl PulseSource, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        match within(source.receive()).await.expect("the source can be read") {
            Received::Deliveries(more) => deliveries.extend(more),
            Received::End => panic!("the source has not ended"),
        }
    }
    assert_eq!(deliveries.len(), count, "there are no more than were stored");
    deliveries
}

async fn settle(source: &impl PulseSource, deliveries: &[Delivery]) {
    let last = deliveries.last().expect("there is something to settle");
    let watermark = Watermark { partition: last.partition, sequence: last.sequence };
    within(source.settle(watermark)).await.expect("settling succeeds");
}

async fn close(source: &impl PulseSource) {
    within(source.close()).await.expect("closing succeeds");
}
