//! The rows of a generation, read part by part.

use super::{answer::parse_number, fault::Fault, keys, keys::suffix, link::Link};
use application::ports::UsageRow;
use domain::{Shard, TotalAmount, UsageKey, UsageTotal};
use std::collections::BTreeMap;

/// How many hashes are looked at in one call, and how many fields are taken from them together; a hash that alone has
/// more is taken alone.
const HASHES_MAX: u32 = 32;
const FIELDS_MAX: u64 = 16_384;

/// Reads the hash with the number `part` and as many of the next as stay within bounds.
pub(super) async fn read(
    link: &Link,
    shard: Shard,
    generation: u64,
    part: u32,
) -> Result<(Vec<UsageRow>, Option<u32>), Fault> {
    let end = part.saturating_add(HASHES_MAX).min(keys::PARTS);
    if part >= end {
        return Ok((Vec::new(), None));
    }
    let mut ask = redis::pipe();
    for number in part..end {
        ask.cmd("HLEN").arg(keys::rows(shard, generation, number));
    }
    let lengths: Vec<u64> = link.query_all(&ask).await?;
    let mut fields = 0;
    let fitting = lengths.iter().take_while(|length| {
        fields += **length;
        fields <= FIELDS_MAX
    });
    let next = part + u32::try_from(fitting.count()).expect("at most as many as were asked for").max(1);
    let mut ask = redis::pipe();
    for (number, length) in (part..next).zip(&lengths) {
        if *length > 0 {
            ask.cmd("HGETALL").arg(keys::rows(shard, generation, number));
        }
    }
    let hashes: Vec<Vec<(Vec<u8>, Vec<u8>)>> =
        if ask.is_empty() { Vec::new() } else { link.query_all(&ask).await? };
    let mut rows = Vec::with_capacity(hashes.iter().map(Vec::len).sum::<usize>() / 2);
    for hash in hashes {
        rows.extend(decode(hash)?);
    }
    Ok((rows, (next < keys::PARTS).then_some(next)))
}

#[derive(Default)]
struct Sums {
    units: u64,
    nanos: u64,
    pulses: u64,
}

/// Puts the fields of a hash together; anything unknown is an error, because it would be left out of the books.
fn decode(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<UsageRow>, Fault> {
    let mut sums = BTreeMap::<Vec<u8>, Sums>::new();
    for (mut field, value) in fields {
        let kind = field.pop();
        let value = parse_number(&value).ok_or_else(|| damaged("a sum that is not a number", &value))?;
        let row = sums.entry(field).or_default();
        match kind {
            Some(suffix::UNITS) => row.units = value,
            Some(suffix::NANOS) => row.nanos = value,
            Some(suffix::PULSES) => row.pulses = value,
            other => {
                return Err(damaged(
                    "a field that counts nothing known",
                    &other.into_iter().collect::<Vec<_>>(),
                ));
            }
        }
    }
    let row = |(key, sums): (Vec<u8>, Sums)| {
        let key = UsageKey::decode(&key).map_err(|_| damaged("a field that is no usage key", &key))?;
        if sums.pulses == 0 {
            return Err(damaged("a sum of no pulses", key.tenant.as_str().as_bytes()));
        }
        let total =
            UsageTotal { amount: TotalAmount::from_parts(sums.units, sums.nanos), pulses: sums.pulses };
        Ok(UsageRow { key, total })
    };
    sums.into_iter().map(row).collect()
}

fn damaged(what: &str, bytes: &[u8]) -> Fault {
    Fault::Storage(format!("the rows hold {what}: {}", bytes.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{HourWindow, ProductSku, TenantId, UsageUnit};

    fn field(suffix: &[u8]) -> Vec<u8> {
        let key = UsageKey {
            tenant: TenantId::new("t").unwrap(),
            product_sku: ProductSku::new("s").unwrap(),
            use_unity: UsageUnit::new("u").unwrap(),
            hour: HourWindow::from_number(7),
        };
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes.extend_from_slice(suffix);
        bytes
    }

    #[test]
    fn fields_of_a_row_are_put_together() {
        let fields = vec![
            (field(b"c"), b"3".to_vec()),
            (field(b"n"), b"2500000000".to_vec()),
            (field(b"u"), b"9007199254740993".to_vec()),
        ];
        let rows = decode(fields).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].total.amount.to_string(), "9007199254740995.5");
        assert_eq!(rows[0].total.pulses, 3);
    }

    #[test]
    fn anything_unknown_is_an_error() {
        let broken = [
            (field(b"x"), b"1".to_vec()),
            (field(b"c"), b"-1".to_vec()),
            (field(b"c"), b"1.5".to_vec()),
            (field(b"c"), b"".to_vec()),
            (field(b"u"), b"1".to_vec()),
            (b"c".to_vec(), b"1".to_vec()),
            (b"".to_vec(), b"1".to_vec()),
        ];
        for fields in broken {
            assert!(decode(vec![fields.clone()]).is_err(), "{fields:?}");
        }
    }
}
