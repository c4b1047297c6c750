//! The checks that compare figures of one cut.

use super::{
    CheckKind, CheckReport, Cut, Failure, Finding,
    report::{Findings, shown},
};
use crate::{
    open_shards::check_shard,
    ports::{AccumulatorBooks, AlteredRow, PortError, ShardBooks, ShardCut, Stray, TenantSums},
};
use domain::{Shard, ShardCount, UsageTotal};
use futures_util::TryStreamExt;
use std::collections::BTreeMap;

/// Numbers that somebody has damaged must not end the audit.
fn sum(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

pub(super) fn storage(cut: &Cut) -> CheckReport {
    let kind = CheckKind::Storage;
    let (before, shards) = match (&cut.before, &cut.shards) {
        (Ok(before), Ok(shards)) => (before, shards),
        (_, Err(why)) | (Err(why), _) => return why.fails(kind),
    };
    let mut findings = Findings::default();
    let records = before.as_ref().map_or(0, |known| known.records.len());
    for (known, record) in before.iter().flat_map(|known| known.records.iter().map(move |r| (known, r))) {
        let state = shards.get(&record.shard).map(|found| &found.state);
        if let Err(fault) = check_shard(known, record, state) {
            findings.push(Finding::new(fault.to_string()).in_shard(record.shard));
        }
    }
    // An accumulator that is made at this moment is in the later snapshot.
    if before.is_none() && cut.active().is_none() {
        for shard in shards.keys() {
            let stranger = "the ledger does not know the accumulator that is there: it was replaced, or lost";
            findings.push(Finding::new(stranger).in_shard(*shard));
        }
    }
    findings.report(kind, format!("{} shards found", shards.len()), format!("{records} shards registered"))
}

pub(super) fn watermarks(cut: &Cut) -> CheckReport {
    let kind = CheckKind::Watermarks;
    let (before, shards) = match (&cut.before, &cut.shards, cut.away()) {
        (Ok(before), Ok(shards), None) => (before, shards),
        (.., why) => return why.cloned().unwrap_or_default().leaves(kind),
    };
    let mut findings = Findings::default();
    let (mut deleted, mut flushed, mut active) = (0, 0, 0);
    for (shard, found) in shards {
        let state = &found.state;
        deleted = sum([deleted, state.deleted]);
        active = sum([active, state.generation]);
        let booked = cut.flushed(*shard);
        flushed = sum([flushed, booked]);
        if state.deleted > booked {
            let what = "generations were deleted that are not in the books: these are an older copy";
            findings.push(Finding::new(what).in_shard(*shard).counts(booked, state.deleted));
        }
        let earlier = before.as_ref().and_then(|known| known.records.get(usize::from(shard.0)));
        if let Some(record) = earlier.filter(|record| record.flushed >= state.generation) {
            let what = "a generation is in the books that is not sealed: the counts are an older copy";
            findings.push(Finding::new(what).in_shard(*shard).counts(state.generation, record.flushed + 1));
        }
    }
    let left = format!("{deleted} deleted <= {flushed} in the books");
    findings.report(kind, left, format!("{flushed} in the books < {active} active"))
}

pub(super) fn contiguous(cut: &Cut) -> CheckReport {
    let kind = CheckKind::Contiguous;
    let books = match &cut.books {
        Ok(books) => books,
        Err(why) => return why.fails(kind),
    };
    let mut findings = Findings::default();
    let (mut records, mut watermarks) = (0, 0);
    for known in &books.accumulators {
        for shard in &known.books {
            records = sum([records, shard.generations]);
            watermarks = sum([watermarks, shard.flushed]);
            if let Some(finding) = gap(known, shard) {
                findings.push(finding.in_shard(shard.shard));
            }
        }
    }
    let left = format!("{records} generations on record");
    findings.report(kind, left, format!("{watermarks} by the watermarks"))
}

fn gap(known: &AccumulatorBooks, shard: &ShardBooks) -> Option<Finding> {
    let of = if known.active {
        String::new()
    } else {
        format!(" of the former accumulator {}", known.accumulator)
    };
    if let Some(missing) = shard.gap {
        let what = format!("the record of a generation{of} is missing in flushes");
        return Some(Finding::new(what).in_generation(missing).counts(shard.generations, shard.flushed));
    }
    if shard.last == shard.flushed && shard.generations == shard.flushed {
        return None;
    }
    let what = format!("the records{of} in flushes do not end at the watermark");
    Some(
        Finding::new(what)
            .in_generation(shard.last.saturating_add(1))
            .counts(shard.generations, shard.flushed),
    )
}

/// The shards that are the accumulator's own, each with what the books hold of it; why not, where that is unknown.
fn pairs(cut: &Cut) -> Result<Vec<(Shard, &ShardCut, &ShardBooks)>, Failure> {
    if let Some(why) = cut.away() {
        return Err(why.clone());
    }
    let (Some(active), Ok(shards)) = (cut.active(), &cut.shards) else { return Ok(Vec::new()) };
    let ours = shards.iter().filter(|(_, found)| found.state.accumulator == active.accumulator);
    let pair = |(shard, found): (&Shard, _)| Some((*shard, found, active.books.get(usize::from(shard.0))?));
    Ok(ours.filter_map(|(shard, found)| pair((shard, found))).collect())
}

pub(super) fn booked(cut: &Cut) -> CheckReport {
    let kind = CheckKind::Booked;
    let pairs = match pairs(cut) {
        Ok(pairs) => pairs,
        Err(why) => return why.leaves(kind),
    };
    let mut findings = Findings::default();
    let (mut sealed_sum, mut booked_sum) = (UsageTotal::default(), UsageTotal::default());
    for (shard, found, books) in pairs {
        for (generation, booked) in &books.after {
            let sealed = found.sealed.iter().find(|sealed| sealed.generation == *generation);
            let Some(total) = sealed.and_then(|sealed| sealed.total) else { continue };
            sealed_sum = sealed_sum.checked_add(total).unwrap_or(sealed_sum);
            booked_sum = booked_sum.checked_add(*booked).unwrap_or(booked_sum);
            if total != *booked {
                let what = "the books hold another total of a generation than was sealed";
                findings.push(
                    Finding::new(what).in_shard(shard).in_generation(*generation).between(*booked, total),
                );
            }
        }
    }
    findings.report(
        kind,
        format!("{} sealed", shown(sealed_sum)),
        format!("{} in flushes", shown(booked_sum)),
    )
}

pub(super) fn counted(cut: &Cut) -> CheckReport {
    let kind = CheckKind::Counted;
    let pairs = match pairs(cut) {
        Ok(pairs) => pairs,
        Err(why) => return why.leaves(kind),
    };
    let mut findings = Findings::default();
    let (mut all, mut all_booked, mut all_pending) = (0_u64, 0_u64, 0_u64);
    for (shard, found, books) in pairs {
        let after = sum(books.after.iter().map(|(_, total)| total.pulses));
        // What is not deleted counts as pending here, whether it is in the books already or not.
        let booked = books.total.pulses.saturating_sub(after);
        let sealed = found.sealed.iter().filter_map(|sealed| sealed.total).map(|total| total.pulses);
        let pending = sum(sealed.chain([found.state.active.pulses]));
        let counted = found.state.counts.counted;
        all = sum([all, counted]);
        all_booked = sum([all_booked, booked]);
        all_pending = sum([all_pending, pending]);
        let there = sum([booked, pending]);
        if there != counted {
            let what = "the pulses in the books and those pending are not as many as were counted";
            findings.push(Finding::new(what).in_shard(shard).counts(there, counted));
        }
    }
    findings.report(
        kind,
        format!("{all} counted"),
        format!("{all_booked} in the books and deleted + {all_pending} in the accumulator"),
    )
}

pub(super) fn identities(cut: &Cut) -> CheckReport {
    let kind = CheckKind::Identities;
    let shards = match &cut.shards {
        Ok(shards) => shards,
        Err(why) => return why.leaves(kind),
    };
    let mut findings = Findings::default();
    let (mut counted, mut known, mut dropped, mut lost, mut without) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    for (shard, found) in shards {
        let counts = found.state.counts;
        counted = sum([counted, counts.counted]);
        known = sum([known, found.identities]);
        dropped = sum([dropped, found.identities_dropped]);
        lost = sum([lost, found.identities_lost]);
        without = sum([without, counts.anonymous]);
        let there =
            sum([found.identities, found.identities_dropped, found.identities_lost, counts.anonymous]);
        if there != counts.counted {
            let what = "identities are missing, or there are some that were not counted";
            findings.push(Finding::new(what).in_shard(*shard).counts(there, counts.counted));
        }
    }
    let lost = if lost == 0 { String::new() } else { format!(" + {lost} lost with storage (app recover)") };
    let right = format!("{known} known + {dropped} dropped + {without} without id{lost}");
    findings.report(kind, format!("{counted} counted"), right)
}

pub(super) fn strays(strays: Vec<Stray>) -> CheckReport {
    let mut findings = Findings::default();
    let number = strays.len();
    for stray in strays {
        let what = format!("{} belongs to no generation and no bucket", stray.name);
        findings.push(Finding::new(what).in_shard(stray.shard));
    }
    findings.report(CheckKind::Strays, format!("{number} outside"), "0 expected".to_owned())
}

/// The hourly totals, added up by the shards that their tenants count in.
///
/// Accumulators of different numbers of shards are compared by the greatest common divisor of these: a tenant's hash
/// modulo that is the same whichever of them it is taken from.
pub(super) struct Usage {
    groups: ShardCount,
    sums: BTreeMap<Shard, UsageTotal>,
    /// Sums that do not read, by tenant.
    unreadable: Vec<(String, String)>,
    pub(super) rows: u64,
    pub(super) altered: u64,
}

impl Usage {
    pub(super) async fn gather(
        accumulators: &[AccumulatorBooks],
        mut tenants: TenantSums,
    ) -> Result<Self, PortError> {
        let with_records = accumulators.iter().filter(|known| known.books.iter().any(|b| b.generations > 0));
        let divisor = with_records.map(|known| known.shards.get()).reduce(common_divisor);
        let groups = divisor.and_then(ShardCount::new).unwrap_or(ShardCount::ONE);
        let mut usage = Self { groups, sums: BTreeMap::new(), unreadable: Vec::new(), rows: 0, altered: 0 };
        while let Some(part) = tenants.try_next().await? {
            for sum in part {
                usage.rows += sum.rows;
                usage.altered += sum.altered;
                match (sum.tenant, sum.total) {
                    (Ok(tenant), Ok(total)) => usage.add(groups.shard_of(&tenant), total)?,
                    (Ok(tenant), Err(text)) => usage.note(tenant.as_str().to_owned(), text),
                    (Err(name), total) => usage.note(name, total.map_or_else(|text| text, shown)),
                }
            }
        }
        Ok(usage)
    }

    fn add(&mut self, group: Shard, total: UsageTotal) -> Result<(), PortError> {
        let sum = self.sums.entry(group).or_default();
        *sum = sum
            .checked_add(total)
            .ok_or_else(|| PortError::permanent("add up the books", "they are beyond 2^128 nanos"))?;
        Ok(())
    }

    fn note(&mut self, tenant: String, sum: String) {
        if self.unreadable.len() < super::FINDINGS_MAX {
            self.unreadable.push((tenant, sum));
        }
    }
}

const fn common_divisor(mut left: u16, mut right: u16) -> u16 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

pub(super) fn hourly_usage(cut: &Cut) -> CheckReport {
    let kind = CheckKind::HourlyUsage;
    let (books, usage) = match cut.books.as_ref().map(|books| (books, books.usage.as_ref())) {
        Ok((books, Ok(usage))) => (books, usage),
        Ok((_, Err(why))) => return why.fails(kind),
        Err(why) => return why.leaves(kind),
    };
    let mut written: BTreeMap<Shard, UsageTotal> = BTreeMap::new();
    let mut findings = Findings::default();
    for shard in books.accumulators.iter().flat_map(|known| &known.books) {
        let sum = written.entry(Shard(shard.shard.0 % usage.groups.get())).or_default();
        *sum = sum.checked_add(shard.total).unwrap_or(*sum);
    }
    let (mut left, mut right) = (UsageTotal::default(), UsageTotal::default());
    for group in usage.groups.shards() {
        let found = usage.sums.get(&group).copied().unwrap_or_default();
        let expected = written.get(&group).copied().unwrap_or_default();
        left = left.checked_add(found).unwrap_or(left);
        right = right.checked_add(expected).unwrap_or(right);
        if found != expected {
            let what = if usage.groups == ShardCount::ONE {
                "the hourly totals do not sum to what the flushes wrote"
            } else {
                "the hourly totals of the tenants of a shard do not sum to what its flushes wrote"
            };
            findings.push(Finding::new(what).in_shard(group).between(found, expected));
        }
    }
    for (tenant, sum) in &usage.unreadable {
        let key = Some([tenant.clone(), String::new(), String::new(), String::new()]);
        let what = "the hourly totals of a tenant are no usage";
        findings.push(Finding { key, found: Some(sum.clone()), ..Finding::new(what) });
    }
    findings.report(
        kind,
        format!("{} in {} rows", shown(left), usage.rows),
        format!("{} in flushes", shown(right)),
    )
}

pub(super) fn hourly_rows(usage: &Usage, altered: Vec<AlteredRow>) -> CheckReport {
    let mut findings = Findings::default();
    findings.count_more(usage.altered.saturating_sub(altered.len() as u64));
    for row in altered {
        findings.push(altered_row(row));
    }
    let left = format!("{} hourly totals", usage.rows);
    findings.report(CheckKind::HourlyRows, left, format!("{} altered", usage.altered))
}

fn altered_row(row: AlteredRow) -> Finding {
    let total = |(amount, pulses): &(String, String)| {
        Some(UsageTotal { amount: domain::TotalAmount::parse(amount)?, pulses: pulses.parse().ok()? })
    };
    let finding = Finding::new("an hourly total is not what the flushes added to it");
    let finding = match (total(&row.found), total(&row.written)) {
        (Some(found), Some(written)) => finding.between(found, written),
        _ => Finding {
            found: Some(format!("{} in {} pulses", row.found.0, row.found.1)),
            expected: Some(format!("{} in {} pulses", row.written.0, row.written.1)),
            ..finding
        },
    };
    Finding { key: Some(row.key), ..finding }
}
