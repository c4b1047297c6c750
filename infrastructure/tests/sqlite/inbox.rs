//! The inbox and the keys in a file.

use crate::open;
use application::{
    contract::{
        api_keys::FreshKeys,
        inbox::{ATTEMPTS_MAX, FreshInbox, LEASE, POLL_INTERVAL},
        source::{Message, SourceFixture},
    },
    ports::{DeadLetter, Envelope, Inbox, InboxEvent},
};
use async_trait::async_trait;
use domain::Timestamp;
use infrastructure::{
    inbox::{HEADER_EVENT, InboxSettings, InboxSource, StoredInbox},
    sqlite::EmbeddedStore,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

struct InboxFile {
    folder: TempDir,
    put: Mutex<Vec<Message>>,
}

impl InboxFile {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), put: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("pulse.db")
    }

    async fn inbox(&self) -> StoredInbox {
        Arc::new(open(&self.path()).await).inbox(settings())
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

impl FreshKeys for InboxFile {
    type Keys = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        open(&self.path()).await
    }
}

impl FreshInbox for InboxFile {
    type Inbox = StoredInbox;
    type Source = InboxSource;

    async fn open(&self) -> StoredInbox {
        self.inbox().await
    }

    async fn source(&self, inbox: &StoredInbox) -> InboxSource {
        inbox.source()
    }
}

#[async_trait]
impl SourceFixture for InboxFile {
    type Source = InboxSource;
    type DeadLetters = StoredInbox;

    async fn source(&self) -> InboxSource {
        self.inbox().await.source()
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

    /// A message says which event it is, and never has no id.
    fn carried(&self, envelope: Envelope) -> Envelope {
        let place = self.put.lock().unwrap().iter().position(|message| message.envelope == envelope);
        let place = place.expect("it was put in");
        let mut headers = envelope.headers;
        headers.push((HEADER_EVENT.to_owned(), (place + 1).to_string()));
        let message_id = envelope.message_id.or_else(|| Some(format!("contract/{place}")));
        Envelope { message_id, headers, ..envelope }
    }
}

mod keys {
    use super::InboxFile;
    application::api_keys_contract!(std::future::ready(InboxFile::new()));
}

mod an_inbox {
    use super::InboxFile;
    application::inbox_contract!(std::future::ready(InboxFile::new()));
}

mod a_source {
    use super::InboxFile;
    application::source_contract! { std::future::ready(InboxFile::new()) =>
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
