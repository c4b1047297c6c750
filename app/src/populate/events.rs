//! Made-up events of users, as the mapping `event` reads them.

use application::populate::{Dice, Made, origin};
use domain::{Amount, HourWindow, ProductSku, Pulse, PulseIdentity, TenantId, UsageTotals, UsageUnit};
use std::{collections::BTreeMap, io::Write};
use uuid::{Builder, Uuid};

const TYPES: [&str; 3] = ["created", "updated", "deleted"];

/// What to make up.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventRecipe {
    /// Names the events: another seed, other ids.
    pub(super) seed: u64,
    /// How many users, at least 1. The names of some hold dots.
    pub(super) users: u32,
    /// How many of 100 messages repeat an earlier one, 0 to 90.
    pub(super) duplicates: u8,
}

impl EventRecipe {
    /// The message with this number, from 0, and its routing key. An id recurs in events of other types, which are
    /// others.
    pub(super) fn message(&self, number: u64) -> (Made, String) {
        let origin = origin(self.seed, self.duplicates, number);
        let user = Dice::new(self.seed, origin, 0).below(self.users.into());
        let user = match user % 3 {
            0 => format!("user_{user:05}"),
            1 => format!("john.doe.{user:05}"),
            _ => format!("ann.event.created.{user:05}"),
        };
        let kinds = TYPES.len() as u64;
        let kind = TYPES[usize::try_from(origin % kinds).unwrap_or_default()];
        let id = self.id(origin / kinds);
        let made = "made-up names are valid";
        let pulse = Pulse {
            tenant: TenantId::new(user.as_str()).expect(made),
            product_sku: ProductSku::new(kind).expect(made),
            use_unity: UsageUnit::new("event").expect(made),
            amount: Amount::parse("1").expect(made),
            identity: Some(PulseIdentity::Id(format!("{kind}/{id}").into())),
            occurred_at: None,
            // Known only when it arrives; the counts that are written are over all hours.
            hour: HourWindow::from_number(0),
        };
        let made = Made {
            message_id: format!("{:016x}-{origin}", self.seed),
            body: format!("{{\"id\":\"{id}\"}}").into_bytes(),
            fresh: if origin == number { vec![pulse] } else { Vec::new() },
        };
        (made, format!("{user}.event.{kind}"))
    }

    fn id(&self, number: u64) -> Uuid {
        let mut dice = Dice::new(self.seed, number, 1);
        let bytes = u128::from(dice.below(u64::MAX)) << 64 | u128::from(dice.below(u64::MAX));
        Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }
}

/// Writes what must come out as JSON: for each type the users and their counts, as `LEDGER_URL=json:DIR` has them, one
/// file a type.
pub(super) fn write_counts(totals: UsageTotals, mut out: impl Write) -> anyhow::Result<()> {
    let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (key, total) in totals {
        let users = counts.entry(key.product_sku.to_string()).or_default();
        *users.entry(key.tenant.to_string()).or_default() += total.pulses;
    }
    serde_json::to_writer_pretty(&mut out, &counts)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::{
        decode::{Decoder, Format},
        ports::{Delivery, Envelope, PartitionId},
    };
    use domain::Timestamp;
    use std::{collections::HashSet, path::Path, sync::Arc};

    #[test]
    fn the_mapping_reads_each_event_as_it_was_made_and_no_two_fresh_ones_are_the_same() {
        let mapping = crate::mappings::find("event", Path::new("/")).unwrap();
        let decoder = Decoder { format: Format::Mapping(Arc::new(mapping)), ..Decoder::default() };
        let recipe = EventRecipe { seed: 7, users: 10, duplicates: 20 };
        let (mut identities, mut fresh_events, mut totals) = (HashSet::new(), 0, UsageTotals::default());
        for number in 0..3_000 {
            let (Made { body, fresh, .. }, routing_key) = recipe.message(number);
            let envelope = Envelope { routing_key: Some(routing_key), ..Envelope::default() };
            let received_at = Timestamp::new(0, 0);
            let delivery = Delivery {
                partition: PartitionId(0),
                sequence: number,
                body,
                envelope,
                received_at,
                log: None,
                returns: 0,
            };
            let mut items = Vec::new();
            decoder.decode(&delivery, &mut items);
            let read = items.remove(0).pulse.unwrap();
            assert_eq!(identities.insert((read.tenant.clone(), read.identity.clone())), !fresh.is_empty());
            for made in fresh {
                assert_eq!(read, made);
                totals.add(&made);
                fresh_events += 1;
            }
        }
        assert!((2_200..2_600).contains(&fresh_events), "{fresh_events} fresh events at 20 % repeated ones");
        let mut out = Vec::new();
        write_counts(totals, &mut out).unwrap();
        let counts: BTreeMap<String, BTreeMap<String, u64>> = serde_json::from_slice(&out).unwrap();
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["created", "deleted", "updated"]);
        assert!(counts["created"].contains_key("john.doe.00001"));
        assert_eq!(counts.values().flat_map(BTreeMap::values).sum::<u64>(), fresh_events);
    }
}
