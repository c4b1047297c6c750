//! The contract of sources and dead letters, on both kinds of queue.

use super::{Place, channel, server, within};
use application::{
    contract::source::{Message, SourceFixture},
    ports::{DeadLetter, Envelope},
};
use async_trait::async_trait;
use chrono::DateTime;
use domain::{Reason, Rejection, Timestamp};
use futures_util::StreamExt;
use infrastructure::rabbitmq::{
    OutgoingMessage, QueueType, RabbitmqDeadLetters, RabbitmqPublisher, RabbitmqSource, header,
};
use lapin::{
    message::Delivery,
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};

#[async_trait]
impl SourceFixture for Place {
    type Source = RabbitmqSource;
    type DeadLetters = RabbitmqDeadLetters;

    async fn source(&self) -> RabbitmqSource {
        self.source()
    }

    async fn dead_letters(&self) -> RabbitmqDeadLetters {
        RabbitmqDeadLetters::new(self.settings.clone())
    }

    async fn put(&self, messages: Vec<Message>) {
        let messages = messages
            .into_iter()
            .map(|Message { body, envelope }| OutgoingMessage {
                body,
                message_id: envelope.message_id,
                content_type: envelope.content_type,
                routing_key: envelope.routing_key,
                headers: envelope.headers,
            })
            .collect();
        let publisher = RabbitmqPublisher::connect(&self.settings).await.unwrap();
        within(publisher.publish(messages)).await.unwrap();
        publisher.close().await.unwrap();
    }

    async fn cut(&self) {
        let vhost = self.vhost.clone();
        tokio::task::spawn_blocking(move || server().cut_connections(&vhost)).await.unwrap();
    }

    async fn stored_letters(&self) -> Vec<DeadLetter> {
        let (connection, channel) = channel(&self.settings).await;
        // The queue as it is, also where no letter was published and it was never made.
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let Ok(queue) = channel.queue_declare("pulses.dead".into(), options, FieldTable::default()).await
        else {
            return Vec::new();
        };
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let queue_name = "pulses.dead".into();
        let messages =
            channel.basic_consume(queue_name, "test".into(), options, FieldTable::default()).await.unwrap();
        let count = usize::try_from(queue.message_count()).unwrap();
        let letters = within(messages.take(count).map(|message| letter(message.unwrap())).collect()).await;
        connection.close(200, "done".into()).await.unwrap();
        letters
    }
}

fn letter(message: Delivery) -> DeadLetter {
    let properties = &message.properties;
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in properties.headers().as_ref().unwrap() {
        // A quorum queue adds a number: x-delivery-count.
        if let Some(text) = value.as_long_string() {
            headers.push((name.to_string(), text.to_string()));
        }
    }
    let mut ours = |name: &str| {
        let index = headers.iter().position(|(header, _)| header == name)?;
        Some(headers.remove(index).1)
    };
    let received_at = DateTime::parse_from_rfc3339(&ours(header::RECEIVED_AT).unwrap()).unwrap();
    DeadLetter {
        id: properties.message_id().as_ref().unwrap().to_string(),
        rejection: Rejection::new(
            Reason::from_code(&ours(header::REASON).unwrap()).unwrap(),
            ours(header::DETAIL).unwrap(),
        ),
        item: ours(header::ITEM).map(|item| item.parse().unwrap()),
        source: ours(header::SOURCE).unwrap(),
        place: None,
        received_at: Timestamp::new(received_at.timestamp(), received_at.timestamp_subsec_nanos()),
        envelope: Envelope {
            message_id: ours(header::MESSAGE_ID),
            content_type: properties.content_type().as_ref().map(ToString::to_string),
            routing_key: ours(header::ROUTING_KEY),
            headers,
        },
        body: message.data,
    }
}

mod quorum {
    use super::{Place, QueueType};

    application::source_contract!(async { Place::new(QueueType::Quorum) });
}

mod classic {
    use super::{Place, QueueType};

    application::source_contract!(async { Place::new(QueueType::Classic) });
}
