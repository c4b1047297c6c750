//! Exact sums as SQLite integers: limbs of 10^18 nanos, the least first to overflow.

use domain::{TotalAmount, UsageTotal};

const LIMB: u128 = 1_000_000_000_000_000_000;

/// A sum below 2^63 * 10^18 nanos, as the accumulator keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limbs {
    pub(super) high: i64,
    pub(super) low: i64,
}

/// A sum below 10^38 nanos, as the books keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WideLimbs {
    pub(super) top: i64,
    pub(super) high: i64,
    pub(super) low: i64,
}

/// A number that the file cannot hold exactly; it is refused, never rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a total is larger than the embedded file holds exactly")]
pub(super) struct TooLarge;

/// A number of the file that makes no sense there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the embedded file holds a number that no program wrote")]
pub(super) struct Nonsense;

impl Limbs {
    pub(super) fn of(amount: TotalAmount) -> Result<Self, TooLarge> {
        let high = i64::try_from(amount.nanos() / LIMB).map_err(|_| TooLarge)?;
        Ok(Self { high, low: remainder(amount.nanos()) })
    }

    pub(super) fn amount(self) -> Result<TotalAmount, Nonsense> {
        WideLimbs { top: 0, high: self.high, low: self.low }.amount()
    }
}

impl WideLimbs {
    pub(super) fn of(amount: TotalAmount) -> Result<Self, TooLarge> {
        let nanos = amount.nanos();
        let top = i64::try_from(nanos / LIMB / LIMB).map_err(|_| TooLarge)?;
        Ok(Self { top, high: remainder(nanos / LIMB), low: remainder(nanos) })
    }

    pub(super) fn amount(self) -> Result<TotalAmount, Nonsense> {
        let limb = |value: i64| u128::try_from(value).map_err(|_| Nonsense);
        let (top, high, low) = (limb(self.top)?, limb(self.high)?, limb(self.low)?);
        let nanos = top.checked_mul(LIMB).and_then(|sum| sum.checked_add(high)).ok_or(Nonsense)?;
        let nanos = nanos.checked_mul(LIMB).and_then(|sum| sum.checked_add(low)).ok_or(Nonsense)?;
        Ok(TotalAmount::from_nanos(nanos))
    }
}

fn remainder(nanos: u128) -> i64 {
    i64::try_from(nanos % LIMB).expect("below 10^18 by the modulus")
}

/// A count as the file holds it.
pub(super) fn stored(count: u64) -> Result<i64, TooLarge> {
    i64::try_from(count).map_err(|_| TooLarge)
}

/// A count from the file.
pub(super) fn count(stored: i64) -> Result<u64, Nonsense> {
    u64::try_from(stored).map_err(|_| Nonsense)
}

/// A total of the accumulator from the file.
pub(super) fn total(limbs: Limbs, pulses: i64) -> Result<UsageTotal, Nonsense> {
    Ok(UsageTotal { amount: limbs.amount()?, pulses: count(pulses)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_read_back(nanos in 0..100_000_000_000_000_000_000_000_000_000_000_000_000_u128) {
            let amount = TotalAmount::from_nanos(nanos);
            prop_assert_eq!(WideLimbs::of(amount).unwrap().amount(), Ok(amount));
            match Limbs::of(amount) {
                Ok(limbs) => prop_assert_eq!(limbs.amount(), Ok(amount)),
                Err(TooLarge) => prop_assert!(nanos / LIMB > i64::MAX.unsigned_abs().into()),
            }
        }
    }

    #[test]
    fn what_the_file_cannot_hold_is_refused() {
        assert_eq!(Limbs::of(TotalAmount::from_nanos(u128::MAX)), Err(TooLarge));
        assert_eq!(stored(u64::MAX), Err(TooLarge));
        assert_eq!(count(-1), Err(Nonsense));
        assert_eq!(Limbs { high: -1, low: 0 }.amount(), Err(Nonsense));
    }
}
