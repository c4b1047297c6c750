//! Where a load is published.

use super::payments;
#[cfg(feature = "kafka")]
use crate::settings::Kafka;
use crate::{
    cli::{Format, Populate, Target},
    settings::{Fault, Settings},
};
use application::{decode::Decoder, ports::PortError, retry::Dependency};
use futures_util::{StreamExt, TryStreamExt, stream};
use infrastructure::{
    http::WebhookSender,
    rabbitmq::{OutgoingMessage, RabbitmqPublisher, RabbitmqSettings},
};
use std::{net::Ipv4Addr, sync::Arc};

/// How many webhooks of a burst one publisher has under way: each needs a connection.
const REQUESTS_AT_ONCE: usize = 32;

/// How to do without a broker.
const INSTEAD: &str = "use `app ingest FILE`, which needs no server";

/// The place, as the settings name it.
pub(super) enum Outlet {
    Rabbitmq(RabbitmqSettings),
    /// With what reads whose pulses they are: messages of one tenant have one key.
    #[cfg(feature = "kafka")]
    Kafka(Kafka, Arc<Decoder>),
    /// An API that takes webhooks.
    Webhook(Arc<WebhookSender>),
}

impl Outlet {
    /// What `--to` names.
    ///
    /// # Errors
    /// Names what the settings, the arguments or this build lack.
    pub(super) fn find(arguments: &Populate, settings: &Settings, decoder: Decoder) -> Result<Self, Fault> {
        let events = arguments.format() == Format::Event;
        if events && arguments.from.is_some() {
            let problem = "the lines of a file have no routing keys: publish them with --format pulse";
            return Err(Fault::new("--from", problem));
        }
        match arguments.to {
            Target::Rabbitmq => {
                let missing = || Fault::lacking("RABBITMQ_URL", "app populate --to rabbitmq", INSTEAD);
                let broker = settings.rabbitmq().ok_or_else(missing)?;
                if events && broker.exchange.is_none() {
                    let instead = "publish --format pulse, which needs no exchange";
                    return Err(Fault::lacking("RABBITMQ_EXCHANGE", "app populate --format event", instead));
                }
                Ok(Self::Rabbitmq(broker.clone()))
            }
            Target::Kafka => kafka_topic(settings, decoder),
            Target::Webhook => webhook(arguments, settings).map(Arc::new).map(Self::Webhook),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Rabbitmq(_) => "rabbitmq",
            #[cfg(feature = "kafka")]
            Self::Kafka(..) => "kafka",
            Self::Webhook(_) => "api",
        }
    }

    /// How many publishers there may be: on Kafka one, because two would mix up the order within a key.
    pub(super) const fn publishers(&self, wanted: u16) -> u16 {
        match self {
            Self::Rabbitmq(_) | Self::Webhook(_) => wanted,
            #[cfg(feature = "kafka")]
            Self::Kafka(..) => 1,
        }
    }

    pub(super) async fn connect(&self) -> Result<Publisher<'_>, PortError> {
        match self {
            Self::Rabbitmq(settings) => {
                Ok(Publisher::Rabbitmq(Box::new(RabbitmqPublisher::connect(settings).await?)))
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka, decoder) => kafka::Keyed::new(kafka.clone(), decoder).map(Publisher::Kafka),
            Self::Webhook(sender) => Ok(Publisher::Webhook(sender)),
        }
    }
}

#[cfg(feature = "kafka")]
fn kafka_topic(settings: &Settings, decoder: Decoder) -> Result<Outlet, Fault> {
    let kafka = settings.kafka("app populate --to kafka", INSTEAD)?;
    Ok(Outlet::Kafka(kafka.clone(), Arc::new(decoder)))
}

#[cfg(not(feature = "kafka"))]
fn kafka_topic(_: &Settings, _: Decoder) -> Result<Outlet, Fault> {
    Err(Fault::new("--to", "kafka is not in this build: build it with `--features kafka`"))
}

/// The API of the flag, or the one that runs beside with the same settings.
fn webhook(arguments: &Populate, settings: &Settings) -> Result<WebhookSender, Fault> {
    if arguments.format() != Format::Payment {
        let problem = "must be payment with --to webhook: that is what the webhook takes";
        return Err(Fault::new("--format", problem));
    }
    if arguments.from.is_some() {
        return Err(Fault::new("--from", "does not go with --to webhook: webhooks are made up"));
    }
    let base = arguments.url.clone().unwrap_or_else(|| {
        let mut addr = settings.http.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{addr}")
    });
    WebhookSender::new(&base, payments::SOURCE, settings.http.webhook_secret.clone())
        .map_err(|error| Fault::new("--url", error.to_string()))
}

