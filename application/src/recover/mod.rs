//! Going on after the storage of the accumulator was lost or rolled back: what is missing is shown, and what a person agrees
//! to is done.
//!
//! The steps, each of which may be the last of this run, and is found done by the next:
//! 1. the ledger records the recovery. From then on it takes no generation and no mark of the shards as they were, and
//!    programs that start find shards that are not recovered yet, and stop;
//! 2. each shard is brought back by one atomic step, that programs which have seen it before do not get past, and is
//!    recorded as brought back;
//! 3. logs are read again from where the shards are by then;
//! 4. the ledger records the end.

mod plan;

#[cfg(test)]
mod tests;

pub use plan::{FoundShard, LogReturn, RecoveryPlan, ShardLoss, plan};

use crate::{
    crash_point,
    open_log::Settled,
    open_shards::StorageFault,
    ports::{
        AccumulatorAudit, LogMark, LogSource, PortError, Recovery, RecoveryBooks, Registration,
        ShardRegistry, ShardStorage,
    },
};
use domain::{LogName, Shard, Timestamp};
use std::sync::Arc;

/// The use case.
pub struct RecoverStorage {
    /// What the ledger knows of the shards.
    pub registry: Arc<dyn ShardRegistry>,
    /// What it knows of recoveries.
    pub books: Arc<dyn RecoveryBooks>,
    /// Where shards stand; looking leaves no mark.
    pub accumulator: Arc<dyn AccumulatorAudit>,
    /// Their storage.
    pub storage: Arc<dyn ShardStorage>,
    /// The sources of logs.
    pub sources: Vec<Arc<dyn LogSource>>,
}

/// What there is to recover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// What is missing at the moment.
    pub plan: RecoveryPlan,
    /// The latest recovery, and whether it has ended.
    pub latest: Option<(Recovery, bool)>,
}

impl Outlook {
    /// The recovery that was agreed to and has not ended.
    #[must_use]
    pub fn unfinished(&self) -> Option<&Recovery> {
        self.latest.as_ref().filter(|(_, ended)| !ended).map(|(recovery, _)| recovery)
    }
}

/// What a recovery has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Its number.
    pub number: u64,
    /// How many shards it has brought back.
    pub shards: usize,
    /// From where on logs are read again.
    pub moved: Vec<(LogName, Settled)>,
}

/// Why a recovery did not come to its end. Repeating it is always safe.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No loss of the accumulator's storage.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// There is no accumulator.
    #[error("the ledger knows no accumulator: nothing was ever counted")]
    Unborn,
    /// What was agreed to is not what is missing.
    #[error("{given} is not the word for what is missing at the moment; look at it again: `app recover`")]
    Word {
        /// What was given.
        given: String,
    },
    /// Something has moved since it was looked at.
    #[error(
        "shards have moved while they were looked at: stop all workers and crons, and look again: `app recover`"
    )]
    Moved,
    /// A shard is not as it was found when the recovery began.
    #[error(
        "shard {0} is not as it was found when the recovery began, and was left alone; look at it again: `app recover`"
    )]
    Changed(Shard),
    /// A log has lost more than was agreed to.
    #[error(
        "log {log} no longer holds what was at the offsets {from} to {}, which nobody has agreed to; look again: `app recover`",
        to - 1
    )]
    LostMore {
        /// Which.
        log: LogName,
        /// The first offset that is lost.
        from: u64,
        /// The first that is not.
        to: u64,
    },
}

