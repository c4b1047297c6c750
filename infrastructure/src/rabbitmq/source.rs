//! A queue of RabbitMQ as a source of pulses.

use super::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    envelope::envelope,
    error::{consumer_error, within},
    topology::Topology,
};
use application::ports::{Delivery, Envelope, PartitionId, PortError, PulseSource, Received, Watermark};
use async_trait::async_trait;
use domain::Timestamp;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer, message,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// How many deliveries one call hands over at most.
pub(super) const CHUNK_MAX: usize = 512;
/// How long a new consumer is waited on before it counts as open and empty. What ends it, ends it sooner.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The header in which a quorum queue says how often a message was handed out and came back.
const DELIVERY_COUNT: &str = "x-delivery-count";
pub(super) const CONSUMER_TAG: &str = "pulses";

/// Reads one queue with manual acknowledgements, one channel at a time, each a partition of its own.
///
/// It connects with the first call, and anew after each transient error. One caller receives at a time; settling and
/// receiving may overlap.
pub struct RabbitmqSource {
    settings: RabbitmqSettings,
    topology: Topology,
    partitions: AtomicU64,
    reader: tokio::sync::Mutex<Option<Reader>>,
    settler: Mutex<Option<Arc<Settler>>>,
}

/// The receiving side of one life of a channel. Dropping it cuts the connection.
struct Reader {
    link: Link,
    channel: Channel,
    consumer: Consumer,
    partition: PartitionId,
}

/// The settling side of the same channel.
struct Settler {
    partition: PartitionId,
    channel: Channel,
    /// The last tag that was acknowledged. The broker closes the channel where a tag is acknowledged twice.
    settled: tokio::sync::Mutex<u64>,
}

impl RabbitmqSource {
    /// A source that connects when it is first read from.
    #[must_use]
    pub fn new(settings: RabbitmqSettings) -> Self {
        Self {
            settings,
            topology: Topology::default(),
            partitions: AtomicU64::new(1),
            reader: tokio::sync::Mutex::new(None),
            settler: Mutex::new(None),
        }
    }

    async fn open(&self) -> Result<Reader, PortError> {
        const OPERATION: &str = "consume from RabbitMQ";
        let link = Link::open(&self.settings, "source").await?;
        self.topology.declare_queue(&link, &self.settings).await?;
        self.topology.declare_dead_letters(&link, &self.settings).await?;
        let channel = link.channel().await?;
        let prefetch = channel.basic_qos(self.settings.prefetch, BasicQosOptions::default());
        within(CALL_LIMIT, OPERATION, prefetch).await?;
        let (queue, tag) = (self.settings.queue.as_str().into(), CONSUMER_TAG.into());
        // What it is without, and what a stream refuses: read as a queue, it would skip all that it holds.
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), AMQPValue::LongInt(0));
        let consume = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), arguments);
        let consumer = within(CALL_LIMIT, OPERATION, consume).await?;
        let partition = PartitionId(self.partitions.fetch_add(1, Ordering::Relaxed));
        Ok(Reader { link, channel, consumer, partition })
    }

    fn settler(&self) -> Option<Arc<Settler>> {
        self.settler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_settler(&self, settler: Option<Arc<Settler>>) {
        *self.settler.lock().unwrap_or_else(PoisonError::into_inner) = settler;
    }
}

#[async_trait]
impl PulseSource for RabbitmqSource {
    async fn receive(&self) -> Result<Received, PortError> {
        let mut reader = self.reader.lock().await;
        let is_new = reader.is_none();
        if is_new {
            let opened = self.open().await?;
            self.set_settler(Some(Arc::new(Settler {
                partition: opened.partition,
                channel: opened.channel.clone(),
                settled: tokio::sync::Mutex::new(0),
            })));
            *reader = Some(opened);
        }
        let received = match reader.as_mut() {
            Some(reader) if is_new => {
                tokio::time::timeout(FIRST_WAIT, reader.receive()).await.unwrap_or_else(|_| Ok(Vec::new()))
            }
            Some(reader) => reader.receive().await,
            None => unreachable!("just opened"),
        };
        if received.is_err() {
            self.set_settler(None);
            *reader = None;
        }
        received.map(Received::Deliveries)
    }

