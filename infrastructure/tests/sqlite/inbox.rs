//! The inbox and the keys in a file.

use crate::{inbox_crashes, open};
use application::{
    contract::{
        api_keys::FreshKeys,
        inbox::{ATTEMPTS_MAX, FreshInbox, LEASE, POLL_INTERVAL},
        source::{Message, SourceFixture},
    },
    ports::{DeadLetter, Envelope, Inbox, InboxEvent, InboxFilter},
};
use async_trait::async_trait;
use domain::{Timestamp, content_hash};
use futures_util::future::BoxFuture;
use infrastructure::{
    inbox::{HEADER_EVENT, InboxSettings, InboxSource, StoredInbox},
    sqlite::EmbeddedStore,
};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
        Arc::new(open(&self.path()).await).inbox()
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
        inbox.source(settings())
    }
}

#[async_trait]
impl SourceFixture for InboxFile {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_counted_once_however_often_workers_are_killed() {
    let file = InboxFile::new();
    let path = file.path();
    let opened = path.clone();
    let inbox = move || -> BoxFuture<'static, StoredInbox> {
        let path = opened.clone();
        Box::pin(async move { Arc::new(open(&path).await).inbox() })
    };
    inbox_crashes::each_event_is_counted_once(inbox, &path).await;
}

/// Names the file to the process that is killed.
const KILLED_FILE: &str = "PULSE_TEST_KILLED_FILE";

/// This test starts itself once more as the process that stores and is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_survives_the_kill_of_the_process() {
    if let Some(path) = std::env::var_os(KILLED_FILE) {
        return store_until_killed(path.into()).await;
    }
    let file = InboxFile::new();
    let mut confirmed = Vec::new();
    for round in 1..=3 {
        let path = file.path();
        let lines = tokio::task::spawn_blocking(move || run_and_kill(&path, 200 * round));
        confirmed.extend(lines.await.unwrap());
        let all = InboxFilter { status: None, source: None, before: None, limit: 1_000_000 };
        let stored: BTreeSet<String> =
            file.inbox().await.list(&all).await.unwrap().into_iter().map(|entry| entry.event_id).collect();
        assert!(
            confirmed.iter().all(|event_id| stored.contains(event_id)),
            "nothing that was confirmed is lost"
        );
    }
}

async fn store_until_killed(path: PathBuf) {
    let inbox = Arc::new(open(&path).await).inbox();
    let store = async || loop {
        let event_id = uuid::Uuid::new_v4().to_string();
        let event = InboxEvent {
            source: "pulses".to_owned(),
            event_id: event_id.clone(),
            original: None,
            body: vec![b'x'; 200],
            envelope: Envelope::default(),
            received_at: Timestamp::new(0, 0),
        };
        inbox.store(&[event]).await.unwrap();
        let told = writeln!(std::io::stdout(), "\nstored {event_id}");
        assert!(told.is_ok(), "{told:?}");
    };
    futures_util::future::join_all((0..16).map(|_| store())).await;
}

/// Runs the process until it has confirmed so many events; what it has confirmed until it was gone.
fn run_and_kill(path: &Path, count: usize) -> Vec<String> {
    let name = "inbox::what_was_stored_survives_the_kill_of_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(KILLED_FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut confirmed = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // The last line may be cut.
        if let Some(event_id) = line.unwrap().strip_prefix("stored ").filter(|id| id.len() == 36) {
            confirmed.push(event_id.to_owned());
            if confirmed.len() == count {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(confirmed.len() >= count);
    confirmed
}