impl RecoverStorage {
    /// What is missing; changes nothing.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub async fn look(&self) -> Result<Outlook, RecoverError> {
        let before = self.registry.registration().await?.ok_or(RecoverError::Unborn)?;
        let histories = self.books.histories(before.accumulator).await?;
        let mut found = Vec::with_capacity(histories.len());
        for record in &before.records {
            let state = self.accumulator.cut(record.shard).await?.map(|cut| cut.state);
            found.push(FoundShard { state, positions: self.storage.log_marks(record.shard).await? });
        }
        let after = self.registry.registration().await?.ok_or(RecoverError::Unborn)?;
        let mut logs = Vec::new();
        for source in &self.sources {
            logs.extend(source.extents().await?);
        }
        let plan = plan(&before, &after, &found, &histories, &logs)?;
        Ok(Outlook { plan, latest: self.books.latest(before.accumulator).await? })
    }

    /// Does what this word stands for: what is missing at the moment, or a recovery that has begun and not ended.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub async fn carry_out(&self, word: &str, now: Timestamp) -> Result<Recovered, RecoverError> {
        let Outlook { plan, latest } = self.look().await?;
        let registration = &plan.registration;
        let next = latest.as_ref().map_or(0, |(recovery, _)| recovery.number) + 1;
        let recovery = match latest {
            Some((recovery, false)) if recovery.word == word => recovery,
            _ if plan.is_empty() || plan.word() != word => {
                return Err(RecoverError::Word { given: word.to_owned() });
            }
            _ => {
                let recovery = agreed(&plan, next);
                let begin = self.books.begin(registration.accumulator, &recovery);
                if !crash_point::within("recovery_beginning", begin).await? {
                    return Err(RecoverError::Moved);
                }
                recovery
            }
        };
        crash_point::hit("recovery_begun");
        for (shard, done) in &recovery.shards {
            if *done {
                continue;
            }
            let restore = self.storage.restore(shard, now);
            if !crash_point::within("shard_restoring", restore).await? {
                return Err(RecoverError::Changed(shard.shard));
            }
            crash_point::hit("shard_restored");
            self.books.restored(shard).await?;
            crash_point::hit("shard_recorded");
        }
        let moved = self.move_logs(registration, &recovery).await?;
        let ended = self.books.ended(registration.accumulator, recovery.number);
        crash_point::hit("recovery_ending");
        ended.await?;
        Ok(Recovered { number: recovery.number, shards: recovery.shards.len(), moved })
    }

    /// Sets the sources back to where the shards are, all of which are there by now.
    async fn move_logs(
        &self,
        registration: &Registration,
        recovery: &Recovery,
    ) -> Result<Vec<(LogName, Settled)>, RecoverError> {
        let mut counted: Vec<Vec<LogMark>> = Vec::with_capacity(registration.records.len());
        for record in &registration.records {
            counted.push(self.storage.log_marks(record.shard).await?);
        }
        let mut moving = Vec::new();
        for source in &self.sources {
            for (log, extent) in source.extents().await? {
                // What is wrong with a log beside that stops its reader, which says so.
                let Ok(Some(back)) = plan::log_return(&log, &counted, extent) else { continue };
                if let Some((from, to)) = back.lost {
                    let agreed =
                        |given: &(LogName, u64, u64)| given.0 == log && given.1 <= from && to <= given.2;
                    if !recovery.given_up.iter().any(agreed) {
                        return Err(RecoverError::LostMore { log, from, to });
                    }
                }
                moving.push((source, log, back.to));
            }
        }
        let moved: Vec<_> = moving.iter().map(|(_, log, to)| (log.clone(), *to)).collect();
        if !moved.is_empty() {
            let moving = self.books.moving(registration.accumulator, recovery.number, &moved);
            crash_point::within("recovery_moving", moving).await?;
        }
        for (source, log, to) in moving {
            source.move_to(&log, to).await?;
            crash_point::hit("log_moved");
        }
        Ok(moved)
    }
}

fn agreed(plan: &RecoveryPlan, number: u64) -> Recovery {
    let given_up = |log: &LogReturn| log.lost.map(|(from, to)| (log.log.clone(), from, to));
    Recovery {
        number,
        word: plan.word(),
        plan: plan.loss(),
        shards: plan.shards.iter().map(|loss| (loss.recovery(&plan.registration, number), false)).collect(),
        given_up: plan.logs.iter().filter_map(given_up).collect(),
    }
}
