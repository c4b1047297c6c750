//! What every place of dead letters does for people who go through it.
//!
//! `letters_contract!` makes a test of each promise.
#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]

use crate::ports::{DeadLetter, DeadLetters, Envelope, LetterPlace, LetterRun, Returned, StoredLetter};
use domain::{Reason, Rejection, Timestamp};
use std::time::Duration;

/// A call that takes longer than this hangs.
const LIMIT: Duration = Duration::from_mins(1);
/// The most letters, and roughly the most bytes, that are given at once.
const AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 32 << 20;

/// An empty place of one test, and the source that letters go back to.
pub trait LettersFixture {
    /// Publishes what is refused.
    type Store: DeadLetters;
    /// The place.
    type Place: LetterPlace;

    /// The name of the source whose messages were refused.
    const SOURCE: &'static str;

    /// A publisher.
    fn store(&self) -> impl Future<Output = Self::Store> + Send;

    /// The place as another process sees it.
    fn place(&self) -> impl Future<Output = Self::Place> + Send;

    /// Takes everything that waits in the source: the bodies and what the messages said, in any order.
    fn came_back(&self) -> impl Future<Output = Vec<(Vec<u8>, Envelope)>> + Send;
}

/// Makes a test of each promise. The expression is a future of a [`LettersFixture`], asked for once a test.
#[macro_export]
macro_rules! letters_contract {
    ($fresh:expr) => {
        $crate::letters_contract! { $fresh =>
            letters_are_given_as_they_were_stored_and_stay
            an_empty_place_gives_nothing
            only_what_was_there_at_the_beginning_is_given
            what_is_sent_back_arrives_as_it_was_and_is_gone
            what_is_removed_is_gone_and_the_rest_keeps_its_order
            a_run_that_is_dropped_loses_nothing
            a_run_that_is_dropped_in_the_middle_of_its_work_loses_nothing
            many_letters_come_in_portions
            a_place_can_be_emptied
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::letters::$promise(&fresh).await;
            }
        )*
    };
}

fn letter<F: LettersFixture>(number: u32) -> DeadLetter {
    DeadLetter {
        place: None,
        id: format!("{number:032x}"),
        rejection: Rejection::new(Reason::Malformed, format!("not JSON in {number}")),
        body: format!("{{\"tenant\":\u{201c}{number}").into(),
        item: (number % 2 == 1).then_some(number),
        source: F::SOURCE.to_owned(),
        envelope: Envelope {
            message_id: Some(format!("message {number}")),
            content_type: Some("application/json".to_owned()),
            routing_key: Some("john.doe.event.created".to_owned()),
            headers: vec![("x-of-theirs".to_owned(), "1".to_owned())],
        },
        received_at: Timestamp::new(1_768_046_400, 123_000_000),
    }
}

async fn publish<F: LettersFixture>(fixture: &F, letters: &[DeadLetter]) {
    within(async { fixture.store().await.publish(letters).await }).await.expect("the letters are stored");
}

fn letters<F: LettersFixture>(numbers: std::ops::Range<u32>) -> Vec<DeadLetter> {
    numbers.map(letter::<F>).collect()
}

async fn open<F: LettersFixture>(fixture: &F) -> Box<dyn LetterRun> {
    within(async { fixture.place().await.open().await }).await.expect("the place can be gone through")
}

async fn close(mut run: Box<dyn LetterRun>) {
    within(run.close()).await.expect("a run can be ended");
}

/// All that a run gives.
async fn rest(run: &mut Box<dyn LetterRun>) -> Vec<(u64, StoredLetter)> {
    let mut all = Vec::new();
    loop {
        let some = within(run.next()).await.expect("the letters can be read");
        assert!(some.len() <= AT_ONCE, "a portion is bounded");
        let bytes: usize = some.iter().map(|(_, letter)| letter.body.len()).sum();
        assert!(bytes <= BYTES_AT_ONCE, "the bytes of a portion are bounded");
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

/// The ids of all letters as a new run gives them.
async fn ids<F: LettersFixture>(fixture: &F) -> Vec<String> {
    let mut run = open(fixture).await;
    let all = rest(&mut run).await;
    close(run).await;
    all.into_iter().map(|(_, letter)| letter.id).collect()
}

fn ids_of(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{number:032x}")).collect()
}

fn back(number: u64, letter: &StoredLetter) -> Returned {
    let mut envelope = letter.envelope.clone();
    envelope.headers.insert(0, ("pulse-replays".to_owned(), "1".to_owned()));
    Returned { number, source: letter.source.clone(), body: letter.body.clone(), envelope }
}

async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, call).await.expect("the call does not hang")
}

/// With every byte and everything that is known; looking takes nothing away.
pub async fn letters_are_given_as_they_were_stored_and_stay<F: LettersFixture>(fixture: &F) {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    let stored = [
        letter::<F>(0),
        DeadLetter { body: bytes, ..letter::<F>(1) },
        DeadLetter { body: Vec::new(), ..letter::<F>(2) },
    ];
    publish(fixture, &stored).await;
    for _ in 0..3 {
        let mut run = open(fixture).await;
        let given: Vec<StoredLetter> = rest(&mut run).await.into_iter().map(|(_, letter)| letter).collect();
        close(run).await;
        let wanted = stored.each_ref().map(|letter| StoredLetter {
            id: letter.id.clone(),
            reason: letter.rejection.reason.code().to_owned(),
            detail: letter.rejection.detail.clone(),
            body: letter.body.clone(),
            item: letter.item,
            source: letter.source.clone(),
            place: String::new(),
            envelope: letter.envelope.clone(),
            received_at: Some(letter.received_at),
            obstacle: None,
        });
        assert!(given == wanted, "{given:?}");
    }
}

