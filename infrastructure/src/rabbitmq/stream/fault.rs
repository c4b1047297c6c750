//! Where the reading of a stream begins, and why it may not go on.

use super::marks::Mark;
use domain::{LogName, LogPosition};

/// A stream that cannot be read without skipping something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamFault {
    /// Counts are gone, or they are those of another accumulator.
    #[error(
        "log {log} was settled before, and shard {shard} has counted nothing of it: the storage of the counts was lost, it \
         is another accumulator, or the cluster was renamed; restore what was there, see `app recover`, or delete the \
         exchange {} to count all of the stream in an accumulator that never did", Mark::Settled.name(stream)
    )]
    Unproven {
        /// The log.
        log: LogName,
        /// Its stream.
        stream: String,
        /// The first shard that has counted nothing.
        shard: usize,
    },
    /// It is another stream under the same name, or its end is lost.
    #[error(
        "log {log} ends at offset {end}, and it was counted up to {reached} before: the stream was made anew, or has lost \
         its end; read it under another name (RABBITMQ_QUEUE)"
    )]
    Shorter {
        /// The log.
        log: LogName,
        /// Where it ends.
        end: u64,
        /// How far one of the shards has counted it.
        reached: LogPosition,
    },
    /// The broker does not know the stream as one that was read.
    #[error(
        "log {log} was counted up to {reached}, and there is no exchange {}, which is deleted with a stream that was read: \
         the stream was made anew, or messages were deleted before they were counted for the first time; read it under \
         another name (RABBITMQ_QUEUE)", Mark::Begun(*begin).name(stream)
    )]
    Changed {
        /// The log.
        log: LogName,
        /// Its stream.
        stream: String,
        /// Where it begins.
        begin: u64,
        /// How far one of the shards has counted it.
        reached: LogPosition,
    },
    /// The stream has let go of messages before they were counted.
    #[error(
        "log {log} begins at offset {begin}, and not all shards have counted what was at offset {missing}: the messages in \
         between were deleted before they were counted; where that loss is accepted, see `app recover`, or delete the exchange \
         {} and make the exchange {}", Mark::Settled.name(stream), Mark::Begun(*begin).name(stream)
    )]
    Deleted {
        /// The log.
        log: LogName,
        /// Its stream.
        stream: String,
        /// Where it begins.
        begin: u64,
        /// The first offset that should have come.
        missing: u64,
    },
}

/// Where a reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the first message that there is: nothing was settled before. What a shard has counted of it already, it knows.
    Beginning,
    /// With this offset: every shard has counted what was before.
    At(u64),
}

impl Start {
    /// Where to begin, given how far each shard has counted the stream and whether it was ever settled.
    pub(super) fn of(
        log: &LogName,
        stream: &str,
        counted: &[LogPosition],
        settled: bool,
    ) -> Result<Self, StreamFault> {
        if !settled {
            return Ok(Self::Beginning);
        }
        // All shards are moved on before anything is settled.
        if let Some(shard) = counted.iter().position(|position| *position == LogPosition::START) {
            let (log, stream) = (log.clone(), stream.to_owned());
            return Err(StreamFault::Unproven { log, stream, shard });
        }
        Ok(Self::At(counted.iter().min().copied().unwrap_or_default().offset))
    }

    /// The offset to ask for.
    pub(super) const fn offset(self) -> u64 {
        match self {
            Self::Beginning => 0,
            Self::At(offset) => offset,
        }
    }
}

/// The last message of which a shard has counted something: the stream must hold it, or must have held it.
pub(super) fn last_counted(counted: &[LogPosition]) -> Option<u64> {
    match counted.iter().max()? {
        LogPosition { offset, items: 0 } => offset.checked_sub(1),
        LogPosition { offset, .. } => Some(*offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(counted: &[(u64, u32)], settled: bool) -> Result<Start, StreamFault> {
        let log = LogName::of(&["rabbitmq", "c", "/", "pulses", "0"]).unwrap();
        let counted: Vec<_> =
            counted.iter().map(|(offset, items)| LogPosition { offset: *offset, items: *items }).collect();
        Start::of(&log, "pulses", &counted, settled)
    }

    #[test]
    fn a_stream_is_read_from_where_the_last_shard_is() {
        assert_eq!(start(&[(0, 0), (0, 0)], false), Ok(Start::Beginning));
        assert_eq!(start(&[(0, 0), (75, 2)], false), Ok(Start::Beginning), "nothing was settled yet");
        assert_eq!(start(&[(63, 2), (50, 0)], true), Ok(Start::At(50)));
        assert_eq!(start(&[(50, 7), (51, 0)], true), Ok(Start::At(50)), "a part of it is not counted");
    }

    #[test]
    fn a_stream_that_was_settled_and_that_a_shard_knows_nothing_of_is_not_read() {
        let fault = start(&[(50, 0), (0, 0)], true).unwrap_err();
        assert!(matches!(fault, StreamFault::Unproven { shard: 1, .. }), "{fault}");
        assert!(fault.to_string().contains("delete the exchange pulses.reader.settled"), "{fault}");
    }

    #[test]
    fn the_last_message_that_was_counted_must_be_there() {
        let last = |offset, items| last_counted(&[LogPosition::START, LogPosition { offset, items }]);
        assert_eq!(last(0, 0), None);
        assert_eq!(last(0, 1), Some(0));
        assert_eq!(last(50, 0), Some(49));
        assert_eq!(last(50, 2), Some(50));
        assert_eq!(last_counted(&[]), None);
    }
}
