//! One shard in memory: its generations and the identities it remembers.

use crate::ports::{
    Batch, FoundAt, LogMark, Outcome, Remake, SealedGeneration, ShardBirth, ShardCounts, ShardRecovery,
    ShardState, UsageRow,
};
use domain::{
    Fingerprint, LogName, LogPosition, PulseDigest, Shard, Timestamp, UsageKey, UsageTotal, UsageTotals,
};
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::Duration,
};

/// Rows in a part.
const PART: usize = 100;

#[derive(Clone, Debug)]
pub(super) struct MemoryShard {
    birth: ShardBirth,
    pub(super) recovery: u64,
    pub(super) generation: u64,
    pub(super) sequence: u64,
    deleted: u64,
    rows: BTreeMap<u64, UsageTotals>,
    sealed: BTreeMap<u64, Sealed>,
    /// The newest last.
    buckets: Vec<Bucket>,
    clock: Clock,
    last_batches: HashMap<u64, u64>,
    counts: ShardCounts,
    logs: BTreeMap<LogName, LogPosition>,
    taken: BTreeMap<LogName, u64>,
}

#[derive(Clone, Debug)]
struct Sealed {
    total: UsageTotal,
    at: Timestamp,
    positions: Vec<LogMark>,
}

#[derive(Clone, Debug)]
struct Bucket {
    ids: HashMap<PulseDigest, Fingerprint>,
    opened: i64,
    closed: Option<i64>,
}

impl Bucket {
    fn new(opened: i64) -> Self {
        Self { ids: HashMap::new(), opened, closed: None }
    }
}

/// Milliseconds of flushes, which one wrong time moves ahead by a quarter of the window at most, and none moves back.
#[derive(Clone, Debug)]
struct Clock {
    elapsed: i64,
    latest: i64,
}

impl Clock {
    fn advance(&mut self, now: Timestamp, window: i64) {
        let now = milliseconds(now);
        let step = now.saturating_sub(self.latest);
        if step > 0 {
            self.elapsed += step.min(window / 4);
        }
        // Times a little back come from programs whose clocks differ, and wait until they have caught up; times that
        // are back by more than a window say that the latest was wrong.
        if step > 0 || step < -window {
            self.latest = now;
        }
    }
}

fn milliseconds(time: Timestamp) -> i64 {
    time.seconds().saturating_mul(1_000).saturating_add(i64::from(time.nanos() / 1_000_000))
}

