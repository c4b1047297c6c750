//! The memory of the accumulator, by which lost or rolled-back storage is noticed.

use super::{JsonLedger, Step};
use application::ports::{PortError, Registration, ShardMark, ShardRecord, ShardRegistry, ShardStatus};
use async_trait::async_trait;
use domain::{AccumulatorId, Shard, ShardCount};

#[async_trait]
impl ShardRegistry for JsonLedger {
    async fn register(
        &self,
        accumulator: AccumulatorId,
        shards: ShardCount,
    ) -> Result<Registration, PortError> {
        self.step("register an accumulator with the JSON ledger", false, move |state| {
            if let Some(known) = &state.registration {
                return Ok(Step::Kept(known.clone()));
            }
            let fresh = |shard| ShardRecord {
                shard,
                status: ShardStatus::Creating,
                seen: (0, 0),
                flushed: 0,
                recovery: 0,
            };
            let records = shards.shards().map(fresh).collect();
            let registration = Registration { accumulator, shards, records };
            state.registration = Some(registration.clone());
            Ok(Step::Changed(registration))
        })
        .await
    }

    async fn registration(&self) -> Result<Option<Registration>, PortError> {
        self.look("read the registration of the JSON ledger", |state| Ok(state.registration)).await
    }

    async fn confirm_created(&self, accumulator: AccumulatorId, shard: Shard) -> Result<(), PortError> {
        const OPERATION: &str = "confirm a shard in the JSON ledger";
        self.step(OPERATION, false, move |state| {
            let Some(record) = state.record(accumulator, shard) else {
                return Err(stranger(OPERATION, accumulator, shard));
            };
            if record.status == ShardStatus::Created {
                return Ok(Step::Kept(()));
            }
            record.status = ShardStatus::Created;
            Ok(Step::Changed(()))
        })
        .await
    }

    async fn mark_seen(&self, accumulator: AccumulatorId, marks: &[ShardMark]) -> Result<(), PortError> {
        const OPERATION: &str = "record how far shards were seen in the JSON ledger";
        if marks.is_empty() {
            return Ok(());
        }
        let marks = marks.to_vec();
        self.step(OPERATION, false, move |state| {
            let mut moved = false;
            for ShardMark { shard, generation, sequence, .. } in marks {
                let Some(record) = state.record(accumulator, shard) else {
                    return Err(stranger(OPERATION, accumulator, shard));
                };
                moved |= record.seen < (generation, sequence);
                record.seen = record.seen.max((generation, sequence));
            }
            Ok(if moved { Step::Changed(()) } else { Step::Kept(()) })
        })
        .await
    }
}

fn stranger(operation: &'static str, accumulator: AccumulatorId, shard: Shard) -> PortError {
    let reason = format!("shard {shard} of accumulator {accumulator} is not registered with these books");
    PortError::permanent(operation, reason)
}
