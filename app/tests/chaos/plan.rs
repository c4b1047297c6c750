//! What is published in a round, and the record of what must come of it: made from a seed, with no code of the program.

use crate::totals_table::Totals;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};

const TENANTS: [&str; 12] = [
    "acme",
    "a:b",
    "b",
    "}{",
    "*?[",
    "\u{1f600} \u{b5}",
    "tenant with spaces",
    "a",
    "x.y.z",
    "%25",
    "null",
    "-1",
];
const SKUS: [&str; 4] = ["SKU-1", "SKU-997", "b:c", "c"];
const UNITS: [&str; 3] = ["KB", "call", "a:b"];
const HOURS: [&str; 3] = ["2026-01-10T11", "2026-01-10T12", "2026-01-11T00"];
const NANOS: u128 = 1_000_000_000;

/// A message as it is published.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The AMQP message id, where the pulses have none of their own.
    pub(crate) id: Option<String>,
    pub(crate) body: String,
    pub(crate) items: Vec<Item>,
}

/// What an item of a message is where its place in a log is all that identifies it.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// It adds to an hourly total.
    Pulse([String; 4], u128),
    /// It is refused, with these bytes.
    Bad(String),
}

/// What is published in a round, and what must come of it.
pub(crate) struct Plan {
    pub(crate) messages: Vec<Message>,
    pub(crate) expected: Expected,
}

/// The books of a quiet day.
#[derive(Default)]
pub(crate) struct Expected {
    sums: BTreeMap<[String; 4], (u128, u64)>,
    /// The bodies of the dead letters, each different from all others.
    pub(crate) letters: BTreeSet<String>,
    /// The bytes of every event that an archive keeps, and how often.
    pub(crate) archived: BTreeMap<String, u64>,
}

impl Expected {
    /// Of a log that holds these messages of a plan: each item as often as it is there.
    pub(crate) fn of_log(plan: &Plan, bodies: &[String]) -> Result<Self, String> {
        let known: BTreeMap<&str, &[Item]> =
            plan.messages.iter().map(|message| (message.body.as_str(), &message.items[..])).collect();
        let mut expected = Self::default();
        for body in bodies {
            let items = known.get(body.as_str()).ok_or_else(|| format!("nobody has sent {body}"))?;
            for item in *items {
                match item {
                    Item::Pulse(key, nanos) => expected.add(key.clone(), *nanos),
                    Item::Bad(text) => drop(expected.letters.insert(text.clone())),
                }
            }
        }
        Ok(expected)
    }

    fn add(&mut self, key: [String; 4], nanos: u128) {
        let sum = self.sums.entry(key).or_default();
        *sum = (sum.0 + nanos, sum.1 + 1);
    }

    /// As the ledger shows them.
    pub(crate) fn totals(&self) -> Totals {
        self.sums.iter().map(|(key, (nanos, pulses))| (key.clone(), (decimal(*nanos), *pulses))).collect()
    }

    /// What each tenant used of each product in each unit, over all hours, as JSON lines.
    pub(crate) fn products(&self) -> BTreeSet<String> {
        let mut products = BTreeMap::<[&str; 3], u128>::new();
        for ([tenant, sku, unit, _], (nanos, _)) in &self.sums {
            *products.entry([sku, unit, tenant]).or_default() += nanos;
        }
        let line = |([sku, unit, tenant], nanos): ([&str; 3], u128)| {
            format!(r#"["{sku}", "{unit}", "{tenant}", "{}"]"#, decimal(nanos))
        };
        products.into_iter().map(line).collect()
    }

    /// How many pulses must be counted.
    pub(crate) fn pulses(&self) -> u64 {
        self.sums.values().map(|(_, pulses)| pulses).sum()
    }
}

/// An amount without trailing zeros.
fn decimal(nanos: u128) -> String {
    let (units, rest) = (nanos / NANOS, nanos % NANOS);
    if rest == 0 { units.to_string() } else { format!("{units}.{rest:09}").trim_end_matches('0').to_owned() }
}

/// What a 1 before the first digit of an amount adds to it.
fn leading_one(nanos: u128) -> u128 {
    let digits = (nanos / NANOS).to_string().len();
    10_u128.pow(u32::try_from(digits).unwrap()) * NANOS
}

/// How the items of a message stand in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    Array,
    Lines,
}

