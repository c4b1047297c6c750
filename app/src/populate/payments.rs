//! Made-up events of payments, as the webhook and the mapping `payment` read them.

use application::populate::{Dice, Made, Recipe, origin};
use chrono::{DateTime, SecondsFormat};
use domain::{Pulse, PulseIdentity, TenantId, Timestamp, UsageUnit};
use serde::Serialize;

/// Who sends them, which is the tenant of their pulses.
pub(super) const SOURCE: &str = "payments";
const CURRENCIES: [&str; 4] = ["EUR", "KES", "NGN", "USD"];

#[derive(Serialize)]
struct Payment<'a> {
    event_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    amount: String,
    currency: &'a str,
    occurred_at: String,
}

/// The event with this number, from 0: the pulse of the recipe as a payment, its product as the type.
pub(super) fn message(recipe: &Recipe, number: u64) -> Made {
    let origin = origin(recipe.seed, recipe.duplicates, number);
    let currency = Dice::new(recipe.seed, origin, 1).below(CURRENCIES.len() as u64);
    let currency = CURRENCIES[usize::try_from(currency).unwrap_or_default()];
    let event_id = format!("{:016x}-{origin}", recipe.seed);
    let made = "made-up names are valid";
    let pulse = Pulse {
        tenant: TenantId::new(SOURCE).expect(made),
        use_unity: UsageUnit::new(currency).expect(made),
        identity: Some(PulseIdentity::Id(event_id.as_str().into())),
        ..recipe.pulse(origin, 0)
    };
    let payment = Payment {
        event_id: &event_id,
        kind: pulse.product_sku.as_str(),
        amount: pulse.amount.to_string(),
        currency,
        occurred_at: pulse.occurred_at.and_then(moment).unwrap_or_default(),
    };
    let body = serde_json::to_vec(&payment).expect("strings always serialise");
    let fresh = if origin == number { vec![pulse] } else { Vec::new() };
    Made { message_id: event_id, body, fresh }
}

fn moment(time: Timestamp) -> Option<String> {
    let time = DateTime::from_timestamp(time.seconds(), time.nanos())?;
    Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::{
        decode::{Decoder, Format},
        ports::{Delivery, Envelope, PartitionId},
    };
    use domain::HourWindow;
    use std::{collections::HashSet, path::Path, sync::Arc};

    #[test]
    fn the_mapping_reads_each_payment_as_it_was_made_and_repetitions_are_exact() {
        let mapping = crate::mappings::find("payment", Path::new("/")).unwrap();
        let decoder = Decoder { format: Format::Mapping(Arc::new(mapping)), ..Decoder::default() };
        let start = HourWindow::from_number(490_896);
        let recipe = Recipe { seed: 7, tenants: 1, skus: 3, start, hours: 2, items: 1, duplicates: 20 };
        let (mut bodies, mut currencies, mut fresh) = (HashSet::new(), HashSet::new(), 0);
        for number in 0..2_000 {
            let made = message(&recipe, number);
            let delivery = Delivery {
                partition: PartitionId(0),
                sequence: number,
                body: made.body.clone(),
                envelope: Envelope::default(),
                received_at: Timestamp::new(4_000_000_000, 0),
                log: None,
                returns: 0,
            };
            let mut items = Vec::new();
            decoder.decode(&delivery, &mut items);
            let read = items.remove(0).pulse.unwrap();
            currencies.insert(read.use_unity.to_string());
            assert_eq!(bodies.insert(made.body), !made.fresh.is_empty());
            for pulse in made.fresh {
                assert_eq!(pulse, read);
                fresh += 1;
            }
        }
        assert!((1_500..1_700).contains(&fresh), "{fresh} fresh payments at 20 % repeated ones");
        assert_eq!(currencies.len(), CURRENCIES.len());
    }
}