/// The way in of one publisher.
pub(super) enum Publisher<'a> {
    Rabbitmq(Box<RabbitmqPublisher>),
    #[cfg(feature = "kafka")]
    Kafka(kafka::Keyed<'a>),
    Webhook(&'a WebhookSender),
}

impl Publisher<'_> {
    /// Publishes the messages, in their order where the place keeps one; each is durable when it returns. Waits while the
    /// place is away.
    pub(super) async fn publish(
        &self,
        messages: Vec<OutgoingMessage>,
        dependency: &Dependency,
    ) -> Result<(), PortError> {
        match self {
            Self::Rabbitmq(publisher) => dependency.hold(|| publisher.publish(messages.clone())).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(publisher) => dependency.hold(|| publisher.publish(messages.clone())).await,
            Self::Webhook(sender) => {
                let send = |message: OutgoingMessage| async move {
                    dependency.hold(|| sender.send(message.body.clone())).await
                };
                stream::iter(messages).map(send).buffer_unordered(REQUESTS_AT_ONCE).try_collect().await
            }
        }
    }

    pub(super) async fn close(self) -> Result<(), PortError> {
        match self {
            Self::Rabbitmq(publisher) => publisher.close().await,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Ok(()),
            Self::Webhook(_) => Ok(()),
        }
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    //! Messages with keys.

    use crate::{clock, settings::Kafka};
    use application::{
        decode::Decoder,
        ports::{Delivery, Envelope, PartitionId, PortError},
    };
    use infrastructure::{
        kafka::{KafkaMessage, KafkaPublisher, KafkaSettings},
        rabbitmq::OutgoingMessage,
    };

    /// Publishes each message under the tenant of its first pulse: a trainer, a customer. Or under its routing key, which
    /// events have.
    pub(in crate::populate) struct Keyed<'a> {
        publisher: KafkaPublisher,
        decoder: &'a Decoder,
    }

    impl<'a> Keyed<'a> {
        pub(super) fn new(kafka: Kafka, decoder: &'a Decoder) -> Result<Self, PortError> {
            let Kafka { brokers, topic, group, dead_letter_topic } = kafka;
            let settings = KafkaSettings { brokers, topic, group, dead_letter_topic };
            Ok(Self { publisher: KafkaPublisher::new(&settings)?, decoder })
        }

        pub(super) async fn publish(&self, messages: Vec<OutgoingMessage>) -> Result<(), PortError> {
            let messages: Vec<KafkaMessage> =
                messages.into_iter().map(|message| self.keyed(message)).collect();
            self.publisher.publish(&messages).await
        }

        fn keyed(&self, message: OutgoingMessage) -> KafkaMessage {
            let OutgoingMessage { body, message_id, content_type, routing_key, .. } = message;
            let delivery = Delivery {
                partition: PartitionId(0),
                sequence: 0,
                body,
                envelope: Envelope::default(),
                received_at: clock::now(),
                log: None,
                returns: 0,
            };
            let key = routing_key.or_else(|| self.tenant(&delivery));
            KafkaMessage { body: delivery.body, key, message_id, content_type }
        }

        fn tenant(&self, delivery: &Delivery) -> Option<String> {
            let mut items = Vec::new();
            self.decoder.decode(delivery, &mut items);
            items.into_iter().find_map(|item| Some(item.pulse.ok()?.tenant.to_string()))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use application::decode::Format;
        use std::{path::Path, sync::Arc};

        #[test]
        fn the_key_is_whose_the_first_pulse_is() {
            let kafka = Kafka {
                brokers: "127.0.0.1:1".to_owned(),
                topic: "t".to_owned(),
                group: "g".to_owned(),
                dead_letter_topic: "d".to_owned(),
            };
            let task = crate::mappings::find("task", Path::new("/")).unwrap();
            let task = Decoder { format: Format::Mapping(Arc::new(task)), ..Decoder::default() };
            let pulse = |tenant| {
                format!(
                    r#"{{"tenant":"{tenant}","product_sku":"s","used_amount":1,"use_unity":"u",
                        "occurred_at":"2026-01-10T12:00:00Z"}}"#
                )
            };
            for (decoder, body, routing_key, expected) in [
                (Decoder::default(), pulse("A"), None, Some("A")),
                (Decoder::default(), format!("[{},{}]", pulse("B"), pulse("A")), None, Some("B")),
                (Decoder::default(), "not json".to_owned(), None, None),
                (Decoder::default(), pulse("A"), Some("user.event.created"), Some("user.event.created")),
                (task, r#"{"id":"1","customer":"C","payload":"p"}"#.to_owned(), None, Some("C")),
            ] {
                let keyed = Keyed::new(kafka.clone(), &decoder).unwrap();
                let message = OutgoingMessage {
                    body: body.clone().into_bytes(),
                    message_id: Some("m".to_owned()),
                    routing_key: routing_key.map(str::to_owned),
                    ..OutgoingMessage::default()
                };
                let message = keyed.keyed(message);
                assert_eq!(message.key.as_deref(), expected, "{body}");
                assert_eq!((message.body, message.message_id), (body.into_bytes(), Some("m".to_owned())));
            }
        }
    }
}
