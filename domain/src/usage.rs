//! Totals of usage and the keys that they stand under.

use crate::{HourWindow, ProductSku, Pulse, TenantId, TotalAmount, UsageUnit};
use std::collections::BTreeMap;

/// Where usage counts: one row of the ledger.
///
/// Ordered by tenant, SKU, unit and hour, texts by their bytes: the order of the ledger's unique index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    /// Who is billed.
    pub tenant: TenantId,
    /// What was used.
    pub product_sku: ProductSku,
    /// What the amount is counted in.
    pub use_unity: UsageUnit,
    /// The hour that it was used in.
    pub hour: HourWindow,
}

/// Bytes that [`UsageKey::decode`] cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an encoded usage key")]
pub struct UsageKeyError;

impl UsageKey {
    /// Appends the key as bytes: the hour, then each text after its length, so that no two keys share an encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Self::encode_parts(&self.tenant, &self.product_sku, &self.use_unity, self.hour, out);
    }

    /// As [`Self::encode`], of the key of a pulse, without building the key.
    pub fn encode_of(pulse: &Pulse, out: &mut Vec<u8>) {
        Self::encode_parts(&pulse.tenant, &pulse.product_sku, &pulse.use_unity, pulse.hour, out);
    }

    fn encode_parts(
        tenant: &TenantId,
        sku: &ProductSku,
        unit: &UsageUnit,
        hour: HourWindow,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&hour.number().to_be_bytes());
        for text in [tenant.as_str(), sku.as_str(), unit.as_str()] {
            let length = u16::try_from(text.len()).expect("names have at most 256 bytes");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`UsageKeyError`] for any other bytes, trailing ones included.
    pub fn decode(bytes: &[u8]) -> Result<Self, UsageKeyError> {
        let (hour, rest) = bytes.split_first_chunk::<4>().ok_or(UsageKeyError)?;
        let (tenant, rest) = decode_text(rest)?;
        let (sku, rest) = decode_text(rest)?;
        let (unit, rest) = decode_text(rest)?;
        if !rest.is_empty() {
            return Err(UsageKeyError);
        }
        Ok(Self {
            tenant: TenantId::new(tenant).map_err(|_| UsageKeyError)?,
            product_sku: ProductSku::new(sku).map_err(|_| UsageKeyError)?,
            use_unity: UsageUnit::new(unit).map_err(|_| UsageKeyError)?,
            hour: HourWindow::from_number(i32::from_be_bytes(*hour)),
        })
    }
}

fn decode_text(bytes: &[u8]) -> Result<(&str, &[u8]), UsageKeyError> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(UsageKeyError)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, rest) = rest.split_at_checked(length).ok_or(UsageKeyError)?;
    Ok((std::str::from_utf8(text).map_err(|_| UsageKeyError)?, rest))
}

/// How much was used, by how many pulses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageTotal {
    /// The sum of the amounts.
    pub amount: TotalAmount,
    /// The number of pulses in it.
    pub pulses: u64,
}

impl UsageTotal {
    /// The sum of both, or `None` where it would stop being exact.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            amount: self.amount.checked_add(other.amount)?,
            pulses: self.pulses.checked_add(other.pulses)?,
        })
    }
}

/// Totals by key: what the ledger must come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageTotals(BTreeMap<UsageKey, UsageTotal>);

impl UsageTotals {
    /// Counts one pulse.
    ///
    /// # Panics
    /// Past 2^128 nanos or 2^64 pulses under one key, which 2^64 pulses of the largest amount do not reach.
    pub fn add(&mut self, pulse: &Pulse) {
        self.add_total(pulse.key(), UsageTotal { amount: pulse.amount.into(), pulses: 1 });
    }

    /// Adds a total to the one under the key.
    ///
    /// # Panics
    /// As [`Self::add`].
    pub fn add_total(&mut self, key: UsageKey, total: UsageTotal) {
        let entry = self.0.entry(key).or_default();
        *entry = entry.checked_add(total).expect("totals stay below 2^128 nanos");
    }