struct Maker {
    is_good: bool,
    random: StdRng,
    prefix: String,
    made: u64,
    expected: Expected,
    /// Pulses with an id of their own, which may come again in any message.
    pulses: Vec<String>,
    /// Every item that is a pulse, whatever its id.
    texts: BTreeMap<String, ([String; 4], u128)>,
}

impl Plan {
    /// About so many messages. `prefix` keeps the ids of rounds apart.
    pub(crate) fn new(seed: u64, prefix: &str, count: usize) -> Self {
        Self::drawn(seed, prefix, count, false)
    }

    /// As [`Self::new`], of single pulses and arrays that all count and have an id of their own.
    pub(crate) fn of_good_pulses(seed: u64, prefix: &str, count: usize) -> Self {
        Self::drawn(seed, prefix, count, true)
    }

    fn drawn(seed: u64, prefix: &str, count: usize, is_good: bool) -> Self {
        let mut maker = Maker {
            is_good,
            random: StdRng::seed_from_u64(seed),
            prefix: prefix.to_owned(),
            made: 0,
            expected: Expected::default(),
            pulses: Vec::new(),
            texts: BTreeMap::new(),
        };
        let mut messages: Vec<Message> = Vec::with_capacity(count);
        for _ in 0..count {
            let again = maker.random.random_ratio(1, 12) && !messages.is_empty();
            let message = if again {
                messages[maker.random.random_range(0..messages.len())].clone()
            } else {
                maker.message()
            };
            messages.push(message);
        }
        Self { messages, expected: maker.expected }
    }
}

impl Maker {
    fn message(&mut self) -> Message {
        if self.is_good {
            let pulses: Vec<String> = (0..self.random.random_range(1..12)).map(|_| self.good()).collect();
            // One in an array by itself would do as well.
            let body = if pulses.len() == 1 { pulses.concat() } else { format!("[{}]", pulses.join(",")) };
            return Message { id: None, body, items: self.items(&pulses) };
        }
        let shape = match self.random.random_range(0..10) {
            0..5 => Shape::Single,
            5..8 => Shape::Array,
            _ => Shape::Lines,
        };
        if self.random.random_ratio(1, 15) {
            let body = self.unreadable();
            return Message { id: None, items: vec![Item::Bad(body.clone())], body };
        }
        let count = if shape == Shape::Single { 1 } else { self.random.random_range(2..25) };
        // The place in a message is only an identity where all of its items have none of their own.
        let own_ids = self.random.random_ratio(4, 5);
        let mut items: Vec<String> = Vec::with_capacity(count + 1);
        for _ in 0..count {
            let item = match self.random.random_range(0..20) {
                0 if shape != Shape::Single => self.bad_item(),
                1 | 2 if own_ids && !self.pulses.is_empty() => {
                    let copy = self.random.random_range(0..self.pulses.len());
                    self.pulses[copy].clone()
                }
                3 if own_ids && shape != Shape::Single => {
                    let (first, second) = self.conflict();
                    items.push(first);
                    second
                }
                _ => self.pulse(own_ids),
            };
            items.push(item);
        }
        let id = (!own_ids).then(|| self.name("m"));
        if shape == Shape::Single {
            items.truncate(1);
        }
        let verdicts = self.items(&items);
        let body = match shape {
            Shape::Single => items.remove(0),
            Shape::Array => format!("[{}]", items.join(",")),
            Shape::Lines => items.join("\n"),
        };
        Message { id, body, items: verdicts }
    }

