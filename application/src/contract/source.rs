//! What every source and its dead letters do.
//!
//! Implement [`SourceFixture`] and let [`source_contract!`](crate::source_contract) make the tests.

#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]

mod dead_letters;
mod receiving;
mod settling;

pub use {dead_letters::*, receiving::*, settling::*};

use crate::ports::{
    DeadLetter, DeadLetters, Delivery, Envelope, PartitionId, PulseSource, Received, Watermark,
};
use async_trait::async_trait;
use domain::{Reason, Rejection, Timestamp};
use std::{collections::BTreeSet, time::Duration};

/// A call that takes longer than this hangs. Sources may take a while to notice that a connection is gone.
const LIMIT: Duration = Duration::from_mins(1);

/// One message to put into a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The bytes.
    pub body: Vec<u8>,
    /// What it says about itself. The routing key is the fixture's business.
    pub envelope: Envelope,
}

/// A source with nothing in it and one partition at a time, its dead letters, and the ways to both.
#[async_trait]
pub trait SourceFixture: Send + Sync {
    /// The source.
    type Source: PulseSource;
    /// Its dead letters.
    type DeadLetters: DeadLetters;

    /// A handle on the source, as a program has after its start. One is open at a time.
    async fn source(&self) -> Self::Source;

    /// A handle on the dead letters.
    async fn dead_letters(&self) -> Self::DeadLetters;

    /// Puts messages in, in their order; they are durable when it returns.
    async fn put(&self, messages: Vec<Message>);

    /// Cuts every connection of the handles, as a failing network does. They may not have noticed when it returns.
    async fn cut(&self);

    /// All dead letters that are stored, in any order, as often as they are stored.
    async fn stored_letters(&self) -> Vec<DeadLetter>;

    /// What the source can carry of this.
    fn carried(&self, envelope: Envelope) -> Envelope {
        envelope
    }
}

/// Makes one test of each function of the suite. The expression is a future of a new [`SourceFixture`].
#[macro_export]
macro_rules! source_contract {
    ($fixture:expr) => {
        $crate::source_contract! { $fixture =>
            an_empty_source_answers_once_it_is_open
            everything_is_received_in_order
            a_body_is_received_byte_for_byte
            a_message_says_about_itself_what_it_said
            a_call_that_is_dropped_loses_nothing
            messages_that_come_later_are_received
            a_cut_connection_is_a_transient_error_and_heals
            closing_a_source_that_was_never_read_succeeds
            what_was_not_settled_comes_again
            what_was_not_settled_comes_again_after_a_cut
            what_was_settled_does_not_come_again
            a_watermark_settles_everything_below_it
            settling_twice_or_back_changes_nothing
            settling_a_partition_that_is_gone_does_nothing
            settling_nothing_that_was_ever_there_succeeds
            a_dead_letter_keeps_its_bytes_and_its_reason
            a_dead_letter_keeps_what_its_message_said
            many_dead_letters_are_stored_by_one_call
            no_dead_letters_at_all_succeed
            dead_letters_survive_a_cut
        }
    };
    ($fixture:expr => $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fixture = $fixture.await;
                $crate::contract::source::$promise(&fixture).await;
            }
        )*
    };
}

fn message(body: impl Into<Vec<u8>>) -> Message {
    Message { body: body.into(), envelope: Envelope::default() }
}

/// The bodies `0`, `1`, and so on.
fn numbered(numbers: std::ops::Range<u32>) -> Vec<Message> {
    numbers.map(|number| message(number.to_string())).collect()
}

async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, call).await.expect("the call takes no longer than a minute")
}

async fn next(source: &impl PulseSource) -> Vec<Delivery> {
    loop {
        match within(source.receive()).await.expect("the source can be read") {
            Received::Deliveries(deliveries) if deliveries.is_empty() => {}
            Received::Deliveries(deliveries) => return deliveries,
            Received::End => panic!("the source has not ended"),
        }
    }
}

/// Receives until there are that many.
async fn take(source: &impl PulseSource, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        deliveries.extend(next(source).await);
    }
    assert_eq!(deliveries.len(), count, "there are no more than were put in");
    deliveries
}

async fn settle(source: &impl PulseSource, partition: PartitionId, sequence: u64) {
    within(source.settle(Watermark { partition, sequence })).await.expect("settling succeeds");
}

async fn settle_all(source: &impl PulseSource, deliveries: &[Delivery]) {
    if let Some(last) = deliveries.last() {
        settle(source, last.partition, last.sequence).await;
    }
}

async fn close(source: &impl PulseSource) {
    within(source.close()).await.expect("closing succeeds");
}

fn bodies(deliveries: &[Delivery]) -> Vec<&[u8]> {
    deliveries.iter().map(|delivery| delivery.body.as_slice()).collect()
}

/// The bodies without their order, for what comes again.
fn set(deliveries: &[Delivery]) -> BTreeSet<&[u8]> {
    bodies(deliveries).into_iter().collect()
}

fn set_of(messages: &[Message]) -> BTreeSet<&[u8]> {
    messages.iter().map(|message| message.body.as_slice()).collect()
}
