//! Opening an accumulator: its shards are made once, and found again or missed.
//!
//! The ledger remembers which shards exist and how far they were seen. A shard that the ledger knows and the accumulator
//! does not was lost, and one that is further back than it was seen was rolled back: both stop the program, because what
//! they held was acknowledged to the sources and only a person can decide how to go on.

use crate::{
    crash_point,
    ports::{
        AccumulatorShards, PortError, Registration, ShardBirth, ShardRecord, ShardRegistry, ShardState,
        ShardStatus,
    },
};
use domain::{AccumulatorId, Shard, ShardCount, Timestamp};

/// Why the accumulator and the ledger do not belong together as they are.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// What is stored contradicts what the ledger knows.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The settings ask for another number of shards than there is.
    #[error(
        "the accumulator has {stored} shards and PULSE_SHARDS asks for {wanted}: identities live in shards, so the number \
         is fixed for its life; set PULSE_SHARDS={stored}"
    )]
    ShardCount {
        /// What the ledger recorded.
        stored: ShardCount,
        /// What the settings ask for.
        wanted: ShardCount,
    },
}

/// Storage of the accumulator that is not what the ledger knows it to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageFault {
    /// The shard was made and is gone.
    #[error(
        "shard {shard} of accumulator {accumulator} is gone: its storage was lost with everything counted after \
         generation {flushed}; restore the accumulator's storage, or see `app recover`"
    )]
    Lost {
        /// Which shard.
        shard: Shard,
        /// Which accumulator.
        accumulator: AccumulatorId,
        /// The last generation that is safe in the ledger.
        flushed: u64,
    },
    /// The shard belongs to another accumulator.
    #[error(
        "shard {shard} belongs to accumulator {found} but the ledger belongs with {expected}: the settings name the \
         storage of another installation, or the ledger was replaced"
    )]
    Foreign {
        /// Which shard.
        shard: Shard,
        /// Whose it is.
        found: AccumulatorId,
        /// Whose it should be.
        expected: AccumulatorId,
    },
    /// The accumulator has deleted what the ledger had written and has no more.
    #[error(
        "shard {shard} has deleted its generations up to {deleted} after they were written, and the ledger holds them up to \
         {flushed}: the ledger was restored from an older backup; restore the newer one before starting again"
    )]
    LedgerBehind {
        /// Which shard.
        shard: Shard,
        /// The newest generation that was deleted.
        deleted: u64,
        /// The newest generation in the ledger.
        flushed: u64,
    },
    /// The shard was made with another number of shards.
    #[error("shard {shard} was made as one of {found} shards, the ledger knows {expected}")]
    Count {
        /// Which shard.
        shard: Shard,
        /// The number kept with the shard.
        found: ShardCount,
        /// The number in the ledger.
        expected: ShardCount,
    },
    /// The shard is further back than it was seen.
    #[error(
        "shard {shard} is at generation {}, sequence {}, and was seen at generation {}, sequence {}: its storage was rolled \
         back and what was counted in between is gone; restore the newer storage, or see `app recover`",
        found.0, found.1, seen.0, seen.1
    )]
    RolledBack {
        /// Which shard.
        shard: Shard,
        /// Its generation and sequence.
        found: (u64, u64),
        /// The furthest that anybody saw.
        seen: (u64, u64),
    },
    /// A recovery of the shard was begun and not carried out on what is there.
    #[error(
        "shard {shard} is of recovery {found}, and recovery {begun} has begun: it was not finished, or storage of before it \
         was put back; see `app recover`"
    )]
    NotRecovered {
        /// Which shard.
        shard: Shard,
        /// Its latest recovery.
        found: u64,
        /// The latest on record.
        begun: u64,
    },
    /// The shard was recovered, and the ledger does not know of it.
    #[error(
        "shard {shard} is of recovery {found}, and the ledger knows of {begun}: it was recovered at this moment, or the \
         ledger was restored from an older backup; start again, and where that changes nothing, restore the newer ledger"
    )]
    RecoveryUnknown {
        /// Which shard.
        shard: Shard,
        /// Its latest recovery.
        found: u64,
        /// The latest on record.
        begun: u64,
    },
}

