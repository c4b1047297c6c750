//! How tenants are spread over the shards of an accumulator.

use crate::TenantId;
use siphasher::sip::SipHasher13;
use std::{fmt, hash::Hasher, num::NonZeroU16};

/// One part of an accumulator: all pulses of a tenant count in the same one. Numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u16);

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Into how many shards an accumulator is split: 1 to 1,024, fixed for its life, because identities live in shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardCount(NonZeroU16);

impl ShardCount {
    /// The most shards.
    pub const MAX: u16 = 1_024;
    /// A single shard, as the embedded file has.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// Takes 1 to [`Self::MAX`]; `None` for anything else.
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        NonZeroU16::new(count).filter(|count| count.get() <= Self::MAX).map(Self)
    }

    /// The number of shards.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// All shards in order.
    pub fn shards(self) -> impl Iterator<Item = Shard> {
        (0..self.get()).map(Shard)
    }

    /// The shard of a tenant: `SipHash` 1-3 of the name with a zero key, modulo the count. The same everywhere, for ever.
    ///
    /// # Panics
    /// Never: the remainder is below the count.
    #[must_use]
    pub fn shard_of(self, tenant: &TenantId) -> Shard {
        let mut hasher = SipHasher13::new();
        hasher.write(tenant.as_str().as_bytes());
        let shard = hasher.finish() % u64::from(self.get());
        Shard(u16::try_from(shard).expect("a remainder of at most 1,024"))
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_keeps_its_shard_for_ever() {
        let count = ShardCount::new(8).unwrap();
        let shards: Vec<u16> = ["tenant_xpto", "a:b", "UA", "}{"]
            .iter()
            .map(|name| count.shard_of(&TenantId::new(*name).unwrap()).0)
            .collect();
        assert_eq!(shards, [3, 2, 4, 0]);
    }

    #[test]
    fn the_number_of_shards_has_bounds() {
        assert_eq!(ShardCount::new(0), None);
        assert_eq!(ShardCount::new(1_025), None);
        assert_eq!(ShardCount::new(1_024).map(|count| count.shards().count()), Some(1_024));
    }
}
