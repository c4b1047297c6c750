use super::*;
use crate::ports::{
    BooksCut, Envelope, MockBooksAudit, MockInbox, MockLetterPlace, MockLetterRun, MockRememberedIdentities,
    MockShardRegistry, TenantSum,
};
use domain::{AccumulatorId, Fingerprint, PulseDigest, Timestamp, UsageTotal};
use futures_util::{StreamExt, stream};

const OURS: AccumulatorId = AccumulatorId::from_bytes([1; 16]);

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn question(id: &str, of: Option<&str>, source: Option<&str>) -> Question {
    Question { id: id.to_owned(), tenant: of.map(tenant), source: source.map(str::to_owned) }
}

fn letter(id: &str, body: &str) -> StoredLetter {
    StoredLetter {
        id: id.to_owned(),
        reason: "conflict".to_owned(),
        body: body.as_bytes().to_vec(),
        source: "rabbitmq".to_owned(),
        ..StoredLetter::default()
    }
}

fn named(name: &'static str, place: MockLetterPlace) -> NamedPlace {
    NamedPlace { name, title: name.to_owned(), place: Arc::new(place) }
}

/// A place with these letters, looked through once.
fn holding(letters: Vec<StoredLetter>) -> NamedPlace {
    let mut place = MockLetterPlace::new();
    place.expect_open().times(1).returning(move || {
        let (mut run, mut left) = (MockLetterRun::new(), letters.clone());
        run.expect_next().returning(move || Ok((0..).zip(left.drain(..)).collect()));
        run.expect_close().times(1).returning(|| Ok(()));
        Ok(Box::new(run))
    });
    named("here", place)
}

/// An accumulator of four shards that remembers one identity of the tenant `a`.
fn explain(known: &PulseIdentity) -> ExplainPulse {
    let (mut registry, mut identities) = (MockShardRegistry::new(), MockRememberedIdentities::new());
    let shards = domain::ShardCount::new(4).unwrap();
    registry
        .expect_registration()
        .returning(move || Ok(Some(Registration { accumulator: OURS, shards, records: Vec::new() })));
    let digest = OURS.identity_key().digest(&tenant("a"), known);
    identities.expect_remembered().returning(move |shard, asked: &[PulseDigest]| {
        assert!(asked.len() <= IDENTITIES_MAX);
        let remembered =
            Remembered { content: Fingerprint([0; 6]), after: None, until: Some(Timestamp::new(7, 0)) };
        let place = asked.iter().position(|asked| *asked == digest);
        let place = place.filter(|_| shard == shards.shard_of(&tenant("a")));
        Ok(place.map(|place| (place, remembered)).into_iter().collect())
    });
    let mut books = MockBooksAudit::new();
    books.expect_cut().returning(|_| {
        let sum = |name| TenantSum {
            tenant: Ok(tenant(name)),
            total: Ok(UsageTotal::default()),
            rows: 1,
            altered: 0,
        };
        let sums = vec![sum("b"), sum("a"), sum("c")];
        let usage = stream::iter([Ok(sums)]).boxed();
        Ok(BooksCut { registration: None, accumulators: Vec::new(), usage })
    });
    let mut inbox = MockInbox::new();
    inbox.expect_list().returning(|_| Ok(Vec::new()));
    ExplainPulse {
        registry: Arc::new(registry),
        identities: Arc::new(identities),
        books: Arc::new(books),
        inbox: Some(Arc::new(inbox)),
        items_max: 9_000,
    }
}

#[tokio::test]
async fn a_counted_pulse_is_found_by_every_kind_of_identity_of_its_tenant_alone() {
    let kinds = [
        (PulseIdentity::Id("x".into()), None),
        (PulseIdentity::Message { id: "x".into(), item: 8_999 }, None),
        (PulseIdentity::CloudEvent { source: "s".into(), id: "x".into() }, Some("s")),
    ];
    for (identity, source) in kinds {
        let found = explain(&identity).run(&question("x", Some("a"), source)).await.unwrap();
        assert_eq!(found.counted.len(), 1, "{identity:?}");
        assert_eq!((&found.counted[0].tenant, &found.counted[0].identity), (&tenant("a"), &identity));
        for other in [question("y", Some("a"), source), question("x", Some("b"), source)] {
            assert!(explain(&identity).run(&other).await.unwrap().is_unknown(), "{other:?}");
        }
    }
    let event = PulseIdentity::CloudEvent { source: "s".into(), id: "x".into() };
    let other = explain(&event).run(&question("x", Some("a"), Some("t"))).await.unwrap();
    assert!(other.is_unknown(), "of another source");
}

