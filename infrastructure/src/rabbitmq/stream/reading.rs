//! One reading of a stream: from a proven place on, and without a gap.

use super::{
    fault::{Start, StreamFault, last_counted},
    marks::Mark,
};
use crate::rabbitmq::{
    RabbitmqSettings,
    connection::{CALL_LIMIT, Link},
    envelope::envelope,
    error::{consumer_error, within},
    source::{CHUNK_MAX, CONSUMER_TAG, now},
};
use application::ports::{Delivery, LogPositions, LogReading, PartitionId, PortError};
use domain::{LogName, LogPosition, Timestamp};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer, message,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

const RECEIVE: &str = "receive from a stream of RabbitMQ";
const OPEN: &str = "read a stream of RabbitMQ";
/// The header of a message, and the argument of a consumer.
const OFFSET: &str = "x-stream-offset";
/// How long a stream may take to show that it still holds what was counted: a replica that is behind catches up meanwhile.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The receiving side of one life of a consumer. Dropping it cuts the connection, and with it the lock on the stream.
pub(super) struct Reading {
    link: Link,
    channel: Channel,
    consumer: Consumer,
    partition: PartitionId,
    stream: String,
    log: Arc<LogReading>,
    start: Start,
    /// How far each shard had counted the stream when this began.
    counted: Vec<LogPosition>,
    /// Whether something of it was settled by an earlier reading.
    was_settled: bool,
    /// The next offset, once the first has come and was found to be right.
    expected: Option<u64>,
    /// A message that was taken and not handed over.
    held: Option<message::Delivery>,
    /// The tags of the last delivery that was handed over, and of the last that was acknowledged.
    handed: u64,
    acknowledged: u64,
}

impl Reading {
    /// Begins where the shards say, over a connection that has the lock.
    ///
    /// # Errors
    /// Permanent where something would be skipped: see [`StreamFault`].
    pub(super) async fn open(
        link: Link,
        settings: &RabbitmqSettings,
        positions: &dyn LogPositions,
        partition: PartitionId,
    ) -> Result<Self, PortError> {
        let stream = settings.queue.as_str();
        let log = log_name(&link, stream)?;
        let counted = timeout(CALL_LIMIT, positions.positions(&log)).await;
        let counted = counted.map_err(|error| PortError::transient(OPEN, error))??;
        let was_settled = Mark::Settled.is_set(&link, stream).await?;
        let start = Start::of(&log, stream, &counted, was_settled).map_err(halt)?;
        prove_end(&link, &log, stream, &counted).await?;
        let channel = link.channel().await?;
        if was_settled {
            Mark::Settled.set(&channel, stream).await?;
        }
        let from = i64::try_from(start.offset()).map_err(|error| PortError::permanent(OPEN, error))?;
        let consumer = consume(&channel, stream, settings.prefetch, AMQPValue::LongLongInt(from)).await?;
        info!(%log, start = start.offset(), "reads a stream");
        Ok(Self {
            link,
            channel,
            consumer,
            partition,
            stream: stream.to_owned(),
            log: Arc::new(LogReading { log, after: start.offset() }),
            start,
            counted,
            was_settled,
            expected: None,
            held: None,
            handed: 0,
            acknowledged: 0,
        })
    }

