//! Over mocks: what goes back, what stays, and what it takes along.

use super::*;
use crate::{
    decode::{Decoder, HEADER_ITEM},
    ports::{Delivery, Envelope, MockLetterPlace, MockLetterRun, PartitionId, PortErrorKind},
};
use domain::{PulseIdentity, Timestamp};
use std::sync::{Arc, Mutex};

const TIME: Timestamp = Timestamp::new(1_768_046_400, 7);

fn letter(id: &str, reason: &str) -> StoredLetter {
    StoredLetter {
        id: id.to_owned(),
        reason: reason.to_owned(),
        body: br#"{"tenant":"acme"}"#.to_vec(),
        source: "rabbitmq".to_owned(),
        received_at: Some(TIME),
        ..StoredLetter::default()
    }
}

fn with_header(name: &str, value: &str, letter: StoredLetter) -> StoredLetter {
    let headers = vec![(name.to_owned(), value.to_owned()), ("theirs".to_owned(), "1".to_owned())];
    StoredLetter { envelope: Envelope { headers, ..Envelope::default() }, ..letter }
}

/// What a run was told: the numbers that were sent back, and those that were removed.
type Told = Arc<Mutex<(Vec<u64>, Vec<u64>)>>;

/// A place that gives these letters, two at once. A run that is not closed fails the test.
fn place(letters: Vec<StoredLetter>) -> (MockLetterPlace, Told) {
    let (told, mut place) = (Told::default(), MockLetterPlace::new());
    let kept = Arc::clone(&told);
    place.expect_open().times(1).returning(move || {
        let mut run = MockLetterRun::new();
        let mut left: VecDeque<(u64, StoredLetter)> = (10..).zip(letters.clone()).collect();
        run.expect_next().returning(move || Ok(left.drain(..left.len().min(2)).collect()));
        let told = Arc::clone(&kept);
        run.expect_send_back().returning(move |letters| {
            told.lock().unwrap().0.extend(letters.iter().map(|letter| letter.number));
            Ok(())
        });
        let told = Arc::clone(&kept);
        run.expect_remove().returning(move |numbers| {
            told.lock().unwrap().1.extend_from_slice(numbers);
            Ok(())
        });
        run.expect_close().times(1).returning(|| Ok(()));
        Ok(Box::new(run))
    });
    (place, told)
}

async fn done(place: &MockLetterPlace, filter: &LetterFilter, wish: Wish, dry_run: bool) -> Handled {
    let mut handled = Handled::default();
    handle(place, filter, wish, dry_run, Bound::default(), &mut handled).await.unwrap();
    handled
}

#[tokio::test]
async fn what_fits_goes_back_and_the_rest_stays() {
    let letters = vec![letter("a", "too_old"), letter("b", "malformed"), letter("c", "too_old")];
    let (place, told) = place(letters);
    let filter = LetterFilter { reason: Some("too_old".to_owned()), ..LetterFilter::default() };
    let handled = done(&place, &filter, Wish::Replay { force: false }, false).await;
    assert_eq!((handled.looked_at, handled.fitting, handled.done, handled.complete), (3, 2, 2, true));
    assert_eq!(*told.lock().unwrap(), (vec![10, 12], Vec::new()));
}

#[tokio::test]
async fn a_dry_run_touches_nothing() {
    for wish in [Wish::Discard, Wish::Replay { force: true }] {
        let (place, told) = place(vec![letter("a", "too_old"); 3]);
        assert_eq!(done(&place, &LetterFilter::default(), wish, true).await.done, 3);
        assert_eq!(*told.lock().unwrap(), (Vec::new(), Vec::new()));
    }
}

#[tokio::test]
async fn what_came_back_too_often_stays_unless_it_is_forced() {
    let letters = vec![
        with_header(HEADER_REPLAYS, "2", letter("a", "malformed")),
        with_header(HEADER_REPLAYS, "3", letter("b", "malformed")),
    ];
    let (guarded, told) = place(letters.clone());
    let handled = done(&guarded, &LetterFilter::default(), Wish::Replay { force: false }, false).await;
    assert_eq!((handled.done, handled.circling, told.lock().unwrap().0.clone()), (1, 1, vec![10]));
    let (forced, told) = place(letters);
    let handled = done(&forced, &LetterFilter::default(), Wish::Replay { force: true }, false).await;
    assert_eq!((handled.done, handled.circling, told.lock().unwrap().0.clone()), (2, 0, vec![10, 11]));
}

