use super::*;
use crate::ports::{
    BooksCut, MockBooksAudit, MockInbox, MockLetterPlace, MockLetterRun, MockRememberedIdentities,
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

/// An accumulator of four shards that remembers one identity of the tenant `a`.
fn explain(known: &PulseIdentity, letters: Vec<StoredLetter>) -> ExplainPulse {
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
    let mut refused = MockLetterPlace::new();
    refused.expect_open().returning(move || {
        let (mut run, mut left) = (MockLetterRun::new(), letters.clone());
        run.expect_next().returning(move || Ok((0..).zip(left.drain(..)).collect()));
        run.expect_close().times(1).returning(|| Ok(()));
        Ok(Box::new(run))
    });
    let mut inbox = MockInbox::new();
    inbox.expect_list().returning(|_| Ok(Vec::new()));
    ExplainPulse {
        registry: Arc::new(registry),
        identities: Arc::new(identities),
        books: Arc::new(books),
        refused: vec![named("here", refused)],
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
        let found = explain(&identity, vec![]).run(&question("x", Some("a"), source)).await.unwrap();
        assert_eq!(found.counted.len(), 1, "{identity:?}");
        assert_eq!((&found.counted[0].tenant, &found.counted[0].identity), (&tenant("a"), &identity));
        for other in [question("y", Some("a"), source), question("x", Some("b"), source)] {
            assert!(explain(&identity, vec![]).run(&other).await.unwrap().is_unknown(), "{other:?}");
        }
    }
    let event = PulseIdentity::CloudEvent { source: "s".into(), id: "x".into() };
    let other = explain(&event, vec![]).run(&question("x", Some("a"), Some("t"))).await.unwrap();
    assert!(other.is_unknown(), "of another source");
}

#[tokio::test]
async fn without_a_tenant_all_of_the_books_are_asked_for_and_that_is_said() {
    let found =
        explain(&PulseIdentity::Id("x".into()), vec![]).run(&question("x", None, None)).await.unwrap();
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
        ]
    };
    let nobody = || PulseIdentity::Id("nobody".into());
    let ids = async |question: Question| {
        let found = explain(&nobody(), letters()).run(&question).await.unwrap();
        found.refused.into_iter().map(|(_, letter)| letter.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(question("x", Some("a"), None)).await, ["0123"]);
    assert_eq!(ids(question("x", None, None)).await, ["0123", "89ab"]);
    assert_eq!(ids(question("4567", Some("a"), None)).await, ["4567"]);
}

#[tokio::test]
async fn a_place_that_is_away_is_said_and_hides_nothing() {
    let mut asked = explain(&PulseIdentity::Id("x".into()), vec![]);
    let mut away = MockLetterPlace::new();
    away.expect_open().returning(|| Err(PortError::transient("look", "gone")));
    asked.refused.push(named("there", away));
    let found = asked.run(&question("x", Some("a"), None)).await.unwrap();
    assert_eq!(found.counted.len(), 1);
    assert!(
        found.limits.iter().any(|limit| limit.contains("there were not looked at")),
        "{:?}",
        found.limits
    );
}
