//! Where the reading of a log begins, and whether what the source believes to be settled is proven.
//!
//! A source remembers how far a log was settled; the shards remember how far they have counted it. The shards are moved on
//! before the source is told, so a source that is ahead of a shard means that counts were lost, or that somebody moved
//! the source. Both stop the reading: going on would skip what nobody counted.
//!
//! The source is told where a log begins before anything of it is delivered. So a log that was counted and that the source
//! knows nothing of is not what it was, and what a new log has lost before it was first read is no loss later on.

use crate::ports::{LogAccounts, LogPositions, LogReading, PortError};
use async_trait::async_trait;
use domain::{LogName, LogPosition};
use std::sync::Arc;

/// What the source says of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// The offset of the first message that it still holds.
    pub begin: u64,
    /// The offset that the next message will have.
    pub end: u64,
    /// What it remembers of earlier readings; `None` where there never was one.
    pub settled: Option<Settled>,
}

/// What a source remembers of the readings of a log, by one atomic step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The offset of the first message that is not settled.
    pub next: u64,
    /// Where the log began when it was read for the first time: what was before is nobody's to count. 0 where the source
    /// does not remember.
    pub first: u64,
}

/// A log that nothing contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedLog {
    /// The offset of the message to begin with.
    pub start: u64,
    /// What the source must remember before it delivers anything. Its `first` stays, however far the log is settled.
    pub settled: Settled,
    /// The reading that begins there.
    pub reading: LogReading,
}

/// A log that cannot be read without skipping something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// Counts are gone, or the source was moved ahead.
    #[error(
        "log {log} is settled up to offset {settled}, and shard {shard} has counted it only up to {counted}: the storage \
         of the counts was lost or rolled back, or somebody moved the offset ahead; restore the storage, or see \
         `app recover`, which moves the group back"
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
    /// The source knows nothing of a log that was counted.
    #[error(
        "log {log} was counted up to {reached}, and the group has no offset of it: the group was renamed or reset, or the \
         topic was made anew; where it is the same topic, move the group to offset {}; where it is a new one, read it under \
         another name, or remove what is remembered of the old one", counted.offset
    )]
    Forgotten {
        /// The log.
        log: LogName,
        /// How far every shard has counted it.
        counted: LogPosition,
        /// How far one of them has.
        reached: LogPosition,
    },
    /// The log has let go of messages before they were counted.
    #[error(
        "log {log} begins at offset {begin}, and it was counted up to {reached} only: the messages in between were deleted \
         before they were counted; where that loss is accepted, see `app recover`"
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

/// How far each shard has counted a log, and with them how far it is settled: for a source that remembers nothing itself,
/// and begins at the smallest of these.
///
/// What every shard has gone past may hold something that was refused, and whose letter is not there yet.
pub struct CountedAndSettled {
    /// Those of the shards.
    pub positions: Arc<dyn LogPositions>,
    /// What is settled.
    pub accounts: Arc<dyn LogAccounts>,
}

#[async_trait]
impl LogPositions for CountedAndSettled {
    async fn positions(&self, log: &LogName) -> Result<Vec<LogPosition>, PortError> {
        let mut positions = self.positions.positions(log).await?;
        let balances = self.accounts.balances().await?;
        // Where nothing is settled yet, a source begins at the beginning anyway.
        let settled = balances.iter().find(|balance| balance.log == *log && balance.account.next > 0);
        positions.extend(settled.map(|balance| LogPosition::before(balance.account.next)));
        Ok(positions)
    }
}

