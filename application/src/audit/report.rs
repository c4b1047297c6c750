//! What an audit has found, in a form that is printed, exported and compared.

use domain::{Shard, Timestamp, UsageTotal};
use std::fmt;

/// How many findings of a check are kept one by one; the others are counted.
pub const FINDINGS_MAX: usize = 100;

/// A thing that is checked. Its number and its code never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckKind {
    /// Every shard is there, is ours, and is as far as the ledger has seen it.
    Storage = 1,
    /// What is deleted is in the books, and what is in the books is sealed.
    Watermarks = 2,
    /// The generations in the books follow each other from 1 to the watermark.
    Contiguous = 3,
    /// The rows of every generation that is not deleted sum to its totals.
    Rows = 4,
    /// A generation that is sealed and in the books has the same totals in both.
    Booked = 5,
    /// What a shard counted in its life is in the books or in its generations.
    Counted = 6,
    /// Every counted pulse is a remembered or forgotten identity, or has none.
    Identities = 7,
    /// Nothing is stored outside of the generations and identities that there are.
    Strays = 8,
    /// The hourly totals of each shard's tenants sum to the generations in the books.
    HourlyUsage = 9,
    /// Each hourly total is what the flushes have added to it.
    HourlyRows = 10,
    /// The raw events come to the books and what is pending, per tenant, product, unit and hour.
    Archive = 11,
}

impl CheckKind {
    /// All that need no archive, by their numbers.
    pub const OF_THE_BOOKS: [Self; 10] = [
        Self::Storage,
        Self::Watermarks,
        Self::Contiguous,
        Self::Rows,
        Self::Booked,
        Self::Counted,
        Self::Identities,
        Self::Strays,
        Self::HourlyUsage,
        Self::HourlyRows,
    ];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Watermarks => "watermarks",
            Self::Contiguous => "contiguous",
            Self::Rows => "rows",
            Self::Booked => "booked",
            Self::Counted => "counted",
            Self::Identities => "identities",
            Self::Strays => "strays",
            Self::HourlyUsage => "hourly_usage",
            Self::HourlyRows => "hourly_rows",
            Self::Archive => "archive",
        }
    }

    /// What holds where it holds.
    #[must_use]
    pub const fn claim(self) -> &'static str {
        match self {
            Self::Storage => "each shard is there and as far as it was seen",
            Self::Watermarks => "deleted <= in the books < active",
            Self::Contiguous => "generations in the books without a gap",
            Self::Rows => "rows of each generation = its totals",
            Self::Booked => "sealed totals = those in the books",
            Self::Counted => "counted = in the books + pending",
            Self::Identities => "counted = ids known + dropped + without id",
            Self::Strays => "nothing outside of the generations",
            Self::HourlyUsage => "hourly_usage = generations in the books",
            Self::HourlyRows => "each hourly total = what was flushed to it",
            Self::Archive => "raw events = in the books + pending",
        }
    }
}

/// Something that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, in words.
    pub what: String,
    /// In which shard.
    pub shard: Option<Shard>,
    /// In which generation.
    pub generation: Option<u64>,
    /// Under which tenant, product, unit and hour (RFC 3339), as far as that can be told.
    pub key: Option<[String; 4]>,
    /// What should be there.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
    /// What is there less what should be.
    pub difference: Option<String>,
}

impl Finding {
    /// A finding in words.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    /// In this shard.
    #[must_use]
    pub const fn in_shard(mut self, shard: Shard) -> Self {
        self.shard = Some(shard);
        self
    }

    /// In this generation.
    #[must_use]
    pub const fn in_generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// With the totals of both sides.
    #[must_use]
    pub fn between(mut self, found: UsageTotal, expected: UsageTotal) -> Self {
        self.found = Some(shown(found));
        self.expected = Some(shown(expected));
        let pulses = signed(u128::from(found.pulses), u128::from(expected.pulses), ToString::to_string);
        let amount = signed(found.amount.nanos(), expected.amount.nanos(), |nanos| {
            domain::TotalAmount::from_nanos(*nanos).to_string()
        });
        self.difference = Some(format!("{amount} in {pulses} pulses"));
        self
    }

    /// With the numbers of both sides.
    #[must_use]
    pub fn counts(mut self, found: u64, expected: u64) -> Self {
        self.found = Some(found.to_string());
        self.expected = Some(expected.to_string());
        self.difference = Some(signed(found.into(), expected.into(), ToString::to_string));
        self
    }
}

/// A total as it is shown: the sum of all units, and of how many pulses.
pub(super) fn shown(total: UsageTotal) -> String {
    format!("{} in {} pulses", total.amount, total.pulses)
}

fn signed(found: u128, expected: u128, text: impl Fn(&u128) -> String) -> String {
    if found < expected {
        format!("-{}", text(&(expected - found)))
    } else {
        format!("+{}", text(&(found - expected)))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if let Some(shard) = self.shard {
            write!(formatter, ", shard {shard}")?;
        }
        if let Some(generation) = self.generation {
            write!(formatter, ", generation {generation}")?;
        }
        if let Some([tenant, sku, unit, hour]) = &self.key {
            write!(formatter, ", tenant {tenant:?}, product {sku:?}, unit {unit:?}, hour {hour}")?;
        }
        let parts = [("expected", &self.expected), ("found", &self.found), ("difference", &self.difference)];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(formatter, "; {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not: the first findings, and how many there are.
    Broken(Vec<Finding>, u64),
    /// It could not be told, and why.
    Unknown(String),
}

/// A check with the figures of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Which.
    pub kind: CheckKind,
    /// The figures of one side.
    pub left: String,
    /// The figures of the other side.
    pub right: String,
    /// What it came to.
    pub verdict: Verdict,
}

/// What findings come to while they are gathered.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    number: u64,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.number += 1;
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        }
    }

    pub(super) fn count_more(&mut self, more: u64) {
        self.number += more;
    }

    pub(super) fn report(self, kind: CheckKind, left: String, right: String) -> CheckReport {
        let verdict = if self.number == 0 { Verdict::Holds } else { Verdict::Broken(self.kept, self.number) };
        CheckReport { kind, left, right, verdict }
    }
}

/// All checks of one audit, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// When it began.
    pub at: Timestamp,
    /// The checks.
    pub checks: Vec<CheckReport>,
}

/// What an audit came to as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every check holds.
    Holds,
    /// A check does not.
    Broken,
    /// No check is broken, and some could not be made.
    Unknown,
}

impl AuditReport {
    /// The whole of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let is = |wanted: fn(&Verdict) -> bool| self.checks.iter().any(|check| wanted(&check.verdict));
        if is(|verdict| matches!(verdict, Verdict::Broken(..))) {
            Outcome::Broken
        } else if is(|verdict| matches!(verdict, Verdict::Unknown(_))) {
            Outcome::Unknown
        } else {
            Outcome::Holds
        }
    }

    /// How many checks are broken.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.verdict, Verdict::Broken(..))).count()
    }
}
