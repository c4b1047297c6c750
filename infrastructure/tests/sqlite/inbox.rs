//! The inbox and the keys in a file.

use crate::{
    inbox_crashes,
    inbox_events::{Events, OpenInbox},
    open,
};
use application::{
    contract::api_keys::FreshKeys,
    ports::{Envelope, Inbox, InboxEvent, InboxFilter},
};
use async_trait::async_trait;
use domain::Timestamp;
use futures_util::future::BoxFuture;
use infrastructure::{inbox::StoredInbox, sqlite::EmbeddedStore};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

struct InboxFile(TempDir);

impl InboxFile {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("pulse.db")
    }
}

#[async_trait]
impl OpenInbox for InboxFile {
    async fn inbox(&self) -> StoredInbox {
        Arc::new(open(&self.path()).await).inbox()
    }
}

impl FreshKeys for InboxFile {
    type Keys = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        open(&self.path()).await
    }
}

async fn events() -> Events<InboxFile> {
    Events::new(InboxFile::new())
}

mod keys {
    use super::InboxFile;
    application::api_keys_contract!(std::future::ready(InboxFile::new()));
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