#[tokio::test]
async fn what_cannot_go_back_stays_whatever_is_forced_and_can_be_discarded() {
    let cut = StoredLetter { obstacle: Some("is cut".to_owned()), ..letter("a", "malformed") };
    let (kept, told) = place(vec![cut.clone()]);
    let handled = done(&kept, &LetterFilter::default(), Wish::Replay { force: true }, false).await;
    assert_eq!(handled.obstructed, BTreeMap::from([("is cut".to_owned(), 1)]));
    assert_eq!((handled.done, told.lock().unwrap().0.len()), (0, 0));
    let (kept, told) = place(vec![cut]);
    assert_eq!(done(&kept, &LetterFilter::default(), Wish::Discard, false).await.done, 1);
    assert_eq!(told.lock().unwrap().1, [10]);
}

#[tokio::test]
async fn a_bound_ends_a_passage_and_says_so() {
    let (bounded, told) = place(vec![letter("a", "x"), letter("b", "x"), letter("c", "x")]);
    let mut handled = Handled::default();
    let bound = Bound { letters: Some(1), time: None };
    handle(&bounded, &LetterFilter::default(), Wish::Discard, false, bound, &mut handled).await.unwrap();
    assert_eq!((handled.done, handled.complete, told.lock().unwrap().1.clone()), (1, false, vec![10]));
    let (bounded, _) = place(vec![letter("a", "x")]);
    let bound = Bound { letters: None, time: Some(Duration::ZERO) };
    let survey = survey(&bounded, &LetterFilter::default(), 5, bound).await.unwrap();
    assert_eq!((survey.looked_at, survey.complete), (0, false));
}

#[tokio::test]
async fn a_fault_ends_the_run_and_what_was_done_is_told() {
    let mut place = MockLetterPlace::new();
    place.expect_open().returning(|| {
        let (mut run, mut given) = (MockLetterRun::new(), 0);
        run.expect_next().returning(move || {
            given += 1;
            Ok(vec![(given, letter("a", "x"))])
        });
        run.expect_send_back().returning(|letters| match letters[0].number {
            3 => Err(PortError::transient("send back", "away")),
            _ => Ok(()),
        });
        Ok(Box::new(run))
    });
    let (mut handled, wish) = (Handled::default(), Wish::Replay { force: false });
    let failed = handle(&place, &LetterFilter::default(), wish, false, Bound::default(), &mut handled).await;
    assert_eq!(failed.unwrap_err().kind(), PortErrorKind::Transient);
    assert_eq!((handled.done, handled.complete), (2, false));
}

#[tokio::test]
async fn a_survey_counts_all_that_fit_and_keeps_the_latest() {
    let letters = vec![letter("a", "x"), letter("b", "y"), letter("c", "x"), letter("d", "x")];
    let (place, _) = place(letters);
    let survey = survey(&place, &LetterFilter::default(), 2, Bound::default()).await.unwrap();
    let ids: Vec<&str> = survey.letters.iter().map(|seen| seen.letter.id.as_str()).collect();
    assert_eq!((ids, survey.fitting, survey.complete), (vec!["c", "d"], 4, true));
    assert_eq!(survey.reasons, BTreeMap::from([("x".to_owned(), 3), ("y".to_owned(), 1)]));
}

#[tokio::test]
async fn a_list_keeps_the_beginning_of_a_body_and_what_all_of_it_said() {
    let body = format!("{{\"padding\":\"{}\",\"tenant\":\"late\"}}", "x".repeat(10_000));
    let (place, _) = place(vec![StoredLetter { body: body.clone().into(), ..letter("a", "x") }]);
    let seen = survey(&place, &LetterFilter::default(), 1, Bound::default()).await.unwrap().letters.remove(0);
    assert_eq!((seen.body_bytes, seen.letter.body.len()), (body.len(), Seen::BODY_BYTES_MAX));
    assert_eq!(seen.tenant.as_deref(), Some("late"));
}

#[tokio::test]
async fn a_letter_is_found_by_its_id() {
    for (id, found) in [("c", true), ("x", false)] {
        let (place, _) = place(vec![letter("a", "x"), letter("b", "x"), letter("c", "x")]);
        let (letter, _) = find(&place, id, Bound::default()).await.unwrap();
        assert_eq!(letter.map(|letter| letter.id), found.then(|| id.to_owned()));
    }
    let (beyond, _) = place(vec![letter("a", "x"), letter("b", "x"), letter("c", "x")]);
    let (none, complete) = find(&beyond, "c", Bound { letters: Some(2), time: None }).await.unwrap();
    assert_eq!((none, complete), (None, false), "it is not said that there is none");
}

