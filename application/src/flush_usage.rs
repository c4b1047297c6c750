//! Moving what was counted into the books: seal, read, write once, delete.
//!
//! It may be killed between any two steps and run by several programs at once. A sealed generation never changes; the ledger
//! takes each at most once; and it is deleted only after the ledger has it.

use crate::{
    crash_point,
    mutation::Mutation,
    open_shards::{StorageFault, check_shard},
    ports::{
        AccumulatorShards, GenerationStore, PortError, Registration, SealedGeneration, ShardRecord,
        ShardRegistry, UsageLedger, UsageRows,
    },
};
use domain::{Shard, Timestamp, UsageTotal};
use futures_util::{TryStreamExt, stream};
use std::sync::Arc;
use tracing::{debug, info};

/// The use case: one flush of all shards at each run.
pub struct FlushUsage {
    /// The shards.
    pub shards: Arc<dyn AccumulatorShards>,
    /// Their generations.
    pub generations: Arc<dyn GenerationStore>,
    /// The books.
    pub ledger: Arc<dyn UsageLedger>,
    /// What the books know of the shards.
    pub registry: Arc<dyn ShardRegistry>,
}

/// What a flush has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushSummary {
    /// Generations that this flush wrote.
    pub generations: u64,
    /// Hourly totals that were added to.
    pub rows: u64,
    /// Pulses in them.
    pub pulses: u64,
}

/// Why a flush did not come to its end. What it had written is written; the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The accumulator is not what the ledger knows it to be.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The ledger holds the generation with another total.
    #[error(
        "generation {} of shard {} was sealed with {} pulses, amount {}, and the ledger has it with {} pulses, amount {}",
        sealed.generation, sealed.shard, sealed.total.pulses, sealed.total.amount, recorded.pulses, recorded.amount
    )]
    Mismatch {
        /// As it was sealed.
        sealed: Box<SealedGeneration>,
        /// As it is recorded.
        recorded: UsageTotal,
    },
}

impl FlushError {
    /// Whether the flush is worth repeating without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Port(error) if error.is_transient())
    }
}

impl FlushUsage {
    /// Seals what is active, and writes and deletes everything sealed, of every shard; sealed at `now`.
    ///
    /// Where no worker has ever opened the accumulator there is nothing to do.
    ///
    /// # Errors
    /// See [`FlushError`]. Repeating the flush is always safe.
    pub async fn run(&self, now: Timestamp) -> Result<FlushSummary, FlushError> {
        let mut summary = FlushSummary::default();
        let Some(registration) = self.registry.registration().await? else {
            debug!("nothing was ever counted: there is no accumulator to flush");
            return Ok(summary);
        };
        let mut away = None;
        for record in &registration.records {
            match self.flush_shard(&registration, record, now, &mut summary).await {
                // A shard that is away must not keep the others waiting.
                Err(error) if error.is_transient() => away = away.or(Some(error)),
                result => result?,
            }
        }
        info!(generations = summary.generations, rows = summary.rows, pulses = summary.pulses, "flushed");
        if let Some(error) = away {
            return Err(error);
        }
        self.registry.mark_seen(registration.accumulator, &self.shards.marks()).await?;
        Ok(summary)
    }

    async fn flush_shard(
        &self,
        registration: &Registration,
        record: &ShardRecord,
        now: Timestamp,
        summary: &mut FlushSummary,
    ) -> Result<(), FlushError> {
        let shard = record.shard;
        let state = self.shards.inspect(shard).await?;
        check_shard(registration, record, state.as_ref())?;
        let Some(state) = state else { return Ok(()) };
        let mut end = state.generation;
        if state.active.pulses > 0 {
            crash_point::hit("seal_before");
            self.generations.seal(shard, state.generation, now).await?;
            crash_point::hit("seal_after");
            end += 1;
        }
        for generation in state.deleted + 1..end {
            // Absent where another flush was faster.
            if let Some(sealed) = self.generations.sealed(shard, generation).await? {
                self.move_to_ledger(&sealed, summary).await?;
            }
        }
        Ok(())
    }

    async fn move_to_ledger(
        &self,
        sealed: &SealedGeneration,
        summary: &mut FlushSummary,
    ) -> Result<(), FlushError> {
        let mut rows = read_all(&self.generations, sealed.shard, sealed.generation);
        if Mutation::DeleteBeforeCommit.is_on() {
            let parts: Vec<_> = rows.try_collect().await?;
            self.generations.delete(sealed).await?;
            rows = Box::pin(stream::iter(parts.into_iter().map(Ok)));
        }
        let receipt = match self.ledger.write(sealed, rows).await {
            // Another flush finished and deleted the generation while this one was paused: what it read was half gone.
            Err(error) if !error.is_transient() && self.is_gone(sealed).await? => {
                debug!(%error, "another flush was faster");
                return Ok(());
            }
            result => result?,
        };
        if receipt.total != sealed.total {
            return Err(FlushError::Mismatch { sealed: Box::new(sealed.clone()), recorded: receipt.total });
        }
        if receipt.written {
            summary.generations += 1;
            summary.rows += receipt.rows;
            summary.pulses += receipt.total.pulses;
        }
        crash_point::hit("delete_before");
        self.generations.delete(sealed).await?;
        crash_point::hit("delete_after");
        Ok(())
    }

    async fn is_gone(&self, sealed: &SealedGeneration) -> Result<bool, PortError> {
        Ok(self.generations.sealed(sealed.shard, sealed.generation).await?.is_none())
    }
}

/// The rows of a generation, each part read when the one before it was taken.
pub(crate) fn read_all(
    generations: &Arc<dyn GenerationStore>,
    shard: Shard,
    generation: u64,
) -> UsageRows<'static> {
    let generations = Arc::clone(generations);
    Box::pin(stream::try_unfold((generations, Some(0)), move |(generations, part)| async move {
        let Some(part) = part else { return Ok(None) };
        let read = generations.read(shard, generation, part);
        let (rows, next) = crash_point::within("read_mid", read).await?;
        if next.is_none() {
            crash_point::hit("read_done");
        }
        Ok(Some((rows, (generations, next))))
    }))
}
