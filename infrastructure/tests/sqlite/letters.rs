//! The contract of dead letters that people go through, and what only the file does.

use crate::open;
use application::{
    contract::letters::LettersFixture,
    ports::{
        DeadLetter, DeadLetters, Envelope, LetterPlace, PulseSource, Received, RefusedPulses, Returned,
        Watermark,
    },
};
use domain::{Reason, Rejection, Timestamp};
use infrastructure::{
    inbox::{HEADER_EVENT, InboxSettings},
    sqlite::{EmbeddedLetters, EmbeddedStore},
};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

struct LettersFile(TempDir);

impl LettersFile {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> EmbeddedStore {
        open(&self.0.path().join("pulse.db")).await
    }
}

impl LettersFixture for LettersFile {
    type Store = EmbeddedStore;
    type Place = EmbeddedLetters;

    const SOURCE: &'static str = "inbox";

    async fn store(&self) -> EmbeddedStore {
        self.open().await
    }

    async fn place(&self) -> EmbeddedLetters {
        EmbeddedLetters::new(Arc::new(self.open().await))
    }

    async fn came_back(&self) -> Vec<(Vec<u8>, Envelope)> {
        let inbox = Arc::new(self.open().await).inbox();
        let source = inbox.source(InboxSettings::default());
        let Received::Deliveries(deliveries) = source.receive().await.unwrap() else {
            panic!("it does not end")
        };
        if let Some(last) = deliveries.last() {
            source.settle(Watermark { partition: last.partition, sequence: last.sequence }).await.unwrap();
        }
        source.close().await.unwrap();
        let mut came = Vec::new();
        for delivery in deliveries {
            let mut envelope = delivery.envelope;
            envelope.headers.retain(|(name, _)| name != HEADER_EVENT);
            came.push((delivery.body, envelope));
        }
        came
    }
}

application::letters_contract!(std::future::ready(LettersFile::new()));

fn letter(id: &str, source: &str) -> DeadLetter {
    DeadLetter {
        id: id.to_owned(),
        rejection: Rejection::new(Reason::Conflict, "another amount"),
        body: b"x".to_vec(),
        item: Some(3),
        source: source.to_owned(),
        place: None,
        envelope: Envelope {
            headers: vec![(HEADER_EVENT.to_owned(), "7".to_owned())],
            ..Envelope::default()
        },
        received_at: Timestamp::new(7, 0),
    }
}

fn back(number: u64) -> Returned {
    Returned { number, source: "inbox".to_owned(), body: b"x".to_vec(), envelope: Envelope::default() }
}

/// Two people press the button at the same time.
#[tokio::test]
async fn of_two_runs_one_sends_a_letter_back() {
    let file = LettersFile::new();
    file.open().await.publish(&[letter("a", "inbox")]).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut run = file.place().await.open().await.unwrap();
        let number = run.next().await.unwrap()[0].0;
        runs.push((run, number));
    }
    for (run, number) in &mut runs {
        run.send_back(&[back(*number)]).await.unwrap();
    }
    assert_eq!(file.came_back().await.len(), 1);
    assert_eq!(file.open().await.count().await.unwrap(), 0);
}

/// The numbers of rows are used again: who goes by them would take another letter.
#[tokio::test]
async fn a_letter_that_came_into_the_place_of_another_is_left_alone() {
    let file = LettersFile::new();
    file.open().await.publish(&[letter("a", "inbox")]).await.unwrap();
    let (mut one, mut other) =
        (file.place().await.open().await.unwrap(), file.place().await.open().await.unwrap());
    let (number, same) = (one.next().await.unwrap()[0].0, other.next().await.unwrap()[0].0);
    other.remove(&[same]).await.unwrap();
    file.open().await.publish(&[letter("b", "inbox")]).await.unwrap();
    one.remove(&[number]).await.unwrap();
    one.send_back(&[back(number)]).await.unwrap();
    assert_eq!(file.open().await.count().await.unwrap(), 1);
    assert_eq!(file.came_back().await.len(), 0);
}

#[tokio::test]
async fn what_stays_says_why() {
    let file = LettersFile::new();
    let store = Arc::new(file.open().await);
    store.publish(&[letter("a", "file"), letter("b", "inbox")]).await.unwrap();
    let obstacles = async |place: EmbeddedLetters| {
        let letters = place.open().await.unwrap().next().await.unwrap();
        letters.into_iter().map(|(_, letter)| letter.obstacle).collect::<Vec<_>>()
    };
    let of_store = || EmbeddedLetters::new(Arc::clone(&store));
    assert_eq!(obstacles(of_store()).await, [None, None]);
    assert_eq!(obstacles(of_store().lines_stay("lines")).await, [Some("lines".to_owned()), None]);
    assert_eq!(obstacles(of_store().all_stay("all")).await, [Some("all".to_owned()), Some("all".to_owned())]);
}

#[tokio::test]
async fn old_letters_are_removed_and_new_ones_stay() {
    let file = LettersFile::new();
    let store = file.open().await;
    store.publish(&[letter("a", "inbox")]).await.unwrap();
    assert_eq!(store.remove_letters(Timestamp::new(1_000_000_000, 0)).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.remove_letters(Timestamp::new(10_000_000_000, 0)).await.unwrap(), 1);
    assert_eq!(store.count().await.unwrap(), 0);
}