/// Compares a shard with what the ledger knew of it *before* the shard was looked at.
///
/// # Errors
/// See [`StorageFault`].
pub fn check_shard(
    registration: &Registration,
    record: &ShardRecord,
    state: Option<&ShardState>,
) -> Result<(), StorageFault> {
    let shard = record.shard;
    let Some(state) = state else {
        return match record.status {
            ShardStatus::Creating => Ok(()),
            ShardStatus::Created => Err(StorageFault::Lost {
                shard,
                accumulator: registration.accumulator,
                flushed: record.flushed,
            }),
        };
    };
    if state.accumulator != registration.accumulator {
        let (found, expected) = (state.accumulator, registration.accumulator);
        return Err(StorageFault::Foreign { shard, found, expected });
    }
    if state.shards != registration.shards {
        return Err(StorageFault::Count { shard, found: state.shards, expected: registration.shards });
    }
    let (found, begun) = (state.recovery, record.recovery);
    if found < begun {
        return Err(StorageFault::NotRecovered { shard, found, begun });
    }
    if found > begun {
        return Err(StorageFault::RecoveryUnknown { shard, found, begun });
    }
    let found = (state.generation, state.sequence);
    // A generation in the ledger was sealed, so the one after it is active at least.
    if found < record.seen || state.generation <= record.flushed {
        let seen = record.seen.max((record.flushed + 1, 0));
        return Err(StorageFault::RolledBack { shard, found, seen });
    }
    Ok(())
}

/// Compares what a shard has deleted with what the ledger holds *after* the shard was looked at.
///
/// # Errors
/// [`StorageFault::LedgerBehind`].
pub fn check_books(shard: Shard, deleted: u64, flushed: u64) -> Result<(), StorageFault> {
    if deleted > flushed { Err(StorageFault::LedgerBehind { shard, deleted, flushed }) } else { Ok(()) }
}

/// Opens every shard, making those that never existed. Safe to repeat, and for several programs at once.
///
/// `proposal` is the id of the accumulator where there is none yet.
///
/// # Errors
/// See [`OpenError`]; nothing is counted before all shards are open.
pub async fn open_shards(
    registry: &dyn ShardRegistry,
    shards: &dyn AccumulatorShards,
    proposal: AccumulatorId,
    wanted: ShardCount,
    now: Timestamp,
) -> Result<Registration, OpenError> {
    let registration = registry.register(proposal, wanted).await?;
    if registration.shards != wanted {
        return Err(OpenError::ShardCount { stored: registration.shards, wanted });
    }
    for record in &registration.records {
        let found = shards.inspect(record.shard).await?;
        check_shard(&registration, record, found.as_ref())?;
        if found.is_none() {
            let birth = ShardBirth { accumulator: registration.accumulator, shards: wanted, now };
            let made = crash_point::within("meta_creating", shards.create(record.shard, birth)).await?;
            check_shard(&registration, record, Some(&made))?;
        }
        if record.status == ShardStatus::Creating {
            registry.confirm_created(registration.accumulator, record.shard).await?;
        }
    }
    confirm(registry, shards, &registration).await?;
    Ok(registration)
}