/// Where to begin, given how far each shard has counted the log. Where there are no shards, it is where the source was
/// settled.
///
/// # Errors
/// See [`LogFault`].
pub fn open_log(log: LogName, counted: &[LogPosition], extent: LogExtent) -> Result<OpenedLog, LogFault> {
    let LogExtent { begin, end, settled } = extent;
    let reached = counted.iter().copied().max().unwrap_or_default();
    let reached = reached.max(LogPosition::before(settled.map_or(0, |settled| settled.next)));
    if reached > LogPosition::before(end) {
        return Err(LogFault::Shorter { log, end, reached });
    }
    let lowest = counted.iter().copied().min().unwrap_or(reached);
    let Some(settled) = settled else {
        if reached > LogPosition::START {
            return Err(LogFault::Forgotten { log, counted: lowest, reached });
        }
        // What was never read may have lost its beginning long ago; from where it is read on, nothing is skipped.
        let settled = Settled { next: begin, first: begin };
        return Ok(OpenedLog { start: begin, settled, reading: LogReading { log, after: 0 } });
    };
    let Settled { next, first } = settled;
    // No source is settled behind where it was first read: a `first` beyond that proves nothing.
    let first = first.min(next);
    let proven = |position: &LogPosition| LogPosition::before(first).max(*position);
    if let Some(shard) = counted.iter().position(|position| proven(position) < LogPosition::before(next)) {
        return Err(LogFault::Unproven { log, settled: next, shard, counted: counted[shard] });
    }
    let lowest = proven(&lowest);
    if lowest < LogPosition::before(begin) {
        return Err(LogFault::Deleted { log, begin, reached: lowest });
    }
    // Shards are moved on with what is settled, and nothing is as long as the source is where it was first read.
    let after = if next > first { next } else { 0 };
    Ok(OpenedLog { start: next.max(begin), settled, reading: LogReading { log, after } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Option<Settled> = None;

    const fn settled(next: u64, first: u64) -> Settled {
        Settled { next, first }
    }

    /// Where the reading starts, and what it says that every shard has passed.
    fn open(
        counted: &[(u64, u32)],
        begin: u64,
        end: u64,
        settled: impl Into<Option<Settled>>,
    ) -> Result<(u64, u64), &'static str> {
        let settled = settled.into();
        let log = LogName::of(&["kafka", "c", "t", "0"]).unwrap();
        let counted: Vec<_> =
            counted.iter().map(|(offset, items)| LogPosition { offset: *offset, items: *items }).collect();
        match open_log(log, &counted, LogExtent { begin, end, settled }) {
            Ok(opened) => {
                let remembered = settled.unwrap_or(Settled { next: begin, first: begin });
                assert_eq!(opened.settled, remembered, "what is remembered stays");
                Ok((opened.start, opened.reading.after))
            }
            Err(LogFault::Unproven { .. }) => Err("unproven"),
            Err(LogFault::Shorter { .. }) => Err("shorter"),
            Err(LogFault::Forgotten { .. }) => Err("forgotten"),
            Err(LogFault::Deleted { .. }) => Err("deleted"),
        }
    }

    #[test]
    fn a_log_that_was_never_read_begins_where_it_begins() {
        assert_eq!(open(&[(0, 0), (0, 0)], 0, 0, NEVER), Ok((0, 0)));
        assert_eq!(open(&[(0, 0), (0, 0)], 70, 90, NEVER), Ok((70, 0)));
    }

    #[test]
    fn a_first_reading_that_was_killed_is_taken_up_again() {
        assert_eq!(open(&[(0, 0), (0, 0)], 70, 90, settled(70, 70)), Ok((70, 0)), "before it counted");
        assert_eq!(open(&[(0, 0), (75, 2)], 70, 90, settled(70, 70)), Ok((70, 0)), "while it counted");
        assert_eq!(open(&[(72, 0), (75, 2)], 71, 90, settled(72, 70)), Ok((72, 72)), "once it settled");
        assert_eq!(open(&[(0, 0), (3, 2)], 0, 90, settled(0, 0)), Ok((0, 0)));
    }

    #[test]
    fn what_was_deleted_after_the_first_opening_is_missed() {
        assert_eq!(open(&[(0, 0), (0, 0)], 71, 90, settled(70, 70)), Err("deleted"));
        assert_eq!(open(&[(0, 0), (75, 2)], 71, 90, settled(70, 70)), Err("deleted"));
        assert_eq!(open(&[(0, 0), (0, 0)], 1, 90, settled(0, 0)), Err("deleted"));
    }

    #[test]
    fn a_log_goes_on_where_it_was_settled() {
        assert_eq!(open(&[(50, 0), (63, 2)], 10, 90, settled(50, 10)), Ok((50, 50)));
        assert_eq!(open(&[(90, 0), (90, 0)], 10, 90, settled(90, 0)), Ok((90, 90)));
    }

    #[test]
    fn a_log_that_was_counted_and_that_the_source_does_not_know_is_not_what_it_was() {
        assert_eq!(open(&[(50, 0), (63, 2)], 10, 90, NEVER), Err("forgotten"));
        assert_eq!(open(&[(0, 0), (0, 1)], 0, 90, NEVER), Err("forgotten"));
        assert_eq!(open(&[(50, 0), (50, 0)], 50, 50, NEVER), Err("forgotten"));
    }

    #[test]
    fn a_group_that_is_moved_to_where_every_shard_is_goes_on() {
        let log = LogName::of(&["kafka", "c", "t", "0"]).unwrap();
        let counted = [LogPosition::before(63), LogPosition { offset: 50, items: 2 }];
        let fault = open_log(log, &counted, LogExtent { begin: 10, end: 90, settled: NEVER }).unwrap_err();
        assert!(fault.to_string().contains("move the group to offset 50;"), "{fault}");
        assert_eq!(open(&[(63, 0), (50, 2)], 10, 90, settled(50, 0)), Ok((50, 50)));
    }

    #[test]
    fn without_shards_the_source_is_believed_and_what_it_lost_is_noticed() {
        assert_eq!(open(&[], 10, 90, NEVER), Ok((10, 0)));
        assert_eq!(open(&[], 10, 90, settled(50, 0)), Ok((50, 50)));
        assert_eq!(open(&[], 50, 90, settled(50, 10)), Ok((50, 50)));
        assert_eq!(open(&[], 51, 90, settled(50, 0)), Err("deleted"));
        assert_eq!(open(&[], 0, 49, settled(50, 0)), Err("shorter"));
    }

    #[test]
    fn a_source_ahead_of_a_shard_is_not_believed() {
        assert_eq!(open(&[(50, 0), (49, 7)], 0, 90, settled(50, 0)), Err("unproven"));
        assert_eq!(open(&[(0, 0), (0, 0)], 0, 90, settled(1, 0)), Err("unproven"));
        assert_eq!(open(&[(0, 0), (0, 0)], 70, 90, settled(71, 70)), Err("unproven"));
        assert_eq!(open(&[(0, 0), (80, 0)], 0, 90, settled(50, 49)), Err("unproven"));
    }

    #[test]
    fn a_log_that_ends_before_what_was_counted_is_another_one() {
        assert_eq!(open(&[(50, 0), (50, 0)], 0, 49, NEVER), Err("shorter"));
        assert_eq!(open(&[(50, 0), (50, 1)], 0, 50, settled(50, 0)), Err("shorter"));
        assert_eq!(open(&[(0, 0), (0, 0)], 0, 0, settled(3, 3)), Err("shorter"));
    }

    #[test]
    fn messages_that_were_deleted_before_they_were_counted_are_missed() {
        assert_eq!(open(&[(50, 0), (63, 2)], 51, 90, settled(50, 0)), Err("deleted"));
        assert_eq!(
            open(&[(51, 0), (63, 2)], 51, 90, settled(50, 0)),
            Ok((51, 50)),
            "all of them had been counted"
        );
    }
}
