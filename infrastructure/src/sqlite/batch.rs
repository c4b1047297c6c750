//! What can be worked out about a batch before the file is asked, and the outcomes once it has answered.

use super::amount::TooLarge;
use application::ports::Outcome;
use domain::{Fingerprint, IdentityKey, Pulse, PulseDigest, TotalAmount, UsageKey, UsageTotal, content_hash};
use std::collections::{HashMap, hash_map::Entry};

/// A batch, prepared: each pulse with its identity and its key as numbers into lists without repetitions.
#[derive(Debug)]
pub(super) struct PreparedBatch {
    pulses: Vec<PreparedPulse>,
    identities: Vec<Identity>,
    /// The identities in the order of their digests, in which the file is walked.
    sorted: Vec<usize>,
    keys: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct PreparedPulse {
    identity: Option<(usize, Fingerprint)>,
    key: usize,
    amount: TotalAmount,
}

#[derive(Debug)]
struct Identity {
    digest: PulseDigest,
    fingerprint: Fingerprint,
    first: usize,
    /// The content that counted in an earlier batch.
    known: Option<Fingerprint>,
}

/// What a batch comes to.
#[derive(Debug)]
pub(super) struct Result {
    pub(super) outcomes: Vec<Outcome>,
    /// The identities to remember, in the order of their digests.
    pub(super) fresh: Vec<(PulseDigest, Fingerprint)>,
    /// What to add under each key, in the order of the slots.
    pub(super) sums: Vec<Sum>,
    /// All of the sums.
    pub(super) total: UsageTotal,
    pub(super) anonymous: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
}

impl Result {
    /// Puts the outcomes of the pulses that the shard has passed in their places among the others.
    pub(super) fn merge(&mut self, passed: &[bool], outcomes: Vec<Outcome>) {
        self.duplicates += outcomes.iter().filter(|outcome| **outcome == Outcome::Duplicate).count() as u64;
        self.conflicts += outcomes.iter().filter(|outcome| **outcome == Outcome::Conflict).count() as u64;
        let (mut fresh, mut known) = (std::mem::take(&mut self.outcomes).into_iter(), outcomes.into_iter());
        let next = passed.iter().filter_map(|passed| if *passed { known.next() } else { fresh.next() });
        self.outcomes = next.collect();
    }
}

/// What to add under one key.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) slot: u32,
    pub(super) key: Vec<u8>,
    pub(super) total: UsageTotal,
}

