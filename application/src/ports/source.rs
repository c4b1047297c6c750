//! Where pulses come from.

use super::PortError;
use async_trait::async_trait;
use domain::{LogName, Timestamp};
use std::sync::Arc;

/// A part of a source with an order of its own, numbered by the source: a Kafka partition, or one life of an AMQP
/// channel. A number is never used again, so that what is late to settle cannot touch what came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u64);

/// What a message says about itself beside its body. Absent where the source has no such thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The message's own id: AMQP `message_id`.
    pub message_id: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// AMQP routing key, or Kafka message key.
    pub routing_key: Option<String>,
    /// Headers in their order, values as text.
    pub headers: Vec<(String, String)>,
}

/// One message as it was received: it may hold any number of pulses, or none that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The part of the source that it came from.
    pub partition: PartitionId,
    /// Its place there, increasing, gaps allowed: a delivery tag or an offset.
    pub sequence: u64,
    /// The bytes, unread.
    pub body: Vec<u8>,
    /// What the message says about itself.
    pub envelope: Envelope,
    /// When it arrived here.
    pub received_at: Timestamp,
    /// Where the source is a log: which, and `sequence` is the offset there. `None` on a queue.
    pub log: Option<Arc<LogReading>>,
    /// How often the source has had it back without an answer, where it counts that; otherwise 0.
    pub returns: u32,
}

/// One reading of a log, by one partition of the source: from where on, and what came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReading {
    /// The log.
    pub log: LogName,
    /// Every message before this offset was settled by earlier readings: every shard must have come as far.
    pub after: u64,
}

/// What a source has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Deliveries in order within each partition, no more than the source's own prefetch; none where the source has
    /// just been opened, or opened anew, and has nothing to give at the moment.
    Deliveries(Vec<Delivery>),
    /// The source has ended and gives no more: a file that was read to its end.
    End,
}

/// All deliveries of a partition up to and including a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The part of the source.
    pub partition: PartitionId,
    /// The place of the last settled delivery.
    pub sequence: u64,
}

/// A source of messages that keeps each until it is settled, and gives those that were not settled again.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait PulseSource: Send + Sync + 'static {
    /// Waits for the next deliveries. What a call that was dropped had already taken comes again later. The call that
    /// opens the source returns soon also where there is nothing, so that its caller knows that it is open.
    ///
    /// After a transient error the next call connects anew; what was not settled by then comes again in a new
    /// partition.
    async fn receive(&self) -> Result<Received, PortError>;

    /// Tells the source that everything up to the watermark is durable elsewhere, so that it may forget it.
    ///
    /// Idempotent. For a partition that no longer exists it does nothing and succeeds: its deliveries come again and
    /// are recognised.
    async fn settle(&self, watermark: Watermark) -> Result<(), PortError>;

    /// Whether it holds nothing that it would give later, also of what others have taken and may lose: asked where nothing
    /// has come for some time, before its reader ends for that.
    async fn is_drained(&self) -> Result<bool, PortError> {
        Ok(true)
    }

    /// Whether it gives again, after any crash, exactly what was not settled: so that what is settled can be added up.
    fn resumes_where_settled(&self) -> bool {
        false
    }

    /// Hands over what was settled and lets go of the source; no call follows.
    async fn close(&self) -> Result<(), PortError>;
}
