//! A batch as the script takes it: identities once each, amounts summed up by row.

use super::{script::Invocation, sum::Sum};
use application::{
    mutation::Mutation,
    ports::{Batch, Outcome},
};
use domain::{
    Amount, Fingerprint, HourWindow, IdentityKey, ProductSku, Pulse, PulseDigest, TenantId, UsageKey,
    UsageUnit,
};
use std::collections::{HashMap, hash_map::Entry};

/// Why a batch cannot be applied as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BatchError {
    /// See [`Batch::PULSES_MAX`].
    #[error("the batch has more than {} pulses", Batch::PULSES_MAX)]
    TooManyPulses,
    /// See [`Batch::UNITS_MAX`].
    #[error("the batch has more than {} units", Batch::UNITS_MAX)]
    TooManyUnits,
}

/// The batch, prepared once for however many times it is sent.
#[derive(Debug)]
pub(super) struct PreparedBatch {
    pulses: Vec<Place>,
    ids: Vec<Identity>,
    rows: Vec<Row>,
    sum: Sum,
    anonymous: usize,
}

/// Where the outcome of a pulse comes from.
#[derive(Debug)]
enum Place {
    /// It has no identity, and always counts.
    Anonymous,
    /// The first of its identity: what the store says of it.
    First(usize),
    /// Another of an identity that came before in the batch, with its own content.
    Repeated(usize, Fingerprint),
}

#[derive(Debug)]
struct Identity {
    digest: PulseDigest,
    content: Fingerprint,
    amount: Amount,
    row: usize,
}

#[derive(Debug)]
struct Row {
    key: Vec<u8>,
    sum: Sum,
}

impl PreparedBatch {
    /// Reads the pulses without copying them.
    pub(super) fn new<'a>(
        identity_key: IdentityKey,
        pulses: impl IntoIterator<Item = &'a Pulse>,
    ) -> Result<Self, BatchError> {
        let batch: Vec<&Pulse> = pulses.into_iter().collect();
        if batch.len() > Batch::PULSES_MAX {
            return Err(BatchError::TooManyPulses);
        }
        let total = batch.iter().try_fold(0_u64, |sum, pulse| sum.checked_add(pulse.amount.whole_units()));
        if total.is_none_or(|units| units > Batch::UNITS_MAX) {
            return Err(BatchError::TooManyUnits);
        }
        let mut prepared = Self {
            pulses: Vec::with_capacity(batch.len()),
            ids: Vec::with_capacity(batch.len()),
            rows: Vec::new(),
            sum: Sum::default(),
            anonymous: 0,
        };
        let mut rows = HashMap::with_capacity(batch.len());
        let mut ids = HashMap::with_capacity(batch.len());
        for pulse in batch {
            let place = prepared.place(identity_key, pulse, &mut ids);
            if !matches!(place, Place::Repeated(..)) {
                let row = prepared.add(pulse, &mut rows);
                match &place {
                    Place::First(id) => prepared.ids[*id].row = row,
                    _ => prepared.anonymous += 1,
                }
            }
            prepared.pulses.push(place);
        }
        Ok(prepared)
    }

    fn place(&mut self, key: IdentityKey, pulse: &Pulse, ids: &mut HashMap<PulseDigest, usize>) -> Place {
        let identity = pulse.identity.as_ref().filter(|_| !Mutation::NoDedupe.is_on());
        let Some(identity) = identity else { return Place::Anonymous };
        let (digest, content) = (key.digest(&pulse.tenant, identity), key.fingerprint(pulse));
        match ids.entry(digest) {
            Entry::Occupied(first) => Place::Repeated(*first.get(), content),
            Entry::Vacant(vacant) => {
                let id = *vacant.insert(self.ids.len());
                self.ids.push(Identity { digest, content, amount: pulse.amount, row: 0 });
                Place::First(id)
            }
        }
    }

    /// Adds the pulse to its row, and returns which one it is.
    fn add<'a>(&mut self, pulse: &'a Pulse, rows: &mut HashMap<RowKey<'a>, usize>) -> usize {
        let key = (&pulse.tenant, &pulse.product_sku, &pulse.use_unity, pulse.hour);
        let index = *rows.entry(key).or_insert_with(|| {
            let mut key = Vec::with_capacity(64);
            UsageKey::encode_of(pulse, &mut key);
            self.rows.push(Row { key, sum: Sum::default() });
            self.rows.len() - 1
        });
        let (units, nanos) = (pulse.amount.whole_units(), pulse.amount.sub_nanos());
        self.rows[index].sum.add(units, nanos);
        self.sum.add(units, nanos);
        index
    }

    /// How many arguments [`Self::write`] adds, and about how many bytes they have.
    pub(super) fn size(&self) -> (usize, usize) {
        let rows: usize = self.rows.iter().map(|row| row.key.len() + 16).sum();
        (8 + self.ids.len() + self.rows.len(), 64 + (16 + DETAIL + FINGERPRINT) * self.ids.len() + rows)
    }

    /// Adds the arguments of the script that follow the number of the batch, up to the stretches of logs, of which there
    /// are so many.
    pub(super) fn write(&self, invocation: &mut Invocation, stretches: usize) {
        let mut sums = Vec::with_capacity(16 * self.rows.len());
        for row in &self.rows {
            sums.extend_from_slice(&row.sum.to_bytes());
        }
        let mut details = Vec::with_capacity(DETAIL * self.ids.len());
        let mut contents = Vec::with_capacity(FINGERPRINT * self.ids.len());
        for id in &self.ids {
            let row = u16::try_from(id.row).expect("a batch has at most 4,000 rows");
            details.extend_from_slice(&row.to_be_bytes());
            details.extend_from_slice(&id.amount.whole_units().to_be_bytes());
            details.extend_from_slice(&id.amount.sub_nanos().to_be_bytes());
            contents.extend_from_slice(&id.content.0);
        }
        invocation.arg(self.pulses.len()).arg(self.ids.len()).arg(self.anonymous);
        invocation.arg(&self.sum.to_bytes()[..]).arg(&sums[..]).arg(&details[..]).arg(&contents[..]);
        invocation.arg(stretches);
        for id in &self.ids {
            invocation.arg(&id.digest.0[..]);
        }
        for row in &self.rows {
            invocation.arg(&row.key[..]);
        }
    }

    /// The outcomes, given the identities that the store knew: their index from 0 and the stored content, in order.
    pub(super) fn outcomes(&self, known: &[(usize, Fingerprint)]) -> Vec<Outcome> {
        let mut stored: Vec<Option<Fingerprint>> = vec![None; self.ids.len()];
        for (id, content) in known {
            stored[*id] = Some(*content);
        }
        let compare = |stored: Fingerprint, content: Fingerprint| {
            if stored == content { Outcome::Duplicate } else { Outcome::Conflict }
        };
        let outcome = |place: &Place| match place {
            Place::Anonymous => Outcome::Counted,
            Place::First(id) => {
                stored[*id].map_or(Outcome::Counted, |stored| compare(stored, self.ids[*id].content))
            }
            Place::Repeated(id, content) => compare(stored[*id].unwrap_or(self.ids[*id].content), *content),
        };
        self.pulses.iter().map(outcome).collect()
    }

    /// How many identities there are.
    pub(super) const fn ids(&self) -> usize {
        self.ids.len()
    }
}

type RowKey<'a> = (&'a TenantId, &'a ProductSku, &'a UsageUnit, HourWindow);

/// Bytes of one identity in the details: its row, and the units and nanos of its amount.
const DETAIL: usize = 2 + 8 + 4;
const FINGERPRINT: usize = 6;
