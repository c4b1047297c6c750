//! The model: which pulses there are, and what the books must hold of them, with nothing but a map and a set.
//!
//! Every pulse has a digit of its tenant's sum to itself, in base 16: a pulse that is lost, counted twice or swapped shows
//! in its digit, whatever the others do.

use application::ports::DeadLetter;
use domain::{Reason, UsageTotals};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

pub(crate) const TENANTS: usize = 3;
/// Digits of pulses with an id; those above are for pulses that only their place in the log tells apart.
pub(crate) const IDS: u32 = 6;
pub(crate) const DIGITS: u32 = 12;
/// The tenant of the pulses that nothing tells apart.
const ANONYMOUS: &str = "anonymous";
/// What a pulse adds to its digit, by its content: twice the one is not the other.
const CONTENTS: [u64; 2] = [1, 3];

/// One item of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A pulse with an id, and one of two contents.
    Known { tenant: usize, id: u32, content: usize },
    /// A pulse without an id, which only a log may hold; the n-th of its tenant.
    Placed { tenant: usize, digit: u32 },
    /// A pulse that nothing tells apart, which only the queue holds here; the n-th of a tenant of its own.
    Anonymous { digit: u32 },
    /// No pulse.
    Bad(u64),
}

impl Item {
    pub(crate) fn text(self) -> String {
        let pulse = |tenant: &dyn Display, id: &str, amount: u64| {
            format!(
                r#"{{{id}"tenant":"t{tenant}","product_sku":"s","use_unity":"u","occurred_at":"2023-11-14T22:00:00Z","used_amount":{amount}}}"#
            )
        };
        match self {
            Self::Known { tenant, id, content } => {
                pulse(&tenant, &format!(r#""id":"{id}","#), CONTENTS[content] << (4 * id))
            }
            Self::Placed { tenant, digit } => pulse(&tenant, "", 1 << (4 * digit)),
            Self::Anonymous { digit } => pulse(&ANONYMOUS, "", 1 << (4 * digit)),
            Self::Bad(number) => format!(r#"{{"tenant":{number}}}"#),
        }
    }
}

/// What was published.
#[derive(Default)]
pub(crate) struct Model {
    /// The contents that there are of each id.
    known: BTreeMap<(usize, u32), BTreeSet<usize>>,
    placed: BTreeMap<usize, BTreeSet<u32>>,
    anonymous: u32,
    bad: BTreeSet<String>,
}

impl Model {
    pub(crate) fn add(&mut self, item: Item) {
        match item {
            Item::Known { tenant, id, content } => {
                self.known.entry((tenant, id)).or_default().insert(content);
            }
            Item::Placed { tenant, digit } => {
                self.placed.entry(tenant).or_default().insert(digit);
            }
            Item::Anonymous { .. } => self.anonymous += 1,
            Item::Bad(_) => drop(self.bad.insert(item.text())),
        }
    }

    /// How many pulses of the tenant have no id so far.
    pub(crate) fn placed(&self, tenant: usize) -> u32 {
        u32::try_from(self.placed.get(&tenant).map_or(0, BTreeSet::len)).unwrap()
    }

    /// How many pulses there are that nothing tells apart.
    pub(crate) const fn anonymous(&self) -> u32 {
        self.anonymous
    }

    /// What is wrong with the pulses that nothing tells apart: each is counted, and more than once only where it was
    /// delivered again.
    pub(crate) fn check_anonymous(&self, totals: &UsageTotals, redelivered: bool) -> Result<(), String> {
        let row = totals.iter().find(|(key, _)| key.tenant.as_str() == format!("t{ANONYMOUS}"));
        let units = row.map_or(0, |(_, total)| total.amount.nanos() / 1_000_000_000);
        for digit in 0..self.anonymous {
            let found = (units >> (4 * digit)) & 15;
            if found == 0 || (found > 1 && !redelivered) {
                return Err(format!("anonymous, digit {digit}: {found}, delivered again: {redelivered}"));
            }
        }
        Ok(())
    }

    /// What is wrong with the books, once everything is in them.
    pub(crate) fn check(&self, totals: &UsageTotals, letters: &[DeadLetter]) -> Result<(), String> {
        let refused = |reason: Option<Reason>| -> BTreeSet<String> {
            let of_reason = letters.iter().filter(|letter| {
                reason.map_or(letter.rejection.reason != Reason::Conflict, |reason| {
                    letter.rejection.reason == reason
                })
            });
            of_reason.map(|letter| String::from_utf8_lossy(&letter.body).into_owned()).collect()
        };
        if refused(None) != self.bad {
            return Err(format!("refused as bad: {:?}, not {:?}", refused(None), self.bad));
        }
        let mut conflicts = BTreeSet::new();
        for tenant in 0..TENANTS {
            let row = totals.iter().find(|(key, _)| key.tenant.as_str() == format!("t{tenant}"));
            let (nanos, pulses) = row.map_or((0, 0), |(_, total)| (total.amount.nanos(), total.pulses));
            let units = nanos / 1_000_000_000;
            let mut expected_pulses = 0;
            for digit in 0..DIGITS {
                let found = u64::try_from((units >> (4 * digit)) & 15).unwrap();
                expected_pulses += u64::from(self.digit(tenant, digit, found, &mut conflicts)?);
            }
            if nanos % 1_000_000_000 != 0 || units >> (4 * DIGITS) != 0 || pulses != expected_pulses {
                return Err(format!("t{tenant}: {units:x} in {pulses} pulses, not {expected_pulses}"));
            }
        }
        if refused(Some(Reason::Conflict)) == conflicts {
            Ok(())
        } else {
            Err(format!("conflicts: {:?}, not {conflicts:?}", refused(Some(Reason::Conflict))))
        }
    }

    /// Whether a pulse stands behind the digit; of an id with two contents one counts and the other is in conflict.
    fn digit(
        &self,
        tenant: usize,
        digit: u32,
        found: u64,
        conflicts: &mut BTreeSet<String>,
    ) -> Result<bool, String> {
        let wrong = |expected: &str| Err(format!("t{tenant}, digit {digit}: {found}, not {expected}"));
        if digit >= IDS {
            let there = self.placed.get(&tenant).is_some_and(|digits| digits.contains(&digit));
            return if found == u64::from(there) { Ok(there) } else { wrong(if there { "1" } else { "0" }) };
        }
        let Some(contents) = self.known.get(&(tenant, digit)) else {
            return if found == 0 { Ok(false) } else { wrong("0") };
        };
        let counted = contents.iter().find(|content| CONTENTS[**content] == found);
        let Some(counted) = counted else { return wrong(&format!("one of the contents {contents:?}")) };
        let others = contents.iter().filter(|content| *content != counted);
        conflicts.extend(others.map(|content| Item::Known { tenant, id: digit, content: *content }.text()));
        Ok(true)
    }
}
