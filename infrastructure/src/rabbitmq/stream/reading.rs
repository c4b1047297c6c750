//! One reading of a stream: from a proven place on, with nothing missing that was deleted.

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
use std::{mem, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

const RECEIVE: &str = "receive from a stream of RabbitMQ";
pub(super) const OPEN: &str = "read a stream of RabbitMQ";
/// The header of a message, and the argument of a consumer.
const OFFSET: &str = "x-stream-offset";
/// How long a stream may take to show that it still holds what was counted: a replica that is behind catches up meanwhile.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long nothing may come before it is looked at what the stream still holds.
const QUIET_CHECK: Duration = Duration::from_secs(10);

/// The receiving side of one life of a consumer. Dropping it cuts the connection, and with it the lock on the stream.
pub(super) struct Reading {
    link: Link,
    channel: Channel,
    consumer: Consumer,
    partition: PartitionId,
    stream: String,
    log: Arc<LogReading>,
    /// How far each shard had counted the stream when this began.
    counted: Vec<LogPosition>,
    /// Whether something of it was settled by an earlier reading.
    was_settled: bool,
    /// The next offset; not known before the first message of a first reading.
    expected: Option<u64>,
    /// Taken and not handed over yet: what is below must be proven before.
    held: Vec<Delivery>,
    /// The offset of the first message of all, where nothing was settled before.
    begin: Option<u64>,
    /// The first offset that should have come and did not.
    missing: Option<u64>,
    /// The tags of the last delivery that was taken, and of the last that was acknowledged.
    taken: u64,
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
            counted,
            was_settled,
            expected: match start {
                Start::Beginning => None,
                Start::At(offset) => Some(offset),
            },
            held: Vec::new(),
            begin: None,
            missing: None,
            taken: 0,
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

    /// Gives credit for what was taken before, waits for a message, and takes those that came with it. Nothing is lost where
    /// the call is dropped.
    pub(super) async fn receive(&mut self) -> Result<Vec<Delivery>, PortError> {
        if self.held.is_empty() {
            self.acknowledge().await?;
            let first = self.next().await?;
            self.take(first)?;
        }
        if let Some(begin) = self.begin {
            self.check_begin(begin).await?;
            self.begin = None;
        }
        if let Some(missing) = self.missing {
            self.prove_kept(missing, Silence::IsNoProof).await?;
            self.missing = None;
        }
        Ok(mem::take(&mut self.held))
    }

    /// The next message. While none comes, it is looked at whether those that should come are still there: a reader whose
    /// next segment is deleted may wait for ever.
    async fn next(&mut self) -> Result<message::Delivery, PortError> {
        loop {
            match timeout(QUIET_CHECK, self.consumer.next()).await {
                Ok(item) => return message(item),
                Err(_) => {
                    if let Some(expected) = self.expected {
                        self.prove_kept(expected, Silence::IsEmpty).await?;
                    }
                }
            }
        }
    }

    /// Takes a message and those that came with it.
    fn take(&mut self, first: message::Delivery) -> Result<(), PortError> {
        let received_at = now();
        self.hold(first, received_at)?;
        while self.held.len() < CHUNK_MAX
            && let Some(next) = self.at_hand()?
        {
            self.hold(next, received_at)?;
        }
        if self.channel.status().connected() {
            return Ok(());
        }
        // All of it comes again; the channel's last words say why it ended.
        while self.at_hand()?.is_some() {}
        Err(PortError::transient(RECEIVE, "the channel was closed"))
    }

    fn at_hand(&mut self) -> Result<Option<message::Delivery>, PortError> {
        self.consumer.next().now_or_never().map(message).transpose()
    }

    async fn acknowledge(&mut self) -> Result<(), PortError> {
        if self.taken == self.acknowledged {
            return Ok(());
        }
        // Before the await: the acknowledgement is on its way when this call is dropped.
        self.acknowledged = self.taken;
        let acknowledge = self.channel.basic_ack(self.taken, BasicAckOptions { multiple: true });
        within(CALL_LIMIT, RECEIVE, acknowledge).await
    }

    /// Whether a reading may begin with the first message of all.
    async fn check_begin(&self, begin: u64) -> Result<(), PortError> {
        let reached = self.counted.iter().max().copied().unwrap_or_default();
        if reached == LogPosition::START {
            let channel = self.another_channel().await?;
            Mark::Begun(begin).set(&channel, &self.stream).await?;
            within(CALL_LIMIT, OPEN, channel.close(200, "done".into())).await
        } else if Mark::Begun(begin).is_set(&self.link, &self.stream).await? {
            Ok(())
        } else {
            let (log, stream) = (self.log.log.clone(), self.stream.clone());
            Err(halt(StreamFault::Changed { log, stream, begin, reached }))
        }
    }

    /// Whether nothing was deleted from this offset on. Then what is missing there is no message: the broker's own entries,
    /// at the beginning of each segment for example, have offsets as well, and are not delivered.
    async fn prove_kept(&self, missing: u64, silence: Silence) -> Result<(), PortError> {
        let channel = self.another_channel().await?;
        let mut consumer = consume(&channel, &self.stream, 1, AMQPValue::LongString("first".into())).await?;
        match (timeout(CALL_LIMIT, consumer.next()).await, silence) {
            (Ok(first), _) => {
                let begin = offset(&message(first)?)?;
                if begin > missing {
                    let (log, stream) = (self.log.log.clone(), self.stream.clone());
                    return Err(halt(StreamFault::Deleted { log, stream, begin, missing }));
                }
            }
            (Err(_), Silence::IsEmpty) => {}
            (Err(_), Silence::IsNoProof) => {
                let what = format!("its first message did not come within {CALL_LIMIT:?}");
                return Err(PortError::transient(RECEIVE, what));
            }
        }
        within(CALL_LIMIT, OPEN, channel.close(200, "done".into())).await
    }

    fn hold(&mut self, message: message::Delivery, received_at: Timestamp) -> Result<(), PortError> {
        let found = offset(&message)?;
        match self.expected {
            None => self.begin = Some(found),
            Some(expected) if found < expected => {
                let what = format!("offset {found} came where {expected} was next");
                return Err(PortError::permanent(RECEIVE, what));
            }
            Some(expected) if found > expected => {
                self.missing.get_or_insert(expected);
            }
            Some(_) => {}
        }
        self.expected = Some(found + 1);
        self.taken = message.delivery_tag;
        let mut envelope = envelope(message.routing_key, &message.properties);
        envelope.headers.retain(|(name, _)| name != OFFSET);
        self.held.push(Delivery {
            partition: self.partition,
            sequence: found,
            body: message.data,
            envelope,
            received_at,
            log: Some(Arc::clone(&self.log)),
            returns: 0,
        });
        Ok(())
    }

    /// Closes in order, which lets go of the stream at once.
    pub(super) async fn close(self) {
        let cancel = self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        if let Err(error) = self.link.close(&self.channel, cancel).await {
            tracing::warn!(%error, "RabbitMQ was left without an orderly close; others may have to wait for the stream");
        }
    }
}

/// What it means that the first message of a stream does not come.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// Nothing came before either: the stream is empty, and nothing was deleted; what was counted of it was proven before.
    IsEmpty,
    /// A later message is there, so the stream is not empty: nothing is known.
    IsNoProof,
}

