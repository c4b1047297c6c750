//! Exact amounts: integers of 10^-9 units, never a float.

use std::fmt;

/// How many nanos make one unit: amounts are exact to nine decimals.
pub const NANOS_PER_UNIT: u128 = 1_000_000_000;
const DECIMALS: i64 = 9;
/// Digits of the largest amount in nanos: sixteen before the point, so that 2^53 + 1 is an amount, and nine after it.
const DIGITS_MAX: i64 = 25;

/// The amount of one pulse: greater than zero, below 10^16 units, exact to 10^-9 of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount {
    nanos: u128,
}

/// Why a text is not an [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text does not follow the number grammar of JSON (RFC 8259, section 6).
    #[error("is not a decimal number")]
    Malformed,
    /// Zero or negative.
    #[error("must be greater than zero")]
    NotPositive,
    /// 10^16 units or more.
    #[error("is 10000000000000000 units or more")]
    OutOfRange,
    /// More than nine decimals: holding it would mean rounding it.
    #[error("has more than 9 decimals and is never rounded")]
    TooPrecise,
}

impl Amount {
    /// Reads a decimal number in JSON's grammar, exponents included, without ever rounding.
    ///
    /// Work and memory are bounded by the length of the text, whatever its exponent says.
    ///
    /// # Errors
    /// See [`AmountError`]; a number that is both too large and too precise is [`AmountError::OutOfRange`].
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let number = Number::scan(text.as_bytes()).ok_or(AmountError::Malformed)?;
        if number.is_zero() || number.negative {
            return Err(AmountError::NotPositive);
        }
        number.nanos().map(|nanos| Self { nanos })
    }

    /// The amount in 10^-9 units: 1 to 10^25 - 1.
    #[must_use]
    pub const fn nanos(self) -> u128 {
        self.nanos
    }

    /// The whole units: 0 to 10^16 - 1. Not always exact as an IEEE double.
    ///
    /// # Panics
    /// Never: an amount is below 10^16 units.
    #[must_use]
    pub fn whole_units(self) -> u64 {
        u64::try_from(self.nanos / NANOS_PER_UNIT).expect("below 10^16 by construction")
    }

    /// The rest below one unit, in 10^-9 units: 0 to 999,999,999.
    ///
    /// # Panics
    /// Never: it is a remainder of 10^9.
    #[must_use]
    pub fn sub_nanos(self) -> u32 {
        u32::try_from(self.nanos % NANOS_PER_UNIT).expect("below 10^9 by the modulus")
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        TotalAmount::from_nanos(self.nanos).fmt(formatter)
    }
}

/// The parts of a number as written: digits without the point, and the power of ten that they stand for.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Number<'a> {
    fn scan(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (whole, rest) = digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (fraction, rest) = digits(rest);
                if fraction.is_empty() {
                    return None;
                }
                (fraction, rest)
            }
            rest => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, whole, fraction, exponent })
    }

    fn is_zero(&self) -> bool {
        self.whole.iter().chain(self.fraction).all(|digit| *digit == b'0')
    }

    /// The number times 10^9, where that is a whole number below 10^25. Not for zero.
    fn nanos(&self) -> Result<u128, AmountError> {
        let length = |digits: usize| i64::try_from(digits).expect("a slice is shorter than 2^63");
        let digits = || self.whole.iter().chain(self.fraction);
        let leading = digits().take_while(|digit| **digit == b'0').count();
        let trailing = digits().rev().take_while(|digit| **digit == b'0').count();
        let significant = self.whole.len() + self.fraction.len() - leading - trailing;
        let power = self
            .exponent
            .saturating_sub(length(self.fraction.len()))
            .saturating_add(DECIMALS)
            .saturating_add(length(trailing));
        if length(significant).saturating_add(power) > DIGITS_MAX {
            return Err(AmountError::OutOfRange);
        }
        let power = u32::try_from(power).map_err(|_| AmountError::TooPrecise)?;
        let mantissa = decimal(digits().skip(leading).take(significant));
        Ok(mantissa * 10_u128.pow(power))
    }
}

/// The value of digits, of which there are at most 38.
fn decimal<'a>(digits: impl Iterator<Item = &'a u8>) -> u128 {
    digits.fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'))
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// The exponent, held at plus or minus 10^12 where it is longer than that: far beyond any amount on both sides.
fn exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1_000_000_000_000;
    let (sign, rest) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] | rest => (1, rest),
    };
    let (value, rest) = digits(rest);
    if value.is_empty() || !rest.is_empty() {
        return None;
    }
    let value = value.iter().fold(0_i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(FAR));
    Some(sign * value)
}

/// A sum of amounts in 10^-9 units. Zero is allowed; it holds what `NUMERIC(38,9)` holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TotalAmount {
    nanos: u128,
}