/// Compares once more, the other way round: the shards first, and then what the ledger knows by then.
///
/// A ledger that lost commits shows only so. And a program that was paused between asking and making could have made a
/// shard anew that was lost in between: what others reported by then tells.
async fn confirm(
    registry: &dyn ShardRegistry,
    shards: &dyn AccumulatorShards,
    registration: &Registration,
) -> Result<(), OpenError> {
    let mut deleted = Vec::with_capacity(registration.records.len());
    for record in &registration.records {
        deleted.push(shards.inspect(record.shard).await?.map_or(0, |state| state.deleted));
    }
    let Some(latest) = registry.registration().await? else {
        return Err(
            PortError::permanent("read the registration", "it is gone right after it was made").into()
        );
    };
    for (record, deleted) in latest.records.iter().zip(deleted) {
        check_books(record.shard, deleted, record.flushed)?;
        let state = shards.inspect(record.shard).await?;
        check_shard(&latest, record, state.as_ref())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::ShardCounts;
    use crate::ports::{MockAccumulatorShards, MockShardRegistry};
    use domain::UsageTotal;
    use std::sync::{Arc, Mutex};

    const OURS: AccumulatorId = AccumulatorId::from_bytes([1; 16]);
    const NOW: Timestamp = Timestamp::new(0, 0);

    fn record(status: ShardStatus, seen: (u64, u64), flushed: u64) -> ShardRecord {
        ShardRecord { shard: Shard(0), status, seen, flushed, recovery: 0 }
    }

    fn state(accumulator: AccumulatorId, generation: u64, sequence: u64) -> ShardState {
        ShardState {
            accumulator,
            shards: ShardCount::ONE,
            generation,
            sequence,
            recovery: 0,
            deleted: 0,
            active: UsageTotal::default(),
            counts: ShardCounts::default(),
        }
    }

    /// Opens one shard; returns the result and the steps that changed something, in order.
    async fn open(
        record: ShardRecord,
        found: Option<ShardState>,
        wanted: ShardCount,
    ) -> (Result<Registration, OpenError>, Vec<&'static str>) {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let registration = Registration { accumulator: OURS, shards: ShardCount::ONE, records: vec![record] };
        let (mut registry, mut shards) = (MockShardRegistry::new(), MockAccumulatorShards::new());
        let answer = registration.clone();
        registry.expect_register().returning(move |_, _| Ok(answer.clone()));
        registry.expect_registration().returning(move || Ok(Some(registration.clone())));
        let log = Arc::clone(&steps);
        registry.expect_confirm_created().returning(move |_, _| {
            log.lock().unwrap().push("confirmed");
            Ok(())
        });
        let stored = Arc::new(Mutex::new(found));
        let (read, log) = (Arc::clone(&stored), Arc::clone(&steps));
        shards.expect_inspect().returning(move |_| Ok(read.lock().unwrap().clone()));
        shards.expect_create().returning(move |_, birth| {
            log.lock().unwrap().push("made");
            Ok(stored.lock().unwrap().get_or_insert_with(|| state(birth.accumulator, 1, 0)).clone())
        });
        let result = open_shards(&registry, &shards, AccumulatorId::from_bytes([9; 16]), wanted, NOW).await;
        let steps = steps.lock().unwrap().clone();
        (result, steps)
    }

    #[tokio::test]
    async fn a_new_shard_is_made_and_then_recorded_as_made() {
        let (result, steps) = open(record(ShardStatus::Creating, (0, 0), 0), None, ShardCount::ONE).await;
        assert_eq!(result.unwrap().accumulator, OURS);
        assert_eq!(steps, ["made", "confirmed"]);
    }

    #[tokio::test]
    async fn a_shard_that_was_made_but_not_recorded_is_recorded() {
        let found = Some(state(OURS, 1, 5));
        let (result, steps) = open(record(ShardStatus::Creating, (0, 0), 0), found, ShardCount::ONE).await;
        assert!(result.is_ok());
        assert_eq!(steps, ["confirmed"]);
    }

    #[tokio::test]
    async fn a_shard_that_is_found_as_it_was_seen_is_left_alone() {
        let found = Some(state(OURS, 3, 70));
        let (result, steps) = open(record(ShardStatus::Created, (3, 70), 2), found, ShardCount::ONE).await;
        assert!(result.is_ok() && steps.is_empty());
    }

    #[tokio::test]
    async fn lost_foreign_and_rolled_back_storage_stops_everything_and_nothing_is_made() {
        let cases = [
            (record(ShardStatus::Created, (3, 70), 2), None, "is gone"),
            (record(ShardStatus::Created, (3, 70), 2), Some(state(OURS, 3, 69)), "rolled back"),
            (record(ShardStatus::Created, (3, 70), 2), Some(state(OURS, 2, 90)), "rolled back"),
            (record(ShardStatus::Created, (0, 0), 5), Some(state(OURS, 5, 9)), "rolled back"),
            (
                record(ShardStatus::Creating, (0, 0), 0),
                Some(state(AccumulatorId::from_bytes([2; 16]), 1, 0)),
                "another installation",
            ),
        ];
        for (record, found, expected) in cases {
            let (result, steps) = open(record, found, ShardCount::ONE).await;
            let error = result.unwrap_err();
            assert!(
                matches!(error, OpenError::Storage(_)) && error.to_string().contains(expected),
                "{error}"
            );
            assert!(steps.is_empty(), "{steps:?}");
        }
    }

    #[tokio::test]
    async fn a_ledger_without_what_was_deleted_after_it_was_written_stops_everything() {
        let found = Some(ShardState { deleted: 3, ..state(OURS, 4, 70) });
        let (result, _) = open(record(ShardStatus::Created, (3, 60), 2), found, ShardCount::ONE).await;
        assert!(result.unwrap_err().to_string().contains("older backup"));
    }

    #[tokio::test]
    async fn another_number_of_shards_is_refused_with_the_number_to_set() {
        let wanted = ShardCount::new(4).unwrap();
        let (result, steps) =
            open(record(ShardStatus::Created, (1, 1), 0), Some(state(OURS, 1, 1)), wanted).await;
        assert!(result.unwrap_err().to_string().contains("set PULSE_SHARDS=1"));
        assert!(steps.is_empty());
    }
}