    pub(super) const fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) const fn was_settled(&self) -> bool {
        self.was_settled
    }

    /// A channel for calls beside the consumer.
    pub(super) async fn another_channel(&self) -> Result<Channel, PortError> {
        self.link.channel().await
    }

    /// Gives credit for what was handed over before, waits for a message, and takes those that came with it. Nothing is
    /// lost where the call is dropped.
    pub(super) async fn receive(&mut self) -> Result<Vec<Delivery>, PortError> {
        self.acknowledge().await?;
        if self.held.is_none() {
            let first = self.consumer.next().await;
            self.held = Some(message(first)?);
        }
        let received_at = now();
        if let (None, Some(first)) = (self.expected, &self.held) {
            let begin = offset(first)?;
            self.check_begin(begin).await?;
            self.expected = Some(begin);
        }
        let mut deliveries = Vec::with_capacity(CHUNK_MAX);
        let mut next = self.held.take();
        while let Some(message) = next {
            deliveries.push(self.delivery(message, received_at)?);
            next = if deliveries.len() < CHUNK_MAX { self.at_hand()? } else { None };
        }
        if self.channel.status().connected() {
            return Ok(deliveries);
        }
        // All of it comes again; the channel's last words say why it ended.
        while self.at_hand()?.is_some() {}
        Err(PortError::transient(RECEIVE, "the channel was closed"))
    }

    fn at_hand(&mut self) -> Result<Option<message::Delivery>, PortError> {
        self.consumer.next().now_or_never().map(message).transpose()
    }

    async fn acknowledge(&mut self) -> Result<(), PortError> {
        if self.handed == self.acknowledged {
            return Ok(());
        }
        // Before the await: the acknowledgement is on its way when this call is dropped.
        self.acknowledged = self.handed;
        let acknowledge = self.channel.basic_ack(self.handed, BasicAckOptions { multiple: true });
        within(CALL_LIMIT, RECEIVE, acknowledge).await
    }

    /// Whether the first message is the one that nothing is missing before.
    async fn check_begin(&self, begin: u64) -> Result<(), PortError> {
        let (log, stream) = (|| self.log.log.clone(), || self.stream.clone());
        let reached = self.counted.iter().max().copied().unwrap_or_default();
        match self.start {
            Start::At(start) if begin == start => Ok(()),
            Start::At(_) => {
                let counted = self.counted.iter().min().copied().unwrap_or_default();
                Err(halt(StreamFault::Deleted { log: log(), stream: stream(), begin, counted }))
            }
            Start::Beginning if reached == LogPosition::START => {
                let channel = self.another_channel().await?;
                Mark::Begun(begin).set(&channel, &self.stream).await?;
                within(CALL_LIMIT, OPEN, channel.close(200, "done".into())).await
            }
            Start::Beginning if Mark::Begun(begin).is_set(&self.link, &self.stream).await? => Ok(()),
            Start::Beginning => {
                Err(halt(StreamFault::Changed { log: log(), stream: stream(), begin, reached }))
            }
        }
    }

    fn delivery(
        &mut self,
        message: message::Delivery,
        received_at: Timestamp,
    ) -> Result<Delivery, PortError> {
        let found = offset(&message)?;
        let expected = self.expected.unwrap_or(found);
        if found != expected {
            return Err(halt(StreamFault::Gap { log: self.log.log.clone(), expected, found }));
        }
        self.expected = Some(found + 1);
        self.handed = message.delivery_tag;
        let mut envelope = envelope(message.routing_key, &message.properties);
        envelope.headers.retain(|(name, _)| name != OFFSET);
        Ok(Delivery {
            partition: self.partition,
            sequence: found,
            body: message.data,
            envelope,
            received_at,
            log: Some(Arc::clone(&self.log)),
        })
    }

    /// Closes in order, which lets go of the stream at once.
    pub(super) async fn close(self) {
        let cancel = self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        if let Err(error) = self.link.close(&self.channel, cancel).await {
            tracing::warn!(%error, "RabbitMQ was left without an orderly close; others may have to wait for the stream");
        }
    }
}

/// A stream has no partitions; those of a super stream would be streams of their own.
fn log_name(link: &Link, stream: &str) -> Result<LogName, PortError> {
    let cluster = link
        .cluster_name()
        .ok_or_else(|| PortError::permanent(OPEN, "the broker did not tell its cluster's name"))?;
    LogName::of(&["rabbitmq", cluster, link.vhost(), stream, "0"])
        .ok_or_else(|| PortError::permanent(OPEN, "the name of the stream is too long"))
}

fn halt(fault: StreamFault) -> PortError {
    PortError::permanent(OPEN, fault)
}

/// Waits until the stream is seen to hold the last message that was counted, or a later one.
///
/// A reader that asks for an offset beyond the end gets nothing before that offset, ever: what a shorter stream takes in from
/// now on would be skipped.
async fn prove_end(
    link: &Link,
    log: &LogName,
    stream: &str,
    counted: &[LogPosition],
) -> Result<(), PortError> {
    let Some(wanted) = last_counted(counted) else { return Ok(()) };
    let channel = link.channel().await?;
    // From the beginning of the last chunk on, however many messages that has.
    let mut consumer = consume(&channel, stream, u16::MAX, AMQPValue::LongString("last".into())).await?;
    let (mut end, until) = (0, Instant::now() + END_LIMIT);
    while end <= wanted {
        match timeout_at(until, consumer.next()).await {
            Ok(item) => end = offset(&message(item)?)? + 1,
            Err(_) => {
                let reached = counted.iter().max().copied().unwrap_or_default();
                return Err(halt(StreamFault::Shorter { log: log.clone(), end, reached }));
            }
        }
    }
    within(CALL_LIMIT, OPEN, channel.close(200, "done".into())).await
}

async fn consume(
    channel: &Channel,
    stream: &str,
    prefetch: u16,
    from: AMQPValue,
) -> Result<Consumer, PortError> {
    within(CALL_LIMIT, OPEN, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let mut arguments = FieldTable::default();
    arguments.insert(OFFSET.into(), from);
    let consume =
        channel.basic_consume(stream.into(), CONSUMER_TAG.into(), BasicConsumeOptions::default(), arguments);
    within(CALL_LIMIT, OPEN, consume).await
}

fn message(item: Option<Result<message::Delivery, lapin::Error>>) -> Result<message::Delivery, PortError> {
    item.ok_or_else(|| {
        PortError::transient(RECEIVE, "the broker ended the consumer: was the stream deleted?")
    })?
    .map_err(|error| consumer_error(RECEIVE, error))
}

fn offset(message: &message::Delivery) -> Result<u64, PortError> {
    let headers = message.properties.headers().as_ref();
    match headers.and_then(|headers| headers.inner().get(OFFSET)) {
        Some(AMQPValue::LongLongInt(offset)) => {
            u64::try_from(*offset).map_err(|error| PortError::permanent(RECEIVE, error))
        }
        _ => {
            let what =
                "a message came without its offset: RABBITMQ_QUEUE_TYPE is stream, and the queue is none";
            Err(PortError::permanent(RECEIVE, what))
        }
    }
}
