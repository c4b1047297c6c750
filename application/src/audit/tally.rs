//! What the audits of this program have found.

use super::{AuditReport, Outcome};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Running counts, and the last audit; they begin with the program and are no part of the books.
#[derive(Debug, Default)]
pub struct AuditTally {
    holds: AtomicU64,
    broken: AtomicU64,
    unknown: AtomicU64,
    last: Mutex<Option<LastAudit>>,
}

/// The last audit that could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAudit {
    /// When it began, in seconds since 1970.
    pub at: i64,
    /// How many checks were broken.
    pub broken: u64,
}

/// The counts of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditTallySnapshot {
    /// Audits in which everything held.
    pub holds: u64,
    /// Audits in which a check was broken.
    pub broken: u64,
    /// Audits that could not tell.
    pub unknown: u64,
    /// The last one that could tell; `None` before the first.
    pub last: Option<LastAudit>,
}

impl AuditTally {
    /// An audit has ended.
    pub fn audited(&self, report: &AuditReport) {
        let outcome = report.outcome();
        let counter = match outcome {
            Outcome::Holds => &self.holds,
            Outcome::Broken => &self.broken,
            Outcome::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if outcome != Outcome::Unknown {
            let last = LastAudit { at: report.at.seconds(), broken: report.broken() as u64 };
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        }
    }

    /// The counts as they are.
    #[must_use]
    pub fn snapshot(&self) -> AuditTallySnapshot {
        AuditTallySnapshot {
            holds: self.holds.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            last: *self.last.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