impl PreparedBatch {
    pub(super) fn new<'a>(pulses: impl IntoIterator<Item = &'a Pulse>, identity_key: IdentityKey) -> Self {
        let mut keys = HashMap::<Vec<u8>, usize>::new();
        let mut places = HashMap::<PulseDigest, usize>::new();
        let mut identities = Vec::new();
        let mut scratch = Vec::new();
        let pulses = pulses.into_iter().enumerate().map(|(index, pulse)| {
            scratch.clear();
            UsageKey::encode_of(pulse, &mut scratch);
            let next = keys.len();
            let key = match keys.get(&scratch) {
                Some(key) => *key,
                None => *keys.entry(scratch.clone()).or_insert(next),
            };
            let identity = pulse.identity.as_ref().map(|identity| {
                let digest = identity_key.digest(&pulse.tenant, identity);
                let fingerprint = identity_key.fingerprint(pulse);
                let place = match places.entry(digest) {
                    Entry::Occupied(place) => *place.get(),
                    Entry::Vacant(place) => {
                        identities.push(Identity { digest, fingerprint, first: index, known: None });
                        *place.insert(identities.len() - 1)
                    }
                };
                (place, fingerprint)
            });
            PreparedPulse { identity, key, amount: pulse.amount.into() }
        });
        let pulses = pulses.collect();
        let mut sorted: Vec<usize> = (0..identities.len()).collect();
        sorted.sort_unstable_by_key(|place| identities[*place].digest);
        let mut listed = vec![Vec::new(); keys.len()];
        for (key, place) in keys {
            listed[place] = key;
        }
        Self { pulses, identities, sorted, keys: listed }
    }

    /// The outcomes of pulses that the shard has passed on their logs: none of them counts.
    pub(super) fn passed(mut self, known: &[(usize, Fingerprint)]) -> Vec<Outcome> {
        self.know(known);
        let outcomes = (0..self.pulses.len()).map(|index| self.outcome(index));
        outcomes
            .map(|outcome| if outcome == Outcome::Counted { Outcome::Duplicate } else { outcome })
            .collect()
    }

    fn know(&mut self, known: &[(usize, Fingerprint)]) {
        for (place, fingerprint) in known {
            self.identities[self.sorted[*place]].known = Some(*fingerprint);
        }
    }

    /// The digests in their order.
    pub(super) fn digests(&self) -> Vec<PulseDigest> {
        self.sorted.iter().map(|place| self.identities[*place].digest).collect()
    }

    /// The outcomes, given which of the [`Self::digests`] are known, by their place there, and with what content.
    pub(super) fn settle(mut self, known: &[(usize, Fingerprint)]) -> std::result::Result<Result, TooLarge> {
        self.know(known);
        let outcomes: Vec<Outcome> = (0..self.pulses.len()).map(|index| self.outcome(index)).collect();
        let mut totals = vec![UsageTotal::default(); self.keys.len()];
        let (mut total, mut anonymous) = (UsageTotal::default(), 0);
        for (pulse, outcome) in self.pulses.iter().zip(&outcomes) {
            if *outcome == Outcome::Counted {
                let one = UsageTotal { amount: pulse.amount, pulses: 1 };
                totals[pulse.key] = totals[pulse.key].checked_add(one).ok_or(TooLarge)?;
                total = total.checked_add(one).ok_or(TooLarge)?;
                anonymous += u64::from(pulse.identity.is_none());
            }
        }
        let fresh = self.sorted.iter().map(|place| &self.identities[*place]);
        let fresh = fresh.filter(|identity| identity.known.is_none());
        let fresh = fresh.map(|identity| (identity.digest, identity.fingerprint)).collect();
        let counted = self.keys.into_iter().zip(totals).filter(|(_, total)| total.pulses > 0);
        let mut sums: Vec<Sum> = counted.map(|(key, total)| Sum { slot: slot(&key), key, total }).collect();
        sums.sort_unstable_by(|left, right| (left.slot, &left.key).cmp(&(right.slot, &right.key)));
        let number = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count() as u64;
        let (duplicates, conflicts) = (number(Outcome::Duplicate), number(Outcome::Conflict));
        Ok(Result { outcomes, fresh, sums, total, anonymous, duplicates, conflicts })
    }

    fn outcome(&self, index: usize) -> Outcome {
        let Some((place, fingerprint)) = self.pulses[index].identity else { return Outcome::Counted };
        let identity = &self.identities[place];
        let counted = match identity.known {
            None if identity.first == index => return Outcome::Counted,
            None => identity.fingerprint,
            Some(known) => known,
        };
        if fingerprint == counted { Outcome::Duplicate } else { Outcome::Conflict }
    }
}

/// Where a row stands within its generation: 32 bits of a hash of its key.
fn slot(key: &[u8]) -> u32 {
    let [a, b, c, d, ..] = content_hash(&[key]);
    u32::from_be_bytes([a, b, c, d])
}

/// Outcomes as two bits a pulse; `None` where all were counted.
pub(super) fn packed(outcomes: &[Outcome]) -> Option<Vec<u8>> {
    if outcomes.iter().all(|outcome| *outcome == Outcome::Counted) {
        return None;
    }
    let bits = |outcome: &Outcome| match outcome {
        Outcome::Counted => 0_u8,
        Outcome::Duplicate => 1,
        Outcome::Conflict => 2,
    };
    let pack = |four: &[Outcome]| four.iter().rev().fold(0, |byte, outcome| byte << 2 | bits(outcome));
    Some(outcomes.chunks(4).map(pack).collect())
}

/// Reads what [`packed`] wrote of this many pulses; `None` for anything else.
pub(super) fn unpacked(packed: Option<&[u8]>, pulses: usize) -> Option<Vec<Outcome>> {
    let Some(packed) = packed else { return Some(vec![Outcome::Counted; pulses]) };
    if packed.len() != pulses.div_ceil(4) {
        return None;
    }
    let outcome = |index: usize| match packed[index / 4] >> (index % 4 * 2) & 3 {
        0 => Some(Outcome::Counted),
        1 => Some(Outcome::Duplicate),
        2 => Some(Outcome::Conflict),
        _ => None,
    };
    (0..pulses).map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Conflict, Counted, Duplicate};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packed_outcomes_read_back(
            outcomes in proptest::collection::vec(prop_oneof![Just(Counted), Just(Duplicate), Just(Conflict)], 0..40)
        ) {
            prop_assert_eq!(unpacked(packed(&outcomes).as_deref(), outcomes.len()), Some(outcomes));
        }
    }

    #[test]
    fn outcomes_of_another_batch_are_not_read() {
        assert_eq!(unpacked(packed(&[Duplicate; 4]).as_deref(), 5), None);
        assert_eq!(unpacked(Some(&[3]), 1), None);
    }
}
