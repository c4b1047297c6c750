//! Made-up pulses: the same for the same seed, on every machine and in every version.

use domain::{
    Amount, HourWindow, ProductSku, Pulse, PulseIdentity, TenantId, Timestamp, TotalAmount, UsageUnit,
};
use serde::Serialize;

const UNITS: [&str; 4] = ["KB", "request", "second", "token"];
const NANOS_PER_THOUSANDTH: u128 = 1_000_000;

/// What to make up.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Names the pulses: another seed, other ids.
    pub seed: u64,
    /// How many tenants, at least 1.
    pub tenants: u32,
    /// How many products, at least 1. Each is measured in one unit.
    pub skus: u32,
    /// The first hour of the pulses' own times.
    pub start: HourWindow,
    /// Over how many hours they spread, at least 1.
    pub hours: u32,
    /// Pulses in a message, at least 1.
    pub items: u32,
    /// How many of 100 messages repeat an earlier one, 0 to 90.
    pub duplicates: u8,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The same for a repetition.
    pub message_id: String,
    /// One object, or an array of them.
    pub body: Vec<u8>,
    /// The pulses in it; none where the message repeats an earlier one.
    pub fresh: Vec<Pulse>,
}

#[derive(Serialize)]
struct Wire<'a> {
    id: &'a str,
    tenant: &'a str,
    product_sku: &'a str,
    used_amount: Box<serde_json::value::RawValue>,
    use_unity: &'a str,
    occurred_at: String,
}

impl Recipe {
    /// The message with this number, from 0. Any publisher can make any message: they share nothing.
    ///
    /// # Panics
    /// Where a field of the recipe is outside of its bounds.
    #[must_use]
    pub fn message(&self, number: u64) -> Made {
        let origin = origin(self.seed, self.duplicates, number);
        let pulses: Vec<Pulse> = (0..self.items).map(|item| self.pulse(origin, item)).collect();
        let wires: Vec<Wire<'_>> = pulses.iter().map(wire).collect();
        let body = match wires.as_slice() {
            [one] => serde_json::to_vec(one),
            many => serde_json::to_vec(many),
        };
        Made {
            message_id: format!("{:016x}-{origin}", self.seed),
            body: body.expect("strings and numbers always serialise"),
            fresh: if origin == number { pulses } else { Vec::new() },
        }
    }

    /// One pulse of the message with this number, from 0, where that repeats none.
    ///
    /// # Panics
    /// Where a field of the recipe is outside of its bounds.
    #[must_use]
    pub fn pulse(&self, message: u64, item: u32) -> Pulse {
        let mut dice = Dice::new(self.seed, message, u64::from(item));
        let (tenant, sku) = (dice.below(self.tenants.into()), dice.below(self.skus.into()));
        let thousandths = 1 + dice.below(1_000_000);
        let second = dice.below(u64::from(self.hours) * 3_600);
        let amount = TotalAmount::from_nanos(u128::from(thousandths) * NANOS_PER_THOUSANDTH);
        let seconds = self.start.start_seconds().saturating_add_unsigned(second);
        let occurred_at = Timestamp::new(seconds, 0);
        let unit = UNITS[usize::try_from(sku).unwrap_or_default() % UNITS.len()];
        let made = "made-up names and amounts are valid";
        Pulse {
            tenant: TenantId::new(format!("tenant_{tenant:05}")).expect(made),
            product_sku: ProductSku::new(format!("SKU-{sku:04}")).expect(made),
            use_unity: UsageUnit::new(unit).expect(made),
            amount: Amount::parse(&amount.to_string()).expect(made),
            identity: Some(PulseIdentity::Id(format!("{:016x}-{message}-{item}", self.seed).into())),
            occurred_at: Some(occurred_at),
            hour: HourWindow::of(occurred_at),
        }
    }
}

/// The message that this one repeats, or itself. A repeated one may be repeated again; number 0 never repeats.
#[must_use]
pub fn origin(seed: u64, duplicates: u8, mut number: u64) -> u64 {
    loop {
        let mut dice = Dice::new(seed, number, u64::MAX);
        if number == 0 || dice.below(100) >= u64::from(duplicates) {
            return number;
        }
        number = dice.below(number);
    }
}

