//! What an operator wants to see in one look: gathered from all parts at once, within a bounded time, and shown as far
//! as the parts answer.

mod archive;
mod rates;

pub use archive::{ArchiveOverview, GatherArchive};
pub use rates::{RateWindow, Rates};

use crate::ports::{
    AccumulatorShards, Backlog, FlushRecord, GenerationStore, PortError, RefusedPulses, ShardCounts,
    UsageQueries,
};
use domain::{Shard, ShardCount, Timestamp};
use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How many shards are asked at once.
const SHARDS_AT_ONCE: usize = 32;
/// How many flushes are shown.
const FLUSHES: u32 = 8;

/// The use case.
#[derive(Clone)]
pub struct GatherOverview {
    /// What operators call the accumulator.
    pub accumulator: String,
    /// What operators call the ledger.
    pub ledger: String,
    /// The shards.
    pub shards: Arc<dyn AccumulatorShards>,
    /// How many shards there are.
    pub shard_count: ShardCount,
    /// Their generations.
    pub generations: Arc<dyn GenerationStore>,
    /// The books.
    pub queries: Arc<dyn UsageQueries>,
    /// The sources by their names.
    pub backlogs: Vec<(String, Arc<dyn Backlog>)>,
    /// The dead letters by the names of their places.
    pub refused: Vec<(String, Arc<dyn RefusedPulses>)>,
    /// How long each part may take to answer.
    pub part_limit: Duration,
}

/// What a part answered, or why it did not.
pub type Part<T> = Result<T, Unavailable>;

/// A part did not answer, or not well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What all parts answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// What became of the pulses, and what is pending.
    pub counting: Named<Counting>,
    /// The latest flushes, newest first.
    pub flushes: Named<Vec<FlushRecord>>,
    /// How many messages wait in each source.
    pub waiting: Vec<Named<u64>>,
    /// How many letters each place of refused pulses holds.
    pub rejected: Vec<Named<u64>>,
}

/// The answer of a part with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T> {
    /// What operators call the part.
    pub name: String,
    /// What it answered.
    pub answer: Part<T>,
}

/// What the accumulator has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// What became of all pulses, over the life of the accumulator.
    pub counts: ShardCounts,
    /// How many pulses are counted, and not yet moved to the books and deleted.
    pub pending: u64,
    /// How many sealed generations are not yet moved to the books and deleted.
    pub sealed: u64,
    /// When the oldest of them was sealed.
    pub oldest_sealed_at: Option<Timestamp>,
}

impl GatherOverview {
    /// Asks all parts at the same time; returns within the limit of a part.
    pub async fn run(&self) -> Overview {
        let limit = self.part_limit;
        let counting = part(limit, &self.accumulator, self.counting());
        let flushes = part(limit, &self.ledger, self.queries.flushes(FLUSHES));
        let waiting = self.backlogs.iter().map(|(name, backlog)| part(limit, name, backlog.waiting()));
        let rejected = self.refused.iter().map(|(name, refused)| part(limit, name, refused.count()));
        let (counting, flushes, waiting, rejected) =
            tokio::join!(counting, flushes, join_all(waiting), join_all(rejected));
        Overview { counting, flushes, waiting, rejected }
    }

    async fn counting(&self) -> Result<Counting, PortError> {
        stream::iter(self.shard_count.shards())
            .map(|shard| self.shard(shard))
            .buffer_unordered(SHARDS_AT_ONCE)
            .try_fold(Counting::default(), async |sum, shard| Ok(sum.plus(shard)))
            .await
    }

    /// Nothing for a shard that was not made yet.
    async fn shard(&self, shard: Shard) -> Result<Counting, PortError> {
        let Some(state) = self.shards.inspect(shard).await? else { return Ok(Counting::default()) };
        let mut counting =
            Counting { counts: state.counts, pending: state.active.pulses, ..Counting::default() };
        for generation in state.deleted + 1..state.generation {
            // Absent where it was deleted meanwhile.
            if let Some(sealed) = self.generations.sealed(shard, generation).await? {
                counting = counting.plus(Counting {
                    counts: ShardCounts::default(),
                    pending: sealed.total.pulses,
                    sealed: 1,
                    oldest_sealed_at: Some(sealed.sealed_at),
                });
            }
        }
        Ok(counting)
    }
}

impl Counting {
    fn plus(self, other: Self) -> Self {
        let (ours, theirs) = (self.counts, other.counts);
        Self {
            counts: ShardCounts {
                counted: ours.counted.saturating_add(theirs.counted),
                duplicates: ours.duplicates.saturating_add(theirs.duplicates),
                anonymous: ours.anonymous.saturating_add(theirs.anonymous),
            },
            pending: self.pending.saturating_add(other.pending),
            sealed: self.sealed.saturating_add(other.sealed),
            oldest_sealed_at: self.oldest_sealed_at.into_iter().chain(other.oldest_sealed_at).min(),
        }
    }
}

impl Overview {
    /// Each part that answers for something else than itself, and why it does not answer: the health of what the
    /// service depends on. What answers for several things is named once, and is well only where it answers for all.
    pub fn health(&self) -> impl Iterator<Item = (&str, Option<&Unavailable>)> {
        let others = self.waiting.iter().chain(&self.rejected);
        let stores = [self.counting.health(), self.flushes.health()];
        health(stores.into_iter().chain(others.map(Named::health)))
    }

    /// How many letters all places hold together; `None` where one of them does not answer.
    #[must_use]
    pub fn rejected_total(&self) -> Option<u64> {
        total(&self.rejected)
    }

    /// How many messages wait in all sources together; `None` where one of them does not answer.
    #[must_use]
    pub fn waiting_total(&self) -> Option<u64> {
        total(&self.waiting)
    }
}

impl<T> Named<T> {
    fn health(&self) -> (&str, Option<&Unavailable>) {
        (&self.name, self.answer.as_ref().err())
    }
}

async fn part<T>(
    limit: Duration,
    name: &str,
    answer: impl Future<Output = Result<T, PortError>>,
) -> Named<T> {
    let answer = match timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|error| Unavailable(error.to_string())),
        Err(_) => Err(Unavailable(format!("no answer within {limit:?}"))),
    };
    Named { name: name.to_owned(), answer }
}

/// Each name once, with its first fault.
fn health<'a>(
    parts: impl Iterator<Item = (&'a str, Option<&'a Unavailable>)>,
) -> impl Iterator<Item = (&'a str, Option<&'a Unavailable>)> {
    let mut health: Vec<(&str, Option<&Unavailable>)> = Vec::new();
    for (name, fault) in parts {
        match health.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = known.or(fault),
            None => health.push((name, fault)),
        }
    }
    health.into_iter()
}

fn total(parts: &[Named<u64>]) -> Option<u64> {
    parts.iter().try_fold(0_u64, |sum, part| part.answer.as_ref().ok().map(|n| sum.saturating_add(*n)))
}

#[cfg(test)]
mod tests;
