//! The contract of dead letters that people go through, on both kinds of queue.

use super::{Place, channel, ready, settle, take, within};
use application::{
    contract::letters::LettersFixture,
    ports::{DeadLetter, DeadLetters, Envelope, LetterPlace, PulseSource, Returned},
};
use infrastructure::rabbitmq::{QueueType, RabbitmqDeadLetters, RabbitmqLetters, RabbitmqSettings};
use lapin::{options::QueueDeclareOptions, types::FieldTable};

impl LettersFixture for Place {
    type Store = RabbitmqDeadLetters;
    type Place = RabbitmqLetters;

    const SOURCE: &'static str = "rabbitmq";

    async fn store(&self) -> RabbitmqDeadLetters {
        RabbitmqDeadLetters::new(self.settings.clone())
    }

    async fn place(&self) -> RabbitmqLetters {
        RabbitmqLetters::new(self.settings.clone())
    }

    async fn came_back(&self) -> Vec<(Vec<u8>, Envelope)> {
        let count = usize::try_from(waiting(&self.settings).await).unwrap();
        let source = self.source();
        let taken = take(&source, count).await;
        settle(&source, &taken).await;
        source.close().await.unwrap();
        taken.into_iter().map(|delivery| (delivery.body, delivery.envelope)).collect()
    }
}

/// How many messages wait in the queue; none where it was never made.
async fn waiting(settings: &RabbitmqSettings) -> u32 {
    let (_connection, channel) = channel(settings).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare("pulses".into(), options, FieldTable::default()).await;
    declared.map_or(0, |queue| queue.message_count())
}

mod quorum {
    use super::{Place, QueueType};

    application::letters_contract!(async { Place::new(QueueType::Quorum) });
}

mod classic {
    use super::{Place, QueueType};

    application::letters_contract!(async { Place::new(QueueType::Classic) });
}

/// The archive's source names its queue.
#[tokio::test]
async fn what_the_archive_refused_goes_back_to_its_queue() {
    let place = Place::new(QueueType::Classic);
    let letter = DeadLetter {
        id: "0".repeat(32),
        rejection: domain::Rejection::new(domain::Reason::Malformed, "no"),
        body: b"x".to_vec(),
        item: None,
        source: "rabbitmq pulses.archive".to_owned(),
        place: None,
        envelope: Envelope { message_id: Some("m".to_owned()), ..Envelope::default() },
        received_at: domain::Timestamp::new(0, 0),
    };
    within(async { place.store().await.publish(&[letter]).await }).await.unwrap();
    let mut run = within(async { place.place().await.open().await }).await.unwrap();
    let (number, letter) = within(run.next()).await.unwrap().remove(0);
    let back = Returned { number, source: letter.source, body: letter.body, envelope: letter.envelope };
    // The queue is gone: the letter stays.
    let error = within(run.send_back(std::slice::from_ref(&back))).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("is gone"), "{error}");
    within(run.close()).await.unwrap();
    assert_eq!(ready(&place.settings, "pulses.dead").await, 1);
    let (_connection, channel) = channel(&place.settings).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("pulses.archive".into(), durable, FieldTable::default()).await.unwrap();
    let mut run = within(async { place.place().await.open().await }).await.unwrap();
    let (number, _) = within(run.next()).await.unwrap().remove(0);
    within(run.send_back(&[Returned { number, ..back }])).await.unwrap();
    within(run.close()).await.unwrap();
    assert_eq!(ready(&place.settings, "pulses.dead").await, 0);
    assert_eq!(ready(&place.settings, "pulses.archive").await, 1);
}
