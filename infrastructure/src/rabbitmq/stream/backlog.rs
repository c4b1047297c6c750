//! How much of a stream is not counted yet.

use super::reading::{first_offset_from, log_name};
use crate::rabbitmq::connection::Link;
use application::ports::{LogPositions, PortError};
use domain::LogPosition;
use std::time::Duration;

/// How long a stream may take to show a message. A dashboard waits for it.
const SHOW_LIMIT: Duration = Duration::from_millis(500);

/// The messages from the first that not every shard has counted to the first of the last chunk: what came together with
/// that one, up to a few thousand messages, is not seen. Offsets that the broker keeps to itself count as messages.
pub(in crate::rabbitmq) async fn waiting(
    operation: &'static str,
    link: &Link,
    stream: &str,
    positions: &dyn LogPositions,
) -> Result<u64, PortError> {
    let counted = positions.positions(&log_name(link, stream)?).await?;
    let begin = counted.iter().min().copied().unwrap_or_default();
    let Some(last) = first_offset_from(link, stream, "last", SHOW_LIMIT).await? else {
        // Of an empty stream nothing can have been counted.
        if begin == LogPosition::START {
            return Ok(0);
        }
        let what = format!("{stream} showed no message within {SHOW_LIMIT:?}");
        return Err(PortError::transient(operation, what));
    };
    let begin = match begin {
        LogPosition::START => first_offset_from(link, stream, "first", SHOW_LIMIT).await?.unwrap_or(0),
        LogPosition { offset, .. } => offset,
    };
    Ok((last + 1).saturating_sub(begin))
}
