//! Where the reading of a log begins, and whether what the source believes to be settled is proven.
//!
//! A source remembers how far a log was settled; the shards remember how far they have counted it. The shards are moved on
//! before the source is told, so a source that is ahead of a shard means that counts were lost, or that somebody moved
//! the source. Both stop the reading: going on would skip what nobody counted.

use crate::ports::{LogPositions, LogReading, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition};

/// What the source says of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// The offset of the first message that it still holds.
    pub begin: u64,
    /// The offset that the next message will have.
    pub end: u64,
    /// The offset of the first message that is not settled; `None` where nothing ever was.
    pub settled: Option<u64>,
}

/// A log that cannot be read without skipping something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// Counts are gone, or the source was moved ahead.
    #[error(
        "log {log} is settled up to offset {settled}, and shard {shard} has counted it only up to {counted}: the storage \
         of the counts was lost or rolled back, or somebody moved the offset ahead; restore the storage, or move the \
         group back to offset {}", counted.offset
    )]
    Unproven {
        /// The log.
        log: LogName,
        /// What the source believes.
        settled: u64,
        /// The first shard that is not as far.
        shard: usize,
        /// How far it is.
        counted: LogPosition,
    },
    /// The log is another one under the same name.
    #[error(
        "log {log} ends at offset {end}, and it was counted up to {reached} before: the topic was made anew or cut off; \
         read it under another name, or remove what is remembered of the old one"
    )]
    Shorter {
        /// The log.
        log: LogName,
        /// Where it ends.
        end: u64,
        /// How far it was counted or settled.
        reached: LogPosition,
    },
    /// The log has let go of messages before they were counted.
    #[error(
        "log {log} begins at offset {begin}, and it was counted up to {reached} only: the messages in between were deleted \
         before they were counted; where that loss is accepted, move the group to offset {begin} and set the positions"
    )]
    Deleted {
        /// The log.
        log: LogName,
        /// Where it begins.
        begin: u64,
        /// How far every shard has counted it.
        reached: LogPosition,
    },
}

/// The positions of a store that has none, because it knows everything that it keeps by itself: what the source believes
/// is believed.
pub struct SourceDecides;

#[async_trait]
impl LogPositions for SourceDecides {
    async fn positions(&self, _: &LogName) -> Result<Vec<LogPosition>, PortError> {
        Ok(Vec::new())
    }
}

/// Where to begin, given how far each shard has counted the log: an offset, and the reading that begins there. Where there
/// are no shards, it is where the source was settled.
///
/// # Errors
/// See [`LogFault`].
pub fn open_log(
    log: LogName,
    counted: &[LogPosition],
    extent: LogExtent,
) -> Result<(u64, LogReading), LogFault> {
    let LogExtent { begin, end, settled } = extent;
    let reached = counted.iter().copied().max().unwrap_or_default();
    let reached = reached.max(LogPosition::before(settled.unwrap_or_default()));
    if reached > LogPosition::before(end) {
        return Err(LogFault::Shorter { log, end, reached });
    }
    let behind = |offset| counted.iter().position(|position| *position < LogPosition::before(offset));
    if let Some((shard, settled)) = settled.and_then(|settled| Some((behind(settled)?, settled))) {
        return Err(LogFault::Unproven { log, settled, shard, counted: counted[shard] });
    }
    // What was never read may have lost its beginning long ago; from where it is read on, nothing is skipped.
    let lowest = counted.iter().copied().min().unwrap_or(reached);
    if reached > LogPosition::START && lowest < LogPosition::before(begin) {
        return Err(LogFault::Deleted { log, begin, reached: lowest });
    }
    let after = settled.unwrap_or_default();
    Ok((after.max(begin), LogReading { log, after }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(
        counted: &[(u64, u32)],
        begin: u64,
        end: u64,
        settled: Option<u64>,
    ) -> Result<(u64, u64), &'static str> {
        let log = LogName::of(&["kafka", "c", "t", "0"]).unwrap();
        let counted: Vec<_> =
            counted.iter().map(|(offset, items)| LogPosition { offset: *offset, items: *items }).collect();
        match open_log(log, &counted, LogExtent { begin, end, settled }) {
            Ok((start, reading)) => Ok((start, reading.after)),
            Err(LogFault::Unproven { .. }) => Err("unproven"),
            Err(LogFault::Shorter { .. }) => Err("shorter"),
            Err(LogFault::Deleted { .. }) => Err("deleted"),
        }
    }

    #[test]
    fn a_log_that_was_never_read_begins_where_it_begins() {
        assert_eq!(open(&[(0, 0), (0, 0)], 0, 0, None), Ok((0, 0)));
        assert_eq!(open(&[(0, 0), (0, 0)], 70, 90, None), Ok((70, 0)));
    }

    #[test]
    fn a_log_goes_on_where_it_was_settled() {
        assert_eq!(open(&[(50, 0), (63, 2)], 10, 90, Some(50)), Ok((50, 50)));
        assert_eq!(open(&[(90, 0), (90, 0)], 10, 90, Some(90)), Ok((90, 90)));
    }

    #[test]
    fn a_group_that_forgot_where_it_was_reads_again_from_the_beginning() {
        assert_eq!(open(&[(50, 0), (63, 2)], 10, 90, None), Ok((10, 0)));
        assert_eq!(open(&[(0, 0), (63, 2)], 0, 90, None), Ok((0, 0)));
    }

    #[test]
    fn without_shards_the_source_is_believed_and_what_it_lost_is_noticed() {
        assert_eq!(open(&[], 10, 90, None), Ok((10, 0)));
        assert_eq!(open(&[], 10, 90, Some(50)), Ok((50, 50)));
        assert_eq!(open(&[], 50, 90, Some(50)), Ok((50, 50)));
        assert_eq!(open(&[], 51, 90, Some(50)), Err("deleted"));
        assert_eq!(open(&[], 0, 49, Some(50)), Err("shorter"));
    }

    #[test]
    fn a_source_ahead_of_a_shard_is_not_believed() {
        assert_eq!(open(&[(50, 0), (49, 7)], 0, 90, Some(50)), Err("unproven"));
        assert_eq!(open(&[(0, 0), (0, 0)], 0, 90, Some(1)), Err("unproven"));
    }

    #[test]
    fn a_log_that_ends_before_what_was_counted_is_another_one() {
        assert_eq!(open(&[(50, 0), (50, 0)], 0, 49, None), Err("shorter"));
        assert_eq!(open(&[(50, 0), (50, 1)], 0, 50, Some(50)), Err("shorter"));
        assert_eq!(open(&[(0, 0), (0, 0)], 0, 0, Some(3)), Err("shorter"));
    }

    #[test]
    fn messages_that_were_deleted_before_they_were_counted_are_missed() {
        assert_eq!(open(&[(50, 0), (63, 2)], 51, 90, Some(50)), Err("deleted"));
        assert_eq!(open(&[(0, 0), (63, 2)], 51, 90, None), Err("deleted"));
        assert_eq!(open(&[(51, 0), (63, 2)], 51, 90, Some(50)), Ok((51, 50)), "all of them had been counted");
    }
}