#[tokio::test]
async fn without_a_tenant_all_of_the_books_are_asked_for_and_that_is_said() {
    let found = explain(&PulseIdentity::Id("x".into())).run(&question("x", None, None)).await.unwrap();
    assert_eq!((found.counted.len(), found.tenants), (1, 3));
    assert!(found.limits.iter().any(|limit| limit.contains("name the tenant")), "{:?}", found.limits);
}

#[tokio::test]
async fn a_refused_pulse_is_found_by_its_letter_or_in_its_bytes_as_a_whole_text() {
    let letters = || {
        vec![
            letter("0123", r#"{"id":"x","tenant":"a"}"#),
            letter("4567", r#"{"id":"xy","tenant":"a"}"#),
            letter("89ab", r#"{"id":"x","tenant":"b"}"#),
            StoredLetter {
                envelope: Envelope { message_id: Some("m-17".to_owned()), ..Envelope::default() },
                ..letter("cdef", r#"{"tenant":"a","used_amount":0}"#)
            },
            StoredLetter {
                envelope: Envelope {
                    headers: vec![
                        ("ce-id".to_owned(), "e-1".to_owned()),
                        ("ce-subject".to_owned(), "a".to_owned()),
                    ],
                    ..Envelope::default()
                },
                ..letter("0f0f", "{}")
            },
        ]
    };
    let ids = async |question: Question| {
        let mut found = Explanation::default();
        found.add_letters(&[holding(letters())], &question).await;
        found.refused.into_iter().map(|(_, letter)| letter.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(question("x", Some("a"), None)).await, ["0123"]);
    assert_eq!(ids(question("x", None, None)).await, ["0123", "89ab"]);
    assert_eq!(ids(question("4567", Some("a"), None)).await, ["4567"]);
    assert_eq!(ids(question("m-17", Some("a"), None)).await, ["cdef"], "by its message");
    assert_eq!(ids(question("m-17", Some("b"), None)).await, [""; 0], "of that tenant alone");
    assert_eq!(ids(question("e-1", Some("a"), None)).await, ["0f0f"], "by its event");
}

#[tokio::test]
async fn a_place_that_is_away_is_said_and_hides_nothing() {
    let asked = explain(&PulseIdentity::Id("x".into()));
    let question = question("x", Some("a"), None);
    let mut found = asked.run(&question).await.unwrap();
    let (mut away, mut silent) = (MockLetterPlace::new(), MockLetterPlace::new());
    away.expect_open().returning(|| Err(PortError::transient("look", "gone")));
    silent.expect_open().returning(|| {
        let mut run = MockLetterRun::new();
        run.expect_next().returning(|| Ok(vec![(0, letter("other", "{}"))]));
        run.expect_close().returning(|| Ok(()));
        Ok(Box::new(run))
    });
    let places =
        [named("there", away), named("endless", silent), holding(vec![letter("0123", r#"["x","a"]"#)])];
    found.add_letters(&places, &question).await;
    assert_eq!((found.counted.len(), found.refused.len()), (1, 1));
    for words in ["there were not looked at", "not all of the dead letters in endless"] {
        assert!(found.limits.iter().any(|limit| limit.contains(words)), "{words}: {:?}", found.limits);
    }
}

#[tokio::test]
async fn no_more_letters_are_kept_than_are_shown() {
    let many = (0..250).map(|number| letter(&number.to_string(), r#"{"id":"x","tenant":"a"}"#)).collect();
    let mut found = Explanation::default();
    found.add_letters(&[holding(many)], &question("x", Some("a"), None)).await;
    assert_eq!((found.refused.len(), found.limits.len()), (LETTERS_SHOWN, 1));
}
