//! What is declared, and what becomes of things that are there already.

use super::{LIMIT, Place, channel, number, put, ready, server, settings, settle, take, within};
use application::ports::{PortErrorKind, PulseSource};
use infrastructure::rabbitmq::{
    OutgoingMessage, QueueType, RabbitmqDeadLetters, RabbitmqPublisher, RabbitmqSettings, RabbitmqSource,
};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};

/// Whether a queue is durable and has exactly these arguments, given as Erlang writes them.
fn is_durable_with(vhost: &str, queue: &str, arguments: &str) -> bool {
    let answer = server().evaluate(&format!(
        r#"{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)),
           amqqueue:is_durable(Queue) andalso lists:sort(amqqueue:get_arguments(Queue)) =:= {arguments}."#
    ));
    answer.contains("true")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_queues_are_durable_and_never_drop_a_message() {
    for (queue_type, name) in [(QueueType::Quorum, "quorum"), (QueueType::Classic, "classic")] {
        let place = Place::new(queue_type);
        put(&place.settings, 0..1).await;
        let source = place.source();
        take(&source, 1).await;
        source.close().await.unwrap();
        for queue in ["pulses", "pulses.dead"] {
            let arguments = format!(
                r#"[{{<<"x-overflow">>, longstr, <<"reject-publish">>}}, {{<<"x-queue-type">>, longstr, <<"{name}">>}}]"#
            );
            assert!(is_durable_with(&place.vhost, queue, &arguments), "{queue} of {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_feeds_the_queue_by_its_binding() {
    let mut place = Place::new(QueueType::Quorum);
    place.settings.exchange = Some("events".to_owned());
    place.settings.binding = Some("#.event.*".to_owned());
    let publisher = RabbitmqPublisher::connect(&place.settings).await.unwrap();
    let message = |key: &str| OutgoingMessage {
        body: b"{}".to_vec(),
        routing_key: Some(key.to_owned()),
        ..OutgoingMessage::default()
    };
    let keys = ["user.event.created", "john.doe.event.deleted"];
    publisher.publish(keys.map(message).to_vec()).await.unwrap();
    let error = publisher.publish(vec![message("user.created")]).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Permanent, "{error}");
    publisher.publish(vec![message("a.event.b")]).await.expect("the publisher connects anew");
    let source = place.source();
    let found: Vec<_> =
        take(&source, 3).await.into_iter().map(|delivery| delivery.envelope.routing_key).collect();
    assert_eq!(found, [keys[0], keys[1], "a.event.b"].map(|key| Some(key.to_owned())));
    source.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_used_as_it_is() {
    let place = Place::new(QueueType::Quorum);
    let (_connection, theirs) = channel(&place.settings).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-mode".into(), AMQPValue::LongString("lazy".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    theirs.queue_declare("pulses".into(), options, arguments).await.unwrap();
    put(&place.settings, 0..20).await;
    let source = place.source();
    for _ in 0..2 {
        let deliveries = take(&source, 20).await;
        assert_eq!(deliveries.iter().map(number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        server().cut_connections(&place.vhost);
        within(source.receive()).await.unwrap_err();
    }
    settle(&source, &take(&source, 20).await).await;
    source.close().await.unwrap();
    assert_eq!(ready(&place.settings, "pulses").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_declare_uses_what_is_there() {
    let place = Place::new(QueueType::Quorum);
    let user = format!("reader{}", place.vhost);
    server().user(&user, "secret", &place.vhost, "^$");
    let theirs = settings(&server().url_of(&user, "secret", &place.vhost), QueueType::Quorum);
    let source = RabbitmqSource::new(theirs.clone());
    let error = within(source.receive()).await.unwrap_err();
    assert!(error.is_transient(), "somebody may still make the queue: {error}");
    // The owner declares both queues.
    put(&place.settings, 0..3).await;
    let owner = place.source();
    take(&owner, 3).await;
    owner.close().await.unwrap();
    settle(&source, &take(&source, 3).await).await;
    source.close().await.unwrap();
    put(&theirs, 3..4).await;
    let letters = RabbitmqDeadLetters::new(theirs);
    letters.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_hosts_that_are_not_there_are_permanent() {
    let server = server();
    let cases = [
        (server.url_of("guest", "wrong", "/"), PortErrorKind::Permanent),
        (server.url_of("nobody", "wrong", "/"), PortErrorKind::Permanent),
        (server.url_of("guest", "guest", "nowhere"), PortErrorKind::Permanent),
        ("amqp://127.0.0.1:1/%2f".to_owned(), PortErrorKind::Transient),
        ("amqp://no-such-host.invalid/%2f".to_owned(), PortErrorKind::Transient),
        ("http://127.0.0.1/".to_owned(), PortErrorKind::Permanent),
        ("amqps://127.0.0.1:1/%2f".to_owned(), PortErrorKind::Transient),
    ];
    for (url, kind) in cases {
        let settings = settings(&url, QueueType::Quorum);
        let error = within(RabbitmqSource::new(settings.clone()).receive()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(!error.to_string().contains("wrong"), "no secret in {error}");
        let error = within(RabbitmqPublisher::connect(&settings)).await.err().unwrap();
        assert_eq!(error.kind(), kind, "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_sends_no_more_than_the_prefetch_ahead() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let mut place = Place::new(queue_type);
        place.settings.prefetch = 7;
        put(&place.settings, 0..50).await;
        let source = place.source();
        let deliveries = take(&source, 7).await;
        let more = tokio::time::timeout(LIMIT / 200, source.receive()).await;
        assert!(more.is_err(), "nothing more comes before something is settled");
        assert_eq!(ready(&place.settings, "pulses").await, 43);
        settle(&source, &deliveries[..3]).await;
        take(&source, 3).await;
        source.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_show_no_secret() {
    let settings: RabbitmqSettings = settings("amqp://guest:hunter2@localhost", QueueType::Quorum);
    assert!(!format!("{settings:?}").contains("hunter2"));
}