#[test]
fn every_part_of_a_filter_must_fit() {
    let letter = letter("a", "too_old");
    let some = |text: &str| Some(text.to_owned());
    let filter = LetterFilter {
        ids: vec!["b".to_owned(), "a".to_owned()],
        reason: some("too_old"),
        tenant: some("acme"),
        source: some("rabbitmq"),
        since: Some(TIME),
    };
    assert!(filter.fits(&letter) && LetterFilter::default().fits(&letter));
    for other in [
        LetterFilter { ids: vec!["b".to_owned()], ..filter.clone() },
        LetterFilter { reason: some("malformed"), ..filter.clone() },
        LetterFilter { tenant: some("acm"), ..filter.clone() },
        LetterFilter { source: some("inbox"), ..filter.clone() },
        LetterFilter { since: Some(Timestamp::new(TIME.seconds(), 8)), ..filter.clone() },
    ] {
        assert!(!other.fits(&letter), "{other:?}");
    }
    let silent = StoredLetter { received_at: None, ..letter };
    assert!(!filter.fits(&silent));
}

#[test]
fn the_tenant_is_read_where_it_is_named() {
    let of = |body: &str| tenant_of(&StoredLetter { body: body.into(), ..StoredLetter::default() });
    assert_eq!(of(r#"{"tenant":"a","used_amount":-1}"#).as_deref(), Some("a"));
    assert_eq!(of(r#"{"subject":"b"}"#).as_deref(), Some("b"));
    for unreadable in ["", "{", r#"{"tenant":1}"#, "[]", r#"{"id":"x"}"#] {
        assert_eq!(of(unreadable), None, "{unreadable}");
    }
    let binary = with_header("ce-subject", "c", letter("a", "x"));
    assert_eq!(tenant_of(&binary).as_deref(), Some("c"));
}

/// Reads a message that went back as a worker does.
fn identity(message: Returned) -> Option<PulseIdentity> {
    let mut items = Vec::new();
    let Returned { body, envelope, .. } = message;
    let (partition, received_at) = (PartitionId(1), TIME);
    let delivery = Delivery { partition, sequence: 1, body, envelope, received_at, log: None, returns: 0 };
    Decoder::default().decode(&delivery, &mut items);
    items.remove(0).pulse.unwrap().identity
}

#[test]
fn what_goes_back_is_known_by_what_it_was_known_by() {
    let pulse = r#"{"tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
    let envelope = Envelope { message_id: Some("m".to_owned()), ..Envelope::default() };
    let item = StoredLetter { body: pulse.into(), item: Some(3), envelope, ..letter("a", "too_old") };
    let known = PulseIdentity::Message { id: "m".into(), item: 3 };
    let first = returned(1, item.clone());
    assert_eq!(identity(first.clone()), Some(known.clone()));
    // Refused again: its letter says the same place, and the headers of the first return.
    let again = returned(1, StoredLetter { envelope: first.envelope.clone(), ..item.clone() });
    assert_eq!(replays(&again.envelope), 2);
    assert_eq!(again.envelope.headers.iter().filter(|(name, _)| name == HEADER_ITEM).count(), 1);
    assert_eq!(identity(again), Some(known.clone()));
    let whole = StoredLetter { item: None, envelope: first.envelope, ..item.clone() };
    assert_eq!(identity(returned(1, whole)), Some(known));
    let own = StoredLetter { body: pulse.replace('}', r#","id":"own"}"#).into(), ..item };
    assert_eq!(identity(returned(1, own)), Some(PulseIdentity::Id("own".into())));
}

#[test]
fn a_letter_without_an_id_gets_one_that_stays_and_others_do_not_have() {
    let old = letter("a", "anonymous");
    let id = |letter: &StoredLetter| returned(1, letter.clone()).envelope.message_id;
    assert!(id(&old).is_some_and(|id| id.starts_with("refused-")));
    assert_eq!(id(&old), id(&old));
    let later = StoredLetter { received_at: Some(Timestamp::new(TIME.seconds(), 8)), ..old.clone() };
    assert_ne!(id(&old), id(&later));
    assert_eq!(id(&StoredLetter { reason: String::new(), ..old }), None, "no letter of ours");
}
