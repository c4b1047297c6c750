//! The dead-letter queue as people go through it: letters are looked at, sent back to their queues, or removed.

use super::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    envelope::{ROUTING_KEY, envelope, header_table, properties},
    error::within,
    header,
    observer::ready,
    outlet::{Outlet, Parcel, Target, Undelivered},
    topology::declares_dead_letters_alike,
};
use application::ports::{Envelope, LetterPlace, LetterRun, PortError, Returned, StoredLetter};
use async_trait::async_trait;
use chrono::DateTime;
use domain::Timestamp;
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions},
};
use std::{
    collections::{HashSet, VecDeque},
    future,
    time::Duration,
};
use tokio::time::sleep;

/// The most letters, and about the most bytes, that are taken at once.
const LETTERS_AT_ONCE: usize = 200;
const BYTES_AT_ONCE: usize = 8 << 20;
/// How many acknowledgements are under way at once: half of what a channel hands to a quorum queue without waiting.
const ACKNOWLEDGED_AT_ONCE: usize = 16;
/// How often, and after how long each time, letters that were given back are looked for.
const RETURN_CHECKS: u32 = 20;
const RETURN_CHECK: Duration = Duration::from_millis(25);
/// How long nothing may come back before a run begins.
const STEADY_FOR: Duration = Duration::from_millis(100);
/// What the broker itself adds to a message that it gives again.
const BROKERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// How the names of headers begin that dead letters have for themselves.
const OURS: &str = "x-pulse-";
/// How the names of the archive's sources begin, before the name of its queue.
const ARCHIVE: &str = "rabbitmq ";

/// Goes through the dead-letter queue, each time over connections of its own.
///
/// A queue knows no random access: a run takes the letters from the front, one by one without acknowledging them, and
/// keeps of those that stay nothing at all. It acknowledges what was sent back and confirmed, or is to be removed; the
/// broker puts back all others, in their order, when the channel ends, however it ends.
///
/// Each run counts as a delivery, so a queue that was made with other arguments than ours, and may therefore drop what
/// was delivered often, is not touched: a permanent error.
pub struct RabbitmqLetters {
    settings: RabbitmqSettings,
}

