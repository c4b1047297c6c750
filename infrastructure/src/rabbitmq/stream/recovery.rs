//! The marks of a stream, as a recovery looks at them and sets them back.
//!
//! A stream is read from where the shards are by itself. Only a shard that was made anew and knows nothing of a stream
//! that was settled would stop its reader, and messages that were deleted before the shards, as they are now, have counted
//! them.

use super::{
    marks::Mark,
    reading::{OPEN, first_offset, log_name},
    source::lock,
};
use crate::rabbitmq::{RabbitmqSettings, connection::CALL_LIMIT, connection::Link, error::within};
use application::{
    open_log::{LogExtent, Settled},
    ports::{LogSource, PortError},
};
use async_trait::async_trait;
use domain::{LogName, LogPosition};

/// Looks, and sets marks, over a connection of its own.
pub struct RabbitmqStreamMarks {
    settings: RabbitmqSettings,
}

impl RabbitmqStreamMarks {
    /// Nothing is asked yet.
    #[must_use]
    pub const fn new(settings: RabbitmqSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl LogSource for RabbitmqStreamMarks {
    /// The stream, once something of it was settled: then every shard must have counted its first message.
    async fn extents(&self) -> Result<Vec<(LogName, LogExtent)>, PortError> {
        let stream = self.settings.queue.as_str();
        let link = Link::open(&self.settings, "recovery").await?;
        if !Mark::Settled.is_set(&link, stream).await? {
            return Ok(Vec::new());
        }
        let begin = first_offset(&link, stream).await?.unwrap_or_default();
        let first = if Mark::Begun(begin).is_set(&link, stream).await? { begin } else { 0 };
        let settled = Some(Settled { next: first + 1, first });
        // Whether it has lost its end, its reader finds out.
        let extent = LogExtent { begin, end: LogPosition::OFFSET_END, settled };
        Ok(vec![(log_name(&link, stream)?, extent)])
    }

    /// Forgets that it was settled: the next reading begins with the first message, and shards know what they have counted.
    async fn move_to(&self, _: &LogName, settled: Settled) -> Result<(), PortError> {
        let stream = self.settings.queue.as_str();
        let link = Link::open(&self.settings, "recovery").await?;
        if !lock(&link, stream).await? {
            let what = "a worker reads the stream: stop all workers, and repeat the command";
            return Err(PortError::permanent(OPEN, what));
        }
        let channel = link.channel().await?;
        Mark::Begun(settled.first).set(&channel, stream).await?;
        Mark::Settled.remove(&channel, stream).await?;
        within(CALL_LIMIT, OPEN, channel.close(200, "done".into())).await
    }
}
