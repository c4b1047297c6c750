//! The inbox of either store, as the contract suites want it.

use application::{
    contract::{
        inbox::{ATTEMPTS_MAX, FreshInbox, LEASE, POLL_INTERVAL},
        source::{Message, SourceFixture},
    },
    ports::{DeadLetter, Envelope, Inbox, InboxEvent},
};
use async_trait::async_trait;
use domain::{Timestamp, content_hash};
use infrastructure::inbox::{HEADER_EVENT, InboxSettings, InboxSource, StoredInbox};
use std::{sync::Mutex, time::Duration};

/// Opens an inbox of its own, again and again.
#[async_trait]
pub(crate) trait OpenInbox: Send + Sync {
    async fn inbox(&self) -> StoredInbox;
}

/// A store with an inbox, and what was put into it.
pub(crate) struct Events<S> {
    store: S,
    put: Mutex<Vec<Message>>,
}

impl<S> Events<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, put: Mutex::default() }
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

impl<S: OpenInbox> FreshInbox for Events<S> {
    type Inbox = StoredInbox;
    type Source = InboxSource;

    async fn open(&self) -> StoredInbox {
        self.store.inbox().await
    }

    async fn source(&self, inbox: &StoredInbox) -> InboxSource {
        inbox.source(settings())
    }
}

#[async_trait]
impl<S: OpenInbox> SourceFixture for Events<S> {
    type Source = InboxSource;
    type DeadLetters = StoredInbox;

    async fn source(&self) -> InboxSource {
        self.store.inbox().await.source(settings())
    }

    async fn dead_letters(&self) -> StoredInbox {
        self.store.inbox().await
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
        self.store.inbox().await.store(&events).await.unwrap();
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