impl RabbitmqLetters {
    /// The dead-letter queue of these settings.
    #[must_use]
    pub const fn new(settings: RabbitmqSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl LetterPlace for RabbitmqLetters {
    async fn open(&self) -> Result<Box<dyn LetterRun>, PortError> {
        const OPERATION: &str = "go through the dead letters in RabbitMQ";
        let queue = self.settings.dead_letter_queue.as_str();
        let link = Link::open(&self.settings, "letters").await?;
        let ready = steady(OPERATION, &link, queue).await?;
        if ready > 0 && !declares_dead_letters_alike(&link, &self.settings).await? {
            let reason = format!(
                "the queue {queue} was not made by this program and may drop what is looked at often; use RabbitMQ's own \
                 tools"
            );
            return Err(PortError::permanent(OPERATION, reason));
        }
        let channel = link.channel().await?;
        Ok(Box::new(Run {
            settings: self.settings.clone(),
            outlet: Outlet::new(self.settings.clone(), Target::Queue),
            open: Some((link, channel)),
            left: ready,
            given: HashSet::new(),
            ahead: VecDeque::new(),
            held: 0,
        }))
    }
}

/// How many letters are ready, when those are back that a run held which died a moment ago.
async fn steady(operation: &'static str, link: &Link, queue: &str) -> Result<u64, PortError> {
    let mut count = ready(operation, link, queue).await?.unwrap_or(0);
    for _ in 0..RETURN_CHECKS {
        sleep(STEADY_FOR).await;
        let later = ready(operation, link, queue).await?.unwrap_or(0);
        if later <= count {
            break;
        }
        count = later;
    }
    Ok(count)
}

struct Run {
    settings: RabbitmqSettings,
    outlet: Outlet,
    open: Option<(Link, Channel)>,
    /// How many of the letters that were there at the beginning were not taken yet.
    left: u64,
    /// The tags of those that were given last and are not acknowledged.
    given: HashSet<u64>,
    /// Those that were taken and not given yet.
    ahead: VecDeque<Delivery>,
    /// How many are taken and not acknowledged.
    held: u64,
}

impl Run {
    fn channel(&self) -> Result<&Channel, PortError> {
        let ended = || PortError::permanent("go through the dead letters in RabbitMQ", "the run has ended");
        self.open.as_ref().map(|(_, channel)| channel).ok_or_else(ended)
    }

    /// Takes one letter, where there is any.
    async fn take(&mut self) -> Result<Option<Delivery>, PortError> {
        let queue = self.settings.dead_letter_queue.as_str().into();
        let get = self.channel()?.basic_get(queue, BasicGetOptions::default());
        let taken = within(CALL_LIMIT, "read the dead letters in RabbitMQ", get).await?;
        self.held += u64::from(taken.is_some());
        Ok(taken.map(|message| message.delivery))
    }

    /// Acknowledges, and waits until that has happened.
    ///
    /// A channel hands acknowledgements to a quorum queue without waiting for it, and where too many are under way it
    /// keeps the others, which are lost when it ends: those letters would be there again. A get goes through the queue's
    /// log behind them, so that after its answer all are done.
    async fn acknowledge(&mut self, tags: &[u64]) -> Result<(), PortError> {
        for tags in tags.chunks(ACKNOWLEDGED_AT_ONCE) {
            for tag in tags {
                // The broker closes the channel where a tag is acknowledged twice.
                if self.given.remove(tag) {
                    self.held -= 1;
                    let acknowledge = self.channel()?.basic_ack(*tag, BasicAckOptions::default());
                    within(CALL_LIMIT, "remove a dead letter from RabbitMQ", acknowledge).await?;
                }
            }
            let wanted = u64::try_from(self.ahead.len()).unwrap_or(u64::MAX) < self.left;
            // What came after the beginning goes back with all that is not acknowledged.
            let taken = self.take().await?.filter(|_| wanted);
            self.ahead.extend(taken);
        }
        Ok(())
    }

    /// The queue that messages of this source were in: the archive names its own.
    fn queue<'a>(&'a self, source: &'a str) -> &'a str {
        source.strip_prefix(ARCHIVE).unwrap_or(&self.settings.queue)
    }
}

#[async_trait]
impl LetterRun for Run {
    async fn next(&mut self) -> Result<Vec<(u64, StoredLetter)>, PortError> {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while self.left > 0 && letters.len() < LETTERS_AT_ONCE && bytes < BYTES_AT_ONCE {
            let ahead = self.ahead.pop_front();
            let taken = if ahead.is_some() { ahead } else { self.take().await? };
            let Some(delivery) = taken else {
                // Somebody else has taken them.
                self.left = 0;
                break;
            };
            self.left -= 1;
            bytes += delivery.data.len();
            letters.push((delivery.delivery_tag, letter(delivery)));
        }
        if !letters.is_empty() {
            self.given = letters.iter().map(|(tag, _)| *tag).collect();
        }
        Ok(letters)
    }

    async fn send_back(&mut self, letters: &[Returned]) -> Result<(), PortError> {
        const OPERATION: &str = "send dead letters back to RabbitMQ";
        let parcels = letters.iter().map(|letter| {
            let (queue, Envelope { message_id, content_type, routing_key, headers }) =
                (self.queue(&letter.source), &letter.envelope);
            // It goes to this queue and to no other that the exchange feeds.
            let key = routing_key.as_deref().filter(|key| *key != queue).map(|key| (ROUTING_KEY, key));
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Parcel {
                exchange: "",
                routing_key: queue,
                body: &letter.body,
                properties: properties(
                    message_id.as_deref(),
                    content_type.as_deref(),
                    header_table(key.into_iter().chain(headers)),
                ),
            }
        });
        self.outlet.publish(OPERATION, parcels).await.map_err(|error| match error {
            Undelivered::Failed(error) => error,
            Undelivered::Unroutable(answer) => PortError::permanent(
                OPERATION,
                format!("the queue that a letter came from is gone: {answer}"),
            ),
        })?;
        let tags: Vec<u64> = letters.iter().map(|letter| letter.number).collect();
        self.acknowledge(&tags).await
    }

    async fn remove(&mut self, numbers: &[u64]) -> Result<(), PortError> {
        self.acknowledge(numbers).await
    }

    async fn close(&mut self) -> Result<(), PortError> {
        const OPERATION: &str = "end going through the dead letters in RabbitMQ";
        let Some((link, channel)) = self.open.take() else { return Ok(()) };
        // The broker answers in order: it has taken every acknowledgement by then.
        within(CALL_LIMIT, OPERATION, channel.close(200, "done".into())).await?;
        // It answers before all letters are back, and whoever counts then would count too few.
        let queue = self.settings.dead_letter_queue.as_str();
        for _ in 0..RETURN_CHECKS {
            if ready(OPERATION, &link, queue).await?.is_none_or(|back| back >= self.held) {
                break;
            }
            sleep(RETURN_CHECK).await;
        }
        self.outlet.close().await?;
        let last = link.channel().await?;
        link.close(&last, future::ready(Ok(()))).await
    }
}

fn letter(delivery: Delivery) -> StoredLetter {
    let Envelope { message_id, content_type, routing_key, mut headers } =
        envelope(delivery.routing_key, &delivery.properties);
    headers.retain(|(name, _)| !BROKERS.contains(&name.as_str()));
    let mut ours = |wanted| {
        let place = headers.iter().position(|(name, _)| name == wanted)?;
        Some(headers.remove(place).1)
    };
    let received_at = ours(header::RECEIVED_AT).and_then(|time| DateTime::parse_from_rfc3339(&time).ok());
    let reason = ours(header::REASON).unwrap_or_default();
    let (detail, item, source) = (ours(header::DETAIL), ours(header::ITEM), ours(header::SOURCE));
    let original = (ours(header::MESSAGE_ID), ours(header::ROUTING_KEY));
    let offset = ours(header::OFFSET);
    headers.retain(|(name, _)| !name.starts_with(OURS));
    let id = message_id.clone().unwrap_or_default();
    // Where somebody else has put it there, it is the message itself.
    let (message_id, routing_key) = if reason.is_empty() { (message_id, routing_key) } else { original };
    StoredLetter {
        id,
        reason,
        detail: detail.unwrap_or_default(),
        body: delivery.data,
        item: item.and_then(|item| item.parse().ok()),
        source: source.unwrap_or_default(),
        place: offset.map(|offset| format!("offset {offset}")).unwrap_or_default(),
        envelope: Envelope { message_id, content_type, routing_key, headers },
        received_at: received_at.map(|time| Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos())),
        obstacle: None,
    }
}
