//! Rows in the binary format of `COPY` (PostgreSQL manual, COPY, "Binary Format"): exact, and nothing to escape.

use super::window_start;
use application::ports::UsageRow;
use domain::{HourWindow, NANOS_PER_UNIT, UsageTotal};

/// Signature, flags and the length of the header's extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const COLUMNS: i16 = 6;
/// 2000-01-01T00:00:00Z, from which `timestamptz` counts, in seconds since 1970.
const EPOCH_SECONDS: i64 = 946_684_800;
const MICROS_PER_SECOND: i64 = 1_000_000;
/// `numeric` is written in digits of this base, four decimals each.
const BASE: u128 = 10_000;
/// The digits of the fraction: twelve decimals, of which we use nine.
const FRACTION_DIGITS: usize = 3;
/// The digits of 2^128 nanos: eight before the point, three behind.
const DIGITS_MAX: usize = 11;

/// A row that PostgreSQL cannot hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnfitRow {
    #[error("{hour} is before 4714 BC, the first year that PostgreSQL holds")]
    Hour { hour: HourWindow },
    #[error("a count of {pulses} pulses does not fit a bigint")]
    Pulses { pulses: u64 },
    #[error("the generation holds more than 2^128 nanos or 2^64 pulses")]
    Sum,
}

/// Rows on their way into one `COPY`, with their sum and number over all of them.
#[derive(Debug, Default)]
pub(super) struct CopyBuffer {
    bytes: Vec<u8>,
    waiting: u64,
    rows: u64,
    total: UsageTotal,
}

impl CopyBuffer {
    /// Adds the row to what is waiting: tenant, SKU, unit, `window_start`, amount, count.
    pub(super) fn push(&mut self, row: &UsageRow) -> Result<(), UnfitRow> {
        let UsageRow { key, total } = row;
        let hour = window_start(key.hour).ok_or(UnfitRow::Hour { hour: key.hour })?;
        let pulses = i64::try_from(total.pulses).map_err(|_| UnfitRow::Pulses { pulses: total.pulses })?;
        self.total = self.total.checked_add(*total).ok_or(UnfitRow::Sum)?;
        self.rows += 1;
        self.waiting += 1;
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(HEADER);
        }
        self.bytes.extend_from_slice(&COLUMNS.to_be_bytes());
        for text in [key.tenant.as_str(), key.product_sku.as_str(), key.use_unity.as_str()] {
            self.field(text.as_bytes());
        }
        self.field(&((hour.timestamp() - EPOCH_SECONDS) * MICROS_PER_SECOND).to_be_bytes());
        self.numeric(total.amount.nanos());
        self.field(&pulses.to_be_bytes());
        Ok(())
    }

    /// The bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that wait as one complete `COPY`, and how many rows they are; `None` where nothing waits.
    pub(super) fn complete(&mut self) -> Option<(&[u8], u64)> {
        if self.waiting == 0 {
            return None;
        }
        self.bytes.extend_from_slice(&TRAILER);
        Some((&self.bytes, self.waiting))
    }

    /// Forgets the bytes, which were sent, and keeps the sums.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.waiting = 0;
    }

    /// How many rows were pushed in all, and what they came to.
    pub(super) fn sums(&self) -> (u64, UsageTotal) {
        (self.rows, self.total)
    }

    fn field(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).expect("names have at most 256 bytes");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    /// A `numeric` of scale 9: the digits before the point, then three behind it.
    fn numeric(&mut self, nanos: u128) {
        const SCALE: i16 = 9;
        const POSITIVE: i16 = 0;
        let mut digits = [0_i16; DIGITS_MAX];
        let mut first = DIGITS_MAX;
        let mut take = |mut value: u128, least: usize| {
            let mut taken = 0;
            while value > 0 || taken < least {
                first -= 1;
                digits[first] = i16::try_from(value % BASE).expect("a remainder of 10,000");
                value /= BASE;
                taken += 1;
            }
            taken
        };
        take(nanos % NANOS_PER_UNIT * 1_000, FRACTION_DIGITS);
        let whole = take(nanos / NANOS_PER_UNIT, 0);
        let short = |number: usize| i16::try_from(number).expect("at most 11 digits");
        // The weight of the first digit, as a power of 10,000.
        let weight = short(whole) - 1;
        let head = [short(DIGITS_MAX - first), weight, POSITIVE, SCALE];
        let length = 2 * (head.len() + DIGITS_MAX - first);
        self.bytes.extend_from_slice(&i32::try_from(length).expect("at most 30 bytes").to_be_bytes());
        for part in head.iter().chain(&digits[first..]) {
            self.bytes.extend_from_slice(&part.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(nanos: u128) -> Vec<i16> {
        let mut buffer = CopyBuffer::default();
        buffer.numeric(nanos);
        let (length, parts) = buffer.bytes.split_first_chunk::<4>().unwrap();
        assert_eq!(i32::from_be_bytes(*length), i32::try_from(parts.len()).unwrap());
        parts.as_chunks::<2>().0.iter().map(|part| i16::from_be_bytes(*part)).collect()
    }

    #[test]
    fn amounts_are_written_in_digits_of_ten_thousand() {
        assert_eq!(numeric(0), [3, -1, 0, 9, 0, 0, 0]);
        assert_eq!(numeric(1), [3, -1, 0, 9, 0, 0, 1_000]);
        assert_eq!(numeric(900_000_000), [3, -1, 0, 9, 9_000, 0, 0]);
        assert_eq!(numeric(307 * NANOS_PER_UNIT), [4, 0, 0, 9, 307, 0, 0, 0]);
        assert_eq!(numeric(12_345_678_900_000_001), [5, 1, 0, 9, 1_234, 5_678, 9_000, 0, 1_000]);
        // 340282366920938463463374607431.768211455
        assert_eq!(
            numeric(u128::MAX),
            [11, 7, 0, 9, 34, 282, 3_669, 2_093, 8_463, 4_633, 7_460, 7_431, 7_682, 1_145, 5_000]
        );
    }
}
