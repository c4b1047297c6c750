//! What is missing, what can be rebuilt, and how: decided from what the ledger knows, what is there, and what the sources
//! still hold.

use crate::{
    open_log::{LogExtent, LogFault, Settled, open_log},
    open_shards::{StorageFault, check_books, check_shard},
    ports::{FoundAt, LogMark, Registration, Remake, ShardHistory, ShardRecord, ShardRecovery, ShardState},
};
use chrono::{DateTime, SecondsFormat};
use domain::{LogName, LogPosition, Shard, Timestamp};
use sha2::{Digest, Sha256};
use std::fmt;

/// A shard as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundShard {
    /// Where it stands; `None` where there is none.
    pub state: Option<ShardState>,
    /// How far it has counted logs.
    pub positions: Vec<LogMark>,
}

/// A shard that is not what the ledger knows it to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLoss {
    /// Which.
    pub shard: Shard,
    /// Where it was found; `None` where it is gone.
    pub found: Option<FoundAt>,
    /// How it can be brought back.
    pub remake: Remake,
    /// The last generation in the ledger.
    pub flushed: u64,
    /// When that was sealed: what was counted later is missing.
    pub sealed_at: Option<Timestamp>,
    /// The furthest (generation, sequence) that anybody saw.
    pub seen: (u64, u64),
    /// When that was.
    pub seen_at: Option<Timestamp>,
    /// How many of its pulses are in the ledger.
    pub pulses: u64,
    /// From where on its logs are counted again.
    pub positions: Vec<LogMark>,
}

impl ShardLoss {
    /// The step that brings it back.
    #[must_use]
    pub fn recovery(&self, registration: &Registration, number: u64) -> ShardRecovery {
        let sequence = self.found.map_or(0, |found| found.sequence).max(self.seen.1) + 1;
        ShardRecovery {
            accumulator: registration.accumulator,
            shards: registration.shards,
            shard: self.shard,
            number,
            found: self.found,
            remake: self.remake,
            generation: match (self.remake, self.found) {
                (Remake::Keep, Some(found)) => found.generation,
                _ => self.flushed + 1,
            },
            sequence,
            counted: self.pulses,
            positions: self.positions.clone(),
            flushed: self.flushed,
            seen: self.seen,
        }
    }
}

impl fmt::Display for ShardLoss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, flushed, seen, .. } = self;
        match (self.remake, self.found) {
            (Remake::Keep, Some(FoundAt { generation, sequence, .. })) => {
                write!(
                    formatter,
                    "shard {shard} was rolled back to generation {generation}, sequence {sequence}"
                )?;
            }
            (Remake::DropBooked, Some(FoundAt { generation, .. })) => {
                write!(
                    formatter,
                    "shard {shard} was rolled back to generation {generation}, which the ledger holds"
                )?;
            }
            (_, Some(found)) => {
                write!(formatter, "shard {shard} is an old copy, of recovery {}", found.recovery)?;
            }
            (_, None) => write!(formatter, "shard {shard} is gone")?,
        }
        write!(
            formatter,
            "; in the ledger up to generation {flushed} (sealed {}), seen at generation {}, sequence {} ({})",
            at(self.sealed_at),
            seen.0,
            seen.1,
            at(self.seen_at)
        )
    }
}

/// A time in RFC 3339, to the second.
fn at(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return "never".to_owned() };
    let utc = DateTime::from_timestamp(time.seconds(), 0);
    utc.map_or_else(|| time.seconds().to_string(), |utc| utc.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A log whose source is ahead of what the shards prove, or will be once they are brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReturn {
    /// Which.
    pub log: LogName,
    /// Up to before which offset the source believes it to be settled.
    pub settled: u64,
    /// What it shall remember instead.
    pub to: Settled,
    /// The offsets that nobody can count any more, from and up to before: the log does not hold them.
    pub lost: Option<(u64, u64)>,
}

/// What is missing, and how counting goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// Whose shards.
    pub registration: Registration,
    /// The shards that are not what they should be.
    pub shards: Vec<ShardLoss>,
    /// The logs that must be read again.
    pub logs: Vec<LogReturn>,
    /// What is wrong with logs that a recovery does not mend.
    pub remarks: Vec<String>,
}

impl RecoveryPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.logs.is_empty()
    }

    /// The loss in words, a line each.
    #[must_use]
    pub fn loss(&self) -> String {
        let mut lines: Vec<String> = self.shards.iter().map(ShardLoss::to_string).collect();
        lines.extend(self.logs.iter().map(|log| match log.lost {
            Some((from, to)) => {
                format!("log {} no longer holds what was at the offsets {from} to {}", log.log, to - 1)
            }
            None => format!("log {} is settled beyond what the shards have counted", log.log),
        }));
        lines.join("\n")
    }

    /// What a person says to agree to this loss and to no other.
    #[must_use]
    pub fn word(&self) -> String {
        let digest = Sha256::digest(format!("{}\n{}", self.registration.accumulator, self.loss()));
        let number = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        format!("{number:08x}")
    }
}