/// Also one that was never made.
pub async fn an_empty_place_gives_nothing<F: LettersFixture>(fixture: &F) {
    for _ in 0..2 {
        assert_eq!(ids(fixture).await, [""; 0]);
    }
}

/// What comes later waits for the next run: what comes back does not circle.
pub async fn only_what_was_there_at_the_beginning_is_given<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..3)).await;
    let mut run = open(fixture).await;
    publish(fixture, &letters::<F>(3..5)).await;
    let given = rest(&mut run).await;
    assert_eq!(given.len(), 3, "{given:?}");
    close(run).await;
    let mut all = ids(fixture).await;
    all.sort();
    assert_eq!(all, ids_of(0..5));
}

/// Bytes, id, media type, key and headers.
pub async fn what_is_sent_back_arrives_as_it_was_and_is_gone<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..6)).await;
    let mut run = open(fixture).await;
    let given = rest(&mut run).await;
    let (going, staying): (Vec<_>, Vec<_>) =
        given.iter().partition(|(number, _)| number % 2 == given[0].0 % 2);
    let going: Vec<Returned> = going.into_iter().map(|(number, letter)| back(*number, letter)).collect();
    assert_eq!(going.len(), 3);
    within(run.send_back(&going[..1])).await.expect("a letter can be sent back");
    within(run.send_back(&going[1..])).await.expect("letters can be sent back");
    close(run).await;
    let mut came: Vec<(Vec<u8>, Envelope)> = fixture.came_back().await;
    came.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(came.len(), 3, "{came:?}");
    for ((body, mut envelope), mut sent) in came.into_iter().zip(going) {
        assert_eq!(body, sent.body);
        envelope.headers.sort();
        sent.envelope.headers.sort();
        assert_eq!(envelope, sent.envelope);
    }
    let staying: Vec<String> = staying.into_iter().map(|(_, letter)| letter.id.clone()).collect();
    assert_eq!(ids(fixture).await, staying);
    assert_eq!(fixture.came_back().await.len(), 0, "each came once");
}

/// Nothing of it reaches the source.
pub async fn what_is_removed_is_gone_and_the_rest_keeps_its_order<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..8)).await;
    let mut run = open(fixture).await;
    let numbers: Vec<u64> = rest(&mut run).await.into_iter().map(|(number, _)| number).collect();
    for removed in [&numbers[2..3], &numbers[5..7], &[]] {
        within(run.remove(removed)).await.expect("letters can be removed");
    }
    close(run).await;
    assert_eq!(ids(fixture).await, ids_of([0, 1, 3, 4, 7]));
    assert_eq!(fixture.came_back().await, []);
}

/// Where its program died.
pub async fn a_run_that_is_dropped_loses_nothing<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..3)).await;
    let mut run = open(fixture).await;
    assert_eq!(rest(&mut run).await.len(), 3);
    drop(run);
    until(fixture, &ids_of(0..3)).await;
}

/// What was sent back is in the source; what was not is here; what was in between may be in both.
pub async fn a_run_that_is_dropped_in_the_middle_of_its_work_loses_nothing<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..4)).await;
    let mut run = open(fixture).await;
    let given = rest(&mut run).await;
    let going: Vec<Returned> = given[..2].iter().map(|(number, letter)| back(*number, letter)).collect();
    within(run.send_back(&going)).await.expect("letters can be sent back");
    drop(run);
    let came = fixture.came_back().await;
    assert_eq!(came.len(), 2, "{came:?}");
    let left = within(async {
        loop {
            let left = ids(fixture).await;
            if left.ends_with(&ids_of(2..4)) {
                break left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(left.len() <= 4, "{left:?}");
}

/// Bounded ones, each letter once.
pub async fn many_letters_come_in_portions<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..1_200)).await;
    let mut run = open(fixture).await;
    let first = within(run.next()).await.expect("the letters can be read");
    assert!((1..=AT_ONCE).contains(&first.len()), "{}", first.len());
    let numbers: Vec<u64> = first.iter().map(|(number, _)| *number).collect();
    within(run.remove(&numbers)).await.expect("letters can be removed");
    let others = rest(&mut run).await;
    close(run).await;
    let given: Vec<String> = first.into_iter().chain(others).map(|(_, letter)| letter.id).collect();
    assert_eq!(given, ids_of(0..1_200));
    assert_eq!(ids(fixture).await.len(), 1_200 - numbers.len());
}

/// What was sent back or removed is gone when the run has ended, however much that was at the end.
pub async fn a_place_can_be_emptied<F: LettersFixture>(fixture: &F) {
    publish(fixture, &letters::<F>(0..500)).await;
    let mut run = open(fixture).await;
    loop {
        let some = within(run.next()).await.expect("the letters can be read");
        let Some((first, _)) = some.first() else { break };
        let (going, gone): (Vec<_>, Vec<_>) = some.iter().partition(|(number, _)| (number - first) % 3 == 0);
        let gone: Vec<u64> = gone.into_iter().map(|(number, _)| *number).collect();
        let going: Vec<Returned> = going.into_iter().map(|(number, letter)| back(*number, letter)).collect();
        within(run.send_back(&going)).await.expect("letters can be sent back");
        within(run.remove(&gone)).await.expect("letters can be removed");
    }
    close(run).await;
    assert_eq!(ids(fixture).await, [""; 0]);
}

/// Waits for the letters to be there again: a server may notice a little later that a run is gone.
async fn until<F: LettersFixture>(fixture: &F, wanted: &[String]) {
    within(async {
        while ids(fixture).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
