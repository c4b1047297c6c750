//! Sums as Redis keeps them: sixteen bytes.

use domain::{TotalAmount, UsageTotal};

const NANOS_PER_UNIT: u64 = 1_000_000_000;

/// Units, nanos below a unit, pulses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    units: u64,
    nanos: u32,
    pulses: u32,
}

impl Sum {
    /// Adds one pulse. Within a batch nothing can overflow: see `Batch::UNITS_MAX` and `Batch::PULSES_MAX`.
    pub(super) fn add(&mut self, units: u64, nanos: u32) {
        let nanos = u64::from(self.nanos) + u64::from(nanos);
        self.units += units + nanos / NANOS_PER_UNIT;
        self.nanos = u32::try_from(nanos % NANOS_PER_UNIT).expect("below 10^9 by the modulus");
        self.pulses += 1;
    }

    /// Big-endian, one part after the other, as `apply.lua` reads and writes them.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.units.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.nanos.to_be_bytes());
        bytes[12..].copy_from_slice(&self.pulses.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] writes; `None` for anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (units, rest) = bytes.split_first_chunk::<8>()?;
        let (nanos, pulses) = rest.split_first_chunk::<4>()?;
        let sum = Self {
            units: u64::from_be_bytes(*units),
            nanos: u32::from_be_bytes(*nanos),
            pulses: u32::from_be_bytes(pulses.try_into().ok()?),
        };
        (u64::from(sum.nanos) < NANOS_PER_UNIT).then_some(sum)
    }

    /// The total in other words; `None` where sums in Redis never come to that much.
    pub(super) fn of(total: UsageTotal) -> Option<Self> {
        let nanos = total.amount.nanos();
        Some(Self {
            units: u64::try_from(nanos / u128::from(NANOS_PER_UNIT)).ok()?,
            nanos: u32::try_from(nanos % u128::from(NANOS_PER_UNIT)).ok()?,
            pulses: u32::try_from(total.pulses).ok()?,
        })
    }

    /// The total that it stands for.
    pub(super) fn total(self) -> UsageTotal {
        UsageTotal {
            amount: TotalAmount::from_parts(self.units, u64::from(self.nanos)),
            pulses: u64::from(self.pulses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanos_carry_over_into_units() {
        let mut sum = Sum::default();
        for _ in 0..3 {
            sum.add(9_007_199_254_740_993, 999_999_999);
        }
        let total = sum.total();
        assert_eq!((total.amount.to_string().as_str(), total.pulses), ("27021597764222981.999999997", 3));
    }

    #[test]
    fn a_sum_reads_back() {
        let mut sum = Sum::default();
        sum.add(1 << 40, 7);
        assert_eq!(Sum::from_bytes(&sum.to_bytes()), Some(sum));
        assert_eq!(Sum::of(sum.total()), Some(sum));
    }

    #[test]
    fn other_bytes_are_no_sum() {
        assert_eq!(Sum::from_bytes(b"307"), None);
        assert_eq!(Sum::from_bytes(&[0; 17]), None);
        assert_eq!(Sum::from_bytes(&[0xff; 16]), None, "a unit of nanos or more");
    }
}