/// A stream has no partitions; those of a super stream would be streams of their own.
pub(super) fn log_name(link: &Link, stream: &str) -> Result<LogName, PortError> {
    let cluster = link
        .cluster_name()
        .ok_or_else(|| PortError::permanent(OPEN, "the broker did not tell its cluster's name"))?;
    LogName::of(&["rabbitmq", cluster, link.vhost(), stream, "0"])
        .ok_or_else(|| PortError::permanent(OPEN, "the name of the stream is too long"))
}

/// The offset of the first message that the stream holds; `None` where it holds none.
pub(super) async fn first_offset(link: &Link, stream: &str) -> Result<Option<u64>, PortError> {
    first_offset_from(link, stream, "first", CALL_LIMIT).await
}

/// The offset of the first message from there on; `None` where none comes in time.
pub(super) async fn first_offset_from(
    link: &Link,
    stream: &str,
    from: &str,
    limit: Duration,
) -> Result<Option<u64>, PortError> {
    let channel = link.channel().await?;
    let mut consumer = consume(&channel, stream, 1, AMQPValue::LongString(from.into())).await?;
    let first = match timeout(limit, consumer.next()).await {
        Ok(first) => Some(offset(&message(first)?)?),
        Err(_) => None,
    };
    within(CALL_LIMIT, OPEN, channel.close(200, "done".into())).await?;
    Ok(first)
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
        let Ok(item) = timeout_at(until, consumer.next()).await else {
            let reached = counted.iter().max().copied().unwrap_or_default();
            return Err(halt(StreamFault::Shorter { log: log.clone(), end, reached }));
        };
        end = offset(&message(item)?)? + 1;
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
    let Some(AMQPValue::LongLongInt(offset)) = headers.and_then(|headers| headers.inner().get(OFFSET)) else {
        let what = "a message came without its offset: RABBITMQ_QUEUE_TYPE is stream, and the queue is none";
        return Err(PortError::permanent(RECEIVE, what));
    };
    u64::try_from(*offset).map_err(|error| PortError::permanent(RECEIVE, error))
}