    async fn settle(&self, watermark: Watermark) -> Result<(), PortError> {
        match self.settler() {
            Some(settler) if settler.partition == watermark.partition => {
                settler.settle(watermark.sequence).await
            }
            _ => Ok(()),
        }
    }

    async fn close(&self) -> Result<(), PortError> {
        self.set_settler(None);
        if let Some(reader) = self.reader.lock().await.take() {
            reader.close().await;
        }
        Ok(())
    }
}

impl Reader {
    /// Waits for a delivery and takes those that came with it. Nothing is taken before the last await, so that nothing is
    /// lost where the call is dropped.
    async fn receive(&mut self) -> Result<Vec<Delivery>, PortError> {
        let first = self.consumer.next().await;
        let received_at = now();
        let mut deliveries = Vec::with_capacity(CHUNK_MAX);
        let mut next = Some(first);
        while let Some(item) = next {
            deliveries.push(self.delivery(item, received_at)?);
            next = if deliveries.len() < CHUNK_MAX { self.consumer.next().now_or_never() } else { None };
        }
        if self.channel.status().connected() {
            return Ok(deliveries);
        }
        // What a channel left behind can no longer be settled and comes again; its last words say why it ended.
        while let Some(item) = self.consumer.next().now_or_never() {
            self.delivery(item, received_at)?;
        }
        Err(PortError::transient("receive from RabbitMQ", "the channel was closed"))
    }

    fn delivery(
        &self,
        item: Option<Result<message::Delivery, lapin::Error>>,
        received_at: Timestamp,
    ) -> Result<Delivery, PortError> {
        const OPERATION: &str = "receive from RabbitMQ";
        let message = item
            .ok_or_else(|| {
                PortError::transient(OPERATION, "the broker ended the consumer: was the queue deleted?")
            })?
            .map_err(|error| consumer_error(OPERATION, error))?;
        let envelope = envelope(message.routing_key, &message.properties);
        Ok(Delivery {
            partition: self.partition,
            sequence: message.delivery_tag,
            body: message.data,
            returns: returns(message.redelivered, &envelope),
            envelope,
            received_at,
            log: None,
        })
    }

    /// Closes in order. Where that fails there is nobody left to hand anything to, now or with another try: what is not
    /// acknowledged comes again and is recognised.
    async fn close(self) {
        // From here on the broker sends nothing that would have to come again.
        let cancel = self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        if let Err(error) = self.link.close(&self.channel, cancel).await {
            tracing::warn!(%error, "RabbitMQ was left without an orderly close; what it holds unacknowledged comes again");
        }
    }
}

/// How often a quorum queue has had the message back. A classic queue does not count that; what stands in the header of a
/// message that comes for the first time is its sender's word.
fn returns(redelivered: bool, envelope: &Envelope) -> u32 {
    let header = envelope.headers.iter().find(|(name, _)| redelivered && name == DELIVERY_COUNT);
    header.and_then(|(_, count)| count.parse().ok()).unwrap_or_default()
}

impl Settler {
    async fn settle(&self, tag: u64) -> Result<(), PortError> {
        let mut settled = self.settled.lock().await;
        if tag <= *settled {
            return Ok(());
        }
        // Before the await: the acknowledgement is on its way when this call is dropped.
        *settled = tag;
        let acknowledge = self.channel.basic_ack(tag, BasicAckOptions { multiple: true });
        match within(CALL_LIMIT, "acknowledge to RabbitMQ", acknowledge).await {
            // The channel ended under the call. Receiving says why, and what was not acknowledged comes again.
            Err(error) if error.is_transient() => Ok(()),
            result => result,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the arrival of a message is the edge where its time is read")]
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}