    /// The totals in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&UsageKey, &UsageTotal)> {
        self.0.iter()
    }

    /// The total under one key, nothing where there is none.
    #[must_use]
    pub fn get(&self, key: &UsageKey) -> UsageTotal {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All totals in one; amounts of different units are added up, so it only serves to compare two books.
    ///
    /// # Panics
    /// As [`Self::add`].
    #[must_use]
    pub fn sum(&self) -> UsageTotal {
        self.0.values().fold(UsageTotal::default(), |sum, total| {
            sum.checked_add(*total).expect("totals stay below 2^128 nanos")
        })
    }
}

impl IntoIterator for UsageTotals {
    type Item = (UsageKey, UsageTotal);
    type IntoIter = std::collections::btree_map::IntoIter<UsageKey, UsageTotal>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccumulatorId, Amount, PulseIdentity};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn key(tenant: &str, sku: &str, unit: &str, hour: i32) -> Option<UsageKey> {
        Some(UsageKey {
            tenant: TenantId::new(tenant).ok()?,
            product_sku: ProductSku::new(sku).ok()?,
            use_unity: UsageUnit::new(unit).ok()?,
            hour: HourWindow::from_number(hour),
        })
    }

    fn encoded(key: &UsageKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    prop_compose! {
        fn a_key()(tenant in "\\PC{1,6}", sku in "\\PC{1,6}", unit in "[:a}{*]{1,2}", hour in any::<i32>()) -> UsageKey {
            key(&tenant, &sku, &unit, hour).expect("no control characters")
        }
    }

    prop_compose! {
        fn a_pulse()(key in a_key(), nanos in 1..10_000_000_000_u64, id in 0..40_u32) -> Pulse {
            let amount = TotalAmount::from_nanos(u128::from(nanos)).to_string();
            Pulse {
                tenant: key.tenant,
                product_sku: key.product_sku,
                use_unity: key.use_unity,
                amount: Amount::parse(&amount).expect("a small amount"),
                identity: Some(PulseIdentity::Id(id.to_string().into())),
                occurred_at: None,
                hour: key.hour,
            }
        }
    }

    /// Counts a pulse unless its identity was seen before.
    fn count(pulses: &[Pulse]) -> UsageTotals {
        let key = AccumulatorId::from_bytes([7; 16]).identity_key();
        let (mut totals, mut seen) = (UsageTotals::default(), HashSet::new());
        for pulse in pulses {
            let identity = pulse.identity.as_ref().expect("made with one");
            if seen.insert(key.digest(&pulse.tenant, identity)) {
                totals.add(pulse);
            }
        }
        totals
    }

    proptest! {
        #[test]
        fn an_encoded_key_reads_back(key in a_key()) {
            prop_assert_eq!(UsageKey::decode(&encoded(&key)), Ok(key));
        }

        #[test]
        fn two_keys_share_an_encoding_only_when_they_are_equal(left in a_key(), right in a_key()) {
            prop_assert_eq!(encoded(&left) == encoded(&right), left == right);
        }

        #[test]
        fn no_encoding_is_the_start_of_another(left in a_key(), right in a_key()) {
            prop_assert!(left == right || !encoded(&left).starts_with(&encoded(&right)));
        }

        #[test]
        fn decoding_any_bytes_ends_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(key) = UsageKey::decode(&bytes) {
                prop_assert_eq!(encoded(&key), bytes);
            }
        }

        #[test]
        fn order_and_duplicates_never_change_a_total(
            (pulses, redelivered) in proptest::collection::vec(a_pulse(), 0..40).prop_flat_map(|pulses| {
                // One content for each identity: what happens otherwise is a conflict, not a duplicate.
                let mut seen = HashSet::new();
                let pulses: Vec<Pulse> = pulses
                    .into_iter()
                    .filter(|pulse| seen.insert((pulse.tenant.clone(), pulse.identity.clone())))
                    .collect();
                let twice = [pulses.clone(), pulses.clone()].concat();
                (Just(pulses), Just(twice).prop_shuffle())
            })
        ) {
            prop_assert_eq!(count(&pulses), count(&redelivered));
        }
    }

    #[test]
    fn separators_in_names_do_not_move_usage_to_another_key() {
        let left = key("a:b", "c", "u", 0).unwrap();
        let right = key("a", "b:c", "u", 0).unwrap();
        assert_ne!(encoded(&left), encoded(&right));
    }
}
