//! The files of the products: tenants to what they used, added up over all hours.
//!
//! `SKU.json` holds the unit in which the product was booked first, for ever: `{"user_a":3}`. Where a product has other
//! units too, `units/SKU.json` holds those, each apart: `{"KB":{"user_a":0.5}}`. Amounts are written digit by digit.

use super::state::State;
use domain::{ProductSku, TenantId, TotalAmount, UsageUnit};
use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    path::{Path, PathBuf},
};

const OTHER_UNITS: &str = "units";

type Tenants<'a> = BTreeMap<&'a TenantId, TotalAmount>;

/// A sum that could not be told exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what a tenant used of a product is beyond 2^128 nanos")]
pub(super) struct TooLarge;

/// The files that the state comes to, by their paths within the folder.
pub(super) fn rendered(state: &State) -> Result<Vec<(PathBuf, Vec<u8>)>, TooLarge> {
    let mut files = Vec::new();
    for (sku, units) in sums(state)? {
        let file = format!("{}.json", sku.as_str());
        let is_first = |unit: &UsageUnit| state.first_units.get(sku) == Some(unit);
        let mut others = String::new();
        for (unit, tenants) in units {
            if is_first(unit) {
                files.push((PathBuf::from(&file), format!("{}\n", object(&tenants)).into_bytes()));
            } else {
                member(&mut others, unit.as_str(), &object(&tenants));
            }
        }
        if !others.is_empty() {
            files.push((Path::new(OTHER_UNITS).join(&file), format!("{{{others}}}\n").into_bytes()));
        }
    }
    Ok(files)
}

fn sums(state: &State) -> Result<BTreeMap<&ProductSku, BTreeMap<&UsageUnit, Tenants<'_>>>, TooLarge> {
    let mut products: BTreeMap<&ProductSku, BTreeMap<&UsageUnit, Tenants<'_>>> = BTreeMap::new();
    for (key, row) in &state.usage {
        let units = products.entry(&key.product_sku).or_default();
        let sum = units.entry(&key.use_unity).or_default().entry(&key.tenant).or_default();
        *sum = sum.checked_add(row.total.amount).ok_or(TooLarge)?;
    }
    Ok(products)
}

fn object(tenants: &Tenants<'_>) -> String {
    let mut members = String::new();
    for (tenant, amount) in tenants {
        member(&mut members, tenant.as_str(), amount);
    }
    format!("{{{members}}}")
}

fn member(members: &mut String, name: &str, value: &impl Display) {
    let comma = if members.is_empty() { "" } else { "," };
    let name = serde_json::Value::from(name);
    write!(members, "{comma}{name}:{value}").expect("text takes any text");
}
