//! The inbox and the keys in PostgreSQL.

use crate::{
    connect,
    contract::{Database, fresh},
    inbox_crashes,
};
use application::{
    contract::{
        api_keys::FreshKeys,
        inbox::{ATTEMPTS_MAX, FreshInbox, LEASE, POLL_INTERVAL},
        source::{Message, SourceFixture},
    },
    ports::{DeadLetter, Envelope, Inbox, InboxEvent},
};
use async_trait::async_trait;
use domain::{Timestamp, content_hash};
use futures_util::future::BoxFuture;
use infrastructure::{
    inbox::{HEADER_EVENT, InboxSettings, InboxSource, StoredInbox},
    postgres::PostgresLedger,
};
use std::{sync::Mutex, time::Duration};

struct Events {
    database: Database,
    put: Mutex<Vec<Message>>,
}

async fn events() -> Events {
    Events { database: fresh().await, put: Mutex::default() }
}

impl Events {
    async fn inbox(&self) -> StoredInbox {
        connect(&self.database.url).await.inbox()
    }
}

fn settings() -> InboxSettings {
    InboxSettings {
        poll_interval: POLL_INTERVAL,
        lease: LEASE,
        attempts_max: ATTEMPTS_MAX,
        retry_after: Duration::from_millis(10),
    }
}

impl FreshKeys for Events {
    type Keys = PostgresLedger;

    async fn open(&self) -> PostgresLedger {
        connect(&self.database.url).await
    }
}

impl FreshInbox for Events {
    type Inbox = StoredInbox;
    type Source = InboxSource;

    async fn open(&self) -> StoredInbox {
        self.inbox().await
    }

    async fn source(&self, inbox: &StoredInbox) -> InboxSource {
        inbox.source(settings())
    }
}

#[async_trait]
impl SourceFixture for Events {
    type Source = InboxSource;
    type DeadLetters = StoredInbox;

    async fn source(&self) -> InboxSource {
        self.inbox().await.source(settings())
    }

    async fn dead_letters(&self) -> StoredInbox {
        self.inbox().await
    }

    async fn put(&self, messages: Vec<Message>) {
        let first = self.put.lock().unwrap().len();
        let events: Vec<InboxEvent> = messages
            .iter()
            .zip(first..)
            .map(|(message, number)| InboxEvent {
                source: "contract".to_owned(),
                event_id: number.to_string(),
                original: None,
                body: message.body.clone(),
                envelope: message.envelope.clone(),
                received_at: Timestamp::new(1_768_046_400, 0),
            })
            .collect();
        self.put.lock().unwrap().extend(messages);
        self.inbox().await.store(&events).await.unwrap();
    }

    async fn cut(&self) {}

    async fn stored_letters(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    /// A message says which event it is, and has an id that is made of that where it had none.
    fn carried(&self, envelope: Envelope) -> Envelope {
        let place = self.put.lock().unwrap().iter().position(|message| message.envelope == envelope);
        let place = place.expect("it was put in");
        let mut headers = envelope.headers;
        headers.push((HEADER_EVENT.to_owned(), (place + 1).to_string()));
        let message_id = envelope.message_id.or_else(|| Some(made_id(place)));
        Envelope { message_id, headers, ..envelope }
    }
}

fn made_id(place: usize) -> String {
    let hash = content_hash(&[b"inbox", b"contract", place.to_string().as_bytes()]);
    format!("{:032x}", u128::from_be_bytes(hash))
}

mod keys {
    use super::events;
    application::api_keys_contract!(events());
}

mod an_inbox {
    use super::events;
    application::inbox_contract!(events());
}

mod a_source {
    use super::events;
    application::source_contract! { events() =>
        everything_is_received_in_order
        a_body_is_received_byte_for_byte
        a_message_says_about_itself_what_it_said
        a_call_that_is_dropped_loses_nothing
        messages_that_come_later_are_received
        closing_a_source_that_was_never_read_succeeds
        what_was_not_settled_comes_again
        what_was_settled_does_not_come_again
        a_watermark_settles_everything_below_it
        settling_twice_or_back_changes_nothing
        settling_nothing_that_was_ever_there_succeeds
        no_dead_letters_at_all_succeed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_counted_once_however_often_workers_are_killed() {
    let database = fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let url = database.url.clone();
    let inbox = move || -> BoxFuture<'static, StoredInbox> {
        let url = url.clone();
        Box::pin(async move { connect(&url).await.inbox() })
    };
    inbox_crashes::each_event_is_counted_once(inbox, &folder.path().join("counts.db")).await;
}