fn wire(pulse: &Pulse) -> Wire<'_> {
    let Some(PulseIdentity::Id(id)) = &pulse.identity else { unreachable!("made with an id") };
    let time =
        pulse.occurred_at.and_then(|time| chrono::DateTime::from_timestamp(time.seconds(), time.nanos()));
    Wire {
        id,
        tenant: pulse.tenant.as_str(),
        product_sku: pulse.product_sku.as_str(),
        used_amount: serde_json::value::RawValue::from_string(pulse.amount.to_string())
            .expect("an amount is a JSON number"),
        use_unity: pulse.use_unity.as_str(),
        occurred_at: time.expect("hours are bounded").format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, good enough for load, and never changes under us.
pub struct Dice(u64);

impl Dice {
    /// Dice for one thing, told apart by three numbers.
    #[must_use]
    pub fn new(seed: u64, message: u64, item: u64) -> Self {
        let mut dice = Self(seed);
        dice.0 = dice.next() ^ message;
        dice.0 = dice.next() ^ item;
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is at least 1; even enough where `end` is far below 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::Decoder,
        ports::{Delivery, Envelope, PartitionId},
    };
    use std::collections::{HashMap, HashSet};

    const RECIPE: Recipe = Recipe {
        seed: 7,
        tenants: 3,
        skus: 2,
        start: HourWindow::from_number(490_896),
        hours: 24,
        items: 1,
        duplicates: 0,
    };

    fn decoded(made: &Made) -> Vec<Pulse> {
        let delivery = Delivery {
            partition: PartitionId(0),
            sequence: 0,
            body: made.body.clone(),
            envelope: Envelope { message_id: Some(made.message_id.clone()), ..Envelope::default() },
            received_at: Timestamp::new(4_000_000_000, 0),
            log: None,
            returns: 0,
        };
        let mut items = Vec::new();
        Decoder::default().decode(&delivery, &mut items);
        items.into_iter().map(|item| item.pulse.unwrap()).collect()
    }

    #[test]
    fn a_message_reads_back_as_the_pulses_it_was_made_of() {
        for items in [1, 5] {
            let made = Recipe { items, ..RECIPE }.message(3);
            assert_eq!(decoded(&made), made.fresh);
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_messages_for_ever() {
        let made = RECIPE.message(3);
        assert_eq!(
            String::from_utf8(made.body).unwrap(),
            r#"{"id":"0000000000000007-3-0","tenant":"tenant_00001","product_sku":"SKU-0001","used_amount":795.017,"use_unity":"request","occurred_at":"2026-01-01T06:29:46Z"}"#
        );
        assert_ne!(RECIPE.message(3).message_id, Recipe { seed: 8, ..RECIPE }.message(3).message_id);
    }

    #[test]
    fn repetitions_are_exact_and_as_many_as_asked_for() {
        let recipe = Recipe { duplicates: 20, ..RECIPE };
        let (mut bodies, mut fresh) = (HashMap::new(), 0);
        for number in 0..10_000 {
            let made = recipe.message(number);
            fresh += made.fresh.len();
            let first = bodies.entry(made.message_id).or_insert_with(|| made.body.clone());
            assert_eq!(*first, made.body);
        }
        assert_eq!(fresh, bodies.len(), "every message is fresh once");
        assert!((7_800..8_200).contains(&fresh), "{fresh}");
    }

    #[test]
    fn all_tenants_products_and_hours_are_used() {
        let pulses: Vec<Pulse> = (0..2_000).flat_map(|number| RECIPE.message(number).fresh).collect();
        let count = |key: fn(&Pulse) -> String| pulses.iter().map(key).collect::<HashSet<_>>().len();
        assert_eq!(count(|pulse| pulse.tenant.to_string()), 3);
        assert_eq!(count(|pulse| pulse.product_sku.to_string()), 2);
        assert_eq!(count(|pulse| pulse.hour.to_string()), 24);
    }
}