impl TotalAmount {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0 };

    /// A sum given in 10^-9 units.
    #[must_use]
    pub const fn from_nanos(nanos: u128) -> Self {
        Self { nanos }
    }

    /// A sum given as whole units and plain nanos, which may exceed one unit: how the accumulators keep it.
    ///
    /// Exact: 2^64 units are below 2^94 nanos.
    #[must_use]
    pub const fn from_parts(units: u64, nanos: u64) -> Self {
        Self { nanos: units as u128 * NANOS_PER_UNIT + nanos as u128 }
    }

    /// Reads what [`fmt::Display`] writes, and any plain non-negative decimal of at most nine decimals.
    ///
    /// `None` for everything else, and for more than `NUMERIC(38,9)` can hold.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = Number::scan(text.as_bytes())?;
        if number.negative || number.exponent != 0 || number.whole.len() > 29 || number.fraction.len() > 9 {
            return None;
        }
        let mantissa = decimal(number.whole.iter().chain(number.fraction));
        let missing = u32::try_from(9 - number.fraction.len()).ok()?;
        Some(Self { nanos: mantissa * 10_u128.pow(missing) })
    }

    /// The sum in 10^-9 units.
    #[must_use]
    pub const fn nanos(self) -> u128 {
        self.nanos
    }

    /// The sum of both, or `None` past 2^128 nanos, where it would stop being exact.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.nanos.checked_add(other.nanos) {
            Some(nanos) => Some(Self { nanos }),
            None => None,
        }
    }
}

impl From<Amount> for TotalAmount {
    fn from(amount: Amount) -> Self {
        Self { nanos: amount.nanos }
    }
}

impl fmt::Display for TotalAmount {
    /// Plain decimal notation without trailing zeros: `307`, `0.9`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut rest) = (self.nanos / NANOS_PER_UNIT, self.nanos % NANOS_PER_UNIT);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        let mut width = 9;
        while rest.is_multiple_of(10) {
            rest /= 10;
            width -= 1;
        }
        write!(formatter, "{whole}.{rest:0width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigdecimal::BigDecimal;
    use proptest::prelude::*;
    use std::str::FromStr;

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        let cases = [
            ("307", Ok("307")),
            ("0.9", Ok("0.9")),
            ("9007199254740993", Ok("9007199254740993")),
            ("9007199254740993.000000001", Ok("9007199254740993.000000001")),
            ("1e3", Ok("1000")),
            ("1E+3", Ok("1000")),
            ("1500e-3", Ok("1.5")),
            ("0.000000001", Ok("0.000000001")),
            ("0.0000000010", Ok("0.000000001")),
            ("0.0000000001", Err(AmountError::TooPrecise)),
            ("1.0000000001", Err(AmountError::TooPrecise)),
            ("9999999999999999.999999999", Ok("9999999999999999.999999999")),
            ("10000000000000000", Err(AmountError::OutOfRange)),
            ("1e15", Ok("1000000000000000")),
            ("1e16", Err(AmountError::OutOfRange)),
            ("12345678901234567890.0000000001", Err(AmountError::OutOfRange)),
            ("1e400", Err(AmountError::OutOfRange)),
            ("1e99999999999999999999999", Err(AmountError::OutOfRange)),
            ("1e-99999999999999999999999", Err(AmountError::TooPrecise)),
            ("0", Err(AmountError::NotPositive)),
            ("0e400", Err(AmountError::NotPositive)),
            ("-1", Err(AmountError::NotPositive)),
            ("-0", Err(AmountError::NotPositive)),
            ("", Err(AmountError::Malformed)),
            ("NaN", Err(AmountError::Malformed)),
            ("Infinity", Err(AmountError::Malformed)),
            ("+1", Err(AmountError::Malformed)),
            ("01", Err(AmountError::Malformed)),
            (".5", Err(AmountError::Malformed)),
            ("5.", Err(AmountError::Malformed)),
            ("1_000", Err(AmountError::Malformed)),
            ("1,5", Err(AmountError::Malformed)),
            ("0x10", Err(AmountError::Malformed)),
            ("1e", Err(AmountError::Malformed)),
            (" 1", Err(AmountError::Malformed)),
            ("١", Err(AmountError::Malformed)),
        ];
        for (text, expected) in cases {
            let read = Amount::parse(text).map(|amount| amount.to_string());
            assert_eq!(read, expected.map(str::to_owned), "{text:?}");
        }
        assert_eq!(Amount::parse(&"9".repeat(400)), Err(AmountError::OutOfRange));
        assert_eq!(Amount::parse(&format!("1.{}", "0".repeat(400))).map(Amount::nanos), Ok(1_000_000_000));
    }

    #[test]
    fn a_total_is_read_as_it_is_written() {
        for text in ["0", "0.9", "99999999999999999999999999999.999999999", "12"] {
            assert_eq!(TotalAmount::parse(text).map(|total| total.to_string()).as_deref(), Some(text));
        }
        for text in ["-1", "-0", "1e3", "0e5", "0.0000000001", "", "x", "100000000000000000000000000000"] {
            assert_eq!(TotalAmount::parse(text), None, "{text:?}");
        }
        assert_eq!(TotalAmount::parse("1.500000000"), Some(TotalAmount::from_nanos(1_500_000_000)));
    }

    proptest! {
        #[test]
        fn parsing_agrees_with_an_independent_decimal_library(
            text in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?"
        ) {
            let exact = BigDecimal::from_str(&text).unwrap();
            match Amount::parse(&text) {
                Ok(amount) => prop_assert_eq!(BigDecimal::from_str(&amount.to_string()).unwrap(), exact),
                Err(AmountError::NotPositive) => prop_assert!(exact <= 0),
                Err(AmountError::OutOfRange) => prop_assert!(exact >= 10_000_000_000_000_000_u64),
                Err(AmountError::TooPrecise) => prop_assert_ne!(exact.with_scale(9), exact),
                Err(AmountError::Malformed) => prop_assert!(false, "the grammar allows {}", text),
            }
        }

        #[test]
        fn parsing_any_text_ends_without_a_panic(text in "\\PC{0,40}") {
            let _ = Amount::parse(&text);
        }
    }
}
