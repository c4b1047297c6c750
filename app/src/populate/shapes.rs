//! Made-up purchases and tasks, as the mappings `purchase` and `task` read them.

use application::populate::{Dice, Made, origin};
use chrono::{DateTime, SecondsFormat};
use domain::{Amount, HourWindow, ProductSku, Pulse, PulseIdentity, TenantId, Timestamp, UsageUnit};
use serde_json::json;

const MADE: &str = "made-up names and amounts are valid";
const CURRENCIES: [&str; 3] = ["EUR", "USD", "GBP"];
/// How many ids tasks have: they recur.
const TASK_IDS: u64 = 1_000;

/// Which purchases to make up.
#[derive(Clone, Copy, Debug)]
pub(super) struct PurchaseRecipe {
    /// Names the purchases: another seed, other ids.
    pub(super) seed: u64,
    /// How many trainers, at least 1.
    pub(super) trainers: u32,
    /// How many trainings, at least 1. Each is paid in one currency.
    pub(super) trainings: u32,
    /// The first hour of the purchases.
    pub(super) start: HourWindow,
    /// Over how many hours they spread, at least 1.
    pub(super) hours: u32,
    /// How many of 100 messages repeat an earlier one, 0 to 90.
    pub(super) duplicates: u8,
}

impl PurchaseRecipe {
    /// The message with this number, from 0.
    pub(super) fn message(&self, number: u64) -> Made {
        let origin = origin(self.seed, self.duplicates, number);
        let mut dice = Dice::new(self.seed, origin, 0);
        let (trainer, training) = (dice.below(self.trainers.into()), dice.below(self.trainings.into()));
        let (user, cents) = (dice.below(100_000), 1 + dice.below(50_000));
        let seconds =
            self.start.start_seconds().saturating_add_unsigned(dice.below(u64::from(self.hours) * 3_600));
        let occurred_at = Timestamp::new(seconds, 0);
        let (trainer, sku) = (format!("t-{trainer:05}"), format!("tr-{training:04}"));
        let currency = CURRENCIES[usize::try_from(training).unwrap_or_default() % CURRENCIES.len()];
        let id = format!("p-{:016x}-{origin}", self.seed);
        let time =
            DateTime::from_timestamp(seconds, 0).expect(MADE).to_rfc3339_opts(SecondsFormat::Secs, true);
        let body = json!({
            "user_id": format!("u-{user:05}"),
            "trainer_id": trainer,
            "purchase_id": id,
            "timestamp": time,
            "training": {
                "type": if training % 2 == 0 { "live" } else { "video" },
                "training_id": sku,
                "title": format!("Training {training}"),
                "category": "health",
                "price_cents": cents,
                "discount_cents": 0,
                "session_date": time,
            },
            "payment": { "method": "card", "status": "paid", "amount_cents": cents, "currency": currency },
        });
        let pulse = Pulse {
            tenant: TenantId::new(trainer).expect(MADE),
            product_sku: ProductSku::new(sku).expect(MADE),
            use_unity: UsageUnit::new(currency).expect(MADE),
            amount: Amount::parse(&cents.to_string()).expect(MADE),
            identity: Some(PulseIdentity::Id(id.as_str().into())),
            occurred_at: Some(occurred_at),
            hour: HourWindow::of(occurred_at),
        };
        let fresh = if origin == number { vec![pulse] } else { Vec::new() };
        Made { message_id: id, body: body.to_string().into_bytes(), fresh }
    }
}

/// Which tasks to make up.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskRecipe {
    /// Names the messages: another seed, other tasks.
    pub(super) seed: u64,
    /// How many customers, at least 1.
    pub(super) customers: u32,
}

impl TaskRecipe {
    /// The message with this number, from 0, counted for the hour of its making. None repeats another one: the ids of tasks
    /// recur, and each task counts.
    pub(super) fn message(&self, number: u64, now: Timestamp) -> Made {
        let customer = Dice::new(self.seed, number, 0).below(self.customers.into());
        let customer = format!("customer_{customer:05}");
        let body = json!({
            "id": (number % TASK_IDS).to_string(),
            "customer": customer,
            "payload": format!("resize image {number}"),
        });
        let pulse = Pulse {
            tenant: TenantId::new(customer).expect(MADE),
            product_sku: ProductSku::new("task").expect(MADE),
            use_unity: UsageUnit::new("task").expect(MADE),
            amount: Amount::parse("1").expect(MADE),
            identity: None,
            occurred_at: None,
            hour: HourWindow::of(now),
        };
        let message_id = format!("task-{:016x}-{number}", self.seed);
        Made { message_id, body: body.to_string().into_bytes(), fresh: vec![pulse] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::{
        decode::{Decoder, Format},
        ports::{Delivery, Envelope, PartitionId},
    };
    use std::{collections::HashSet, path::Path, sync::Arc};

    fn read(mapping: &str, body: &[u8], received_at: Timestamp) -> Pulse {
        let mapping = crate::mappings::find(mapping, Path::new("/")).unwrap();
        let decoder = Decoder { format: Format::Mapping(Arc::new(mapping)), ..Decoder::default() };
        let (partition, envelope) = (PartitionId(0), Envelope::default());
        let body = body.to_vec();
        let delivery =
            Delivery { partition, sequence: 0, body, envelope, received_at, log: None, returns: 0 };
        let mut items = Vec::new();
        decoder.decode(&delivery, &mut items);
        items.remove(0).pulse.unwrap()
    }

    #[test]
    fn the_mapping_reads_each_purchase_as_it_was_made_and_knows_a_repeated_one() {
        let start = HourWindow::from_number(400_000);
        let recipe = PurchaseRecipe { seed: 7, trainers: 5, trainings: 4, start, hours: 3, duplicates: 20 };
        let (mut ids, mut fresh_ones) = (HashSet::new(), 0);
        for number in 0..500 {
            let Made { body, fresh, .. } = recipe.message(number);
            let read = read("purchase", &body, Timestamp::new(2_000_000_000, 0));
            assert_eq!(ids.insert(read.identity.clone()), !fresh.is_empty());
            fresh_ones += fresh.len();
            assert!(fresh.into_iter().all(|made| made == read));
        }
        assert!((350..450).contains(&fresh_ones), "{fresh_ones}");
    }

    #[test]
    fn the_mapping_reads_each_task_as_it_was_made_though_ids_recur() {
        let recipe = TaskRecipe { seed: 7, customers: 5 };
        let now = Timestamp::new(1_700_000_000, 0);
        let mut messages = HashSet::new();
        for number in [0, 1, 999, 1_000, 1_001] {
            let Made { message_id, body, fresh } = recipe.message(number, now);
            assert_eq!(fresh, [read("task", &body, now)]);
            assert!(messages.insert(message_id));
        }
    }
}