impl MemoryShard {
    pub(super) fn new(birth: ShardBirth) -> Self {
        Self {
            birth,
            recovery: 0,
            generation: 1,
            sequence: 1,
            deleted: 0,
            rows: BTreeMap::new(),
            sealed: BTreeMap::new(),
            buckets: vec![Bucket::new(0)],
            clock: Clock { elapsed: 0, latest: milliseconds(birth.now) },
            last_batches: HashMap::new(),
            counts: ShardCounts::default(),
            logs: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn state(&self) -> ShardState {
        ShardState {
            accumulator: self.birth.accumulator,
            shards: self.birth.shards,
            generation: self.generation,
            sequence: self.sequence,
            recovery: self.recovery,
            deleted: self.deleted,
            active: self.total_of(self.generation),
            counts: self.counts,
        }
    }

    /// A shard that is made anew.
    pub(super) fn anew(recovery: &ShardRecovery, now: Timestamp) -> Self {
        let ShardRecovery { accumulator, shards, .. } = *recovery;
        let mut shard = Self::new(ShardBirth { accumulator, shards, now });
        shard.go_on_after_the_books(recovery);
        shard
    }

    pub(super) fn found_at(&self) -> FoundAt {
        FoundAt { recovery: self.recovery, generation: self.generation, sequence: self.sequence }
    }

    /// Is brought back, where something of it is kept.
    pub(super) fn restore(&mut self, recovery: &ShardRecovery) {
        match recovery.remake {
            Remake::Keep => (self.recovery, self.sequence) = (recovery.number, recovery.sequence),
            Remake::DropBooked | Remake::Anew => self.go_on_after_the_books(recovery),
        }
        self.last_batches.clear();
        self.taken.clear();
    }

    fn go_on_after_the_books(&mut self, recovery: &ShardRecovery) {
        (self.recovery, self.generation, self.sequence) =
            (recovery.number, recovery.generation, recovery.sequence);
        self.deleted = recovery.generation - 1;
        self.counts.counted = recovery.counted;
        self.rows.clear();
        self.sealed.clear();
        self.logs = recovery.positions.iter().map(|mark| (mark.log.clone(), mark.position)).collect();
    }

    pub(super) fn log_marks(&self) -> Vec<LogMark> {
        let mark =
            |(log, position): (&LogName, &LogPosition)| LogMark { log: log.clone(), position: *position };
        self.logs.iter().map(mark).collect()
    }

    fn total_of(&self, generation: u64) -> UsageTotal {
        self.rows.get(&generation).map(UsageTotals::sum).unwrap_or_default()
    }

    pub(super) fn position(&self, log: &LogName) -> LogPosition {
        self.logs.get(log).copied().unwrap_or_default()
    }

    pub(super) fn taken(&self, log: &LogName) -> u64 {
        self.taken.get(log).copied().unwrap_or_default()
    }

    fn known(&self, digest: PulseDigest) -> Option<Fingerprint> {
        self.buckets.iter().find_map(|bucket| bucket.ids.get(&digest).copied())
    }

    pub(super) fn apply(&mut self, writer: u64, batch: &Batch) -> Result<Vec<Outcome>, String> {
        if batch.pulses.is_empty() && batch.stretches.is_empty() {
            return Ok(Vec::new());
        }
        let stored: Vec<LogPosition> =
            batch.stretches.iter().map(|stretch| self.position(&stretch.log)).collect();
        let passed = batch.passed(&stored)?;
        let repeated = match self.last_batches.entry(writer) {
            Entry::Occupied(last) if *last.get() > batch.number => {
                return Err(format!("batch {} comes after batch {}", batch.number, last.get()));
            }
            Entry::Occupied(mut last) => last.insert(batch.number) == batch.number,
            Entry::Vacant(first) => {
                first.insert(batch.number);
                false
            }
        };
        let key = self.birth.accumulator.identity_key();
        let mut outcomes = Vec::with_capacity(batch.pulses.len());
        for (pulse, passed) in batch.pulses.iter().zip(passed) {
            let outcome = match &pulse.identity {
                None if passed => Outcome::Duplicate,
                None => Outcome::Counted,
                Some(identity) => {
                    let (digest, content) = (key.digest(&pulse.tenant, identity), key.fingerprint(pulse));
                    match self.known(digest) {
                        Some(known) if known == content => Outcome::Duplicate,
                        Some(_) => Outcome::Conflict,
                        None if passed => Outcome::Duplicate,
                        None => {
                            let newest = self.buckets.last_mut().expect("there is always an open bucket");
                            newest.ids.insert(digest, content);
                            Outcome::Counted
                        }
                    }
                }
            };
            match outcome {
                _ if repeated => {}
                Outcome::Counted => {
                    self.rows.entry(self.generation).or_default().add(pulse);
                    self.counts.counted += 1;
                    self.counts.anonymous += u64::from(pulse.identity.is_none());
                }
                Outcome::Duplicate | Outcome::Conflict => self.counts.duplicates += 1,
            }
            outcomes.push(outcome);
        }
        for (stretch, stored) in batch.stretches.iter().zip(&stored).filter(|_| !repeated) {
            *self.taken.entry(stretch.log.clone()).or_default() += stretch.fresh(*stored);
        }
        for stretch in &batch.stretches {
            let position = self.logs.entry(stretch.log.clone()).or_default();
            *position = stretch.to.max(*position);
        }
        self.sequence += 1;
        Ok(outcomes)
    }

    pub(super) fn seal(&mut self, generation: u64, now: Timestamp, window: Duration) -> Result<(), String> {
        if generation > self.generation {
            return Err(format!("generation {generation} is ahead of the active one, {}", self.generation));
        }
        if generation < self.generation {
            return Ok(());
        }
        let positions = self.log_marks();
        self.sealed.insert(generation, Sealed { total: self.total_of(generation), at: now, positions });
        self.generation += 1;
        self.sequence += 1;
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX / 4);
        self.clock.advance(now, window);
        let now = self.clock.elapsed;
        let newest = self.buckets.last_mut().expect("there is always an open bucket");
        if now - newest.opened >= window / 2 {
            newest.closed = Some(now);
            self.buckets.push(Bucket::new(now));
        }
        // A quarter more than the window, which is as far as the clock may have been moved ahead.
        self.buckets.retain(|bucket| bucket.closed.is_none_or(|closed| now - closed <= window + window / 4));
        Ok(())
    }

    pub(super) fn sealed(&self, shard: Shard, generation: u64) -> Option<SealedGeneration> {
        let accumulator = self.birth.accumulator;
        self.sealed.get(&generation).map(|sealed| SealedGeneration {
            accumulator,
            shard,
            generation,
            recovery: self.recovery,
            total: sealed.total,
            sealed_at: sealed.at,
            positions: sealed.positions.clone(),
        })
    }

    pub(super) fn read(&self, generation: u64, part: u32) -> (Vec<UsageRow>, Option<u32>) {
        let Some(totals) = self.rows.get(&generation) else { return (Vec::new(), None) };
        let skipped = usize::try_from(part).map_or(usize::MAX, |part| part.saturating_mul(PART));
        let row = |(key, total): (&UsageKey, &UsageTotal)| UsageRow { key: key.clone(), total: *total };
        let rows: Vec<UsageRow> = totals.iter().skip(skipped).take(PART).map(row).collect();
        let more = skipped.saturating_add(PART) < totals.len();
        (rows, more.then_some(part.saturating_add(1)))
    }

    pub(super) fn delete(&mut self, sealed: &SealedGeneration) -> Result<(), String> {
        let generation = sealed.generation;
        if (sealed.accumulator, sealed.recovery) != (self.birth.accumulator, self.recovery) {
            return Err(format!("the shard belongs to accumulator {}", self.birth.accumulator));
        }
        if generation <= self.deleted {
            return Ok(());
        }
        if generation != self.deleted + 1 {
            return Err(format!("generation {} comes before {generation}", self.deleted + 1));
        }
        match self.sealed.get(&generation) {
            Some(held) if held.total == sealed.total => {}
            found => return Err(format!("the ledger has {:?}, the shard {found:?}", sealed.total)),
        }
        self.sealed.remove(&generation);
        self.rows.remove(&generation);
        self.deleted = generation;
        self.sequence += 1;
        Ok(())
    }
}
