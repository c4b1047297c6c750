//! The rows of a generation, read list by list.

use super::{fault::Fault, keys, link::Link, sum::Sum};
use application::ports::{FoundRow, UsageRow};
use domain::{Shard, UsageKey};

/// Reads one list of names and the sums under them.
pub(super) async fn read(
    link: &Link,
    shard: Shard,
    generation: u64,
    part: u32,
) -> Result<(Vec<UsageRow>, Option<u32>), Fault> {
    let (found, next) = find(link, shard, generation, part).await?;
    let rows = found.iter().map(|(name, sum)| row(name, sum.as_deref())).collect::<Result<Vec<_>, _>>()?;
    Ok((rows, next))
}

/// As [`read`], and what does not read is told instead of refused.
pub(super) async fn look(
    link: &Link,
    shard: Shard,
    generation: u64,
    part: u32,
) -> Result<(Vec<FoundRow>, Option<u32>), Fault> {
    let (found, next) = find(link, shard, generation, part).await?;
    let look = |(name, sum): &(Vec<u8>, Option<Vec<u8>>)| match row(name, sum.as_deref()) {
        Ok(row) => FoundRow::Good(row),
        Err(fault) => FoundRow::Bad { key: UsageKey::decode(name).ok(), fault: fault.to_string() },
    };
    Ok((found.iter().map(look).collect(), next))
}

/// Names with the sums under them.
type Found = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A name is written once, by the same step that makes its row, so the lists are all rows and each of them once.
async fn find(link: &Link, shard: Shard, generation: u64, part: u32) -> Result<(Found, Option<u32>), Fault> {
    let mut ask = redis::cmd("LRANGE");
    ask.arg(keys::names(shard, generation, part)).arg(0).arg(-1);
    let names: Vec<Vec<u8>> = link.query(shard, &ask).await?;
    if names.is_empty() {
        return Ok((Vec::new(), None));
    }
    let mut ask = redis::cmd("HMGET");
    ask.arg(keys::rows(shard, generation)).arg(&names);
    let sums: Vec<Option<Vec<u8>>> = link.query(shard, &ask).await?;
    // Deleted in between: the rows of a generation go all at once.
    if sums.iter().all(Option::is_none) {
        return Ok((Vec::new(), None));
    }
    let next = (names.len() >= keys::NAMES).then_some(part.saturating_add(1));
    Ok((names.into_iter().zip(sums).collect(), next))
}

/// Anything unreadable is an error, because it would be left out of the books.
fn row(name: &[u8], sum: Option<&[u8]>) -> Result<UsageRow, Fault> {
    let damaged = |what: &str| Fault::Storage(format!("the row {} {what}", name.escape_ascii()));
    let key = UsageKey::decode(name).map_err(|_| damaged("has a name that is no usage key"))?;
    let sum =
        Sum::from_bytes(sum.ok_or_else(|| damaged("is missing"))?).ok_or_else(|| damaged("holds no sum"))?;
    let total = sum.total();
    if total.pulses == 0 { Err(damaged("counts no pulse")) } else { Ok(UsageRow { key, total }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{HourWindow, ProductSku, TenantId, UsageUnit};

    fn name() -> Vec<u8> {
        let key = UsageKey {
            tenant: TenantId::new("t").unwrap(),
            product_sku: ProductSku::new("s").unwrap(),
            use_unity: UsageUnit::new("u").unwrap(),
            hour: HourWindow::from_number(7),
        };
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_row_is_its_name_and_its_sum() {
        let mut sum = Sum::default();
        sum.add(307, 500_000_000);
        let row = row(&name(), Some(&sum.to_bytes())).unwrap();
        assert_eq!(row.key.tenant.as_str(), "t");
        assert_eq!((row.total.amount.to_string().as_str(), row.total.pulses), ("307.5", 1));
    }

    #[test]
    fn anything_unreadable_is_an_error() {
        let mut sum = Sum::default();
        assert!(row(&name(), Some(&sum.to_bytes())).is_err(), "no pulse");
        sum.add(1, 0);
        assert!(row(&name(), None).is_err(), "no sum");
        assert!(row(&name(), Some(b"1")).is_err(), "another kind of sum");
        assert!(row(&name()[1..], Some(&sum.to_bytes())).is_err(), "another kind of name");
    }
}