/// What is to be done, where `before` is what the ledger knew before the shards were looked at and `after` what it knew then.
///
/// # Errors
/// Where this is no loss of the accumulator's storage: it belongs to others, or the ledger is the older one.
pub fn plan(
    before: &Registration,
    after: &Registration,
    found: &[FoundShard],
    histories: &[ShardHistory],
    logs: &[(LogName, LogExtent)],
) -> Result<RecoveryPlan, StorageFault> {
    let mut shards = Vec::new();
    let mut counted = Vec::with_capacity(found.len());
    for (((record, later), found), history) in
        before.records.iter().zip(&after.records).zip(found).zip(histories)
    {
        let missing = loss(before, record, found, history)?;
        if let Some(state) = &found.state {
            check_books(record.shard, state.deleted, later.flushed)?;
        }
        let positions = missing.as_ref().map_or(&found.positions, |missing| &missing.positions);
        counted.push(positions.clone());
        shards.extend(missing);
    }
    let mut plan =
        RecoveryPlan { registration: before.clone(), shards, logs: Vec::new(), remarks: Vec::new() };
    for (log, extent) in logs {
        match log_return(log, &counted, *extent) {
            Ok(None) => {}
            Ok(Some(log)) => plan.logs.push(log),
            Err(fault) => plan.remarks.push(fault.to_string()),
        }
    }
    Ok(plan)
}

fn loss(
    known: &Registration,
    record: &ShardRecord,
    found: &FoundShard,
    history: &ShardHistory,
) -> Result<Option<ShardLoss>, StorageFault> {
    let at = found.state.as_ref().map(|state| FoundAt {
        recovery: state.recovery,
        generation: state.generation,
        sequence: state.sequence,
    });
    let remake = match (check_shard(known, record, found.state.as_ref()), at) {
        (Ok(()), _) => return Ok(None),
        (Err(StorageFault::Lost { .. }), _) => Remake::Anew,
        (Err(StorageFault::NotRecovered { .. } | StorageFault::RolledBack { .. }), Some(at)) => {
            // What a copy of before a recovery has counted was counted again since: its identities would hide that.
            let is_old = at.recovery < history.recovered;
            if is_old || at.generation <= record.flushed && is_astray(found, history) {
                Remake::Anew
            } else if at.generation <= record.flushed {
                Remake::DropBooked
            } else {
                Remake::Keep
            }
        }
        (Err(fault), _) => return Err(fault),
    };
    Ok(Some(ShardLoss {
        shard: record.shard,
        found: at,
        remake,
        flushed: record.flushed,
        sealed_at: history.sealed_at,
        seen: record.seen,
        seen_at: history.seen_at,
        pulses: history.pulses,
        positions: match remake {
            Remake::Keep => found.positions.clone(),
            Remake::Anew | Remake::DropBooked => history.positions.clone(),
        },
    }))
}

/// Whether a copy whose generation is in the books has counted logs further than the books had by its end: then a program that
/// did not notice has gone on with the copy, and the identities of what it counted are of pulses that the books lack.
fn is_astray(found: &FoundShard, history: &ShardHistory) -> bool {
    found.positions.iter().any(|mark| {
        let booked = history.positions.iter().find(|booked| booked.log == mark.log);
        mark.position > booked.map_or(LogPosition::START, |booked| booked.position)
    })
}

/// Where a log must be read again, given what each shard has counted of all logs; `None` where nothing contradicts its source.
///
/// # Errors
/// What is wrong with the log beside that.
pub(super) fn log_return(
    log: &LogName,
    counted: &[Vec<LogMark>],
    extent: LogExtent,
) -> Result<Option<LogReturn>, LogFault> {
    let position = |marks: &Vec<LogMark>| {
        let mark = marks.iter().find(|mark| mark.log == *log);
        mark.map_or(LogPosition::START, |mark| mark.position)
    };
    let counted: Vec<LogPosition> = counted.iter().map(position).collect();
    let settled = match (open_log(log.clone(), &counted, extent), extent.settled) {
        (Ok(_), _) => return Ok(None),
        (Err(LogFault::Unproven { .. } | LogFault::Deleted { .. }), Some(settled)) => settled,
        (Err(fault), _) => return Err(fault),
    };
    let first = settled.first.min(settled.next);
    let lowest = counted.iter().copied().min().unwrap_or_default().max(LogPosition::before(first));
    let back = if lowest < LogPosition::before(extent.begin) {
        let to = Settled { next: extent.begin, first: extent.begin };
        LogReturn { log: log.clone(), settled: settled.next, to, lost: Some((lowest.offset, extent.begin)) }
    } else {
        let to = Settled { next: lowest.offset, first };
        LogReturn { log: log.clone(), settled: settled.next, to, lost: None }
    };
    Ok(Some(back))
}