    /// Each of the texts by itself.
    fn items(&self, texts: &[String]) -> Vec<Item> {
        let item = |text: &String| match self.texts.get(text) {
            Some((key, nanos)) => Item::Pulse(key.clone(), *nanos),
            None => Item::Bad(text.clone()),
        };
        texts.iter().map(item).collect()
    }

    /// A name that nothing else has.
    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{}{kind}{}", self.prefix, self.made)
    }

    /// A new pulse, or one that came before.
    fn good(&mut self) -> String {
        if self.random.random_ratio(1, 10) && !self.pulses.is_empty() {
            let copy = self.random.random_range(0..self.pulses.len());
            return self.pulses[copy].clone();
        }
        self.pulse(true)
    }

    /// A pulse that counts.
    fn pulse(&mut self, own_id: bool) -> String {
        let nanos = self.amount();
        let (key, text) = self.text(nanos, own_id);
        self.expected.add(key.clone(), nanos);
        *self.expected.archived.entry(text.clone()).or_default() += 1;
        self.texts.insert(text.clone(), (key, nanos));
        if own_id {
            self.pulses.push(text.clone());
        }
        text
    }

    /// Two of one id: the first counts, the second is refused, in whatever order messages come.
    fn conflict(&mut self) -> (String, String) {
        let first = self.pulse(true);
        let (start, amount) = first.split_once("\"used_amount\":\"").unwrap();
        let second = format!("{start}\"used_amount\":\"1{amount}");
        // A copy alone in another message could come first, were it kept.
        self.pulses.pop();
        self.expected.letters.insert(second.clone());
        *self.expected.archived.entry(second.clone()).or_default() += 1;
        let (key, nanos) = self.texts[&first].clone();
        self.texts.insert(second.clone(), (key, nanos + leading_one(nanos)));
        (first, second)
    }

    fn amount(&mut self) -> u128 {
        match self.random.random_range(0..4) {
            0 => self.random.random_range(1..NANOS),
            1 => 9_007_199_254_740_993 * NANOS / 100,
            _ => self.random.random_range(1..10_000_u128) * NANOS,
        }
    }

    fn text(&mut self, nanos: u128, own_id: bool) -> ([String; 4], String) {
        let tenant = TENANTS[self.random.random_range(0..TENANTS.len())];
        let sku = SKUS[self.random.random_range(0..SKUS.len())];
        let unit = UNITS[self.random.random_range(0..UNITS.len())];
        let hour = HOURS[self.random.random_range(0..HOURS.len())];
        let minute = self.random.random_range(0..60);
        let id = if own_id { format!("\"id\":\"{}\",", self.name("p")) } else { String::new() };
        let text = format!(
            "{{{id}\"tenant\":\"{tenant}\",\"product_sku\":\"{sku}\",\"use_unity\":\"{unit}\",\
             \"occurred_at\":\"{hour}:{minute:02}:00Z\",\"used_amount\":\"{}\"}}",
            decimal(nanos)
        );
        ([tenant.to_owned(), sku.to_owned(), unit.to_owned(), format!("{hour}:00:00Z")], text)
    }

    /// A message of which nothing can be read.
    fn unreadable(&mut self) -> String {
        let body = self.name("u") + " is not json";
        self.expected.letters.insert(body.clone());
        body
    }

    /// An item that is refused among good ones.
    fn bad_item(&mut self) -> String {
        let id = self.name("b");
        let item = match self.made % 4 {
            0 => format!(r#"{{"id":"{id}","tenant":7}}"#),
            1 => {
                format!(r#"{{"id":"{id}","tenant":"t","product_sku":"s","use_unity":"u","used_amount":-1}}"#)
            }
            2 => format!(
                r#"{{"id":"{id}","tenant":"t","product_sku":"s","use_unity":"u","used_amount":"0.1234567891"}}"#
            ),
            _ => format!(r#"{{"id":"{id}","tenant":"","product_sku":"s","use_unity":"u","used_amount":1}}"#),
        };
        self.expected.letters.insert(item.clone());
        item
    }
}
