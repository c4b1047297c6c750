//! Whether the books balance, asked of the stores while they work; nothing is changed and nobody waits.
//!
//! The cut: what the ledger knew of the shards, then each shard by one call, then one snapshot of the books. So
//! whatever a shard has deleted is in the snapshot, and whatever the books held before is sealed in the shard; a
//! generation that is found in both is compared and counted once. The rows of generations are read after that: those of a
//! sealed one must sum to its total exactly, those of the active one to something between its totals before and after.

mod archive;
mod checks;
mod report;
mod rows;
mod tally;
#[cfg(test)]
mod tests;

pub use archive::AuditArchive;
pub use report::{AuditReport, CheckKind, CheckReport, FINDINGS_MAX, Finding, Outcome, Verdict};
pub use tally::{AuditTally, AuditTallySnapshot, LastAudit};

use crate::ports::{
    AccumulatorAudit, AccumulatorBooks, BooksAudit, PortError, Registration, ShardCut, ShardRegistry,
};
use checks::Usage;
use domain::{Shard, ShardCount, Timestamp};
use report::Findings;
use std::{collections::BTreeMap, sync::Arc};

/// The use case.
pub struct AuditBooks {
    /// What operators call the accumulator.
    pub accumulator_name: String,
    /// What the books know of the shards.
    pub registry: Arc<dyn ShardRegistry>,
    /// The counts.
    pub accumulator: Arc<dyn AccumulatorAudit>,
    /// The books.
    pub books: Arc<dyn BooksAudit>,
    /// How many shards the settings ask for, which only matters while there is no accumulator.
    pub shard_count: ShardCount,
}

/// The figures of one cut; a part that did not answer is why.
struct Cut {
    /// What the ledger knew before the shards were asked.
    before: Result<Option<Registration>, Failure>,
    shards: Result<BTreeMap<Shard, ShardCut>, Failure>,
    books: Result<Books, Failure>,
}

/// The snapshot of the books.
struct Books {
    accumulators: Vec<AccumulatorBooks>,
    usage: Result<Usage, Failure>,
}

impl Cut {
    /// What the books hold of the accumulator in use.
    fn active(&self) -> Option<&AccumulatorBooks> {
        self.books.as_ref().ok()?.accumulators.iter().find(|books| books.active)
    }

    /// The last generation of the shard that the books hold; 0 where none.
    fn flushed(&self, shard: Shard) -> u64 {
        let books = self.active().and_then(|active| active.books.get(usize::from(shard.0)));
        books.map_or(0, |books| books.flushed)
    }

    /// Why the shards or the books did not answer.
    fn away(&self) -> Option<&Failure> {
        [self.before.as_ref().err(), self.shards.as_ref().err(), self.books.as_ref().err()]
            .into_iter()
            .flatten()
            .next()
    }
}

impl AuditBooks {
    /// All checks, at `now`. A store that is away leaves the checks unknown that need it.
    pub async fn run(&self, now: Timestamp) -> AuditReport {
        let cut = self.cut().await;
        let mut checks = vec![
            checks::storage(&cut),
            checks::watermarks(&cut),
            checks::contiguous(&cut),
            self.check_rows(&cut).await,
            checks::booked(&cut),
            checks::counted(&cut),
            checks::identities(&cut),
            self.check_strays().await,
            checks::hourly_usage(&cut),
        ];
        checks.push(self.check_hourly_rows(&cut).await);
        AuditReport { at: now, checks }
    }

    async fn cut(&self) -> Cut {
        let before = self.registry.registration().await.map_err(|error| Failure::of("ledger", &error));
        let count = match &before {
            Ok(Some(known)) => known.shards,
            _ => self.shard_count,
        };
        let shards = self.shards(count).await.map_err(|error| Failure::of(&self.accumulator_name, &error));
        let deleted = |shard: Shard| {
            let cut = shards.as_ref().ok().and_then(|shards| shards.get(&shard));
            cut.map_or(0, |cut| cut.state.deleted)
        };
        let after: Vec<u64> = count.shards().map(deleted).collect();
        let books = match self.books.cut(&after).await {
            Ok(cut) => {
                let usage = Usage::gather(&cut.accumulators, cut.usage).await;
                let usage = usage.map_err(|error| Failure::of("ledger", &error));
                Ok(Books { accumulators: cut.accumulators, usage })
            }
            Err(error) => Err(Failure::of("ledger", &error)),
        };
        Cut { before, shards, books }
    }

    async fn shards(&self, count: ShardCount) -> Result<BTreeMap<Shard, ShardCut>, PortError> {
        let mut cuts = BTreeMap::new();
        for shard in count.shards() {
            if let Some(cut) = self.accumulator.cut(shard).await? {
                cuts.insert(shard, cut);
            }
        }
        Ok(cuts)
    }

    async fn check_strays(&self) -> CheckReport {
        match self.accumulator.strays().await {
            Ok(strays) => checks::strays(strays),
            Err(error) => Failure::of(&self.accumulator_name, &error).fails(CheckKind::Strays),
        }
    }

    async fn check_hourly_rows(&self, cut: &Cut) -> CheckReport {
        let kind = CheckKind::HourlyRows;
        let usage = match cut.books.as_ref().map(|books| books.usage.as_ref()) {
            Ok(Ok(usage)) => usage,
            Ok(Err(why)) | Err(why) => return why.leaves(kind),
        };
        let altered = match usage.altered {
            0 => Ok(Vec::new()),
            _ => self.books.altered(u32::try_from(FINDINGS_MAX).unwrap_or(u32::MAX)).await,
        };
        match altered {
            Ok(rows) => checks::hourly_rows(usage, rows),
            Err(error) => Failure::of("ledger", &error).fails(kind),
        }
    }
}

/// A store did not answer, or what it holds does not read.
#[derive(Clone, Debug, Default)]
struct Failure {
    why: String,
    /// It does not pass: a person must look at it.
    stays: bool,
}

impl Failure {
    fn of(store: &str, error: &PortError) -> Self {
        Self { why: format!("{store}: {error}"), stays: !error.is_transient() }
    }

    /// The check that is about the store itself: broken where nobody can read it, unknown where it is away.
    fn fails(&self, kind: CheckKind) -> CheckReport {
        if self.stays {
            let mut findings = Findings::default();
            findings.push(Finding::new(self.why.clone()));
            return findings.report(kind, String::new(), String::new());
        }
        self.leaves(kind)
    }

    /// A check that needs the store as well.
    fn leaves(&self, kind: CheckKind) -> CheckReport {
        CheckReport {
            kind,
            left: String::new(),
            right: String::new(),
            verdict: Verdict::Unknown(self.why.clone()),
        }
    }
}
