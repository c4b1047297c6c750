//! Messages that the AMQP client cannot read, as senders in other languages can publish them.

use super::{Place, ready, server, settle, take};
use application::ports::{Delivery, PulseSource};
use infrastructure::rabbitmq::QueueType;
use std::time::Duration;

impl Place {
    /// Has the node itself publish: Erlang does not know what UTF-8 is. `properties` in Erlang, as `content_type = <<>>`.
    async fn publish_by_node(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: &[(&str, &str)],
        body: &str,
    ) {
        const FIELDS: [&str; 14] = [
            "content_type",
            "content_encoding",
            "headers",
            "delivery_mode",
            "priority",
            "correlation_id",
            "reply_to",
            "expiration",
            "message_id",
            "timestamp",
            "type",
            "user_id",
            "app_id",
            "cluster_id",
        ];
        let value = |field: &&str| {
            let property = properties.iter().find(|(name, _)| name == field);
            property.map_or("undefined", |(_, value)| *value)
        };
        let properties = FIELDS.iter().map(value).collect::<Vec<_>>().join(",");
        let vhost = &self.vhost;
        let expression = format!(
            "ok = rabbit_basic:publish(rabbit_misc:r(<<\"{vhost}\">>, exchange, <<\"{exchange}\">>), {routing_key}, \
             {{'P_basic', {properties}}}, <<\"{body}\">>)."
        );
        tokio::task::spawn_blocking(move || server().evaluate(&expression)).await.unwrap();
    }
}

fn bodies(taken: &[Delivery]) -> Vec<&str> {
    taken.iter().map(|delivery| std::str::from_utf8(&delivery.body).unwrap()).collect()
}

/// Bytes of Latin-1 in each place where AMQP has a short string.
const STRANGE: [&[(&str, &str)]; 4] = [
    &[("message_id", "<<\"J\\366rg\">>")],
    &[("content_type", "<<255>>"), ("type", "<<255>>"), ("correlation_id", "<<255>>"), ("app_id", "<<255>>")],
    &[("headers", r#"[{<<"na", 255>>, longstr, <<"va", 255>>}, {<<"ok">>, longstr, <<"yes">>}]"#)],
    &[("headers", r#"[{<<"outer">>, table, [{<<255>>, array, [{table, [{<<254>>, bool, true}]}]}]}]"#)],
];

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_holds_nothing_up() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let mut place = Place::new(queue_type);
        place.settings.exchange = Some("ex".to_owned());
        let source = place.source();
        // The first call declares.
        assert!(tokio::time::timeout(Duration::from_secs(1), source.receive()).await.is_err());
        for (index, properties) in STRANGE.iter().enumerate() {
            place.publish_by_node("ex", "<<\"key\">>", properties, &index.to_string()).await;
        }
        place.publish_by_node("ex", "<<\"J\\366rg.event\">>", &[], "4").await;
        place.publish_by_node("ex", "<<\"key\">>", &[("message_id", "<<\"good\">>")], "5").await;
        let taken = take(&source, 6).await;
        assert_eq!(bodies(&taken), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(taken[0].envelope.message_id.as_deref(), Some("J\u{1a}rg"));
        assert_eq!(taken[1].envelope.content_type.as_deref(), Some("\u{1a}"));
        let headers = [("na\u{1a}", "va\u{1a}"), ("ok", "yes")];
        assert_eq!(
            taken[2].envelope.headers,
            headers.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(taken[3].envelope.headers[0].1, "{\u{1a}:[{\u{1a}:true}]}");
        assert_eq!(taken[4].envelope.routing_key.as_deref(), Some("J\u{1a}rg.event"));
        assert_eq!(taken[5].envelope.message_id.as_deref(), Some("good"));
        settle(&source, &taken).await;
        source.close().await.unwrap();
        assert_eq!(ready(&place.settings, "pulses").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_thousands_deep_are_no_danger() {
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let place = Place::new(queue_type);
        let source = place.source();
        assert!(tokio::time::timeout(Duration::from_secs(1), source.receive()).await.is_err());
        let deep = "[{<<\"ok\">>, longstr, <<\"yes\">>} | \
                    lists:foldl(fun(_, T) -> [{<<\"k\">>, table, T}] end, [], lists:seq(1, 5000))]";
        place.publish_by_node("", "<<\"pulses\">>", &[("headers", deep)], "deep").await;
        place.publish_by_node("", "<<\"pulses\">>", &[], "next").await;
        let taken = take(&source, 2).await;
        assert_eq!(bodies(&taken), ["deep", "next"]);
        assert!(taken[0].envelope.headers.contains(&("ok".to_owned(), "yes".to_owned())));
        settle(&source, &taken).await;
        source.close().await.unwrap();
    }
}
